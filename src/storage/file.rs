//! A node's storage as one file, a log of records to which writes are only ever appended.
//!
//! The first record of a file is complete in itself: it has the owner of the file and the node's
//! whole state. A new file begins when the log is compacted and when a process starts the node, and
//! the old file is deleted once the first record of the new one is durable. A file without a
//! readable first record does not count ([`is_whole`]), because then the file before it is still
//! there.
//!
//! A crash may tear the file off at any byte. The torn records were never reported as durable,
//! because that takes an `fsync` after the whole record. But a record that was durable and is
//! damaged later must not be taken for a torn one, or the node would forget what it has promised.
//! Therefore each record also has the number of the last record that was durable when it was
//! written. If an intact record behind an unreadable one says that the unreadable one was durable,
//! the file is damaged, and the node must not run.
//!
//! A record is its length (4 bytes, little-endian), a checksum of its contents (8 bytes,
//! [`hash64`]), and the contents in postcard's encoding.

use serde::{Deserialize, Serialize};

use super::{Batch, restore};
use crate::raft::{Index, Persist, PersistSeq, Saved};
use crate::sorted::SortedMap;
use crate::wire::hash64;

/// The size of length and checksum, in bytes.
const HEAD: usize = 12;

#[derive(Serialize, Deserialize)]
struct Record {
    seq: PersistSeq,
    /// The last record that was durable when this one was written.
    durable: PersistSeq,
    /// The owner of the file, as bytes of the caller. Only the first record has it.
    owner: Option<Vec<u8>>,
    batch: Batch,
}

/// The contents of a file.
#[derive(Clone, Debug)]
pub struct Contents {
    /// The owner, as [`record`] got it for the first record.
    pub owner: Vec<u8>,
    /// The saved state of the node's Raft.
    pub saved: Saved,
    /// How many bytes of the file count. Behind them is at most a torn end.
    pub end: usize,
}

/// Why a file cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// Its first record cannot be read.
    #[error("its beginning is not whole")]
    Beginning,
    /// A record that was durable cannot be read. Contains its offset in the file, in bytes.
    #[error("what is {0} bytes into it was written and is damaged")]
    Damaged(usize),
    /// Each record can be read, but together they are no saved state.
    #[error(transparent)]
    Record(#[from] super::Corrupt),
}

/// The bytes of one write. `owner` is given for the first record of a file, and only for it.
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

/// Whether a file has a readable first record. If it has none, it was never finished.
pub fn is_whole(bytes: &[u8]) -> bool {
    parse(bytes).is_some_and(|(record, _)| record.owner.is_some())
}

