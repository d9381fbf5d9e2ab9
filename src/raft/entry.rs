//! What a node keeps: log entries, the snapshot, term and vote.

use serde::{Deserialize, Serialize};

use super::membership::Members;
use super::types::{Blob, NodeId, Position, Term};

/// What an entry carries.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Payload {
    /// Nothing: the entry with which every leader opens its term (paper §8).
    Noop,
    /// A command for the state machine. Raft does not look inside.
    Command(Blob),
    /// A new configuration. It counts from the moment in which a node has the entry, whether it is
    /// committed or not (dissertation §4.1).
    Members(Members),
}

impl Payload {
    /// The size in bytes that limits count: the command's, and a little for the entry itself.
    pub fn size(&self) -> usize {
        const OVERHEAD: usize = 16;
        match self {
            Self::Noop => OVERHEAD,
            Self::Command(data) => OVERHEAD + data.len(),
            Self::Members(members) => OVERHEAD + members.size(),
        }
    }
}

/// One entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// Where it stands.
    pub at: Position,
    /// What it carries.
    pub payload: Payload,
}

/// A snapshot of the state machine: it stands for every entry up to and including `last`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// The last entry that it covers.
    pub last: Position,
    /// The configuration there.
    pub members: Members,
    /// The state machine's bytes. Raft does not look inside.
    pub data: Blob,
}

impl Snapshot {
    /// The bytes in which it travels and is kept.
    pub fn pack(&self) -> Blob {
        postcard::to_allocvec(&(&self.members, &self.data)).expect("memory takes it").into()
    }

    /// The snapshot that ends at `last`, from its bytes. `None` when they are none.
    pub fn unpack(last: Position, bytes: &[u8]) -> Option<Self> {
        let (members, data) = postcard::from_bytes(bytes).ok()?;
        Some(Self { last, members, data })
    }
}

/// What a node must never forget besides its log (paper figure 2, "persistent state").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HardState {
    /// The newest term that the node has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<NodeId>,
}

/// What storage gives back to a node that starts again. The default is a node that never ran.
#[derive(Clone, Debug, Default)]
pub struct Saved {
    /// Term and vote.
    pub hard: HardState,
    /// The newest snapshot, if one was taken.
    pub snapshot: Option<Snapshot>,
    /// The entries behind the snapshot, without a gap.
    pub entries: Vec<Entry>,
}

impl Saved {
    /// The newest configuration; `None` when there is none yet.
    pub fn members(&self) -> Option<&Members> {
        let newest = self.entries.iter().rev().find_map(|entry| match &entry.payload {
            Payload::Members(members) => Some(members),
            Payload::Noop | Payload::Command(_) => None,
        });
        newest.or(self.snapshot.as_ref().map(|snapshot| &snapshot.members))
    }
}
