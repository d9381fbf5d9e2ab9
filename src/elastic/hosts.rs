//! What hosts tell each other: who is there, and who runs what.

use super::types::{Body, Effect, Message, StopReason, View};
use super::{Elastic, HELLO, KnownHost, MOST_NODES, Phase};

impl Elastic {
    pub(super) fn receive(&mut self, message: Message) {
        let Message { host, count, body } = message;
        if host == self.host || self.phase == Phase::Idle {
            return;
        }
        match body {
            Body::Hello { own, nodes, visible, ask } => {
                let is_old = self.hosts.get(&host).is_some_and(|host| host.count > count);
                if nodes.len() > MOST_NODES || is_old {
                    return;
                }
                for node in &nodes {
                    self.note_acquired(host, *node, false);
                    self.queue(*node);
                }
                let nodes = nodes.into_iter().collect();
                self.hosts.insert(host, KnownHost { own, nodes, visible, heard: self.now, count });
                if ask {
                    // By a timer: a frozen tab takes in messages, and must not seem to be alive.
                    self.announce_soon();
                }
            }
            Body::Acquired { node } => {
                self.note_acquired(host, node, true);
                self.queue(node);
            }
            Body::Deleted { node } => {
                self.deleted.insert(node);
            }
            Body::Goodbye => {
                if let Some(gone) = self.hosts.remove(&host) {
                    self.out.extend(gone.nodes.into_iter().map(Effect::PeerDown));
                }
            }
            Body::Destroyed => self.stop_for(StopReason::Destroyed),
        }
    }

    /// Says soon what this host runs.
    pub(super) fn announce_soon(&mut self) {
        if self.phase == Phase::Running {
            self.hello_at = Some(self.now);
        }
    }

    pub(super) fn hello(&mut self, ask: bool) {
        let nodes = self.running().collect();
        let body = Body::Hello { own: self.own, nodes, visible: self.visible, ask };
        self.out.push(Effect::Broadcast(body));
        self.hello_at = None;
    }

    pub(super) fn tick(&mut self) {
        if self.hello_at.is_some_and(|at| self.now >= at) {
            self.hello(false);
        }
        if self.control_at.is_some_and(|at| self.now >= at) {
            self.control_at = None;
        }
    }

    /// A node that is no member yet says that it is there, again and again.
    pub(super) fn join(&mut self, view: &dyn View) {
        let Some(own) = self.own else { return };
        let joined = view.raft(own).is_some_and(|raft| raft.committed_members().1.contains(own));
        if !joined && self.hello_at.is_none() {
            self.hello_at = Some(self.now + HELLO);
        }
    }
}
