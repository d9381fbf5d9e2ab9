//! The messages of a cluster that forms, and what a call of [`Formation`](super::Formation)
//! returns.

use serde::{Deserialize, Serialize};

use super::set::{Member, Set};
use crate::raft::Change;

/// A message between nodes whose cluster forms, or an answer to a node that comes too late.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// The sender.
    pub from: Member,
    /// The content.
    pub body: Body,
}

/// The content of a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Body {
    /// "I am here."
    Hello {
        /// How many members the sender expects.
        size: u64,
        /// The hash of the set that the sender has accepted, if it has accepted one.
        bound: Option<u64>,
        /// Asks every receiver for a hello in return.
        ask: bool,
    },
    /// "Let us be the cluster." The sender has accepted the set itself.
    Propose {
        /// The set.
        set: Set,
    },
    /// "All members of this set have accepted it: start."
    Formed {
        /// The set.
        set: Set,
    },
    /// "You were a member of this cluster and have lost your memory: the leader adds you anew."
    Readmit {
        /// The set with which the cluster began.
        set: Set,
    },
    /// "I am closing." A hint: the sender stays a member, but nobody needs to wait for it.
    Goodbye,
    /// "You cannot join."
    Refuse {
        /// Why.
        why: Refusal,
        /// The ids of the members.
        members: Vec<String>,
    },
}

/// Why a node cannot join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// The cluster has all its members.
    Full,
    /// The node was a member and has lost its memory, and the others have no leader to add it anew.
    Amnesia,
    /// The cluster takes only named members, and this node's id is not among them.
    NotAMember,
    /// The sender of the refusal belongs to another cluster, formed from another set.
    OtherSet,
    /// Another node with this id is a member and is alive.
    DuplicateId,
    /// A later start of this node has taken its place in the cluster.
    Replaced,
}

impl Refusal {
    /// The stable code that users see.
    pub fn code(self) -> &'static str {
        match self {
            Self::Full => "CLUSTER_FULL",
            Self::Amnesia => "AMNESIA",
            Self::NotAMember => "NOT_A_MEMBER",
            Self::OtherSet => "OTHER_CLUSTER",
            Self::DuplicateId => "DUPLICATE_ID",
            Self::Replaced => "REPLACED",
        }
    }
}

/// The receivers of a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum To {
    /// Every node on the channel.
    Everyone,
    /// One start of one node.
    Member(Member),
    /// The start with this nonce, whose node's id is not known.
    Nonce(u64),
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The cluster has formed: start Raft with these members.
    Formed(Set),
    /// The cluster that began with this set adds this node anew: start Raft without members.
    Readmitted(Set),
    /// This node cannot join and stops trying. Two reasons are only reported: after
    /// [`Refusal::Amnesia`] it keeps waiting, and after [`Refusal::OtherSet`] a member runs on.
    Refused {
        /// Why.
        why: Refusal,
        /// The ids of the cluster's members.
        members: Vec<String>,
    },
    /// Another node expects another number of members. Reported once for each such node.
    SizeMismatch {
        /// The other node's id.
        id: String,
        /// How many it expects.
        size: u64,
    },
    /// A node is on the channel whose id is not among the named members. Reported once for each id.
    NotAMember {
        /// Its id.
        id: String,
    },
    /// Another node has this node's id. Reported once.
    DuplicateId,
    /// The member with this nonce is closing.
    Leaving(u64),
}

/// Everything that the caller has to do after one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Output {
    /// What to send.
    pub messages: Vec<(To, Message)>,
    /// What happened.
    pub events: Vec<Event>,
    /// A configuration change to propose to this node's Raft, which is the leader.
    pub change: Option<Change>,
}
