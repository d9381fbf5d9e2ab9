//! Which node becomes a host's own: the registry, founding, locks, and making a new node.

use rand::{Rng, RngExt};

use super::types::{Effect, Registry, View};
use super::{Elastic, Hold, Phase};
use crate::raft::{Entry, HardState, Member, Members, NodeId, Payload, Position, Saved};

impl Elastic {
    pub(super) fn start(&mut self) {
        if self.phase == Phase::Idle {
            self.phase = Phase::Reading;
            self.host = self.rng.next_u64();
            self.out.push(Effect::ReadRegistry);
        }
    }

    pub(super) fn registry(&mut self, registry: Option<Registry>) {
        match (self.phase, registry) {
            (Phase::Reading, None) => {
                self.founding = true;
                self.incarnation = self.rng.next_u64().max(1);
                self.phase = Phase::Choosing;
                self.make();
            }
            (Phase::Reading, Some(registry)) => {
                self.incarnation = registry.incarnation;
                self.phase = Phase::Choosing;
                self.try_all(registry.nodes);
            }
            (Phase::Choosing, Some(registry)) if self.founding => {
                self.founding = false;
                let Some(node) = self.new_node.take() else { return };
                if registry.incarnation == self.incarnation {
                    return self.run_own(node, 1, founder(node));
                }
                // Another host was faster.
                self.incarnation = registry.incarnation;
                self.delete(node);
                self.try_all(registry.nodes);
            }
            _ => {}
        }
    }

    pub(super) fn try_all(&mut self, nodes: Vec<NodeId>) {
        for node in nodes {
            if self.holds.insert(node, Hold::Trying).is_none() {
                self.out.push(Effect::TryLock(node));
            }
        }
        self.choose();
    }

    /// Makes a new node when there is none to take.
    pub(super) fn choose(&mut self) {
        let undecided = |hold: &Hold| matches!(hold, Hold::Trying | Hold::Loading | Hold::Creating);
        if self.phase == Phase::Choosing
            && self.own.is_none()
            && !self.holds.values().any(undecided)
        {
            self.make();
        }
    }

    pub(super) fn make(&mut self) {
        // Small enough for a JavaScript number, large enough never to be drawn twice.
        let node = self.rng.random_range(1..1 << 40);
        self.new_node = Some(node);
        self.holds.insert(node, Hold::Trying);
        self.out.push(Effect::TryLock(node));
    }

    pub(super) fn lock(&mut self, node: NodeId, granted: bool) {
        let Some(hold) = self.holds.get_mut(&node) else {
            // It was given up in the meantime.
            return self.out.push(Effect::Unlock(node));
        };
        match (*hold, granted) {
            (Hold::Trying, true) if self.new_node == Some(node) && self.own.is_some() => {
                self.new_node = None;
                self.holds.remove(&node);
                self.out.push(Effect::Unlock(node));
            }
            (Hold::Trying, true) if self.new_node == Some(node) => {
                *hold = Hold::Creating;
                let incarnation = self.incarnation;
                let saved = if self.founding { founder(node) } else { Saved::default() };
                self.out.push(Effect::Create { node, incarnation, saved });
            }
            (Hold::Trying | Hold::Queued, true) => {
                *hold = Hold::Loading;
                self.out.push(Effect::Load(node));
            }
            (Hold::Trying, false) => {
                *hold = Hold::Queued;
                self.out.push(Effect::AwaitLock(node));
                self.choose();
            }
            _ => {}
        }
    }

    pub(super) fn created(&mut self, node: NodeId) {
        if self.holds.get(&node) != Some(&Hold::Creating) {
            return;
        }
        if self.own.is_some() {
            // A dead host's node came free in the meantime, and nobody knows of this one.
            self.new_node = None;
            self.delete(node);
        } else if self.founding {
            let registry = Registry { incarnation: self.incarnation, nodes: vec![node] };
            self.out.push(Effect::Found(registry));
        } else {
            self.out.push(Effect::Register(node));
        }
    }

    pub(super) fn registered(&mut self, node: NodeId) {
        if self.holds.get(&node) != Some(&Hold::Creating) {
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
        self.holds.insert(node, Hold::Running);
        self.stalled = None;
        self.reviewed_at = self.now;
        self.out.push(Effect::Run { node, epoch, saved, own: true });
        self.hello(true);
    }

    /// Queues for the lock of a node that runs elsewhere.
    pub(super) fn queue(&mut self, node: NodeId) {
        let waits = matches!(self.phase, Phase::Running | Phase::Choosing);
        if waits && node != 0 && !self.holds.contains_key(&node) {
            self.holds.insert(node, Hold::Queued);
            self.out.push(Effect::AwaitLock(node));
        }
    }

    pub(super) fn queue_for_members(&mut self, view: &dyn View) {
        let Some(raft) = self.own.and_then(|own| view.raft(own)) else { return };
        let unknown =
            |node: &NodeId| !self.holds.contains_key(node) && !self.deleted.contains(node);
        let nodes: Vec<_> = raft.members().iter().map(|(node, _)| node).filter(unknown).collect();
        nodes.into_iter().for_each(|node| self.queue(node));
    }
}

/// What the first node of a cluster begins with: an entry that makes it the only voter.
fn founder(node: NodeId) -> Saved {
    let member = Member { voter: true, name: String::new() };
    let payload = Payload::Members(Members::new([(node, member)]));
    let entries = vec![Entry { at: Position::new(1, 1), payload }];
    Saved { hard: HardState { term: 1, vote: None }, snapshot: None, entries }
}
