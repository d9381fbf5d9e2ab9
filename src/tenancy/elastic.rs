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

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::mistakes::{Mistake, made};
use crate::raft::{
    Change, Entry, HardState, Index, Member, Members, NodeId, Payload, Position, Raft, Saved, Time,
};

/// How often a host whose node has not joined yet says so, in ms.
const HELLO: Time = 300;
/// How often the leader's host asks for members of which it knows no host, in ms.
const INQUIRE: Time = 2_000;
/// How long a leader's host waits before it looks again at what is left to change, in ms.
const GOVERN: Time = 60;
/// How long work goes unanswered before the host asks who is there, and before it takes the nodes
/// away from hosts that are silent, in ms.
const ASK: Time = 2_500;
const STEAL: Time = 5_000;
/// A host that was not called for so long when it wanted to be has been asleep itself, in ms.
const OVERSLEPT: Time = 1_500;
/// The most nodes that a message names.
const MOST_NODES: usize = 1_024;

/// What is written once for a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    /// The random number of this founding.
    pub incarnation: u64,
    /// Every node that has storage, or will be found to have none.
    pub nodes: Vec<NodeId>,
}

/// What storage has of a node.
#[derive(Clone, Debug)]
pub struct Record {
    /// Of which founding it is.
    pub incarnation: u64,
    /// How many hosts have taken the node, this one included: what is written under an older number
    /// does not count.
    pub epoch: u64,
    /// What its Raft remembers.
    pub saved: Saved,
}

/// Whether a write may count, by the epoch that the record has now (`None`: there is no record) and
/// the writer's.
///
/// # Errors
/// When somebody else has taken the node over, or its storage is gone.
pub fn admit(stored: Option<u64>, epoch: u64) -> Result<(), Fence> {
    match stored {
        None => Err(Fence::NoRecord),
        Some(stored) if stored != epoch && !made(Mistake::EpochUnchecked) => Err(Fence::Taken),
        Some(_) => Ok(()),
    }
}

/// Why a write does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// Another host runs the node now.
    Taken,
    /// The node has no storage any more.
    NoRecord,
}

/// How things stand in the nodes that run here.
pub trait View {
    /// The Raft of a node.
    fn raft(&self, node: NodeId) -> Option<&Raft>;
    /// How many performs and reads of this host wait.
    fn waiting(&self) -> usize;
}

/// What hosts say to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The sender's number, drawn anew whenever it begins.
    pub host: u64,
    /// Counts the sender's messages: an older greeting that arrives late says nothing any more.
    pub count: u64,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// "I am here, and this is what I run."
    Hello {
        /// The host's own node.
        own: Option<NodeId>,
        /// Every node that it runs.
        nodes: Vec<NodeId>,
        /// Somebody can see the tab.
        visible: bool,
        /// Everyone else is to say the same.
        ask: bool,
    },
    /// "I have been given the lock of this node": so whoever ran it is dead.
    Took {
        /// The node.
        node: NodeId,
    },
    /// "This node has no storage": it will never run again.
    Vanished {
        /// The node.
        node: NodeId,
    },
    /// "I have let go of everything."
    Bye,
    /// "The cluster is over, and its storage deleted."
    Destroyed,
}

/// One thing that happened.
#[derive(Debug)]
pub enum Input {
    /// The host begins, or begins anew.
    Start,
    /// The registry: the answer to [`Effect::ReadRegistry`] and [`Effect::Found`].
    Registry(Option<Registry>),
    /// A lock was granted; or, after [`Effect::TryLock`], it was not.
    Lock {
        /// Whose.
        node: NodeId,
        /// Whether it is held now.
        granted: bool,
    },
    /// A lock that was held was taken away, or a write found that the node is somebody else's.
    Lost(NodeId),
    /// The answer to [`Effect::Load`]; `None` when there is no record.
    Loaded {
        /// The node.
        node: NodeId,
        /// What there is.
        record: Option<Record>,
    },
    /// [`Effect::Create`] is done.
    Created(NodeId),
    /// [`Effect::Register`] is done.
    Registered(NodeId),
    /// [`Effect::Delete`] is done.
    Deleted(NodeId),
    /// Storage does not work, or a node's storage has gone while it ran.
    Broken(Trouble),
    /// Another host said something.
    Message(Message),
    /// A leader or a configuration changed in a node here.
    Changed,
    /// Whether somebody can see the tab.
    Visible(bool),
    /// Let go of everything, until the next [`Input::Start`].
    Suspend,
    /// End the cluster and delete what it has stored.
    Destroy,
    /// Time has passed.
    Tick,
}

