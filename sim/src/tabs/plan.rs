//! What to run, and how a run ended.

use crate::clock::Micros;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything that the other fields do not.
    pub seed: u64,
    /// How many events there are before the faults stop.
    pub steps: u64,
    /// Whether to keep the trace.
    pub trace: bool,
}

impl Plan {
    /// A run of the usual length.
    pub fn new(seed: u64) -> Self {
        Self { seed, steps: 4_000, trace: false }
    }
}

/// What happened in a run, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Runs.
    pub runs: u64,
    /// Events.
    pub events: u64,
    /// Simulated time.
    pub time: Micros,
    /// Performs and reads.
    pub ops: u64,
    /// Entries committed.
    pub committed: u64,
    /// Terms that had a leader.
    pub elections: u64,
    /// Tabs that were opened.
    pub opened: u64,
    /// Tabs that closed or crashed.
    pub died: u64,
    /// Tabs that froze, with or without a warning.
    pub frozen: u64,
    /// How often a host loaded a node from storage.
    pub adopted: u64,
    /// Locks that were stolen from a silent host.
    pub stolen: u64,
    /// How often all tabs died at once.
    pub extinct: u64,
    /// How often a user ended the cluster.
    pub destroyed: u64,
    /// How often the site's data were deleted.
    pub cleared: u64,
    /// How many clusters were founded.
    pub founded: u64,
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
        self.opened += other.opened;
        self.died += other.died;
        self.frozen += other.frozen;
        self.adopted += other.adopted;
        self.stolen += other.stolen;
        self.extinct += other.extinct;
        self.destroyed += other.destroyed;
        self.cleared += other.cleared;
        self.founded += other.founded;
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
    /// What happened, line by line, if the plan asks for a trace.
    pub trace: Vec<String>,
}