/// Reads a file.
///
/// # Errors
/// When its first record cannot be read, or a record that was durable is damaged.
pub fn read(bytes: &[u8]) -> Result<Contents, Corrupt> {
    let (first, mut end) = parse(bytes).ok_or(Corrupt::Beginning)?;
    let owner = first.owner.clone().ok_or(Corrupt::Beginning)?;
    let (mut hard, mut snapshot) = (None, None);
    let mut values: SortedMap<Index, Vec<u8>> = SortedMap::new();
    let (mut next, mut seq) = (Some(first), 0);
    while let Some(Record { batch, seq: number, .. }) = next {
        seq = number;
        hard = batch.hard.or(hard);
        if batch.snapshot.is_some() {
            snapshot = batch.snapshot;
            values.clear();
        }
        if let Some(first) = batch.first {
            values.truncate_from(&first);
            values.extend(batch.entries.map(|entries| (first, entries)));
        }
        next = parse(&bytes[end..]).map(|(record, length)| {
            end += length;
            record
        });
    }
    // The rest is a torn end, unless an intact record in it says that more than `seq` was durable.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Entry, HardState, Members, Payload, Position, Snapshot};

    fn entries(from: Index, to: Index, term: u64) -> Vec<Entry> {
        let payload = || Payload::Command("abc".into());
        (from..=to).map(|i| Entry { at: Position::new(i, term), payload: payload() }).collect()
    }

    fn write(seq: u64, term: u64, entries: Vec<Entry>) -> Persist {
        let hard = Some(HardState { term, vote: None });
        Persist { seq, hard, snapshot: None, reset: false, entries }
    }

    /// The records of a file, each with what had been durable when it was made.
    fn records() -> Vec<Vec<u8>> {
        let last = Position::new(4, 1);
        let snapshot = Snapshot { last, members: Members::voters([1]), data: "state".into() };
        let saved = Saved {
            hard: HardState { term: 1, vote: Some(1) },
            snapshot: Some(snapshot),
            entries: entries(5, 6, 1),
        };
        vec![
            record(3, 3, Some(b"mine".to_vec()), &Persist::begin(3, &saved)),
            record(4, 3, None, &write(4, 1, entries(7, 9, 1))),
            record(5, 3, None, &write(5, 2, entries(8, 8, 2))), // Truncates the log.
            record(6, 5, None, &write(6, 2, entries(9, 10, 2))),
        ]
    }

    fn ends(contents: &Contents) -> (u64, Index, usize) {
        let last = contents.saved.entries.last().map_or(0, |entry| entry.at.index);
        (contents.saved.hard.term, last, contents.end)
    }

    #[test]
    fn a_file_that_ends_anywhere_is_read_up_to_its_last_whole_record() {
        let records = records();
        let file = records.concat();
        let whole = read(&file).expect("it is whole");
        assert_eq!((whole.owner.as_slice(), ends(&whole)), (&b"mine"[..], (2, 10, file.len())));
        let terms: Vec<_> = whole.saved.entries.iter().map(|e| (e.at.index, e.at.term)).collect();
        assert_eq!(terms, [(5, 1), (6, 1), (7, 1), (8, 2), (9, 2), (10, 2)]);
        let lasts = [(1, 6), (1, 9), (2, 8), (2, 10)];
        let starts: Vec<usize> =
            (0..=records.len()).map(|n| records[..n].iter().map(Vec::len).sum()).collect();
        for cut in 0..=file.len() {
            let kept = starts.iter().filter(|start| **start <= cut).count() - 1;
            let read = read(&file[..cut]);
            assert_eq!(is_whole(&file[..cut]), kept > 0);
            match kept.checked_sub(1) {
                None => assert_eq!(read.map(|_| ()), Err(Corrupt::Beginning), "cut at {cut}"),
                Some(last) => {
                    let (term, index) = lasts[last];
                    assert_eq!(ends(&read.expect("whole")), (term, index, starts[kept]));
                }
            }
        }
    }

    #[test]
    fn damage_to_durable_records_is_an_error_and_a_torn_end_is_not() {
        let records = records();
        let file = records.concat();
        let (first, second) = (records[0].len(), records[0].len() + records[1].len());
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            let read = read(&damaged);
            if at < first {
                assert_eq!(read.map(|_| ()), Err(Corrupt::Beginning), "{at}");
            } else if at < file.len() - records[3].len() {
                // The last record says that the second and the third were durable.
                let from = if at < second { first } else { second };
                assert_eq!(read.map(|_| ()), Err(Corrupt::Damaged(from)), "{at}");
            } else {
                assert_eq!(read.expect("a torn end").end, file.len() - records[3].len(), "{at}");
            }
        }
        // Two records of one fsync, the first of which is torn: neither was reported as durable.
        let mut torn = records[..3].concat();
        torn[first + HEAD] ^= 1;
        assert_eq!(read(&torn).expect("a torn end").end, first);
    }

    #[test]
    fn a_file_must_begin_with_a_whole_first_record() {
        let records = records();
        assert_eq!(read(&records[1]).map(|_| ()), Err(Corrupt::Beginning));
        let absurd = [0xff; 40];
        assert_eq!((is_whole(&absurd), is_whole(&[])), (false, false));
        // The entries of the records leave a gap.
        let gap = record(9, 3, None, &write(9, 2, entries(12, 12, 2)));
        let file = [records[0].as_slice(), &gap].concat();
        assert_eq!(read(&file).map(|_| ()), Err(Corrupt::Record(super::super::Corrupt::Log(12))));
    }
}
