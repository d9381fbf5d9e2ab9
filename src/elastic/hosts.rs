//! What hosts send each other: which hosts are there, and which nodes they run.

use super::types::{Body, Effect, Message, StopReason, View};
use super::{Elastic, HELLO_INTERVAL, KnownHost, LockState, MAX_NODES, Phase, QUERY_INTERVAL};
use crate::mistakes::{Mistake, made};

impl Elastic {
    pub(super) fn receive(&mut self, message: Message) {
        let Message { host, count, body } = message;
        if host == self.host || self.phase == Phase::Idle {
            return;
        }
        match body {
            Body::Hello { own, nodes, visible, ask, version } => {
                let is_old = self.hosts.get(&host).is_some_and(|host| host.count > count);
                if nodes.len() > MAX_NODES || is_old {
                    return;
                }
                for node in &nodes {
                    self.record_holder(host, *node, false);
                    self.queue_for_lock(*node);
                }
                let nodes = nodes.into_iter().collect();
                self.hosts.insert(
                    host,
                    KnownHost { own, nodes, visible, version, heard: self.now, count },
                );
                if ask {
                    // The answer waits for a timer. A frozen tab still receives messages, but its
                    // timers stand still, so it does not seem to be alive.
                    self.announce_soon();
                }
            }
            Body::Acquired { node } => {
                self.record_holder(host, node, true);
                self.queue_for_lock(node);
            }
            Body::Deleted { node } => {
                self.deleted.insert(node);
                // This host runs the node and has not noticed that its lock was taken, because the
                // message about that was lost. A node that never writes would never find out.
                if self.locks.get(&node) == Some(&LockState::Running) {
                    self.handle_lost(node);
                }
            }
            Body::Goodbye => {
                if let Some(host) = self.hosts.remove(&host) {
                    self.out.extend(host.nodes.into_iter().map(Effect::PeerDown));
                }
            }
            Body::Destroyed => self.stop_for(StopReason::Destroyed),
        }
    }

    /// Makes the next tick send a hello.
    pub(super) fn announce_soon(&mut self) {
        if self.phase == Phase::Running {
            self.next_hello = Some(self.now);
        }
    }

    /// Another incarnation of the cluster is heard, and only one of the two can be that of the
    /// registry. Makes a tick look there: one look for many messages.
    ///
    /// The storage of a cluster that was ended may stay, because the page that deleted it died in
    /// between. If a host has not heard of the end, nothing else tells it.
    pub(super) fn look_soon(&mut self) {
        let looks = self.phase == Phase::Running && !made(Mistake::EndNotNoticed);
        if looks && self.next_look.is_none() {
            self.next_look = Some(self.now.max(self.look_again));
        }
    }

    /// Sends the other hosts the list of nodes that run here. `ask`: they are to do the same.
    pub(super) fn send_hello(&mut self, ask: bool) {
        let nodes = self.running().collect();
        let body =
            Body::Hello { own: self.own, nodes, visible: self.visible, ask, version: self.version };
        self.out.push(Effect::Broadcast(body));
        self.next_hello = None;
    }

    pub(super) fn handle_tick(&mut self) {
        if self.next_hello.is_some_and(|at| self.now >= at) {
            self.send_hello(false);
        }
        if self.next_look.is_some_and(|at| self.now >= at) {
            self.next_look = None;
            self.look_again = self.now + QUERY_INTERVAL;
            self.out.push(Effect::ReadRegistry);
        }
        if self.next_control.is_some_and(|at| self.now >= at) {
            self.next_control = None;
        }
    }

    /// Repeats the hello until this host's own node is a member, because the leader's host may have
    /// missed the earlier ones.
    pub(super) fn announce_until_member(&mut self, view: &dyn View) {
        let Some(own) = self.own else { return };
        let joined = view.raft(own).is_some_and(|raft| raft.committed_members().1.contains(own));
        if !joined && self.next_hello.is_none() {
            self.next_hello = Some(self.now + HELLO_INTERVAL);
        }
    }
}
