//! Elastic clusters: nodes outlive the tabs that run them.
//!
//! **The problem.** Users close tabs whenever they like, also most of them at once. If each member
//! of the cluster died with its tab, the tabs that are left could be too few for a majority, and
//! the cluster would stop for ever. But the tabs of one browser share storage: what a dead tab's
//! node had written is still there.
//!
//! **The rule.** A *node* is a member of the Raft cluster: a number, a record in storage, and an
//! exclusive lock. A *host* is a tab. It runs one node of its own, and the nodes of dead hosts that
//! it has *adopted*. This module decides which host runs which node. It receives the
//! answers of storage and of locks, and returns what to ask of them.
//!
//! - **Founding.** One transaction on the registry decides which host founds the cluster. The
//!   founder draws a random *incarnation*, which every frame carries, and its node begins as the
//!   only voter (dissertation §4.4).
//! - **A host's own node** is an existing node whose lock is free, because its host is dead. If
//!   there is none, it is a new node, which asks to be added.
//! - **Adoption.** A host queues for the lock of every node that it does not run. When it is
//!   granted the lock, the host that had the lock is dead or has released it. The new holder loads
//!   the node's record, informs the other hosts, and runs the node.
//! - **Membership.** The leader's host adds the other hosts' own nodes, promotes them to voters,
//!   and removes the nodes that are adopted or deleted, one change at a time (dissertation §4.1,
//!   §4.2.1).
//! - **The end of an adopted node.** The host deletes it when another node of the host knows a
//!   committed configuration without it that is newer than any configuration in its own log.
//! - **Suspended and frozen hosts.** A host that is about to be frozen releases every lock. A host
//!   that is frozen without warning keeps its locks. So a host whose work is not answered for some
//!   seconds steals the locks of the hosts that are silent.
//!
//! **Why it is safe.**
//!
//! - A node that changes hosts keeps its term, vote and log. To Raft, it has crashed and restarted
//!   (dissertation §3.8).
//! - A node never starts with an empty record. A host that is granted a lock and finds no record
//!   deletes the node, because the node may have voted.
//! - Two hosts may believe that they run a node, if one of them was frozen while its lock was
//!   stolen. *Fencing* stops the old one: loading a record raises its epoch, and storage refuses
//!   writes under an older epoch. Every vote and every acknowledgement leaves only after its write,
//!   so the old host can promise nothing.
//! - An adopted node runs until its removal is committed, because until then a majority may need
//!   its vote and its log.
//!
//! Files, lower ones first:
//!
//! - `types`: messages between hosts, inputs and effects of a host
//! - this file: the state of one host, and the dispatch of inputs
//! - `registry`: founding, locks, and a host's own node
//! - `adoption`: taking over, losing and deleting nodes
//! - `hosts`: what hosts send each other
//! - `controller`: the membership controller, and what to do about silent hosts

mod adoption;
mod controller;
mod hosts;
mod registry;
mod types;

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

pub use self::types::{Body, Effect, Input, Message, Record, Registry, StopReason, View};
use crate::raft::{Change, Index, NodeId, Raft, Time};
use crate::sorted::{SortedMap, SortedSet};

/// How often a host sends a hello while its own node is not a member yet, in ms.
pub(super) const HELLO_INTERVAL: Time = 300;
/// How often the leader's host asks which hosts run the members for which it knows no host, in ms.
pub(super) const QUERY_INTERVAL: Time = 2_000;
/// How long the leader's host waits between two changes of leadership or members, in ms.
pub(super) const CONTROL_PAUSE: Time = 60;
/// How long work goes unanswered before the host asks the other hosts for a hello, in ms.
pub(super) const QUERY_AFTER: Time = 2_500;
/// How long work goes unanswered before the host steals the locks of silent hosts, in ms.
pub(super) const STEAL_AFTER: Time = 5_000;
/// A host that is called this much later than its deadline takes itself to have been frozen, in ms.
pub(super) const FROZEN_AFTER: Time = 1_500;
/// The most nodes that a hello may name. A hello with more is ignored.
const MAX_NODES: usize = 1_024;

