//! A disk that promises what IndexedDB promises, and no more. A write is a transaction that happens
//! completely or not at all. Writes become durable in the order in which they were started. A write
//! that was not reported as durable may or may not be there after a crash.

use std::collections::VecDeque;

use conflux::formation::Set;
use conflux::raft::{Entry, HardState, Index, Persist, PersistSeq, Position, Saved, Snapshot};
use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;

/// Which member a process is, once its cluster has formed.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its node id in Raft.
    pub number: u64,
    /// The nonce under which the other members know it.
    pub nonce: u64,
    /// The set with which its cluster formed.
    pub set: Set,
}

/// One write.
#[derive(Clone, Debug)]
pub enum Write {
    /// Which member the process is.
    Identity(Identity),
    /// What its Raft wants to be durable.
    Raft(Persist),
}

/// What is durable.
#[derive(Clone, Debug, Default)]
struct Image {
    identity: Option<Identity>,
    hard: HardState,
    snapshot: Option<Snapshot>,
    entries: VecDeque<Entry>,
}

impl Image {
    fn apply(&mut self, write: Write) {
        let persist = match write {
            Write::Identity(identity) => return self.identity = Some(identity),
            Write::Raft(persist) => persist,
        };
        if let Some(hard) = persist.hard {
            self.hard = hard;
        }
        if persist.reset {
            self.entries.clear();
        }
        if let Some(snapshot) = persist.snapshot {
            while self.entries.front().is_some_and(|e| e.at.index <= snapshot.last.index) {
                self.entries.pop_front();
            }
            self.snapshot = Some(snapshot);
        }
        if let Some(first) = persist.entries.first() {
            while self.entries.back().is_some_and(|e| e.at.index >= first.at.index) {
                self.entries.pop_back();
            }
        }
        self.entries.extend(persist.entries);
    }
}

/// The disk of one process. It outlives the process.
#[derive(Debug, Default)]
pub struct Disk {
    image: Image,
    queue: VecDeque<Write>,
}

/// What happened to the pending writes when the process died.
#[derive(Clone, Copy, Debug)]
pub struct Lost {
    /// How many became durable all the same.
    pub done: usize,
    /// How many were lost. The first of them may have been half done, and was undone.
    pub lost: usize,
}

impl Disk {
    /// A disk that holds what a Raft starts with.
    pub fn with(saved: Saved) -> Self {
        let Saved { hard, snapshot, entries } = saved;
        let image = Image { identity: None, hard, snapshot, entries: entries.into() };
        Self { image, ..Self::default() }
    }

    /// The disk of a node that has not yet joined its cluster.
    pub fn of(identity: Identity) -> Self {
        let image = Image { identity: Some(identity), ..Image::default() };
        Self { image, ..Self::default() }
    }

    /// Starts a write.
    pub fn start(&mut self, write: Write) {
        self.queue.push_back(write);
    }

    /// How many writes are pending.
    pub fn pending(&self) -> usize {
        self.queue.len()
    }

    /// The first pending write is durable. Gives its number, if it is a write of Raft.
    pub fn finish(&mut self) -> Option<PersistSeq> {
        let write = self.queue.pop_front()?;
        let seq = match &write {
            Write::Raft(persist) => Some(persist.seq),
            Write::Identity(_) => None,
        };
        self.image.apply(write);
        seq
    }

    /// The process dies. Of the pending writes, a random number from the front is durable. The next
    /// one may be torn, and the transaction undoes it.
    pub fn crash(&mut self, rng: &mut Xoshiro256PlusPlus) -> Lost {
        let done = rng.random_range(0..=self.queue.len());
        let lost = self.queue.len() - done;
        for write in self.queue.drain(..done) {
            self.image.apply(write);
        }
        self.queue.clear();
        Lost { done, lost }
    }

    /// The identity of the process, if it is durable.
    pub fn identity(&self) -> Option<&Identity> {
        self.image.identity.as_ref()
    }

    /// The durable term and vote.
    pub fn hard(&self) -> HardState {
        self.image.hard
    }

    /// The term of the entry at `index`, if the entry is durable or is the last one in the durable
    /// snapshot.
    pub fn term(&self, index: Index) -> Option<u64> {
        let base = self.base();
        if index == base.index {
            return Some(base.term);
        }
        let offset = usize::try_from(index.checked_sub(base.index + 1)?).ok()?;
        self.image.entries.get(offset).map(|entry| entry.at.term)
    }

    /// The last position of the durable snapshot.
    pub fn base(&self) -> Position {
        self.image.snapshot.as_ref().map(|s| s.last).unwrap_or_default()
    }

    /// What a process loads when it starts again.
    pub fn load(&self) -> Saved {
        Saved {
            hard: self.image.hard,
            snapshot: self.image.snapshot.clone(),
            entries: self.image.entries.iter().cloned().collect(),
        }
    }
}
