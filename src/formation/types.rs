//! What nodes send each other while they form, and what comes out of the formation.

use serde::{Deserialize, Serialize};

use super::set::{Member, Set};
use crate::raft::Change;

/// What nodes say to each other while they form, and to whoever comes too late.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// The sender.
    pub from: Member,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Body {
    /// "I am here."
    Hello {
        /// How many members the sender expects.
        size: u64,
        /// The hash of the set to which it is bound.
        bound: Option<u64>,
        /// It wants to be told who else is here.
        ask: bool,
    },
    /// "Let us be the cluster." The sender is bound to the set.
    Propose {
        /// The set.
        set: Set,
    },
    /// "All members of this set are bound to it: start."
    Formed {
        /// The set.
        set: Set,
    },
    /// "You were a member of this set and have lost your memory: the leader takes you in anew."
    Readmit {
        /// The set with which the cluster began.
        set: Set,
    },
    /// "I am closing." A hint: nobody is out because of it, but nobody needs to wait for the sender.
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
    /// A member of that id has lost its memory, and there is no majority that could take it in again.
    Amnesia,
    /// The cluster takes only named members, and this is none.
    NotAMember,
    /// The sender runs in another set.
    OtherSet,
    /// Another node with this id is a member, and lives.
    DuplicateId,
    /// Another start of this node has taken its place.
    Replaced,
}

impl Refusal {
    /// The stable code.
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

/// To whom a message goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum To {
    /// Whoever listens.
    Everyone,
    /// One start of one node.
    Member(Member),
    /// The start with this nonce, whose id is not known.
    Nonce(u64),
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The cluster has formed: start Raft.
    Formed(Set),
    /// The cluster that began with this set takes this node in: start Raft without members.
    Readmitted(Set),
    /// This node cannot join, and stops trying; but for [`Refusal::Amnesia`], with which it waits on.
    Refused {
        /// Why.
        why: Refusal,
        /// The ids of the cluster's members.
        members: Vec<String>,
    },
    /// Another node expects another number of members. Told once for each such node.
    SizeMismatch {
        /// The other node's id.
        id: String,
        /// How many it expects.
        size: u64,
    },
    /// A node is here that is none of the named members. Told once for each.
    NotAMember {
        /// Its id.
        id: String,
    },
    /// Another node has this node's id. Told once.
    DuplicateId,
    /// The member with this nonce is closing.
    Leaving(u64),
}

/// Everything that one call asks of its caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Output {
    /// What to send.
    pub messages: Vec<(To, Message)>,
    /// What happened.
    pub events: Vec<Event>,
    /// A change of the configuration to ask Raft for, which leads here.
    pub change: Option<Change>,
}
