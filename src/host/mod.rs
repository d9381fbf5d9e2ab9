//! Runs nodes in a tab or a Node.js process: timers, channels, user code. Executes effects.

pub mod core;
