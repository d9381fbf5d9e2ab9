//! Terms, votes, and when to stand (paper §5.2, §5.4.1; dissertation §4.2.3, §9.6).

use rand::RngExt;

use super::Raft;
use super::entry::HardState;
use super::membership::Members;
use super::message::{Body, Message};
use super::output::{Confirmed, Event, Invalid, Outgoing};
use super::quorum::{VoteResult, vote_result};
use super::role::{Follower, Role, Votes};
use super::types::{NodeId, PersistSeq, Position, Term};
use crate::mistakes::{Mistake, made};
use crate::sorted::SortedSet;

impl Raft {
    /// Draws the next election timeout. Anew for every attempt, so that two nodes that collided
    /// once part ways (paper §5.2).
    pub(super) fn draw_election_deadline(&mut self) {
        let (min, max) = self.config.election_timeout;
        let timeout = match made(Mistake::TimeoutDrawnOnce) {
            false => self.rng.random_range(min..=max),
            true => self.rng.clone().random_range(min..=max),
        };
        self.election_deadline = self.now + timeout;
    }

    /// Whether this node leads, or has heard a leader so lately that it wants no other.
    pub fn is_sticky(&self) -> bool {
        let recently = |heard| self.now < heard + self.config.election_timeout.0;
        let hears = self.quiesced || self.heard.is_some_and(recently);
        self.role.is_leader() || self.leader.is_some() && hears
    }

    /// Becomes a follower in `term`, which is this node's own or a newer one.
    pub(super) fn become_follower(&mut self, term: Term) {
        debug_assert!(term >= self.hard.term, "terms never go back");
        let was_follower = matches!(self.role, Role::Follower(_));
        if term > self.hard.term {
            self.round_seen = 0;
            let vote = self.hard.vote.filter(|_| made(Mistake::VoteNotReset));
            self.hard = HardState { term, vote };
            self.unsaved.hard = true;
            self.set_leader(None);
        } else if was_follower {
            return;
        }
        if self.leader == Some(self.config.id) {
            self.set_leader(None);
        }
        let old = std::mem::replace(&mut self.role, Role::Follower(Follower::default()));
        if let Role::Leader(leader) = old {
            let lost = leader.reads.iter().map(|read| Confirmed { id: read.id, index: None });
            self.out.reads.extend(lost);
        }
        // A follower's deadline stays: only a leader's voice or a vote given away puts it off.
        if !was_follower {
            self.draw_election_deadline();
        }
    }

    /// Records who leads the current term and tells the caller.
    pub(super) fn set_leader(&mut self, leader: Option<NodeId>) {
        (self.leader, self.quiesced) = (leader, false);
        self.out.events.retain(|event| !matches!(event, Event::Leader { .. }));
        self.out.events.push(Event::Leader { term: self.hard.term, leader });
    }

    /// A leader of the current term spoke: follow it, if it can be one.
    pub(super) fn follow(&mut self, from: NodeId) -> Result<(), Invalid> {
        if self.role.is_leader() || self.leader.is_some_and(|leader| leader != from) {
            return Err(Invalid::SecondLeader);
        }
        self.become_follower(self.hard.term);
        if self.leader.is_none() {
            self.set_leader(Some(from));
        }
        (self.heard, self.quiesced) = (Some(self.now), false);
        self.draw_election_deadline();
        Ok(())
    }

    /// The host of this node is dead. If it was the leader, nobody waits for it to speak again. If this
    /// node leads, the other may have begun anew elsewhere, and not know whom to follow.
    pub(super) fn peer_down(&mut self, id: NodeId) {
        self.wake_peers();
        if self.leader != Some(id) || id == self.config.id {
            return;
        }
        self.set_leader(None);
        self.heard = None;
        // Not quite at once: those who stand in the same moment split the votes.
        let soon = self.now + self.rng.random_range(0..=self.config.heartbeat_interval / 2);
        self.election_deadline = self.election_deadline.min(soon);
    }

    /// The election timeout has passed: ask whether an election could be won.
    pub(super) fn campaign(&mut self) {
        if self.leader.is_some() {
            self.set_leader(None);
        }
        self.draw_election_deadline();
        if !self.can_campaign() {
            self.become_follower(self.hard.term);
            // Those who may stand perhaps rest, and have to find out that there is no leader.
            if self.config.quiesce_interval.is_some() && self.hard.term > 0 {
                self.ask_for_votes();
            }
            return;
        }
        if made(Mistake::RemovedDisrupts) {
            return self.become_candidate(false);
        }
        let votes = Votes { granted: [self.config.id].into_iter().collect(), ..Votes::default() };
        self.role = Role::PreCandidate(votes);
        self.ask_for_votes();
        self.count_votes();
    }

    fn ask_for_votes(&mut self) {
        let body = Body::PreVote { last: self.log.last() };
        let message = Message { term: self.hard.term + 1, body };
        for to in self.other_voters() {
            self.out.messages.push(Outgoing { to, message: message.clone(), after: 0 });
        }
    }

