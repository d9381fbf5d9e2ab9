//! The replicated state machine of the simulator: a few registers, and enough besides to see at
//! once when an action is missing, repeated or out of order.

use std::rc::Rc;

use conflux::raft::{Blob, Index};
use conflux::store::{Failure, Machine};
use serde::{Deserialize, Serialize};

/// How many registers there are.
pub const KEYS: usize = 6;

/// The failure code of a verdict whose message is a register's value.
pub const VALUE: &str = "VALUE";

/// What a perform asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    /// Writes the register.
    Set,
    /// Writes the register. The action carries the value before.
    Swap,
    /// Writes the register if it holds the expected value; otherwise fails with its value.
    Cas,
    /// Appends nothing, and fails with the register's value.
    Get,
    /// Appends nothing. Returns nothing if the register holds the expected value; otherwise fails
    /// with its value.
    Check,
    /// Makes an action on which the reducer fails.
    Poison,
}

/// The number of a perform or read, in the order in which they were issued in a run. It is also the
/// ticket, and the value that a perform writes.
pub type OpId = u32;

/// The arguments of a perform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Args {
    /// The number of the perform.
    pub op: OpId,
    /// The client that performs: one start of one process.
    pub client: u16,
    /// The register.
    pub key: u8,
    /// The value that [`Method::Cas`] and [`Method::Check`] expect.
    pub expected: u32,
    /// Nothing but size.
    pub padding: Blob,
}

/// An action: what a method made of its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// The number of its perform.
    pub op: OpId,
    /// The client that performed.
    pub client: u16,
    /// The register.
    pub key: u8,
    /// The value that the method found in the register.
    pub old: u32,
    /// Whether the reducer fails on this action.
    pub poison: bool,
    /// Nothing but size.
    pub padding: Blob,
}

/// Serializes arguments or an action.
pub fn encode<T: Serialize>(value: &T) -> Blob {
    postcard::to_allocvec(value).expect("it fits in memory").into()
}

/// A state. An immutable value, cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State(Rc<Inner>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Inner {
    registers: [u32; KEYS],
    /// The newest perform of each client.
    newest: Vec<OpId>,
    /// A hash of all performs in their order.
    hash: u64,
    /// See [`State::wrong`].
    wrong: Option<(OpId, OpId)>,
    /// The version of the application whose code made the state.
    release: u32,
}

impl Default for State {
    fn default() -> Self {
        let registers = [0; KEYS];
        Self(Rc::new(Inner { registers, newest: Vec::new(), hash: 1, wrong: None, release: 1 }))
    }
}

impl State {
    /// The first state of this version of the application.
    pub fn first(release: u32) -> Self {
        let mut first = Self::default();
        Rc::make_mut(&mut first.0).release = release;
        first
    }

    /// The first state of a process. It differs from process to process, and each process must
    /// replace it by the cluster's.
    pub fn local(process: usize, release: u32) -> Self {
        let mut first = Self::default();
        let inner = Rc::make_mut(&mut first.0);
        (inner.hash, inner.release) = (mix(1, process as u64), release);
        first
    }

    /// The value of a register.
    pub fn register(&self, key: u8) -> u32 {
        self.0.registers[usize::from(key)]
    }

    /// A hash of all actions so far, in their order.
    pub fn hash(&self) -> u64 {
        self.0.hash
    }

    /// The first two performs of one client that ran out of order, or the perform that ran twice:
    /// first the one that ran later, then the one that had run before.
    pub fn wrong(&self) -> Option<(OpId, OpId)> {
        self.0.wrong
    }
}

/// The state machine of one process.
#[derive(Debug)]
pub struct Registers {
    /// The client of a page, in the simulator of tabs.
    pub client: u16,
    /// The state that methods read.
    pub provisional: State,
    /// The newest index of an action that was reported to it as committed.
    pub notified: Index,
    /// Whether an action was reported twice, or after a newer one.
    pub notified_twice: bool,
    /// The reducer fails on every so many-th perform, and on no other process.
    pub fails_on: Option<OpId>,
    /// The version of the application that the process runs.
    pub version: u32,
    /// What this process adds to each state that it migrates: `migrate` is not deterministic.
    pub salt: u64,
}

