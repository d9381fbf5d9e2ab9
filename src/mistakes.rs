//! Deliberate bugs: known mistakes of implementations of Raft and of exactly-once execution. The
//! simulator switches one of them on, to show that its checks find it.
//!
//! They exist only with the feature `mistakes`. Without it `made` is a constant `false`, and the
//! compiler removes them. Nothing that is shipped has the feature.

/// A deliberate bug. Each variant says what the code does wrong while it is switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// A majority is ⌊n/2⌋ voters (at least one) instead of ⌊n/2⌋ + 1.
    MajorityOffByOne,
    /// A vote for a candidate is granted without being written.
    VoteNotPersisted,
    /// A node that enters a new term keeps the vote of the old one.
    VoteNotReset,
    /// A node votes for more than one candidate in a term.
    VoteGrantedTwice,
    /// A node votes for a candidate whose log is not up to date (paper §5.4.1).
    StaleLogElected,
    /// A leader commits entries of an older term by counting replicas (paper, figure 8).
    OldTermCounted,
    /// A follower accepts an append without entries although the log check fails.
    HeartbeatUnchecked,
    /// A follower does not replace a conflicting entry at index 1.
    FirstIndexKept,
    /// A follower truncates its log even if the entries of a message do not conflict with it.
    DuplicateTruncates,
    /// A follower commits up to the end of its own log, not only up to the end of what the message
    /// has verified.
    CommitClampedToTail,
    /// A follower acknowledges entries before they are durable.
    AcknowledgedEarly,
    /// A pre-candidate ignores a refusal that shows a newer term.
    PreVoteTermIgnored,
    /// Every election timeout of a node is the same.
    TimeoutDrawnOnce,
    /// A received snapshot replaces a log that has all the entries that it covers, and more.
    SnapshotOverNewerLog,
    /// Snapshots do not contain the session table.
    SessionsNotInSnapshot,
    /// A perform that a client sends again runs again.
    RetryAppliedTwice,
    /// A leader that may have been deposed sends a verdict without confirming its leadership.
    VerdictUnconfirmed,
    /// Verdicts are not logged, so the next leader judges those performs again, after later ones.
    VerdictJudgedAgain,
    /// Performs of an expired session run.
    ExpiredSessionRuns,
    /// A fixed cluster starts Raft when a majority of the proposed set, not all of it, has accepted
    /// the set.
    VoteBeforeFormed,
    /// A leader confirms a read without the replies of a majority.
    ReadUnconfirmed,
    /// The refusal of a message of an older term echoes its round, which a leader may take for one
    /// of its new term.
    StaleRoundEchoed,
    /// A configuration stays in force when its entry is truncated.
    ChangeNotRolledBack,
    /// A leader changes the configuration before the last change is committed.
    TwoChanges,
    /// A leader changes the configuration before an entry of its own term is committed.
    ChangeBeforeTerm,
    /// Majorities are those of the newest committed configuration, not of the newest one.
    OldQuorum,
    /// A node becomes a candidate without a PreVote, and a node that hears from a leader enters the
    /// candidate's term. So a removed node disrupts the cluster.
    RemovedDisrupts,
    /// Learners count for majorities, and vote.
    LearnerCounted,
    /// A quiesced node does not wake when another node asks for a PreVote.
    NeverWoken,
    /// A host goes on running a node although it knows that another host has taken it over.
    ZombieRunsOn,
    /// Storage accepts writes of a host that another host has replaced (an older epoch).
    EpochUnchecked,
    /// A node whose lock is granted but whose record is missing is started empty.
    EmptyStart,
    /// No host steals the lock of a node whose host is frozen.
    FrozenKeepsLock,
    /// A node that was removed from the cluster runs for ever.
    RemovedRunsOn,
    /// An adopted node is deleted before its removal is committed.
    DeletedTooEarly,
    /// Messages of a session are taken for another session with the same number; and a client keeps
    /// its session in a cluster that was founded anew.
    SessionWithoutNonce,
    /// A node keeps its own first state, and does not load the one of the cluster.
    FirstStateLocal,
    /// A node whose state is known to be wrong leads and judges.
    DivergedLeads,
    /// A node makes a snapshot of its state before a majority has found it right.
    SnapshotUnconfirmed,
    /// A state that mends a diverged node is installed like a snapshot of the leader's. That resets
    /// the log of the node, although the state may be older than what it has acknowledged.
    MendResetsLog,
    /// A node whose code is older than the state reduces and judges.
    OutdatedJudges,
    /// A node that its host has adopted reduces, as the host's own node does.
    AdoptedReduces,
    /// Every node runs `migrate` itself instead of loading the state that one of them has made.
    MigrationRecomputed,
    /// A host that comes back into a cluster that was founded anew keeps its session, its performs
    /// and the state of the earlier cluster.
    ClientRevived,
    /// The simulated browser's: a node is registered although its cluster is over and another one
    /// was founded.
    RegisteredInNextCluster,
    /// The simulated browser's: a cluster is founded in storage that was deleted after its first
    /// node was written.
    FoundedWithoutNode,
    /// A host that nobody answers, or that hears another incarnation, does not look into the
    /// registry.
    EndNotNoticed,
    /// The simulated browser's: to end a cluster deletes the registry's database in a later task.
    RegistryDeletedLate,
    /// The simulated browser's: to end a cluster deletes the nodes' databases before the registry.
    NodesDeletedFirst,
}

impl Mistake {
    /// Every deliberate bug.
    pub const ALL: [Self; 49] = [
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
        Self::SessionWithoutNonce,
        Self::FirstStateLocal,
        Self::DivergedLeads,
        Self::SnapshotUnconfirmed,
        Self::MendResetsLog,
        Self::OutdatedJudges,
        Self::AdoptedReduces,
        Self::MigrationRecomputed,
        Self::ClientRevived,
        Self::RegisteredInNextCluster,
        Self::FoundedWithoutNode,
        Self::EndNotNoticed,
        Self::RegistryDeletedLate,
        Self::NodesDeletedFirst,
    ];
}

#[cfg(feature = "mistakes")]
mod switch {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::Mistake;

    /// The number of the bug that is switched on, plus one; 0 for none.
    static MADE: AtomicUsize = AtomicUsize::new(0);

    /// Switches this bug on, and every other one off.
    pub fn make(mistake: Option<Mistake>) {
        MADE.store(mistake.map_or(0, |mistake| mistake as usize + 1), Ordering::SeqCst);
    }

    /// Whether this bug is switched on.
    pub fn made(mistake: Mistake) -> bool {
        MADE.load(Ordering::Relaxed) == mistake as usize + 1
    }
}

#[cfg(feature = "mistakes")]
pub use self::switch::{made, make};

/// Whether this bug is switched on: never, without the feature `mistakes`.
#[cfg(not(feature = "mistakes"))]
pub const fn made(_: Mistake) -> bool {
    false
}
