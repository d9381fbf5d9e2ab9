//! The leader: proposals, replies of followers, committing, reads, membership changes, leadership
//! transfer (paper §5.3, §5.4; dissertation §3.10, §4.1, §6.2, §6.4).

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

/// A member is live if it has replied within this many of the longest election timeout. The number
/// is large because a leader in a hidden tab without a timer worker sends only once a second.
const LIVE_TIMEOUTS: Time = 4;

/// A learner has caught up when it lacks at most this many entries.
const MAX_PROMOTION_LAG: Index = 64;

impl Raft {
    /// The election is won: becomes leader and opens the term with a no-op (paper §8).
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

    /// Makes the peers exactly the members other than this node. Gives up a transfer to a node that
    /// is no voter any more.
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

    /// Whether this leader may promote the learner `id`: it has replied lately, has nearly all of
    /// the log, and has the newest configuration. The last condition lets a host that finds the
    /// learner's storage later see that the node may be needed.
    pub fn is_ready(&self, id: NodeId) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let (last, recent) =
            (self.log.last().index, self.config.election_timeout.1 * LIVE_TIMEOUTS);
        let at = self.log.members().0.max(1);
        leader.peers.get(&id).is_some_and(|peer| {
            let caught_up = last - peer.matched <= MAX_PROMOTION_LAG && peer.matched >= at;
            caught_up && self.now <= peer.heard + recent
        })
    }

    /// Whether this node leads and the member `id` has accepted entries and replied lately, or is
    /// this leader itself.
    pub fn is_live(&self, id: NodeId) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let recent = self.config.election_timeout.1 * LIVE_TIMEOUTS;
        let is_live = |peer: &Progress| peer.matched > 0 && self.now <= peer.heard + recent;
        id == self.config.id || leader.peers.get(&id).is_some_and(is_live)
    }

    /// When the member `id` last replied to this leader, in ms on this node's clock; `None` when it
    /// has accepted nothing yet, or this node does not lead.
    pub fn last_heard(&self, id: NodeId) -> Option<Time> {
        let Role::Leader(leader) = &self.role else { return None };
        leader.peers.get(&id).filter(|peer| peer.matched > 0).map(|peer| peer.heard)
    }

    /// Appends a new configuration, which differs in one member (dissertation §4.1). It is in force
    /// at once, and stays so unless a later leader overwrites the entry. Returns the index of the
    /// entry.
    pub(super) fn change(&mut self, change: &Change) -> Result<Index, Refused> {
        let Role::Leader(leader) = &self.role else { return Err(Refused::NotLeader) };
        if leader.transfer.is_some() {
            return Err(Refused::Transferring);
        }
        let (at, members) = self.log.members();
        // Without a committed entry of the leader's own term, two leaders could change the same
        // configuration, each with a majority of its own (Ongaro's correction of §4.1, July 2015).
        let term_committed = self.commit >= leader.term_start || made(Mistake::ChangeBeforeTerm);
        let change_committed = at <= self.commit || made(Mistake::TwoChanges);
        if !(term_committed && change_committed) {
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

    /// Appends the commands, and returns the index of the first one.
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

    /// Whether this leader accepts proposals of `bytes` bytes now. If nothing is uncommitted, it
    /// accepts a proposal of any size.
    pub fn has_room(&self, bytes: usize) -> bool {
        match &self.role {
            Role::Leader(leader) => {
                let uncommitted = leader.uncommitted_bytes;
                uncommitted == 0 || uncommitted + bytes <= self.config.max_uncommitted_bytes
            }
            _ => false,
        }
    }

    /// Whether this node leads and no leadership transfer is under way.
    pub fn takes_proposals(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.transfer.is_none())
    }

    /// Begins a round of confirmations for a read: ReadIndex (dissertation §6.4).
    pub(super) fn confirm(&mut self, id: u64, at_least: Index) {
        let commit = self.commit;
        let Role::Leader(leader) = &mut self.role else {
            self.out.reads.push(Confirmed { id, index: None });
            return;
        };
        // Until an entry of its own term is committed, a leader does not know the newest commit
        // index.
        let index = at_least.max(commit).max(leader.term_start);
        leader.round += 1;
        self.unsaved.round = true;
        leader.reads.push_back(Read { id, index, round: leader.round });
        self.release_reads();
    }

    /// Starts a leadership transfer to `to`, or to the live voter with the longest log
    /// (dissertation §3.10).
    pub(super) fn transfer(&mut self, to: Option<NodeId>) {
        let (now, timeout) = (self.now, self.config.election_timeout);
        let Role::Leader(leader) = &mut self.role else { return };
        let members = self.log.members().1;
        let can_lead = |id: &NodeId| leader.peers.contains_key(id) && members.is_voter(*id);
        let live =
            |peer: &Progress| peer.activity == Activity::Quiesced || now <= peer.heard + timeout.1;
        let most_up_to_date = || leader.most_up_to_date(members, live);
        if let Some(to) = to.filter(can_lead).or_else(most_up_to_date) {
            leader.transfer = Some(Transfer { to, deadline: now + timeout.0, sent: false });
        }
    }

    /// CheckQuorum: steps down when no majority has replied within the longest election timeout
    /// (dissertation §6.2).
    pub(super) fn check_quorum(&mut self) {
        if let Some(expiry) = self.quorum_expires()
            && self.now >= expiry
        {
            self.become_follower(self.hard.term);
        }
    }

    /// When this leader steps down unless more replies come, in ms; `None` when silence does not
    /// count (this node alone is a majority, or quiesced peers complete one), or this node does not
    /// lead.
    fn quorum_expires(&self) -> Option<Time> {
        let heard = self.reached_by_majority(Time::MAX, Progress::active_at)?;
        (heard < Time::MAX).then(|| heard + self.config.election_timeout.1 + 1)
    }

    /// The largest number that a majority of the voters has reached, where `own` is this node's
    /// number and `of` returns that of a peer. `None` when this node does not lead.
    fn reached_by_majority(&self, own: u64, of: impl Fn(&Progress) -> u64) -> Option<u64> {
        let Role::Leader(leader) = &self.role else { return None };
        let members = self.quorum_members();
        let peers = leader.peers.iter().filter(|(id, _)| members.is_voter(**id));
        let mut numbers: Vec<_> = peers.map(|(_, peer)| of(peer)).collect();
        // A leader that is being removed still leads, but does not count itself (dissertation
        // §4.2.2).
        numbers.extend(members.is_voter(self.config.id).then_some(own));
        quorum::reached(members.quorum(), numbers)
    }

    /// When this leader must act next, in ms: a heartbeat, the end of a transfer or CheckQuorum.
    pub(super) fn leader_deadline(&self) -> Time {
        let Role::Leader(leader) = &self.role else { return Time::MAX };
        let next_heartbeat = |peer: &Progress| {
            peer.sent.map_or(self.now, |sent| sent + self.send_interval(peer.activity))
        };
        let heartbeats = leader.peers.values().map(next_heartbeat);
        let transfer = leader.transfer.as_ref().map(|transfer| transfer.deadline);
        heartbeats.chain(transfer).chain(self.quorum_expires()).min().unwrap_or(Time::MAX)
    }

    pub(super) fn handle_append_reply(
        &mut self,
        from: NodeId,
        round: u64,
        result: AppendResult,
    ) -> Result<(), Invalid> {
        let last = self.log.last().index;
        let (now, beat) = (self.now, self.config.heartbeat_interval);
        let Some(peer) = self.record_reply(from, round)? else { return Ok(()) };
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
        // All logs agree at 0, so a follower rejects 0 only to refuse a message of an older term.
        let Some(before) = prev.checked_sub(1) else { return };
        let agreement = self.log.agreement(hint).index.min(before);
        let (now, beat) = (self.now, self.config.heartbeat_interval);
        let Role::Leader(leader) = &mut self.role else { return };
        let peer = leader.peers.get_mut(&from).expect("`record_reply` found it");
        peer.rejected(prev, agreement, now, beat);
    }

    /// Records that `from` replied in this term. `None` when this node does not lead any more or
    /// `from` is not a member.
    ///
    /// # Errors
    /// When the reply echoes a round that this leader has not begun.
    pub(super) fn record_reply(
        &mut self,
        from: NodeId,
        round: u64,
    ) -> Result<Option<&mut Progress>, Invalid> {
        let now = self.now;
        let Role::Leader(leader) = &mut self.role else { return Ok(None) };
        if round > leader.round {
            return Err(Invalid::Unasked);
        }
        // A node that has been removed may still reply.
        let Some(peer) = leader.peers.get_mut(&from) else { return Ok(None) };
        peer.replied(now, round);
        Ok(Some(peer))
    }

    /// Commits what a majority has stored, if the last entry of it is of this term (paper §5.4.2).
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

    /// Answers the reads whose round a majority has answered and whose index is committed.
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

    /// A leader that is no voter any more steps down as soon as that configuration is committed,
    /// and asks the voter with the longest log to become a candidate (dissertation §4.2.2).
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

    /// Asks the target of a transfer to become a candidate once it has the whole log. Gives the
    /// transfer up at its deadline.
    pub(super) fn advance_transfer(&mut self) {
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
    /// Among the voters for which `eligible` holds, the one whose log is known to match furthest;
    /// of several, the one with the lowest id.
    fn most_up_to_date(
        &self,
        members: &Members,
        eligible: impl Fn(&Progress) -> bool,
    ) -> Option<NodeId> {
        let voters =
            self.peers.iter().filter(|(id, peer)| members.is_voter(**id) && eligible(peer));
        voters.max_by_key(|(id, peer)| (peer.matched, u64::MAX - **id)).map(|(id, _)| *id)
    }
}
