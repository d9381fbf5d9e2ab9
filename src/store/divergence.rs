//! What a node does at a check ([`super::check`]), and when its state is wrong.

use super::check::{Health, MAX_UNCHECKED, OwnState};
use super::machine::{Call, Failure};
use super::message::{Body, Hash, Message};
use super::sessions::{Command, Sessions};
use super::snapshot::encode_checked;
use super::{Fault, OngoingCall, Step, Store};
use crate::mistakes::{Mistake, made};
use crate::raft::{Blob, Index, Position, Raft, Time};

impl<S: Clone> Store<S> {
    /// Whether this node may judge performs and give its state to others.
    pub fn is_fit(&self) -> bool {
        let is_sound = self.checks.health == Health::Sound && !self.replica.has_failed();
        is_sound || made(Mistake::DivergedLeads)
    }

    /// While the state may be wrong, nothing is settled that the user could compare with it.
    pub(super) fn set_health(&mut self, health: Health) {
        self.checks.health = health;
        self.client.hold(matches!(health, Health::Suspect(_) | Health::Diverged));
    }

    fn is_suspect(&self) -> bool {
        matches!(self.checks.health, Health::Suspect(_))
    }

    /// Whether the state of this node is wrong or unknown, and will not be mended.
    pub fn is_stopped(&self) -> bool {
        self.checks.health == Health::Stopped
    }

    /// How many bytes of log are worth a snapshot.
    pub(super) fn snapshot_threshold(&self) -> usize {
        self.config.compact_bytes.max(self.checks.snapshot_bytes)
    }

    /// Whether the states were last checked so long ago that the next check is due.
    pub(super) fn is_overdue(&self, raft: &Raft) -> bool {
        self.next_index(raft) - 1 - self.replica.tip_meta.check >= MAX_UNCHECKED
            || self.checks.unchecked_bytes >= self.snapshot_threshold()
    }

    /// Stages the next check, or the right hash of the last one. A leader that is not fit does this
    /// as well: the check may find that it is.
    pub(super) fn stage_checks(&mut self, raft: &Raft) {
        let open = self.replica.tip_meta.open_check;
        let is_overdue = self.is_overdue(raft);
        if let Some(check) = open.filter(|_| self.replica.meta.open_check == open)
            && let Some(hash) = self.checks.right_hash(check, raft, is_overdue)
        {
            self.stage_unreduced(raft, Command::Checked { check, hash });
        } else if self.replica.tip_meta.release == Some(self.config.version)
            && self.replica.meta.release == Some(self.config.version)
            && (is_overdue || (self.checks.wanted && open.is_none()))
        {
            let version = self.config.version;
            if self.stage_unreduced(raft, Command::Check { version }) {
                (self.checks.unchecked_bytes, self.checks.wanted) = (0, false);
            }
        }
    }

    /// The check at `at` is applied: begins to save the state.
    pub(super) fn check_state(&mut self, at: Position, version: u32) -> Option<Call<S>> {
        self.checks.unchecked_bytes = 0;
        let is_mine = self.replica.meta.release == Some(self.config.version);
        if version != self.config.version || !is_mine || self.checks.health == Health::Stopped {
            self.keep_own(at, None, Blob::from(""));
            return None;
        }
        self.ongoing = OngoingCall::Checking(at);
        Some(Call::Save(self.replica.committed.clone()))
    }

    /// The state at the check was saved.
    pub(super) fn state_saved(
        &mut self,
        at: Position,
        result: Result<Vec<u8>, Failure>,
    ) -> Step<S> {
        match result {
            Ok(bytes) => {
                let (version, sessions) = (self.config.version, &self.replica.meta.sessions);
                let (mut data, hash) = encode_checked(version, sessions, &bytes);
                if made(Mistake::SessionsNotInSnapshot) {
                    (data, _) = encode_checked(version, &Sessions::default(), &bytes);
                }
                if made(Mistake::SnapshotUnconfirmed) {
                    return self.compact(at, data);
                }
                self.keep_own(at, Some(hash), data);
            }
            Err(failure) => {
                self.faults.push(Fault::CannotSave(failure));
                self.keep_own(at, None, Blob::from(""));
                // No check can show that this state is right, so it must not ask for more of them.
                if self.is_suspect() {
                    self.diverged(at.index);
                }
            }
        }
        Step::Idle
    }

    fn keep_own(&mut self, at: Position, hash: Option<u64>, data: Blob) {
        let log_bytes = self.checks.log_bytes;
        self.checks.own = Some(OwnState { at, hash, data, log_bytes });
        self.checks.send_at = 0;
    }

