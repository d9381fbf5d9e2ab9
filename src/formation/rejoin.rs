//! Members of fixed clusters that have lost their memory, and how they come back.
//!
//! A known id with a new nonce may have voted, and does not know for whom. So it is not the same member
//! any more: once a majority can be asked, the leader removes its former self and takes it in under a
//! number of its own, which is its nonce, first as a learner (dissertation §4.2.1), then as a voter.
//!
//! - Only the leader answers, because only it knows whether the former self lives: then there are two
//!   nodes with one id, and the newcomer is refused (`DUPLICATE_ID`).
//! - The newcomer says hello until it finds itself among the members.
//! - When nobody leads for long there is no majority that could take it in (`AMNESIA`).

use super::set::{Member, Set};
use super::types::{Body, Event, Output, Refusal, To};
use super::{Formation, HELLO_PAUSE, PRESENT_FOR, Rejoining, State};
use crate::raft::{Change, NodeId, Raft, Time};
use crate::sorted::SortedSet;

/// How long a member that has lost its memory waits for a leader before it is told that there is none,
/// in ms.
const NO_LEADER_TIMEOUT: Time = 10_000;
/// How long after its new self was heard a member must have spoken to count as alive, in ms.
const ALIVE_WITHIN: Time = 2_000;
/// How long a leader waits before it looks again at what is left to change, in ms.
const REVIEW_PAUSE: Time = 60;

impl Formation {
    /// This node's number in Raft; `None` while it belongs to no cluster.
    pub fn number(&self) -> Option<NodeId> {
        self.set().map(|set| number(set, self.me.nonce))
    }

    /// Whether this node waits to be taken in by a cluster that lost its former self.
    pub fn is_joining(&self) -> bool {
        self.joining
    }

    /// Who has a number in Raft: a member of the set, or one that came back under its nonce.
    pub fn member(&self, number: NodeId, raft: Option<&Raft>) -> Option<Member> {
        if let Some(member) = self.set()?.member(number) {
            return Some(member.clone());
        }
        let member = raft?.members().get(number)?;
        Some(Member { id: member.name.clone(), nonce: number })
    }

    /// Whether [`Formation::handle_raft`] is due.
    pub fn is_review_due(&self, now: Time) -> bool {
        self.review_at.is_some_and(|at| now >= at)
    }

    /// The node does not try to belong to a cluster any more.
    pub fn stop(&mut self) {
        self.state = State::Refused;
    }

    /// Looks at who leads and who is a member now. To be called when either changes, after a message
    /// and when a timer rings.
    pub fn handle_raft(&mut self, now: Time, raft: &Raft) -> Output {
        self.now = self.now.max(now);
        let Some(set) = self.set().cloned() else { return Output::default() };
        self.leaderless = match raft.leader() {
            Some(_) => None,
            None => self.leaderless.or(Some(self.now)),
        };
        let members = raft.members();
        if !members.is_empty() {
            let name = |id: NodeId, name: &str| match set.member(id) {
                Some(member) => (member.id.clone(), id),
                None => (name.to_string(), id),
            };
            self.roster = members.iter().map(|(id, member)| name(id, &member.name)).collect();
            let there: SortedSet<_> = members.iter().map(|(id, _)| id).collect();
            self.known_numbers.extend(there.iter().copied());
        }
        // Not before it is committed: the entry that takes this node in may still be cut off.
        let (_, committed) = raft.committed_members();
        self.joining &= !committed.contains(number(&set, self.me.nonce));
        self.review_at = None;
        if raft.takes_proposals() {
            self.out.change = self.next_change(&set, raft);
        } else if raft.is_leader() {
            // It hands over; if that fails, it leads on.
            self.review_at = Some(self.now + raft.config().election_timeout.0);
        }
        std::mem::take(&mut self.out)
    }

