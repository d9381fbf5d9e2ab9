//! Sending every peer what it lacks: the one place where a leader sends entries (paper §5.3; dissertation
//! §10.2).

use super::Raft;
use super::entry::Payload;
use super::message::{Body, Chunked, Wants};
use super::progress::{Activity, OutgoingChunks, Progress, ProgressState};
use super::role::Role;
use super::types::{Index, NodeId, Position};

impl Raft {
    /// Sends every peer what it lacks: the one place where a leader speaks.
    pub(super) fn replicate(&mut self) {
        if !self.role.is_leader() {
            return;
        }
        for id in self.peers() {
            self.replicate_to(id);
        }
        self.drive_transfer();
        self.step_down_if_removed();
    }

    fn peers(&self) -> Vec<NodeId> {
        let Role::Leader(leader) = &self.role else { return Vec::new() };
        leader.peers.keys().copied().collect()
    }

    fn replicate_to(&mut self, id: NodeId) {
        let now = self.now;
        let (commit, last) = (self.commit, self.log.last().index);
        let max_inflight = self.config.max_inflight;
        let Some(activity) = self.peer(id).map(|(peer, _)| peer.activity) else { return };
        let pause = self.send_interval(activity);
        let Some((peer, round)) = self.peer(id) else { return };
        let due = peer.sent.is_none_or(|sent| now >= sent + pause);
        if due
            && peer.activity == Activity::Quiesced
            && peer.sent.is_some_and(|sent| peer.heard < sent)
        {
            peer.wake(now); // It has not answered the last time.
        }
        let news = peer.round_sent < round;
        match &peer.state {
            // Entries only to who has answered: one that is gone is not sent them again and again.
            ProgressState::Probe { waiting: false } => self.send_append(id, true),
            ProgressState::Probe { waiting: true } => {
                if due || news {
                    self.send_append(id, false);
                }
            }
            ProgressState::Replicate { .. } => {
                let mut silent = true;
                while let Some((peer, _)) = self.peer(id)
                    && let ProgressState::Replicate { inflight } = &peer.state
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
            ProgressState::Chunks(outbound) if outbound.sent.is_none() => self.send_chunk(id),
            ProgressState::Chunks(_) => {
                if due || news {
                    self.send_append(id, false);
                }
            }
        }
    }

    pub(super) fn peer(&mut self, id: NodeId) -> Option<(&mut Progress, u64)> {
        let Role::Leader(leader) = &mut self.role else { return None };
        let round = leader.round;
        leader.peers.get_mut(&id).map(|peer| (peer, round))
    }

    /// Sends one AppendEntries from the peer's `next` on, with or without entries. What is too
    /// large or compacted goes in pieces instead.
    fn send_append(&mut self, id: NodeId, with_entries: bool) {
        let (now, commit, max) = (self.now, self.commit, self.config.max_message_bytes);
        let may_quiesce = self.may_quiesce(id);
        let Some(activity) = self.peer(id).map(|(peer, _)| peer.activity) else { return };
        let pause = self.send_interval(activity);
        let Some((peer, round)) = self.peer(id) else { return };
        let next = peer.next;
        let in_chunks = matches!(peer.state, ProgressState::Chunks(_));
        let prev = match self.log.term(next - 1) {
            Some(term) => Position::new(next - 1, term),
            None if in_chunks => self.log.base(),
            None => return self.send_snapshot(id),
        };
        let mut entries = if with_entries { self.log.slice(next, max) } else { Vec::new() };
        if let [entry] = entries.as_slice()
            && entry.payload.size() > max
            && let Payload::Command(data) = entry.payload.clone()
        {
            let of = Chunked::Entry { prev, at: entry.at };
            let Some((peer, _)) = self.peer(id) else { return };
            if matches!(peer.state, ProgressState::Replicate { .. }) {
                peer.state =
                    ProgressState::Chunks(OutgoingChunks { of, data, offset: 0, sent: None });
                return self.send_chunk(id);
            }
            entries.clear(); // First find out where the logs agree.
        }
        let Some((peer, _)) = self.peer(id) else { return };
        // Only a heartbeat that is due, a new round and entries want an answer.
        let due = peer.sent.is_none_or(|sent| now >= sent + pause);
        let replicates = matches!(peer.state, ProgressState::Replicate { .. });
        let quiet = replicates && entries.is_empty() && !due && peer.round_sent == round;
        // Who was woken just now is to answer first.
        let quiesces = may_quiesce && peer.sent.is_some() && peer.heard >= peer.woken;
        let wants = match (quiet, quiesces) {
            (true, _) => Wants::NoReply,
            (false, true) => Wants::Quiesce,
            (false, false) => Wants::Reply,
        };
        if !quiet {
            peer.sent = Some(now);
        }
        match wants {
            Wants::Quiesce if peer.activity == Activity::Active => {
                peer.activity = Activity::Quiescing
            }
            Wants::Quiesce => {}
            Wants::Reply | Wants::NoReply => peer.wake(now),
        }
        peer.round_sent = round;
        let end = prev.index + entries.len() as Index;
        peer.commit_sent = commit.min(end).max(peer.commit_sent);
        match &mut peer.state {
            ProgressState::Probe { waiting } => *waiting = true,
            ProgressState::Replicate { inflight } if !entries.is_empty() => {
                inflight.push_back(end);
                peer.next = end + 1;
            }
            ProgressState::Replicate { .. } | ProgressState::Chunks(_) => {}
        }
        self.send(id, Body::Append { prev, commit, round, entries, wants });
    }
}
