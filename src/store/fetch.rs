//! A state from another node, in chunks, for a node that has diverged.
//!
//! The node asks the leader for one chunk after the other; if it leads itself, it asks the other
//! members in turn. A member whose state is sound saves its committed state for the first chunk and
//! keeps it while it is asked for. The state replaces that of the node once the node has committed
//! the entry behind which it is the state.

use crate::raft::{Blob, NodeId, Position, Time};

/// A state that is on its way to this node.
#[derive(Debug, Default)]
pub(super) struct Fetch {
    /// The entry behind which it is the state, once the leader has said so.
    pub(super) at: Option<Position>,
    pub(super) data: Vec<u8>,
    /// All of it has arrived.
    pub(super) complete: bool,
    /// When to ask for the next chunk.
    pub(super) ask_at: Time,
    /// How often it was asked for.
    pub(super) asked: usize,
}

/// A request for a chunk of the state.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) from: NodeId,
    pub(super) at: Option<Position>,
    pub(super) offset: u64,
}

/// What a node gives to others that ask for its state.
#[derive(Debug, Default)]
pub(super) struct Giving {
    pub(super) asked: Vec<Asked>,
    /// The state, as a snapshot.
    pub(super) state: Option<(Position, Blob)>,
}
