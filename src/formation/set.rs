//! Starts of nodes, sets of them, and the plan that says which nodes may become members.

use serde::{Deserialize, Serialize};

use crate::raft::NodeId;
use crate::sorted::{SortedMap, SortedSet};
use crate::wire::hash64;
use crate::wire::relay::MAX_ID;

/// One start of one node: its id, and the nonce that it drew when it started.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// The node's id.
    pub id: String,
    /// The random number of this start, never 0.
    pub nonce: u64,
}

impl Member {
    /// Whether the nonce and the id are allowed: channels carry ids of limited length.
    pub(super) fn is_valid(&self) -> bool {
        self.nonce != 0 && !self.id.is_empty() && self.id.len() <= MAX_ID
    }
}

/// The members of a cluster as it begins, sorted by id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Set(Vec<Member>);

impl Set {
    /// A set of these members. `None` when there is none, an id occurs twice or is empty or too
    /// long, or a nonce is 0.
    pub fn new(mut members: Vec<Member>) -> Option<Self> {
        members.sort();
        let twice = members.windows(2).any(|pair| pair[0].id == pair[1].id);
        let valid = !members.is_empty() && !twice && members.iter().all(Member::is_valid);
        valid.then_some(Self(members))
    }

    /// The same set, if [`Set::new`] accepts it. Deserializing a set does not check it.
    pub(super) fn checked(self) -> Option<Self> {
        Self::new(self.0)
    }

    /// The members, sorted by id.
    pub fn members(&self) -> &[Member] {
        &self.0
    }

    /// The hash of the set, which frames carry; never 0.
    pub fn hash(&self) -> u64 {
        let nonces: Vec<_> = self.0.iter().map(|member| member.nonce.to_le_bytes()).collect();
        let parts: Vec<&[u8]> = (self.0.iter().zip(&nonces))
            .flat_map(|(member, nonce)| [member.id.as_bytes(), nonce.as_slice()])
            .collect();
        hash64(&parts).max(1)
    }

    /// The number in Raft of the member with this nonce: its place in the set, from 1 on.
    pub fn number(&self, nonce: u64) -> Option<NodeId> {
        self.0.iter().position(|member| member.nonce == nonce).map(|place| place as NodeId + 1)
    }

    /// The member with this number in Raft.
    pub fn member(&self, number: NodeId) -> Option<&Member> {
        self.0.get(usize::try_from(number.checked_sub(1)?).ok()?)
    }

    pub(super) fn has(&self, member: &Member) -> bool {
        self.0.contains(member)
    }

    /// The members' numbers in Raft by their ids.
    pub(super) fn roster(&self) -> SortedMap<String, NodeId> {
        (1..).zip(&self.0).map(|(number, member)| (member.id.clone(), number)).collect()
    }

    pub(super) fn with_id(&self, id: &str) -> Option<&Member> {
        self.0.iter().find(|member| member.id == id)
    }
}

/// Which nodes may become members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Any n nodes.
    Size(usize),
    /// The nodes with these ids.
    Ids(SortedSet<String>),
}

impl Plan {
    /// How many members the cluster will have.
    pub fn size(&self) -> usize {
        match self {
            Self::Size(size) => *size,
            Self::Ids(ids) => ids.len(),
        }
    }

    pub(super) fn admits(&self, id: &str) -> bool {
        match self {
            Self::Size(_) => true,
            Self::Ids(ids) => ids.contains(id),
        }
    }
}
