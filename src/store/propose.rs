//! Leading: judging performs, staging what they bring, proposing it as one append.

use super::judge::{Job, Task};
use super::machine::{Call, Failure, Performer};
use super::message::Request;
use super::sessions::{Command, Session, Verdict};
use super::{MAX_TAIL, OngoingCall, Staged, Step, Store, encode};
use crate::mistakes::{Mistake, made};
use crate::raft::{Blob, Index, Payload, Position, Raft, Refused};

impl<S: Clone> Store<S> {
    /// The leader's part: judge the next perform, or propose and confirm what was judged.
    pub(super) fn lead(&mut self, raft: &Raft) -> Step<S> {
        let is_able = !self.broken && self.has_followed(raft);
        let Some(judge) = self.judge.as_mut().filter(|_| is_able) else { return Step::Idle };
        if raft.takes_proposals() {
            while self.replica.tail_len() + self.staged.len() < MAX_TAIL
                && let Some(job) = judge.take_job()
            {
                match self.replica.tip_sessions.get(job.session) {
                    Some(session) if session.has_run(job.seq) => continue,
                    None if !made(Mistake::ExpiredSessionRuns) => continue,
                    _ => {}
                }
                let index = self.staged.len() as Index + raft.log().last().index;
                match &job.task {
                    Task::Refuse(failure) => {
                        let verdict = Verdict::Failed(failure.clone());
                        judge.hold(job.session, job.seq, verdict, index);
                    }
                    Task::Request(Request { method: None, .. }) => {
                        judge.hold(job.session, job.seq, Verdict::Skipped, index);
                    }
                    Task::Request(Request { method: Some(method), args }) => {
                        let call = Call::Judge { method: method.clone(), args: args.clone() };
                        self.ongoing = OngoingCall::Judging(job);
                        return Step::Call(call);
                    }
                }
            }
            self.stage_sessions(raft);
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

    /// Stages the openings and closings of sessions that clients asked for.
    pub(super) fn stage_sessions(&mut self, raft: &Raft) {
        let opens = std::mem::take(&mut self.open_wanted);
        let closes = std::mem::take(&mut self.close_wanted);
        let name =
            |id| raft.members().get(id).map_or_else(Blob::default, |m| m.name.as_str().into());
        let opens = opens
            .into_iter()
            .map(|(nonce, id)| Command::Open { nonce, by: Performer { id, name: name(id) } });
        let closes = closes.into_iter().map(|session| Command::Close { session });
        for command in opens.chain(closes) {
            let encoded = encode(&command);
            let size = Payload::Command(encoded.clone()).size();
            // Clients ask again; a batch that does not fit would be refused whole.
            if raft.has_room(self.staged_bytes + size)
                && self.replica.tip_sessions.apply(self.next_index(raft), &command)
            {
                let state = self.replica.tip.clone();
                self.stage(Staged { command, encoded, state });
            }
        }
    }

    /// The index that the next staged command will get.
    pub(super) fn next_index(&self, raft: &Raft) -> Index {
        raft.log().last().index + self.staged.len() as Index + 1
    }

    pub(super) fn judged(
        &mut self,
        raft: &Raft,
        job: Job,
        result: Result<Option<Blob>, Failure>,
    ) -> Step<S> {
        let action = match result {
            Ok(Some(action)) => action,
            Ok(None) => return self.hold_then_idle(raft, &job, Verdict::Nothing),
            Err(failure) => return self.hold_then_idle(raft, &job, Verdict::Failed(failure)),
        };
        let length = action.len();
        let Some(judge) = &self.judge else { return Step::Idle };
        let (session, seq) = (job.session, job.seq);
        let recorded = self.replica.tip_sessions.get(session).map_or(seq, Session::next);
        let (ack, verdicts) = judge.carried(session, recorded, seq);
        let call = Call::Reduce { state: self.replica.tip.clone(), action: action.clone() };
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
        self.hold_then_idle(raft, &job, Verdict::Failed(refusal))
    }

    pub(super) fn hold_then_idle(&mut self, raft: &Raft, job: &Job, verdict: Verdict) -> Step<S> {
        self.hold(raft, job, verdict);
        Step::Idle
    }

    pub(super) fn hold(&mut self, raft: &Raft, job: &Job, verdict: Verdict) {
        let last = raft.log().last().index;
        if let Some(judge) = &mut self.judge {
            judge.hold(job.session, job.seq, verdict, last + self.staged.len() as Index);
        }
    }

    pub(super) fn stage(&mut self, staged: Staged<S>) {
        self.replica.tip = staged.state.clone();
        self.staged_bytes += staged.size();
        self.staged.push(staged);
    }

    /// Says how a proposal went. On success the staged commands are entries from `first` on.
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

    /// Forgets what was staged: it will not be proposed.
    pub(super) fn unstage(&mut self) {
        if !self.staged.is_empty() {
            self.staged.clear();
            self.staged_bytes = 0;
            self.replica.rewind();
        }
    }
}
