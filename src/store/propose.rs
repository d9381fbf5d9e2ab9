//! What a leader does: runs methods, stages the resulting actions, and proposes them as one append.

use super::check::Health;
use super::judge::{Job, Judge, Task};
use super::machine::{Call, Failure, Performer};
use super::message::Request;
use super::release::Relation;
use super::sessions::{Command, Session, SessionRef, Verdict};
use super::{CARETAKER, MAX_TAIL, OngoingCall, Staged, Step, Store, encode};
use crate::mistakes::{Mistake, made};
use crate::raft::{Blob, Index, Payload, Position, Raft, Refused};

impl<S: Clone> Store<S> {
    /// The leader's next step: judge a perform, propose what is staged, or have leadership
    /// confirmed. Performs are judged first, so that one turn makes one append and one
    /// confirmation.
    pub(super) fn lead(&mut self, raft: &Raft) -> Step<S> {
        if !self.has_followed(raft) || self.checks.health == Health::Stopped {
            return Step::Idle;
        }
        if raft.takes_proposals() {
            if let Some(successor) = self.releases.successor.take() {
                return Step::Transfer(successor);
            }
            if self.is_fit()
                && let Some(call) = self.found(raft)
            {
                return Step::Call(call);
            }
            if let step @ (Step::Call(_) | Step::Propose(_)) = self.migrate(raft) {
                return step;
            }
        }
        // A burst of performs must not delay a check.
        if raft.takes_proposals() && self.is_overdue(raft) {
            self.stage_checks(raft);
        }
        let may_judge = self.may_judge();
        let Some(judge) = self.judge.as_mut() else { return Step::Idle };
        if raft.takes_proposals() {
            while self.replica.tail_len() + self.staged.len() < MAX_TAIL
                && let Some(job) = if may_judge { judge.take_job() } else { judge.take_skip() }
            {
                match self.replica.tip_meta.sessions.get(job.session) {
                    Some(session) if session.has_run(job.seq) => continue,
                    None if !made(Mistake::ExpiredSessionRuns) => continue,
                    _ => {}
                }
                let index = self.staged.len() as Index + raft.log().last().index;
                match &job.task {
                    Task::Refuse(failure) => {
                        let verdict = Verdict::Failed(failure.clone());
                        judge.add_verdict(job.session, job.seq, verdict, index);
                    }
                    Task::Request(Request { method: None, .. }) => {
                        judge.add_verdict(job.session, job.seq, Verdict::Skipped, index);
                    }
                    Task::Request(Request { method: Some(method), args }) => {
                        let call = Call::Judge { method: method.clone(), args: args.clone() };
                        self.ongoing = OngoingCall::Judging(job);
                        return Step::Call(call);
                    }
                }
            }
            if may_judge {
                self.stage_sessions(raft);
            }
            self.stage_checks(raft);
            if !self.staged.is_empty() {
                let commands = self.staged.iter().map(|staged| staged.encoded.clone()).collect();
                return Step::Propose(commands);
            }
        }
        let id = self.next_confirmation;
        if let Some(at_least) = self.judge.as_mut().and_then(|judge| judge.take_confirmation(id)) {
            self.next_confirmation += 1;
            return Step::Confirm { id, at_least };
        }
        Step::Idle
    }

    /// Whether this node may judge performs while it leads: it knows the cluster's state.
    fn may_judge(&self) -> bool {
        let is_known = self.replica.meta.release.is_some() && self.relation() == Relation::Current;
        self.is_fit() && self.may_reduce() && is_known || self.judges_outdated()
    }

    /// Begins to save the first state of the cluster, if the log has none. The state of a log that
    /// an earlier build began is the one so far.
    fn found(&mut self, raft: &Raft) -> Option<Call<S>> {
        // A state of any size has room behind a log that is committed to its end.
        let is_committed = raft.commit_index() == raft.log().last().index;
        let may_found = is_committed && self.config.version != CARETAKER;
        if self.replica.tip_meta.release.is_some() || !may_found {
            return None;
        }
        self.ongoing = OngoingCall::Founding;
        Some(Call::Save(self.replica.tip.clone()))
    }

    /// The first state of the cluster was saved.
    pub(super) fn first_state_saved(
        &mut self,
        raft: &Raft,
        saved: Result<Vec<u8>, Failure>,
    ) -> Step<S> {
        match saved {
            Ok(state) if raft.takes_proposals() => {
                let (version, state) = (self.config.version, state.into());
                // It is followed like any entry, so this node, too, has the state as it is loaded.
                Step::Propose(vec![encode(&Command::Found { version, state })])
            }
            Ok(_) => Step::Idle,
            Err(failure) => {
                let message = format!("the first state cannot be saved: {}", failure.message);
                self.stop(Failure::new("CANNOT_SAVE", message));
                Step::Idle
            }
        }
    }

