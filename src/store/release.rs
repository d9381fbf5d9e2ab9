//! Releases of the application side by side.
//!
//! A state belongs to the version of the application whose code made it
//! ([`super::replica::Meta::release`]). A node judges and reduces only while that is its own
//! version. Otherwise it is a *caretaker*: it votes, stores the log, and may lead, but its own state
//! stands still.
//!
//! - A node with *newer* code offers the leader to lead. Once it leads, nobody judges, so the state
//!   stands still. It fetches the state from a node of the old version ([`super::mend`]), runs the
//!   user's `migrate` once, and appends the result ([`super::Command::Upgrade`]); every node of its
//!   version loads that. If no node of the old version answers, it computes the old state itself,
//!   from its snapshot and its log, with its own reducer. If that fails on an action, nothing is
//!   appended, because the action was acknowledged.
//! - A node with *older* code has become outdated. Its performs that may be in the log are settled
//!   by what the log says of them, all others with `OUTDATED`. If it leads, it seeks a node that
//!   can judge, and hands leadership to the first that offers.
//! - A node that a host has adopted runs no code of the application, whatever the state's version
//!   ([`super::CARETAKER`]): the host's own node reduces the same actions in the same tab.

use super::replica::Meta;
use super::sessions::Command;
use crate::raft::{Blob, Index, NodeId, Time};

/// How the version of a node relates to the version of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// They are the same; or there is no first state yet.
    Current,
    /// The node's code is newer.
    Ahead,
    /// The node's code is older.
    Outdated,
}

/// The state of an older version, as this node computes it from its snapshot and its log.
#[derive(Debug)]
pub(super) struct Replay<S> {
    /// The last entry that it contains.
    pub(super) at: Index,
    pub(super) meta: Meta,
    pub(super) state: S,
}

/// What a node knows of the releases of the application.
#[derive(Debug)]
pub(super) struct Releases<S> {
    /// This node cannot make the old version's state its own, so it does not try again.
    pub(super) failed: bool,
    pub(super) replay: Option<Replay<S>>,
    /// When to offer or to seek again. `None` when there is no need to.
    pub(super) send_at: Option<Time>,
    /// The member to which leadership is to be handed.
    pub(super) successor: Option<NodeId>,
    /// The user was told that this node is outdated.
    pub(super) told: bool,
}

impl<S> Releases<S> {
    pub(super) fn new() -> Self {
        Self { failed: false, replay: None, send_at: None, successor: None, told: false }
    }

    /// The term or the leader changed.
    pub(super) fn new_leader(&mut self) {
        (self.replay, self.send_at, self.successor) = (None, None, None);
    }
}

/// Whether a command that cannot be decoded is one of a newer release of Conflux: its number is not
/// known here. Otherwise it is damaged.
pub(super) fn is_newer(command: &Blob) -> bool {
    command.as_slice().first().is_some_and(|number| *number >= Command::COUNT)
}
