//! Known mistakes in implementations of Raft and of exactly-once execution, each of which can be made
//! here on purpose, so that it can be shown that the simulator finds it.
//!
//! Only the feature `mistakes` compiles them in; without it [`made`] is a constant `false` and nothing
//! of them is left. Nothing that is shipped has the feature.

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// A majority is ⌊n/2⌋.
    MajorityOffByOne,
    /// A vote is told before it is durable.
    VoteNotPersisted,
    /// A new term begins with the old term's vote.
    VoteNotReset,
    /// A second candidate of a term gets a vote, too.
    VoteGrantedTwice,
    /// Candidates are not asked how far their log goes.
    StaleLogElected,
    /// Entries of an older term are committed by counting (paper, figure 8).
    OldTermCounted,
    /// A heartbeat is accepted whatever the log holds.
    HeartbeatUnchecked,
    /// A conflict at the first index stays.
    FirstIndexKept,
    /// What is there already is cut off and appended again, with what was behind it.
    DuplicateTruncates,
    /// The commit index is clamped to the follower's own tail, not to what the message has verified.
    CommitClampedToTail,
    /// Entries are acknowledged before they are durable.
    AcknowledgedEarly,
    /// A refused PreVote that shows a newer term is ignored.
    PreVoteTermIgnored,
    /// The election timeout is drawn once in a lifetime.
    TimeoutDrawnOnce,
    /// A snapshot replaces a log that has all of it and more.
    SnapshotOverNewerLog,
    /// The session table is not part of snapshots.
    SessionsNotInSnapshot,
    /// A perform that is sent again runs again.
    RetryAppliedTwice,
    /// A verdict is told at once, by a leader that may have been deposed.
    VerdictUnconfirmed,
    /// Verdicts are in no log, and the next leader judges them again behind their successors.
    VerdictJudgedAgain,
    /// Performs of a session that has expired run all the same.
    ExpiredSessionRuns,
    /// Raft starts when a majority has accepted a set, not all of it.
    VoteBeforeFormed,
    /// A read is answered without asking whether somebody else leads.
    ReadUnconfirmed,
    /// An answer to an older leadership counts as one to the newest round of this one.
    StaleRoundEchoed,
    /// A configuration whose entry is cut off counts on.
    ChangeNotRolledBack,
    /// The configuration is changed again before the last change is committed.
    TwoChanges,
    /// A new leader changes the configuration before an entry of its own term is committed.
    ChangeBeforeTerm,
    /// Majorities are those of the committed configuration, not of the newest.
    OldQuorum,
    /// Who hears nobody stands at once, as a node does that was removed, and who hears a leader goes
    /// into its term all the same.
    RemovedDisrupts,
    /// Learners count for majorities.
    LearnerCounted,
    /// Who rests sticks to its leader, whoever else misses it.
    NeverWoken,
    /// A host that is told that it has lost a node runs it on.
    ZombieRunsOn,
    /// A host that has lost a node writes on.
    EpochUnchecked,
    /// A node whose lock is granted and that has no record is started empty.
    EmptyStart,
    /// Nobody takes a lock away from a frozen host.
    FrozenKeepsLock,
    /// A node that was removed runs for ever.
    RemovedRunsOn,
    /// An adopted node is deleted before its removal is committed.
    DeletedTooEarly,
}

impl Mistake {
    /// All of them.
    pub const ALL: [Self; 35] = [
        Self::MajorityOffByOne,
        Self::VoteNotPersisted,
        Self::VoteNotReset,
        Self::VoteGrantedTwice,
        Self::StaleLogElected,
        Self::OldTermCounted,
        Self::HeartbeatUnchecked,
        Self::FirstIndexKept,
        Self::DuplicateTruncates,
        Self::CommitClampedToTail,
        Self::AcknowledgedEarly,
        Self::PreVoteTermIgnored,
        Self::TimeoutDrawnOnce,
        Self::SnapshotOverNewerLog,
        Self::SessionsNotInSnapshot,
        Self::RetryAppliedTwice,
        Self::VerdictUnconfirmed,
        Self::VerdictJudgedAgain,
        Self::ExpiredSessionRuns,
        Self::VoteBeforeFormed,
        Self::ReadUnconfirmed,
        Self::StaleRoundEchoed,
        Self::ChangeNotRolledBack,
        Self::TwoChanges,
        Self::ChangeBeforeTerm,
        Self::OldQuorum,
        Self::RemovedDisrupts,
        Self::LearnerCounted,
        Self::NeverWoken,
        Self::ZombieRunsOn,
        Self::EpochUnchecked,
        Self::EmptyStart,
        Self::FrozenKeepsLock,
        Self::RemovedRunsOn,
        Self::DeletedTooEarly,
    ];
}

#[cfg(feature = "mistakes")]
mod switch {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::Mistake;

    /// The number of the mistake plus one; 0 for none.
    static MADE: AtomicUsize = AtomicUsize::new(0);

    /// From now on this mistake is made, and no other.
    pub fn make(mistake: Option<Mistake>) {
        MADE.store(mistake.map_or(0, |mistake| mistake as usize + 1), Ordering::SeqCst);
    }

    /// Whether a mistake is made.
    pub(crate) fn made(mistake: Mistake) -> bool {
        MADE.load(Ordering::Relaxed) == mistake as usize + 1
    }
}

#[cfg(feature = "mistakes")]
pub(crate) use self::switch::made;
#[cfg(feature = "mistakes")]
pub use self::switch::make;

/// Whether a mistake is made.
#[cfg(not(feature = "mistakes"))]
pub(crate) const fn made(_: Mistake) -> bool {
    false
}
