//! What a snapshot holds: the state and the sessions, with the release that saved them and a hash.

use super::sessions::Sessions;
use crate::raft::Blob;
use crate::wire::hash64;

/// A snapshot's bytes: sessions and state, the release that saved them, and the state's hash.
pub fn encode_snapshot(version: u32, sessions: &Sessions, state: &[u8]) -> Blob {
    let hash = hash64(&[state]);
    let kept = (version, hash, sessions, Blob::from(state));
    postcard::to_allocvec(&kept).expect("it fits in memory").into()
}

/// Reads what [`encode_snapshot`] wrote. `None` when it is none, or its hash is another.
pub(super) fn decode_snapshot(bytes: &[u8]) -> Option<(Sessions, Blob)> {
    let (_version, hash, sessions, state): (u32, u64, Sessions, Blob) =
        postcard::from_bytes(bytes).ok()?;
    (hash64(&[state.as_slice()]) == hash).then_some((sessions, state))
}
