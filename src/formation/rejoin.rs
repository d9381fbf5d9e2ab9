//! Members of fixed clusters that have lost their memory, and how they come back.
//!
//! A node with a known id and a new nonce may have voted and does not know for whom. To Raft it
//! must not be the same member (dissertation §3.8). So the leader removes its *former self*, the
//! start that was a member, and adds the *newcomer* under a new number, which is its nonce: first
//! as a learner (dissertation §4.2.1), then as a voter. Each step is a configuration change, for
//! which a majority must be there.
//!
//! - Only the leader acts on it, because only the leader knows whether the former self still
//!   answers. If it does, two nodes have one id, and the newcomer is refused (`DUPLICATE_ID`).
//! - The newcomer repeats its hello until it is a member in a committed configuration.
//! - Members that have had no leader for ten seconds report that to the newcomer (`AMNESIA`):
//!   without a majority no node can add it. It keeps waiting.

use super::set::{Member, Set};
use super::types::{Body, Event, Output, Refusal, To};
use super::{Formation, HELLO_PAUSE, Newcomer, PRESENT_FOR, State};
use crate::raft::{Change, NodeId, Raft, Time};
use crate::sorted::SortedSet;

/// How long members must have had no leader before they report that to a newcomer, in ms.
const NO_LEADER_TIMEOUT: Time = 10_000;
/// A former self that still answers this long after the newcomer's first hello counts as alive, in
/// ms. What answers earlier may be a late message of a start that is dead.
const ALIVE_AFTER: Time = 2_000;
/// How long a leader waits before it checks again which change is next, in ms.
const REVIEW_PAUSE: Time = 60;

impl Formation {
    /// This node's number in Raft; `None` while it belongs to no cluster.
    pub fn number(&self) -> Option<NodeId> {
        self.set().map(|set| number(set, self.me.nonce))
    }

    /// Whether this node waits for its cluster to add it anew, in the place of its former self.
    pub fn is_joining(&self) -> bool {
        self.joining
    }

    /// The member with this number in Raft: a member of the set, or one that came back under its
    /// nonce.
    pub fn member(&self, number: NodeId, raft: Option<&Raft>) -> Option<Member> {
        if let Some(member) = self.set()?.member(number) {
            return Some(member.clone());
        }
        let member = raft?.members().get(number)?;
        Some(Member { id: member.name.clone(), nonce: number })
    }

    /// Whether [`Formation::handle_raft`] is due.
    pub fn is_review_due(&self, now: Time) -> bool {
        self.next_review.is_some_and(|at| now >= at)
    }

    /// From now on the node neither is nor becomes a member of a cluster.
    pub fn stop(&mut self) {
        self.state = State::Refused;
    }

    /// Looks at the leader and the members in this node's Raft, and says which configuration change
    /// is next if this node leads. To be called when the leader or the members have changed, and
    /// when [`Formation::is_review_due`].
    pub fn handle_raft(&mut self, now: Time, raft: &Raft) -> Output {
        self.now = self.now.max(now);
        let Some(set) = self.set().cloned() else { return Output::default() };
        self.leaderless_since = match raft.leader() {
            Some(_) => None,
            None => self.leaderless_since.or(Some(self.now)),
        };
        let members = raft.members();
        if !members.is_empty() {
            let name = |id: NodeId, name: &str| match set.member(id) {
                Some(member) => (member.id.clone(), id),
                None => (name.to_string(), id),
            };
            self.roster = members.iter().map(|(id, member)| name(id, &member.name)).collect();
            let numbers: SortedSet<_> = members.iter().map(|(id, _)| id).collect();
            self.past_numbers.extend(numbers.iter().copied());
        }
        // Only the committed configuration counts: the entry that adds this node may still be
        // truncated.
        let (_, committed) = raft.committed_members();
        self.joining &= !committed.contains(number(&set, self.me.nonce));
        self.next_review = None;
        if raft.takes_proposals() {
            self.out.change = self.next_change(&set, raft);
        } else if raft.is_leader() {
            // A leadership transfer is under way. If it fails, this node leads on and has to act
            // then.
            self.next_review = Some(self.now + raft.config().election_timeout.0);
        }
        std::mem::take(&mut self.out)
    }

