//! Checks Conflux's core by running it: the real `raft`, `store`, `node` and `tenancy`, not a copy.
//!
//! - [`world`]: the simulator. One seed decides everything: processes, network, disks, clocks,
//!   clients, faults. The same seed gives the same trace, byte for byte.
//! - [`invariants`] and [`history`]: what must hold after every step, and of what clients saw.
//! - [`shrink`]: a smaller run that fails as well.

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
pub mod model;
pub mod parallel;
pub mod shrink;
pub mod tabs;
pub mod world;
