//! The settings of one node and their defaults.

use super::membership::Members;
use super::types::{NodeId, Time};

/// The settings of one node.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's own id, never 0.
    pub id: NodeId,
    /// The configuration with which a log without a snapshot begins. A node that has yet to join a
    /// cluster starts with an empty one and waits until a leader sends to it.
    pub members: Members,
    /// The shortest and the longest election timeout, in ms. Every election timeout is drawn at
    /// random from this range.
    pub election_timeout: (Time, Time),
    /// The first election timeout of the node, in ms; `None` for one that is drawn like all others.
    /// A cluster that has just formed has no leader yet, so one node need not wait.
    pub first_election: Option<Time>,
    /// The longest time between two messages of a leader to a follower, in ms.
    pub heartbeat_interval: Time,
    /// The longest time between two messages of a leader to a quiesced follower, in ms; `None` when
    /// followers are never quiesced. Set it only where something other than heartbeats tells who is
    /// dead ([`super::Input::PeerDown`]), or where it is enough to notice a dead leader once there
    /// is work.
    pub quiesce_interval: Option<Time>,
    /// How many bytes of entries, or of a chunk, go into one message. A larger entry is sent in
    /// chunks.
    pub max_message_bytes: usize,
    /// How many messages with entries may be in flight to one follower.
    pub max_inflight: usize,
    /// How many bytes of entries may be uncommitted before proposals are refused with
    /// [`super::Refused::Busy`].
    pub max_uncommitted_bytes: usize,
    /// The largest entry or snapshot that is accepted from a peer in chunks, in bytes.
    pub max_transfer_bytes: u64,
}

impl Config {
    /// The defaults for a node in a cluster of `members`.
    pub fn new(id: NodeId, members: Members) -> Self {
        Self {
            id,
            members,
            election_timeout: (300, 500),
            first_election: None,
            heartbeat_interval: 50,
            quiesce_interval: None,
            max_message_bytes: 256 << 10,
            max_inflight: 64,
            max_uncommitted_bytes: 16 << 20,
            max_transfer_bytes: 1 << 30,
        }
    }
}
