//! The settings, inputs and outputs of a host, the same for every kind of cluster.

use crate::elastic;
use crate::formation::Plan;
use crate::node::Durability;
use crate::raft::{Blob, NodeId, Persist, PersistSeq, RoleName, Time};
use crate::store::{self, Call, Failure, Perform, Return, Settled};

/// The settings of a host.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster's name. Frames of other clusters are ignored.
    pub cluster: String,
    /// What kind of cluster it is.
    pub kind: Kind,
    /// Shortest and longest election timeout, in ms.
    pub election_timeout: (Time, Time),
    /// How long a leader may be silent towards a follower, in ms.
    pub heartbeat_interval: Time,
    /// How long a leader may be silent towards a follower that has its whole log, in ms
    /// ([`crate::raft::Config::quiesce_interval`]). `None`: no longer than towards any other
    /// follower.
    pub quiesce_interval: Option<Time>,
    /// The store's settings.
    pub store: store::Config,
    /// Whether nodes have storage.
    pub durability: Durability,
}

/// The kind of a cluster.
#[derive(Clone, Debug)]
pub enum Kind {
    /// The host has one node of a cluster of a fixed size, which must form before the node runs.
    Fixed {
        /// The node's id.
        id: String,
        /// How many members, or which ids, form the cluster.
        plan: Plan,
    },
    /// The cluster has a node for each tab, and nodes outlive their tabs.
    Elastic {
        /// How many nodes vote at most.
        max_voters: usize,
    },
}

/// One thing that happened to a host.
#[derive(Debug)]
pub enum Input<S> {
    /// Start, or start again after [`Input::Suspend`].
    Start,
    /// Time has passed.
    Tick,
    /// A frame arrived.
    Frame(Vec<u8>),
    /// Performs of the user, in order.
    Perform(Vec<Perform>),
    /// A linearizable read of the user.
    Read {
        /// The caller's number for the read.
        ticket: u64,
    },
    /// User code returned.
    Returned(Return<S>),
    /// The user closes the node.
    Close,
    /// A write is durable, and so is every earlier write of that node.
    Persisted {
        /// The host's generation at the time of the write.
        generation: u32,
        /// The node; 0 for the host's own node.
        node: NodeId,
        /// The number of the write.
        seq: PersistSeq,
    },
    /// The file ([`crate::storage::file`]) that storage has of the node of a fixed cluster; `None`
    /// when it has none. A node with storage waits for this input.
    Restored(Option<Vec<u8>>),
    /// The storage of a fixed cluster's node has failed. The node stops.
    Failed(Failure),
    /// An answer of the storage or the locks of an elastic cluster.
    Elastic {
        /// The host's generation at the time of the question.
        generation: u32,
        /// The answer.
        input: elastic::Input,
    },
    /// Whether the tab is visible.
    Visible(bool),
    /// The tab may be frozen from now on: stop all nodes and release all locks, until the next
    /// [`Input::Start`].
    Suspend,
    /// End the cluster and delete its storage.
    Destroy,
}

/// Something to do with storage, locks or the channel. Effects must be carried out in order, after
/// the frames of the same call have been sent.
#[derive(Debug)]
pub enum Effect {
    /// Do something with the storage or the locks of an elastic cluster.
    Elastic {
        /// The host's generation, which the answer must name.
        generation: u32,
        /// What to do.
        effect: elastic::Effect,
    },
    /// Append this record to the file of a fixed cluster's node. The answer is
    /// [`Input::Persisted`].
    Record {
        /// The number of the record.
        seq: PersistSeq,
        /// Whether a new file begins with this record: earlier records may be deleted once it is
        /// durable.
        begins: bool,
        /// The bytes of the record.
        bytes: Vec<u8>,
    },
    /// Write something of a node, provided that the node's record has this epoch (fencing). The
    /// answer is [`Input::Persisted`], or [`Input::Elastic`] with what went wrong.
    Write {
        /// The host's generation, which the answer must name.
        generation: u32,
        /// The node.
        node: NodeId,
        /// The epoch under which this host runs the node.
        epoch: u64,
        /// What to write.
        persist: Persist,
    },
    /// Receive frames for this id from now on.
    Listen(String),
    /// Receive no more frames for this id.
    Unlisten(String),
}

