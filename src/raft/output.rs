//! The input and the output of a node.

use super::entry::{Entry, HardState, Saved, Snapshot};
use super::membership::{Change, Refused};
use super::message::Message;
use super::types::{Blob, Index, NodeId, PersistSeq, Position, Term, Time};

/// One thing that happened to a node.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time has passed. The time itself is the argument `now` of [`super::Raft::handle`].
    Tick,
    /// A message arrived.
    Receive {
        /// The member that sent it.
        from: NodeId,
        /// What it sent.
        message: Message,
    },
    /// Append these commands, if this node leads. Answered in [`Output::proposed`].
    Propose(Vec<Blob>),
    /// Confirm that this node still leads and that everything up to `at_least` is committed:
    /// ReadIndex (dissertation §6.4). Answered once, in [`Output::reads`].
    Confirm {
        /// The caller's number for the confirmation.
        id: u64,
        /// The index that must be committed; 0 for whatever is committed now.
        at_least: Index,
    },
    /// This write and all before it are durable.
    Persisted(PersistSeq),
    /// If this node leads: hand leadership to this member. If it is `None` or is not another voter,
    /// the leader chooses the live voter with the longest log (dissertation §3.10).
    Transfer(Option<NodeId>),
    /// Change the configuration, if this node leads. Answered in [`Output::proposed`].
    Change(Change),
    /// This member's host is known to be dead. If the member was the leader, the others hold an
    /// election without waiting for their election timeouts.
    PeerDown(NodeId),
    /// Work on this node waits for other members. From now on, if this node is quiesced
    /// ([`super::Config::quiesce_interval`]), it counts their silence: a leader that of its
    /// followers, a follower that of its leader.
    Wake,
    /// Compact the log up to `last`: the state machine's state there replaces the entries.
    Compact {
        /// The last entry that the state includes.
        last: Position,
        /// The state machine's bytes.
        data: Blob,
    },
    /// Replace the log by this snapshot, whatever is in the log: only for
    /// [`crate::mistakes::Mistake::MendResetsLog`].
    #[cfg(feature = "mistakes")]
    Reset {
        /// The last entry that the snapshot covers.
        last: Position,
        /// The state machine's bytes.
        data: Blob,
    },
}

/// Everything that one call asks of its caller.
///
/// The caller's duties, in order: start the write in `persist`; send each message once the write
/// that its `after` names is durable (at once when it names 0); apply `committed`; answer `reads`;
/// report `events`; call again at `deadline`, or before that with another input.
#[derive(Clone, Debug, Default)]
#[must_use = "an output that is dropped loses votes, entries and messages"]
pub struct Output {
    /// What to write, atomically: all of it or none of it survives a crash. The messages that
    /// depend on the write name its number in [`Outgoing::after`]. Once it is durable, the caller
    /// reports that with [`Input::Persisted`].
    pub persist: Option<Persist>,
    /// What to send. The network may lose, repeat, delay and reorder the messages.
    pub messages: Vec<Outgoing>,
    /// What to apply, in order. It is durable on a majority, but not necessarily on this node.
    pub committed: Vec<Committed>,
    /// The answers to [`Input::Confirm`]. They need not wait for `persist`.
    pub reads: Vec<Confirmed>,
    /// The answer to [`Input::Propose`] and [`Input::Change`]: the index of the first entry that
    /// was appended, or why none was.
    pub proposed: Option<Result<Index, Refused>>,
    /// What the caller may want to know. Events need not wait for `persist`.
    pub events: Vec<Event>,
    /// When to call next, in ms, if no other input comes before.
    pub deadline: Option<Time>,
}

/// One atomic write. It may be empty. Then it only proves, after a round of confirmations has
/// begun, that storage works and that no other process has taken the node over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Persist {
    /// The number of the write. Writes become durable in the order of their numbers.
    pub seq: PersistSeq,
    /// The new term and vote.
    pub hard: Option<HardState>,
    /// A snapshot that was received from the leader or taken on this node. `entries` then has every
    /// entry behind it, so that storage may delete all older entries. It must delete them if
    /// `reset` is set.
    pub snapshot: Option<Snapshot>,
    /// The snapshot replaces a log that conflicts with it or ends before it: delete every older
    /// entry.
    pub reset: bool,
    /// The entries to write, after deleting every stored entry from the first one's index on.
    pub entries: Vec<Entry>,
}

