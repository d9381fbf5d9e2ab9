//! Terms, votes, and when a node becomes a candidate (paper §5.2, §5.4.1; dissertation §4.2.3,
//! §9.6).

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
    /// Draws the next election timeout. Every attempt draws a new one, so that two candidates that
    /// split the votes once rarely do so again (paper §5.2).
    pub(super) fn reset_election_timeout(&mut self) {
        let (min, max) = self.config.election_timeout;
        let timeout = match made(Mistake::TimeoutDrawnOnce) {
            false => self.rng.random_range(min..=max),
            true => self.rng.clone().random_range(min..=max),
        };
        self.election_deadline = self.now + timeout;
    }

    /// Whether this node leads, or has heard from its leader within the shortest election timeout
    /// (or is quiesced). Such a node supports no other candidate (dissertation §4.2.3).
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
        // A follower keeps its deadline: only a message of the leader or a granted vote puts it
        // off.
        if !was_follower {
            self.reset_election_timeout();
        }
    }

    /// Records the leader of the current term and reports it to the caller.
    pub(super) fn set_leader(&mut self, leader: Option<NodeId>) {
        (self.leader, self.quiesced) = (leader, false);
        self.out.events.retain(|event| !matches!(event, Event::Leader { .. }));
        self.out.events.push(Event::Leader { term: self.hard.term, leader });
    }

    /// Follows `from`, which sent a leader's message in the current term.
    ///
    /// # Errors
    /// When the term has another leader.
    pub(super) fn accept_leader(&mut self, from: NodeId) -> Result<(), Invalid> {
        if self.role.is_leader() || self.leader.is_some_and(|leader| leader != from) {
            return Err(Invalid::SecondLeader);
        }
        self.become_follower(self.hard.term);
        if self.leader.is_none() {
            self.set_leader(Some(from));
        }
        (self.heard, self.quiesced) = (Some(self.now), false);
        self.reset_election_timeout();
        Ok(())
    }

    /// The host of the member `id` is dead. If `id` led, this node holds an election soon. If this
    /// node leads, it sends to every quiesced peer: another host may have restarted `id`, which
    /// then does not know its leader.
    pub(super) fn peer_down(&mut self, id: NodeId) {
        self.wake_peers();
        if self.leader != Some(id) || id == self.config.id {
            return;
        }
        self.set_leader(None);
        self.heard = None;
        // Not at once: nodes that become candidates at the same time split the votes.
        let soon = self.now + self.rng.random_range(0..=self.config.heartbeat_interval / 2);
        self.election_deadline = self.election_deadline.min(soon);
    }

    /// The election timeout has passed: becomes a pre-candidate and asks whether it would win an
    /// election (dissertation §9.6).
    pub(super) fn campaign(&mut self) {
        if self.leader.is_some() {
            self.set_leader(None);
        }
        self.reset_election_timeout();
        if !self.can_campaign() {
            self.become_follower(self.hard.term);
            // The nodes that can be candidates may be quiesced. A PreVote wakes them, so that they
            // notice that there is no leader.
            if self.config.quiesce_interval.is_some() && self.hard.term > 0 {
                self.send_pre_votes();
            }
            return;
        }
        if made(Mistake::RemovedDisrupts) {
            return self.become_candidate(false);
        }
        let votes = Votes { granted: [self.config.id].into_iter().collect(), ..Votes::default() };
        self.role = Role::PreCandidate(votes);
        self.send_pre_votes();
        self.count_votes();
    }

    /// Sends a PreVote to every other voter.
    fn send_pre_votes(&mut self) {
        let body = Body::PreVote { last: self.log.last() };
        let message = Message { term: self.hard.term + 1, body };
        for to in self.other_voters() {
            self.out.messages.push(Outgoing { to, message: message.clone(), after: 0 });
        }
    }

    /// Becomes a candidate in a new term (paper §5.2). `transfer`: because the leader asked it to.
    fn become_candidate(&mut self, transfer: bool) {
        debug_assert!(!self.role.is_leader(), "a leader does not stand again");
        self.hard = HardState { term: self.hard.term + 1, vote: Some(self.config.id) };
        self.unsaved.hard = true;
        self.set_leader(None);
        self.reset_election_timeout();
        self.role = Role::Candidate(Votes {
            own_vote: Some(self.persist_seq + 1), // The write that `finish` will ask for.
            ..Votes::default()
        });
        let last = self.log.last();
        for to in self.other_voters() {
            self.send_durable(to, Body::Vote { last, transfer });
        }
    }

    /// Every write up to `seq` is durable. If the candidate's vote for itself is among them, the
    /// vote counts now.
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
        let up_to_date = last.is_up_to_date_with(self.log.last()) || made(Mistake::StaleLogElected);
        // The sender hears no leader. A leader that gets this sends heartbeats to the quiesced
        // peers; a follower counts its leader's silence from now on.
        if !made(Mistake::NeverWoken) {
            self.wake();
        }
        let granted = term > self.hard.term && !self.is_sticky() && up_to_date;
        // A grant carries the term of the election; a refusal carries this node's term, so that the
        // sender learns it.
        let term = if granted { term } else { self.hard.term };
        if term == 0 {
            return; // This node has seen no term yet, and no message may carry term 0.
        }
        let message = Message { term, body: Body::PreVoteReply { granted } };
        // A refusal shows this node's term, and a term that a peer has seen must survive a crash.
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

    /// Grants at most one vote in a term, to a candidate whose log is at least as up to date (paper
    /// §5.2, §5.4.1).
    pub(super) fn handle_vote(&mut self, from: NodeId, last: Position) {
        let can_vote = match self.hard.vote {
            _ if made(Mistake::VoteGrantedTwice) => true,
            Some(vote) => vote == from,
            None => self.leader.is_none(),
        };
        let up_to_date = last.is_up_to_date_with(self.log.last()) || made(Mistake::StaleLogElected);
        let granted = can_vote && up_to_date;
        if granted {
            self.become_follower(self.hard.term);
            if self.hard.vote.is_none() {
                self.hard.vote = Some(from);
                self.unsaved.hard |= !made(Mistake::VoteNotPersisted);
            }
            self.reset_election_timeout();
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

    /// Becomes a candidate because the leader asked for it (dissertation §3.10).
    pub(super) fn handle_timeout_now(&mut self, from: NodeId) -> Result<(), Invalid> {
        if self.role.is_leader() {
            return Err(Invalid::SecondLeader);
        }
        // A message that arrives late, from a node that does not lead any more, starts no election.
        if self.leader == Some(from) && self.can_campaign() {
            self.become_candidate(true);
        }
        Ok(())
    }

    fn count_votes(&mut self) {
        let members = self.quorum_members();
        let count = |of: &SortedSet<NodeId>| of.iter().filter(|id| members.is_voter(**id)).count();
        let (votes, is_pre) = match &self.role {
            Role::PreCandidate(votes) => (votes, true),
            Role::Candidate(votes) => (votes, false),
            Role::Follower(_) | Role::Leader(_) => return,
        };
        let (granted, refused) = (count(&votes.granted), count(&votes.rejected));
        match vote_result(members.quorum(), granted, refused) {
            VoteResult::Won if is_pre => self.become_candidate(false),
            VoteResult::Won => self.become_leader(),
            VoteResult::Lost => self.become_follower(self.hard.term),
            VoteResult::Pending => {}
        }
    }

    /// Whether this node may be a candidate: it is a voter in the newest configuration, or in an
    /// older one that may still be the committed one, as far as this node knows. In the latter case
    /// the cluster may need it: perhaps no other node has the entry that takes its vote away, and
    /// then none has a log that is up to date enough to win (dissertation §4.2.2).
    pub(super) fn can_campaign(&self) -> bool {
        self.log.members_since(self.commit).any(|members| members.is_voter(self.config.id))
    }

    /// The configuration whose majorities decide: the newest one (dissertation §4.1).
    pub(super) fn quorum_members(&self) -> &Members {
        match made(Mistake::OldQuorum) {
            false => self.members(),
            true => self.committed_members().1,
        }
    }

    /// Every voter but this node, in the order of their ids.
    fn other_voters(&self) -> Vec<NodeId> {
        let (members, own) = (self.members(), self.config.id);
        let others = members.iter().filter(|(id, member)| member.voter && *id != own);
        others.map(|(id, _)| id).collect()
    }
}
