//! The messages between stores: from clients to the leader, and back.
//!
//! Every message names the term for which it is meant, and the receiver ignores it in any other
//! term. Otherwise a late copy of a perform could reach a later leader after an earlier one had
//! settled the perform with a verdict, which is in no log, and the perform would run again.

use serde::{Deserialize, Serialize};

use super::sessions::{Seq, SessionRef, Verdict};
use crate::raft::{Blob, Index, Position, Term};

/// A message, and the term for which it is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The term of the leader that sends or is to receive the message.
    pub term: Term,
    /// The content.
    pub body: Body,
}

/// A perform as the leader receives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The name of the method. `None` when the perform must not run any more: it has timed out, or
    /// the client knows its outcome.
    pub method: Option<String>,
    /// The arguments.
    pub args: Blob,
}

/// The hash of a node's state at a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hash {
    /// The hash.
    pub hash: u64,
    /// The node suspects its state to be wrong, because its reducer failed on a committed action.
    pub suspect: bool,
}

/// The content of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// From a client: open a session with this nonce.
    Open {
        /// The client's random number.
        nonce: u64,
    },
    /// From a client: close this session.
    Close {
        /// The client's session.
        session: SessionRef,
    },
    /// From a client: judge these requests, which are numbered from `first` on. Without requests
    /// the client only asks for the leader's answer, or only acknowledges outcomes.
    Perform {
        /// The client's session.
        session: SessionRef,
        /// The client knows the outcome of every perform before this one.
        ack: Seq,
        /// The number of the first request.
        first: Seq,
        /// Consecutive requests.
        requests: Vec<Request>,
    },
    /// From a client: a chunk of the arguments of a request that is larger than a message.
    Chunk {
        /// The client's session.
        session: SessionRef,
        /// As in `Perform`.
        ack: Seq,
        /// The number of the perform.
        seq: Seq,
        /// The name of the method.
        method: String,
        /// The length of the arguments in bytes.
        total: u64,
        /// The byte of the arguments at which this chunk begins.
        offset: u64,
        /// The bytes of the chunk.
        data: Blob,
    },
    /// From the leader: it has every request before `next`, and `offset` bytes of `next` itself.
    Received {
        /// The client's session.
        session: SessionRef,
        /// The first request that has not arrived completely.
        next: Seq,
        /// How many bytes of the arguments of `next` have arrived.
        offset: u64,
    },
    /// From the leader: these performs ended without an action. The client settles each of them
    /// when it has applied everything up to the verdict's index, which is committed.
    Verdicts {
        /// The client's session.
        session: SessionRef,
        /// For each perform: its number, the index and the verdict.
        verdicts: Vec<(Seq, Index, Verdict)>,
    },
    /// From a client: it asks up to which index it must apply for a linearizable read.
    Read {
        /// The client's number for the read.
        id: u64,
    },
    /// From the leader: the answer to `Read`.
    ReadAt {
        /// The client's number for the read.
        id: u64,
        /// The index that the client must have applied.
        index: Index,
    },
    /// From a voter: the hash of its state before the `Check` at this index.
    Hash {
        /// The index of the check.
        check: Index,
        /// The hash; `None` from a node that has no such state.
        hash: Option<Hash>,
    },
    /// From a member that suspects its state to be wrong: check the states now.
    Check,
    /// From a member whose state is wrong to one whose state may be right: send a chunk of yours.
    Fetch {
        /// The entry behind which it is the state; `None` for the first chunk of any state.
        at: Option<Position>,
        /// The byte at which the chunk begins.
        offset: u64,
        /// Asks for the newest snapshot instead of the state.
        snapshot: bool,
    },
    /// The answer to `Fetch`.
    State {
        /// The entry behind which it is the state.
        at: Position,
        /// The length of the state, as a snapshot, in bytes.
        total: u64,
        /// The byte at which the chunk begins.
        offset: u64,
        /// The bytes of the chunk.
        data: Blob,
    },
    /// From a member to the leader: "my code is new enough to judge, let me lead".
    Offer {
        /// The version of the application that the member runs.
        version: u32,
    },
    /// From a leader that cannot judge to every member: who can?
    Seek,
}
