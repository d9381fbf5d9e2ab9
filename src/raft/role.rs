//! What each role knows that the others do not.

use std::collections::VecDeque;

use super::message::Chunked;
use super::progress::Progress;
use super::types::{Index, NodeId, PersistSeq, Time};
use crate::sorted::{SortedMap, SortedSet};

/// A node's role, with what only that role knows.
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
    /// Takes entries from a leader, or waits for one.
    Follower,
    /// Asks whether it could win an election.
    PreCandidate,
    /// Stands for election.
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

/// A follower.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Follower {
    /// Something large that is arriving in pieces.
    pub(super) incoming: Option<IncomingChunks>,
}

/// Something large, as far as it has arrived.
#[derive(Clone, Debug, Hash)]
pub(super) struct IncomingChunks {
    pub(super) of: Chunked,
    pub(super) total: u64,
    pub(super) data: Vec<u8>,
}

/// An election, or the question whether to hold one.
#[derive(Clone, Debug, Default)]
pub(super) struct Votes {
    pub(super) granted: SortedSet<NodeId>,
    pub(super) rejected: SortedSet<NodeId>,
    /// The write that holds the candidate's vote for itself. It counts when that is durable.
    pub(super) own_vote: Option<PersistSeq>,
}

/// A leader.
#[derive(Clone, Debug)]
pub(super) struct Leader {
    pub(super) peers: SortedMap<NodeId, Progress>,
    /// The index of the no-op with which the term began.
    pub(super) term_start: Index,
    /// The newest round of confirmations.
    pub(super) round: u64,
    /// The newest round for which this node itself counts, and the writes under way that will make it
    /// count for newer ones. A leader whose storage somebody else has taken over confirms nothing.
    pub(super) round_own: u64,
    pub(super) round_writes: VecDeque<(PersistSeq, u64)>,
    /// Confirmations that wait for their round and their index.
    pub(super) reads: VecDeque<Read>,
    pub(super) transfer: Option<Transfer>,
    pub(super) uncommitted_bytes: usize,
}

/// A confirmation that was asked for.
#[derive(Clone, Debug)]
pub(super) struct Read {
    pub(super) id: u64,
    pub(super) index: Index,
    pub(super) round: u64,
}

/// A leadership transfer under way.
#[derive(Clone, Debug)]
pub(super) struct Transfer {
    pub(super) to: NodeId,
    /// When it is given up.
    pub(super) deadline: Time,
    /// Whether the target has been told to stand.
    pub(super) sent: bool,
}
