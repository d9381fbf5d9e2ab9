//! What to run, and how a run ended.

use crate::clock::Micros;
use crate::conditions::Faults;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything that the other fields do not.
    pub seed: u64,
    /// How many members the cluster has; otherwise the seed decides.
    pub nodes: Option<usize>,
    /// How many events there are before the faults stop.
    pub steps: u64,
    /// Faults that must not happen.
    pub without: Faults,
    /// Whether to keep the trace.
    pub trace: bool,
}

impl Plan {
    /// How many events a run has by default.
    pub const STEPS: u64 = 4_000;

    /// A run of the usual length in which every fault may happen.
    pub fn new(seed: u64) -> Self {
        Self { seed, nodes: None, steps: Self::STEPS, without: Faults::default(), trace: false }
    }
}

/// What happened in a run, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Runs.
    pub runs: u64,
    /// Events: messages, timers, writes, performs, faults.
    pub events: u64,
    /// Simulated time.
    pub time: Micros,
    /// Performs and reads.
    pub ops: u64,
    /// Entries committed.
    pub committed: u64,
    /// Terms that had a leader.
    pub elections: u64,
    /// Processes that died and started again.
    pub crashes: u64,
    /// Membership changes that were requested of a leader.
    pub changes: u64,
    /// Snapshots that were taken or installed.
    pub snapshots: u64,
    /// How often a node reported that its state may be wrong.
    pub divergences: u64,
    /// Runs whose cluster lost its majority for good while it formed. Nothing is required of them
    /// then.
    pub lost: u64,
}

impl Stats {
    /// Adds the numbers of other runs.
    pub fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.events += other.events;
        self.time += other.time;
        self.ops += other.ops;
        self.committed += other.committed;
        self.elections += other.elections;
        self.crashes += other.crashes;
        self.changes += other.changes;
        self.snapshots += other.snapshots;
        self.divergences += other.divergences;
        self.lost += other.lost;
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Report {
    /// The plan.
    pub plan: Plan,
    /// What did not hold.
    pub failure: Option<String>,
    /// Numbers.
    pub stats: Stats,
    /// How many members there were.
    pub nodes: usize,
    /// The faults that could happen.
    pub faults: Faults,
    /// What happened, line by line, if the plan asks for a trace.
    pub trace: Vec<String>,
}
