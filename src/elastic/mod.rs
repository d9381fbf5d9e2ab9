//! Elastic clusters: nodes outlive their hosts.
//!
//! A *node* is an identity: a number, durable state, and an exclusive lock. A *host* (a tab) runs
//! nodes: one of its own, and those of dead hosts that it has adopted. This module decides which host
//! runs which node; it is told what storage and locks say, and says what to ask of them.
//!
//! - **Founding.** One transaction on the registry decides who founds a cluster; it draws a random
//!   *incarnation*, which every frame carries.
//! - **A host's own node** is a free one, if there is any: a dead host's, whose lock nobody holds.
//!   Otherwise it is a new one, which asks to join.
//! - **Adoption.** A host queues for the lock of every node that it does not run. To be granted the
//!   lock is to know that the holder is dead: the grantee tells the others, loads the node's state and
//!   runs it. To Raft that is a crash and a restart.
//! - **A granted lock without a record** means that the node is gone. It is never started empty.
//! - **Membership.** Whoever runs the leader adds the hosts' own nodes, promotes them, and removes
//!   those that are adopted: one change at a time.
//! - **The end of an adopted node.** It runs until another node here knows of a committed
//!   configuration, newer than any that the node itself has, that lacks it. Then it is deleted.
//! - **Suspended hosts.** A host that is about to be frozen lets go of everything. One that is frozen
//!   without warning keeps its locks, so a host with work that nobody answers for a while takes them
//!   away from those that are silent. Fencing sees to it that what it writes later does not count.

mod controller;
pub mod types;

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

pub use self::types::{
    Body, Effect, Fence, Input, Message, Record, Registry, StopReason, View, admit,
};
use crate::mistakes::{Mistake, made};
use crate::raft::{
    Change, Entry, HardState, Index, Member, Members, NodeId, Payload, Position, Raft, Saved, Time,
};
use crate::sorted::{SortedMap, SortedSet};

/// How often a host whose node has not joined yet says so, in ms.
pub(super) const HELLO: Time = 300;
/// How often the leader's host asks for members of which it knows no host, in ms.
pub(super) const ASK_AGAIN: Time = 2_000;
/// How long a leader's host waits before it looks again at what is left to change, in ms.
pub(super) const CONTROL_PAUSE: Time = 60;
/// How long work goes unanswered before the host asks who is there, and before it takes the nodes
/// away from hosts that are silent, in ms.
pub(super) const ASK_AFTER: Time = 2_500;
pub(super) const STEAL_AFTER: Time = 5_000;
/// A host that was not called for so long when it wanted to be has been asleep itself, in ms.
pub(super) const OVERSLEPT: Time = 1_500;
/// The most nodes that a message names.
const MOST_NODES: usize = 1_024;

/// What a host has to do with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// It asked whether the lock is free.
    Trying,
    /// It waits for the lock.
    Queued,
    /// It has the lock, and waits for storage.
    Loading,
    /// It has the lock, and writes a new record.
    Creating,
    /// It runs the node.
    Running,
    /// The node is over, and its storage is being deleted.
    Deleting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not started, or suspended.
    Idle,
    /// Waiting for the registry.
    Reading,
    /// Looking for a node of its own, or making one.
    Settling,
    /// Running one.
    Settled,
    /// For good.
    Over,
}

/// What the leader's host does next about its members.
pub(super) enum Next {
    Change(Change),
    /// Something, when members have answered that are silent now.
    Later,
}

#[derive(Clone, Debug)]
pub(super) struct KnownHost {
    pub(super) own: Option<NodeId>,
    pub(super) nodes: SortedSet<NodeId>,
    pub(super) visible: bool,
    pub(super) heard: Time,
    pub(super) count: u64,
}

/// The tenancy of one host.
#[derive(Clone, Debug)]
pub struct Elastic {
    rng: SmallRng,
    host: u64,
    pub(super) max_voters: usize,
    pub(super) now: Time,
    phase: Phase,
    incarnation: u64,
    /// The node that is being made.
    fresh: Option<NodeId>,
    founding: bool,
    pub(super) own: Option<NodeId>,
    pub(super) visible: bool,
    pub(super) holds: SortedMap<NodeId, Hold>,
    pub(super) hosts: SortedMap<u64, KnownHost>,
    pub(super) deleted: SortedSet<NodeId>,
    hello_at: Option<Time>,
    /// When the leader's host asks again who runs the members of which nobody says so.
    pub(super) ask_at: Option<Time>,
    said: u64,
    pub(super) control_at: Option<Time>,
    /// Since when work goes unanswered, with the commit index at that time, and whether the others
    /// were asked.
    pub(super) stalled: Option<(Time, Index, bool)>,
    pub(super) looked: Time,
    pub(super) out: Vec<Effect>,
}

