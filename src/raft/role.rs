//! What each role knows that the others do not.

use std::collections::VecDeque;

use super::types::{Blob, Index, NodeId, PersistSeq, Time, Whole};
use crate::sorted::{SortedMap, SortedSet};

/// A node's role, with what only that role knows.
#[derive(Clone, Debug)]
pub(super) enum Role {
    Follower(Follower),
    PreCandidate(Poll),
    Candidate(Poll),
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
    pub(super) incoming: Option<Incoming>,
}

/// Something large, as far as it has arrived.
#[derive(Clone, Debug, Hash)]
pub(super) struct Incoming {
    pub(super) of: Whole,
    pub(super) total: u64,
    pub(super) data: Vec<u8>,
}

/// An election, or the question whether to hold one.
#[derive(Clone, Debug, Default)]
pub(super) struct Poll {
    pub(super) granted: SortedSet<NodeId>,
    pub(super) rejected: SortedSet<NodeId>,
    /// The write that holds the candidate's vote for itself. It counts when that is durable.
    pub(super) own_vote: Option<PersistSeq>,
}

/// A leader.
#[derive(Clone, Debug)]
pub(super) struct Leader {
    pub(super) peers: SortedMap<NodeId, Peer>,
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
    pub(super) told: bool,
}

/// What a leader knows of another member.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// The next entry to send.
    pub(super) next: Index,
    /// The last entry known to be equal on both sides.
    pub(super) matched: Index,
    pub(super) flow: Flow,
    /// When something was last sent to it, or never in this term.
    pub(super) sent: Option<Time>,
    /// When it last answered in this term.
    pub(super) heard: Time,
    /// When it was last asked for more than to rest: its silence before that means nothing.
    pub(super) woken: Time,
    pub(super) pace: Pace,
    /// The newest round that it has been sent, and that it has answered.
    pub(super) round_sent: u64,
    pub(super) round_heard: u64,
    /// The newest commit index that it has been sent.
    pub(super) commit_sent: Index,
}

/// How often a peer hears of the leader when there is nothing to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Pace {
    /// With every heartbeat.
    Beat,
    /// It was sent [`super::types::Wants::Rest`], and has not answered yet.
    Asked,
    /// Once in a long while.
    Rest,
}

/// How entries are sent to a peer.
#[derive(Clone, Debug)]
pub(super) enum Flow {
    /// Where the logs agree is not known: one message at a time.
    Probe {
        /// A message is unanswered.
        waiting: bool,
    },
    /// The logs agree: messages follow each other without waiting, up to a window.
    Replicate {
        /// The last index of each unacknowledged message.
        inflight: VecDeque<Index>,
    },
    /// Something larger than a message is under way.
    Pieces(Outbound),
}

/// Something large on its way to a peer, piece by piece.
#[derive(Clone, Debug)]
pub(super) struct Outbound {
    pub(super) of: Whole,
    pub(super) data: Blob,
    pub(super) offset: usize,
    /// When the piece was sent that is unanswered.
    pub(super) sent: Option<Time>,
}

impl Outbound {
    /// The peer answered a heartbeat, sent a while after the piece that it has not answered: it is
    /// there, and the piece is lost.
    pub(super) fn answered(&mut self, now: Time, heartbeat_interval: Time) {
        if self.sent.is_some_and(|sent| now >= sent + heartbeat_interval) {
            self.sent = None;
        }
    }
}

impl Peer {
    /// A peer of which nothing is known, when the leader's log ends before `next`.
    pub(super) fn new(next: Index, now: Time) -> Self {
        Self {
            next,
            matched: 0,
            flow: Flow::Probe { waiting: false },
            sent: None,
            heard: now,
            woken: now,
            pace: Pace::Beat,
            round_sent: 0,
            round_heard: 0,
            commit_sent: 0,
        }
    }

    /// The peer rests no more.
    pub(super) fn wake(&mut self, now: Time) {
        if self.pace != Pace::Beat {
            (self.pace, self.woken) = (Pace::Beat, now);
        }
    }

    /// The peer's log agrees up to `matched`: send what follows.
    pub(super) fn replicate(&mut self) {
        self.next = self.matched + 1;
        self.flow = Flow::Replicate { inflight: VecDeque::new() };
    }

    /// Look for where the logs agree, beginning at `next`.
    pub(super) fn probe(&mut self, next: Index) {
        self.next = next.max(self.matched + 1);
        self.flow = Flow::Probe { waiting: false };
    }
}
