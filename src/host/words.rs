//! What goes into a host's core and what comes out of it, the same for fixed clusters
//! ([`super::core::HostCore`]) and those of tabs ([`super::tabs::TabCore`]).

use crate::node::Durability;
use crate::raft::{NodeId, Persist, PersistSeq, RoleName, Time};
use crate::store::{self, Call, Failure, Perform, Return, Settled};
use crate::tenancy::{Plan, elastic};

/// The settings of a host.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The node's id.
    pub id: String,
    /// The cluster's name: frames of other clusters are not for this node.
    pub cluster: String,
    /// Who may become a member.
    pub plan: Plan,
    /// Shortest and longest election timeout, in ms.
    pub election_timeout: (Time, Time),
    /// The longest silence of a leader, in ms.
    pub heartbeat_interval: Time,
    /// The store's settings.
    pub store: store::Config,
    /// Whether the node has storage: then it begins with [`Input::Restored`].
    pub durability: Durability,
}

/// One thing that happened to a host.
#[derive(Debug)]
pub enum Input<S> {
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
        /// The life of the host in which it was asked for.
        life: u32,
        /// Whose.
        node: NodeId,
        /// Its number.
        seq: PersistSeq,
    },
    /// What storage has of the node: the contents of [`crate::storage::file`], if there are any.
    Restored(Option<Vec<u8>>),
    /// Storage fails. The node stops.
    Broken(Failure),
    /// Storage or a lock answers, in elastic clusters.
    Tenancy {
        /// The life of the host in which it was asked.
        life: u32,
        /// The answer.
        input: elastic::Input,
    },
    /// Whether somebody can see the tab.
    Visible(bool),
    /// The tab may stand still from now on: let go of everything.
    Suspend,
    /// Begin, or go on after [`Input::Suspend`].
    Resume,
    /// End the cluster and delete what it has stored.
    Destroy,
}

/// Something to do with storage, locks or the channel. They are done in order, and after the frames of
/// the same call have been sent.
#[derive(Debug)]
pub enum Effect {
    /// Of storage and locks.
    Tenancy {
        /// The host's life: answers name it.
        life: u32,
        /// What to do.
        effect: elastic::Effect,
    },
    /// Write this record, of a node of a fixed cluster; answered with [`Input::Persisted`].
    Record {
        /// Its number.
        seq: PersistSeq,
        /// It stands for everything before it: what was written before may go once it is durable.
        begins: bool,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// Write, if the record's epoch is this one; answered with [`Input::Persisted`], or with what went
    /// wrong.
    Write {
        /// The host's life.
        life: u32,
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

/// Everything that one call asks of its caller, besides the frames of [`HostCore::take_frames`].
#[derive(Debug)]
#[must_use]
pub struct Output<S> {
    /// Performs and reads that have ended, in order.
    pub settled: Vec<Settled>,
    /// What to tell the user.
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

/// Something to tell the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The term, or who leads it, changed.
    Leader,
    /// The cluster has formed.
    Members,
    /// Something else in the status changed.
    Status,
    /// Something went wrong.
    Error(Failure),
    /// The node has been closed: nothing more comes from it.
    Closed,
}

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waiting until the cluster is complete.
    Forming,
    /// A member of a cluster.
    Member,
    /// The cluster does not take it.
    Refused,
    /// Handing over.
    Closing,
    /// Gone.
    Closed,
}

/// What a node counts.
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

/// Where a node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Where it is in its life.
    pub phase: Phase,
    /// Its role in Raft.
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
    /// Those among them whose own host is gone, and that another one runs.
    pub adopted: Vec<String>,
    /// Those among them that run in a tab that nobody sees.
    pub hidden: Vec<String>,
    /// The nodes besides its own that this host runs.
    pub running: Vec<String>,
    /// While this node leads: how far each other member's log is known to be equal.
    pub matched: Vec<(String, u64)>,
    /// How many members the cluster will have.
    pub size: usize,
    /// How many nodes are there, as far as a node that forms knows.
    pub present: usize,
    /// How many performs and reads wait.
    pub waiting: usize,
    /// What it has counted.
    pub counters: Counters,
}
