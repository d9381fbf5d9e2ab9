//! Checks of Conflux's core. They run the real modules (`raft`, `store`, `node`, `formation`,
//! `elastic`, `host`), not a copy of them.
//!
//! - [`world`]: the simulator of fixed clusters. One seed decides everything: processes, network,
//!   disks, clocks, clients and faults. The same seed gives the same trace, byte for byte.
//! - [`tabs`]: the simulator of elastic clusters in one [`browser`].
//! - [`invariants`] and [`history`]: what must hold after every step, and for what clients saw.
//! - [`shrink`]: finds a smaller run that also fails.
//! - [`traces`]: prints what happens, to compare it with what happens in WebAssembly.
//! - [`model`]: visits every state of small clusters.
//! - [`fuzz`]: the functions that a fuzzer calls.

pub mod browser;
pub mod clock;
pub mod conditions;
pub mod disk;
pub mod fuzz;
pub mod history;
pub mod invariants;
pub mod machine;
#[cfg(feature = "mistakes")]
pub mod mistakes;
#[cfg(not(target_family = "wasm"))]
pub mod model;
pub mod parallel;
pub mod shrink;
pub mod tabs;
pub mod traces;
pub mod world;
