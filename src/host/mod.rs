//! Hosts: run nodes in a tab or a Node.js process, and execute their effects.

mod cluster;
pub mod core;
pub mod elastic;
mod fixed;
pub mod options;
pub mod transport;
pub mod types;
#[cfg(target_arch = "wasm32")]
pub mod web;