/// What a host has or wants of a node's lock, and what it does with the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LockState {
    /// The host has asked for the lock, if it is free.
    Trying,
    /// The host waits in the queue for the lock.
    Queued,
    /// The host has the lock, and loads the record.
    Loading,
    /// The host has the lock, and writes a new record.
    Creating,
    /// The host has the lock, and runs the node.
    Running,
    /// The host has the lock, and deletes the record.
    Deleting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not started, or suspended.
    Idle,
    /// Waiting for the registry.
    Reading,
    /// Looking for a free node to be the host's own, or creating one.
    Choosing,
    /// Running the host's own node.
    Running,
    /// Stopped for good.
    Stopped,
}

/// What the leader's host does next about the members.
pub(super) enum NextStep {
    /// Propose this change.
    Change(Change),
    /// Hand leadership to this voter, because the leader is to be a learner.
    Transfer(NodeId),
    /// Nothing yet: a change is wanted, but members that do not answer now must answer first.
    Wait,
}

/// What this host knows of another one.
#[derive(Clone, Debug)]
pub(super) struct KnownHost {
    /// Its own node.
    pub(super) own: Option<NodeId>,
    /// Every node that it runs.
    pub(super) nodes: SortedSet<NodeId>,
    /// The user can see its tab.
    pub(super) visible: bool,
    /// The version of the application that it runs.
    pub(super) version: u32,
    /// When its last hello came.
    pub(super) heard: Time,
    /// The number of its last hello: see [`Message::count`].
    pub(super) count: u64,
}

/// One host's part in an elastic cluster.
#[derive(Clone, Debug)]
pub struct Elastic {
    rng: Xoshiro256PlusPlus,
    /// This host's random number, drawn anew at every start.
    host: u64,
    /// The version of the application that this host runs.
    version: u32,
    /// How many voters the cluster has at most.
    pub(super) max_voters: usize,
    pub(super) now: Time,
    phase: Phase,
    incarnation: u64,
    /// The node that this host creates.
    new_node: Option<NodeId>,
    /// The new node is to found the cluster.
    founding: bool,
    /// This host's own node.
    pub(super) own: Option<NodeId>,
    /// The user can see this tab.
    pub(super) visible: bool,
    /// Every node that this host runs or whose lock it wants.
    pub(super) locks: SortedMap<NodeId, LockState>,
    /// The other hosts that run nodes, by their random numbers.
    pub(super) hosts: SortedMap<u64, KnownHost>,
    /// The nodes without a record. They never run again.
    pub(super) deleted: SortedSet<NodeId>,
    next_hello: Option<Time>,
    /// When the leader's host asks next which hosts run the members for which it knows no host.
    pub(super) next_query: Option<Time>,
    /// When this host looks next whether the registry still has its incarnation, and when it may
    /// look again after that.
    next_look: Option<Time>,
    pub(super) look_again: Time,
    /// How many messages this host has sent.
    messages_sent: u64,
    /// Until when the leader's host makes no further change; `None` if it may make one now.
    pub(super) next_control: Option<Time>,
    /// Work that the cluster does not answer: since when, the commit index at that time, and
    /// whether the other hosts have been asked for a hello.
    pub(super) unanswered: Option<(Time, Index, bool)>,
    /// The effects of the present call.
    pub(super) out: Vec<Effect>,
}

