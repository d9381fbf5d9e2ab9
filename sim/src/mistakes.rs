//! How many seeds it takes to find a mistake that is made on purpose.

use conflux::mistakes::{Mistake, make};

use crate::shrink::shrink;
use crate::world::{Plan, run};

/// A mistake that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Which.
    pub mistake: Mistake,
    /// The first seed that shows it, counted from 1.
    pub seed: u64,
    /// What did not hold.
    pub failure: String,
}

/// Makes a mistake and runs one seed after another until it shows. The mistake is not made any more
/// afterwards.
pub fn find(mistake: Mistake, seeds: u64) -> Option<Found> {
    make(Some(mistake));
    let mut failures = (1..=seeds).map(|seed| run(&Plan::new(seed)));
    let found = failures.find_map(|report| {
        let failure = report.failure?.lines().next().unwrap_or_default().to_string();
        Some(Found { mistake, seed: report.plan.seed, failure })
    });
    make(None);
    found
}

/// The smaller run that shows a mistake, as a trace.
pub fn trace(mistake: Mistake, seed: u64) -> Vec<String> {
    make(Some(mistake));
    let smaller = shrink(run(&Plan::new(seed)));
    let report = run(&Plan { trace: true, ..smaller.plan });
    make(None);
    report.trace
}
