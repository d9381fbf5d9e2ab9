//! The seam between a host and the kind of its cluster. Fixed and elastic clusters differ only in
//! how nodes come to be.
//!
//! A [`Cluster`] receives events ([`Event`]) and returns what to do ([`Action`]). The host runs
//! nodes, queues work, sends frames and closes; it does not know which kind of cluster it serves.

use std::fmt;

use super::transport::{Address, Message};
use super::types::{Effect, Notice, Status};
use crate::elastic::{self, Elastic, View};
use crate::formation::Set;
use crate::node::Packet;
use crate::raft::{Change, HardState, Members, NodeId, Persist, PersistSeq, Raft, Saved, Time};
use crate::store::Failure;
use crate::wire::Header;

/// Something that happened and that concerns the kind of cluster.
#[derive(Debug)]
pub(super) enum Event {
    /// [`super::types::Input::Start`].
    Start,
    /// Time has passed.
    Tick,
    /// A message arrived that is not from node to node.
    Message(Message),
    /// A frame of another incarnation of the cluster arrived.
    Foreign,
    /// In a node here, the leader or the configuration has changed, or [`Cluster::wants_review`]
    /// asked for this event.
    Changed,
    /// [`super::types::Input::Restored`].
    Restored(Option<Vec<u8>>),
    /// [`super::types::Input::Failed`].
    Failed(Failure),
    /// [`super::types::Input::Elastic`] of the current generation, or what happened to the tab: it
    /// was shown or hidden, it is suspended, or the cluster is to be destroyed.
    Elastic(elastic::Input),
    /// [`super::types::Input::Visible`].
    Visible(bool),
    /// [`super::types::Input::Suspend`].
    Suspend,
    /// [`super::types::Input::Destroy`].
    Destroy,
    /// The host closes.
    Close,
}

/// Something that the host must do for its kind of cluster.
#[derive(Debug)]
pub(super) enum Action {
    /// Run a node.
    Run {
        /// The node.
        node: NodeId,
        /// The epoch under which it writes.
        epoch: u64,
        /// Whether it is the host's own.
        own: bool,
        /// The configuration with which its log begins.
        members: Members,
        /// The node as storage has it.
        saved: Saved,
        /// After how many ms the node campaigns for the first time. `None`: after an election
        /// timeout.
        first_election: Option<Time>,
    },
    /// Stop a node at once: nothing more of it is written or sent.
    Stop(NodeId),
    /// Propose a change of the configuration on this node, which leads.
    Change(NodeId, Change),
    /// Transfer leadership from the first node to the second, or to the member with the longest
    /// log.
    Transfer(NodeId, Option<NodeId>),
    /// Report to every node here that the host of this node is dead.
    PeerDown(NodeId),
    /// Make this node, which leads, contact every other member now.
    Wake(NodeId),
    /// Send a message.
    Send(Address, Message),
    /// Give something to do to storage, locks or the channel.
    Effect(Effect),
    /// Ask storage or locks of an elastic cluster. With `UnlockAll` a new generation begins.
    Ask(elastic::Effect),
    /// Report something to the user.
    Report(Notice),
    /// Report an error with this code and this message, unless the code was reported before.
    ReportOnce(&'static str, String),
    /// Stop for good. Pending and later performs and reads are settled with this failure.
    Refuse(Failure),
}

/// Whether a frame is for this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is.
    Taken,
    /// It is for an earlier start of this node.
    Stale,
    /// It is from another incarnation of the cluster.
    Foreign,
}

/// The receiver and the sender of a message between nodes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    /// The receiver, which runs here.
    pub(super) to: NodeId,
    /// The sender's number in Raft.
    pub(super) from: NodeId,
}

/// How the nodes of a host come to be.
pub(super) trait Cluster: fmt::Debug {
    /// Takes one event and returns what to do, in this order. `nodes` are the nodes that run here.
    fn handle(&mut self, now: Time, event: Event, nodes: &dyn View) -> Vec<Action>;

    /// Whether storage has not answered yet. Until then the host lets most inputs wait.
    fn is_loading(&self) -> bool {
        false
    }

    /// When to send [`Event::Tick`] at the latest.
    fn deadline(&self) -> Option<Time>;

    /// Whether to send [`Event::Changed`] now.
    fn wants_review(&self, now: Time, nodes: &dyn View) -> bool;

    /// Whether a frame with this header is for this host.
    fn admit(&self, header: &Header) -> Admission;

    /// The receiver and the sender of a message between nodes, if the receiver runs here; and what
    /// else to do because of the message.
    fn route(
        &mut self,
        header: &Header,
        packet: &Packet,
        nodes: &dyn View,
    ) -> (Option<Route>, Vec<Action>);

    /// The address for a message from a node here to another node. `own` is the own node.
    fn address(&self, from: NodeId, to: NodeId, own: Option<&Raft>) -> Address;

    /// The effect that carries out a node's write. `hard` is the node's current term and vote.
    fn write(
        &mut self,
        node: NodeId,
        epoch: u64,
        generation: u32,
        persist: Persist,
        hard: HardState,
    ) -> Effect;

    /// A write of the own node is durable, or the record that names the owner of the storage.
    fn persisted(&mut self, _seq: PersistSeq) -> Vec<Action> {
        Vec::new()
    }

    /// Which founding of the cluster the host's nodes belong to: a random number, or 0 in a cluster
    /// that is founded once.
    fn incarnation(&self) -> u64 {
        0
    }

    /// The id of the own node; empty while there is none.
    fn id(&self) -> String;

    /// The id of a member, from its number in Raft.
    fn name(&self, node: NodeId, own: Option<&Raft>) -> Option<String>;

    /// How error messages name a node. The id of the node may be unknown.
    fn label(&self, node: NodeId) -> String;

    /// How many nodes (or hosts, in an elastic cluster) are there, as far as this host knows. It
    /// counts itself.
    fn present(&self) -> usize;

    /// Whether every other member is closing, too. Then there is no member to hand leadership to.
    fn is_last(&self) -> bool;

    /// Adds to the status what only the kind of cluster knows.
    fn complete(&self, status: &mut Status, own: Option<&Raft>);

    /// The set of members of a fixed cluster, once it has formed.
    fn set(&self) -> Option<&Set> {
        None
    }

    /// Which host runs which node, in an elastic cluster.
    fn elastic(&self) -> Option<&Elastic> {
        None
    }
}
