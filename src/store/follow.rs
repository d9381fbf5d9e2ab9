//! Following the log: reducing entries when they arrive, applying them when they are committed, and saving
//! and loading snapshots.

use super::machine::{Call, Committed, Failure};
use super::replica::TailEntry;
use super::sessions::{Command, Recorded, Session, SessionId, Sessions};
use super::snapshot::{decode_snapshot, encode_snapshot};
use super::{Fault, MAX_FOLLOWED, OngoingCall, Step, Store};
use crate::mistakes::{Mistake, made};
use crate::raft::{Index, Payload, Position, Raft};

impl<S: Clone> Store<S> {
    /// Takes in a snapshot, if one has arrived.
    pub(super) fn load(&mut self) -> Option<Call<S>> {
        let snapshot = self.incoming.take()?;
        match decode_snapshot(snapshot.data.as_slice()) {
            Some((sessions, state)) => {
                self.snapshot_bytes = snapshot.data.len();
                let sessions = sessions.limited(self.config.max_sessions);
                self.ongoing = OngoingCall::Loading(snapshot.last, sessions);
                Some(Call::Load(state))
            }
            None => {
                self.cannot_load(Failure::new("BAD_SNAPSHOT", "the snapshot cannot be read"));
                None
            }
        }
    }

    /// Without the snapshot's state this node has none to go on from. It still keeps its log and
    /// votes, but judges nothing.
    pub(super) fn cannot_load(&mut self, failure: Failure) {
        self.broken = true;
        self.faults.push(Fault::CannotLoad(failure));
    }

    /// Whether this node cannot lead, because it could not load a snapshot.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    pub(super) fn loaded(&mut self, last: Position, sessions: Sessions, state: S) {
        self.broken = false;
        self.log_bytes = 0;
        self.client.replaced(&sessions, last.index);
        self.replica.load(last.index, state, sessions);
        self.ongoing = OngoingCall::Nothing;
    }

    /// Applies the next committed entry whose state is known.
    pub(super) fn apply(&mut self, commit: Index) -> Option<Call<S>> {
        while let Some(entry) = self.replica.apply_next(commit) {
            let TailEntry { at, command, counts, size, failure, .. } = entry;
            let index = at.index;
            self.log_bytes += size;
            let Some(command) = command.filter(|_| counts) else { continue };
            self.settle_own(index, &command);
            // A node that begins anew behind an old handle may be behind the session's beginning.
            let has_begun =
                |mine: SessionId| mine <= index && self.replica.sessions.get(mine).is_none();
            if self.client.session().is_some_and(has_begun) {
                self.client.expired();
            }
            self.client.settle_in_order(index);
            if let Some(failure) = failure {
                self.faults.push(Fault::ReducerFailed(failure));
            }
            if let Command::Action { session, action, .. } = command {
                let by = self
                    .replica
                    .sessions
                    .get(session)
                    .map(Session::by)
                    .cloned()
                    .unwrap_or_default();
                self.ongoing = OngoingCall::Notifying;
                return Some(Call::Committed(Committed { at, action: Some((by, action)) }));
            }
        }
        self.client.settle_in_order(self.replica.applied);
        None
    }

    pub(super) fn settle_own(&mut self, index: Index, command: &Command) {
        let mine = self.client.session();
        match command {
            Command::Open { nonce, .. } => self.client.opened(index, *nonce),
            Command::Action { session, seq, verdicts, action, .. } if mine == Some(*session) => {
                for (seq, verdict) in verdicts {
                    self.client.recorded(*seq, index, Recorded::Verdict(verdict.clone()));
                }
                self.client.recorded(*seq, index, Recorded::Action(action.clone()));
            }
            _ => {}
        }
    }

    /// Whether that is the last one.
    pub(super) fn has_followed(&self, raft: &Raft) -> bool {
        self.replica.followed() >= raft.log().last().index
    }

    /// Takes in the next entry of the log that has no state yet. Of a long log whose end is not committed, as a
    /// node finds it when it starts, only so many: each state may be a copy of a long list.
    pub(super) fn follow_log(&mut self, raft: &Raft) -> Option<Call<S>> {
        while self.replica.tail_len() < MAX_FOLLOWED {
            let next = self.replica.followed() + 1;
            let entry = raft.entry(next)?;
            debug_assert!(self.staged.is_empty(), "staged commands are the end of the log");
            let mut item = TailEntry {
                at: entry.at,
                command: None,
                counts: false,
                size: entry.payload.size(),
                state: (),
                failure: None,
            };
            if let Payload::Command(data) = &entry.payload {
                match postcard::from_bytes::<Command>(data.as_slice()) {
                    Ok(command) => {
                        item.counts = self.replica.tip_sessions.apply(next, &command);
                        item.command = Some(command);
                    }
                    Err(_) => self.faults.push(Fault::BadEntry(next)),
                }
            }
            let state = self.replica.tip.clone();
            if let Some(action) = item.action().cloned() {
                self.ongoing = OngoingCall::Entry(item);
                return Some(Call::Reduce { state, action });
            }
            self.replica.push(item, Ok(state));
        }
        None
    }

    /// Saves the state when the log has grown enough.
    pub(super) fn save(&mut self, raft: &Raft) -> Option<Call<S>> {
        let threshold = self.config.compact_bytes.max(self.snapshot_bytes);
        if self.log_bytes < threshold || self.replica.applied <= raft.log().base().index {
            return None;
        }
        let term = raft.log().term(self.replica.applied)?;
        self.ongoing = OngoingCall::Saving(Position::new(self.replica.applied, term));
        Some(Call::Save(self.replica.committed.clone()))
    }

    pub(super) fn saved(&mut self, last: Position, result: Result<Vec<u8>, Failure>) -> Step<S> {
        self.log_bytes = 0;
        let none = made(Mistake::SessionsNotInSnapshot).then(Sessions::default);
        let sessions = none.as_ref().unwrap_or(&self.replica.sessions);
        let encoded = result.map(|bytes| encode_snapshot(self.config.version, sessions, &bytes));
        match encoded {
            Ok(data) => {
                self.snapshot_bytes = data.len();
                Step::Compact { last, data }
            }
            Err(failure) => {
                self.faults.push(Fault::CannotSave(failure));
                Step::Idle
            }
        }
    }
}
