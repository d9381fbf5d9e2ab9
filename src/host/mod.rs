//! Runs nodes in a tab or a Node.js process: timers, channels, user code. Executes effects.

pub mod core;
mod mail;
pub mod options;
pub mod tabs;
#[cfg(target_arch = "wasm32")]
pub mod web;
mod words;
