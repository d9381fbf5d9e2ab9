//! How a host gets a node of its own: reading or founding the registry, trying locks, and creating
//! a new node if no lock is free.

use rand::{Rng, RngExt};

use super::types::{Effect, Registry, StopReason, View};
use super::{Elastic, LockState, Phase};
use crate::raft::{Entry, HardState, Member, Members, NodeId, Payload, Position, Saved};

impl Elastic {
    pub(super) fn start(&mut self) {
        if self.phase == Phase::Idle {
            self.phase = Phase::Reading;
            self.host = self.rng.next_u64();
            self.out.push(Effect::ReadRegistry);
        }
    }

    pub(super) fn handle_registry(&mut self, registry: Option<Registry>) {
        match (self.phase, registry) {
            (Phase::Reading, None) => {
                self.founding = true;
                self.incarnation = self.rng.next_u64().max(1);
                self.phase = Phase::Choosing;
                self.create_node();
            }
            (Phase::Reading, Some(registry)) => {
                self.incarnation = registry.incarnation;
                self.phase = Phase::Choosing;
                self.try_locks(registry.nodes);
            }
            (Phase::Choosing, Some(registry)) if self.founding => {
                self.founding = false;
                let Some(node) = self.new_node.take() else { return };
                if registry.incarnation == self.incarnation {
                    return self.run_own(node, 1, founding_state(node));
                }
                // Another host has founded the cluster first, so this host joins that one.
                self.incarnation = registry.incarnation;
                self.delete(node);
                self.try_locks(registry.nodes);
            }
            // Storage was deleted since this host read the registry. A cluster whose first node has
            // no record would never have a leader, so this host begins again.
            (Phase::Choosing, None) if self.founding => {
                self.founding = false;
                self.phase = Phase::Reading;
                self.out.push(Effect::ReadRegistry);
                if let Some(node) = self.new_node.take() {
                    self.delete(node);
                }
            }
            (Phase::Running, None) => self.stop_for(StopReason::StorageLost),
            // If another cluster is still heard, its hosts must hear this one.
            (Phase::Running, Some(registry)) if registry.incarnation == self.incarnation => {
                self.announce_soon();
            }
            (Phase::Running, Some(_)) => {
                self.release_all();
                self.start();
            }
            _ => {}
        }
    }

    pub(super) fn try_locks(&mut self, nodes: Vec<NodeId>) {
        for node in nodes {
            if self.locks.insert(node, LockState::Trying).is_none() {
                self.out.push(Effect::TryLock(node));
            }
        }
        self.create_if_none_free();
    }

    /// Creates a new node if this host has none and no lock was free.
    pub(super) fn create_if_none_free(&mut self) {
        let is_undecided = |state: &LockState| {
            matches!(state, LockState::Trying | LockState::Loading | LockState::Creating)
        };
        if self.phase == Phase::Choosing
            && self.own.is_none()
            && !self.locks.values().any(is_undecided)
        {
            self.create_node();
        }
    }

    pub(super) fn create_node(&mut self) {
        // Small enough for a JavaScript number, large enough that two hosts hardly draw the same.
        let node = self.rng.random_range(1..1 << 40);
        self.new_node = Some(node);
        self.locks.insert(node, LockState::Trying);
        self.out.push(Effect::TryLock(node));
    }

    pub(super) fn handle_lock(&mut self, node: NodeId, granted: bool) {
        let Some(state) = self.locks.get_mut(&node) else {
            // This host has given the node up since it asked for the lock.
            return self.out.push(Effect::Unlock(node));
        };
        match (*state, granted) {
            // A free node became this host's own before the new one was created.
            (LockState::Trying, true) if self.new_node == Some(node) && self.own.is_some() => {
                self.new_node = None;
                self.locks.remove(&node);
                self.out.push(Effect::Unlock(node));
            }
            (LockState::Trying, true) if self.new_node == Some(node) => {
                *state = LockState::Creating;
                let incarnation = self.incarnation;
                let saved = if self.founding { founding_state(node) } else { Saved::default() };
                self.out.push(Effect::Create { node, incarnation, saved });
            }
            (LockState::Trying | LockState::Queued, true) => {
                *state = LockState::Loading;
                self.out.push(Effect::Load(node));
            }
            (LockState::Trying, false) => {
                *state = LockState::Queued;
                self.out.push(Effect::AwaitLock(node));
                self.create_if_none_free();
            }
            _ => {}
        }
    }

    pub(super) fn handle_created(&mut self, node: NodeId) {
        if self.locks.get(&node) != Some(&LockState::Creating) {
            return;
        }
        if self.own.is_some() {
            // A dead host's node has become this host's own, and no other host knows of the new
            // one.
            self.new_node = None;
            self.delete(node);
        } else if self.founding {
            let registry = Registry { incarnation: self.incarnation, nodes: vec![node] };
            self.out.push(Effect::Found(registry));
        } else {
            let incarnation = self.incarnation;
            self.out.push(Effect::Register { node, incarnation });
        }
    }

    pub(super) fn handle_registered(&mut self, node: NodeId) {
        if self.locks.get(&node) != Some(&LockState::Creating) {
            return;
        }
        self.new_node = None;
        match self.own {
            Some(_) => self.delete(node),
            None => self.run_own(node, 1, Saved::default()),
        }
    }

    pub(super) fn run_own(&mut self, node: NodeId, epoch: u64, saved: Saved) {
        self.own = Some(node);
        self.phase = Phase::Running;
        self.locks.insert(node, LockState::Running);
        self.unanswered = None;
        self.out.push(Effect::Run { node, epoch, saved, own: true });
        self.send_hello(true);
    }

    /// Queues for the lock of a node that another host runs, to adopt the node when that host is
    /// dead.
    pub(super) fn queue_for_lock(&mut self, node: NodeId) {
        let is_started = matches!(self.phase, Phase::Running | Phase::Choosing);
        if is_started && node != 0 && !self.locks.contains_key(&node) {
            self.locks.insert(node, LockState::Queued);
            self.out.push(Effect::AwaitLock(node));
        }
    }

    /// Queues for the lock of every member that this host has not dealt with yet.
    pub(super) fn queue_for_members(&mut self, view: &dyn View) {
        let Some(raft) = self.own.and_then(|own| view.raft(own)) else { return };
        let unknown =
            |node: &NodeId| !self.locks.contains_key(node) && !self.deleted.contains(node);
        let nodes: Vec<_> = raft.members().iter().map(|(node, _)| node).filter(unknown).collect();
        nodes.into_iter().for_each(|node| self.queue_for_lock(node));
    }
}

/// The state with which the first node of a cluster begins: one entry, which makes that node the
/// only voter (dissertation §4.4). Every other node begins with an empty log and is added.
fn founding_state(node: NodeId) -> Saved {
    let member = Member { voter: true, name: String::new() };
    let payload = Payload::Members(Members::new([(node, member)]));
    let entries = vec![Entry { at: Position::new(1, 1), payload }];
    Saved { hard: HardState { term: 1, vote: None }, snapshot: None, entries }
}
