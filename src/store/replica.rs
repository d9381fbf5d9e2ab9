//! The states of one node: the committed state, and the state behind each entry after it. The
//! replica knows nothing of the store around it.

use std::collections::VecDeque;

use super::machine::Failure;
use super::sessions::{Command, Sessions};
use crate::raft::{Blob, Index, Position};

/// What is replicated besides the state.
#[derive(Clone, Debug)]
pub(super) struct Meta {
    pub(super) sessions: Sessions,
    /// The version of the application whose code made the state. `None` before the first state of
    /// the cluster.
    pub(super) release: Option<u32>,
    /// The newest check; of a state from a snapshot, the end of the snapshot.
    pub(super) check: Index,
    /// The newest check, while the right hash is not known.
    pub(super) open_check: Option<Index>,
    /// The last entry that changed the state.
    pub(super) changed: Index,
}

impl Meta {
    /// What is replicated before the first entry.
    pub(super) fn new(sessions: Sessions) -> Self {
        Self { sessions, release: None, check: 0, open_check: None, changed: 0 }
    }

    /// What is replicated in a snapshot that ends at `last`.
    pub(super) fn loaded(sessions: Sessions, release: u32, last: Index) -> Self {
        Self { sessions, release: Some(release), check: last, open_check: None, changed: last }
    }

    /// Applies the command of the entry at `index`. Returns whether it has an effect.
    pub(super) fn apply(&mut self, index: Index, command: &Command) -> bool {
        let has_effect = self.has_effect(index, command);
        if let Command::Found { .. } | Command::Upgrade { .. } | Command::Action { .. } = command
            && has_effect
        {
            self.changed = index;
        }
        has_effect
    }

    fn has_effect(&mut self, index: Index, command: &Command) -> bool {
        match command {
            Command::Found { version, .. } => {
                let is_first = self.release.is_none();
                self.release.get_or_insert(*version);
                is_first
            }
            Command::Upgrade { version, .. } => {
                let is_newer = self.release.is_some_and(|release| release < *version);
                if is_newer {
                    // The nodes that have the state of the open check are outdated now.
                    (self.release, self.open_check) = (Some(*version), None);
                }
                is_newer
            }
            Command::Check { .. } => {
                (self.check, self.open_check) = (index, Some(index));
                true
            }
            Command::Checked { check, .. } => {
                let is_open = self.open_check == Some(*check);
                self.open_check = self.open_check.filter(|_| !is_open);
                is_open
            }
            command => self.sessions.apply(index, command),
        }
    }
}

/// An entry of the log that is not applied yet.
#[derive(Debug)]
pub(super) struct TailEntry<S> {
    pub(super) at: Position,
    /// `None` for a no-op and for an entry that cannot be read.
    pub(super) command: Option<Command>,
    /// Whether the command changes anything. It does not, for example, if its session is not open
    /// or if its perform has an outcome already.
    pub(super) has_effect: bool,
    /// The entry's size in bytes.
    pub(super) size: usize,
    /// The state behind the entry; `()` while the reducer has not returned.
    pub(super) state: S,
    /// Why the reducer failed, if it did. Then the state is the same as before the entry.
    pub(super) failure: Option<Failure>,
}

impl<S> TailEntry<S> {
    /// The action to reduce, if there is one.
    pub(super) fn action(&self) -> Option<&Blob> {
        match &self.command {
            Some(Command::Action { action, .. }) if self.has_effect => Some(action),
            _ => None,
        }
    }

    /// The state to load, if the entry replaces the state.
    pub(super) fn loads(&self) -> Option<&Blob> {
        match &self.command {
            Some(Command::Found { state, .. } | Command::Upgrade { state, .. })
                if self.has_effect =>
            {
                Some(state)
            }
            _ => None,
        }
    }
}