    /// The next change: to promote a learner that has caught up, or else to remove a former self or
    /// to add a newcomer.
    fn next_change(&mut self, set: &Set, raft: &Raft) -> Option<Change> {
        let members = raft.members();
        let now = self.now;
        self.newcomers.retain(|_, newcomer| now < newcomer.heard + PRESENT_FOR);
        let mut change = None;
        for (id, newcomer) in self.newcomers.clone() {
            let number = number(set, newcomer.member.nonce);
            match self.roster.get(&id).copied() {
                Some(member) if member == number => {
                    self.newcomers.remove(&id);
                }
                Some(former) => {
                    let heard = raft.last_heard(former).unwrap_or_default();
                    if now >= heard.max(newcomer.since) + raft.config().election_timeout.0 {
                        change = change.or(Some(Change::Remove(former)));
                    } else if heard >= newcomer.since + ALIVE_AFTER {
                        self.newcomers.remove(&id);
                        self.refuse(To::Member(newcomer.member), Refusal::DuplicateId);
                    }
                }
                None => {
                    self.send(To::Member(newcomer.member), Body::Readmit { set: set.clone() });
                    change = change.or(Some(Change::Add { id: number, name: id }));
                }
            }
        }
        // Members that have come back under a new number get their votes back.
        let is_learner = |id: &NodeId| set.member(*id).is_none() && !members.is_voter(*id);
        let was_in_set =
            |id: &NodeId| members.get(*id).is_some_and(|m| set.with_id(&m.name).is_some());
        let learners: Vec<_> =
            members.iter().map(|(id, _)| id).filter(is_learner).filter(was_in_set).collect();
        let ready = learners.iter().find(|id| raft.is_ready(**id));
        if !self.newcomers.is_empty() || !learners.is_empty() {
            self.next_review = Some(now + REVIEW_PAUSE);
        }
        ready.map(|id| Change::Promote(*id)).or(change)
    }

    /// A message for Raft arrived from the node with this number. If that node was a member and the
    /// committed configuration no longer has it, it is refused (`REPLACED`): the leader sends
    /// nothing to a node that was removed, so it would never learn of its removal otherwise.
    pub fn handle_former(&mut self, from: NodeId, raft: &Raft) -> Output {
        let (_, committed) = raft.committed_members();
        let is_member = raft.members().contains(from) || committed.contains(from);
        let was_member = self.past_numbers.contains(&from)
            || self.set().is_some_and(|s| s.member(from).is_some());
        if was_member && !is_member && !committed.is_empty() && raft.leader().is_some() {
            let nonce = self.set().and_then(|set| set.member(from)).map_or(from, |m| m.nonce);
            self.refuse(To::Nonce(nonce), Refusal::Replaced);
        }
        std::mem::take(&mut self.out)
    }

    /// Answers the hello of a node that does not know that the cluster has formed.
    pub(super) fn answer_latecomer(&mut self, from: Member) {
        let Some(set) = self.set().cloned() else { return };
        let member = self.roster.get(&from.id).copied();
        if self.joining {
            // This node is not a member yet and may know nothing of the present ones.
        } else if member == Some(number(&set, from.nonce)) {
            // A member that has not learned yet that the cluster has formed, or that it was added.
            let body = match set.has(&from) {
                true => Body::Formed { set },
                false => Body::Readmit { set },
            };
            self.send(To::Member(from), body);
        } else if from.id == self.me.id {
            self.refuse(To::Member(from), Refusal::DuplicateId);
        } else if set.has(&from) {
            self.refuse(To::Member(from), Refusal::Replaced);
        } else if set.with_id(&from.id).is_some() {
            self.note_newcomer(from);
        } else {
            let why = match self.plan.admits(&from.id) {
                true => Refusal::Full,
                false => Refusal::NotAMember,
            };
            self.refuse(To::Member(from), why);
        }
    }

    /// Records that a member has lost its memory and asks to be added anew.
    fn note_newcomer(&mut self, member: Member) {
        let (now, id) = (self.now, member.id.clone());
        let known = self.newcomers.get(&id).filter(|newcomer| newcomer.member == member);
        let since = known.map_or(now, |newcomer| newcomer.since);
        let no_leader =
            self.leaderless_since.is_some_and(|from| now >= from.max(since) + NO_LEADER_TIMEOUT);
        if no_leader {
            self.newcomers.remove(&id);
            return self.refuse(To::Member(member), Refusal::Amnesia);
        }
        self.newcomers.insert(id, Newcomer { member, since, heard: now });
        self.next_review = Some(now);
    }

    /// The leader of a cluster adds this node in the place of its former self.
    pub(super) fn handle_readmit(&mut self, set: Set) {
        let Some(set) = set.checked() else { return };
        let fits = set.members().len() == self.plan.size() && set.with_id(&self.me.id).is_some();
        let State::Forming(own) = &self.state else { return };
        if !fits || set.has(&self.me) {
            return;
        }
        if own.is_some() {
            // This start has accepted another set, so only a later start may join this cluster. Its
            // hello is answered by another `Readmit`.
            return self.withdraw();
        }
        self.set_hash = set.hash();
        self.state = State::Formed(set.clone());
        self.joining = true;
        self.next_hello = self.now + HELLO_PAUSE.0;
        self.out.events.push(Event::Readmitted(set));
    }
}

/// The number in Raft of the start with this nonce: its place in the set, or else the nonce itself.
fn number(set: &Set, nonce: u64) -> NodeId {
    set.number(nonce).unwrap_or(nonce)
}
