//! The checks can fail: the simulator finds every known mistake, and the model checker finds some.
//! It is one test, because a mistake is switched on for the whole process.
#![cfg(feature = "mistakes")]
#![allow(missing_docs)]

use std::panic::catch_unwind;

use conflux::mistakes::{Mistake, make};
use conflux_sim::mistakes::find;
use conflux_sim::model::{check, raft};
use conflux_sim::parallel::quiet_panics;
use conflux_sim::shrink::shrink;
use conflux_sim::world::{Plan, run};

/// Every mistake must show within so many seeds.
const SEEDS: u64 = 8_000;

#[test]
fn every_known_mistake_is_found() {
    quiet_panics();
    let only = std::env::var("MISTAKE").ok();
    let mut missed = Vec::new();
    for mistake in Mistake::ALL {
        if only.as_ref().is_some_and(|only| format!("{mistake:?}") != *only) {
            continue;
        }
        match find(mistake, SEEDS) {
            Some(found) => println!("| `{mistake:?}` | {} | {} |", found.seed, found.failure),
            None => missed.push(mistake),
        }
    }
    a_failing_run_gets_smaller();
    assert!(missed.is_empty(), "not found within {SEEDS} seeds: {missed:?}");
    for (mistake, model) in [
        (Mistake::MajorityOffByOne, raft::THREE_BUSY),
        (Mistake::VoteGrantedTwice, raft::THREE_BUSY),
        (Mistake::EpochUnchecked, raft::TWO_HOSTS),
    ] {
        make(Some(mistake));
        let result = catch_unwind(|| check(model));
        make(None);
        assert!(result.is_err(), "{mistake:?} is not found by the model checker");
    }
}

/// The smaller run of a failure can be repeated, and is smaller than the run that failed.
fn a_failing_run_gets_smaller() {
    make(Some(Mistake::RetryAppliedTwice));
    let failed = run(&Plan::new(1));
    let smaller = shrink(failed.clone());
    let again = run(&Plan { trace: true, ..smaller.plan.clone() });
    make(None);
    assert!(failed.failure.is_some() && smaller.failure.is_some());
    assert_eq!((&again.failure, again.stats), (&smaller.failure, smaller.stats));
    assert!(smaller.stats.events < failed.stats.events, "fewer events");
    assert!(smaller.faults.iter().count() < failed.faults.iter().count(), "fewer faults");
    assert!(smaller.nodes <= failed.nodes && !again.trace.is_empty());
}