impl Elastic {
    /// A host that has not started. `seed` decides every random choice.
    pub fn new(max_voters: usize, visible: bool, now: Time, seed: u64) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
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
            version: 1,
            locks: SortedMap::new(),
            hosts: SortedMap::new(),
            deleted: SortedSet::new(),
            next_hello: None,
            next_query: None,
            next_look: None,
            look_again: 0,
            messages_sent: 0,
            next_control: None,
            unanswered: None,
            out: Vec::new(),
        }
    }

    /// The same for a host that runs this version of the application. The default is 1.
    #[must_use]
    pub fn with_version(self, version: u32) -> Self {
        Self { version, ..self }
    }

    /// This host's next message, with this content.
    pub fn message_of(&mut self, body: Body) -> Message {
        self.messages_sent += 1;
        Message { host: self.host, count: self.messages_sent, body }
    }

    /// The incarnation of the cluster; 0 until it is known.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// This host's own node, once it runs.
    pub fn own(&self) -> Option<NodeId> {
        self.own
    }

    /// Every node that runs here.
    pub fn running(&self) -> impl Iterator<Item = NodeId> {
        self.locks.iter().filter(|(_, state)| **state == LockState::Running).map(|(node, _)| *node)
    }

    /// How many hosts are known, this one included.
    pub fn hosts(&self) -> usize {
        self.hosts.len() + 1
    }

    /// Whether the user can see the tab of the host whose own node this is; `None` if no known host
    /// has this node as its own.
    pub fn is_visible(&self, node: NodeId) -> Option<bool> {
        if self.own == Some(node) {
            return Some(self.visible);
        }
        self.hosts.values().find(|host| host.own == Some(node)).map(|host| host.visible)
    }

    /// Whether this node runs on a host whose own node is another one, as far as this host knows.
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
        let unanswered = self
            .unanswered
            .map(|(since, _, asked)| since + if asked { STEAL_AFTER } else { QUERY_AFTER });
        let others = [self.next_hello, self.next_query, self.next_look, self.next_control];
        others.into_iter().chain([unanswered]).flatten().min()
    }

    /// Whether to call with [`Input::Changed`], because work has begun to wait for an answer or no
    /// longer waits.
    pub fn is_review_due(&self, view: &dyn View) -> bool {
        self.phase == Phase::Running && self.has_waiting_work(view) != self.unanswered.is_some()
    }

    /// Whether something here waits for other nodes: a perform or a read, or an own node without a
    /// leader.
    pub(super) fn has_waiting_work(&self, view: &dyn View) -> bool {
        let leader = self.own.and_then(|own| view.raft(own)).map(Raft::leader);
        view.waiting() > 0 || leader == Some(None)
    }

    /// Takes one input at the time `now` (ms). Returns what to do, in this order.
    #[must_use]
    pub fn handle(&mut self, now: Time, input: Input, view: &dyn View) -> Vec<Effect> {
        self.now = self.now.max(now);
        if self.phase != Phase::Stopped {
            self.dispatch(input, view);
        }
        std::mem::take(&mut self.out)
    }

    fn dispatch(&mut self, input: Input, view: &dyn View) {
        match input {
            Input::Start => self.start(),
            Input::Registry(registry) => self.handle_registry(registry),
            Input::Lock { node, granted } => self.handle_lock(node, granted),
            Input::Lost(node) => self.handle_lost(node),
            Input::Loaded { node, record } => self.handle_loaded(node, record, view),
            Input::Created(node) => self.handle_created(node),
            Input::Registered(node) => self.handle_registered(node),
            Input::Deleted(node) => {
                self.locks.remove(&node);
                self.out.push(Effect::Unlock(node));
                self.create_if_none_free();
            }
            Input::Failed(reason) => self.stop_for(reason),
            Input::Message(message) => self.receive(message),
            Input::Foreign => self.look_soon(),
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
            Input::Tick => self.handle_tick(),
        }
        if self.phase == Phase::Running {
            self.review(view);
        }
    }

    /// Acts on what has changed in the nodes that run here.
    fn review(&mut self, view: &dyn View) {
        self.queue_for_members(view);
        self.delete_removed(view);
        self.check_unanswered(view);
        self.control(view);
        self.announce_until_member(view);
    }
}
