//! The seam between a host and the kind of its cluster: how a node comes to be, which is all that fixed
//! and elastic clusters do differently.
//!
//! A [`Cluster`] is told what happened and says what to do ([`Action`]). The host runs nodes, queues
//! work, sends frames and closes; it does not know which kind it serves.

use std::fmt;

use super::transport::{Address, Message};
use super::types::{Effect, Notice, Status};
use crate::elastic::{self, Elastic, View};
use crate::formation::Set;
use crate::node::Packet;
use crate::raft::{Change, HardState, Members, NodeId, Persist, PersistSeq, Raft, Saved, Time};
use crate::store::Failure;
use crate::wire::Header;

/// What happened, as far as the kind of cluster is concerned.
#[derive(Debug)]
pub(super) enum Event {
    /// [`super::types::Input::Start`].
    Start,
    /// Time has passed.
    Tick,
    /// A message arrived that is not for a node.
    Message(Message),
    /// A leader, a configuration, or what waits has changed in a node here.
    Changed,
    /// [`super::types::Input::Restored`].
    Restored(Option<Vec<u8>>),
    /// [`super::types::Input::Failed`].
    Failed(Failure),
    /// [`super::types::Input::Elastic`], of the present generation.
    Elastic(elastic::Input),
    /// The host closes.
    Close,
}

/// What the host does for its kind of cluster.
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
        /// What storage has of it.
        saved: Saved,
        /// When it campaigns for the first time, in ms; otherwise after an election timeout.
        first_election: Option<Time>,
    },
    /// Stop a node at once: nothing more of it is written or sent.
    Stop(NodeId),
    /// Ask a node, which leads, for a change of the configuration.
    Change(NodeId, Change),
    /// Have a node, which leads, hand over to this one, or to the one with the longest log.
    Transfer(NodeId, Option<NodeId>),
    /// Tell every node here that the host of this one is dead.
    PeerDown(NodeId),
    /// Have a node, which leads, hear of every other one now.
    Wake(NodeId),
    /// Send a message.
    Send(Address, Message),
    /// Ask something of storage, locks or the channel.
    Effect(Effect),
    /// What was asked of storage and locks so far is not heard any more.
    NextGeneration,
    /// Report something to the user.
    Report(Notice),
    /// Report an error, the first time that it happens.
    ReportOnce(&'static str, String),
    /// The host does nothing any more, and whatever waits is rejected.
    Refuse(Failure),
}

/// Whether a frame is for this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is.
    Taken,
    /// It is for an earlier start of this node.
    Stale,
    /// It is from another founding of the cluster.
    Foreign,
}

/// Who a node's message is for and from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    /// The node here.
    pub(super) to: NodeId,
    /// The sender's number in Raft.
    pub(super) from: NodeId,
}

/// How the nodes of a host come to be.
pub(super) trait Cluster: fmt::Debug {
    /// Takes one event and says what to do, in this order. `nodes` are those that run here.
    fn handle(&mut self, now: Time, event: Event, nodes: &dyn View) -> Vec<Action>;

    /// Whether storage has not said yet what it has: until then the user's inputs wait.
    fn is_loading(&self) -> bool {
        false
    }

    /// When to call with [`Event::Tick`], if nothing happens before.
    fn deadline(&self) -> Option<Time>;

    /// Whether to call with [`Event::Changed`].
    fn wants_review(&self, now: Time, nodes: &dyn View) -> bool;

    /// Whether a frame with this header is for this host.
    fn admit(&self, header: &Header) -> Admission;

    /// Who a node's message is for, if it is for a node here, and what to do besides.
    fn route(
        &mut self,
        header: &Header,
        packet: &Packet,
        nodes: &dyn View,
    ) -> (Option<Route>, Vec<Action>);

    /// Where a message from a node here to another node goes.
    fn address(&self, from: NodeId, to: NodeId, own: Option<&Raft>) -> Address;

    /// How a write is carried out. `hard` is term and vote as they are now.
    fn write(
        &mut self,
        node: NodeId,
        epoch: u64,
        generation: u32,
        persist: Persist,
        hard: HardState,
    ) -> Effect;

    /// A write of the own node is durable, or the record that says whose the storage is.
    fn persisted(&mut self, _seq: PersistSeq) -> Vec<Action> {
        Vec::new()
    }

    /// The id of the own node; empty while there is none.
    fn id(&self) -> String;

    /// A member's id, from its number in Raft.
    fn name(&self, node: NodeId, own: Option<&Raft>) -> Option<String>;

    /// What errors call a member of which perhaps only the number is known.
    fn label(&self, node: NodeId) -> String;

    /// How many others are there, as far as this host knows, itself included.
    fn present(&self) -> usize;

    /// Whether every other member is closing, too: then there is nobody to hand over to.
    fn is_last(&self) -> bool;

    /// Fills in what only the kind of cluster knows.
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
