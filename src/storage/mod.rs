//! What is written of a node, as bytes: the same for every storage.
//!
//! A storage has these duties, whatever it is made of:
//!
//! - A write ([`Batch`]) is whole or not at all, also when power fails in the middle of it.
//! - Writes become durable in the order in which they were asked for, and none is reported before it is
//!   durable: what a node says to others depends on it.
//! - A node's record has an epoch. Loading it raises the epoch, in the same transaction, and a write
//!   counts only if the epoch is still the writer's ([`admit`]).
//! - What cannot be written is an error, and the node that asked stops. Nothing is passed over.
//!
//! [`Batch`] and [`restore`] say how a log lies in a store that knows keys and values: each write's
//! entries are one value under the first one's index. A write that cuts the log off deletes the values
//! from there on; what an older value has beyond the beginning of the next one does not count.

pub mod file;

use serde::{Deserialize, Serialize};

use crate::mistakes::{Mistake, made};
use crate::raft::{Entry, HardState, Index, Persist, Position, Saved, Snapshot};

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

/// Whether a write may count, by the epoch that the record has now (`None`: there is no record) and
/// the writer's.
///
/// # Errors
/// When somebody else has taken the node over, or its storage is gone.
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
    /// The node has no storage any more.
    NoRecord,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    last: Position,
    data: Vec<u8>,
}

/// The first byte of what has term and vote, with which every record begins. The first format had none: there
/// the byte is a term's, and small.
const FORMAT: u8 = 0xC2;

fn bytes(value: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(value).expect("memory takes it")
}

impl Batch {
    /// What a write consists of.
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

    /// What a new node's record consists of.
    pub fn of(saved: &Saved) -> Self {
        Self::new(&Persist::begin(0, saved))
    }
}

/// Why a record cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// It was written by an older or newer Conflux, whose entries and snapshots are others.
    #[error("another release of Conflux has written it (format {0}; this one reads {FORMAT})")]
    Format(u8),
    /// Its bytes make no sense.
    #[error("the bytes of its {0} are not what was written")]
    Bytes(&'static str),
    /// Its log has a gap.
    #[error("its log has a gap before index {0}")]
    Gap(Index),
}

/// What a Raft remembers, from what was written: term and vote, the snapshot, and the values of the log
/// in the order of their keys.
///
/// # Errors
/// When that is not what was written. Such a node must not run.
pub fn restore<'a>(
    hard: Option<&[u8]>,
    snapshot: Option<&[u8]>,
    values: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Saved, Corrupt> {
    if let Some(format) = hard.and_then(|bytes| bytes.first()).filter(|byte| **byte != FORMAT) {
        return Err(Corrupt::Format(*format));
    }
    let hard = hard.map(postcard::from_bytes::<(u8, HardState)>).transpose();
    let (_, hard) = hard.map_err(|_| Corrupt::Bytes("term"))?.unwrap_or_default();
    let unpack = |bytes: &[u8]| {
        let kept: Kept = postcard::from_bytes(bytes).ok()?;
        Snapshot::unpack(kept.last, &kept.data)
    };
    let snapshot = snapshot.map(|bytes| unpack(bytes).ok_or(Corrupt::Bytes("snapshot")));
    let snapshot = snapshot.transpose()?;
    let base = snapshot.as_ref().map_or(0, |snapshot| snapshot.last.index);
    let mut entries: Vec<Entry> = Vec::new();
    for value in values {
        let more: Vec<Entry> = postcard::from_bytes(value).map_err(|_| Corrupt::Bytes("log"))?;
        let Some(first) = more.first() else { continue };
        entries.retain(|entry| entry.at.index < first.at.index);
        entries.extend(more);
    }
    entries.retain(|entry| entry.at.index > base);
    for (entry, index) in entries.iter().zip(base + 1..) {
        if entry.at.index != index {
            return Err(Corrupt::Gap(entry.at.index));
        }
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

    #[test]
    fn a_log_is_what_its_writes_made_of_it() {
        let writes = [
            write(1, vec![entry(1, 1), entry(2, 1), entry(3, 1), entry(4, 1)]),
            write(2, vec![entry(3, 2)]), // Cuts off in the middle of the first one.
            write(3, vec![entry(4, 2), entry(5, 2)]),
        ];
        let batches: Vec<_> = writes.iter().map(Batch::new).collect();
        assert_eq!(
            batches.iter().map(|b| b.first).collect::<Vec<_>>(),
            [Some(1), Some(3), Some(4)]
        );
        let values = batches.iter().filter_map(|batch| batch.entries.as_deref());
        let saved = restore(None, None, values).expect("what was written");
        let at: Vec<_> = saved.entries.iter().map(|e| (e.at.index, e.at.term)).collect();
        assert_eq!(at, [(1, 1), (2, 1), (3, 2), (4, 2), (5, 2)]);
    }

    #[test]
    fn a_snapshot_and_what_follows_it_come_back() {
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
    fn what_was_not_written_is_told_apart() {
        let value = |entries: Vec<Entry>| Batch::new(&write(1, entries)).entries.expect("some");
        let (one, three) = (value(vec![entry(1, 1)]), value(vec![entry(3, 1)]));
        let both = [one.as_slice(), three.as_slice()];
        assert_eq!(restore(None, None, both).map(|_| ()), Err(Corrupt::Gap(3)));
        let garbage: &[u8] = &[0xff; 3];
        let hard = |bytes: &[u8]| restore(Some(bytes), None, []).map(|saved| saved.hard.term);
        assert_eq!(hard(&[FORMAT, 7, 0]), Ok(7));
        assert_eq!(hard(&[FORMAT, 0xff]), Err(Corrupt::Bytes("term")));
        assert_eq!(hard(&[7, 0]), Err(Corrupt::Format(7)), "as the first format had it");
        assert!(matches!(restore(None, Some(garbage), []), Err(Corrupt::Bytes("snapshot"))));
        assert!(matches!(restore(None, None, [garbage]), Err(Corrupt::Bytes("log"))));
        assert!(restore(None, None, []).expect("nothing").entries.is_empty());
    }
}
