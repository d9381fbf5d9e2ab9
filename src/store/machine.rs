//! The user's side of the store: methods and a reducer, and how they are called.

use serde::{Deserialize, Serialize};

use crate::raft::{Blob, Index, NodeId, Position};

/// Why a perform was rejected: a stable code and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// A stable code in capitals, such as `TIMEOUT`; a method's own errors may bring their own.
    pub code: String,
    /// What happened and what to do.
    pub message: String,
}

impl Failure {
    /// The longest message that is kept, in bytes; longer ones are cut.
    const MAX_MESSAGE: usize = 4096;

    /// A failure from its parts.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > Self::MAX_MESSAGE {
            let mut end = Self::MAX_MESSAGE;
            while !message.is_char_boundary(end) {
                end -= 1;
            }
            message.truncate(end);
            message.push('…');
        }
        Self { code: code.chars().take(64).collect(), message }
    }
}

/// A replicated state machine: methods judge, a reducer changes the state. A Rust one in tests,
/// the user's JavaScript in a browser. States are immutable values, cheap to clone.
pub trait Machine {
    /// A state.
    type State: Clone;

    /// Runs a method: an action to append, `None` for none, or why it is rejected.
    ///
    /// # Errors
    /// The method's own refusal, or what is wrong with its result.
    fn judge(&mut self, method: &str, args: &[u8]) -> Result<Option<Blob>, Failure>;

    /// The state after `action`.
    ///
    /// # Errors
    /// When the reducer throws. The state is as before then.
    fn reduce(&mut self, state: &Self::State, action: &[u8]) -> Result<Self::State, Failure>;

    /// The state as bytes.
    ///
    /// # Errors
    /// When it holds something that bytes cannot carry.
    fn save(&mut self, state: &Self::State) -> Result<Vec<u8>, Failure>;

    /// The state that [`Machine::save`] saved.
    ///
    /// # Errors
    /// When the bytes are none that it saved.
    fn load(&mut self, bytes: &[u8]) -> Result<Self::State, Failure>;

    /// An action was committed, and the committed state is its result.
    fn committed(&mut self, index: Index);
}

/// What was committed: an action, or, in a snapshot, many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Where it stands in the log.
    pub at: Position,
    /// The action, and whose it is. `None` for a snapshot.
    pub action: Option<(Performer, Blob)>,
}

/// The node behind which a session was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Performer {
    /// Its number.
    pub id: NodeId,
    /// Its name as a member then, which may be empty: it may be gone by the time that somebody asks.
    pub name: Blob,
}

/// User code to run while nothing of the store is borrowed: it may call back into the node. What
/// it returns goes into the store as the very next input.
#[derive(Debug)]
#[must_use = "the store waits for what the call returns"]
pub enum Call<S> {
    /// [`Machine::judge`]. The state that it reads is the store's provisional state.
    Judge {
        /// The method's name.
        method: String,
        /// Its arguments.
        args: Blob,
    },
    /// [`Machine::reduce`].
    Reduce {
        /// The state before.
        state: S,
        /// The action.
        action: Blob,
    },
    /// [`Machine::save`].
    Save(S),
    /// [`Machine::load`].
    Load(Blob),
    /// [`Machine::committed`].
    Committed(Committed),
}

/// What a [`Call`] returned.
#[derive(Debug)]
pub enum Return<S> {
    /// A state: from `Reduce` and `Load`.
    State(Result<S, Failure>),
    /// A judgement: from `Judge`.
    Judged(Result<Option<Blob>, Failure>),
    /// Bytes: from `Save`.
    Saved(Result<Vec<u8>, Failure>),
    /// Nothing: from `Committed`.
    Done,
}

impl<S> Call<S> {
    /// Runs the call on a machine.
    pub fn run<M: Machine<State = S>>(self, machine: &mut M) -> Return<S> {
        match self {
            Self::Judge { method, args } => Return::Judged(machine.judge(&method, args.as_slice())),
            Self::Reduce { state, action } => {
                Return::State(machine.reduce(&state, action.as_slice()))
            }
            Self::Save(state) => Return::Saved(machine.save(&state)),
            Self::Load(bytes) => Return::State(machine.load(bytes.as_slice())),
            Self::Committed(committed) => {
                machine.committed(committed.at.index);
                Return::Done
            }
        }
    }
}
