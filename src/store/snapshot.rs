//! The bytes of a snapshot: the state and the sessions, the version of the application that saved
//! them, and a hash of the state.

use super::replica::Meta;
use super::sessions::Sessions;
use crate::raft::{Blob, Index};
use crate::wire::hash64;

/// What a snapshot contains.
pub(super) struct Contents {
    /// The version of the application that saved the state.
    pub(super) version: u32,
    sessions: Sessions,
    /// The state.
    pub(super) state: Blob,
}

impl Contents {
    /// What is replicated besides the state. The snapshot ends at `last`.
    pub(super) fn meta(&self, max_sessions: usize, last: Index) -> Meta {
        Meta::loaded(self.sessions.clone().limited(max_sessions), self.version, last)
    }
}

/// The bytes of a snapshot of these sessions and this serialized state, saved by this version of
/// the application; and a hash of both.
pub(super) fn encode_checked(version: u32, sessions: &Sessions, state: &[u8]) -> (Blob, u64) {
    let hash = hash64(&[state]);
    let table = postcard::to_allocvec(sessions).expect("it fits in memory");
    let kept = (version, hash, sessions, Blob::from(state));
    let data = postcard::to_allocvec(&kept).expect("it fits in memory").into();
    (data, hash64(&[&hash.to_le_bytes(), &table]))
}

/// The bytes of a snapshot.
pub fn encode_snapshot(version: u32, sessions: &Sessions, state: &[u8]) -> Blob {
    encode_checked(version, sessions, state).0
}

/// Reads what [`encode_snapshot`] wrote. `None` when the bytes are no snapshot or the hash is
/// wrong.
pub(super) fn decode_snapshot(bytes: &[u8]) -> Option<Contents> {
    let (version, hash, sessions, state): (u32, u64, Sessions, Blob) =
        postcard::from_bytes(bytes).ok()?;
    (hash64(&[state.as_slice()]) == hash).then_some(Contents { version, sessions, state })
}
