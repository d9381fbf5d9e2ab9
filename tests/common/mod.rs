//! Code that several native tests share.
#![allow(missing_docs, unreachable_pub, dead_code)] // Each test uses only a part.

pub mod golden;
pub mod host_cluster;
pub mod node_cluster;
pub mod node_rig;
pub mod raft_cluster;
