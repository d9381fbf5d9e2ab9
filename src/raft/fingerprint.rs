//! A hash of everything that decides a node's future, by which a model checker tells states apart.
//!
//! Absolute times, numbers of writes and the random generator are left out, because two nodes that
//! differ only in them behave alike. The time since an event is included, up to the longest
//! election timeout; beyond that it makes no difference.

use std::hash::{Hash, Hasher};

use super::Raft;
use super::progress::{Progress, ProgressState};
use super::role::{Leader, Role, Votes};
use super::types::Time;

impl Raft {
    /// Feeds the hasher with everything that decides what this node does when it gets the same
    /// inputs at the same intervals, provided that all election timeouts are equally long.
    pub fn fingerprint(&self, hasher: &mut impl Hasher) {
        let seq = self.persist_seq;
        (self.config.id, self.hard, self.leader, self.commit, self.durable, self.round_seen)
            .hash(hasher);
        self.log.hash(hasher);
        for (write, end) in &self.writes {
            (seq - write, end).hash(hasher);
        }
        let cap = self.config.election_timeout.1 + 1;
        let age = |at: Time| (self.now - at.min(self.now)).min(cap);
        (self.quiesced, self.heard.map(age), self.election_deadline.saturating_sub(self.now))
            .hash(hasher);
        std::mem::discriminant(&self.role).hash(hasher);
        match &self.role {
            Role::Follower(follower) => follower.hash(hasher),
            Role::PreCandidate(votes) | Role::Candidate(votes) => {
                let Votes { granted, rejected, own_vote } = votes;
                (granted, rejected, own_vote.map(|write| seq - write.min(seq))).hash(hasher);
            }
            Role::Leader(leader) => hash_leader(leader, age, hasher),
        }
    }
}

fn hash_leader(leader: &Leader, age: impl Fn(Time) -> Time, hasher: &mut impl Hasher) {
    let Leader { peers, term_start, round, round_own, reads, transfer, uncommitted_bytes, .. } =
        leader;
    (term_start, round, round_own, uncommitted_bytes).hash(hasher);
    for read in reads {
        (read.id, read.index, read.round).hash(hasher);
    }
    if let Some(transfer) = transfer {
        (transfer.to, age(transfer.deadline), transfer.sent).hash(hasher);
    }
    for (id, peer) in peers.iter() {
        let Progress { next, matched, state, sent, heard, woken, activity, .. } = peer;
        (id, next, matched, peer.round_sent, peer.round_heard, peer.commit_sent).hash(hasher);
        (sent.map(&age), age(*heard), age(*woken), activity).hash(hasher);
        std::mem::discriminant(state).hash(hasher);
        match state {
            ProgressState::Probe { waiting } => waiting.hash(hasher),
            ProgressState::Replicate { inflight } => inflight.hash(hasher),
            ProgressState::Chunks(out) => (out.of, out.offset, out.sent.map(&age)).hash(hasher),
        }
    }
}
