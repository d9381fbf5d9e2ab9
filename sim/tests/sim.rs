//! The simulator as a test: some seeds, always the same.
#![allow(missing_docs)]

use conflux_sim::conditions::{Fault, Faults};
use conflux_sim::world::{Plan, Report, run};

/// Seeds that once failed, and what they showed. What a seed brings changes with the simulator, so
/// each of these mistakes also has a test of its own where it was made.
const ONCE_FAILED: [(u64, &str); 6] = [
    (30, "an answer to an earlier leadership counted as one to a new round: stale reads"),
    (2659, "a late answer to an earlier leadership was reported as an impossible message"),
    (4257, "a client that learned of its closed session by a snapshot was told that nothing ran"),
    (9836, "an answer to a read of a node's former self was taken for one to a new read"),
    (1206, "a member of a set that formed without the others kept looking for a leader"),
    (4873, "a cluster that lost its majority while it formed was waited for"),
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
    for seed in [1, 2, 3, 77, 4_711] {
        let plan = Plan { trace: true, ..Plan::new(seed) };
        let (one, two) = (run(&plan), run(&plan));
        assert!(one.trace.len() > 1_000, "there is something to compare");
        assert_eq!(one.trace.join("\n"), two.trace.join("\n"), "seed {seed}");
        assert_eq!(one.stats, two.stats);
        // Nor does it matter that somebody watches.
        assert_eq!(run(&Plan::new(seed)).stats, one.stats);
    }
}

#[test]
fn without_faults_nobody_waits() {
    let without: Faults = Fault::ALL.into_iter().collect();
    for seed in 1..=10 {
        let report = run(&Plan { without, ..Plan::new(seed) });
        assert_eq!(report.faults, Faults::default());
        assert_eq!(report.stats.elections, 1, "seed {seed}: one leader is enough");
        assert_eq!((report.stats.crashes, report.stats.lost), (0, 0));
        assert!(report.stats.committed > 100, "seed {seed}: work is done");
        check(report);
    }
}
