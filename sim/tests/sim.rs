//! Runs the simulator on some seeds, which are always the same.
#![allow(missing_docs)]

use conflux_sim::conditions::{Fault, Faults};
use conflux_sim::world::{Plan, Report, run};

/// Seeds that once failed, and the bug that each showed. A change of the simulator also changes
/// what happens in a seed, so each bug of the core also has a test of its own.
const ONCE_FAILED: [(u64, &str); 9] = [
    (30, "an answer to an earlier leadership counted for a new round: stale reads"),
    (2659, "a late answer to an earlier leadership was reported as an impossible message"),
    (4257, "a client that learned of its closed session from a snapshot reported that nothing ran"),
    (9836, "an answer to a read of a node's former self counted for a new read"),
    (1206, "the simulator waited for a leader in a set that formed without the other members"),
    (7177, "an old state was computed and migrated although the reducer failed on an action"),
    (12130, "a suspected state counted as right because nodes with newer code abstained"),
    (17669, "the same, and those nodes could have computed the right one"),
    (4873, "the simulator waited for a cluster that lost its majority while it formed"),
];

fn check(report: Report) {
    if let Some(failure) = report.failure {
        panic!("seed {}: {failure}\ncargo xtask sim --seed {0}", report.plan.seed);
    }
}

#[test]
fn seeds_pass() {
    (1..=200).for_each(|seed| check(run(&Plan::new(seed))));
}

#[test]
fn seeds_that_once_failed_pass() {
    ONCE_FAILED.iter().for_each(|(seed, _)| check(run(&Plan::new(*seed))));
}

#[test]
fn every_size_passes() {
    for nodes in 1..=7 {
        check(run(&Plan { nodes: Some(nodes), ..Plan::new(1_000 + nodes as u64) }));
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [1, 2, 4, 77, 4_711] {
        let plan = Plan { trace: true, ..Plan::new(seed) };
        let (one, two) = (run(&plan), run(&plan));
        assert!(one.trace.len() > 1_000, "the trace is long enough to compare");
        assert_eq!(one.trace.join("\n"), two.trace.join("\n"), "seed {seed}");
        assert_eq!(one.stats, two.stats);
        // A run without a trace is the same run.
        assert_eq!(run(&Plan::new(seed)).stats, one.stats);
    }
}

#[test]
fn without_faults_one_election_is_enough() {
    let without: Faults = Fault::ALL.into_iter().collect();
    for seed in 1..=10 {
        let report = run(&Plan { without, ..Plan::new(seed) });
        assert_eq!(report.faults, Faults::default());
        assert_eq!(report.stats.elections, 1, "seed {seed}: one election is enough");
        assert_eq!((report.stats.crashes, report.stats.lost), (0, 0));
        assert!(report.stats.committed > 100, "seed {seed}: work is done");
        check(report);
    }
}
