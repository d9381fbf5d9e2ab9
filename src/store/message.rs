//! What stores say to each other: clients to the leader, and back.
//!
//! Every message names the term for which it was meant, and the receiver ignores it in any other:
//! a perform that was sent to one leader can never reach the next one by a detour, after its client
//! has settled it there.

use serde::{Deserialize, Serialize};

use super::sessions::{Seq, SessionId, Verdict};
use crate::raft::{Blob, Index, Term};

/// A message, and the term for which it is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The term of the leader that it is for or from.
    pub term: Term,
    /// What it says.
    pub body: Body,
}

/// One perform on its way to the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The method; `None` when the client has given the perform up.
    pub method: Option<String>,
    /// The arguments.
    pub args: Blob,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Client: open a session for this nonce.
    Open {
        /// The client's random number.
        nonce: u64,
    },
    /// Client: the session is not needed any more.
    Close {
        /// Which.
        session: SessionId,
    },
    /// Client: judge these, numbered from `first` on. Without requests it asks for what the leader
    /// has to say.
    Perform {
        /// Whose.
        session: SessionId,
        /// The client knows the outcome of everything before this.
        ack: Seq,
        /// The number of the first request.
        first: Seq,
        /// Consecutive requests.
        requests: Vec<Request>,
    },
    /// Client: a piece of the arguments of a request that is larger than a message.
    Chunk {
        /// Whose.
        session: SessionId,
        /// As in `Perform`.
        ack: Seq,
        /// The request's number.
        seq: Seq,
        /// The method.
        method: String,
        /// The arguments' length in bytes.
        total: u64,
        /// Where this piece begins.
        offset: u64,
        /// The bytes.
        data: Blob,
    },
    /// Leader: everything before `next` has arrived, and this many bytes of `next` itself.
    Received {
        /// Whose.
        session: SessionId,
        /// The first request that has not arrived whole.
        next: Seq,
        /// How many bytes of its arguments have.
        offset: u64,
    },
    /// Leader: these performs ended without an action. Each verdict counts as soon as the client
    /// has applied everything up to its index, which is committed.
    Verdicts {
        /// Whose.
        session: SessionId,
        /// Number, index and verdict of each.
        verdicts: Vec<(Seq, Index, Verdict)>,
    },
    /// Client: up to which index must I have applied, so that I have missed nothing?
    Read {
        /// The client's number for it.
        id: u64,
    },
    /// Leader: the answer to `Read`.
    ReadAt {
        /// The client's number for it.
        id: u64,
        /// The index.
        index: Index,
    },
}
