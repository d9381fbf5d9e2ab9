//! How many seeds it takes to find a mistake that is made on purpose.

use std::sync::Mutex;

use conflux::mistakes::{Mistake, make};

use crate::parallel::for_each_seed;
use crate::{tabs, world};

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

/// Whether it takes tabs to show a mistake.
fn is_of_tenancy(mistake: Mistake) -> bool {
    matches!(
        mistake,
        Mistake::ZombieRunsOn
            | Mistake::EpochUnchecked
            | Mistake::EmptyStart
            | Mistake::FrozenKeepsLock
            | Mistake::RemovedRunsOn
            | Mistake::DeletedTooEarly
    )
}

/// Makes a mistake and runs one seed after another until it shows. The mistake is not made any more
/// afterwards.
pub fn find(mistake: Mistake, seeds: u64) -> Option<Found> {
    make(Some(mistake));
    let found = Mutex::new(None::<Found>);
    for_each_seed(1.., None, |seed| {
        let first = found.lock().expect("no panic").as_ref().map(|found| found.seed);
        if seed > seeds || first.is_some_and(|first| first < seed) {
            return false;
        }
        let failure = match is_of_tenancy(mistake) {
            true => tabs::run(&tabs::Plan::new(seed)).failure,
            false => world::run(&world::Plan::new(seed)).failure,
        };
        if let Some(failure) = failure {
            let failure = failure.lines().next().unwrap_or_default().to_string();
            let mut found = found.lock().expect("no panic");
            if found.as_ref().is_none_or(|first| seed < first.seed) {
                *found = Some(Found { mistake, seed, failure });
            }
        }
        true
    });
    make(None);
    found.into_inner().expect("no panic")
}
