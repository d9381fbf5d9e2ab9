//! Leading: proposals, replies of followers, committing, reads, membership changes, handing over (paper
//! §5.3, §5.4; dissertation §3.10, §4.1, §6.2, §6.4).

use std::collections::VecDeque;

use super::Raft;
use super::entry::Payload;
use super::membership::{Change, Members, Refused};
use super::message::{AppendResult, Body};
use super::output::{Confirmed, Invalid};
use super::progress::{Activity, Progress};
use super::quorum;
use super::role::{Leader, Read, Role, Transfer};
use super::types::{Blob, Index, NodeId, Position, Time};
use crate::mistakes::{Mistake, made};
use crate::sorted::SortedMap;

/// A member is there if it has answered within so many of the longest election timeout. In a hidden tab
/// whose only timers are the page's, a leader speaks once a second.
const PATIENCE: Time = 4;

/// A learner has caught up when it lacks at most so many entries.
const CAUGHT_UP: Index = 64;

impl Raft {
    pub(super) fn become_leader(&mut self) {
        debug_assert!(matches!(self.role, Role::Candidate(_)), "leaders are elected");
        let next = self.log.last().index + 1;
        let uncommitted_bytes =
            self.log.iter_from(self.commit + 1).map(|entry| entry.payload.size()).sum();
        self.role = Role::Leader(Leader {
            peers: SortedMap::new(),
            term_start: next,
            round: 0,
            round_own: 0,
            round_writes: VecDeque::new(),
            reads: VecDeque::new(),
            transfer: None,
            uncommitted_bytes,
        });
        self.track_peers();
        self.set_leader(Some(self.config.id));
        self.append(Payload::Noop);
    }

    /// Every member but this node is a peer, and nobody else.
    fn track_peers(&mut self) {
        let (members, own, now) = (self.log.members().1, self.config.id, self.now);
        let next = self.log.last().index + 1;
        let Role::Leader(leader) = &mut self.role else { return };
        leader.peers.retain(|id, _| members.contains(*id));
        for (id, _) in members.iter().filter(|(id, _)| *id != own) {
            leader.peers.get_or_insert_with(id, || Progress::new(next, now));
        }
        if leader.transfer.as_ref().is_some_and(|transfer| !members.is_voter(transfer.to)) {
            leader.transfer = None;
        }
    }

