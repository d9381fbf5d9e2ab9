//! Finds the first seed in which a mistake that is made on purpose shows.

use std::sync::Mutex;

use conflux::mistakes::{Mistake, make};

use crate::parallel::for_each_seed;
use crate::{tabs, world};

/// A mistake that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The mistake.
    pub mistake: Mistake,
    /// The first seed that shows it, counted from 1.
    pub seed: u64,
    /// What did not hold.
    pub failure: String,
}

/// Whether only the simulator of tabs can show a mistake.
fn needs_tabs(mistake: Mistake) -> bool {
    matches!(
        mistake,
        Mistake::ZombieRunsOn
            | Mistake::EpochUnchecked
            | Mistake::AdoptedReduces
            | Mistake::EmptyStart
            | Mistake::FrozenKeepsLock
            | Mistake::RemovedRunsOn
            | Mistake::DeletedTooEarly
            | Mistake::SessionWithoutNonce
            | Mistake::ClientRevived
            | Mistake::RegisteredInNextCluster
            | Mistake::FoundedWithoutNode
            | Mistake::EndNotNoticed
            | Mistake::RegistryDeletedLate
            | Mistake::NodesDeletedFirst
    )
}

/// Makes a mistake and runs one seed after another, at most `seeds`, until the mistake shows. Then
/// the mistake is no longer made.
pub fn find(mistake: Mistake, seeds: u64) -> Option<Found> {
    make(Some(mistake));
    let found = Mutex::new(None::<Found>);
    for_each_seed(1.., None, |seed| {
        let first = found.lock().expect("no panic").as_ref().map(|found| found.seed);
        if seed > seeds || first.is_some_and(|first| first < seed) {
            return false;
        }
        let failure = match needs_tabs(mistake) {
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
