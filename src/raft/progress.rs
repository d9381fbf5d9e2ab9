//! What a leader knows of each other member: how far its log matches the leader's, what is in
//! flight to it, and whether it is quiesced (as in etcd's raft). This file knows nothing of the
//! node around it.

use std::collections::VecDeque;

use super::message::Chunked;
use super::output::Invalid;
use super::types::{Blob, Index, Time};

/// What a leader knows of another member. All times are on the leader's clock, in ms.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// The next entry to send.
    pub(super) next: Index,
    /// The last entry known to be equal on both sides.
    pub(super) matched: Index,
    pub(super) state: ProgressState,
    /// When a message that wants a reply was last sent; `None` when none was in this term.
    pub(super) sent: Option<Time>,
    /// When the peer last replied in this term; before that, when the leader began to track it.
    pub(super) heard: Time,
    /// When the peer last stopped being quiesced: its silence does not count before that.
    pub(super) woken: Time,
    pub(super) activity: Activity,
    /// The newest round of confirmations that the peer was sent.
    pub(super) round_sent: u64,
    /// The newest round of confirmations that the peer has answered.
    pub(super) round_heard: u64,
    /// The newest commit index that the peer was sent.
    pub(super) commit_sent: Index,
}

/// How often the leader sends to a peer when there is nothing new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Activity {
    /// At every heartbeat interval.
    Active,
    /// The peer was asked to quiesce ([`super::message::Wants::Quiesce`]) and has not replied yet.
    Quiescing,
    /// Only at every quiesce interval ([`super::Config::quiesce_interval`]).
    Quiesced,
}

/// How entries are sent to a peer.
#[derive(Clone, Debug)]
pub(super) enum ProgressState {
    /// It is not known where the logs agree: one message at a time.
    Probe {
        /// A message has no reply yet.
        waiting: bool,
    },
    /// The logs agree up to `matched`: messages follow each other without waiting, up to a window.
    Replicate {
        /// The last index of each message that has no reply yet.
        inflight: VecDeque<Index>,
    },
    /// A snapshot or an entry larger than a message is on its way.
    Chunks(OutgoingChunks),
}

/// A chunked item on its way to a peer.
#[derive(Clone, Debug)]
pub(super) struct OutgoingChunks {
    pub(super) of: Chunked,
    pub(super) data: Blob,
    /// How many bytes the peer has.
    pub(super) offset: usize,
    /// When the chunk was sent that has no reply yet.
    pub(super) sent: Option<Time>,
}

impl OutgoingChunks {
    /// The peer replied to a heartbeat. If its chunk was sent a heartbeat interval ago and has no
    /// reply, the chunk is lost and must be sent again.
    fn heartbeat_answered(&mut self, now: Time, heartbeat_interval: Time) {
        if self.sent.is_some_and(|sent| now >= sent + heartbeat_interval) {
            self.sent = None;
        }
    }
}

impl Progress {
    /// A peer of which nothing is known. The leader's log ends right before `next`.
    pub(super) fn new(next: Index, now: Time) -> Self {
        Self {
            next,
            matched: 0,
            state: ProgressState::Probe { waiting: false },
            sent: None,
            heard: now,
            woken: now,
            activity: Activity::Active,
            round_sent: 0,
            round_heard: 0,
            commit_sent: 0,
        }
    }

    /// The peer is sent heartbeats again.
    pub(super) fn wake(&mut self, now: Time) {
        if self.activity != Activity::Active {
            (self.activity, self.woken) = (Activity::Active, now);
        }
    }

    /// Whether the peer has every entry up to `last` and has answered `round`, and nothing is in
    /// flight.
    pub(super) fn has_everything(&self, last: Index, round: u64) -> bool {
        let idle =
            matches!(&self.state, ProgressState::Replicate { inflight } if inflight.is_empty());
        idle && self.matched == last && self.round_heard == round
    }

    /// The time from which CheckQuorum counts the peer's silence, in ms; `Time::MAX` while the peer
    /// is quiesced and its silence does not count.
    pub(super) fn active_at(&self) -> Time {
        match self.activity {
            Activity::Quiesced => Time::MAX,
            Activity::Active | Activity::Quiescing => self.heard.max(self.woken),
        }
    }

    /// The peer replied to a message of this term, positively or not.
    pub(super) fn replied(&mut self, now: Time, round: u64) {
        self.heard = now;
        self.round_heard = self.round_heard.max(round);
    }

