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

mod adoption;
mod controller;
mod hosts;
mod registry;
mod types;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

pub use self::types::{Body, Effect, Input, Message, Record, Registry, StopReason, View};
use crate::raft::{Change, Index, NodeId, Raft, Time};
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
    Choosing,
    /// Running one.
    Running,
    /// For good.
    Stopped,
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
    new_node: Option<NodeId>,
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
    pub(super) reviewed_at: Time,
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
            new_node: None,
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
            reviewed_at: now,
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
        if self.phase != Phase::Running {
            return None;
        }
        let stalled = self
            .stalled
            .map(|(since, _, asked)| since + if asked { STEAL_AFTER } else { ASK_AFTER });
        [self.hello_at, self.ask_at, self.control_at, stalled].into_iter().flatten().min()
    }

    /// Whether to call with [`Input::Changed`], because work has begun to wait or waits no more.
    pub fn is_review_due(&self, view: &dyn View) -> bool {
        self.phase == Phase::Running && self.waits(view) != self.stalled.is_some()
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
        if self.phase != Phase::Stopped {
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
                self.choose();
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
        if self.phase == Phase::Running {
            self.review(view);
        }
    }

    /// Looks at what has changed in the nodes here.
    fn review(&mut self, view: &dyn View) {
        self.queue_for_members(view);
        self.delete_removed(view);
        self.watch(view);
        self.control(view);
        self.join(view);
        self.reviewed_at = self.now;
    }
}
