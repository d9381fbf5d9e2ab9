//! The messages of the protocol: PreVote, RequestVote, AppendEntries, chunks and TimeoutNow.

use serde::{Deserialize, Serialize};

use super::entry::Entry;
use super::types::{Blob, Index, Position, Term};

/// A message between two nodes. A peer is input: nothing in a message is taken for granted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// The sender's term; for [`Body::PreVote`] and its grant the term it would stand for.
    pub term: Term,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Body {
    /// "Would you vote for me?" Changes nothing at the receiver (dissertation §9.6).
    PreVote {
        /// The end of the sender's log.
        last: Position,
    },
    /// The answer to [`Body::PreVote`].
    PreVoteReply {
        /// Whether the vote would be given.
        granted: bool,
    },
    /// RequestVote (paper §5.2).
    Vote {
        /// The end of the candidate's log.
        last: Position,
        /// The leader asked for this election, so its voice does not count against it
        /// (dissertation §4.2.3).
        transfer: bool,
    },
    /// The answer to [`Body::Vote`].
    VoteReply {
        /// Whether the vote was given.
        granted: bool,
    },
    /// AppendEntries, also the heartbeat: the log check is the same with and without entries
    /// (paper §5.3).
    Append {
        /// The entry right before `entries`.
        prev: Position,
        /// The leader's commit index.
        commit: Index,
        /// The leader's newest round of confirmations, echoed in the reply (dissertation §6.4).
        round: u64,
        /// New entries, without a gap; empty in a heartbeat.
        entries: Vec<Entry>,
        /// What the leader wants to hear.
        wants: Wants,
    },
    /// The answer to [`Body::Append`].
    AppendReply {
        /// The round of the message that is answered.
        round: u64,
        /// Whether the log check passed.
        result: AppendResult,
    },
    /// A piece of something larger than a message: InstallSnapshot (paper §7), or one large entry.
    Chunk {
        /// What it is a piece of.
        of: Chunked,
        /// The whole's length in bytes.
        total: u64,
        /// Where the piece begins.
        offset: u64,
        /// The leader's newest round of confirmations.
        round: u64,
        /// The bytes.
        data: Blob,
    },
    /// The answer to [`Body::Chunk`].
    ChunkReply {
        /// What it was a piece of.
        of: Chunked,
        /// How many bytes the follower has, from the start and without a gap.
        offset: u64,
        /// The round of the message that is answered.
        round: u64,
    },
    /// "Stand for election now": leadership transfer (dissertation §3.10).
    TimeoutNow,
}

/// What the sender of a [`Body::Append`] wants to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Wants {
    /// An answer.
    Reply,
    /// Nothing: the message only tells a newer commit index, and who accepts it need not say so.
    NoReply,
    /// An answer; and then nothing is left to say, so that the leader falls silent for a while
    /// ([`Config::rest`]).
    Quiesce,
}

/// What a [`Body::Chunk`] is a piece of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Chunked {
    /// The snapshot that ends at `last`.
    Snapshot {
        /// The last entry that the snapshot covers.
        last: Position,
    },
    /// The command of the entry at `at`, which follows `prev`.
    Entry {
        /// The entry right before.
        prev: Position,
        /// The entry itself.
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

/// The outcome of AppendEntries' log check.
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
        /// The newest entry of the follower that could still be the leader's: index and term let
        /// the leader skip a whole term at once (paper §5.3, end).
        hint: Position,
    },
}