    /// The peer's log is equal up to `matched`. The leader's log ends at `last`.
    pub(super) fn accepted(
        &mut self,
        matched: Index,
        last: Index,
        now: Time,
        heartbeat_interval: Time,
    ) {
        self.matched = self.matched.max(matched);
        match &mut self.state {
            ProgressState::Replicate { inflight } => {
                while inflight.front().is_some_and(|end| *end <= matched) {
                    inflight.pop_front();
                }
                self.next = self.next.max(matched + 1);
            }
            ProgressState::Probe { .. } => self.replicate(),
            ProgressState::Chunks(out) if matched >= out.of.end().index => self.replicate(),
            ProgressState::Chunks(out) => out.heartbeat_answered(now, heartbeat_interval),
        }
        if self.activity == Activity::Quiescing && self.matched == last {
            self.activity = Activity::Quiesced;
        }
    }

    /// The peer's log does not have the leader's entry at `prev`; the logs agree at `agreement` at
    /// the latest. A reply to a message that is not in flight any more changes nothing.
    pub(super) fn rejected(
        &mut self,
        prev: Index,
        agreement: Index,
        now: Time,
        heartbeat_interval: Time,
    ) {
        let is_current = match &mut self.state {
            ProgressState::Replicate { .. } => prev > self.matched && prev < self.next,
            ProgressState::Probe { .. } => prev > self.matched && prev + 1 == self.next,
            ProgressState::Chunks(out) => {
                out.heartbeat_answered(now, heartbeat_interval);
                matches!(out.of, Chunked::Entry { prev: p, .. } if p.index == prev)
            }
        };
        if is_current {
            // If this is below the base of the leader's log, `replicate` sends the snapshot.
            self.probe(agreement + 1);
        }
    }

    /// The peer has `offset` bytes of a chunked item.
    ///
    /// # Errors
    /// When the peer claims to have the whole item or more: then it would have accepted the item.
    pub(super) fn chunk_replied(&mut self, of: Chunked, offset: u64) -> Result<(), Invalid> {
        if let ProgressState::Chunks(out) = &mut self.state
            && out.of == of
        {
            let offset = usize::try_from(offset).map_err(|_| Invalid::Chunk)?;
            if offset >= out.data.len() {
                return Err(Invalid::Chunk);
            }
            // A reply that brings nothing new may be a duplicate. To send the chunk again because
            // of it would double the traffic for good. The reply to the next heartbeat shows what
            // is lost.
            if offset != out.offset {
                out.offset = offset;
                out.sent = None;
            }
        }
        Ok(())
    }

    /// The logs agree up to `matched`: send what follows without waiting for replies.
    pub(super) fn replicate(&mut self) {
        self.next = self.matched + 1;
        self.state = ProgressState::Replicate { inflight: VecDeque::new() };
    }