impl Elastic {
    /// A host that has not begun. `seed` decides every random choice.
    pub fn new(max_voters: usize, visible: bool, now: Time, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let host = rng.next_u64();
        Self {
            rng,
            host,
            max_voters,
            now,
            phase: Phase::Idle,
            incarnation: 0,
            fresh: None,
            founding: false,
            own: None,
            visible,
            holds: SortedMap::new(),
            hosts: SortedMap::new(),
            deleted: SortedSet::new(),
            hello_at: None,
            ask_at: None,
            said: 0,
            control_at: None,
            stalled: None,
            looked: now,
            out: Vec::new(),
        }
    }

    /// What this host says next, as a message.
    pub fn message_of(&mut self, body: Body) -> Message {
        self.said += 1;
        Message { host: self.host, count: self.said, body }
    }

    /// The founding to which this host's nodes belong; 0 until it is known.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// This host's own node.
    pub fn own(&self) -> Option<NodeId> {
        self.own
    }

    /// Every node that runs here.
    pub fn running(&self) -> impl Iterator<Item = NodeId> {
        self.holds.iter().filter(|(_, hold)| **hold == Hold::Running).map(|(node, _)| *node)
    }

    /// How many hosts are known, this one included.
    pub fn hosts(&self) -> usize {
        self.hosts.len() + 1
    }

    /// Whether the tab of the host whose own node this is can be seen, if there is one.
    pub fn is_visible(&self, node: NodeId) -> Option<bool> {
        if self.own == Some(node) {
            return Some(self.visible);
        }
        self.hosts.values().find(|host| host.own == Some(node)).map(|host| host.visible)
    }

    /// Whether a host other than its own runs this node, as far as is known.
    pub fn is_adopted(&self, node: NodeId) -> bool {
        let here = self.own != Some(node) && self.running().any(|running| running == node);
        let there = |host: &KnownHost| host.own != Some(node) && host.nodes.contains(&node);
        here || self.hosts.values().any(there)
    }

    /// When to call with [`Input::Tick`], if nothing happens before.
    pub fn deadline(&self) -> Option<Time> {
        if self.phase != Phase::Settled {
            return None;
        }
        let stalled = self
            .stalled
            .map(|(since, _, asked)| since + if asked { STEAL_AFTER } else { ASK_AFTER });
        [self.hello_at, self.ask_at, self.control_at, stalled].into_iter().flatten().min()
    }

    /// Whether to call with [`Input::Changed`], because work has begun to wait or waits no more.
    pub fn wants_to_look(&self, view: &dyn View) -> bool {
        self.phase == Phase::Settled && self.waits(view) != self.stalled.is_some()
    }

    /// Whether something waits here for the others.
    pub(super) fn waits(&self, view: &dyn View) -> bool {
        let leader = self.own.and_then(|own| view.raft(own)).map(Raft::leader);
        view.waiting() > 0 || leader == Some(None)
    }

    /// Takes one input at the time `now` and says what to do, in this order.
    #[must_use]
    pub fn handle(&mut self, now: Time, input: Input, view: &dyn View) -> Vec<Effect> {
        self.now = self.now.max(now);
        if self.phase != Phase::Over {
            self.take(input, view);
        }
        std::mem::take(&mut self.out)
    }

    fn take(&mut self, input: Input, view: &dyn View) {
        match input {
            Input::Start => self.start(),
            Input::Registry(registry) => self.registry(registry),
            Input::Lock { node, granted } => self.lock(node, granted),
            Input::Lost(node) => self.lost(node),
            Input::Loaded { node, record } => self.loaded(node, record, view),
            Input::Created(node) => self.created(node),
            Input::Registered(node) => self.registered(node),
            Input::Deleted(node) => {
                self.holds.remove(&node);
                self.out.push(Effect::Unlock(node));
                self.settle();
            }
            Input::Failed(reason) => self.stop_for(reason),
            Input::Message(message) => self.receive(message),
            Input::Changed => {}
            Input::Visible(visible) => {
                if std::mem::replace(&mut self.visible, visible) != visible {
                    self.announce_soon();
                }
            }
            Input::Suspend => self.suspend(view),
            Input::Destroy => {
                self.out.push(Effect::Broadcast(Body::Destroyed));
                self.out.push(Effect::DeleteAll);
                self.stop_for(StopReason::Destroyed);
            }
            Input::Tick => self.tick(),
        }
        if self.phase == Phase::Settled {
            self.look(view);
        }
    }