/// Why a host cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Storage was deleted under it.
    StorageLost,
    /// A write or a read failed, and trying again did not help; with what storage said.
    StorageFailed(String),
    /// The cluster was ended on purpose.
    Destroyed,
}

/// What to do. Those that ask something of storage or of locks are answered by an input.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Read the registry.
    ReadRegistry,
    /// In one transaction: if there is no registry, write this one; give what is there then.
    Found(Registry),
    /// Add a node to the registry.
    Register(NodeId),
    /// Ask for a lock if it is free.
    TryLock(NodeId),
    /// Queue for a lock.
    AwaitLock(NodeId),
    /// Take a lock away from whoever holds it.
    StealLock(NodeId),
    /// Let go of a lock, or of the place in its queue.
    Unlock(NodeId),
    /// Let go of every lock and of every place in a queue.
    UnlockAll,
    /// In one `readwrite` transaction: raise the epoch of a node's record, and read it.
    Load(NodeId),
    /// Write a new node's record, with epoch 1.
    Create {
        /// The node.
        node: NodeId,
        /// The founding.
        incarnation: u64,
        /// What its Raft begins with.
        saved: Saved,
    },
    /// Delete a node's record, and then its place in the registry.
    Delete(NodeId),
    /// Delete everything of this cluster.
    DeleteAll,
    /// Run a node.
    Run {
        /// The node.
        node: NodeId,
        /// The epoch under which it writes.
        epoch: u64,
        /// What its Raft remembers.
        saved: Saved,
        /// Whether it is the host's own.
        own: bool,
    },
    /// Stop a node at once: nothing more of it is written or sent.
    Stop(NodeId),
    /// Ask a node, which leads, for a change of the configuration.
    Change {
        /// The node.
        node: NodeId,
        /// The change.
        change: Change,
    },
    /// Have a node, which leads, hand over.
    Transfer {
        /// The node.
        node: NodeId,
        /// To whom.
        to: Option<NodeId>,
    },
    /// Tell every node here that the host of this one is dead.
    Gone(NodeId),
    /// Have a node, which leads, hear of every other one now.
    Wake(NodeId),
    /// Say something to all hosts.
    Say(Body),
    /// This host is over; the user is to be told why.
    Over(Trouble),
}

/// What a host has to do with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
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
enum Next {
    Change(Change),
    /// Something, when members have answered that are silent now.
    Later,
}

#[derive(Clone, Debug)]
struct Host {
    own: Option<NodeId>,
    nodes: BTreeSet<NodeId>,
    visible: bool,
    heard: Time,
    count: u64,
}

