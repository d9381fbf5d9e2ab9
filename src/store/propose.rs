//! What a leader does: runs methods, stages the resulting actions, and proposes them as one append.

use super::judge::{Job, Task};
use super::machine::{Call, Failure, Performer};
use super::message::Request;
use super::sessions::{Command, Session, Verdict};
use super::{MAX_TAIL, OngoingCall, Staged, Step, Store, encode};
use crate::mistakes::{Mistake, made};
use crate::raft::{Blob, Index, Payload, Position, Raft, Refused};

impl<S: Clone> Store<S> {
    /// The leader's next step: judge a perform, propose what is staged, or have leadership
    /// confirmed. Performs are judged first, so that one turn makes one append and one
    /// confirmation.
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

    /// Stages the sessions to open and to close.
    pub(super) fn stage_sessions(&mut self, raft: &Raft) {
        let opens = std::mem::take(&mut self.open_requests);
        let closes = std::mem::take(&mut self.close_requests);
        let name =
            |id| raft.members().get(id).map_or_else(Blob::default, |m| m.name.as_str().into());
        let opens = opens
            .into_iter()
            .map(|(nonce, id)| Command::Open { nonce, by: Performer { id, name: name(id) } });
        let closes = closes.into_iter().map(|session| Command::Close { session });
        for command in opens.chain(closes) {
            let encoded = encode(&command);
            let size = Payload::Command(encoded.clone()).size();
            // A command too many would make Raft refuse all that is staged. Clients ask again.
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