impl Persist {
    /// A write of everything that a node must remember, for storage that is empty.
    pub fn begin(seq: PersistSeq, saved: &Saved) -> Self {
        let (snapshot, entries) = (saved.snapshot.clone(), saved.entries.clone());
        Self { seq, hard: Some(saved.hard), snapshot, reset: false, entries }
    }
}

/// What the current call has changed and its [`Persist`] must hold.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unsaved {
    /// The term or the vote has changed.
    pub(super) hard: bool,
    /// The log has changed from this index on.
    pub(super) entries_from: Option<Index>,
    /// There is a new snapshot.
    pub(super) snapshot: bool,
    /// The new snapshot was received and replaces the log ([`Persist::reset`]).
    pub(super) reset: bool,
    /// A newer round of confirmations was begun or answered: a write must prove that no other
    /// process has taken the node over.
    pub(super) round: bool,
}

impl Unsaved {
    /// The log has changed from `index` on.
    pub(super) fn entries(&mut self, index: Index) {
        self.entries_from = Some(self.entries_from.map_or(index, |from| from.min(index)));
    }

    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        !(self.hard || self.entries_from.is_some() || self.snapshot || self.round)
    }
}

/// A message, and the write that must be durable before the message may leave.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outgoing {
    /// The member to send it to.
    pub to: NodeId,
    /// What to send.
    pub message: Message,
    /// The number of the write that must be durable first; 0 for none.
    pub after: PersistSeq,
}

/// Something to apply to the state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    /// Replace the state by that of the snapshot.
    Snapshot(Snapshot),
    /// Every entry up to this index is committed. [`super::Raft::entry`] returns the entries.
    UpTo(Index),
}

/// The answer to [`Input::Confirm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// The caller's number for the confirmation.
    pub id: u64,
    /// The index up to which the state must be applied before it is read; `None` when this node
    /// does not lead, or lost its leadership before the confirmation.
    pub index: Option<Index>,
}

/// Something that the caller may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The term changed, or the leader that this node knows.
    Leader {
        /// The current term.
        term: Term,
        /// Its leader, as far as this node knows.
        leader: Option<NodeId>,
    },
    /// Entries were appended to the log, after conflicting ones had been truncated.
    Appended {
        /// The index of the first entry that is new.
        from: Index,
    },
    /// The configuration in force changed, or it was there already and is committed now.
    Members,
    /// A peer sent a message that no correct peer sends. It was ignored.
    Invalid {
        /// The peer.
        from: NodeId,
        /// What was wrong.
        error: Invalid,
    },
}

/// How much work is waiting in a node. All of it is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// The number of writes of the log that are not durable yet.
    pub writes: usize,
    /// The number of confirmations without an answer.
    pub reads: usize,
    /// The number of messages with entries that have no reply, for the peer with most of them.
    pub inflight: usize,
    /// The bytes of entries that are not committed; 0 when this node does not lead.
    pub uncommitted_bytes: usize,
}

/// What can be wrong with a message. Nothing of this is fatal: the message is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The sender's id is 0 or this node's own.
    #[error("the sender is not a member")]
    NotMember,
    /// The bytes are not those of a snapshot.
    #[error("the snapshot cannot be read")]
    Snapshot,
    /// The term is 0, or too large for any real cluster.
    #[error("the term is impossible")]
    Term,
    /// A leader's message in a term that has another leader: this node, or one that it knows.
    #[error("two leaders in one term")]
    SecondLeader,
    /// The entries, or their positions, cannot be those of a log: they have a gap, their terms
    /// decrease or are newer than the message's, or an index is too large.
    #[error("the entries do not follow each other")]
    Entries,
    /// The reply acknowledges entries that this leader does not have.
    #[error("it acknowledges entries that do not exist")]
    MatchedBeyondLog,
    /// The chunk lies outside of its item or is empty, the item is larger than
    /// [`super::Config::max_transfer_bytes`], or the reply claims to have all of the item or more.
    #[error("the chunk does not fit the item that it is part of")]
    Chunk,
    /// The reply echoes a round of confirmations that this leader has not begun.
    #[error("a reply to something that was not asked")]
    Unasked,
}
