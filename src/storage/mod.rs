//! A node's record as bytes, in the same format for every kind of storage.
//!
//! Raft needs the term, the vote, the log and the snapshot after a crash (paper figure 2,
//! dissertation §3.8). Every kind of storage has these duties:
//!
//! - A write ([`Batch`]) is atomic: either all of it is there or nothing, even if power fails in
//!   the middle.
//! - Writes become durable in the order in which they were requested, and none is reported before
//!   it is durable, because the messages of a node depend on it.
//! - A node's record has an epoch, for fencing. To load the record is to raise its epoch, in the
//!   same transaction. A write counts only if the epoch is still the writer's ([`admit`]).
//! - A write that fails is an error, and the node stops. No write is skipped.
//!
//! [`Batch`] and [`restore`] lay out a log in a key-value store: the entries of each write are one
//! value, and its key is the index of the first entry. A write that truncates the log deletes all
//! values from its key on. An older value may still contain entries that a later value replaces:
//! entries from the later value's key on do not count.

pub mod file;

use serde::{Deserialize, Serialize};

use crate::mistakes::{Mistake, made};
use crate::raft::{
    Entry, HardState, Index, MAX_INDEX, MAX_TERM, Persist, Position, Saved, Snapshot,
};

/// One atomic write.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// New term and vote.
    pub hard: Option<Vec<u8>>,
    /// A new snapshot.
    pub snapshot: Option<Vec<u8>>,
    /// Delete every value in the log from this key on; with a snapshot, all of them.
    pub first: Option<Index>,
    /// Write this value under that key.
    pub entries: Option<Vec<u8>>,
}

/// Checks whether a write counts. `stored` is the epoch of the record now (`None`: there is no
/// record), and `epoch` is the writer's.
///
/// # Errors
/// When another host has taken the node over, or its record was deleted.
pub fn admit(stored: Option<u64>, epoch: u64) -> Result<(), Fence> {
    match stored {
        None => Err(Fence::NoRecord),
        Some(stored) if stored != epoch && !made(Mistake::EpochUnchecked) => Err(Fence::Taken),
        Some(_) => Ok(()),
    }
}

/// Why a write does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// Another host runs the node now.
    Taken,
    /// The node's record was deleted.
    NoRecord,
}

/// A snapshot as it is stored.
#[derive(Serialize, Deserialize)]
struct Kept {
    last: Position,
    data: Vec<u8>,
}

/// The first byte of the value with term and vote, which every record has. The first format had no
/// such byte: there the value begins with the term, which is small.
const FORMAT: u8 = 0xC3;
/// The format before, which is read as well: it had fewer commands.
const EARLIER: u8 = 0xC2;

fn bytes(value: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(value).expect("memory takes it")
}

impl Batch {
    /// The bytes of a write.
    pub fn new(persist: &Persist) -> Self {
        let snapshot = persist.snapshot.as_ref();
        let kept = snapshot.map(|snapshot| Kept {
            last: snapshot.last,
            data: snapshot.pack().as_slice().to_vec(),
        });
        let entries = &persist.entries;
        Self {
            hard: persist.hard.as_ref().map(|hard| bytes(&(FORMAT, hard))),
            snapshot: kept.as_ref().map(bytes),
            first: entries.first().map(|entry| entry.at.index),
            entries: (!entries.is_empty()).then(|| bytes(entries)),
        }
    }

    /// The bytes of a new node's record.
    pub fn of(saved: &Saved) -> Self {
        Self::new(&Persist::begin(0, saved))
    }
}

/// Why a record cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// It was written by an older or newer release of Conflux, in another format.
    #[error("another release of Conflux has written it (format {0}; this one reads {FORMAT})")]
    Format(u8),
    /// Its bytes cannot be decoded.
    #[error("the bytes of its {0} are not what was written")]
    Bytes(&'static str),
    /// The entry at this index does not follow the one before it, its term is below that one's, or
    /// its term is above the node's own.
    #[error("its log cannot be right at index {0}")]
    Log(Index),
}

