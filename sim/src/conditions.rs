//! What goes wrong in a run, and how often: drawn from the seed, so that some runs have all of it,
//! and some only a little, in which rare orders of events are not drowned out.

use std::fmt;

use conflux::raft::Time;
use rand::RngExt;
use rand::rngs::SmallRng;

use crate::clock::Micros;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Fault {
    /// Messages are lost.
    Loss,
    /// Messages arrive twice.
    Duplication,
    /// Messages are late, by up to some election timeouts.
    Delay,
    /// Messages overtake each other.
    Reordering,
    /// Bits of a message are turned.
    Corruption,
    /// Halves, one-way cuts, bridges, isolated leaders.
    Partition,
    /// Processes die between any two effects, with what their disk had not finished, and start again.
    Crash,
    /// Writes take long.
    SlowDisk,
    /// A write fails, and the host stops the node.
    DiskFailure,
    /// Clocks go wrong by up to a third.
    Drift,
    /// Clocks jump, forwards or back.
    Jump,
    /// A process stands still, whole or only its timers, and goes on later.
    Freeze,
    /// A process does everything late.
    SlowNode,
    /// Methods, reducers and subscribers take long.
    SlowCode,
    /// Leadership is handed over.
    Transfer,
    /// Performs are given up, and some of them asked for again.
    Timeout,
    /// Processes close in good order, and start again.
    Close,
    /// Messages, windows and logs are small, so that there are pieces, parts and snapshots.
    SmallLimits,
    /// The table has room for hardly more sessions than there are clients, and dead ones take it.
    FewSessions,
    /// There is one process more than the cluster has members.
    Crowd,
    /// Members join, are promoted, demoted and removed.
    Membership,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Self; 21] = [
        Self::Loss,
        Self::Duplication,
        Self::Delay,
        Self::Reordering,
        Self::Corruption,
        Self::Partition,
        Self::Crash,
        Self::SlowDisk,
        Self::DiskFailure,
        Self::Drift,
        Self::Jump,
        Self::Freeze,
        Self::SlowNode,
        Self::SlowCode,
        Self::Transfer,
        Self::Timeout,
        Self::Close,
        Self::SmallLimits,
        Self::FewSessions,
        Self::Crowd,
        Self::Membership,
    ];

    /// Those that happen at moments of their own, not to a message or a write.
    pub const SPONTANEOUS: [Self; 10] = [
        Self::Partition,
        Self::Crash,
        Self::DiskFailure,
        Self::Drift,
        Self::Jump,
        Self::Freeze,
        Self::SlowNode,
        Self::Transfer,
        Self::Close,
        Self::Membership,
    ];

    /// Its name, as `--without` takes it.
    pub fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self).expect("none is hidden").get_name().to_string()
    }
}

/// A set of kinds.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults(u32);

impl Faults {
    /// Whether a kind is in it.
    pub fn has(self, fault: Fault) -> bool {
        self.0 & (1 << fault as u32) != 0
    }

    /// With one more.
    #[must_use]
    pub fn with(self, fault: Fault) -> Self {
        Self(self.0 | 1 << fault as u32)
    }

    /// Those that are in it.
    pub fn iter(self) -> impl Iterator<Item = Fault> {
        Fault::ALL.into_iter().filter(move |fault| self.has(*fault))
    }
}

impl FromIterator<Fault> for Faults {
    fn from_iter<I: IntoIterator<Item = Fault>>(faults: I) -> Self {
        faults.into_iter().fold(Self::default(), Self::with)
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(Fault::name).collect();
        f.write_str(&names.join(","))
    }
}

/// How long idle leaders rest. In half of the runs they do not; in some for longer than the run may take
/// to come to its end, so that somebody has to wake them.
pub fn quiesce_interval(rng: &SmallRng) -> Option<Time> {
    let mut rng = rng.clone();
    rng.random::<bool>().then(|| if rng.random() { 600_000 } else { rng.random_range(100..20_000) })
}

