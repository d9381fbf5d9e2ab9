//! What goes into the core and what comes out of it.

use super::entry::{Entry, HardState, Saved, Snapshot};
use super::membership::{Change, Refused};
use super::message::Message;
use super::types::{Blob, Index, NodeId, PersistSeq, Position, Term, Time};

/// One thing that happened to a node.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time has passed; only the `now` beside it counts.
    Tick,
    /// A message arrived.
    Receive {
        /// The member that sent it.
        from: NodeId,
        /// What it sent.
        message: Message,
    },
    /// Commands to append. Answered in [`Output::proposed`].
    Propose(Vec<Blob>),
    /// "Tell me when everything up to `at_least` is committed and I have led all the while":
    /// ReadIndex (dissertation §6.4). Answered in [`Output::reads`], once.
    Confirm {
        /// The caller's number for it.
        id: u64,
        /// The index that must be committed; 0 for whatever is committed now.
        at_least: Index,
    },
    /// Everything up to this write is durable.
    Persisted(PersistSeq),
    /// Hand leadership to this member, or to the one that is most_up_to_date (dissertation §3.10).
    Transfer(Option<NodeId>),
    /// Change the configuration. Answered in [`Output::proposed`].
    Change(Change),
    /// This member's host is known to be dead: if it leads, it need not be waited for.
    PeerDown(NodeId),
    /// Something waits here for the others. Who rests ([`super::Config::quiesce_interval`]) counts from now on, a
    /// leader the silence of the others, a follower that of the leader.
    Wake,
    /// The state machine was saved: entries up to there may go.
    Compact {
        /// The last entry that is in it.
        last: Position,
        /// The state machine's bytes.
        data: Blob,
    },
}

/// Everything that one call asks of its caller.
///
/// The caller's duties, in order: start the write in `persist`; send each message once the write
/// that it names in `after` is durable (at once when it names 0); apply `committed`; answer
/// `reads`; report `events`; call again at `deadline`, or before if anything happens.
#[derive(Clone, Debug, Default)]
#[must_use = "an output that is dropped loses votes, entries and messages"]
pub struct Output {
    /// What to write, in one piece: all of it or none of it survives a crash. Nothing may be done
    /// that depends on it before it is durable; that is what [`Outgoing::after`] says. When it is,
    /// say so with [`Input::Persisted`].
    pub persist: Option<Persist>,
    /// What to send. Losing, repeating, delaying and reordering them is allowed.
    pub messages: Vec<Outgoing>,
    /// What to apply, in order. Durable on a majority; it need not be durable here.
    pub committed: Vec<Committed>,
    /// Confirmations that were asked for. Depends on nothing being durable.
    pub reads: Vec<Confirmed>,
    /// The answer to [`Input::Propose`] and [`Input::Change`]: the index of the first entry, or why
    /// none was appended.
    pub proposed: Option<Result<Index, Refused>>,
    /// What the caller may want to know. Depends on nothing being durable.
    pub events: Vec<Event>,
    /// When to call next, if nothing happens before.
    pub deadline: Option<Time>,
}

/// One atomic write. It may hold nothing: then it only shows that storage is there, and that the node
/// is still this process's own, at a time after a round of confirmations has begun.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Persist {
    /// Its number; writes become durable in this order.
    pub seq: PersistSeq,
    /// New term and vote.
    pub hard: Option<HardState>,
    /// A snapshot received from the leader, or taken here. It comes with every entry that follows it:
    /// all that was written before may be deleted, and must be when `reset` is set.
    pub snapshot: Option<Snapshot>,
    /// The snapshot replaces a log that does not fit it: delete every entry.
    pub reset: bool,
    /// Delete every entry from the first one's index on, then write these.
    pub entries: Vec<Entry>,
}

impl Persist {
    /// A write with which storage begins anew: all that a node remembers.
    pub fn begin(seq: PersistSeq, saved: &Saved) -> Self {
        let (snapshot, entries) = (saved.snapshot.clone(), saved.entries.clone());
        Self { seq, hard: Some(saved.hard), snapshot, reset: false, entries }
    }
}

/// What a call has changed that must be written: what its [`Persist`] will hold.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unsaved {
    /// Term or vote.
    pub(super) hard: bool,
    /// The log, from this index on.
    pub(super) entries_from: Option<Index>,
    /// There is a new snapshot.
    pub(super) snapshot: bool,
    /// The new snapshot replaces a log that does not fit it.
    pub(super) reset: bool,
    /// A newer round of confirmations was begun or answered: a write must show that storage is still
    /// this node's own.
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

/// A message and what must be durable before it may leave.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outgoing {
    /// The member to send it to.
    pub to: NodeId,
    /// What to send.
    pub message: Message,
    /// The write that must be durable first; 0 for none.
    pub after: PersistSeq,
}

/// Something to apply to the state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    /// Throw the state away and load this one.
    Snapshot(Snapshot),
    /// The entry at this index, which [`super::Raft::entry`] gives, is committed, and so are all
    /// before it.
    UpTo(Index),
}

/// The answer to [`Input::Confirm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// The caller's number for it.
    pub id: u64,
    /// The index up to which the answer may rely on the state; `None` when this node did not lead
    /// to the end, so that nothing was confirmed.
    pub index: Option<Index>,
}

/// Something that the caller may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Role, term or known leader changed.
    Leader {
        /// The current term.
        term: Term,
        /// Who leads it, as far as this node knows.
        leader: Option<NodeId>,
    },
    /// The log changed from this index on: entries were appended there, others cut off.
    Appended {
        /// The first index that is new.
        from: Index,
    },
    /// The configuration changed, or one that was there already is committed now.
    Members,
    /// A peer sent something that cannot be; it was ignored.
    Invalid {
        /// The peer.
        from: NodeId,
        /// What was wrong.
        error: Invalid,
    },
}

/// What waits in a node. All of it is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// Writes that touch the log and are not durable.
    pub writes: usize,
    /// Confirmations that are asked for.
    pub reads: usize,
    /// Unacknowledged messages with entries, to the member that has most of them.
    pub inflight: usize,
    /// Bytes of entries that are not committed, while this node leads.
    pub uncommitted_bytes: usize,
}

/// What can be wrong with a message. None is fatal: the message is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It came from nobody, or from this node itself.
    #[error("the sender is not a member")]
    NotMember,
    /// A snapshot's bytes are none.
    #[error("the snapshot cannot be read")]
    Snapshot,
    /// Its term is 0, or so large that no real cluster can have got there.
    #[error("the term is impossible")]
    Term,
    /// A leader's message in a term that another node, or this one, leads.
    #[error("two leaders in one term")]
    SecondLeader,
    /// Its entries have gaps, go back in terms, or are newer than the message.
    #[error("the entries are not a piece of a log")]
    Entries,
    /// It acknowledges entries that this leader does not have.
    #[error("it acknowledges entries that do not exist")]
    MatchedBeyondLog,
    /// A piece that lies outside of its whole, or a whole that is larger than allowed.
    #[error("a piece does not fit its whole")]
    Chunk,
    /// An answer to something that this node never sent.
    #[error("an answer to no question")]
    Unasked,
}