    /// Looks at what has changed in the nodes here.
    fn look(&mut self, view: &dyn View) {
        self.queue_for_members(view);
        self.delete_removed(view);
        self.watch(view);
        self.control(view);
        self.join(view);
        self.looked = self.now;
    }

    fn start(&mut self) {
        if self.phase == Phase::Idle {
            self.phase = Phase::Reading;
            self.host = self.rng.next_u64();
            self.out.push(Effect::ReadRegistry);
        }
    }

    fn registry(&mut self, registry: Option<Registry>) {
        match (self.phase, registry) {
            (Phase::Reading, None) => {
                self.founding = true;
                self.incarnation = self.rng.next_u64().max(1);
                self.phase = Phase::Settling;
                self.make();
            }
            (Phase::Reading, Some(registry)) => {
                self.incarnation = registry.incarnation;
                self.phase = Phase::Settling;
                self.try_all(registry.nodes);
            }
            (Phase::Settling, Some(registry)) if self.founding => {
                self.founding = false;
                let Some(node) = self.fresh.take() else { return };
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

    fn try_all(&mut self, nodes: Vec<NodeId>) {
        for node in nodes {
            if self.holds.insert(node, Hold::Trying).is_none() {
                self.out.push(Effect::TryLock(node));
            }
        }
        self.settle();
    }

    /// Makes a new node when there is none to take.
    fn settle(&mut self) {
        let undecided = |hold: &Hold| matches!(hold, Hold::Trying | Hold::Loading | Hold::Creating);
        if self.phase == Phase::Settling
            && self.own.is_none()
            && !self.holds.values().any(undecided)
        {
            self.make();
        }
    }

    fn make(&mut self) {
        // Small enough for a JavaScript number, large enough never to be drawn twice.
        let node = self.rng.random_range(1..1 << 40);
        self.fresh = Some(node);
        self.holds.insert(node, Hold::Trying);
        self.out.push(Effect::TryLock(node));
    }

    fn lock(&mut self, node: NodeId, granted: bool) {
        let Some(hold) = self.holds.get_mut(&node) else {
            // It was given up in the meantime.
            return self.out.push(Effect::Unlock(node));
        };
        match (*hold, granted) {
            (Hold::Trying, true) if self.fresh == Some(node) && self.own.is_some() => {
                self.fresh = None;
                self.holds.remove(&node);
                self.out.push(Effect::Unlock(node));
            }
            (Hold::Trying, true) if self.fresh == Some(node) => {
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
                self.settle();
            }
            _ => {}
        }
    }

    fn created(&mut self, node: NodeId) {
        if self.holds.get(&node) != Some(&Hold::Creating) {
            return;
        }
        if self.own.is_some() {
            // A dead host's node came free in the meantime, and nobody knows of this one.
            self.fresh = None;
            self.delete(node);
        } else if self.founding {
            let registry = Registry { incarnation: self.incarnation, nodes: vec![node] };
            self.out.push(Effect::Found(registry));
        } else {
            self.out.push(Effect::Register(node));
        }
    }

    fn registered(&mut self, node: NodeId) {
        if self.holds.get(&node) != Some(&Hold::Creating) {
            return;
        }
        self.fresh = None;
        match self.own {
            Some(_) => self.delete(node),
            None => self.run_own(node, 1, Saved::default()),
        }
    }

    fn loaded(&mut self, node: NodeId, record: Option<Record>, view: &dyn View) {
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
                return self.settle();
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

    fn run_own(&mut self, node: NodeId, epoch: u64, saved: Saved) {
        self.own = Some(node);
        self.phase = Phase::Settled;
        self.holds.insert(node, Hold::Running);
        self.stalled = None;
        self.looked = self.now;
        self.out.push(Effect::Run { node, epoch, saved, own: true });
        self.hello(true);
    }

    /// Deletes a node that nobody needs.
    fn delete(&mut self, node: NodeId) {
        self.holds.insert(node, Hold::Deleting);
        self.out.push(Effect::Delete(node));
    }

    fn announce_and_delete(&mut self, node: NodeId) {
        self.deleted.insert(node);
        self.out.push(Effect::Broadcast(Body::Deleted { node }));
        self.delete(node);
    }

    fn lost(&mut self, node: NodeId) {
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
                self.settle();
            }
            // Its own, or one that it was about to take or to make: it begins anew.
            Some(Hold::Running | Hold::Creating) => {
                self.release_all();
                self.start();
            }
            _ => {}
        }
    }

    /// Stops every node and lets go of every lock.
    fn release_all(&mut self) {
        let running: Vec<_> = self.running().collect();
        self.out.extend(running.into_iter().map(Effect::Stop));
        self.out.push(Effect::UnlockAll);
        self.holds.clear();
        self.hosts.clear();
        (self.own, self.fresh, self.founding) = (None, None, false);
        (self.hello_at, self.ask_at) = (None, None);
        (self.control_at, self.stalled) = (None, None);
        self.phase = Phase::Idle;
    }

    fn suspend(&mut self, view: &dyn View) {
        let leads = |node: &NodeId| view.raft(*node).is_some_and(Raft::is_leader);
        let leaders: Vec<_> = self.running().filter(leads).collect();
        for node in leaders {
            let to = self.successor(node, view);
            self.out.push(Effect::Transfer { node, to });
        }
        if self.phase == Phase::Settled {
            self.out.push(Effect::Broadcast(Body::Goodbye));
        }
        self.release_all();
    }

    fn stop_for(&mut self, reason: StopReason) {
        self.release_all();
        self.phase = Phase::Over;
        self.out.push(Effect::Stopped(reason));
    }

    fn receive(&mut self, message: Message) {
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

    /// A host runs a node: nobody else does any more. If it was `granted` the lock just now, whoever
    /// ran the node before is dead.
    fn note_acquired(&mut self, host: u64, node: NodeId, granted: bool) {
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

    /// Queues for the lock of a node that runs elsewhere.
    fn queue(&mut self, node: NodeId) {
        let waits = matches!(self.phase, Phase::Settled | Phase::Settling);
        if waits && node != 0 && !self.holds.contains_key(&node) {
            self.holds.insert(node, Hold::Queued);
            self.out.push(Effect::AwaitLock(node));
        }
    }

    fn queue_for_members(&mut self, view: &dyn View) {
        let Some(raft) = self.own.and_then(|own| view.raft(own)) else { return };
        let unknown =
            |node: &NodeId| !self.holds.contains_key(node) && !self.deleted.contains(node);
        let nodes: Vec<_> = raft.members().iter().map(|(node, _)| node).filter(unknown).collect();
        nodes.into_iter().for_each(|node| self.queue(node));
    }

    /// Says soon what this host runs.
    fn announce_soon(&mut self) {
        if self.phase == Phase::Settled {
            self.hello_at = Some(self.now);
        }
    }

    pub(super) fn hello(&mut self, ask: bool) {
        let nodes = self.running().collect();
        let body = Body::Hello { own: self.own, nodes, visible: self.visible, ask };
        self.out.push(Effect::Broadcast(body));
        self.hello_at = None;
    }

    fn tick(&mut self) {
        if self.hello_at.is_some_and(|at| self.now >= at) {
            self.hello(false);
        }
        if self.control_at.is_some_and(|at| self.now >= at) {
            self.control_at = None;
        }
    }

    /// A node that is no member yet says that it is there, again and again.
    fn join(&mut self, view: &dyn View) {
        let Some(own) = self.own else { return };
        let joined = view.raft(own).is_some_and(|raft| raft.committed_members().1.contains(own));
        if !joined && self.hello_at.is_none() {
            self.hello_at = Some(self.now + HELLO);
        }
    }

    /// Deletes adopted nodes that are members no more.
    fn delete_removed(&mut self, view: &dyn View) {
        let adopted: Vec<_> = self.running().filter(|node| self.own != Some(*node)).collect();
        for node in adopted {
            let others: Vec<_> = self.running().filter(|other| *other != node).collect();
            let is_out = |other: &NodeId| {
                view.raft(node).is_some_and(|raft| {
                    view.raft(*other).is_some_and(|other| is_out(node, raft, other))
                })
            };
            if others.iter().any(is_out) && !made(Mistake::RemovedRunsOn) {
                self.out.push(Effect::Stop(node));
                self.announce_and_delete(node);
                self.announce_soon();
            }
        }
    }
}

/// What the first node of a cluster begins with: an entry that makes it the only voter.
fn founder(node: NodeId) -> Saved {
    let member = Member { voter: true, name: String::new() };
    let payload = Payload::Members(Members::new([(node, member)]));
    let entries = vec![Entry { at: Position::new(1, 1), payload }];
    Saved { hard: HardState { term: 1, vote: None }, snapshot: None, entries }
}

/// Whether another node knows of a committed configuration that lacks this one and is newer than any
/// that it has itself. What it has is older, or will never be committed, if it stands before the
/// other's commit index in the order of terms and indexes.
fn is_out(node: NodeId, raft: &Raft, other: &Raft) -> bool {
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