/// One run's conditions.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// What may go wrong.
    pub faults: Faults,
    /// How many messages of a thousand are lost.
    pub loss: u32,
    /// How many of a thousand arrive twice.
    pub duplication: u32,
    /// How many of a thousand are late, and how late at most.
    pub delay: (u32, Micros),
    /// How many of a thousand may be overtaken.
    pub reordering: u32,
    /// How many of a thousand are corrupted.
    pub corruption: u32,
    /// How long a message takes at least and at most.
    pub latency: (Micros, Micros),
    /// How long a write takes at least and at most.
    pub write: (Micros, Micros),
    /// The mean pause between two faults.
    pub fault_pause: Micros,
    /// The mean pause between two performs of one client.
    pub pause: Micros,
    /// The longest election timeout and the shortest, and the heartbeat.
    pub election: (Time, Time),
    /// How often a leader speaks at least.
    pub heartbeat: Time,
    /// How often it speaks to who has everything.
    pub quiesce_interval: Option<Time>,
    /// Raft's and the store's limits.
    pub max_message_bytes: usize,
    /// How many messages may be unacknowledged per follower.
    pub max_inflight: usize,
    /// How many bytes may be uncommitted.
    pub max_uncommitted_bytes: usize,
    /// How much the log grows before it is compacted.
    pub compact_bytes: usize,
    /// How many sessions there may be.
    pub max_sessions: usize,
    /// When a client asks again.
    pub retry: Time,
    /// The most bytes by which arguments are padded.
    pub padding: usize,
}

impl Conditions {
    /// The conditions of a run in which `allowed` faults may happen.
    pub fn draw(rng: &mut SmallRng, processes: usize, without: Faults) -> Self {
        let quiesce_interval = quiesce_interval(rng);
        let all = rng.random_ratio(1, 8);
        let faults: Faults =
            Fault::ALL.into_iter().filter(|_| all || rng.random_ratio(3, 5)).collect();
        let faults: Faults = faults.iter().filter(|fault| !without.has(*fault)).collect();
        let per_mille = |fault, rng: &mut SmallRng, most| {
            let rate = rng.random_range(1..=most);
            if faults.has(fault) { rate } else { 0 }
        };
        let min = rng.random_range(100..=300);
        let small = faults.has(Fault::SmallLimits);
        let slow_disk = faults.has(Fault::SlowDisk);
        let mut limit = |range: std::ops::Range<usize>, normal| {
            let drawn = rng.random_range(range);
            if small { drawn } else { normal }
        };
        let (max_message_bytes, max_inflight) = (limit(60..2_000, 64 << 10), limit(1..8, 64));
        let max_uncommitted_bytes = limit(500..20_000, 1 << 20);
        let compact_bytes = limit(100..4_000, 20_000);
        let padding = limit(0..400, 20);
        // Fewer than there are clients would drive each other out for ever.
        let sessions = processes + rng.random_range(1..4);
        let fast = rng.random_range(50..1_000);
        let slow = rng.random_range(2_000..60_000);
        Self {
            faults,
            loss: per_mille(Fault::Loss, rng, 150),
            duplication: per_mille(Fault::Duplication, rng, 100),
            delay: (per_mille(Fault::Delay, rng, 50), rng.random_range(10_000..1_500_000)),
            reordering: per_mille(Fault::Reordering, rng, 500),
            corruption: per_mille(Fault::Corruption, rng, 30),
            latency: (200, rng.random_range(400..5_000)),
            write: (40, if slow_disk { slow } else { fast }),
            fault_pause: rng.random_range(20_000..400_000),
            pause: rng.random_range(3_000..60_000),
            election: (min, min + rng.random_range(20..=200)),
            heartbeat: rng.random_range(10..=60),
            quiesce_interval,
            max_message_bytes,
            max_inflight,
            max_uncommitted_bytes,
            compact_bytes,
            max_sessions: if faults.has(Fault::FewSessions) { sessions } else { 1024 },
            retry: rng.random_range(30..400),
            padding,
        }
    }
}
