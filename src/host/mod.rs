//! Hosts: they run nodes in a tab or a Node.js process, and execute the effects of the nodes.
//!
//! # The problem
//!
//! A user holds a handle. Behind the handle there may be no node yet (the cluster is forming), one
//! node, or several (the own node and nodes adopted from dead tabs); nodes stop and
//! are replaced while the user goes on calling the same handle. User code (methods, reducer,
//! subscribers) may call back into the handle at any time. Storage, locks and channels answer late,
//! or after what they answer to has been given up.
//!
//! # The way of an input
//!
//! 1. `web` collects what happens (calls of the user, frames, timers, answers of storage) and gives
//!    it to [`core::Host::handle`] as [`types::Input`], with the time.
//! 2. The host queues the input as work. A frame becomes one piece of work per message, because
//!    each message may call user code.
//! 3. Work for a node goes to the node. Everything on which kinds of cluster differ (how nodes come
//!    to be, who may join, how writes are recorded) goes to the `Cluster` as an `Event`, and its
//!    `Action`s are done before the other work in the queue.
//! 4. When a node asks for user code, the host stops there and returns the call in
//!    [`types::Output`]. The result must be the very next input; other inputs meanwhile wait. An
//!    output also says which performs are settled and what to report, which `web` does at once.
//! 5. When the collected inputs are handled, `web` sends the frames (all messages of a turn to one
//!    node are one frame), carries out the effects with storage, locks and the channel, and sets
//!    the timer.
//!
//! # Why it is safe
//!
//! - The host is pure like the modules below it: time and seed are arguments. The code that runs in
//!   tabs is the code that native tests and the simulator run.
//! - Nothing of the host is borrowed while user code runs.
//! - A node's messages leave only when the writes on which they depend are durable
//!   ([`crate::node`]).
//! - A *generation* ends when a host releases all its nodes (a tab is suspended, for example).
//!   Answers of storage and locks name the generation of their question and are ignored in another.
//! - The state that the user sees outside of methods never goes back, although an own node that
//!   starts again may be behind the last one.
//!
//! # Files
//!
//! - [`core`] is the host, for all kinds of cluster
//! - `cluster` is the seam between the host and a kind of cluster (`Cluster`, `Event`, `Action`)
//! - `faults` describes faults of user code
//! - `fixed` and [`elastic`] are the two kinds, on top of [`crate::formation`] and
//!   [`crate::elastic`]
//! - [`transport`] packs messages into frames and reads frames
//! - [`options`] checks the options of `conflux({...})`
//! - [`types`] has the inputs, the outputs, the settings and the status
//! - `web` executes a host's effects in a browser or in Node.js (only on wasm)

mod cluster;
pub mod core;
pub mod elastic;
mod faults;
mod fixed;
pub mod options;
pub mod transport;
pub mod types;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
pub mod web;
