//! The checks can fail: every known mistake is found by the simulator, and some by the model checker.
//! One test, because a mistake is made by the whole process.
#![cfg(feature = "mistakes")]
#![allow(missing_docs)]

use std::panic::catch_unwind;

use conflux::mistakes::{Mistake, make};
use conflux_sim::mistakes::find;
use conflux_sim::model::{check, raft};
use conflux_sim::world::quiet_panics;

/// Within so many seeds every mistake must show.
const SEEDS: u64 = 1_000;

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
    assert!(missed.is_empty(), "not found within {SEEDS} seeds: {missed:?}");
    for mistake in [Mistake::MajorityOffByOne, Mistake::VoteGrantedTwice] {
        make(Some(mistake));
        let result = catch_unwind(|| check(raft::THREE_BUSY));
        make(None);
        assert!(result.is_err(), "{mistake:?} is not found by the model checker");
    }
}