/// The states of one node.
#[derive(Debug)]
pub(super) struct Replica<S> {
    /// The committed state.
    pub(super) committed: S,
    /// The last entry that the committed state contains.
    pub(super) applied: Index,
    /// What is replicated besides the committed state.
    pub(super) meta: Meta,
    /// The entries after `applied` whose states are known.
    tail: VecDeque<TailEntry<S>>,
    /// The provisional state: the state behind the last entry of `tail` and behind everything that
    /// the store has staged.
    pub(super) tip: S,
    /// What is replicated besides the provisional state.
    pub(super) tip_meta: Meta,
}

impl<S: Clone> Replica<S> {
    /// The replica before any entry.
    pub(super) fn new(initial: S, max_sessions: usize) -> Self {
        let meta = Meta::new(Sessions::with_limit(max_sessions));
        Self {
            tip: initial.clone(),
            committed: initial,
            applied: 0,
            tip_meta: meta.clone(),
            tail: VecDeque::new(),
            meta,
        }
    }

    /// How many entries have a state and are not applied.
    pub(super) fn tail_len(&self) -> usize {
        self.tail.len()
    }

    /// Whether an entry that is not applied could not be read, or user code failed on it.
    pub(super) fn has_failed(&self) -> bool {
        self.tail.iter().any(|entry| entry.failure.is_some())
    }

    /// The last entry whose state is known.
    pub(super) fn followed(&self) -> Index {
        self.tail.back().map_or(self.applied, |entry| entry.at.index)
    }

    /// Adds the next entry, with the reducer's result: the new state, or why the reducer failed.
    pub(super) fn push(&mut self, entry: TailEntry<()>, result: Result<S, Failure>) {
        let TailEntry { at, command, has_effect, size, .. } = entry;
        let failure = match result {
            Ok(state) => {
                self.tip = state;
                None
            }
            Err(failure) => Some(failure),
        };
        let state = self.tip.clone();
        self.tail.push_back(TailEntry { at, command, has_effect, size, state, failure });
    }

    /// Adds an entry whose state is known: this node staged and proposed it.
    pub(super) fn push_staged(&mut self, at: Position, command: Command, size: usize, state: S) {
        let (command, has_effect, failure) = (Some(command), true, None);
        self.tail.push_back(TailEntry { at, command, has_effect, size, state, failure });
    }

    /// Applies the next entry if it is committed and its state is known: its state becomes the
    /// committed state. Returns the entry without the state.
    pub(super) fn apply_next(&mut self, commit: Index) -> Option<TailEntry<()>> {
        self.tail.front().filter(|entry| entry.at.index <= commit)?;
        let entry = self.tail.pop_front()?;
        let TailEntry { at, command, has_effect, size, state, failure } = entry;
        self.applied = at.index;
        self.committed = state;
        if let Some(command) = command.as_ref().filter(|_| has_effect) {
            self.meta.apply(at.index, command);
        }
        Some(TailEntry { at, command, has_effect, size, state: (), failure })
    }

    /// The log was truncated at `from`. Returns whether states were removed; then the caller must
    /// call [`Replica::rewind`].
    pub(super) fn truncate(&mut self, from: Index) -> bool {
        let keep = self.tail.partition_point(|entry| entry.at.index < from);
        let cut = keep < self.tail.len();
        self.tail.truncate(keep);
        cut
    }

    /// Removes every state except the committed one.
    pub(super) fn clear_tail(&mut self) {
        self.tail.clear();
        self.tip = self.committed.clone();
    }

    /// Sets the provisional state to the one behind the last entry of the tail. What was staged
    /// behind that entry is discarded.
    pub(super) fn rewind(&mut self) {
        self.tip = self.tail.back().map_or(&self.committed, |entry| &entry.state).clone();
        self.tip_meta = self.meta.clone();
        for entry in &self.tail {
            if let Some(command) = &entry.command {
                self.tip_meta.apply(entry.at.index, command);
            }
        }
    }

    /// Replaces everything with the state of a snapshot whose last entry is `last`.
    pub(super) fn load(&mut self, last: Index, state: S, meta: Meta) {
        self.committed = state;
        self.applied = last;
        self.meta = meta;
        self.tail.clear();
        self.rewind();
    }
}

#[cfg(test)]
mod tests {
    use super::super::machine::Performer;
    use super::*;

