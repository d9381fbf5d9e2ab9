//! The configuration: who is a member, who votes, and how that changes (dissertation §4.1, §4.2.1).

use serde::{Deserialize, Serialize};

use super::quorum::majority;
use super::types::NodeId;
use crate::mistakes::{Mistake, made};
use crate::sorted::SortedMap;

/// A member of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// It votes, and counts for majorities. Otherwise it is a learner: it only gets the log
    /// (dissertation §4.2.1).
    pub voter: bool,
    /// What people call it. Raft does not look inside.
    pub name: String,
}

/// A configuration: who belongs to the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Members(SortedMap<NodeId, Member>);

impl Members {
    /// Voters with these numbers and no names.
    pub fn voters(ids: impl IntoIterator<Item = NodeId>) -> Self {
        let member = |id| (id, Member { voter: true, name: String::new() });
        Self(ids.into_iter().map(member).collect())
    }

    /// Members as they are.
    pub fn new(members: impl IntoIterator<Item = (NodeId, Member)>) -> Self {
        Self(members.into_iter().collect())
    }

    /// How many members there are, learners included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody is known to be a member: so a node begins that is yet to join.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each member by its number.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.0.iter().map(|(id, member)| (*id, member))
    }

    /// A member.
    pub fn get(&self, id: NodeId) -> Option<&Member> {
        self.0.get(&id)
    }

    /// Whether this node is a member, voter or learner.
    pub fn contains(&self, id: NodeId) -> bool {
        self.0.contains_key(&id)
    }

    /// Whether this node is a voter.
    pub fn is_voter(&self, id: NodeId) -> bool {
        let counts = |member: &Member| member.voter || made(Mistake::LearnerCounted);
        self.0.get(&id).is_some_and(counts)
    }

    /// How many voters there are.
    pub fn count_voters(&self) -> usize {
        self.0.keys().filter(|id| self.is_voter(**id)).count()
    }

    /// How many voters are a majority: ⌊n/2⌋ + 1.
    pub fn quorum(&self) -> usize {
        majority(self.count_voters())
    }

    /// The configuration after a change, or why there is none.
    pub(super) fn after(&self, change: &Change) -> Result<Self, Refused> {
        let mut after = self.clone();
        let members = &mut after.0;
        match change {
            Change::Add { id, name } => {
                if *id == 0 || name.len() > MAX_NAME || members.contains_key(id) {
                    return Err(Refused::NoChange);
                }
                members.insert(*id, Member { voter: false, name: name.clone() });
            }
            Change::Promote(id) | Change::Demote(id) => {
                let voter = matches!(change, Change::Promote(_));
                match members.get_mut(id) {
                    Some(member) if member.voter != voter => member.voter = voter,
                    _ => return Err(Refused::NoChange),
                }
            }
            Change::Remove(id) => {
                members.remove(id).ok_or(Refused::NoChange)?;
            }
        }
        if members.values().any(|member| member.voter) {
            Ok(after)
        } else {
            Err(Refused::LastVoter)
        }
    }

    /// About how many bytes it takes.
    pub(super) fn size(&self) -> usize {
        self.0.values().map(|member| 16 + member.name.len()).sum()
    }
}

/// The longest name of a member, in bytes.
const MAX_NAME: usize = 256;

/// A change of the configuration, of one member at a time: so majorities before and after it always
/// have a member in common (dissertation §4.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// A new member, as a learner.
    Add {
        /// Its number.
        id: NodeId,
        /// Its name.
        name: String,
    },
    /// A learner becomes a voter.
    Promote(NodeId),
    /// A voter becomes a learner.
    Demote(NodeId),
    /// A member is one no more.
    Remove(NodeId),
}

/// Why a proposal was not taken. Nothing of it was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// This node does not lead.
    #[error("not the leader")]
    NotLeader,
    /// Leadership is being handed over.
    #[error("leadership is being handed over")]
    Transferring,
    /// Too many bytes are uncommitted.
    #[error("too many bytes are uncommitted")]
    Busy,
    /// The configuration cannot change before the last change, and an entry of this leader's own
    /// term, are committed.
    #[error("the last change of the configuration, or the leader's term, is not committed yet")]
    Changing,
    /// The configuration is so already, or it can never be so.
    #[error("that is no change of the configuration")]
    NoChange,
    /// A cluster needs a voter.
    #[error("the last voter stays")]
    LastVoter,
    /// A learner is promoted when it has (almost) all of the log.
    #[error("the learner has not caught up")]
    Behind,
}