    /// Stages the sessions to open and to close, and outcomes that need not be kept any more.
    pub(super) fn stage_sessions(&mut self, raft: &Raft) {
        for (nonce, id) in std::mem::take(&mut self.open_requests) {
            let closed = self.replica.tip_meta.sessions.next_to_close();
            let may_close = |judge: &Judge| closed.is_none_or(|id| judge.may_close(id, self.now));
            if !self.judge.as_ref().is_some_and(may_close) {
                continue; // The client asks again.
            }
            let name =
                raft.members().get(id).map_or_else(Blob::default, |m| m.name.as_str().into());
            let session = self.next_index(raft);
            let command = Command::Open { nonce, by: Performer { id, name } };
            if self.stage_unreduced(raft, command)
                && let Some(judge) = &mut self.judge
            {
                judge.opened(session, self.now, closed);
            }
        }
        for SessionRef { id, .. } in std::mem::take(&mut self.close_requests) {
            self.stage_unreduced(raft, Command::Close { session: id });
        }
        let acknowledged = self.judge.as_mut().map(Judge::take_acknowledged);
        for (session, ack) in acknowledged.into_iter().flatten() {
            self.stage_unreduced(raft, Command::Acknowledge { session, ack });
        }
    }

    /// Stages a command that does not change the state, if it has an effect and there is room for
    /// it: a command too many would make Raft refuse all that is staged. Returns whether it is
    /// staged.
    pub(super) fn stage_unreduced(&mut self, raft: &Raft, command: Command) -> bool {
        let encoded = encode(&command);
        let size = Payload::Command(encoded.clone()).size();
        let is_staged = raft.has_room(self.staged_bytes + size)
            && self.replica.tip_meta.apply(self.next_index(raft), &command);
        if is_staged {
            let state = self.replica.tip.clone();
            self.stage(Staged { command, encoded, state });
        }
        is_staged
    }

    /// The index that the next staged command will get.
    pub(super) fn next_index(&self, raft: &Raft) -> Index {
        raft.log().last().index + self.staged.len() as Index + 1
    }

    /// A method returned: its action is reduced before it is staged, or its verdict is added.
    pub(super) fn judged(
        &mut self,
        raft: &Raft,
        job: Job,
        result: Result<Option<Blob>, Failure>,
    ) -> Step<S> {
        let action = match result {
            Ok(Some(action)) => action,
            Ok(None) => return self.add_verdict_then_idle(raft, &job, Verdict::Nothing),
            Err(failure) => {
                return self.add_verdict_then_idle(raft, &job, Verdict::Failed(failure));
            }
        };
        let length = action.len();
        let Some(judge) = &self.judge else { return Step::Idle };
        let (session, seq) = (job.session, job.seq);
        let recorded = self.replica.tip_meta.sessions.get(session).map_or(seq, Session::next);
        let (ack, verdicts) = judge.carried(session, recorded, seq);
        let state = self.replica.tip.clone();
        let call = Call::Reduce { state, action: action.clone(), proposed: true };
        let version = self.config.version;
        let command = Command::Action { version, session, seq, ack, verdicts, action };
        let encoded = encode(&command);
        let size = self.staged_bytes + Payload::Command(encoded.clone()).size();
        let refusal = if length > self.config.max_action_bytes {
            Failure::new(
                "TOO_LARGE",
                format!(
                    "the action is {length} bytes, and maxActionBytes is {}",
                    self.config.max_action_bytes
                ),
            )
        } else if !raft.has_room(size) {
            Failure::new(
                "BUSY",
                "too many actions are waiting to be committed: await some of them first",
            )
        } else {
            self.ongoing = OngoingCall::Staging(job, command, encoded);
            return Step::Call(call);
        };
        self.add_verdict_then_idle(raft, &job, Verdict::Failed(refusal))
    }

    pub(super) fn add_verdict_then_idle(
        &mut self,
        raft: &Raft,
        job: &Job,
        verdict: Verdict,
    ) -> Step<S> {
        self.add_verdict(raft, job, verdict);
        Step::Idle
    }

    /// Adds a verdict that was judged against the log and everything that is staged.
    pub(super) fn add_verdict(&mut self, raft: &Raft, job: &Job, verdict: Verdict) {
        let last = raft.log().last().index;
        if let Some(judge) = &mut self.judge {
            judge.add_verdict(job.session, job.seq, verdict, last + self.staged.len() as Index);
        }
    }

    pub(super) fn stage(&mut self, staged: Staged<S>) {
        self.replica.tip = staged.state.clone();
        self.staged_bytes += staged.size();
        self.staged.push(staged);
    }

    /// Raft has answered [`Step::Propose`]. On success the staged commands are the entries from the
    /// returned index on.
    pub fn proposed(&mut self, raft: &Raft, result: Result<Index, Refused>) {
        let Ok(first) = result else {
            debug_assert!(!raft.is_leader(), "what is staged fits, and was staged in this turn");
            return self.unstage();
        };
        self.staged_bytes = 0;
        for (index, staged) in (first..).zip(std::mem::take(&mut self.staged)) {
            let at = Position::new(index, raft.term());
            let size = staged.size();
            let Staged { command, state, .. } = staged;
            self.replica.push_staged(at, command, size, state);
        }
    }

    /// Discards what is staged: this node does not lead any more. The clients send those performs
    /// again.
    pub(super) fn unstage(&mut self) {
        if !self.staged.is_empty() {
            self.staged.clear();
            self.staged_bytes = 0;
            self.replica.rewind();
        }
    }
}