    fn action(seq: u64) -> Command {
        let action = format!("+{seq}").as_str().into();
        Command::Action { version: 1, session: 1, seq, ack: 1, verdicts: Vec::new(), action }
    }

    /// A replica whose state is a text, with a session and with uncommitted actions at 2, 3 and 4.
    fn replica() -> Replica<String> {
        let mut replica = Replica::new(String::new(), 8);
        let open = Command::Open { nonce: 7, by: Performer::default() };
        for (index, command) in (1..).zip([open, action(1), action(2), action(3)]) {
            let has_effect = replica.tip_meta.apply(index, &command);
            let at = Position::new(index, 1);
            let entry = TailEntry {
                at,
                command: Some(command),
                has_effect,
                size: 10,
                state: (),
                failure: None,
            };
            let more = entry.action().map(|a| String::from_utf8_lossy(a.as_slice()).into_owned());
            let state = format!("{}{}", replica.tip, more.unwrap_or_default());
            replica.push(entry, Ok(state));
        }
        replica
    }

    fn next_seq(sessions: &Sessions) -> u64 {
        sessions.get(1).map_or(0, super::super::sessions::Session::next)
    }

    #[test]
    fn commits_apply_the_state_behind_each_entry_in_order() {
        let mut replica = replica();
        assert_eq!((replica.followed(), replica.applied, replica.tail_len()), (4, 0, 4));
        assert_eq!((replica.tip.as_str(), replica.committed.as_str()), ("+1+2+3", ""));
        assert!(replica.apply_next(0).is_none());
        let applied: Vec<_> =
            std::iter::from_fn(|| replica.apply_next(3)).map(|entry| entry.at.index).collect();
        assert_eq!(applied, [1, 2, 3]);
        assert_eq!((replica.committed.as_str(), replica.applied), ("+1+2", 3));
        assert_eq!(
            (next_seq(&replica.meta.sessions), next_seq(&replica.tip_meta.sessions)),
            (3, 4)
        );
    }

    #[test]
    fn truncated_entries_lose_their_states_and_session_changes() {
        let mut replica = replica();
        replica.apply_next(1);
        assert!(!replica.truncate(5), "nothing is there");
        assert!(replica.truncate(3));
        replica.rewind();
        assert_eq!((replica.tip.as_str(), replica.followed()), ("+1", 2));
        assert_eq!(next_seq(&replica.tip_meta.sessions), 2);
        replica.push_staged(Position::new(3, 2), action(2), 10, "+1+2'".into());
        replica.tip = "staged".into();
        replica.rewind();
        assert_eq!((replica.tip.as_str(), next_seq(&replica.tip_meta.sessions)), ("+1+2'", 3));
        replica.clear_tail();
        assert_eq!((replica.tip.as_str(), replica.followed()), ("", 1));
    }

    #[test]
    fn a_reducer_that_fails_does_not_change_the_state() {
        let mut replica = replica();
        let at = Position::new(5, 1);
        let entry =
            TailEntry { at, command: None, has_effect: false, size: 1, state: (), failure: None };
        replica.push(entry, Err(Failure::new("REDUCER_FAILED", "no")));
        let last = std::iter::from_fn(|| replica.apply_next(5)).last().expect("an entry");
        assert_eq!((last.at.index, last.failure.is_some()), (5, true));
        assert_eq!(replica.committed, "+1+2+3");
    }

    #[test]
    fn a_snapshot_replaces_everything() {
        let mut replica = replica();
        let mut sessions = Sessions::with_limit(8);
        sessions.apply(9, &Command::Open { nonce: 8, by: Performer::default() });
        replica.load(20, "loaded".into(), Meta::loaded(sessions, 1, 20));
        assert_eq!((replica.committed.as_str(), replica.tip.as_str()), ("loaded", "loaded"));
        assert_eq!((replica.applied, replica.followed(), replica.tail_len()), (20, 20, 0));
        assert!(
            replica.meta.sessions.get(9).is_some() && replica.tip_meta.sessions.get(9).is_some()
        );
    }
}
