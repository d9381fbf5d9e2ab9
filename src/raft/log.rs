//! The log: the position at which the snapshot ends, and the entries behind it.

use std::collections::VecDeque;

use super::entry::{Entry, Payload, Snapshot};
use super::membership::Members;
use super::types::{Blob, Index, Position, Term};
use crate::mistakes::{Mistake, made};

/// The log. It may begin behind any index; the snapshot covers everything up to there.
#[derive(Clone, Debug, Default, Hash)]
pub struct Log {
    snapshot: Option<Snapshot>,
    /// The position right before the first entry: the end of the snapshot, or 0.
    base: Position,
    entries: VecDeque<Entry>,
    /// The configurations: that in force at the base, and those in `entries`. Each has the index of
    /// its entry, or of the snapshot with which it came.
    members: VecDeque<(Index, Members)>,
}

impl Log {
    /// The log that storage has. `initial` is the configuration with which a log without a snapshot
    /// begins.
    ///
    /// # Panics
    /// When the entries do not follow the snapshot without a gap. Storage is not a peer, so this is
    /// a bug or a broken disk, and to go on would lose acknowledged entries.
    pub fn new(initial: Members, snapshot: Option<Snapshot>, entries: Vec<Entry>) -> Self {
        let base = snapshot.as_ref().map(|s| s.last).unwrap_or_default();
        let initial = snapshot.as_ref().map_or(initial, |s| s.members.clone());
        let members = [(base.index, initial)].into();
        let mut log = Self { snapshot, base, entries: VecDeque::new(), members };
        for entry in entries {
            let last = log.last();
            assert_eq!(entry.at.index, last.index + 1, "the saved log has a gap");
            assert!(entry.at.term >= last.term, "the saved log goes back in terms");
            log.push(entry);
        }
        log
    }

    /// The configuration in force, which is the newest one, committed or not, and its index.
    pub fn members(&self) -> (Index, &Members) {
        self.members_at(Index::MAX)
    }

    /// The configuration in force at `index`, which is not compacted, and its own index.
    pub fn members_at(&self, index: Index) -> (Index, &Members) {
        let found = self.members.iter().rev().find(|(at, _)| *at <= index);
        let (at, members) = found.unwrap_or(&self.members[0]);
        (*at, members)
    }

    /// The configuration in force at `index`, which is not compacted, and every newer one.
    pub fn members_since(&self, index: Index) -> impl Iterator<Item = &Members> {
        let (since, _) = self.members_at(index);
        self.members.iter().filter(move |(at, _)| *at >= since).map(|(_, members)| members)
    }

