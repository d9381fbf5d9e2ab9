//! Conflux: Redux for a cluster.
pub mod raft;
