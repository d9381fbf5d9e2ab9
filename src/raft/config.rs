//! The settings of one node.

use super::membership::Members;
use super::types::{NodeId, Time};

/// The settings of one node.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub id: NodeId,
    /// The configuration with which the log begins. A node that is yet to join a cluster has an empty
    /// one: it waits until a leader speaks to it.
    pub members: Members,
    /// Shortest and longest election timeout, in ms; every attempt draws anew in between.
    pub election_timeout: (Time, Time),
    /// How soon the node stands for election after it was made, in ms; `None` for an election
    /// timeout like any other. In a cluster that has just formed nobody leads, and one node need not
    /// wait to find out.
    pub first_election: Option<Time>,
    /// How long a leader may be silent towards a follower, in ms.
    pub heartbeat_interval: Time,
    /// How long a leader may be silent towards a follower that has everything, in ms; `None` for no
    /// longer than towards any other. Only where something else tells who is dead
    /// ([`super::Input::PeerDown`]), or nobody minds to find out when there is work.
    pub quiesce_interval: Option<Time>,
    /// How many bytes of entries, or of one piece, go into one message. An entry larger than this
    /// travels in pieces.
    pub max_message_bytes: usize,
    /// How many messages with entries may be unacknowledged per follower.
    pub max_inflight: usize,
    /// How many bytes of entries may be uncommitted before proposals are refused as `Busy`.
    pub max_uncommitted_bytes: usize,
    /// The largest entry or snapshot that is taken from a peer in pieces, in bytes.
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