/// The saved state of a node's Raft, from the values in storage: term and vote, the snapshot, and
/// the values of the log in the order of their keys.
///
/// # Errors
/// When the values cannot be what [`Batch`] wrote. Such a node must not run. Whatever the values
/// are: a node starts with everything that is returned, without a panic.
pub fn restore<'a>(
    hard: Option<&[u8]>,
    snapshot: Option<&[u8]>,
    values: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Saved, Corrupt> {
    let format = hard.and_then(|bytes| bytes.first());
    if let Some(format) = format.filter(|byte| ![FORMAT, EARLIER].contains(byte)) {
        return Err(Corrupt::Format(*format));
    }
    let hard = hard.map(postcard::from_bytes::<(u8, HardState)>).transpose();
    let (_, hard) = hard.map_err(|_| Corrupt::Bytes("term"))?.unwrap_or_default();
    if hard.term > MAX_TERM {
        return Err(Corrupt::Bytes("term"));
    }
    let unpack = |bytes: &[u8]| {
        let kept: Kept = postcard::from_bytes(bytes).ok()?;
        let Position { index, term } = kept.last;
        let possible = (1..=MAX_INDEX).contains(&index) && (1..=hard.term).contains(&term);
        if possible { Snapshot::unpack(kept.last, &kept.data) } else { None }
    };
    let snapshot = snapshot.map(|bytes| unpack(bytes).ok_or(Corrupt::Bytes("snapshot")));
    let snapshot = snapshot.transpose()?;
    let mut last = snapshot.as_ref().map_or(Position::default(), |snapshot| snapshot.last);
    let mut entries: Vec<Entry> = Vec::new();
    for value in values {
        let more: Vec<Entry> = postcard::from_bytes(value).map_err(|_| Corrupt::Bytes("log"))?;
        let Some(first) = more.first() else { continue };
        entries.retain(|entry| entry.at.index < first.at.index);
        entries.extend(more);
    }
    entries.retain(|entry| entry.at.index > last.index);
    for Entry { at, .. } in &entries {
        let follows = at.index == last.index + 1 && at.index <= MAX_INDEX;
        // A node knows every term before it writes an entry of it.
        if !follows || at.term < last.term || at.term > hard.term {
            return Err(Corrupt::Log(at.index));
        }
        last = *at;
    }
    Ok(Saved { hard, snapshot, entries })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Members, Payload};

    fn entry(index: Index, term: u64) -> Entry {
        Entry { at: Position::new(index, term), payload: Payload::Command("abc".into()) }
    }

    fn write(seq: u64, entries: Vec<Entry>) -> Persist {
        Persist { seq, hard: None, snapshot: None, reset: false, entries }
    }

    /// Term and vote as they are stored.
    fn hard(term: u64) -> Vec<u8> {
        bytes(&(FORMAT, HardState { term, vote: None }))
    }

    /// The values of a log with one write of these positions.
    fn log(at: &[(Index, u64)]) -> Vec<u8> {
        let entries = at.iter().map(|(index, term)| entry(*index, *term)).collect();
        Batch::new(&write(1, entries)).entries.expect("some")
    }

    #[test]
    fn a_restored_log_is_the_result_of_all_its_writes() {
        let writes = [
            write(1, vec![entry(1, 1), entry(2, 1), entry(3, 1), entry(4, 1)]),
            write(2, vec![entry(3, 2)]), // Truncates the entries of the first write.
            write(3, vec![entry(4, 2), entry(5, 2)]),
        ];
        let batches: Vec<_> = writes.iter().map(Batch::new).collect();
        assert_eq!(
            batches.iter().map(|b| b.first).collect::<Vec<_>>(),
            [Some(1), Some(3), Some(4)]
        );
        let values = batches.iter().filter_map(|batch| batch.entries.as_deref());
        let saved = restore(Some(&hard(2)), None, values).expect("what was written");
        let at: Vec<_> = saved.entries.iter().map(|e| (e.at.index, e.at.term)).collect();
        assert_eq!(at, [(1, 1), (2, 1), (3, 2), (4, 2), (5, 2)]);
    }

    #[test]
    fn a_snapshot_and_the_entries_behind_it_are_restored() {
        let last = Position::new(4, 2);
        let snapshot = Snapshot { last, members: Members::voters([1]), data: "state".into() };
        let hard = HardState { term: 3, vote: Some(1) };
        let persist = Persist {
            seq: 1,
            hard: Some(hard),
            snapshot: Some(snapshot.clone()),
            reset: false,
            entries: vec![entry(5, 2)],
        };
        let Batch { hard: term, snapshot: kept, entries, .. } = Batch::new(&persist);
        let saved = restore(term.as_deref(), kept.as_deref(), entries.as_deref());
        let saved = saved.expect("what was written");
        assert_eq!((saved.hard, &saved.snapshot), (hard, &Some(snapshot)));
        assert_eq!(saved.entries, [entry(5, 2)]);
        assert_eq!(Batch::of(&saved), Batch::new(&persist));
    }

    #[test]
    fn gaps_foreign_formats_and_garbage_are_errors() {
        let value = |entries: Vec<Entry>| Batch::new(&write(1, entries)).entries.expect("some");
        let (one, three) = (value(vec![entry(1, 1)]), value(vec![entry(3, 1)]));
        let both = [one.as_slice(), three.as_slice()];
        assert_eq!(restore(Some(&hard(1)), None, both).map(|_| ()), Err(Corrupt::Log(3)));
        let garbage: &[u8] = &[0xff; 3];
        let term = |bytes: &[u8]| restore(Some(bytes), None, []).map(|saved| saved.hard.term);
        assert_eq!(term(&[FORMAT, 7, 0]), Ok(7));
        assert_eq!(term(&[EARLIER, 7, 0]), Ok(7));
        assert_eq!(term(&[FORMAT, 0xff]), Err(Corrupt::Bytes("term")));
        assert_eq!(term(&[7, 0]), Err(Corrupt::Format(7)), "as the first format had it");
        assert!(matches!(restore(None, Some(garbage), []), Err(Corrupt::Bytes("snapshot"))));
        assert!(matches!(restore(None, None, [garbage]), Err(Corrupt::Bytes("log"))));
        assert!(restore(None, None, []).expect("nothing").entries.is_empty());
    }

    #[test]
    fn terms_and_indexes_that_no_node_writes_are_errors() {
        let read = |term: u64, at: &[(Index, u64)]| {
            restore(Some(&hard(term)), None, [log(at).as_slice()]).map(|saved| saved.entries.len())
        };
        assert_eq!(read(3, &[(1, 1), (2, 1), (3, 3)]), Ok(3));
        assert_eq!(read(3, &[(1, 2), (2, 1)]), Err(Corrupt::Log(2)), "terms go back");
        assert_eq!(read(2, &[(1, 1), (2, 3)]), Err(Corrupt::Log(2)), "above the node's term");
        let forgotten = restore(None, None, [log(&[(1, 1)]).as_slice()]);
        assert_eq!(forgotten.map(|_| ()), Err(Corrupt::Log(1)), "no term is stored");
        assert_eq!(read(1, &[(1, 1), (1, 1)]), Err(Corrupt::Log(1)));
        assert_eq!(read(1, &[(u64::MAX, 1)]), Err(Corrupt::Log(u64::MAX)));
        assert_eq!(read(MAX_TERM, &[(1, MAX_TERM)]), Ok(1));
        assert_eq!(read(MAX_TERM + 1, &[(1, 1)]), Err(Corrupt::Bytes("term")));
    }

    #[test]
    fn a_snapshot_whose_end_no_node_writes_is_an_error() {
        let read = |index: Index, term: u64, at: &[(Index, u64)]| {
            let last = Position::new(index, term);
            let snapshot = Snapshot { last, members: Members::voters([1]), data: "x".into() };
            let persist = Persist { snapshot: Some(snapshot), ..write(1, Vec::new()) };
            let kept = Batch::new(&persist).snapshot;
            let values = [log(at)];
            restore(Some(&hard(3)), kept.as_deref(), values.iter().map(Vec::as_slice))
                .map(|saved| saved.entries.len())
        };
        assert_eq!(read(4, 3, &[(5, 3)]), Ok(1));
        assert_eq!(read(4, 3, &[(3, 9), (4, 1)]), Ok(0), "what the snapshot covers does not count");
        assert_eq!(read(4, 3, &[(5, 2)]), Err(Corrupt::Log(5)));
        assert_eq!(read(4, 3, &[(6, 3)]), Err(Corrupt::Log(6)));
        for (index, term) in [(0, 1), (1, 0), (1, 4), (MAX_INDEX + 1, 1), (u64::MAX, 1)] {
            let error = Err(Corrupt::Bytes("snapshot"));
            assert_eq!(read(index, term, &[(1, 1)]), error, "{index}, {term}");
        }
        assert_eq!(read(MAX_INDEX, 3, &[(MAX_INDEX + 1, 3)]), Err(Corrupt::Log(MAX_INDEX + 1)));
    }
}
