//! The conditions of a run: which faults may happen and how often, latencies and limits. They are
//! drawn from the seed. Some runs have every kind of fault. Others have few kinds, because frequent
//! faults would hide the failures that only a rare order of events shows.

use std::fmt;

use conflux::raft::Time;
use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::clock::Micros;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Fault {
    /// Messages are lost.
    Loss,
    /// Messages arrive twice.
    Duplication,
    /// Messages are delayed by up to several election timeouts.
    Delay,
    /// Messages overtake each other.
    Reordering,
    /// Bits of a message are flipped, or its end is cut off.
    Corruption,
    /// The network is partitioned: into halves, in one direction only, into halves that one process
    /// connects, or around the leader.
    Partition,
    /// Processes die between any two effects, may lose their unfinished writes, and start again.
    Crash,
    /// Writes take long.
    SlowDisk,
    /// A write fails, and the host stops the node.
    DiskFailure,
    /// Clocks run too fast or too slow, by up to a third.
    Drift,
    /// Clocks jump forwards or back.
    Jump,
    /// A process freezes, entirely or only its timers, and continues later.
    Freeze,
    /// A process is slow: its messages and writes take longer.
    SlowNode,
    /// Methods, reducers and subscribers take long.
    SlowCode,
    /// Leadership is transferred.
    Transfer,
    /// Performs time out, and some clients perform again at once.
    Timeout,
    /// Processes close in an orderly way, and start again.
    Close,
    /// The limits of messages, windows and logs are small, so that entries, arguments and snapshots
    /// travel in chunks, and snapshots are frequent.
    SmallLimits,
    /// The session table has room for hardly more sessions than there are processes, and sessions
    /// of dead clients take up that room.
    FewSessions,
    /// There is one process more than the cluster has members.
    Crowd,
    /// Members join, are promoted, demoted and removed.
    Membership,
    /// The reducer of one process fails on some actions, and on no other process.
    Divergence,
    /// Processes that start again run newer code.
    Release,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Self; 23] = [
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
        Self::Divergence,
        Self::Release,
    ];

    /// The kinds that are injected at random times. The others change what happens to messages,
    /// writes, user code or performs, or hold for the whole run.
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

    /// The name of the kind, as the option `--without` accepts it.
    pub fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self).expect("none is hidden").get_name().to_string()
    }
}

/// A set of kinds of faults.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults(u32);

impl Faults {
    /// Whether this kind is in the set.
    pub fn has(self, fault: Fault) -> bool {
        self.0 & (1 << fault as u32) != 0
    }

    /// The set with one more kind.
    #[must_use]
    pub fn with(self, fault: Fault) -> Self {
        Self(self.0 | 1 << fault as u32)
    }

    /// The kinds that are in the set.
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

/// How long an idle leader may be silent, in ms (`raft::Config::quiesce_interval`). In half of the
/// runs, leaders do not quiesce. In a quarter, the interval is longer than a run may take to end,
/// so that a node with work that waits has to wake the others. The value is drawn from a copy of
/// `rng`, so the caller's later draws do not depend on it.
pub fn quiesce_interval(rng: &Xoshiro256PlusPlus) -> Option<Time> {
    let mut rng = rng.clone();
    rng.random::<bool>().then(|| if rng.random() { 600_000 } else { rng.random_range(100..20_000) })
}

/// The conditions of one run.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// The kinds of faults that may happen.
    pub faults: Faults,
    /// How many messages of a thousand are lost.
    pub loss: u32,
    /// How many messages of a thousand arrive twice.
    pub duplication: u32,
    /// How many messages of a thousand are delayed, and by how much at most, in µs.
    pub delay: (u32, Micros),
    /// How many messages of a thousand may overtake earlier ones.
    pub reordering: u32,
    /// How many messages of a thousand are corrupted.
    pub corruption: u32,
    /// The shortest and the longest time that a message takes, in µs.
    pub latency: (Micros, Micros),
    /// The shortest and the longest time that a write takes, in µs.
    pub write: (Micros, Micros),
    /// The mean pause between two attempts to inject a fault, in µs.
    pub fault_pause: Micros,
    /// The mean pause between two requests of one client, in µs.
    pub pause: Micros,
    /// The shortest and the longest election timeout, in ms.
    pub election: (Time, Time),
    /// How long a leader may be silent towards a follower, in ms.
    pub heartbeat: Time,
    /// How long a leader may be silent towards a follower that has everything, in ms; `None` if
    /// leaders do not quiesce.
    pub quiesce_interval: Option<Time>,
    /// How many bytes of entries, arguments or a chunk go into one message.
    pub max_message_bytes: usize,
    /// How many messages with entries may be unacknowledged per follower.
    pub max_inflight: usize,
    /// How many bytes of entries may be uncommitted.
    pub max_uncommitted_bytes: usize,
    /// By how many bytes the log grows before it is compacted.
    pub compact_bytes: usize,
    /// How many sessions there may be.
    pub max_sessions: usize,
    /// After how many ms without an answer a client sends a request again.
    pub retry: Time,
    /// The most bytes of padding in the arguments of most performs. One perform in ten has up to
    /// ten times as many.
    pub padding: usize,
    /// The process whose reducer fails, and on every how many-th perform.
    pub failing_reducer: Option<(usize, u32)>,
}

impl Conditions {
    /// Draws the conditions of a run with so many processes. The faults in `without` do not happen.
    pub fn draw(rng: &mut Xoshiro256PlusPlus, processes: usize, without: Faults) -> Self {
        let quiesce_interval = quiesce_interval(rng);
        let all = rng.random_ratio(1, 8);
        let faults: Faults =
            Fault::ALL.into_iter().filter(|_| all || rng.random_ratio(3, 5)).collect();
        let faults: Faults = faults.iter().filter(|fault| !without.has(*fault)).collect();
        let per_mille = |fault, rng: &mut Xoshiro256PlusPlus, most| {
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
        // With fewer sessions than clients, the clients would end each other's sessions for ever.
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
            failing_reducer: Some((rng.random_range(0..processes), rng.random_range(2..60)))
                // The other processes must be a majority: its state counts as the right one.
                .filter(|_| faults.has(Fault::Divergence) && !faults.has(Fault::Membership))
                .filter(|_| processes > 3),
        }
    }
}
