//! Quiescing: where something other than heartbeats tells who is dead, an idle leader and its
//! followers agree to fall silent (CockroachDB's term).
//!
//! A follower that has everything is sent a heartbeat that asks it to quiesce. Once the follower
//! has replied, the leader sends to it only at every [`super::Config::quiesce_interval`], and
//! neither counts the other's silence. Any other message ends this, and so does
//! [`super::Input::Wake`].

use super::Raft;
use super::progress::Activity;
use super::role::Role;
use super::types::{NodeId, Time};

impl Raft {
    /// The leader asked this follower to quiesce. Its silence does not count for three quiesce
    /// intervals, so that one or two of its rare heartbeats may be lost.
    pub(super) fn quiesce(&mut self) {
        if let Some(interval) = self.config.quiesce_interval {
            self.quiesced = true;
            self.election_deadline += 3 * interval;
        }
    }

    /// Whether this follower is quiesced: it does not count its leader's silence.
    pub fn is_quiesced(&self) -> bool {
        self.quiesced
    }

    /// Work waits here for the other members, so from now on their silence counts.
    pub(super) fn wake(&mut self) {
        self.wake_peers();
        if std::mem::take(&mut self.quiesced) {
            self.heard = Some(self.now);
            self.reset_election_timeout();
        }
    }

    /// If this node leads: sends a heartbeat to every quiesced follower in this call.
    pub(super) fn wake_peers(&mut self) {
        let now = self.now;
        let Role::Leader(leader) = &mut self.role else { return };
        for peer in leader.peers.values_mut().filter(|peer| peer.activity != Activity::Active) {
            peer.wake(now);
            peer.sent = None;
        }
    }

    /// Whether this leader can ask a follower to quiesce: the follower has everything, and nothing
    /// waits here.
    pub(super) fn may_quiesce(&self, id: NodeId) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let last = self.log.last().index;
        let idle = leader.transfer.is_none() && leader.reads.is_empty() && self.commit == last;
        let has_everything =
            |id| leader.peers.get(id).is_some_and(|peer| peer.has_everything(last, leader.round));
        self.config.quiesce_interval.is_some() && idle && has_everything(&id)
    }

    /// The longest time between two messages to a peer, in ms.
    pub(super) fn send_interval(&self, activity: Activity) -> Time {
        let heartbeat = self.config.heartbeat_interval;
        match activity {
            Activity::Quiesced => self.config.quiesce_interval.unwrap_or(heartbeat),
            Activity::Active | Activity::Quiescing => heartbeat,
        }
    }
}