    /// Search backwards, from the entry before `next`, for the place where the logs agree.
    fn probe(&mut self, next: Index) {
        self.next = next.max(self.matched + 1);
        self.state = ProgressState::Probe { waiting: false };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::types::Position;

    const BEAT: Time = 50;

    /// A peer whose log matches the leader's up to 5 of 9, with 6 to 9 in flight.
    fn replicating() -> Progress {
        let mut peer = Progress::new(10, 0);
        peer.accepted(5, 9, 0, BEAT);
        peer.state = ProgressState::Replicate { inflight: [7, 9].into() };
        peer.next = 10;
        peer
    }

    fn chunks(of: Chunked) -> Progress {
        let mut peer = replicating();
        let data = "12345678".into();
        peer.state = ProgressState::Chunks(OutgoingChunks { of, data, offset: 0, sent: Some(100) });
        peer
    }

    fn sent(peer: &Progress) -> Option<(usize, Option<Time>)> {
        match &peer.state {
            ProgressState::Chunks(out) => Some((out.offset, out.sent)),
            _ => None,
        }
    }

    #[test]
    fn an_accepted_probe_starts_to_replicate_behind_the_matched_index() {
        let peer = Progress::new(10, 3);
        assert!(matches!(peer.state, ProgressState::Probe { waiting: false }));
        assert_eq!((peer.next, peer.matched, peer.heard, peer.woken), (10, 0, 3, 3));
        let mut peer = peer;
        peer.accepted(4, 9, 5, BEAT);
        assert_eq!((peer.next, peer.matched), (5, 4));
        assert!(
            matches!(&peer.state, ProgressState::Replicate { inflight } if inflight.is_empty())
        );
    }

    #[test]
    fn an_acknowledgement_removes_its_message_and_earlier_ones_from_the_window() {
        let mut peer = replicating();
        peer.accepted(7, 9, 0, BEAT);
        assert!(matches!(&peer.state, ProgressState::Replicate { inflight } if *inflight == [9]));
        assert_eq!((peer.matched, peer.next), (7, 10));
        peer.accepted(6, 9, 0, BEAT);
        assert_eq!((peer.matched, peer.next), (7, 10), "an older reply takes nothing back");
        assert!(!peer.has_everything(9, 0));
        peer.accepted(9, 9, 0, BEAT);
        assert!(peer.has_everything(9, 0) && !peer.has_everything(10, 0));
        assert!(!peer.has_everything(9, 1), "a round has no answer yet");
    }

    #[test]
    fn a_rejection_of_a_message_in_flight_probes_from_where_the_logs_can_agree() {
        let mut peer = replicating();
        for old in [4, 5, 10] {
            peer.rejected(old, 1, 0, BEAT);
            assert!(
                matches!(peer.state, ProgressState::Replicate { .. }),
                "{old} is not in flight"
            );
        }
        peer.rejected(9, 7, 0, BEAT);
        assert!(matches!(peer.state, ProgressState::Probe { waiting: false }) && peer.next == 8);
        peer.rejected(6, 5, 0, BEAT);
        assert_eq!(peer.next, 8, "not the last message that was sent");
        peer.rejected(7, 2, 0, BEAT);
        assert_eq!(peer.next, 6, "never below what is known to match");
    }

    #[test]
    fn a_chunk_without_a_reply_is_sent_again_when_a_later_heartbeat_is_answered() {
        let snapshot = Chunked::Snapshot { last: Position::new(8, 1) };
        let mut peer = chunks(snapshot);
        peer.accepted(5, 9, 149, BEAT);
        assert_eq!(sent(&peer), Some((0, Some(100))), "the heartbeat may have overtaken the chunk");
        peer.accepted(5, 9, 150, BEAT);
        assert_eq!(sent(&peer), Some((0, None)));
        assert_eq!(peer.chunk_replied(snapshot, 8), Err(Invalid::Chunk));
        assert_eq!(peer.chunk_replied(snapshot, u64::MAX), Err(Invalid::Chunk));
        assert_eq!(peer.chunk_replied(snapshot, 3), Ok(()));
        assert_eq!(sent(&peer), Some((3, None)));
        let other = Chunked::Snapshot { last: Position::new(7, 1) };
        assert_eq!(peer.chunk_replied(other, 5), Ok(()));
        assert_eq!(sent(&peer), Some((3, None)), "a reply about an earlier item says nothing");
        peer.accepted(8, 9, 151, BEAT);
        assert_eq!((sent(&peer), peer.next), (None, 9));
    }

    #[test]
    fn a_chunked_entry_is_probed_again_when_the_entry_before_it_is_rejected() {
        let (prev, at) = (Position::new(5, 1), Position::new(6, 1));
        let mut peer = chunks(Chunked::Entry { prev, at });
        peer.rejected(4, 1, 100, BEAT);
        assert!(sent(&peer).is_some());
        peer.rejected(5, 3, 100, BEAT);
        assert!(matches!(peer.state, ProgressState::Probe { .. }));
    }

    #[test]
    fn the_silence_of_a_quiesced_peer_counts_only_from_when_it_is_woken() {
        let mut peer = replicating();
        peer.replied(20, 4);
        peer.replied(30, 3);
        assert_eq!((peer.heard, peer.round_heard, peer.active_at()), (30, 4, 30));
        peer.activity = Activity::Quiescing;
        peer.accepted(8, 9, 30, BEAT);
        assert_eq!(
            (peer.activity, peer.active_at()),
            (Activity::Quiescing, 30),
            "it lacks an entry"
        );
        peer.accepted(9, 9, 40, BEAT);
        assert_eq!((peer.activity, peer.active_at()), (Activity::Quiesced, Time::MAX));
        peer.wake(900);
        assert_eq!((peer.activity, peer.active_at()), (Activity::Active, 900));
        peer.wake(950);
        assert_eq!(peer.active_at(), 900, "it was awake already");
    }
}
