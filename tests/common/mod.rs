//! What several native tests share.
#![allow(missing_docs, unreachable_pub, dead_code)] // Each test uses a part of it.

pub mod golden;
pub mod host_cluster;
pub mod raft_cluster;
