//! What every node does: reduces entries when they arrive in its log, applies them when they are
//! committed, and saves and loads snapshots.

use super::machine::{Call, Committed, Failure};
use super::replica::TailEntry;
use super::sessions::{Command, Recorded, Session, SessionId, Sessions};
use super::snapshot::{decode_snapshot, encode_snapshot};
use super::{Fault, MAX_FOLLOWED, OngoingCall, Step, Store};
use crate::mistakes::{Mistake, made};
use crate::raft::{Index, Payload, Position, Raft};

impl<S: Clone> Store<S> {
    /// Begins to load the snapshot that has arrived, if there is one.
    pub(super) fn load(&mut self) -> Option<Call<S>> {
        let snapshot = self.incoming_snapshot.take()?;
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

    /// A snapshot could not be loaded, so this node does not know the state. It still keeps its log
    /// and votes, but it judges nothing.
    pub(super) fn cannot_load(&mut self, failure: Failure) {
        self.broken = true;
        self.faults.push(Fault::CannotLoad(failure));
    }

    /// Whether this node is unfit to lead, because it could not load a snapshot.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    pub(super) fn loaded(&mut self, last: Position, sessions: Sessions, state: S) {
        self.broken = false;
        self.log_bytes = 0;
        self.client.handle_snapshot(&sessions, last.index);
        self.replica.load(last.index, state, sessions);
        self.ongoing = OngoingCall::Idle;
    }

    /// Applies the committed entries whose states are known, up to one for which subscribers must
    /// be called.
    pub(super) fn apply(&mut self, commit: Index) -> Option<Call<S>> {
        while let Some(entry) = self.replica.apply_next(commit) {
            let TailEntry { at, command, has_effect, size, failure, .. } = entry;
            let index = at.index;
            self.log_bytes += size;
            let Some(command) = command.filter(|_| has_effect) else { continue };
            self.settle_own(index, &command);
            // A new node of an old handle may not have reached the entry that opened the session.
            // Until then a missing session does not mean that it was closed.
            let is_closed =
                |mine: SessionId| mine <= index && self.replica.sessions.get(mine).is_none();
            if self.client.session().is_some_and(is_closed) {
                self.client.handle_session_closed();
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

    /// Reports to the client what a command in the entry at `index` means for its session and its
    /// performs.
    pub(super) fn settle_own(&mut self, index: Index, command: &Command) {
        let mine = self.client.session();
        match command {
            Command::Open { nonce, .. } => self.client.handle_session_opened(index, *nonce),
            Command::Action { session, seq, verdicts, action, .. } if mine == Some(*session) => {
                for (seq, verdict) in verdicts {
                    self.client.handle_recorded(*seq, index, Recorded::Verdict(verdict.clone()));
                }
                self.client.handle_recorded(*seq, index, Recorded::Action(action.clone()));
            }
            _ => {}
        }
    }

    /// Whether the state behind the last entry of the log is known.
    pub(super) fn has_followed(&self, raft: &Raft) -> bool {
        self.replica.followed() >= raft.log().last().index
    }

    /// Adds the next entries of the log to the tail, up to one that the reducer must run on. Stops
    /// at [`MAX_FOLLOWED`] entries, because each state may be a copy of a long list; a node that
    /// starts can have a longer uncommitted log.
    pub(super) fn follow_log(&mut self, raft: &Raft) -> Option<Call<S>> {
        while self.replica.tail_len() < MAX_FOLLOWED {
            let next = self.replica.followed() + 1;
            let logged = raft.entry(next)?;
            debug_assert!(self.staged.is_empty(), "staged commands are the end of the log");
            let mut entry = TailEntry {
                at: logged.at,
                command: None,
                has_effect: false,
                size: logged.payload.size(),
                state: (),
                failure: None,
            };
            if let Payload::Command(data) = &logged.payload {
                match postcard::from_bytes::<Command>(data.as_slice()) {
                    Ok(command) => {
                        entry.has_effect = self.replica.tip_sessions.apply(next, &command);
                        entry.command = Some(command);
                    }
                    Err(_) => self.faults.push(Fault::BadEntry(next)),
                }
            }
            let state = self.replica.tip.clone();
            if let Some(action) = entry.action().cloned() {
                self.ongoing = OngoingCall::Reducing(entry);
                return Some(Call::Reduce { state, action });
            }
            self.replica.push(entry, Ok(state));
        }
        None
    }

    /// Begins to save the committed state, if the log has grown enough since the last snapshot.
    pub(super) fn save(&mut self, raft: &Raft) -> Option<Call<S>> {
        let threshold = self.config.compact_bytes.max(self.snapshot_bytes);
        if self.log_bytes < threshold || self.replica.applied <= raft.log().base().index {
            return None;
        }
        let term = raft.log().term(self.replica.applied)?;
        self.ongoing = OngoingCall::Saving(Position::new(self.replica.applied, term));
        Some(Call::Save(self.replica.committed.clone()))
    }

    /// The state was saved: the log up to `last` can be replaced by a snapshot.
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