impl Default for Registers {
    fn default() -> Self {
        Self {
            client: 0,
            provisional: State::default(),
            notified: 0,
            notified_twice: false,
            fails_on: None,
            version: 1,
            salt: 0,
        }
    }
}

fn method(name: &str) -> Option<Method> {
    Some(match name {
        "set" => Method::Set,
        "swap" => Method::Swap,
        "cas" => Method::Cas,
        "get" => Method::Get,
        "check" => Method::Check,
        "poison" => Method::Poison,
        _ => return None,
    })
}

impl Method {
    /// The name under which it is performed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Swap => "swap",
            Self::Cas => "cas",
            Self::Get => "get",
            Self::Check => "check",
            Self::Poison => "poison",
        }
    }
}

impl Machine for Registers {
    type State = State;

    fn judge(&mut self, name: &str, args: &[u8]) -> Result<Option<Blob>, Failure> {
        let args: Args = postcard::from_bytes(args).expect("arguments arrive as they were sent");
        let method = method(name).expect("only known methods are performed");
        let release = self.provisional.0.release;
        assert_eq!(release, self.version, "a state of another version is judged");
        let found = self.provisional.register(args.key);
        let is_expected = found == args.expected;
        let value = || Failure::new(VALUE, found.to_string());
        match method {
            Method::Get => return Err(value()),
            Method::Check if is_expected => return Ok(None),
            Method::Check | Method::Cas if !is_expected => return Err(value()),
            _ => {}
        }
        let Args { op, client, key, padding, .. } = args;
        let poison = method == Method::Poison;
        Ok(Some(encode(&Action { op, client, key, old: found, poison, padding })))
    }

    fn reduce(&mut self, state: &State, action: &[u8]) -> Result<State, Failure> {
        let action: Action =
            postcard::from_bytes(action).expect("actions arrive as they were made");
        if action.poison || self.fails_on.is_some_and(|every| action.op.is_multiple_of(every)) {
            return Err(Failure::new("REDUCER_FAILED", "poison"));
        }
        assert!(state.0.release <= self.version, "a state of a newer version is reduced");
        let mut next = state.0.as_ref().clone();
        next.registers[usize::from(action.key)] = action.op;
        let client = usize::from(action.client);
        if next.newest.len() <= client {
            next.newest.resize(client + 1, 0);
        }
        let before = std::mem::replace(&mut next.newest[client], action.op);
        if before >= action.op {
            next.wrong = next.wrong.or(Some((action.op, before)));
        }
        next.hash = mix(next.hash, u64::from(action.op));
        Ok(State(Rc::new(next)))
    }

    fn migrate(&mut self, state: &State, _from: u32) -> Result<Vec<u8>, Failure> {
        assert!(state.0.release < self.version, "a state of an older version is migrated");
        let mut next = state.0.as_ref().clone();
        (next.release, next.hash) = (self.version, mix(next.hash, self.salt));
        self.save(&State(Rc::new(next)))
    }

    fn save(&mut self, state: &State) -> Result<Vec<u8>, Failure> {
        Ok(postcard::to_allocvec(state.0.as_ref()).expect("it fits in memory"))
    }

    fn load(&mut self, bytes: &[u8]) -> Result<State, Failure> {
        let inner = postcard::from_bytes(bytes);
        Ok(State(Rc::new(inner.expect("snapshots arrive as they were saved"))))
    }

    fn committed(&mut self, index: Index) {
        // A wrong state may be replaced by a right one without a new action.
        let again = index == self.notified && self.fails_on.is_none();
        self.notified_twice |= index < self.notified || again;
        self.notified = self.notified.max(index);
    }
}

/// One step of a hash.
pub fn mix(hash: u64, value: u64) -> u64 {
    let mixed = (hash ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}
