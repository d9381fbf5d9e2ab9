//! Conflux: Redux for a cluster.
pub mod host;
pub mod node;
pub mod raft;
pub mod store;
pub mod tenancy;
pub mod wire;
