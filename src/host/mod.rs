//! Runs nodes in a tab or a Node.js process: timers, channels, user code. Executes effects.

pub mod core;
pub mod options;
#[cfg(target_arch = "wasm32")]
pub mod web;
