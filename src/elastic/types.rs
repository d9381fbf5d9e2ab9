//! The messages between hosts of an elastic cluster, and the inputs and effects of one host.

use serde::{Deserialize, Serialize};

use crate::raft::{Change, NodeId, Raft, Saved};

/// The one record of a cluster that all its hosts share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    /// The random number that the founder drew: it tells this cluster from earlier ones whose
    /// storage was deleted.
    pub incarnation: u64,
    /// The nodes that hosts may take. A record is written before its node is put on this list, and
    /// deleted before the node is taken off it.
    pub nodes: Vec<NodeId>,
}

/// A node's record in storage.
#[derive(Clone, Debug)]
pub struct Record {
    /// The incarnation of the cluster to which the node belongs.
    pub incarnation: u64,
    /// The fencing number, 1 in a new record. Every load raises it, and storage refuses a write
    /// under an older one.
    pub epoch: u64,
    /// The state of the node's Raft.
    pub saved: Saved,
}

/// The state of the nodes that run on this host, and of its performs and reads.
pub trait View {
    /// The Raft of a node; `None` if the node does not run here.
    fn raft(&self, node: NodeId) -> Option<&Raft>;
    /// How many performs and reads of this host wait for an answer.
    fn waiting(&self) -> usize;
}

/// A message between hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The sender's random number. A host draws a new one whenever it starts.
    pub host: u64,
    /// The number of this message among the sender's. A hello that a later one has overtaken is
    /// ignored.
    pub count: u64,
    /// The content.
    pub body: Body,
}

/// The content of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// "I am here, and this is what I run."
    Hello {
        /// The host's own node.
        own: Option<NodeId>,
        /// Every node that it runs.
        nodes: Vec<NodeId>,
        /// The user can see the tab.
        visible: bool,
        /// Asks every receiver for a hello in return.
        ask: bool,
        /// The version of the application that the host runs.
        version: u32,
    },
    /// "I have been granted the lock of this node." So the host that ran the node before is dead.
    Acquired {
        /// The node.
        node: NodeId,
    },
    /// "This node has no record." It will never run again.
    Deleted {
        /// The node.
        node: NodeId,
    },
    /// "I stop my nodes and release their locks."
    Goodbye,
    /// "A user has ended the cluster, and its storage is deleted."
    Destroyed,
}

/// One thing that happened to a host.
#[derive(Debug)]
pub enum Input {
    /// The host starts, or starts again after [`Input::Suspend`].
    Start,
    /// The answer to [`Effect::ReadRegistry`] and [`Effect::Found`]; `None` when there is no
    /// registry.
    Registry(Option<Registry>),
    /// A lock was granted; or, after [`Effect::TryLock`], it was not free.
    Lock {
        /// The node to which the lock belongs.
        node: NodeId,
        /// Whether this host has the lock now.
        granted: bool,
    },
    /// Another host has stolen the lock of this node, or a write was refused because another host
    /// has loaded the node's record.
    Lost(NodeId),
    /// The answer to [`Effect::Load`]; `None` when there is no record.
    Loaded {
        /// The node.
        node: NodeId,
        /// The record, with the epoch already raised.
        record: Option<Record>,
    },
    /// [`Effect::Create`] is done.
    Created(NodeId),
    /// [`Effect::Register`] is done.
    Registered(NodeId),
    /// [`Effect::Delete`] is done.
    Deleted(NodeId),
    /// Storage does not work, or was deleted while this host ran.
    Failed(StopReason),
    /// A message from another host arrived.
    Message(Message),
    /// A message of another incarnation of the cluster arrived: one of the two is over.
    Foreign,
    /// The leader or the configuration has changed in a node here, or [`Elastic::is_review_due`].
    ///
    /// [`Elastic::is_review_due`]: super::Elastic::is_review_due
    Changed,
    /// Whether the user can see the tab.
    Visible(bool),
    /// Stop every node and release every lock, until the next [`Input::Start`].
    Suspend,
    /// End the cluster and delete its storage.
    Destroy,
    /// Time has passed.
    Tick,
}

/// Why a host cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The storage of the cluster was deleted while the host ran.
    StorageLost,
    /// A write or a read failed, and trying again did not help. Contains the error of the storage.
    StorageFailed(String),
    /// A user has ended the cluster, here or on another host.
    Destroyed,
}

/// Something to do. An [`Input`] gives the result of an effect on storage or on a lock.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Read the registry.
    ReadRegistry,
    /// In one transaction: write this registry if there is none, and return the one that is there
    /// then. Return none if storage was deleted since this host read the registry: the record of
    /// the first node may be gone.
    Found(Registry),
    /// Add a node to the registry, if the registry has this incarnation. If not, the node's record
    /// is of no use and is deleted, and the answer is [`Input::Lost`], or [`Input::Failed`] when
    /// there is no registry.
    Register {
        /// The node.
        node: NodeId,
        /// The cluster's incarnation.
        incarnation: u64,
    },
    /// Ask for a lock if it is free.
    TryLock(NodeId),
    /// Queue for a lock.
    AwaitLock(NodeId),
    /// Take a lock away from the host that has it.
    StealLock(NodeId),
    /// Release a lock, or leave its queue.
    Unlock(NodeId),
    /// Release every lock and leave every queue.
    UnlockAll,
    /// In one `readwrite` transaction: raise the epoch of a node's record by one, and read the
    /// record.
    Load(NodeId),
    /// Write a new node's record, with epoch 1.
    Create {
        /// The node.
        node: NodeId,
        /// The cluster's incarnation.
        incarnation: u64,
        /// The state with which its Raft begins.
        saved: Saved,
    },
    /// Delete a node's record, and then take the node off the registry.
    Delete(NodeId),
    /// Delete all storage of this cluster.
    DeleteAll,
    /// Run a node.
    Run {
        /// The node.
        node: NodeId,
        /// The epoch under which it writes.
        epoch: u64,
        /// The state of its Raft.
        saved: Saved,
        /// Whether it is the host's own node.
        own: bool,
    },
    /// Stop a node at once: from now on it writes and sends nothing.
    Stop(NodeId),
    /// Propose a configuration change to a node, which leads.
    Change {
        /// The node.
        node: NodeId,
        /// The change.
        change: Change,
    },
    /// Make a node, which leads, hand over leadership (dissertation §3.10).
    Transfer {
        /// The node.
        node: NodeId,
        /// The new leader; `None` for the member whose log goes furthest.
        to: Option<NodeId>,
    },
    /// Report to every node here that the host of this one is dead.
    PeerDown(NodeId),
    /// Make a node, which leads, send heartbeats to its quiesced followers now, so that it learns
    /// which of them answer.
    Wake(NodeId),
    /// Send a message to all other hosts.
    Broadcast(Body),
    /// This host has stopped for good. The user must be told why.
    Stopped(StopReason),
}
