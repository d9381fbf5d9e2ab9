//! Taking over the nodes of dead hosts, losing nodes to others, and deleting nodes that were removed.

use super::types::{Body, Effect, Record, StopReason, View};
use super::{Elastic, Hold, Phase};
use crate::mistakes::{Mistake, made};
use crate::raft::{NodeId, Position, Raft, Saved};

impl Elastic {
    pub(super) fn loaded(&mut self, node: NodeId, record: Option<Record>, view: &dyn View) {
        if self.holds.get(&node) != Some(&Hold::Loading) {
            return;
        }
        let record = match record {
            Some(record) if record.incarnation == self.incarnation => record,
            None if made(Mistake::EmptyStart) => {
                Record { incarnation: self.incarnation, epoch: 1, saved: Saved::default() }
            }
            _ => {
                // Never start it empty: it may have voted, and does not know for whom.
                self.announce_and_delete(node);
                return self.choose();
            }
        };
        self.out.push(Effect::Broadcast(Body::Acquired { node }));
        self.note_acquired(self.host, node, true);
        if self.own.is_none() {
            return self.run_own(node, record.epoch, record.saved);
        }
        self.holds.insert(node, Hold::Running);
        let Record { epoch, saved, .. } = record;
        self.out.push(Effect::Run { node, epoch, saved, own: false });
        self.announce_soon();
        self.delete_removed(view);
    }

    /// A host runs a node: nobody else does any more. If it was `granted` the lock just now, whoever
    /// ran the node before is dead.
    pub(super) fn note_acquired(&mut self, host: u64, node: NodeId, granted: bool) {
        let mut moved = false;
        for (_, other) in self.hosts.iter_mut().filter(|(id, _)| **id != host) {
            if other.nodes.remove(&node) {
                moved = true;
                other.own = other.own.filter(|own| *own != node);
            }
        }
        self.hosts.retain(|id, host_| *id == host || !host_.nodes.is_empty());
        let known = self.hosts.get(&host).is_some_and(|host| host.nodes.contains(&node));
        if let Some(host) = self.hosts.get_mut(&host) {
            host.nodes.insert(node);
        }
        if moved || granted && !known {
            self.out.push(Effect::PeerDown(node));
        }
        if host != self.host && self.holds.get(&node) == Some(&Hold::Running) {
            self.lost(node);
        }
    }

    pub(super) fn lost(&mut self, node: NodeId) {
        if made(Mistake::ZombieRunsOn) {
            return;
        }
        match self.holds.get_mut(&node) {
            Some(hold @ (Hold::Running | Hold::Loading)) if self.own != Some(node) => {
                if *hold == Hold::Running {
                    self.out.push(Effect::Stop(node));
                }
                *hold = Hold::Queued;
                self.out.push(Effect::Unlock(node));
                self.out.push(Effect::AwaitLock(node));
                self.announce_soon();
                self.choose();
            }
            // Its own, or one that it was about to take or to make: it begins anew.
            Some(Hold::Running | Hold::Creating) => {
                self.release_all();
                self.start();
            }
            _ => {}
        }
    }

    /// Deletes a node that nobody needs.
    pub(super) fn delete(&mut self, node: NodeId) {
        self.holds.insert(node, Hold::Deleting);
        self.out.push(Effect::Delete(node));
    }

    pub(super) fn announce_and_delete(&mut self, node: NodeId) {
        self.deleted.insert(node);
        self.out.push(Effect::Broadcast(Body::Deleted { node }));
        self.delete(node);
    }

    /// Deletes adopted nodes that are members no more.
    pub(super) fn delete_removed(&mut self, view: &dyn View) {
        let adopted: Vec<_> = self.running().filter(|node| self.own != Some(*node)).collect();
        for node in adopted {
            let others: Vec<_> = self.running().filter(|other| *other != node).collect();
            let is_removed = |other: &NodeId| {
                view.raft(node).is_some_and(|raft| {
                    view.raft(*other).is_some_and(|other| is_removed(node, raft, other))
                })
            };
            if others.iter().any(is_removed) && !made(Mistake::RemovedRunsOn) {
                self.out.push(Effect::Stop(node));
                self.announce_and_delete(node);
                self.announce_soon();
            }
        }
    }

    /// Stops every node and lets go of every lock.
    pub(super) fn release_all(&mut self) {
        let running: Vec<_> = self.running().collect();
        self.out.extend(running.into_iter().map(Effect::Stop));
        self.out.push(Effect::UnlockAll);
        self.holds.clear();
        self.hosts.clear();
        (self.own, self.new_node, self.founding) = (None, None, false);
        (self.hello_at, self.ask_at) = (None, None);
        (self.control_at, self.stalled) = (None, None);
        self.phase = Phase::Idle;
    }

    pub(super) fn suspend(&mut self, view: &dyn View) {
        let leads = |node: &NodeId| view.raft(*node).is_some_and(Raft::is_leader);
        let leaders: Vec<_> = self.running().filter(leads).collect();
        for node in leaders {
            let to = self.successor(node, view);
            self.out.push(Effect::Transfer { node, to });
        }
        if self.phase == Phase::Running {
            self.out.push(Effect::Broadcast(Body::Goodbye));
        }
        self.release_all();
    }

    pub(super) fn stop_for(&mut self, reason: StopReason) {
        self.release_all();
        self.phase = Phase::Stopped;
        self.out.push(Effect::Stopped(reason));
    }
}

/// Whether another node knows of a committed configuration that lacks this one and is newer than any
/// that it has itself. What it has is older, or will never be committed, if it stands before the
/// other's commit index in the order of terms and indexes.
fn is_removed(node: NodeId, raft: &Raft, other: &Raft) -> bool {
    if made(Mistake::DeletedTooEarly) {
        return !other.members().contains(node);
    }
    let (_, members) = other.committed_members();
    let known =
        Position::new(other.commit_index(), other.log().term(other.commit_index()).unwrap_or(0));
    let (at, _) = raft.log().members();
    let own = raft.log().term(at).map_or(raft.log().base(), |term| Position::new(at, term));
    !members.is_empty() && !members.contains(node) && known.is_up_to_date_with(own)
}