    pub(super) fn compact(&mut self, last: Position, data: Blob) -> Step<S> {
        self.checks.snapshot_bytes = data.len();
        Step::Compact { last, data }
    }

    /// The next snapshot, if there is one to make.
    pub(super) fn take_confirmed(&mut self) -> Option<Step<S>> {
        let (last, data) = self.checks.confirmed.take()?;
        Some(self.compact(last, data))
    }

    /// The right hash of a check is committed.
    pub(super) fn checked(&mut self, check: Index, hash: u64) {
        let Some(own) = self.checks.own.take_if(|own| own.at.index == check) else { return };
        match own.hash {
            None => {}
            Some(same) if same == hash => {
                if matches!(self.checks.health, Health::Suspect(at) if at < check) {
                    self.set_health(Health::Sound);
                }
                // Nodes do not count exactly alike, and all should make their snapshots at the
                // checks that the leader proposes for this purpose.
                if 2 * own.log_bytes >= self.snapshot_threshold() {
                    // A snapshot from the leader may have begun the count anew since the check.
                    self.checks.log_bytes = self.checks.log_bytes.saturating_sub(own.log_bytes);
                    self.checks.confirmed = Some((own.at, own.data));
                }
            }
            Some(_) => self.diverged(check),
        }
    }

    /// This node's state is another one than that of the others.
    fn diverged(&mut self, check: Index) {
        if self.checks.health == Health::Diverged {
            return; // A good state is on its way.
        }
        if self.checks.health == Health::Sound {
            let message = "the state here differs from the state of the other nodes, and no reducer \
                           failed: is the reducer deterministic, and is the state changed by \
                           nothing else?";
            self.report_divergence(check, None, Failure::new("DIVERGED", message));
        }
        let again = self.checks.mended.is_some_and(|at| check < at.saturating_add(MAX_UNCHECKED));
        if again {
            return self.stop(Failure::new(
                "DIVERGED",
                "the state of this node differs from the others' again soon after it was replaced \
                 by theirs: the reducer does not compute here what it computes there",
            ));
        }
        self.set_health(Health::Diverged);
        self.fetch_state();
    }

    /// The reducer failed on a committed entry, or the entry cannot be read.
    pub(super) fn suspect(&mut self, index: Index, action: Option<Blob>, failure: Failure) {
        self.report_divergence(index, action, failure);
        if let Health::Sound | Health::Suspect(_) = self.checks.health {
            self.set_health(Health::Suspect(index));
            self.checks.send_at = 0;
        }
    }

    fn report_divergence(&mut self, index: Index, action: Option<Blob>, failure: Failure) {
        self.faults.push(Fault::Diverged { index, action, failure });
    }

    /// This node's state is wrong or unknown for good. It still keeps its log and votes.
    pub(super) fn stop(&mut self, failure: Failure) {
        self.checks.forget_states();
        self.fetch = None;
        self.set_health(Health::Stopped);
        self.client.refuse(Some(failure.clone()));
        self.faults.push(Fault::Stopped(failure));
    }

    /// What this node has to tell the leader of its checks: its hash of the open check, or that it
    /// wants one.
    pub(super) fn take_check_messages(&mut self, now: Time, raft: &Raft) {
        let open = self.replica.meta.open_check;
        let suspect = self.checks.health != Health::Sound;
        let own = self.checks.own.as_ref();
        let own = own.map(|own| (own.at.index, own.hash.map(|hash| Hash { hash, suspect })));
        let body = match open {
            Some(check) => match own {
                Some((at, hash)) if at == check => Body::Hash { check, hash },
                // The state was replaced by one from behind the check.
                _ => Body::Hash { check, hash: None },
            },
            None if self.is_suspect() => Body::Check,
            None => return,
        };
        // A node with newer code may compute the right state, and then it is the one to come.
        if self.can_migrate() && matches!(body, Body::Hash { hash: None, .. }) {
            return;
        }
        let Some(leader) = raft.leader() else { return };
        let is_voter = raft.members().is_voter(raft.id());
        if now < self.checks.send_at {
            return;
        }
        self.checks.send_at = now + self.config.retry;
        if is_voter || body == Body::Check {
            self.outbox.push((leader, Message { term: raft.term(), body }));
        }
    }

    /// When [`Self::take_check_messages`] has something to send again.
    pub(super) fn check_deadline(&self) -> Option<Time> {
        let answers = self.replica.meta.open_check.is_some() && !self.can_migrate();
        (answers || self.is_suspect()).then_some(self.checks.send_at)
    }
}