/// The tenancy of one host.
#[derive(Clone, Debug)]
pub struct Elastic {
    rng: SmallRng,
    host: u64,
    max_voters: usize,
    now: Time,
    phase: Phase,
    incarnation: u64,
    /// The node that is being made.
    fresh: Option<NodeId>,
    founding: bool,
    own: Option<NodeId>,
    visible: bool,
    holds: BTreeMap<NodeId, Hold>,
    hosts: BTreeMap<u64, Host>,
    vanished: BTreeSet<NodeId>,
    hello_at: Option<Time>,
    /// When the leader's host asks again who runs the members of which nobody says so.
    ask_at: Option<Time>,
    said: u64,
    govern_at: Option<Time>,
    /// Since when work goes unanswered, with the commit index at that time, and whether the others
    /// were asked.
    stuck: Option<(Time, Index, bool)>,
    looked: Time,
    out: Vec<Effect>,
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
            holds: BTreeMap::new(),
            hosts: BTreeMap::new(),
            vanished: BTreeSet::new(),
            hello_at: None,
            ask_at: None,
            said: 0,
            govern_at: None,
            stuck: None,
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
        let there = |host: &Host| host.own != Some(node) && host.nodes.contains(&node);
        here || self.hosts.values().any(there)
    }

    /// When to call with [`Input::Tick`], if nothing happens before.
    pub fn deadline(&self) -> Option<Time> {
        if self.phase != Phase::Settled {
            return None;
        }
        let stuck = self.stuck.map(|(since, _, asked)| since + if asked { STEAL } else { ASK });
        [self.hello_at, self.ask_at, self.govern_at, stuck].into_iter().flatten().min()
    }

    /// Whether to call with [`Input::Changed`], because work has begun to wait or waits no more.
    pub fn wants_to_look(&self, view: &dyn View) -> bool {
        self.phase == Phase::Settled && self.waits(view) != self.stuck.is_some()
    }

    /// Whether something waits here for the others.
    fn waits(&self, view: &dyn View) -> bool {
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
            Input::Broken(trouble) => self.end(trouble),
            Input::Message(message) => self.hear(message),
            Input::Changed => {}
            Input::Visible(visible) => {
                if std::mem::replace(&mut self.visible, visible) != visible {
                    self.greet();
                }
            }
            Input::Suspend => self.suspend(view),
            Input::Destroy => {
                self.out.push(Effect::Say(Body::Destroyed));
                self.out.push(Effect::DeleteAll);
                self.end(Trouble::Destroyed);
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
        self.bury(view);
        self.watch(view);
        self.govern(view);
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
                self.vanish(node);
                return self.settle();
            }
        };
        self.out.push(Effect::Say(Body::Took { node }));
        self.took(self.host, node, true);
        if self.own.is_none() {
            return self.run_own(node, record.epoch, record.saved);
        }
        self.holds.insert(node, Hold::Running);
        let Record { epoch, saved, .. } = record;
        self.out.push(Effect::Run { node, epoch, saved, own: false });
        self.greet();
        self.bury(view);
    }

    fn run_own(&mut self, node: NodeId, epoch: u64, saved: Saved) {
        self.own = Some(node);
        self.phase = Phase::Settled;
        self.holds.insert(node, Hold::Running);
        self.stuck = None;
        self.looked = self.now;
        self.out.push(Effect::Run { node, epoch, saved, own: true });
        self.hello(true);
    }

    /// Deletes a node that nobody needs.
    fn delete(&mut self, node: NodeId) {
        self.holds.insert(node, Hold::Deleting);
        self.out.push(Effect::Delete(node));
    }

    fn vanish(&mut self, node: NodeId) {
        self.vanished.insert(node);
        self.out.push(Effect::Say(Body::Vanished { node }));
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
                self.greet();
                self.settle();
            }
            // Its own, or one that it was about to take or to make: it begins anew.
            Some(Hold::Running | Hold::Creating) => {
                self.let_go();
                self.start();
            }
            _ => {}
        }
    }

    /// Stops every node and lets go of every lock.
    fn let_go(&mut self) {
        let running: Vec<_> = self.running().collect();
        self.out.extend(running.into_iter().map(Effect::Stop));
        self.out.push(Effect::UnlockAll);
        self.holds.clear();
        self.hosts.clear();
        (self.own, self.fresh, self.founding) = (None, None, false);
        (self.hello_at, self.ask_at) = (None, None);
        (self.govern_at, self.stuck) = (None, None);
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
            self.out.push(Effect::Say(Body::Bye));
        }
        self.let_go();
    }

    fn end(&mut self, trouble: Trouble) {
        self.let_go();
        self.phase = Phase::Over;
        self.out.push(Effect::Over(trouble));
    }

    fn hear(&mut self, message: Message) {
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
                    self.took(host, *node, false);
                    self.queue(*node);
                }
                let nodes = nodes.into_iter().collect();
                self.hosts.insert(host, Host { own, nodes, visible, heard: self.now, count });
                if ask {
                    // By a timer: a frozen tab takes in messages, and must not seem to be alive.
                    self.greet();
                }
            }
            Body::Took { node } => {
                self.took(host, node, true);
                self.queue(node);
            }
            Body::Vanished { node } => {
                self.vanished.insert(node);
            }
            Body::Bye => {
                if let Some(gone) = self.hosts.remove(&host) {
                    self.out.extend(gone.nodes.into_iter().map(Effect::Gone));
                }
            }
            Body::Destroyed => self.end(Trouble::Destroyed),
        }
    }

    /// A host runs a node: nobody else does any more. If it was `granted` the lock just now, whoever
    /// ran the node before is dead.
    fn took(&mut self, host: u64, node: NodeId, granted: bool) {
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
            self.out.push(Effect::Gone(node));
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
            |node: &NodeId| !self.holds.contains_key(node) && !self.vanished.contains(node);
        let nodes: Vec<_> = raft.members().iter().map(|(node, _)| node).filter(unknown).collect();
        nodes.into_iter().for_each(|node| self.queue(node));
    }

    /// Says soon what this host runs.
    fn greet(&mut self) {
        if self.phase == Phase::Settled {
            self.hello_at = Some(self.now);
        }
    }

    fn hello(&mut self, ask: bool) {
        let nodes = self.running().collect();
        let body = Body::Hello { own: self.own, nodes, visible: self.visible, ask };
        self.out.push(Effect::Say(body));
        self.hello_at = None;
    }

    fn tick(&mut self) {
        if self.hello_at.is_some_and(|at| self.now >= at) {
            self.hello(false);
        }
        if self.govern_at.is_some_and(|at| self.now >= at) {
            self.govern_at = None;
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
    fn bury(&mut self, view: &dyn View) {
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
                self.vanish(node);
                self.greet();
            }
        }
    }

    /// Work that nobody answers: first ask who is there, then take the nodes of the silent.
    fn watch(&mut self, view: &dyn View) {
        let Some(raft) = self.own.and_then(|own| view.raft(own)) else { return };
        let waits = self.waits(view);
        let overslept = self.deadline().is_some_and(|at| self.now > at + OVERSLEPT)
            || self.now > self.looked + STEAL + OVERSLEPT;
        let commit = raft.commit_index();
        match self.stuck {
            _ if !waits => self.stuck = None,
            Some((_, before, _)) if commit == before && !overslept => {}
            _ => self.stuck = Some((self.now, commit, false)),
        }
        let Some((since, _, asked)) = self.stuck else { return };
        if !asked && self.now >= since + ASK {
            self.stuck = Some((since, commit, true));
            self.hello(true);
        }
        if asked && self.now >= since + STEAL && !made(Mistake::FrozenKeepsLock) {
            let spoke = |host: &&Host| host.heard > since;
            let heard: BTreeSet<_> =
                self.hosts.values().filter(spoke).flat_map(|host| host.nodes.iter()).collect();
            let silent =
                |(node, hold): &(&NodeId, &Hold)| **hold == Hold::Queued && !heard.contains(node);
            let silent: Vec<_> = self.holds.iter().filter(silent).map(|(node, _)| *node).collect();
            self.out.extend(silent.into_iter().map(Effect::StealLock));
            self.stuck = Some((self.now, commit, false));
        }
    }

    /// The voter that should lead after this one: the own node of a host that can be seen, if there
    /// is one.
    fn successor(&self, node: NodeId, view: &dyn View) -> Option<NodeId> {
        let members = view.raft(node)?.members();
        let able = |host: &&Host| host.own.is_some_and(|own| members.is_voter(own));
        let hosts = self.hosts.values().filter(able);
        hosts.max_by_key(|host| (host.visible, host.own)).and_then(|host| host.own)
    }

    /// What the host of the leader sees to: who leads, and who is a member.
    fn govern(&mut self, view: &dyn View) {
        let Some(own) = self.own else { return };
        let leads = |node: &NodeId| view.raft(*node).is_some_and(Raft::takes_proposals);
        let Some(leader) = self.running().find(leads) else {
            (self.govern_at, self.ask_at) = (None, None);
            return;
        };
        let Some(raft) = view.raft(leader) else { return };
        let members = raft.members();
        self.inquire(members);
        if self.govern_at.is_some() {
            return;
        }
        if leader != own && members.is_voter(own) {
            return self.act(Effect::Transfer { node: leader, to: Some(own) });
        }
        if !self.visible
            && let Some(to) = self.successor(leader, view)
            && self.is_visible(to) == Some(true)
        {
            return self.act(Effect::Transfer { node: leader, to: Some(to) });
        }
        match self.next_change(own, raft) {
            Some(Next::Change(change)) => self.act(Effect::Change { node: leader, change }),
            Some(Next::Later) => {
                self.out.push(Effect::Wake(leader));
                self.govern_at = Some(self.now + HELLO);
            }
            None => {}
        }
    }

    /// Asks who is there while there are members that nobody says he runs: what was said may be lost.
    fn inquire(&mut self, members: &Members) {
        let here = |node: NodeId| self.holds.get(&node) == Some(&Hold::Running);
        let known = |node: NodeId| self.hosts.values().any(|host| host.nodes.contains(&node));
        if members.iter().all(|(node, _)| here(node) || known(node)) {
            self.ask_at = None;
            return;
        }
        match self.ask_at {
            Some(at) if self.now < at => {}
            Some(_) => {
                self.hello(true);
                self.ask_at = Some(self.now + INQUIRE);
            }
            None => self.ask_at = Some(self.now + HELLO),
        }
    }

    /// Does something, and looks again a little later whether more is to be done.
    fn act(&mut self, effect: Effect) {
        self.out.push(effect);
        self.govern_at = Some(self.now + GOVERN);
    }

    /// What is to be changed next: newcomers first, then promotions, then removals.
    fn next_change(&self, own: NodeId, raft: &Raft) -> Option<Next> {
        let members = raft.members();
        // Whose lock is held here, or whose storage is gone, does not run elsewhere, whoever says so.
        let elsewhere = |node: &NodeId| {
            matches!(self.holds.get(node), None | Some(Hold::Queued))
                && !self.vanished.contains(node)
        };
        let owns = self.hosts.values().filter_map(|host| host.own).filter(elsewhere).chain([own]);
        let owns: BTreeSet<_> = owns.collect();
        if let Some(id) = owns.iter().find(|id| !members.contains(**id)) {
            return Some(Next::Change(Change::Add { id: *id, name: String::new() }));
        }
        // Those that are about to leave make room already.
        let surplus = |id: &NodeId| self.vanished.contains(id) || self.is_adopted(*id);
        let stays = |id: &NodeId| members.is_voter(*id) && !surplus(id);
        let staying = members.iter().map(|(id, _)| id).filter(stays).count();
        let room = staying < self.max_voters;
        let mut learners = owns.iter().filter(|id| room && !members.is_voter(**id)).peekable();
        let waits = learners.peek().is_some();
        if let Some(id) = learners.find(|id| raft.is_ready(**id)) {
            return Some(Next::Change(Change::Promote(*id)));
        }
        // Whoever goes, a majority of those who stay must be there: hosts that are frozen keep nodes
        // that do not answer. So the silent go first.
        let is_missed = |id: &NodeId| {
            let voters = members.iter().map(|(other, _)| other).filter(|o| members.is_voter(*o));
            let staying: Vec<_> = voters.filter(|other| other != id).collect();
            let live = staying.iter().filter(|other| raft.is_live(**other)).count();
            members.is_voter(*id) && live < staying.len() / 2 + 1
        };
        let mut leaves = members.iter().map(|(id, _)| id).filter(surplus).peekable();
        let waits = waits || leaves.peek().is_some();
        let next = leaves.filter(|id| !is_missed(id)).min_by_key(|id| raft.is_live(*id));
        next.map(|id| Next::Change(Change::Remove(id))).or(waits.then_some(Next::Later))
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