    /// Whether a learner can be promoted: it has answered of late, has nearly all of the log, and knows
    /// that it is a member. So whoever finds its storage later can tell that it may be needed.
    pub fn is_ready(&self, id: NodeId) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let (last, recent) = (self.log.last().index, self.config.election_timeout.1 * PATIENCE);
        let at = self.log.members().0.max(1);
        leader.peers.get(&id).is_some_and(|peer| {
            let close = last - peer.matched <= CAUGHT_UP && peer.matched >= at;
            close && self.now <= peer.heard + recent
        })
    }

    /// Whether a member has answered this leader of late, or is the leader itself.
    pub fn is_live(&self, id: NodeId) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let recent = self.config.election_timeout.1 * PATIENCE;
        let answers = |peer: &Progress| peer.matched > 0 && self.now <= peer.heard + recent;
        id == self.config.id || leader.peers.get(&id).is_some_and(answers)
    }

    /// When a member last answered this leader; `None` when it never did, or this node does not lead.
    pub fn last_heard(&self, id: NodeId) -> Option<Time> {
        let Role::Leader(leader) = &self.role else { return None };
        leader.peers.get(&id).filter(|peer| peer.matched > 0).map(|peer| peer.heard)
    }

    /// Changes the configuration by one member (dissertation §4.1). The new one counts at once; it is
    /// given up only if this leader is deposed and another one overwrites it.
    pub(super) fn change(&mut self, change: &Change) -> Result<Index, Refused> {
        let Role::Leader(leader) = &self.role else { return Err(Refused::NotLeader) };
        if leader.transfer.is_some() {
            return Err(Refused::Transferring);
        }
        let (at, members) = self.log.members();
        // Without an entry of the own term, two leaders could change the same configuration, each
        // with a majority of its own (the correction of §4.1 of July 2015).
        let in_term = self.commit >= leader.term_start || made(Mistake::ChangeBeforeTerm);
        let settled = at <= self.commit || made(Mistake::TwoChanges);
        if !(in_term && settled) {
            return Err(Refused::Changing);
        }
        let members = members.after(change)?;
        if let Change::Promote(id) = change
            && *id != self.config.id
            && !self.is_ready(*id)
        {
            return Err(Refused::Behind);
        }
        let index = self.append(Payload::Members(members));
        self.track_peers();
        self.advance_commit();
        Ok(index)
    }

    fn append(&mut self, payload: Payload) -> Index {
        let size = payload.size();
        let at = self.log.append(self.hard.term, payload);
        self.unsaved.entries(at.index);
        if let Role::Leader(leader) = &mut self.role {
            leader.uncommitted_bytes += size;
        }
        at.index
    }

    pub(super) fn propose(&mut self, commands: Vec<Blob>) -> Result<Index, Refused> {
        let Role::Leader(leader) = &self.role else { return Err(Refused::NotLeader) };
        if leader.transfer.is_some() {
            return Err(Refused::Transferring);
        }
        let payloads: Vec<_> = commands.into_iter().map(Payload::Command).collect();
        let size: usize = payloads.iter().map(Payload::size).sum();
        if !self.has_room(size) {
            return Err(Refused::Busy);
        }
        let first = self.log.last().index + 1;
        for payload in payloads {
            self.append(payload);
        }
        Ok(first)
    }

    /// Whether a leader takes `bytes` more of proposals now. The first one always fits, however
    /// large it is.
    pub fn has_room(&self, bytes: usize) -> bool {
        match &self.role {
            Role::Leader(leader) => {
                let uncommitted = leader.uncommitted_bytes;
                uncommitted == 0 || uncommitted + bytes <= self.config.max_uncommitted_bytes
            }
            _ => false,
        }
    }

    /// Whether this node leads and is not about to stop.
    pub fn takes_proposals(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.transfer.is_none())
    }

    pub(super) fn confirm(&mut self, id: u64, at_least: Index) {
        let commit = self.commit;
        let Role::Leader(leader) = &mut self.role else {
            self.out.reads.push(Confirmed { id, index: None });
            return;
        };
        // Until an entry of this term is committed, a leader does not know what is.
        let index = at_least.max(commit).max(leader.term_start);
        leader.round += 1;
        self.unsaved.round = true;
        leader.reads.push_back(Read { id, index, round: leader.round });
        self.release_reads();
    }

    pub(super) fn transfer(&mut self, to: Option<NodeId>) {
        let (now, timeout) = (self.now, self.config.election_timeout);
        let Role::Leader(leader) = &mut self.role else { return };
        let members = self.log.members().1;
        let is_able = |id: &NodeId| leader.peers.contains_key(id) && members.is_voter(*id);
        let live =
            |peer: &Progress| peer.activity == Activity::Quiesced || now <= peer.heard + timeout.1;
        let most_up_to_date = || leader.most_up_to_date(members, live);
        if let Some(to) = to.filter(is_able).or_else(most_up_to_date) {
            leader.transfer = Some(Transfer { to, deadline: now + timeout.0, sent: false });
        }
    }

    /// Steps down when a majority has been silent for an election timeout (dissertation §6.2).
    pub(super) fn check_quorum(&mut self) {
        if let Some(expiry) = self.quorum_expires()
            && self.now >= expiry
        {
            self.become_follower(self.hard.term);
        }
    }

    /// When this leader steps down unless it hears more; `None` when it needs nobody, or does not
    /// lead.
    fn quorum_expires(&self) -> Option<Time> {
        let heard = self.reached_by_majority(Time::MAX, Progress::active_at)?;
        (heard < Time::MAX).then(|| heard + self.config.election_timeout.1 + 1)
    }

    /// The largest number that a majority of the voters has reached: `own` is this node's, `of` gives
    /// the others'. `None` when it does not lead.
    fn reached_by_majority(&self, own: u64, of: impl Fn(&Progress) -> u64) -> Option<u64> {
        let Role::Leader(leader) = &self.role else { return None };
        let members = self.quorum_members();
        let peers = leader.peers.iter().filter(|(id, _)| members.is_voter(**id));
        let mut numbers: Vec<_> = peers.map(|(_, peer)| of(peer)).collect();
        // A leader that is being removed still leads, but does not count (dissertation §4.2.2).
        numbers.extend(members.is_voter(self.config.id).then_some(own));
        quorum::reached(members.quorum(), numbers)
    }

    pub(super) fn leader_deadline(&self) -> Time {
        let Role::Leader(leader) = &self.role else { return Time::MAX };
        let beat = |peer: &Progress| {
            peer.sent.map_or(self.now, |sent| sent + self.send_interval(peer.activity))
        };
        let beats = leader.peers.values().map(beat);
        let transfer = leader.transfer.as_ref().map(|transfer| transfer.deadline);
        beats.chain(transfer).chain(self.quorum_expires()).min().unwrap_or(Time::MAX)
    }

    pub(super) fn handle_append_reply(
        &mut self,
        from: NodeId,
        round: u64,
        result: AppendResult,
    ) -> Result<(), Invalid> {
        let last = self.log.last().index;
        let (now, beat) = (self.now, self.config.heartbeat_interval);
        let Some(peer) = self.heard_from(from, round)? else { return Ok(()) };
        match result {
            AppendResult::Accepted { matched } => {
                if matched > last {
                    return Err(Invalid::MatchedBeyondLog);
                }
                peer.accepted(matched, last, now, beat);
                self.advance_commit();
            }
            AppendResult::Rejected { prev, hint } => self.handle_rejection(from, prev, hint),
        }
        self.release_reads();
        Ok(())
    }

    fn handle_rejection(&mut self, from: NodeId, prev: Index, hint: Position) {
        // Every log agrees at 0, so nobody rejects that, but to say that its sender's term is over.
        let Some(before) = prev.checked_sub(1) else { return };
        let agreement = self.log.agreement(hint).index.min(before);
        let (now, beat) = (self.now, self.config.heartbeat_interval);
        let Role::Leader(leader) = &mut self.role else { return };
        let peer = leader.peers.get_mut(&from).expect("`heard_from` found it");
        peer.rejected(prev, agreement, now, beat);
    }

    /// A member answered in this term. `None` when this node does not lead it any more.
    pub(super) fn heard_from(
        &mut self,
        from: NodeId,
        round: u64,
    ) -> Result<Option<&mut Progress>, Invalid> {
        let now = self.now;
        let Role::Leader(leader) = &mut self.role else { return Ok(None) };
        if round > leader.round {
            return Err(Invalid::Unasked);
        }
        // Somebody who is a member no more may still have answered.
        let Some(peer) = leader.peers.get_mut(&from) else { return Ok(None) };
        peer.replied(now, round);
        Ok(Some(peer))
    }

    /// Commits what a majority has, if it is of this term (paper §5.4.2).
    pub(super) fn advance_commit(&mut self) {
        let Some(index) = self.reached_by_majority(self.durable, |peer| peer.matched) else {
            return;
        };
        let current = self.log.term(index) == Some(self.hard.term);
        if index <= self.commit || !(current || made(Mistake::OldTermCounted)) {
            return;
        }
        let newly = self.log.iter_from(self.commit + 1);
        let newly = newly.take_while(|entry| entry.at.index <= index);
        let bytes: usize = newly.map(|entry| entry.payload.size()).sum();
        if let Role::Leader(leader) = &mut self.role {
            leader.uncommitted_bytes -= bytes;
        }
        self.set_commit(index);
        self.release_reads();
    }

    /// Answers the confirmations whose round a majority has answered and whose index is committed.
    pub(super) fn release_reads(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        let Some(confirmed) = self.reached_by_majority(leader.round_own, |peer| peer.round_heard)
        else {
            return;
        };
        let Role::Leader(leader) = &mut self.role else { return };
        let (commit, out) = (self.commit, &mut self.out.reads);
        leader.reads.retain(|read| {
            let leads = read.round <= confirmed || made(Mistake::ReadUnconfirmed);
            let done = leads && read.index <= commit;
            if done {
                out.push(Confirmed { id: read.id, index: Some(read.index) });
            }
            !done
        });
    }

    /// A leader that has no vote any more steps down as soon as that is committed, and has the one who
    /// has the longest log stand (dissertation §4.2.2).
    pub(super) fn step_down_if_removed(&mut self) {
        let (at, members) = self.log.members();
        let Role::Leader(leader) = &self.role else { return };
        if members.is_voter(self.config.id) || at > self.commit {
            return;
        }
        if let Some(to) = leader.most_up_to_date(members, |_| true) {
            self.send(to, Body::TimeoutNow);
        }
        self.become_follower(self.hard.term);
    }

    /// Tells the target of a transfer to stand once it has everything, or gives up.
    pub(super) fn drive_transfer(&mut self) {
        let (now, last) = (self.now, self.log.last().index);
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(transfer) = &mut leader.transfer else { return };
        let to = transfer.to;
        if now >= transfer.deadline {
            leader.transfer = None;
        } else if !transfer.sent && leader.peers.get(&to).is_some_and(|peer| peer.matched == last) {
            transfer.sent = true;
            self.send(to, Body::TimeoutNow);
        }
    }
}

impl Leader {
    /// The voter whose log is known to go furthest, among those who pass.
    fn most_up_to_date(
        &self,
        members: &Members,
        passes: impl Fn(&Progress) -> bool,
    ) -> Option<NodeId> {
        let able = self.peers.iter().filter(|(id, peer)| members.is_voter(**id) && passes(peer));
        able.max_by_key(|(id, peer)| (peer.matched, u64::MAX - **id)).map(|(id, _)| *id)
    }
}
