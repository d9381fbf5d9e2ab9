//! Conflux: Redux for a cluster. There is one reducer, one state and many nodes, and Raft decides
//! the order of actions.
//!
//! The modules, from the top down. Each uses only modules below it:
//!
//! - `js`, the interface to JavaScript (only on wasm)
//! - [`host`], which runs nodes in a tab or a Node.js process
//! - [`elastic`], clusters of tabs: which host runs which node, and which nodes are members
//! - [`formation`], fixed clusters: how the nodes agree on their members
//! - [`node`], one node: Raft, the store, and the order of their effects
//! - [`storage`], the records of a node as bytes
//! - [`store`], the replicated state container
//! - [`raft`], consensus
//! - [`wire`], frames and their encoding
//!
//! Beside them are [`sorted`], maps and sets for all modules, and [`mistakes`], known mistakes that
//! tests can switch on in these modules.
//!
//! All modules except `js` and `host::web` are pure: time and seed come in as arguments, effects go
//! out as values. `tests/purity.rs` checks that.

pub mod elastic;
pub mod formation;
pub mod host;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
pub mod js;
pub mod mistakes;
pub mod node;
pub mod raft;
pub mod sorted;
pub mod storage;
pub mod store;
pub mod wire;
