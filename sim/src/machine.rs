//! The state machine that is replicated in the simulator: a few registers, and enough besides to see
//! at once when an action is missing, doubled or out of order.

use std::rc::Rc;

use conflux::raft::{Blob, Index};
use conflux::store::{Failure, Machine};
use serde::{Deserialize, Serialize};

/// How many registers there are.
pub const KEYS: usize = 6;

/// The code of a verdict that tells a register's value in its message.
pub const VALUE: &str = "VALUE";

/// What a perform asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    /// Writes.
    Set,
    /// Writes, and the action tells what was there before.
    Swap,
    /// Writes if the register holds what is expected; otherwise fails with what it holds.
    Cas,
    /// Appends nothing, and fails with what the register holds.
    Get,
    /// Appends nothing. Says nothing if the register holds what is expected, and otherwise fails with
    /// what it holds.
    Check,
    /// An action on which the reducer fails.
    Poison,
}

/// A number for every perform and read of a run, in the order in which they were issued; also its
/// ticket, and the value that it writes.
pub type OpId = u32;

/// Arguments of a perform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Args {
    /// Which one it is.
    pub op: OpId,
    /// Who performs: one start of one process.
    pub client: u16,
    /// The register.
    pub key: u8,
    /// What [`Method::Cas`] and [`Method::Check`] expect.
    pub expected: u32,
    /// Nothing but size.
    pub padding: Blob,
}

/// An action: what a method made of its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// The perform that it came from.
    pub op: OpId,
    /// Who performed.
    pub client: u16,
    /// The register.
    pub key: u8,
    /// What [`Method::Swap`] found.
    pub old: u32,
    /// The reducer fails on it.
    pub poison: bool,
    /// Nothing but size.
    pub padding: Blob,
}

/// Bytes as the core carries them.
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
    hash: u64,
    wrong: Option<(OpId, OpId)>,
}

impl Default for State {
    fn default() -> Self {
        let registers = [0; KEYS];
        Self(Rc::new(Inner { registers, newest: Vec::new(), hash: 1, wrong: None }))
    }
}

impl State {
    /// What a register holds.
    pub fn register(&self, key: u8) -> u32 {
        self.0.registers[usize::from(key)]
    }

    /// A number that any difference in the order of actions changes.
    pub fn hash(&self) -> u64 {
        self.0.hash
    }

    /// A client's performs that came out of order, or twice: the later one and the one that had come
    /// before it.
    pub fn wrong(&self) -> Option<(OpId, OpId)> {
        self.0.wrong
    }
}

/// The machine of one process.
#[derive(Debug, Default)]
pub struct Registers {
    /// The client of the process, where it has one for as long as it lives.
    pub client: u16,
    /// The state that methods read.
    pub provisional: State,
    /// The newest index of which it was told that an action is committed.
    pub notified: Index,
    /// It was told of the same action twice, or of an older one after a newer.
    pub notified_twice: bool,
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
        let found = self.provisional.register(args.key);
        let is_expected = found == args.expected;
        let tell = || Failure::new(VALUE, found.to_string());
        match method {
            Method::Get => return Err(tell()),
            Method::Check if is_expected => return Ok(None),
            Method::Check | Method::Cas if !is_expected => return Err(tell()),
            _ => {}
        }
        let Args { op, client, key, padding, .. } = args;
        let poison = method == Method::Poison;
        Ok(Some(encode(&Action { op, client, key, old: found, poison, padding })))
    }

    fn reduce(&mut self, state: &State, action: &[u8]) -> Result<State, Failure> {
        let action: Action =
            postcard::from_bytes(action).expect("actions arrive as they were made");
        if action.poison {
            return Err(Failure::new("REDUCER_FAILED", "poison"));
        }
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

    fn save(&mut self, state: &State) -> Result<Vec<u8>, Failure> {
        Ok(postcard::to_allocvec(state.0.as_ref()).expect("it fits in memory"))
    }

    fn load(&mut self, bytes: &[u8]) -> Result<State, Failure> {
        let inner = postcard::from_bytes(bytes);
        Ok(State(Rc::new(inner.expect("snapshots arrive as they were saved"))))
    }

    fn committed(&mut self, index: Index) {
        self.notified_twice |= index <= self.notified;
        self.notified = self.notified.max(index);
    }
}

/// One step of a hash.
pub fn mix(hash: u64, value: u64) -> u64 {
    let mixed = (hash ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}