    /// Stands for election in a new term. `transfer`: because the leader said so.
    fn become_candidate(&mut self, transfer: bool) {
        debug_assert!(!self.role.is_leader(), "a leader does not stand again");
        self.hard = HardState { term: self.hard.term + 1, vote: Some(self.config.id) };
        self.unsaved.hard = true;
        self.set_leader(None);
        self.draw_election_deadline();
        self.role = Role::Candidate(Votes {
            own_vote: Some(self.persist_seq + 1), // The write that `finish` will ask for.
            ..Votes::default()
        });
        let last = self.log.last();
        for to in self.other_voters() {
            self.send_durable(to, Body::Vote { last, transfer });
        }
    }

    /// A write is durable; if it holds this candidate's vote for itself, that counts now.
    pub(super) fn vote_is_durable(&mut self, seq: PersistSeq) {
        let id = self.config.id;
        if let Role::Candidate(votes) = &mut self.role
            && votes.own_vote.is_some_and(|write| write <= seq)
        {
            votes.granted.insert(id);
            self.count_votes();
        }
    }

    pub(super) fn handle_pre_vote(&mut self, from: NodeId, term: Term, last: Position) {
        let fits = last.is_up_to_date_with(self.log.last()) || made(Mistake::StaleLogElected);
        // Somebody misses the leader. Is it there? This one will be told, or count from now, too.
        if !made(Mistake::NeverWoken) {
            self.wake();
        }
        let granted = term > self.hard.term && !self.is_sticky() && fits;
        // A grant speaks of the term to come, a refusal of ours, so that the asker learns it.
        let term = if granted { term } else { self.hard.term };
        if term == 0 {
            return; // A node that never saw a term has nothing to refuse in the name of.
        }
        let message = Message { term, body: Body::PreVoteReply { granted } };
        // A refusal shows our term, and a term that is shown must survive a crash.
        let after = if granted { 0 } else { PersistSeq::MAX };
        self.out.messages.push(Outgoing { to: from, message, after });
    }

    pub(super) fn handle_pre_vote_reply(&mut self, from: NodeId, term: Term, granted: bool) {
        let current = self.hard.term;
        if let Role::PreCandidate(votes) = &mut self.role {
            if granted && term == current + 1 {
                votes.granted.insert(from);
            } else if !granted {
                votes.rejected.insert(from);
            }
            self.count_votes();
        }
    }

    pub(super) fn handle_vote(&mut self, from: NodeId, last: Position) {
        let free = match self.hard.vote {
            _ if made(Mistake::VoteGrantedTwice) => true,
            Some(vote) => vote == from,
            None => self.leader.is_none(),
        };
        let fits = last.is_up_to_date_with(self.log.last()) || made(Mistake::StaleLogElected);
        let granted = free && fits;
        if granted {
            self.become_follower(self.hard.term);
            if self.hard.vote.is_none() {
                self.hard.vote = Some(from);
                self.unsaved.hard |= !made(Mistake::VoteNotPersisted);
            }
            self.draw_election_deadline();
        }
        self.send_durable(from, Body::VoteReply { granted });
    }

    pub(super) fn handle_vote_reply(&mut self, from: NodeId, granted: bool) {
        if let Role::Candidate(votes) = &mut self.role {
            if granted {
                votes.granted.insert(from);
            } else {
                votes.rejected.insert(from);
            }
            self.count_votes();
        }
    }

    pub(super) fn handle_timeout_now(&mut self, from: NodeId) -> Result<(), Invalid> {
        if self.role.is_leader() {
            return Err(Invalid::SecondLeader);
        }
        // A transfer of an earlier leadership that arrives late is no reason to hold an election.
        if self.leader == Some(from) && self.can_campaign() {
            self.become_candidate(true);
        }
        Ok(())
    }

    fn count_votes(&mut self) {
        let members = self.quorum_members();
        let count = |of: &SortedSet<NodeId>| of.iter().filter(|id| members.is_voter(**id)).count();
        let (votes, pre) = match &self.role {
            Role::PreCandidate(votes) => (votes, true),
            Role::Candidate(votes) => (votes, false),
            Role::Follower(_) | Role::Leader(_) => return,
        };
        let (granted, refused) = (count(&votes.granted), count(&votes.rejected));
        match vote_result(members.quorum(), granted, refused) {
            VoteResult::Won if pre => self.become_candidate(false),
            VoteResult::Won => self.become_leader(),
            VoteResult::Lost => self.become_follower(self.hard.term),
            VoteResult::Pending => {}
        }
    }

    /// Whether this node may stand for election: it votes, or it did in a configuration that may be
    /// the committed one, as far as it knows. In that case the others may need it: perhaps nobody else
    /// has the change that takes its vote, and so nobody else's log goes far enough (dissertation
    /// §4.2.2).
    pub(super) fn can_campaign(&self) -> bool {
        self.log.members_since(self.commit).any(|members| members.is_voter(self.config.id))
    }

    /// The configuration whose majorities decide.
    pub(super) fn quorum_members(&self) -> &Members {
        match made(Mistake::OldQuorum) {
            false => self.members(),
            true => self.committed_members().1,
        }
    }

    /// Every voter but this node, in order.
    fn other_voters(&self) -> Vec<NodeId> {
        let (members, own) = (self.members(), self.config.id);
        let others = members.iter().filter(|(id, member)| member.voter && *id != own);
        others.map(|(id, _)| id).collect()
    }
}
