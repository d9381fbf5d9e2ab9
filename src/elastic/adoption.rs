//! Adopting the nodes of dead hosts, losing nodes to other hosts, and deleting nodes that were
//! removed from the cluster.

use super::types::{Body, Effect, Record, StopReason, View};
use super::{Elastic, LockState, Phase};
use crate::mistakes::{Mistake, made};
use crate::raft::{NodeId, Position, Raft, Saved};

impl Elastic {
    /// The record of a node whose lock this host has was loaded.
    pub(super) fn handle_loaded(&mut self, node: NodeId, record: Option<Record>, view: &dyn View) {
        if self.locks.get(&node) != Some(&LockState::Loading) {
            return;
        }
        let record = match record {
            Some(record) if record.incarnation == self.incarnation => record,
            None if made(Mistake::EmptyStart) => {
                Record { incarnation: self.incarnation, epoch: 1, saved: Saved::default() }
            }
            _ => {
                // Never start the node with an empty record: it may have voted, and would not know
                // for whom (dissertation §3.8).
                self.announce_and_delete(node);
                return self.create_if_none_free();
            }
        };
        self.out.push(Effect::Broadcast(Body::Acquired { node }));
        self.record_holder(self.host, node, true);
        if self.own.is_none() {
            return self.run_own(node, record.epoch, record.saved);
        }
        self.locks.insert(node, LockState::Running);
        let Record { epoch, saved, .. } = record;
        self.out.push(Effect::Run { node, epoch, saved, own: false });
        self.announce_soon();
        self.delete_removed(view);
    }

    /// Records that a host runs a node, and so no other host does. If another host ran the node
    /// before, or the lock was `granted` just now, the nodes here learn that the former host is
    /// dead.
    pub(super) fn record_holder(&mut self, host: u64, node: NodeId, granted: bool) {
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
        if host != self.host && self.locks.get(&node) == Some(&LockState::Running) {
            self.handle_lost(node);
        }
    }

    /// Another host has this node now.
    pub(super) fn handle_lost(&mut self, node: NodeId) {
        if made(Mistake::ZombieRunsOn) {
            return;
        }
        match self.locks.get_mut(&node) {
            Some(state @ (LockState::Running | LockState::Loading)) if self.own != Some(node) => {
                if *state == LockState::Running {
                    self.out.push(Effect::Stop(node));
                }
                *state = LockState::Queued;
                self.out.push(Effect::Unlock(node));
                self.out.push(Effect::AwaitLock(node));
                self.announce_soon();
                self.create_if_none_free();
            }
            // The host's own node, or the one that it is creating: the host starts anew to get
            // another.
            Some(LockState::Running | LockState::Creating) => {
                self.release_all();
                self.start();
            }
            _ => {}
        }
    }

    /// Deletes the storage of a node that never ran, was removed, or has no record of this cluster.
    pub(super) fn delete(&mut self, node: NodeId) {
        self.locks.insert(node, LockState::Deleting);
        self.out.push(Effect::Delete(node));
    }

    /// Deletes the storage of a node and informs the other hosts. The leader's host then removes
    /// the node from the members.
    pub(super) fn announce_and_delete(&mut self, node: NodeId) {
        self.deleted.insert(node);
        self.out.push(Effect::Broadcast(Body::Deleted { node }));
        self.delete(node);
    }

    /// Deletes adopted nodes that are no longer members. A host keeps its own node: it will be
    /// added again.
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

    /// Stops every node and releases every lock.
    pub(super) fn release_all(&mut self) {
        let running: Vec<_> = self.running().collect();
        self.out.extend(running.into_iter().map(Effect::Stop));
        self.out.push(Effect::UnlockAll);
        self.locks.clear();
        self.hosts.clear();
        (self.own, self.new_node, self.founding) = (None, None, false);
        (self.next_hello, self.next_query, self.next_look) = (None, None, None);
        (self.next_control, self.unanswered) = (None, None);
        self.phase = Phase::Idle;
    }

    /// Hands leadership over and releases everything, because the tab may be frozen or closed next.
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

    /// Stops this host for good.
    pub(super) fn stop_for(&mut self, reason: StopReason) {
        self.release_all();
        self.phase = Phase::Stopped;
        self.out.push(Effect::Stopped(reason));
    }
}

/// Whether `other` knows of a committed configuration without `node` that is newer than every
/// configuration that `node` may be needed for.
///
/// The newest configuration entry in `node`'s log is compared with `other`'s commit index in the
/// order of terms and indexes. If the entry is not later, it is older than the committed
/// configuration or will never be committed. If it is later, it may be committed, and a majority
/// may need the node.
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
