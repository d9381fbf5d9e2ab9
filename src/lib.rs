//! Conflux: Redux for a cluster. One reducer, one state, many nodes, and Raft deciding the order of
//! actions.
//!
//! The modules, from the top down; each uses only those below it:
//!
//! - `js`: what JavaScript sees (only on wasm)
//! - [`host`], runs nodes in a tab or a Node.js process
//! - `channel`: how frames travel (only on wasm)
//! - [`formation`], which nodes are a cluster
//! - [`node`], one node: Raft, the store, and the order of their effects
//! - [`store`], the replicated state container
//! - [`raft`], consensus
//! - [`wire`], frames
//!
//! Beside them [`sorted`], maps and sets for all of them, and [`mistakes`]: what the tests can make these
//! modules get wrong.
//!
//! `raft`, `store`, `node`, `tenancy`, `wire` and `host::core` are pure: time and seed come in as
//! arguments, effects go out as values. A test sees to it.

pub mod elastic;
pub mod formation;
pub mod host;
#[cfg(target_arch = "wasm32")]
pub mod js;
pub mod mistakes;
pub mod node;
pub mod raft;
pub mod sorted;
pub mod storage;
pub mod store;
pub mod wire;
