//! The messages of the protocol: PreVote, RequestVote, AppendEntries, chunks and TimeoutNow.

use serde::{Deserialize, Serialize};

use super::entry::Entry;
use super::types::{Blob, Index, Position, Term};

/// A message between two nodes. A peer is input: the receiver checks everything in the message.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// The sender's term; in [`Body::PreVote`] and its grant, the term of the election that the
    /// asking node would hold.
    pub term: Term,
    /// The message itself.
    pub body: Body,
}

/// The kind of a message, with its fields.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Body {
    /// Asks whether the receiver would vote for the sender. It changes neither term nor vote of the
    /// receiver (dissertation §9.6).
    PreVote {
        /// The end of the sender's log.
        last: Position,
    },
    /// The reply to [`Body::PreVote`].
    PreVoteReply {
        /// Whether the vote would be granted.
        granted: bool,
    },
    /// RequestVote (paper §5.2).
    Vote {
        /// The end of the candidate's log.
        last: Position,
        /// The leader asked for this election, so a voter that still hears from the leader takes
        /// part (dissertation §4.2.3).
        transfer: bool,
    },
    /// The reply to [`Body::Vote`].
    VoteReply {
        /// Whether the vote was granted.
        granted: bool,
    },
    /// AppendEntries. Without entries it is the heartbeat, with the same log check (paper §5.3).
    Append {
        /// The entry right before `entries`.
        prev: Position,
        /// The leader's commit index.
        commit: Index,
        /// The leader's newest round of confirmations, which the reply echoes; 0 before the first
        /// one (dissertation §6.4).
        round: u64,
        /// New entries, without a gap; empty in a heartbeat.
        entries: Vec<Entry>,
        /// Which reply the leader wants.
        wants: Wants,
    },
    /// The reply to [`Body::Append`], and to the last [`Body::Chunk`] of an item.
    AppendReply {
        /// The round of the message that is answered.
        round: u64,
        /// Whether the log check passed.
        result: AppendResult,
    },
    /// A chunk of an item that does not fit one message: a snapshot (InstallSnapshot, paper §7), or
    /// one large entry.
    Chunk {
        /// The item.
        of: Chunked,
        /// The item's length in bytes.
        total: u64,
        /// Where in the item the chunk begins, in bytes.
        offset: u64,
        /// The leader's newest round of confirmations, as in [`Body::Append`].
        round: u64,
        /// The chunk's bytes.
        data: Blob,
    },
    /// The reply to a [`Body::Chunk`] after which more chunks are missing.
    ChunkReply {
        /// The item.
        of: Chunked,
        /// How many bytes the follower has, from the start of the item and without a gap.
        offset: u64,
        /// The round of the message that is answered.
        round: u64,
    },
    /// Asks the receiver to become a candidate at once: leadership transfer (dissertation §3.10).
    TimeoutNow,
}

/// Which reply the sender of a [`Body::Append`] wants. A rejection is always sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Wants {
    /// A reply.
    Reply,
    /// No reply if the message is accepted: it only brings a newer commit index.
    NoReply,
    /// A reply. The receiver then is quiesced: the leader sends to it only at every
    /// [`super::Config::quiesce_interval`].
    Quiesce,
}

/// An item that is sent in chunks ([`Body::Chunk`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Chunked {
    /// The snapshot that ends at `last`.
    Snapshot {
        /// The last entry that the snapshot covers.
        last: Position,
    },
    /// The command of the entry at `at`, which follows `prev`.
    Entry {
        /// The entry right before it.
        prev: Position,
        /// The position of the entry.
        at: Position,
    },
}

impl Chunked {
    /// The last position that the item covers.
    pub(super) fn end(self) -> Position {
        match self {
            Self::Snapshot { last } => last,
            Self::Entry { at, .. } => at,
        }
    }
}

/// The outcome of the log check of AppendEntries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AppendResult {
    /// The follower's log equals the leader's up to and including `matched`.
    Accepted {
        /// The last index known to be equal.
        matched: Index,
    },
    /// The follower has no entry at the message's `prev`.
    Rejected {
        /// The index of the message's `prev`.
        prev: Index,
        /// The newest position of the follower's log, at or before `prev`, that the leader's log
        /// may have, too. It lets the leader skip a whole term at once (paper §5.3, end).
        hint: Position,
    },
}