/// Everything that one call asks of its caller, besides the frames of
/// [`super::core::Host::take_frames`].
#[derive(Debug)]
#[must_use]
pub struct Output<S> {
    /// Performs and reads that were settled, in order.
    pub settled: Vec<Settled>,
    /// What to report to the user.
    pub notices: Vec<Notice>,
    /// What to do with storage, locks and the channel, in order.
    pub effects: Vec<Effect>,
    /// User code to run now. Its result must be the very next input ([`Input::Returned`]).
    pub call: Option<Call<S>>,
    /// When to call with [`Input::Tick`] at the latest.
    pub deadline: Option<Time>,
}

impl<S> Default for Output<S> {
    fn default() -> Self {
        let (settled, notices, effects) = (Vec::new(), Vec::new(), Vec::new());
        Self { settled, notices, effects, call: None, deadline: None }
    }
}

/// Something to report to the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The term or its leader changed.
    Leader,
    /// The cluster has formed, or its members changed.
    Members,
    /// The state was replaced by the first one: the cluster was founded anew while this host was
    /// away.
    State,
    /// Something else in the status changed.
    Status,
    /// The cluster's state was made by this newer version of the application.
    Outdated(u32),
    /// The state here may differ from the other nodes' state.
    Diverged {
        /// The index of the entry at fault, or of the check that found the divergence.
        index: u64,
        /// The action at fault, if one is known.
        action: Option<Blob>,
        /// What is wrong.
        failure: Failure,
    },
    /// An error.
    Error(Failure),
    /// The host is closed and does nothing any more.
    Closed,
}

/// The phase of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It has no running node of its own yet, or its node has no state of this version of the
    /// application yet.
    Forming,
    /// Its own node runs and has a state of the cluster.
    Member,
    /// The cluster's state is of a newer version of the application than this host.
    Outdated,
    /// The cluster does not accept the node, or its storage has failed.
    Refused,
    /// The host is closing and hands leadership over.
    Closing,
    /// The host is closed.
    Closed,
}

/// The counters of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames sent.
    pub sent: u64,
    /// Frames received.
    pub received: u64,
    /// Frames of another version and malformed frames.
    pub bad_frames: u64,
    /// Frames of other clusters.
    pub foreign_frames: u64,
    /// Messages that were refused because they were impossible.
    pub invalid_messages: u64,
}

/// The status of a host and of its own node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The phase of the host.
    pub phase: Phase,
    /// The node's role in Raft.
    pub role: RoleName,
    /// Its term.
    pub term: u64,
    /// The id of the leader, if one is known.
    pub leader: Option<String>,
    /// The commit index.
    pub commit: u64,
    /// The last index applied.
    pub applied: u64,
    /// The last index of its log.
    pub last: u64,
    /// The index of the last snapshot.
    pub snapshot: u64,
    /// The ids of the members, once the cluster has formed.
    pub members: Vec<String>,
    /// The members that do not vote.
    pub learners: Vec<String>,
    /// The members that were adopted: their own host is dead, and another host runs them.
    pub adopted: Vec<String>,
    /// The members that run in a hidden tab.
    pub hidden: Vec<String>,
    /// The nodes that this host runs besides its own.
    pub running: Vec<String>,
    /// While this node leads: for each other member, the index up to which its log is known to
    /// equal the leader's.
    pub matched: Vec<(String, u64)>,
    /// How many members the cluster has or will have.
    pub size: usize,
    /// How many nodes of a forming cluster, or hosts of an elastic one, are there as far as this
    /// host knows.
    pub present: usize,
    /// How many performs and reads are not settled.
    pub waiting: usize,
    /// The counters of the host.
    pub counters: Counters,
}
