//! Exhaustive checks of small clusters of the real core, with `stateright`: every order in which
//! messages, timeouts, writes and crashes can come, within bounds.
//!
//! What a new feature of the core can do becomes a new action of these models.

pub mod forming;
pub mod raft;

use std::fmt;
use std::time::{Duration, Instant};

use stateright::{Checker, Model};

/// A check and its name.
pub type Named = (&'static str, fn() -> Visited);

/// Checks that take seconds.
pub const SMALL: [Named; 9] = [
    ("raft: 2 nodes, slow disks, a crash", || check(raft::SMALL)),
    ("raft: 2 nodes, a command, a crash", || check(raft::COMMANDS)),
    ("raft: 3 nodes, a crash", || check(raft::THREE)),
    ("raft: 3 nodes, 3 messages at once", || check(raft::THREE_BUSY)),
    ("hosts: one of 2 nodes has two", || check(raft::TWO_HOSTS)),
    ("members: one joins", || check(raft::JOINING)),
    ("members: one of 2 goes", || check(raft::LEAVING)),
    ("forming: 2 of 3, one loses patience", || check(forming::SMALL)),
    ("forming: 2 of 3, three timers", || check(forming::LONGER)),
];

/// Checks that take minutes.
pub const LARGE: [Named; 8] = [
    ("hosts: one of 2 nodes has two, a read", || check(raft::TWO_HOSTS_READ)),
    ("members: a change among 3", || check(raft::CHANGING)),
    ("members: one of 2 goes, four timers", || check(raft::Bounds { ticks: 4, ..raft::LEAVING })),
    ("forming: 2 of 3, a node without memory", || check(forming::RESTART)),
    ("raft: 2 nodes, a command, a crash, a message twice", || {
        check(raft::Bounds { duplicates: 1, ..raft::COMMANDS })
    }),
    ("raft: 2 nodes, slow disks, a command, a crash", || {
        check(raft::Bounds { slow_disks: true, network: 2, ..raft::COMMANDS })
    }),
    ("raft: 3 nodes, a command, a crash", || {
        check(raft::Bounds { log: 3, proposals: 1, ..raft::THREE })
    }),
    ("forming: 2 of 3, three timers, one loses patience", || {
        check(forming::Bounds { withdrawals: 1, ..forming::LONGER })
    }),
];

/// What a check visited.
#[derive(Clone, Copy, Debug)]
pub struct Visited {
    /// Different states.
    pub states: usize,
    /// The greatest depth: the most steps from the first state.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
}

impl fmt::Display for Visited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} states, up to {} steps deep, {:.1?}", self.states, self.depth, self.took)
    }
}

/// Visits every state of a model within its bounds.
///
/// # Panics
/// When a property does not hold. The message shows the steps that lead to the violation.
pub fn check<M>(model: M) -> Visited
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + std::hash::Hash + PartialEq + std::fmt::Debug + Send + Sync,
    M::Action: Clone + PartialEq + std::fmt::Debug + Send + Sync,
{
    let began = Instant::now();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let checker = model.checker().threads(cores).spawn_bfs().join();
    checker.assert_properties();
    Visited {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        took: began.elapsed(),
    }
}

/// A hash of a value that is the same in every run.
fn key<T: std::hash::Hash>(value: &T) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    value.hash(&mut hasher);
    std::hash::Hasher::finish(&hasher)
}
