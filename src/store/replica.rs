//! The state behind each entry of the log: the committed state, and one for each entry after it. It knows
//! nothing of the store around it.

use std::collections::VecDeque;

use super::machine::Failure;
use super::sessions::{Command, Sessions};
use crate::raft::{Blob, Index, Position};

/// An entry of the log that is not applied yet.
#[derive(Debug)]
pub(super) struct TailEntry<S> {
    pub(super) at: Position,
    /// `None` for a no-op and for an entry that cannot be read.
    pub(super) command: Option<Command>,
    /// The command has an effect: it is an action to reduce, or it changes the sessions.
    pub(super) counts: bool,
    /// The entry's size in bytes.
    pub(super) size: usize,
    /// The state behind the entry; `()` while the reducer has not returned.
    pub(super) state: S,
    /// Why the reducer failed. The state is the one before the entry then.
    pub(super) failure: Option<Failure>,
}

impl<S> TailEntry<S> {
    /// The action to reduce, if there is one.
    pub(super) fn action(&self) -> Option<&Blob> {
        match &self.command {
            Some(Command::Action { action, .. }) if self.counts => Some(action),
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
    /// The sessions in the committed state.
    pub(super) sessions: Sessions,
    /// The entries after `applied` whose states are known.
    tail: VecDeque<TailEntry<S>>,
    /// The provisional state: the one behind the last entry of `tail`, and behind what is staged.
    pub(super) tip: S,
    /// The sessions that belong to `tip`.
    pub(super) tip_sessions: Sessions,
}

impl<S: Clone> Replica<S> {
    /// The first state, before any entry.
    pub(super) fn new(initial: S, max_sessions: usize) -> Self {
        Self {
            tip: initial.clone(),
            committed: initial,
            applied: 0,
            sessions: Sessions::with_limit(max_sessions),
            tail: VecDeque::new(),
            tip_sessions: Sessions::with_limit(max_sessions),
        }
    }

    /// How many states wait for their entries to be committed.
    pub(super) fn tail_len(&self) -> usize {
        self.tail.len()
    }

    /// The last entry whose state is known.
    pub(super) fn followed(&self) -> Index {
        self.tail.back().map_or(self.applied, |entry| entry.at.index)
    }

    /// Adds the entry after the last one, with what the reducer made of it.
    pub(super) fn push(&mut self, entry: TailEntry<()>, result: Result<S, Failure>) {
        let TailEntry { at, command, counts, size, .. } = entry;
        let failure = match result {
            Ok(state) => {
                self.tip = state;
                None
            }
            Err(failure) => Some(failure),
        };
        let state = self.tip.clone();
        self.tail.push_back(TailEntry { at, command, counts, size, state, failure });
    }

    /// Adds an entry whose state is known: this node staged and proposed it.
    pub(super) fn push_staged(&mut self, at: Position, command: Command, size: usize, state: S) {
        let (command, counts, failure) = (Some(command), true, None);
        self.tail.push_back(TailEntry { at, command, counts, size, state, failure });
    }

    /// Applies the next entry, if it is committed and its state known. Returns the entry; its state is
    /// the committed one now.
    pub(super) fn apply_next(&mut self, commit: Index) -> Option<TailEntry<()>> {
        self.tail.front().filter(|entry| entry.at.index <= commit)?;
        let entry = self.tail.pop_front()?;
        let TailEntry { at, command, counts, size, state, failure } = entry;
        self.applied = at.index;
        self.committed = state;
        if let Some(command) = command.as_ref().filter(|_| counts) {
            self.sessions.apply(at.index, command);
        }
        Some(TailEntry { at, command, counts, size, state: (), failure })
    }

    /// The log was cut off from an index on. Says whether states went with it.
    pub(super) fn truncate(&mut self, from: Index) -> bool {
        let keep = self.tail.partition_point(|entry| entry.at.index < from);
        let cut = keep < self.tail.len();
        self.tail.truncate(keep);
        cut
    }

    /// Forgets every state but the committed one.
    pub(super) fn clear_tail(&mut self) {
        self.tail.clear();
        self.tip = self.committed.clone();
    }

    /// Goes back to the state behind the last entry of the tail: what was staged after it is gone.
    pub(super) fn rewind(&mut self) {
        self.tip = self.tail.back().map_or(&self.committed, |entry| &entry.state).clone();
        self.tip_sessions = self.sessions.clone();
        for entry in &self.tail {
            if let Some(command) = &entry.command {
                self.tip_sessions.apply(entry.at.index, command);
            }
        }
    }

    /// Replaces everything by the state and the sessions of a snapshot that ends at `last`.
    pub(super) fn load(&mut self, last: Index, state: S, sessions: Sessions) {
        self.committed = state;
        self.applied = last;
        self.sessions = sessions;
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

    /// A replica of texts with a session, and actions at 2, 3 and 4 of which none is committed.
    fn replica() -> Replica<String> {
        let mut replica = Replica::new(String::new(), 8);
        let open = Command::Open { nonce: 7, by: Performer::default() };
        for (index, command) in (1..).zip([open, action(1), action(2), action(3)]) {
            let counts = replica.tip_sessions.apply(index, &command);
            let at = Position::new(index, 1);
            let entry = TailEntry {
                at,
                command: Some(command),
                counts,
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
    fn each_entry_has_the_state_behind_it_and_commits_bring_them_in_order() {
        let mut replica = replica();
        assert_eq!((replica.followed(), replica.applied, replica.tail_len()), (4, 0, 4));
        assert_eq!((replica.tip.as_str(), replica.committed.as_str()), ("+1+2+3", ""));
        assert!(replica.apply_next(0).is_none());
        let applied: Vec<_> =
            std::iter::from_fn(|| replica.apply_next(3)).map(|entry| entry.at.index).collect();
        assert_eq!(applied, [1, 2, 3]);
        assert_eq!((replica.committed.as_str(), replica.applied), ("+1+2", 3));
        assert_eq!((next_seq(&replica.sessions), next_seq(&replica.tip_sessions)), (3, 4));
    }

    #[test]
    fn what_is_cut_off_takes_its_states_and_its_sessions_with_it() {
        let mut replica = replica();
        replica.apply_next(1);
        assert!(!replica.truncate(5), "nothing is there");
        assert!(replica.truncate(3));
        replica.rewind();
        assert_eq!((replica.tip.as_str(), replica.followed()), ("+1", 2));
        assert_eq!(next_seq(&replica.tip_sessions), 2);
        replica.push_staged(Position::new(3, 2), action(2), 10, "+1+2'".into());
        replica.tip = "staged".into();
        replica.rewind();
        assert_eq!((replica.tip.as_str(), next_seq(&replica.tip_sessions)), ("+1+2'", 3));
        replica.clear_tail();
        assert_eq!((replica.tip.as_str(), replica.followed()), ("", 1));
    }

    #[test]
    fn a_reducer_that_fails_leaves_the_state_as_it_was() {
        let mut replica = replica();
        let at = Position::new(5, 1);
        let entry =
            TailEntry { at, command: None, counts: false, size: 1, state: (), failure: None };
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
        replica.load(20, "loaded".into(), sessions);
        assert_eq!((replica.committed.as_str(), replica.tip.as_str()), ("loaded", "loaded"));
        assert_eq!((replica.applied, replica.followed(), replica.tail_len()), (20, 20, 0));
        assert!(replica.sessions.get(9).is_some() && replica.tip_sessions.get(9).is_some());
    }
}
