//! The bytes of a snapshot: the state and the sessions, the version of the application that saved
//! them, and a hash of the state.

use super::sessions::Sessions;
use crate::raft::Blob;
use crate::wire::hash64;

/// The bytes of a snapshot of these sessions and this serialized state, saved by this version of
/// the application.
pub fn encode_snapshot(version: u32, sessions: &Sessions, state: &[u8]) -> Blob {
    let hash = hash64(&[state]);
    let kept = (version, hash, sessions, Blob::from(state));
    postcard::to_allocvec(&kept).expect("it fits in memory").into()
}

/// Reads what [`encode_snapshot`] wrote. `None` when the bytes are no snapshot or the hash is
/// wrong.
pub(super) fn decode_snapshot(bytes: &[u8]) -> Option<(Sessions, Blob)> {
    let (_version, hash, sessions, state): (u32, u64, Sessions, Blob) =
        postcard::from_bytes(bytes).ok()?;
    (hash64(&[state.as_slice()]) == hash).then_some((sessions, state))
}
