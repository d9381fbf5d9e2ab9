//! User code: methods and a reducer, and how the store calls them.

use serde::{Deserialize, Serialize};

use crate::raft::{Blob, Index, NodeId, Position};

/// Why a perform was rejected: a stable code and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// A stable code in capitals, such as `TIMEOUT`. Errors that a method throws may have codes of
    /// their own.
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

/// A replicated state machine: methods judge performs, a reducer makes new states. It is Rust code
/// in tests and the user's JavaScript in a browser. States are immutable values that are cheap to
/// clone.
pub trait Machine {
    /// A state.
    type State: Clone;

    /// Runs a method. Returns the action to append, or `None` when there is nothing to append.
    ///
    /// # Errors
    /// When the method throws, or when its result is not an action.
    fn judge(&mut self, method: &str, args: &[u8]) -> Result<Option<Blob>, Failure>;

    /// Runs the reducer. Returns the state after `action`.
    ///
    /// # Errors
    /// When the reducer throws. Then the state does not change.
    fn reduce(&mut self, state: &Self::State, action: &[u8]) -> Result<Self::State, Failure>;

    /// Checks whether a state that the reducer has made can be saved and loaded without a change.
    ///
    /// # Errors
    /// When it contains something that would be lost. Then the perform fails.
    fn check(&mut self, _state: &Self::State) -> Result<(), Failure> {
        Ok(())
    }

    /// The state as bytes.
    ///
    /// # Errors
    /// When the state contains something that cannot be serialized.
    fn save(&mut self, state: &Self::State) -> Result<Vec<u8>, Failure>;

    /// The state from the bytes that [`Machine::save`] returned.
    ///
    /// # Errors
    /// When the bytes are not such a state.
    fn load(&mut self, bytes: &[u8]) -> Result<Self::State, Failure>;

    /// The same for a state that an older version of the application has saved.
    ///
    /// # Errors
    /// When the bytes are not such a state.
    fn load_old(&mut self, bytes: &[u8]) -> Result<Self::State, Failure> {
        self.load(bytes)
    }

    /// Makes a state of this version of the application of a state of an older one. Returns it as
    /// bytes.
    ///
    /// # Errors
    /// When that is not possible. Then the cluster stays at the older version.
    fn migrate(&mut self, state: &Self::State, _from: u32) -> Result<Vec<u8>, Failure> {
        self.save(state)
    }

    /// The action at `index` was committed, or a snapshot that ends there was loaded, and the
    /// committed state is the result.
    fn committed(&mut self, index: Index);
}

/// What was committed: one action, or the many actions that a snapshot contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The position of the entry, or of the last entry of the snapshot.
    pub at: Position,
    /// The action and the node that performed it. `None` for a snapshot.
    pub action: Option<(Performer, Blob)>,
}

/// The node that opened a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Performer {
    /// The number of the node.
    pub id: NodeId,
    /// The name that the node had as a member when it opened the session; empty if it had none. It
    /// is kept here because the node may not be a member any more when the name is needed.
    pub name: Blob,
}

/// A call of user code. It must run while nothing of the store is borrowed, because user code may
/// call back into the node. The result must be the store's very next input.
#[derive(Debug)]
#[must_use = "the store waits for what the call returns"]
pub enum Call<S> {
    /// [`Machine::judge`]. The method sees the store's provisional state.
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
        /// The action is not in the log yet: a state that [`Machine::check`] refuses is a failure
        /// of the perform. A state behind an entry is never refused, because nodes that check
        /// differently would have different states.
        proposed: bool,
    },
    /// [`Machine::save`].
    Save(S),
    /// [`Machine::load`].
    Load(Blob),
    /// [`Machine::load_old`].
    LoadOld(Blob),
    /// [`Machine::migrate`].
    Migrate {
        /// The state of the older version.
        state: S,
        /// The older version.
        from: u32,
    },
    /// [`Machine::committed`].
    Committed(Committed),
}

/// What a [`Call`] returned.
#[derive(Debug)]
pub enum Return<S> {
    /// A state: from `Reduce`, `Load` and `LoadOld`.
    State(Result<S, Failure>),
    /// A judgement: from `Judge`.
    Judged(Result<Option<Blob>, Failure>),
    /// Bytes: from `Save` and `Migrate`.
    Saved(Result<Vec<u8>, Failure>),
    /// Nothing: from `Committed`.
    Done,
}

impl<S> Call<S> {
    /// Runs the call on a machine.
    pub fn run<M: Machine<State = S>>(self, machine: &mut M) -> Return<S> {
        match self {
            Self::Judge { method, args } => Return::Judged(machine.judge(&method, args.as_slice())),
            Self::Reduce { state, action, proposed } => {
                let next = machine.reduce(&state, action.as_slice());
                Return::State(next.and_then(|next| match proposed {
                    true => machine.check(&next).map(|()| next),
                    false => Ok(next),
                }))
            }
            Self::Save(state) => Return::Saved(machine.save(&state)),
            Self::Migrate { state, from } => Return::Saved(machine.migrate(&state, from)),
            Self::Load(bytes) => Return::State(machine.load(bytes.as_slice())),
            Self::LoadOld(bytes) => Return::State(machine.load_old(bytes.as_slice())),
            Self::Committed(committed) => {
                machine.committed(committed.at.index);
                Return::Done
            }
        }
    }
}
