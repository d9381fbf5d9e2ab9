//! What goes into a host and what comes out of it, the same for every kind of cluster.

use crate::elastic;
use crate::formation::Plan;
use crate::node::Durability;
use crate::raft::{NodeId, Persist, PersistSeq, RoleName, Time};
use crate::store::{self, Call, Failure, Perform, Return, Settled};

/// The settings of a host.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster's name: frames of other clusters are refused.
    pub cluster: String,
    /// What kind of cluster it is.
    pub kind: Kind,
    /// Shortest and longest election timeout, in ms.
    pub election_timeout: (Time, Time),
    /// The longest silence of a leader, in ms.
    pub heartbeat_interval: Time,
    /// How long a leader may be silent towards a follower that has everything, in ms
    /// ([`crate::raft::Config::quiesce_interval`]).
    pub quiesce_interval: Option<Time>,
    /// The store's settings.
    pub store: store::Config,
    /// Whether nodes have storage.
    pub durability: Durability,
}

/// How the nodes of a host come to be.
#[derive(Clone, Debug)]
pub enum Kind {
    /// One node of a cluster of a fixed size, which forms before it runs.
    Fixed {
        /// The node's id.
        id: String,
        /// Who may become a member.
        plan: Plan,
    },
    /// As many nodes as there are tabs; nodes outlive tabs.
    Elastic {
        /// The most nodes that vote.
        max_voters: usize,
    },
}

/// One thing that happened to a host.
#[derive(Debug)]
pub enum Input<S> {
    /// Begin, or go on after [`Input::Suspend`].
    Start,
    /// Time has passed.
    Tick,
    /// A frame arrived.
    Frame(Vec<u8>),
    /// The user performs.
    Perform(Vec<Perform>),
    /// The user reads.
    Read {
        /// The caller's number for it.
        ticket: u64,
    },
    /// User code returned.
    Returned(Return<S>),
    /// The user closes the node.
    Close,
    /// A write is durable.
    Persisted {
        /// The host's generation in which it was asked for.
        generation: u32,
        /// Whose; 0 for the host's own node.
        node: NodeId,
        /// Its number.
        seq: PersistSeq,
    },
    /// What storage has of the node of a fixed cluster: the contents of [`crate::storage::file`], if
    /// there are any. A node with storage waits for it.
    Restored(Option<Vec<u8>>),
    /// The storage of a fixed cluster's node fails. The node stops.
    Failed(Failure),
    /// Storage or a lock of an elastic cluster answers.
    Elastic {
        /// The host's generation in which it was asked.
        generation: u32,
        /// The answer.
        input: elastic::Input,
    },
    /// Whether somebody can see the tab.
    Visible(bool),
    /// The tab may stand still from now on: let go of everything, until the next [`Input::Start`].
    Suspend,
    /// End the cluster and delete what it has stored.
    Destroy,
}

/// Something to do with storage, locks or the channel. Effects are done in order, and after the frames
/// of the same call have been sent.
#[derive(Debug)]
pub enum Effect {
    /// Ask something of the storage or the locks of an elastic cluster.
    Elastic {
        /// The host's generation: answers name it.
        generation: u32,
        /// What to do.
        effect: elastic::Effect,
    },
    /// Append this record to the file of a fixed cluster's node; answered with [`Input::Persisted`].
    Record {
        /// Its number.
        seq: PersistSeq,
        /// It stands for everything before it: what was written before may go once it is durable.
        begins: bool,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// Write, if the epoch of the node's record is this one; answered with [`Input::Persisted`], or
    /// with what went wrong.
    Write {
        /// The host's generation.
        generation: u32,
        /// Whose.
        node: NodeId,
        /// The epoch.
        epoch: u64,
        /// What to write.
        persist: Persist,
    },
    /// Take in frames for this id from now on.
    Listen(String),
    /// Take in no more of them.
    Unlisten(String),
}

/// Everything that one call asks of its caller, besides the frames of [`super::core::Host::take_frames`].
#[derive(Debug)]
#[must_use]
pub struct Output<S> {
    /// Performs and reads that have ended, in order.
    pub settled: Vec<Settled>,
    /// What to report to the user.
    pub notices: Vec<Notice>,
    /// What to do with storage, locks and the channel.
    pub effects: Vec<Effect>,
    /// User code to run now; what it returns is the very next input.
    pub call: Option<Call<S>>,
    /// When to call next, if nothing happens before.
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
    /// The term, or who leads it, changed.
    Leader,
    /// The cluster has formed, or its members changed.
    Members,
    /// Something else in the status changed.
    Status,
    /// Something went wrong.
    Error(Failure),
    /// The node has been closed: nothing more comes from it.
    Closed,
}

/// Where a host is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It has no running node of its own yet.
    Forming,
    /// Its own node runs.
    Member,
    /// The cluster does not take it, or its storage fails.
    Refused,
    /// Handing over.
    Closing,
    /// Closed.
    Closed,
}

/// What a host counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames sent.
    pub sent: u64,
    /// Frames received.
    pub received: u64,
    /// Frames that were no frames, of another version, or malformed.
    pub bad_frames: u64,
    /// Frames of other clusters.
    pub foreign_frames: u64,
    /// Messages that said something impossible.
    pub invalid_messages: u64,
}

/// Where a host and its own node stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Where the host is in its life.
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
    /// Those among them that do not vote.
    pub learners: Vec<String>,
    /// Those among them whose own host is dead, and that another one runs.
    pub adopted: Vec<String>,
    /// Those among them that run in a tab that nobody sees.
    pub hidden: Vec<String>,
    /// The nodes besides its own that this host runs.
    pub running: Vec<String>,
    /// While this node leads: how far each other member's log is known to be equal.
    pub matched: Vec<(String, u64)>,
    /// How many members the cluster has or will have.
    pub size: usize,
    /// How many nodes or hosts are there, as far as this one knows.
    pub present: usize,
    /// How many performs and reads wait.
    pub waiting: usize,
    /// What the host has counted.
    pub counters: Counters,
}
