//! The configuration: the members, which of them vote, and how that changes (dissertation §4.1,
//! §4.2.1).

use serde::{Deserialize, Serialize};

use super::quorum::majority;
use super::types::NodeId;
use crate::mistakes::{Mistake, made};
use crate::sorted::SortedMap;

/// A member of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Whether the member votes and counts for majorities. Otherwise it is a learner, which only
    /// receives the log (dissertation §4.2.1).
    pub voter: bool,
    /// The member's name for people, at most 256 bytes. Raft does not interpret it.
    pub name: String,
}

/// A configuration: the members of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Members(SortedMap<NodeId, Member>);

impl Members {
    /// A configuration of voters with these ids and without names.
    pub fn voters(ids: impl IntoIterator<Item = NodeId>) -> Self {
        let member = |id| (id, Member { voter: true, name: String::new() });
        Self(ids.into_iter().map(member).collect())
    }

    /// A configuration of these members.
    pub fn new(members: impl IntoIterator<Item = (NodeId, Member)>) -> Self {
        Self(members.into_iter().collect())
    }

    /// How many members there are, learners included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no members, as in a node that has yet to join a cluster.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The members in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.0.iter().map(|(id, member)| (*id, member))
    }

    /// The member with this id.
    pub fn get(&self, id: NodeId) -> Option<&Member> {
        self.0.get(&id)
    }

    /// Whether this node is a member, voter or learner.
    pub fn contains(&self, id: NodeId) -> bool {
        self.0.contains_key(&id)
    }

    /// Whether this node is a voter.
    pub fn is_voter(&self, id: NodeId) -> bool {
        let votes = |member: &Member| member.voter || made(Mistake::LearnerCounted);
        self.0.get(&id).is_some_and(votes)
    }

    /// How many voters there are.
    pub fn count_voters(&self) -> usize {
        self.0.keys().filter(|id| self.is_voter(**id)).count()
    }

    /// How many voters are a majority: ⌊n/2⌋ + 1.
    pub fn quorum(&self) -> usize {
        majority(self.count_voters())
    }

    /// The configuration after a change, or why the change is refused.
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

    /// About how many bytes the configuration takes.
    pub(super) fn size(&self) -> usize {
        self.0.values().map(|member| 16 + member.name.len()).sum()
    }
}

/// The longest name of a member, in bytes.
const MAX_NAME: usize = 256;

/// A change of the configuration. It concerns one member, so that any majority before it and any
/// majority after it have a member in common (dissertation §4.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// A node joins as a learner.
    Add {
        /// The node's id.
        id: NodeId,
        /// The node's name, at most 256 bytes.
        name: String,
    },
    /// A learner becomes a voter.
    Promote(NodeId),
    /// A voter becomes a learner.
    Demote(NodeId),
    /// A member leaves the cluster.
    Remove(NodeId),
}

/// Why a proposal was refused. Nothing of it was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// This node does not lead.
    #[error("not the leader")]
    NotLeader,
    /// A leadership transfer is under way.
    #[error("leadership is being handed over")]
    Transferring,
    /// More than [`super::Config::max_uncommitted_bytes`] would be uncommitted.
    #[error("too many bytes are uncommitted")]
    Busy,
    /// The last change of the configuration is not committed yet, or no entry of this leader's own
    /// term is (dissertation §4.1).
    #[error("the last change of the configuration, or the leader's term, is not committed yet")]
    Changing,
    /// The change has no effect (the member is there already, or it is not there) or is malformed
    /// (an id of 0, a name that is too long).
    #[error("that is no change of the configuration")]
    NoChange,
    /// The change would leave no voter.
    #[error("the last voter stays")]
    LastVoter,
    /// The learner to be promoted lacks too much of the log ([`super::Raft::is_ready`]).
    #[error("the learner has not caught up")]
    Behind,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(id: NodeId, name: &str) -> Change {
        Change::Add { id, name: name.into() }
    }

    /// The voters 1 to 3 and the learner 4.
    fn members() -> Members {
        Members::voters(1..=3).after(&add(4, "four")).expect("a change")
    }

    #[test]
    fn a_configuration_without_members_is_empty() {
        let none = Members::default();
        assert!(none.is_empty() && !members().is_empty());
        assert_eq!((none.len(), none.count_voters(), none.size()), (0, 0, 0));
        assert!(!none.contains(1) && !none.is_voter(1));
    }

    #[test]
    fn only_voters_count_for_a_quorum() {
        let members = members();
        assert_eq!((members.len(), members.count_voters(), members.quorum()), (4, 3, 2));
        assert!(members.contains(4) && !members.is_voter(4), "a learner");
        let members = members.after(&Change::Promote(4)).expect("a change");
        assert_eq!((members.len(), members.count_voters(), members.quorum()), (4, 4, 3));
        let members = members.after(&Change::Demote(1)).expect("a change");
        assert_eq!((members.count_voters(), members.quorum()), (3, 2));
        assert!(members.contains(1) && !members.is_voter(1));
        let members = members.after(&Change::Remove(2)).expect("a change");
        assert_eq!((members.len(), members.count_voters(), members.quorum()), (3, 2, 2));
        assert!(!members.contains(2));
    }

    #[test]
    fn a_new_member_is_a_learner_with_its_name() {
        let four = Member { voter: false, name: "four".into() };
        assert_eq!(members().get(4), Some(&four));
        assert_eq!(members().iter().map(|(id, _)| id).collect::<Vec<_>>(), [1, 2, 3, 4]);
    }

    #[test]
    fn a_change_without_effect_is_refused() {
        let useless = [
            add(0, "x"),
            add(3, "x"),
            add(4, "x"),
            add(5, &"x".repeat(MAX_NAME + 1)),
            Change::Promote(3),
            Change::Promote(5),
            Change::Demote(4),
            Change::Demote(5),
            Change::Remove(5),
        ];
        for change in useless {
            assert_eq!(members().after(&change), Err(Refused::NoChange), "{change:?}");
        }
        let longest = "x".repeat(MAX_NAME);
        let after = members().after(&add(5, &longest)).expect("the longest name");
        assert_eq!(after.get(5).map(|member| member.name.len()), Some(MAX_NAME));
    }

    #[test]
    fn the_last_voter_stays() {
        let one = Members::voters([1]).after(&add(2, "")).expect("a change");
        for change in [Change::Demote(1), Change::Remove(1)] {
            assert_eq!(one.after(&change), Err(Refused::LastVoter), "{change:?}");
        }
        let two = one.after(&Change::Promote(2)).expect("a change");
        assert_eq!(two.after(&Change::Remove(1)).map(|after| after.len()), Ok(1));
    }

    #[test]
    fn a_configuration_takes_16_bytes_and_the_name_for_each_member() {
        assert_eq!(Members::voters(1..=3).size(), 48);
        assert_eq!(members().size(), 68);
    }
}
