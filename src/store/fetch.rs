//! A state from another node, in chunks, for a node that has diverged.
//!
//! The node asks the leader for one chunk after the other; if it leads itself, it asks the other
//! members, and goes on with the first that answers. A member whose state is sound saves its
//! committed state for the first chunk and keeps it while it is asked for. The state replaces that
//! of the node once the node has committed the entry behind which it is the state.

use crate::raft::{Blob, NodeId, Position, Time};

/// What a state is fetched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It replaces the wrong state of this node.
    Mend,
    /// This node, which leads, makes it a state of its own, newer version of the application.
    Upgrade,
    /// It is a snapshot behind which this node compacts its log. The node has no state of this
    /// version.
    Compact,
}

/// A state that is on its way to this node.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) purpose: Purpose,
    /// The entry behind which it is the state, once the leader has said so.
    pub(super) at: Option<Position>,
    pub(super) data: Vec<u8>,
    /// All of it has arrived.
    pub(super) complete: bool,
    /// When to ask for the next chunk.
    pub(super) ask_at: Time,
    /// How often it was asked for since the last chunk.
    pub(super) asked: usize,
    /// The member that sent the last chunk.
    pub(super) giver: Option<NodeId>,
}

impl Fetch {
    pub(super) fn new(purpose: Purpose) -> Self {
        Self {
            purpose,
            at: None,
            data: Vec::new(),
            complete: false,
            ask_at: 0,
            asked: 0,
            giver: None,
        }
    }
}

/// A request for a chunk of the state.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) from: NodeId,
    pub(super) at: Option<Position>,
    pub(super) offset: u64,
    /// The newest snapshot is asked for, not the state.
    pub(super) snapshot: bool,
}

/// What a node gives to others that ask for its state.
#[derive(Debug, Default)]
pub(super) struct Giving {
    pub(super) asked: Vec<Asked>,
    /// The state, as a snapshot.
    pub(super) state: Option<(Position, Blob)>,
}

impl Giving {
    /// The requests for a snapshot.
    pub(super) fn take_snapshot_requests(&mut self) -> Vec<Asked> {
        let all = std::mem::take(&mut self.asked);
        let (snapshots, states) = all.into_iter().partition(|asked| asked.snapshot);
        self.asked = states;
        snapshots
    }
}
