//! A node's record as one file to which writes are only ever appended.
//!
//! The file begins with a record that stands for everything before it: whose it is, and all that the
//! node remembers. When the log is compacted, or another process takes the node over, a new file
//! begins, and the old one goes once the new beginning is durable. A file whose beginning is not whole
//! does not count ([`is_whole`]): the one before it is still there.
//!
//! The file may end anywhere: what is torn off at its end was never reported as durable, because that
//! takes an `fsync` behind the whole record. Each record says up to which other one everything was
//! durable when it was made. So a record that was durable once and cannot be read any more is told
//! apart from a torn end: a good one behind it says so, and such a node must not run.
//!
//! A record is its length (4 bytes, little-endian), a checksum over its contents (8 bytes), and the
//! contents in postcard's encoding.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Batch, restore};
use crate::raft::{Index, Persist, PersistSeq, Saved};
use crate::wire::hash64;

/// Length and checksum.
const HEAD: usize = 12;

#[derive(Serialize, Deserialize)]
struct Record {
    seq: PersistSeq,
    /// Everything up to this one was durable when this record was made.
    durable: PersistSeq,
    /// Whose file it is, in the first record.
    owner: Option<Vec<u8>>,
    batch: Batch,
}

/// What a file says.
#[derive(Clone, Debug)]
pub struct Contents {
    /// Whose it is: the bytes that its first record was given.
    pub owner: Vec<u8>,
    /// What the node remembers.
    pub saved: Saved,
    /// How many bytes of the file count.
    pub end: usize,
}

/// Why a file cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// Its beginning is not whole.
    #[error("its beginning is not whole")]
    Beginning,
    /// A record that was durable cannot be read any more.
    #[error("what is {0} bytes into it was written and is damaged")]
    Damaged(usize),
    /// Its records make no sense together.
    #[error(transparent)]
    Record(#[from] super::Corrupt),
}

/// The bytes of one write. The first one of a file says whose the file is.
pub fn record(
    seq: PersistSeq,
    durable: PersistSeq,
    owner: Option<Vec<u8>>,
    persist: &Persist,
) -> Vec<u8> {
    let record = Record { seq, durable, owner, batch: Batch::new(persist) };
    let contents = postcard::to_allocvec(&record).expect("memory takes it");
    let length = u32::try_from(contents.len()).expect("a write is smaller than 4 GiB");
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend(hash64(&[&contents]).to_le_bytes());
    bytes.extend(contents);
    bytes
}

/// Whether a file begins as it must. One that does not was never finished.
pub fn is_whole(bytes: &[u8]) -> bool {
    parse(bytes).is_some_and(|(record, _)| record.owner.is_some())
}

/// Reads a file.
///
/// # Errors
/// When it is none, or something in it is damaged that was durable.
pub fn read(bytes: &[u8]) -> Result<Contents, Corrupt> {
    let (first, mut end) = parse(bytes).ok_or(Corrupt::Beginning)?;
    let owner = first.owner.clone().ok_or(Corrupt::Beginning)?;
    let (mut hard, mut snapshot) = (None, None);
    let mut values: BTreeMap<Index, Vec<u8>> = BTreeMap::new();
    let (mut next, mut seq) = (Some(first), 0);
    while let Some(Record { batch, seq: number, .. }) = next {
        seq = number;
        hard = batch.hard.or(hard);
        if batch.snapshot.is_some() {
            snapshot = batch.snapshot;
            values.clear();
        }
        if let Some(first) = batch.first {
            values.split_off(&first);
            values.extend(batch.entries.map(|entries| (first, entries)));
        }
        next = parse(&bytes[end..]).map(|(record, length)| {
            end += length;
            record
        });
    }
    // Whatever is behind this was torn off, unless something says that it was durable.
    let behind = (end + 1..bytes.len()).filter_map(|at| parse(&bytes[at..]));
    if behind.into_iter().any(|(record, _)| record.durable > seq) {
        return Err(Corrupt::Damaged(end));
    }
    let saved = restore(hard.as_deref(), snapshot.as_deref(), values.values().map(Vec::as_slice))?;
    Ok(Contents { owner, saved, end })
}

/// The record at the beginning of these bytes, and its length.
fn parse(bytes: &[u8]) -> Option<(Record, usize)> {
    let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
    let (length, checksum) = head.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let contents = rest.get(..length)?;
    if hash64(&[contents]).to_le_bytes() != *checksum {
        return None;
    }
    Some((postcard::from_bytes(contents).ok()?, HEAD + length))
}
