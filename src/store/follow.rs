//! What every node does: reduces entries when they arrive in its log, applies them when they are
//! committed, and saves and loads snapshots.

use super::check::Health;
use super::machine::{Call, Committed, Failure};
use super::release::{Relation, is_newer};
use super::replica::{Meta, TailEntry};
use super::sessions::{Command, Recorded, Session, SessionId};
use super::snapshot::decode_snapshot;
use super::{MAX_FOLLOWED, OngoingCall, Store};
use crate::mistakes::{Mistake, made};
use crate::raft::{Index, Payload, Position, Raft};

impl<S: Clone> Store<S> {
    /// Begins to load the snapshot that has arrived, if there is one.
    pub(super) fn load(&mut self) -> Option<Call<S>> {
        let snapshot = self.incoming_snapshot.take()?;
        match decode_snapshot(snapshot.data.as_slice()) {
            Some(contents) => {
                let meta = contents.meta(self.config.max_sessions, snapshot.last.index);
                self.checks.snapshot_bytes = snapshot.data.len();
                if contents.version != self.config.version {
                    self.checks.log_bytes = 0;
                    self.skip_state(snapshot.last.index, meta);
                    return None;
                }
                self.ongoing = OngoingCall::Loading(snapshot.last, meta);
                Some(Call::Load(contents.state))
            }
            None => {
                self.cannot_load(&Failure::new("BAD_SNAPSHOT", "the snapshot cannot be read"));
                None
            }
        }
    }

    /// A state could not be loaded, so this node does not know the state. It still keeps its log
    /// and votes, but it judges nothing.
    pub(super) fn cannot_load(&mut self, failure: &Failure) {
        let message = format!("the state of the cluster cannot be loaded: {}", failure.message);
        self.stop(Failure::new("CANNOT_LOAD", message));
    }

    /// A snapshot was loaded.
    pub(super) fn loaded(&mut self, last: Position, meta: Meta, state: S) {
        self.checks.log_bytes = 0;
        self.fetch = None;
        self.load_state(last, meta, state);
    }

    /// Replaces the state by a good one.
    pub(super) fn load_state(&mut self, last: Position, meta: Meta, state: S) {
        self.checks.forget_states();
        self.set_health(Health::Sound);
        self.client.refuse(None);
        self.client.pause(false);
        self.client.handle_snapshot(&meta.sessions, last.index);
        self.replica.load(last.index, state, meta);
    }

    /// Applies the committed entries whose states are known, up to one for which subscribers must
    /// be called.
    pub(super) fn apply(&mut self, commit: Index) -> Option<Call<S>> {
        // While a good state is on its way, nothing is applied to the wrong one: if this node went
        // on, the state might never be new enough when its last chunk arrives.
        while self.checks.health != Health::Diverged
            && let Some(entry) = self.replica.apply_next(commit)
        {
            let TailEntry { at, command, has_effect, size, failure, .. } = entry;
            let index = at.index;
            // Before anything is settled: a read must not be settled with a state that stands still.
            if let Some(Command::Found { version, .. } | Command::Upgrade { version, .. }) =
                &command
                && has_effect
            {
                self.release_changed(*version);
            }
            self.checks.applied(size);
            if let Some(failure) = failure {
                self.failed_entry(index, command.as_ref(), failure);
            }
            let Some(command) = command.filter(|_| has_effect) else { continue };
            self.settle_own(index, &command);
            // A new node of an old handle may not have reached the entry that opened the session.
            // Until then a missing session does not mean that it was closed.
            let is_closed =
                |mine: SessionId| mine <= index && self.replica.meta.sessions.get(mine).is_none();
            if self.client.session().is_some_and(is_closed) {
                self.client.handle_session_closed(index);
            }
            self.client.settle_in_order(index);
            if let Some(call) = self.applied_command(at, command) {
                return Some(call);
            }
        }
        self.client.settle_in_order(self.replica.applied);
        None
    }

    /// A command with an effect is applied. Returns the user code to run because of it.
    fn applied_command(&mut self, at: Position, command: Command) -> Option<Call<S>> {
        let relation = self.relation();
        let action = match command {
            // The state that the user sees stands still.
            Command::Action { .. } | Command::Found { .. } | Command::Upgrade { .. }
                if relation != Relation::Current =>
            {
                return None;
            }
            Command::Action { session, action, .. } => {
                let session = self.replica.meta.sessions.get(session);
                Some((session.map(Session::by).cloned().unwrap_or_default(), action))
            }
            // It could not be loaded.
            Command::Found { .. } | Command::Upgrade { .. }
                if self.checks.health == Health::Stopped =>
            {
                return None;
            }
            Command::Found { .. } | Command::Upgrade { .. } => None,
            Command::Check { version } => return self.check_state(at, version),
            Command::Checked { check, hash } => {
                self.checked(check, hash);
                return None;
            }
            Command::Open { .. } | Command::Close { .. } | Command::Acknowledge { .. } => {
                return None;
            }
        };
        self.ongoing = OngoingCall::Notifying;
        Some(Call::Committed(Committed { at, action }))
    }

    /// A committed entry could not be read, or user code failed on it. The state did not change.
    fn failed_entry(&mut self, index: Index, command: Option<&Command>, failure: Failure) {
        match command {
            Some(Command::Found { .. } | Command::Upgrade { .. }) => self.cannot_load(&failure),
            Some(Command::Action { action, .. }) => {
                self.suspect(index, Some(action.clone()), failure);
            }
            _ => self.suspect(index, None, failure),
        }
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
                        entry.has_effect = self.replica.tip_meta.apply(next, &command);
                        entry.command = Some(command);
                    }
                    Err(_) if is_newer(data) => {
                        self.stop(Failure::new(
                            "OUTDATED",
                            "the cluster runs a newer release of Conflux, with commands that this \
                             one does not know: load the newer release",
                        ));
                        return None;
                    }
                    Err(_) => {
                        let failure = Failure::new("BAD_ENTRY", "the entry is damaged");
                        self.replica.push(entry, Err(failure));
                        continue;
                    }
                }
            }
            let reduces = self.may_reduce();
            let loads = entry.loads().filter(|_| reduces && !made(Mistake::FirstStateLocal));
            if let Some(Command::Upgrade { .. }) = &entry.command
                && loads.is_some()
                && made(Mistake::MigrationRecomputed)
            {
                let state = self.replica.tip.clone();
                self.ongoing = OngoingCall::Recomputing(entry);
                return Some(Call::Migrate { state, from: 1 });
            }
            if let Some(state) = loads.cloned() {
                self.ongoing = OngoingCall::Reducing(entry);
                return Some(Call::Load(state));
            }
            let state = self.replica.tip.clone();
            if let Some(action) = entry.action().filter(|_| reduces).cloned() {
                self.ongoing = OngoingCall::Reducing(entry);
                return Some(Call::Reduce { state, action, proposed: false });
            }
            self.replica.push(entry, Ok(state));
        }
        None
    }
}