    fn next_change(&mut self, set: &Set, raft: &Raft) -> Option<Change> {
        let members = raft.members();
        let now = self.now;
        self.rejoining.retain(|_, one| now < one.heard + PRESENT_FOR);
        let mut change = None;
        for (id, one) in self.rejoining.clone() {
            let number = number(set, one.member.nonce);
            match self.roster.get(&id).copied() {
                Some(there) if there == number => {
                    self.rejoining.remove(&id);
                }
                Some(former) => {
                    let heard = raft.last_heard(former).unwrap_or_default();
                    if now >= heard.max(one.since) + raft.config().election_timeout.0 {
                        change = change.or(Some(Change::Remove(former)));
                    } else if heard >= one.since + ALIVE_WITHIN {
                        self.rejoining.remove(&id);
                        self.refuse(To::Member(one.member), Refusal::DuplicateId);
                    }
                }
                None => {
                    self.send(To::Member(one.member), Body::Readmit { set: set.clone() });
                    change = change.or(Some(Change::Add { id: number, name: id }));
                }
            }
        }
        // Whoever comes back under a new number is to vote again.
        let late = |id: &NodeId| set.member(*id).is_none() && !members.is_voter(*id);
        let known = |id: &NodeId| members.get(*id).is_some_and(|m| set.with_id(&m.name).is_some());
        let learners: Vec<_> =
            members.iter().map(|(id, _)| id).filter(late).filter(known).collect();
        let ready = learners.iter().find(|id| raft.is_ready(**id));
        if !self.rejoining.is_empty() || !learners.is_empty() {
            self.review_at = Some(now + REVIEW_PAUSE);
        }
        ready.map(|id| Change::Promote(*id)).or(change)
    }

    /// A node that was a member in the committed configuration speaks, and is none any more: it has to
    /// be told, since nobody else will.
    pub fn handle_former(&mut self, from: NodeId, raft: &Raft) -> Output {
        let (_, committed) = raft.committed_members();
        let here = raft.members().contains(from) || committed.contains(from);
        let was = self.known_numbers.contains(&from)
            || self.set().is_some_and(|s| s.member(from).is_some());
        if was && !here && !committed.is_empty() && raft.leader().is_some() {
            let nonce = self.set().and_then(|set| set.member(from)).map_or(from, |m| m.nonce);
            self.refuse(To::Nonce(nonce), Refusal::Replaced);
        }
        std::mem::take(&mut self.out)
    }

    /// A node speaks to a cluster that has formed as if it knew of none.
    pub(super) fn answer_late(&mut self, from: Member) {
        let Some(set) = self.set().cloned() else { return };
        let there = self.roster.get(&from.id).copied();
        if self.joining {
            // This one is not there yet itself.
        } else if there == Some(number(&set, from.nonce)) {
            // One of ours, who has not heard yet.
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
            self.rejoins(from);
        } else {
            let why = match self.plan.admits(&from.id) {
                true => Refusal::Full,
                false => Refusal::NotAMember,
            };
            self.refuse(To::Member(from), why);
        }
    }

    /// A member has lost its memory.
    fn rejoins(&mut self, member: Member) {
        let (now, id) = (self.now, member.id.clone());
        let known = self.rejoining.get(&id).filter(|one| one.member == member);
        let since = known.map_or(now, |one| one.since);
        let alone = self.leaderless.is_some_and(|from| now >= from.max(since) + NO_LEADER_TIMEOUT);
        if alone {
            self.rejoining.remove(&id);
            return self.refuse(To::Member(member), Refusal::Amnesia);
        }
        self.rejoining.insert(id, Rejoining { member, since, heard: now });
        self.review_at = Some(now);
    }

    /// A cluster takes this node in, in the place of its former self.
    pub(super) fn handle_readmit(&mut self, set: Set) {
        let Some(set) = set.checked() else { return };
        let fits = set.members().len() == self.plan.size() && set.with_id(&self.me.id).is_some();
        let State::Forming(bound) = &self.state else { return };
        if !fits || set.has(&self.me) {
            return;
        }
        if bound.is_some() {
            // It owes another set nothing, but as another start of itself.
            return self.withdraw();
        }
        self.set_hash = set.hash();
        self.state = State::Formed(set.clone());
        self.joining = true;
        self.hello_at = self.now + HELLO_PAUSE.0;
        self.out.events.push(Event::Readmitted(set));
    }
}

/// The number in Raft of a start of a node: its place in the set, or else its nonce.
fn number(set: &Set, nonce: u64) -> NodeId {
    set.number(nonce).unwrap_or(nonce)
}
