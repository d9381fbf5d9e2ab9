//! Sending every peer what it lacks: the one place where a leader sends entries (paper §5.3;
//! dissertation §10.2).

use super::Raft;
use super::entry::Payload;
use super::message::{Body, Chunked, Wants};
use super::progress::{Activity, OutgoingChunks, Progress, ProgressState};
use super::role::Role;
use super::types::{Index, NodeId, Position};

impl Raft {
    /// Sends every peer what it lacks. It runs at the end of every call.
    pub(super) fn replicate(&mut self) {
        if !self.role.is_leader() {
            return;
        }
        for id in self.peers() {
            self.replicate_to(id);
        }
        self.advance_transfer();
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
        let interval = self.send_interval(activity);
        let Some((peer, round)) = self.peer(id) else { return };
        let due = peer.sent.is_none_or(|sent| now >= sent + interval);
        if due
            && peer.activity == Activity::Quiesced
            && peer.sent.is_some_and(|sent| peer.heard < sent)
        {
            peer.wake(now); // The peer has not replied to the last heartbeat.
        }
        let new_round = peer.round_sent < round;
        match &peer.state {
            // The first probe brings entries, the next ones none until the peer replies: a peer
            // that is down must not be sent the same entries again and again.
            ProgressState::Probe { waiting: false } => self.send_append(id, true),
            ProgressState::Probe { waiting: true } => {
                if due || new_round {
                    self.send_append(id, false);
                }
            }
            ProgressState::Replicate { .. } => {
                let mut sent_none = true;
                while let Some((peer, _)) = self.peer(id)
                    && let ProgressState::Replicate { inflight } = &peer.state
                    && inflight.len() < max_inflight
                    && peer.next <= last
                {
                    self.send_append(id, true);
                    sent_none = false;
                }
                let Some((peer, _)) = self.peer(id) else { return };
                if sent_none && (due || new_round || peer.commit_sent < commit.min(peer.next - 1)) {
                    self.send_append(id, false);
                }
            }
            ProgressState::Chunks(chunks) if chunks.sent.is_none() => self.send_chunk(id),
            ProgressState::Chunks(_) => {
                if due || new_round {
                    self.send_append(id, false);
                }
            }
        }
    }

    /// What this leader knows of a peer, and the newest round of confirmations. `None` when this
    /// node does not lead, or there is no such peer.
    pub(super) fn peer(&mut self, id: NodeId) -> Option<(&mut Progress, u64)> {
        let Role::Leader(leader) = &mut self.role else { return None };
        let round = leader.round;
        leader.peers.get_mut(&id).map(|peer| (peer, round))
    }

    /// Sends one AppendEntries from the peer's `next` on, with or without entries. If the next
    /// entry is compacted, sends the snapshot in chunks instead; if it is too large, the entry in
    /// chunks.
    fn send_append(&mut self, id: NodeId, with_entries: bool) {
        let (now, commit, max) = (self.now, self.commit, self.config.max_message_bytes);
        let may_quiesce = self.may_quiesce(id);
        let Some(activity) = self.peer(id).map(|(peer, _)| peer.activity) else { return };
        let interval = self.send_interval(activity);
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
            entries.clear(); // Chunks are sent only once it is known where the logs agree.
        }
        let Some((peer, _)) = self.peer(id) else { return };
        // A message that is no heartbeat due and brings neither entries nor a new round needs no
        // reply.
        let due = peer.sent.is_none_or(|sent| now >= sent + interval);
        let replicates = matches!(peer.state, ProgressState::Replicate { .. });
        let no_reply = replicates && entries.is_empty() && !due && peer.round_sent == round;
        // A peer that was woken must reply before it is asked to quiesce again.
        let quiesce = may_quiesce && peer.sent.is_some() && peer.heard >= peer.woken;
        let wants = match (no_reply, quiesce) {
            (true, _) => Wants::NoReply,
            (false, true) => Wants::Quiesce,
            (false, false) => Wants::Reply,
        };
        if !no_reply {
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