    /// The position right before the first entry.
    pub fn base(&self) -> Position {
        self.base
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// The end of the log.
    pub fn last(&self) -> Position {
        self.entries.back().map_or(self.base, |e| e.at)
    }

    /// The entry at `index`, unless it is compacted or not there yet.
    pub fn get(&self, index: Index) -> Option<&Entry> {
        let offset = index.checked_sub(self.base.index + 1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    /// The term at `index`; known for the base and every entry.
    pub fn term(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.get(index).map(|e| e.at.term)
    }

    /// Whether this log has an entry at that position: the log check of AppendEntries.
    pub fn contains(&self, at: Position) -> bool {
        self.term(at.index) == Some(at.term)
    }

    /// The entries from `from` on: at most `max_bytes` bytes of them, but at least one entry if
    /// there is one.
    pub fn slice(&self, from: Index, max_bytes: usize) -> Vec<Entry> {
        let mut bytes = 0;
        let mut taken = Vec::new();
        for entry in self.iter_from(from) {
            bytes += entry.payload.size();
            if bytes > max_bytes && !taken.is_empty() {
                break;
            }
            taken.push(entry.clone());
        }
        taken
    }

    /// Every entry from `from` on.
    pub fn iter_from(&self, from: Index) -> impl Iterator<Item = &Entry> {
        let offset = from.saturating_sub(self.base.index + 1);
        let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(self.entries.len());
        self.entries.range(offset..)
    }

    /// Appends one entry in `term` and returns its position.
    pub fn append(&mut self, term: Term, payload: Payload) -> Position {
        let at = Position::new(self.last().index + 1, term);
        self.push(Entry { at, payload });
        at
    }

    /// Appends an entry that already has its position.
    pub fn push(&mut self, entry: Entry) {
        debug_assert_eq!(entry.at.index, self.last().index + 1, "entries follow each other");
        if let Payload::Members(members) = &entry.payload {
            self.members.push_back((entry.at.index, members.clone()));
        }
        self.entries.push_back(entry);
    }

    /// Removes every entry from `from` on, and the configurations in them.
    pub fn truncate(&mut self, from: Index) {
        debug_assert!(from > self.base.index, "what a snapshot covers is committed");
        let keep = usize::try_from(from - self.base.index - 1).expect("the log fits in memory");
        self.entries.truncate(keep);
        while self.members.back().is_some_and(|(at, _)| *at >= from)
            && !made(Mistake::ChangeNotRolledBack)
        {
            self.members.pop_back();
        }
    }

    /// The last position of this log, at or before `at`, at which a log that has `at` can agree
    /// with it: the term there is not newer than `at.term` (paper §5.3, end). The base if there is
    /// none.
    pub fn agreement(&self, at: Position) -> Position {
        let mut index = at.index.min(self.last().index);
        while index > self.base.index {
            let term = self.term(index).expect("between base and last");
            if term <= at.term {
                return Position::new(index, term);
            }
            index -= 1;
        }
        self.base
    }

    /// Replaces the entries up to `last`, which is in the log, by a snapshot with the state
    /// machine's bytes `data`. The entries behind `last` stay.
    pub fn compact(&mut self, last: Position, data: Blob) {
        let (at, members) = self.members_at(last.index);
        let snapshot = Snapshot { last, members: members.clone(), data };
        self.members.retain(|(index, _)| *index >= at);
        while self.entries.front().is_some_and(|e| e.at.index <= snapshot.last.index) {
            self.entries.pop_front();
        }
        self.base = snapshot.last;
        self.snapshot = Some(snapshot);
    }

    /// Replaces the whole log by `snapshot`.
    pub fn reset(&mut self, snapshot: Snapshot) {
        self.entries.clear();
        self.members = [(snapshot.last.index, snapshot.members.clone())].into();
        self.base = snapshot.last;
        self.snapshot = Some(snapshot);
    }

    /// The command of the entry at `index`; `None` when there is no such entry or it is no command.
    pub fn command(&self, index: Index) -> Option<&Blob> {
        match &self.get(index)?.payload {
            Payload::Command(data) => Some(data),
            Payload::Noop | Payload::Members(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: Index, term: Term) -> Entry {
        Entry { at: Position::new(index, term), payload: Payload::Command("1234".into()) }
    }

    #[test]
    fn a_slice_has_the_entries_that_fit_and_at_least_one() {
        let log =
            Log::new(Members::default(), None, (1..=3).map(|index| entry(index, 1)).collect());
        for (max, taken) in [(0, 1), (39, 1), (40, 2), (59, 2), (60, 3), (1_000, 3)] {
            assert_eq!(log.slice(1, max).len(), taken, "{max} bytes; an entry has 20");
        }
        assert_eq!(log.slice(3, 40), [entry(3, 1)]);
        assert!(log.slice(4, 40).is_empty());
    }

    #[test]
    fn agreement_is_the_last_position_whose_term_is_not_newer_than_the_other_logs() {
        let log = Log::new(Members::default(), None, vec![entry(1, 1), entry(2, 1), entry(3, 3)]);
        assert_eq!(log.agreement(Position::new(9, 4)), Position::new(3, 3));
        assert_eq!(log.agreement(Position::new(3, 2)), Position::new(2, 1));
        assert_eq!(log.agreement(Position::new(1, 2)), Position::new(1, 1));
        assert_eq!(log.agreement(Position::new(3, 0)), Position::default());
        // What the snapshot covers is committed, so every log agrees there.
        let last = Position::new(3, 3);
        let snapshot = Snapshot { last, members: Members::voters([1]), data: "".into() };
        let log = Log::new(Members::default(), Some(snapshot), vec![entry(4, 3)]);
        assert_eq!(log.agreement(Position::new(9, 1)), last);
    }
}
