//! The roles of a node, and the state that only one role has.

use std::collections::VecDeque;

use super::message::Chunked;
use super::progress::Progress;
use super::types::{Index, NodeId, PersistSeq, Time};
use crate::sorted::{SortedMap, SortedSet};

/// A node's role, with the state that only this role has.
#[derive(Clone, Debug)]
pub(super) enum Role {
    Follower(Follower),
    PreCandidate(Votes),
    Candidate(Votes),
    Leader(Leader),
}

/// A role's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RoleName {
    /// Receives entries from a leader, or waits for one.
    Follower,
    /// Asks the voters whether it would win an election (dissertation §9.6).
    PreCandidate,
    /// Asks the voters for their votes in its term.
    Candidate,
    /// Leads its term.
    Leader,
}

impl Role {
    pub(super) fn name(&self) -> RoleName {
        match self {
            Self::Follower(_) => RoleName::Follower,
            Self::PreCandidate(_) => RoleName::PreCandidate,
            Self::Candidate(_) => RoleName::Candidate,
            Self::Leader(_) => RoleName::Leader,
        }
    }

    pub(super) fn is_leader(&self) -> bool {
        matches!(self, Self::Leader(_))
    }
}

/// The state of a follower.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Follower {
    /// The item that is arriving in chunks.
    pub(super) incoming: Option<IncomingChunks>,
}

/// An item that is arriving in chunks.
#[derive(Clone, Debug, Hash)]
pub(super) struct IncomingChunks {
    pub(super) of: Chunked,
    /// The item's length in bytes.
    pub(super) total: u64,
    /// The bytes that have arrived, from the start of the item and without a gap.
    pub(super) data: Vec<u8>,
}

/// The state of a candidate or pre-candidate: the replies so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Votes {
    pub(super) granted: SortedSet<NodeId>,
    pub(super) rejected: SortedSet<NodeId>,
    /// The write with the candidate's vote for itself. The vote counts once the write is durable.
    pub(super) own_vote: Option<PersistSeq>,
}

/// The state of a leader.
#[derive(Clone, Debug)]
pub(super) struct Leader {
    /// Every other member, learners included.
    pub(super) peers: SortedMap<NodeId, Progress>,
    /// The index of the no-op with which the term began.
    pub(super) term_start: Index,
    /// The newest round of confirmations; 0 before the first one.
    pub(super) round: u64,
    /// The newest round for which this node counts itself: a write that began after the round did
    /// is durable. A leader whose node another process has taken over cannot write, and so confirms
    /// nothing.
    pub(super) round_own: u64,
    /// The writes under way that began a newer round, each with that round.
    pub(super) round_writes: VecDeque<(PersistSeq, u64)>,
    /// Confirmations that wait for their round or their index.
    pub(super) reads: VecDeque<Read>,
    pub(super) transfer: Option<Transfer>,
    /// The bytes of the entries behind the commit index.
    pub(super) uncommitted_bytes: usize,
}

/// A confirmation that was asked for ([`super::Input::Confirm`]).
#[derive(Clone, Debug)]
pub(super) struct Read {
    /// The caller's number.
    pub(super) id: u64,
    /// The index that must be committed.
    pub(super) index: Index,
    /// The round that a majority must have answered.
    pub(super) round: u64,
}

/// A leadership transfer under way.
#[derive(Clone, Debug)]
pub(super) struct Transfer {
    pub(super) to: NodeId,
    /// When the leader gives the transfer up, in ms.
    pub(super) deadline: Time,
    /// Whether the target has been sent [`super::Body::TimeoutNow`].
    pub(super) sent: bool,
}
