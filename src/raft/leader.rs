//! Sending entries and snapshots, committing, confirming, handing over (paper §5.3, §5.4, §7;
//! dissertation §3.10, §6.2, §6.4, §10.2).

use std::collections::VecDeque;

use super::Raft;
use super::output::{Confirmed, Invalid, Refused};
use super::role::{Flow, Leader, Outbound, Pace, Peer, Read, Role, Transfer};
use super::types::{
    AppendResult, Blob, Body, Change, Index, Members, NodeId, Payload, Position, Time, Wants, Whole,
};
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
        self.meet_peers();
        self.set_leader(Some(self.config.id));
        self.append(Payload::Noop);
    }

    /// Every member but this node is a peer, and nobody else.
    fn meet_peers(&mut self) {
        let (members, own, now) = (self.log.members().1, self.config.id, self.now);
        let next = self.log.last().index + 1;
        let Role::Leader(leader) = &mut self.role else { return };
        leader.peers.retain(|id, _| members.contains(*id));
        for (id, _) in members.iter().filter(|(id, _)| *id != own) {
            leader.peers.get_or_insert_with(id, || Peer::new(next, now));
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
        let answers = |peer: &Peer| peer.matched > 0 && self.now <= peer.heard + recent;
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
        self.meet_peers();
        self.advance_commit();
        Ok(index)
    }

    fn append(&mut self, payload: Payload) -> Index {
        let size = payload.size();
        let at = self.log.append(self.hard.term, payload);
        self.mark_dirty(at.index);
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
        self.dirty_round = true;
        leader.reads.push_back(Read { id, index, round: leader.round });
        self.release_reads();
    }

    pub(super) fn transfer(&mut self, to: Option<NodeId>) {
        let (now, timeout) = (self.now, self.config.election_timeout);
        let Role::Leader(leader) = &mut self.role else { return };
        let members = self.log.members().1;
        let is_able = |id: &NodeId| leader.peers.contains_key(id) && members.is_voter(*id);
        let live = |peer: &Peer| peer.pace == Pace::Rest || now <= peer.heard + timeout.1;
        let furthest = || leader.furthest(members, live);
        if let Some(to) = to.filter(is_able).or_else(furthest) {
            leader.transfer = Some(Transfer { to, deadline: now + timeout.0, told: false });
        }
    }

    /// Steps down when a majority has been silent for an election timeout (dissertation §6.2).
    pub(super) fn check_quorum(&mut self) {
        if let Some(lapse) = self.quorum_lapses()
            && self.now >= lapse
        {
            self.become_follower(self.hard.term);
        }
    }

    /// When this leader steps down unless it hears more; `None` when it needs nobody, or does not
    /// lead.
    fn quorum_lapses(&self) -> Option<Time> {
        let heard = self.of_a_majority(Time::MAX, |peer| match peer.pace {
            Pace::Rest => Time::MAX,
            Pace::Beat | Pace::Asked => peer.heard.max(peer.woken),
        })?;
        (heard < Time::MAX).then(|| heard + self.config.election_timeout.1 + 1)
    }

    /// The largest number that a majority of the voters has reached: `own` is this node's, `of` gives
    /// the others'. `None` when it does not lead.
    fn of_a_majority(&self, own: u64, of: impl Fn(&Peer) -> u64) -> Option<u64> {
        let Role::Leader(leader) = &self.role else { return None };
        let members = self.counting_members();
        let peers = leader.peers.iter().filter(|(id, _)| members.is_voter(**id));
        let mut reached: Vec<_> = peers.map(|(_, peer)| of(peer)).collect();
        // A leader that is on its way out leads, and does not count (dissertation §4.2.2).
        reached.extend(members.is_voter(self.config.id).then_some(own));
        reached.sort_unstable_by(|a, b| b.cmp(a));
        reached.get(members.quorum() - 1).copied()
    }

    pub(super) fn leader_deadline(&self) -> Time {
        let Role::Leader(leader) = &self.role else { return Time::MAX };
        let beat = |peer: &Peer| peer.sent.map_or(self.now, |sent| sent + self.pause(peer.pace));
        let beats = leader.peers.values().map(beat);
        let transfer = leader.transfer.as_ref().map(|transfer| transfer.deadline);
        beats.chain(transfer).chain(self.quorum_lapses()).min().unwrap_or(Time::MAX)
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
                peer.matched = peer.matched.max(matched);
                match &mut peer.flow {
                    Flow::Replicate { inflight } => {
                        while inflight.front().is_some_and(|end| *end <= matched) {
                            inflight.pop_front();
                        }
                        peer.next = peer.next.max(matched + 1);
                    }
                    Flow::Probe { .. } => peer.replicate(),
                    Flow::Pieces(outbound) if matched >= outbound.of.end().index => {
                        peer.replicate();
                    }
                    Flow::Pieces(outbound) => outbound.answered(now, beat),
                }
                if peer.pace == Pace::Asked && peer.matched == last {
                    peer.pace = Pace::Rest;
                }
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
        let is_current = match &mut peer.flow {
            Flow::Replicate { .. } => prev > peer.matched && prev < peer.next,
            Flow::Probe { .. } => prev > peer.matched && prev + 1 == peer.next,
            Flow::Pieces(outbound) => {
                outbound.answered(now, beat);
                matches!(outbound.of, Whole::Entry { prev: p, .. } if p.index == prev)
            }
        };
        if is_current {
            // Below the base there is only the snapshot, and `replicate` sends that.
            peer.probe(agreement + 1);
        }
    }

    pub(super) fn handle_piece_reply(
        &mut self,
        from: NodeId,
        of: Whole,
        offset: u64,
        round: u64,
    ) -> Result<(), Invalid> {
        let Some(peer) = self.heard_from(from, round)? else { return Ok(()) };
        if let Flow::Pieces(outbound) = &mut peer.flow
            && outbound.of == of
        {
            let offset = usize::try_from(offset).map_err(|_| Invalid::Piece)?;
            if offset >= outbound.data.len() {
                return Err(Invalid::Piece);
            }
            // An answer that brings nothing new may be a repeated one. To send again because of
            // it would double the traffic for good; the heartbeat's turn comes anyway.
            if offset != outbound.offset {
                outbound.offset = offset;
                outbound.sent = None;
            }
        }
        self.release_reads();
        Ok(())
    }

    /// A member answered in this term. `None` when this node does not lead it any more.
    fn heard_from(&mut self, from: NodeId, round: u64) -> Result<Option<&mut Peer>, Invalid> {
        let now = self.now;
        let Role::Leader(leader) = &mut self.role else { return Ok(None) };
        if round > leader.round {
            return Err(Invalid::Unasked);
        }
        // Somebody who is a member no more may still have answered.
        let Some(peer) = leader.peers.get_mut(&from) else { return Ok(None) };
        peer.heard = now;
        peer.round_heard = peer.round_heard.max(round);
        Ok(Some(peer))
    }

    /// Commits what a majority has, if it is of this term (paper §5.4.2).
    pub(super) fn advance_commit(&mut self) {
        let Some(index) = self.of_a_majority(self.durable, |peer| peer.matched) else { return };
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
        let Some(confirmed) = self.of_a_majority(leader.round_own, |peer| peer.round_heard) else {
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

    /// Sends every peer what it lacks: the one place where a leader speaks.
    pub(super) fn replicate(&mut self) {
        if !self.role.is_leader() {
            return;
        }
        for id in self.peers() {
            self.replicate_to(id);
        }
        self.drive_transfer();
        self.leave_office();
    }

    fn peers(&self) -> Vec<NodeId> {
        let Role::Leader(leader) = &self.role else { return Vec::new() };
        leader.peers.keys().copied().collect()
    }

    /// A leader that has no vote any more steps down as soon as that is committed, and has the one who
    /// is furthest stand (dissertation §4.2.2).
    fn leave_office(&mut self) {
        let (at, members) = self.log.members();
        let Role::Leader(leader) = &self.role else { return };
        if members.is_voter(self.config.id) || at > self.commit {
            return;
        }
        if let Some(to) = leader.furthest(members, |_| true) {
            self.send(to, Body::TimeoutNow);
        }
        self.become_follower(self.hard.term);
    }

    /// How long a peer is not spoken to when there is nothing to say, in ms.
    fn pause(&self, pace: Pace) -> Time {
        let beat = self.config.heartbeat_interval;
        if pace == Pace::Rest { self.config.rest.unwrap_or(beat) } else { beat }
    }

    /// Speaks to every follower at once, if it leads some that rest.
    pub(super) fn wake_peers(&mut self) {
        let now = self.now;
        let Role::Leader(leader) = &mut self.role else { return };
        for peer in leader.peers.values_mut().filter(|peer| peer.pace != Pace::Beat) {
            peer.wake(now);
            peer.sent = None;
        }
    }

    /// Whether a follower has everything, and nobody here waits for anything.
    fn may_rest(&self, id: NodeId) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let last = self.log.last().index;
        self.config.rest.is_some()
            && (leader.transfer.is_none() && leader.reads.is_empty() && self.commit == last)
            && leader.peers.get(&id).is_some_and(|peer| {
                let has_all = peer.matched == last && peer.round_heard == leader.round;
                has_all && matches!(&peer.flow, Flow::Replicate { inflight } if inflight.is_empty())
            })
    }

    fn replicate_to(&mut self, id: NodeId) {
        let now = self.now;
        let (commit, last) = (self.commit, self.log.last().index);
        let max_inflight = self.config.max_inflight;
        let Some(pace) = self.peer(id).map(|(peer, _)| peer.pace) else { return };
        let pause = self.pause(pace);
        let Some((peer, round)) = self.peer(id) else { return };
        let due = peer.sent.is_none_or(|sent| now >= sent + pause);
        if due && peer.pace == Pace::Rest && peer.sent.is_some_and(|sent| peer.heard < sent) {
            peer.wake(now); // It has not answered the last time.
        }
        let news = peer.round_sent < round;
        match &peer.flow {
            // Entries only to who has answered: one that is gone is not sent them again and again.
            Flow::Probe { waiting: false } => self.send_append(id, true),
            Flow::Probe { waiting: true } => {
                if due || news {
                    self.send_append(id, false);
                }
            }
            Flow::Replicate { .. } => {
                let mut silent = true;
                while let Some((peer, _)) = self.peer(id)
                    && let Flow::Replicate { inflight } = &peer.flow
                    && inflight.len() < max_inflight
                    && peer.next <= last
                {
                    self.send_append(id, true);
                    silent = false;
                }
                let Some((peer, _)) = self.peer(id) else { return };
                if silent && (due || news || peer.commit_sent < commit.min(peer.next - 1)) {
                    self.send_append(id, false);
                }
            }
            Flow::Pieces(outbound) if outbound.sent.is_none() => self.send_piece(id),
            Flow::Pieces(_) => {
                if due || news {
                    self.send_append(id, false);
                }
            }
        }
    }

    fn peer(&mut self, id: NodeId) -> Option<(&mut Peer, u64)> {
        let Role::Leader(leader) = &mut self.role else { return None };
        let round = leader.round;
        leader.peers.get_mut(&id).map(|peer| (peer, round))
    }

    /// Sends one AppendEntries from the peer's `next` on, with or without entries. What is too
    /// large or compacted goes in pieces instead.
    fn send_append(&mut self, id: NodeId, with_entries: bool) {
        let (now, commit, max) = (self.now, self.commit, self.config.max_message_bytes);
        let may_rest = self.may_rest(id);
        let Some(pace) = self.peer(id).map(|(peer, _)| peer.pace) else { return };
        let pause = self.pause(pace);
        let Some((peer, round)) = self.peer(id) else { return };
        let next = peer.next;
        let in_pieces = matches!(peer.flow, Flow::Pieces(_));
        let prev = match self.log.term(next - 1) {
            Some(term) => Position::new(next - 1, term),
            None if in_pieces => self.log.base(),
            None => return self.send_snapshot(id),
        };
        let mut entries = if with_entries { self.log.slice(next, max) } else { Vec::new() };
        if let [entry] = entries.as_slice()
            && entry.payload.size() > max
            && let Payload::Command(data) = entry.payload.clone()
        {
            let of = Whole::Entry { prev, at: entry.at };
            let Some((peer, _)) = self.peer(id) else { return };
            if matches!(peer.flow, Flow::Replicate { .. }) {
                peer.flow = Flow::Pieces(Outbound { of, data, offset: 0, sent: None });
                return self.send_piece(id);
            }
            entries.clear(); // First find out where the logs agree.
        }
        let Some((peer, _)) = self.peer(id) else { return };
        // Only a heartbeat that is due, a new round and entries want an answer.
        let due = peer.sent.is_none_or(|sent| now >= sent + pause);
        let replicates = matches!(peer.flow, Flow::Replicate { .. });
        let quiet = replicates && entries.is_empty() && !due && peer.round_sent == round;
        // Who was woken just now is to answer first.
        let rests = may_rest && peer.sent.is_some() && peer.heard >= peer.woken;
        let wants = match (quiet, rests) {
            (true, _) => Wants::Nothing,
            (false, true) => Wants::Rest,
            (false, false) => Wants::Answer,
        };
        if !quiet {
            peer.sent = Some(now);
        }
        match wants {
            Wants::Rest if peer.pace == Pace::Beat => peer.pace = Pace::Asked,
            Wants::Rest => {}
            Wants::Answer | Wants::Nothing => peer.wake(now),
        }
        peer.round_sent = round;
        let end = prev.index + entries.len() as Index;
        peer.commit_sent = commit.min(end).max(peer.commit_sent);
        match &mut peer.flow {
            Flow::Probe { waiting } => *waiting = true,
            Flow::Replicate { inflight } if !entries.is_empty() => {
                inflight.push_back(end);
                peer.next = end + 1;
            }
            Flow::Replicate { .. } | Flow::Pieces(_) => {}
        }
        self.send(id, Body::Append { prev, commit, round, entries, wants });
    }

    fn send_snapshot(&mut self, id: NodeId) {
        let snapshot = self.log.snapshot().expect("what is compacted is in a snapshot");
        let (of, data) = (Whole::Snapshot { last: snapshot.last }, snapshot.pack());
        let Some((peer, _)) = self.peer(id) else { return };
        peer.flow = Flow::Pieces(Outbound { of, data, offset: 0, sent: None });
        self.send_piece(id);
    }

    fn send_piece(&mut self, id: NodeId) {
        let (now, max) = (self.now, self.config.max_message_bytes);
        let Some((peer, round)) = self.peer(id) else { return };
        peer.sent = Some(now);
        peer.wake(now);
        peer.round_sent = round;
        let Flow::Pieces(outbound) = &mut peer.flow else { return };
        outbound.sent = Some(now);
        let bytes = outbound.data.as_slice();
        let end = (outbound.offset + max).min(bytes.len());
        let body = Body::Piece {
            of: outbound.of,
            total: bytes.len() as u64,
            offset: outbound.offset as u64,
            round,
            data: Blob::from(&bytes[outbound.offset..end]),
        };
        self.send(id, body);
    }

    /// Tells the target of a transfer to stand once it has everything, or gives up.
    fn drive_transfer(&mut self) {
        let (now, last) = (self.now, self.log.last().index);
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(transfer) = &mut leader.transfer else { return };
        let to = transfer.to;
        if now >= transfer.deadline {
            leader.transfer = None;
        } else if !transfer.told && leader.peers.get(&to).is_some_and(|peer| peer.matched == last) {
            transfer.told = true;
            self.send(to, Body::TimeoutNow);
        }
    }
}

impl Leader {
    /// The voter whose log is known to go furthest, among those who pass.
    fn furthest(&self, members: &Members, passes: impl Fn(&Peer) -> bool) -> Option<NodeId> {
        let able = self.peers.iter().filter(|(id, peer)| members.is_voter(**id) && passes(peer));
        able.max_by_key(|(id, peer)| (peer.matched, u64::MAX - **id)).map(|(id, _)| *id)
    }
}

impl Whole {
    /// The last position that the whole covers.
    fn end(self) -> Position {
        match self {
            Self::Snapshot { last } => last,
            Self::Entry { at, .. } => at,
        }
    }
}
