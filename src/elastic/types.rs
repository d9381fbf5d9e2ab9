//! What hosts of elastic clusters say and are told, and what they do: see [`super::elastic`].

use serde::{Deserialize, Serialize};

use crate::raft::{Change, NodeId, Raft, Saved};

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
    Acquired {
        /// The node.
        node: NodeId,
    },
    /// "This node has no storage": it will never run again.
    Deleted {
        /// The node.
        node: NodeId,
    },
    /// "I have let go of everything."
    Goodbye,
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
    Failed(StopReason),
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
pub enum StopReason {
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
    PeerDown(NodeId),
    /// Have a node, which leads, hear of every other one now.
    Wake(NodeId),
    /// Say something to all hosts.
    Broadcast(Body),
    /// This host is over; the user is to be told why.
    Stopped(StopReason),
}
