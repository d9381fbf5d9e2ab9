//! What a node keeps in its storage: log entries, the snapshot, term and vote.

use serde::{Deserialize, Serialize};

use super::membership::Members;
use super::types::{Blob, NodeId, Position, Term};

/// What an entry carries.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Payload {
    /// Nothing. Every leader opens its term with such an entry (paper §8).
    Noop,
    /// A command for the state machine. Raft does not interpret it.
    Command(Blob),
    /// A new configuration. A node uses it as soon as its log has the entry, committed or not
    /// (dissertation §4.1).
    Members(Members),
}

impl Payload {
    /// The size in bytes that counts for limits: that of the command or configuration, and a little
    /// for the entry itself.
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
    /// The entry's index and term.
    pub at: Position,
    /// What the entry carries.
    pub payload: Payload,
}

/// A snapshot of the state machine. It replaces every entry up to and including `last`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// The last entry that the snapshot covers.
    pub last: Position,
    /// The configuration in force at `last`.
    pub members: Members,
    /// The state machine's bytes. Raft does not interpret them.
    pub data: Blob,
}

impl Snapshot {
    /// The bytes in which the snapshot is sent and stored, without `last`.
    pub fn pack(&self) -> Blob {
        postcard::to_allocvec(&(&self.members, &self.data)).expect("memory takes it").into()
    }

    /// The snapshot that ends at `last`, from the bytes that [`Self::pack`] gave; `None` when they
    /// are not such bytes.
    pub fn unpack(last: Position, bytes: &[u8]) -> Option<Self> {
        let (members, data) = postcard::from_bytes(bytes).ok()?;
        Some(Self { last, members, data })
    }
}

/// The state besides the log that must survive a crash (paper figure 2, "persistent state").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HardState {
    /// The newest term that the node has seen.
    pub term: Term,
    /// The candidate that the node voted for in that term.
    pub vote: Option<NodeId>,
}

/// What storage has of a node. The default is that of a node that never ran.
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
    /// The newest configuration, committed or not; `None` when nothing that is saved has one.
    pub fn members(&self) -> Option<&Members> {
        let newest = self.entries.iter().rev().find_map(|entry| match &entry.payload {
            Payload::Members(members) => Some(members),
            Payload::Noop | Payload::Command(_) => None,
        });
        newest.or(self.snapshot.as_ref().map(|snapshot| &snapshot.members))
    }
}
