//! The client's side of a session: numbers performs, sends them to the leader until their outcome
//! is known, and settles them in order.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::machine::Failure;
use super::message::{Body, Request};
use super::sessions::{Recorded, Seq, Session, SessionId, SessionRef, Sessions, Verdict};
use crate::raft::{Blob, Index, NodeId, Term, Time};
use crate::sorted::SortedMap;

/// A perform as the user asked for it.
#[derive(Clone, Debug)]
pub struct Perform {
    /// The caller's number for this perform; [`Settled`] names it.
    pub ticket: u64,
    /// The method's name.
    pub method: String,
    /// Its arguments.
    pub args: Blob,
    /// After how many ms the perform is settled with `TIMEOUT`.
    pub timeout: Option<Time>,
}

/// The end of a perform or a read. Each ticket is settled exactly once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The caller's number.
    pub ticket: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a perform or a read ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This action was committed, and applied here.
    Action(Blob),
    /// The method returned no action; or, for a read, the state here is new enough.
    Nothing,
    /// Nothing was appended; or, with the codes `TIMEOUT`, `CLOSED` and `OUTCOME_UNKNOWN`,
    /// something may have been.
    Failed(Failure),
}

/// The longest name of a method, in bytes. It is limited because every chunk of large arguments
/// carries the name.
const MAX_NAME: usize = 1024;
/// How many performs may be in flight at once.
const WINDOW: u64 = 4096;
/// A perform is given up when so many leaders in a row have fallen silent over it.
const MAX_SILENT: u32 = 3;

#[derive(Debug)]
struct Pending {
    perform: Perform,
    /// The perform was settled with `TIMEOUT`. It is kept until its outcome is known: if the leader
    /// has not run the perform, a request without a method takes its number, so that the perform
    /// never runs behind a later one.
    timed_out: bool,
    /// The perform must not run any more, but it may have run already: it is settled when that is
    /// known.
    withdrawn: bool,
    /// When the perform times out.
    deadline: Option<Time>,
    /// The outcome, and the index that this node must have applied before it settles the perform.
    outcome: Option<(Outcome, Index)>,
}

impl Pending {
    /// The bytes of the method's name and the arguments.
    fn size(&self) -> usize {
        self.perform.args.len() + self.perform.method.len()
    }
}

#[derive(Debug)]
struct PendingRead {
    ticket: u64,
    /// The index that this node must have applied, once the leader has sent it.
    index: Option<Index>,
}

/// The performs, the reads and the session of one node's handle.
#[derive(Debug)]
pub(super) struct Client {
    rng: Xoshiro256PlusPlus,
    /// The random number under which the session is opened. It tells the client which of the
    /// sessions in the log is its own.
    nonce: u64,
    session: Option<SessionId>,
    /// The number of the next perform.
    next_seq: Seq,
    /// The performs from `next_seq - pending.len()` on. A slot is `None` if its perform is settled
    /// but an earlier one is not: that happens when the earlier one has timed out.
    pending: VecDeque<Option<Pending>>,
    /// How many slots of `pending` are `None`.
    empty_slots: usize,
    /// The bytes of method names and arguments in `pending`.
    pending_bytes: usize,
    /// When performs time out, earliest first. Settled performs are removed late.
    timeouts: BinaryHeap<Reverse<(Time, Seq)>>,
    reads: SortedMap<u64, PendingRead>,
    /// The number of the next read.
    next_read: u64,
    /// The first read that was not sent to this leader, or is to be sent again.
    send_read: u64,
    leader: Option<(NodeId, Term)>,
    /// The first request that was not sent to this leader, or is to be sent again.
    send_next: Seq,
    /// The first request that this leader has not received completely, and how many bytes of the
    /// request's arguments it has.
    received: (Seq, u64),
    /// When to send again, if nothing arrives before.
    retry_at: Time,
    /// This leader was asked to open a session.
    is_opening: bool,
    /// The results of this session take so much space that they should be acknowledged.
    must_acknowledge: bool,
    /// The first perform without an outcome, and how many leaders in a row were lost after they
    /// had been sent it and before they answered.
    silent: (Seq, u32),
    settled: Vec<Settled>,
    limits: Limits,
    /// Why new performs and reads are refused, if they are.
    refusal: Option<Failure>,
    /// Nothing is settled for now, because the state here may be wrong.
    is_held: bool,
    /// Nothing is sent for now.
    is_paused: bool,
    /// What would be settled if nothing was held, of a session that was closed meanwhile.
    held: Vec<Settled>,
}

/// Settings of the client, from [`super::Config`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_message_bytes: usize,
    pub(super) max_action_bytes: usize,
    pub(super) max_pending_bytes: usize,
    pub(super) retry: Time,
}

impl Client {
    pub(super) fn new(limits: Limits, seed: u64) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let nonce = rng.next_u64();
        // Reads are not numbered from 1: if this node was restarted, an answer to a read from
        // before may still arrive in the same term, and must not be taken for the answer to a later
        // read.
        let first_read = rng.next_u64() >> 16;
        Self {
            nonce,
            rng,
            session: None,
            next_seq: 1,
            pending: VecDeque::new(),
            empty_slots: 0,
            pending_bytes: 0,
            timeouts: BinaryHeap::new(),
            reads: SortedMap::new(),
            next_read: first_read,
            send_read: first_read,
            leader: None,
            send_next: 1,
            received: (1, 0),
            retry_at: Time::MAX,
            is_opening: false,
            must_acknowledge: false,
            silent: (0, 0),
            settled: Vec::new(),
            limits,
            refusal: None,
            is_held: false,
            is_paused: false,
            held: Vec::new(),
        }
    }

    /// Refuses new performs and reads from now on. Pending performs that have been sent settle when
    /// it is known whether they have run.
    pub(super) fn withdraw(&mut self, failure: Failure) {
        for (_, read) in std::mem::take(&mut self.reads) {
            self.settle(read.ticket, Outcome::Failed(failure.clone()));
        }
        if self.session.is_none() {
            self.fail_performs(&failure);
        }
        self.pending.iter_mut().flatten().for_each(|pending| pending.withdrawn = true);
        self.refusal = Some(failure);
        // Ask the leader again, without the methods.
        self.send_next = self.first_undecided();
        self.received = (self.send_next, 0);
        self.retry_at = 0;
    }

    /// Sends and settles nothing from now on, because this node's code is newer than the cluster's
    /// and it has no state; or does so again.
    pub(super) fn pause(&mut self, paused: bool) {
        if self.is_paused != paused {
            (self.is_paused, self.retry_at) = (paused, 0);
        }
    }

    /// Settles nothing from now on, because the state here may be wrong; or settles again.
    pub(super) fn hold(&mut self, held: bool) {
        self.is_held = held;
        if !held {
            self.settled.append(&mut self.held);
        }
    }

    /// Refuses new performs and reads from now on, and settles the pending ones; or, with `None`,
    /// refuses them no longer.
    pub(super) fn refuse(&mut self, refusal: Option<Failure>) {
        if let Some(failure) = &refusal {
            self.fail_all(failure);
        }
        self.refusal = refusal;
    }

    pub(super) fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// The session as messages name it.
    pub(super) fn session_ref(&self) -> Option<SessionRef> {
        self.session.map(|id| SessionRef { id, nonce: self.nonce })
    }

    /// The session in the committed state: whether its results take much space.
    pub(super) fn set_results(&mut self, session: Option<&Session>) {
        let ack = self.first_undecided();
        self.must_acknowledge = session.is_some_and(|session| session.is_worth_acknowledging(ack));
    }

    pub(super) fn take_settled(&mut self) -> Vec<Settled> {
        std::mem::take(&mut self.settled)
    }

    /// How many performs and reads are not settled yet. Performs that timed out count until their
    /// outcome is known.
    pub(super) fn waiting(&self) -> usize {
        self.pending.len() - self.empty_slots + self.reads.len() + self.held.len()
    }

    /// The number of the first perform in `pending`.
    fn first(&self) -> Seq {
        self.next_seq - self.pending.len() as Seq
    }

    fn slot(&self, seq: Seq) -> Option<usize> {
        usize::try_from(seq.checked_sub(self.first())?).ok()
    }

    fn get(&self, seq: Seq) -> Option<&Pending> {
        self.pending.get(self.slot(seq)?)?.as_ref()
    }

    fn get_mut(&mut self, seq: Seq) -> Option<&mut Pending> {
        let at = self.slot(seq)?;
        self.pending.get_mut(at)?.as_mut()
    }

    pub(super) fn perform(&mut self, now: Time, perform: Perform) {
        if let Some(failure) = self.refusal.clone() {
            return self.settle(perform.ticket, Outcome::Failed(failure));
        }
        let size = perform.args.len() + perform.method.len();
        if perform.method.len() > MAX_NAME {
            let message = format!(
                "a method's name has at most {MAX_NAME} bytes, and this one has {}",
                perform.method.len()
            );
            return self
                .settle(perform.ticket, Outcome::Failed(Failure::new("TOO_LARGE", message)));
        }
        if size > self.limits.max_action_bytes {
            let message = format!(
                "the arguments of `{}` are {size} bytes, and maxActionBytes is {}",
                perform.method, self.limits.max_action_bytes
            );
            return self
                .settle(perform.ticket, Outcome::Failed(Failure::new("TOO_LARGE", message)));
        }
        if self.pending_bytes > 0 && self.pending_bytes + size > self.limits.max_pending_bytes {
            let message = format!(
                "{} bytes of performs are waiting already: await some of them first",
                self.pending_bytes
            );
            return self.settle(perform.ticket, Outcome::Failed(Failure::new("BUSY", message)));
        }
        self.pending_bytes += size;
        let deadline = perform.timeout.map(|timeout| now.saturating_add(timeout));
        self.timeouts.extend(deadline.map(|deadline| Reverse((deadline, self.next_seq))));
        self.pending.push_back(Some(Pending {
            perform,
            timed_out: false,
            withdrawn: false,
            deadline,
            outcome: None,
        }));
        self.next_seq += 1;
    }

    pub(super) fn read(&mut self, ticket: u64) {
        if let Some(failure) = self.refusal.clone() {
            return self.settle(ticket, Outcome::Failed(failure));
        }
        self.reads.insert(self.next_read, PendingRead { ticket, index: None });
        self.next_read += 1;
    }

    /// Settles every pending perform and read with a failure.
    pub(super) fn fail_all(&mut self, failure: &Failure) {
        for Settled { ticket, .. } in std::mem::take(&mut self.held) {
            self.settle(ticket, Outcome::Failed(failure.clone()));
        }
        self.fail_performs(failure);
        for (_, read) in std::mem::take(&mut self.reads) {
            self.settle(read.ticket, Outcome::Failed(failure.clone()));
        }
    }

    fn fail_performs(&mut self, failure: &Failure) {
        for pending in std::mem::take(&mut self.pending).into_iter().flatten() {
            if !pending.timed_out {
                self.settle(pending.perform.ticket, Outcome::Failed(failure.clone()));
            }
        }
        (self.pending_bytes, self.empty_slots) = (0, 0);
        self.timeouts.clear();
    }

    fn settle(&mut self, ticket: u64, outcome: Outcome) {
        self.settled.push(Settled { ticket, outcome });
    }

    /// When the next perform times out or something must be sent again.
    pub(super) fn deadline(&self) -> Option<Time> {
        let timeout = self.timeouts.peek().map(|Reverse((deadline, _))| *deadline);
        let retry = self.has_work().then_some(self.retry_at);
        [timeout, retry].into_iter().flatten().min()
    }

    fn has_work(&self) -> bool {
        self.leader.is_some()
            && !self.is_paused
            && !(self.pending.is_empty() && self.reads.is_empty() && !self.must_acknowledge)
    }

    /// Settles the performs whose time is over with `TIMEOUT`.
    pub(super) fn expire(&mut self, now: Time, applied: Index) {
        while let Some(Reverse((deadline, seq))) = self.timeouts.peek().copied()
            && now >= deadline
        {
            self.timeouts.pop();
            let Some(pending) = self.get_mut(seq) else { continue };
            pending.timed_out = true;
            let message = format!(
                "`{}` was not settled within {} ms; it may still take effect",
                pending.perform.method,
                pending.perform.timeout.unwrap_or_default()
            );
            let ticket = pending.perform.ticket;
            self.settle(ticket, Outcome::Failed(Failure::new("TIMEOUT", message)));
        }
        self.settle_in_order(applied);
    }

    /// The leader changed. The new one is sent everything whose outcome is not known.
    pub(super) fn set_leader(&mut self, leader: Option<(NodeId, Term)>) {
        if self.leader != leader {
            self.count_silent_leader();
            self.leader = leader;
            self.send_next = self.first_undecided();
            self.send_read = 0;
            self.received = (self.send_next, 0);
            self.retry_at = 0;
            self.is_opening = false;
        }
    }

    /// The node stops, so this client has no leader for now. What the node refused, the next one
    /// may accept.
    pub(super) fn leave_leader(&mut self) {
        (self.refusal, self.is_paused) = (None, false);
        self.hold(false);
        self.silent = (0, 0);
        self.leader = None;
    }

    /// The leader is lost. If it has said nothing since it was sent the first perform without an
    /// outcome, that perform's method may be what hangs it. Such a perform is sent to the next
    /// leader alone, so that no other one is blamed for it; and it must not hang one leader after
    /// the other, so it is given up in the end.
    fn count_silent_leader(&mut self) {
        let seq = self.first_undecided();
        let was_sent = self.leader.is_some() && self.session.is_some() && self.send_next > seq;
        let Some(pending) = self.get(seq).filter(|pending| was_sent && !pending.timed_out) else {
            return;
        };
        let (ticket, is_silent) = (pending.perform.ticket, self.received.0 <= seq);
        let method = pending.perform.method.clone();
        let count = if self.silent.0 == seq { self.silent.1 } else { 0 };
        self.silent = (seq, if is_silent { count + 1 } else { 0 });
        if self.silent.1 < MAX_SILENT {
            return;
        }
        let message = format!(
            "{MAX_SILENT} leaders in a row fell silent over `{method}`, so it is not tried again; \
             it may have taken effect"
        );
        self.settle(ticket, Outcome::Failed(Failure::new("OUTCOME_UNKNOWN", message)));
        if let Some(pending) = self.get_mut(seq) {
            pending.timed_out = true;
        }
    }

    /// The number of the first perform whose outcome this client does not know.
    fn first_undecided(&self) -> Seq {
        let is_undecided =
            |slot: &Option<Pending>| slot.as_ref().is_some_and(|pending| pending.outcome.is_none());
        let decided = self.pending.iter().position(is_undecided).unwrap_or(self.pending.len());
        self.first() + decided as Seq
    }

    /// The messages to send to the leader now.
    pub(super) fn take_messages(&mut self, now: Time) -> Vec<Body> {
        if !self.has_work() {
            return Vec::new();
        }
        let again = now >= self.retry_at;
        let mut out = Vec::new();
        if again {
            self.send_next = self.received.0.max(self.first_undecided());
            self.send_read = 0;
            self.retry_at = now + self.limits.retry;
        }
        let unread = self.reads.iter_from(&self.send_read).filter(|(_, read)| read.index.is_none());
        out.extend(unread.map(|(id, _)| Body::Read { id: *id }));
        self.send_read = self.next_read;
        match self.session_ref() {
            Some(session) => self.take_requests(session, again, &mut out),
            // A session is opened by its first perform: whoever only reads or watches needs none.
            None if !self.pending.is_empty() && (again || !self.is_opening) => {
                out.push(Body::Open { nonce: self.nonce });
                self.is_opening = true;
            }
            None => {}
        }
        out
    }

    /// Adds the requests that the window allows, in as few messages as their size allows.
    fn take_requests(&mut self, session: SessionRef, again: bool, out: &mut Vec<Body>) {
        let ack = self.first_undecided();
        let window = if self.silent.0 == ack && self.silent.1 > 0 { 1 } else { WINDOW };
        let (max, end) = (self.limits.max_message_bytes, ack.saturating_add(window));
        let mut first = self.send_next;
        let mut requests = Vec::new();
        let mut bytes = 0;
        let end = end.min(self.next_seq).max(self.send_next);
        for seq in self.send_next..end {
            // A perform whose outcome is known or which has timed out must not run any more. A
            // request without a method takes its number, because numbers in a message are
            // consecutive.
            let runs = |pending: &&Pending| {
                !pending.timed_out && !pending.withdrawn && pending.outcome.is_none()
            };
            let perform = self.get(seq).filter(runs).map(|pending| &pending.perform);
            let size = perform.map_or(0, |p| p.args.len() + p.method.len()) + 16;
            if bytes + size > max && !requests.is_empty() {
                let requests = std::mem::take(&mut requests);
                out.push(Body::Perform { session, ack, first, requests });
                bytes = 0;
            }
            if let Some(perform) = perform.filter(|_| size > max) {
                let from = if self.received.0 == seq { self.received.1 } else { 0 };
                push_chunks(session, ack, seq, perform, (from, max), out);
                continue;
            }
            if requests.is_empty() {
                first = seq;
            }
            bytes += size;
            requests.push(match perform {
                None => Request { method: None, args: Blob::from("") },
                Some(perform) => {
                    Request { method: Some(perform.method.clone()), args: perform.args.clone() }
                }
            });
        }
        self.send_next = end;
        let nothing = out.iter().all(|body| matches!(body, Body::Read { .. }));
        let is_owed = !self.pending.is_empty() || self.must_acknowledge;
        if !requests.is_empty() || (again && nothing && is_owed) {
            out.push(Body::Perform { session, ack, first, requests });
        }
    }

    /// The leader has received every request before `next`, and `offset` bytes of the arguments of
    /// `next` itself.
    pub(super) fn handle_received(&mut self, now: Time, next: Seq, offset: u64) {
        // A leader cannot have received what was not sent: such a message is ignored.
        if (next, offset) > self.received && next <= self.send_next {
            self.received = (next, offset);
            self.retry_at = now + self.limits.retry;
        }
    }

    pub(super) fn handle_verdicts(&mut self, verdicts: Vec<(Seq, Index, Verdict)>, applied: Index) {
        for (seq, index, verdict) in verdicts {
            self.decide(seq, index, outcome_of(Recorded::Verdict(verdict)));
        }
        self.settle_in_order(applied);
    }

    pub(super) fn handle_read_at(&mut self, id: u64, index: Index, applied: Index) {
        if let Some(read) = self.reads.get_mut(&id) {
            read.index = Some(index);
            self.settle_in_order(applied);
        }
    }

    /// This node has applied the entry that closed its session, up to `applied`, and every entry
    /// before that one. A perform that has no outcome by now had no effect and will have none: it
    /// is performed again in the next session, and so is every later one, to keep their order. A
    /// later one may have a verdict, which the user does not know yet; it cannot have an action,
    /// whose entry would tell the outcome of all performs before it.
    pub(super) fn handle_session_closed(&mut self, applied: Index) {
        let (is_held, settled) = (self.is_held, self.settled.len());
        self.is_held = false;
        self.settle_in_order(applied);
        if is_held {
            // They have run, so they must not be performed again.
            self.held.extend(self.settled.drain(settled..));
            self.is_held = true;
        }
        if let Some(failure) = self.refusal.clone() {
            self.fail_performs(&failure);
        }
        let performs = std::mem::take(&mut self.pending).into_iter().flatten();
        self.pending = performs
            .filter(|pending| !pending.timed_out)
            .map(|pending| Some(Pending { outcome: None, ..pending }))
            .collect();
        self.empty_slots = 0;
        self.new_session();
        let sizes = self.pending.iter().flatten().map(|pending| pending.size());
        self.pending_bytes = sizes.sum();
        self.next_seq += self.pending.len() as Seq;
        let timeouts = (1..).zip(&self.pending).filter_map(|(seq, pending)| {
            pending.as_ref().and_then(|pending| pending.deadline).map(|at| Reverse((at, seq)))
        });
        self.timeouts = timeouts.collect();
    }

    /// The session is closed, and this node has not applied the entries before that, because a
    /// snapshot replaced them. The results are deleted with the session, so it is unknown which
    /// performs ran.
    fn handle_session_lost(&mut self) {
        self.reset_session(&Failure::new(
            "OUTCOME_UNKNOWN",
            "the session of this node was closed while it was away: the perform may have taken \
             effect, so look at the state before you perform it again",
        ));
    }

    /// The cluster of the session is over, and another one was founded.
    pub(super) fn forget_session(&mut self) {
        // An index of the earlier log means nothing in the new one: the new leader is asked.
        self.reads.values_mut().for_each(|read| read.index = None);
        self.reset_session(&Failure::new(
            "OUTCOME_UNKNOWN",
            "the cluster was ended and another one founded while this node was away: the perform \
             belongs to the earlier cluster",
        ));
    }

    fn reset_session(&mut self, failure: &Failure) {
        self.fail_performs(failure);
        self.new_session();
    }

    /// Forgets the session. The next perform opens another one.
    fn new_session(&mut self) {
        self.silent = (0, 0);
        self.nonce = self.rng.next_u64();
        self.session = None;
        self.next_seq = 1;
        self.send_next = 1;
        self.received = (1, 0);
        self.retry_at = 0;
        self.is_opening = false;
    }

    /// A session was opened at `index`. It belongs to this client if its nonce does.
    pub(super) fn handle_session_opened(&mut self, index: SessionId, nonce: u64) {
        if nonce == self.nonce && self.session.is_none() {
            self.session = Some(index);
            self.retry_at = 0;
        }
    }

    /// The entry at `index`, which is applied now, records the outcome of a perform of this client.
    pub(super) fn handle_recorded(&mut self, seq: Seq, index: Index, recorded: Recorded) {
        self.decide(seq, index, outcome_of(recorded));
    }

    /// A snapshot replaced the session table.
    pub(super) fn handle_snapshot(&mut self, sessions: &Sessions, applied: Index) {
        match self.session {
            None => {
                if let Some(session) = sessions.with_nonce(self.nonce) {
                    self.handle_session_opened(session, self.nonce);
                }
            }
            Some(session) => match sessions.get(session) {
                // The snapshot is older than the session.
                None if session > applied => {}
                None => {
                    // What happened before this node was away is known.
                    self.settle_in_order(applied);
                    self.handle_session_lost();
                }
                Some(session) => {
                    for (seq, result) in session.results().iter() {
                        self.decide(*seq, applied, outcome_of(result.clone()));
                    }
                }
            },
        }
        self.settle_in_order(applied);
    }

    /// Takes note of an outcome. The first one counts: later ones are repetitions.
    fn decide(&mut self, seq: Seq, index: Index, outcome: Outcome) {
        let never_ran = outcome == outcome_of(Recorded::Verdict(Verdict::Skipped));
        let refusal = self.refusal.as_ref().filter(|_| never_ran).cloned();
        if let Some(pending) = self.get_mut(seq)
            && pending.outcome.is_none()
        {
            let outcome = match refusal.filter(|_| pending.withdrawn) {
                Some(failure) => Outcome::Failed(failure),
                None => outcome,
            };
            pending.outcome = Some((outcome, index));
        }
    }

    /// Settles the performs whose outcome is known and applied here, in the order in which they
    /// were issued. Performs that timed out do not block those behind them. Settles reads likewise.
    pub(super) fn settle_in_order(&mut self, applied: Index) {
        if self.is_held || self.is_paused {
            return;
        }
        for at in 0..self.pending.len() {
            let slot = &mut self.pending[at];
            let Some(pending) = slot else { continue };
            match &pending.outcome {
                Some((_, index)) if *index <= applied => {}
                None if pending.timed_out => continue,
                _ => break,
            }
            let Some(pending) = slot.take() else { continue };
            self.empty_slots += 1;
            self.pending_bytes -= pending.size();
            if let Some((outcome, _)) = pending.outcome
                && !pending.timed_out
            {
                self.settle(pending.perform.ticket, outcome);
            }
        }
        while let Some(None) = self.pending.front() {
            self.pending.pop_front();
            self.empty_slots -= 1;
        }
        while let Some(Reverse((_, seq))) = self.timeouts.peek()
            && self.get(*seq).is_none()
        {
            self.timeouts.pop();
        }
        // The timeouts of settled performs may stand behind the timeout of a pending one. They are
        // removed when there are many, so that memory stays bounded.
        if self.timeouts.len() > 2 * self.pending.len() + 64 {
            let mut timeouts = std::mem::take(&mut self.timeouts);
            timeouts.retain(|Reverse((_, seq))| self.get(*seq).is_some());
            self.timeouts = timeouts;
        }
        let ready = |read: &PendingRead| read.index.is_some_and(|index| index <= applied);
        let settled = &mut self.settled;
        self.reads.retain(|_, read| {
            let ready = ready(read);
            if ready {
                settled.push(Settled { ticket: read.ticket, outcome: Outcome::Nothing });
            }
            !ready
        });
    }
}

fn outcome_of(recorded: Recorded) -> Outcome {
    match recorded {
        Recorded::Action(action) => Outcome::Action(action),
        Recorded::Verdict(Verdict::Nothing) => Outcome::Nothing,
        Recorded::Verdict(Verdict::Failed(failure)) => Outcome::Failed(failure),
        Recorded::Verdict(Verdict::Skipped) => {
            Outcome::Failed(Failure::new("TIMEOUT", "the perform was given up before it ran"))
        }
    }
}

/// Cuts a request that is larger than a message into chunks of at most `max` bytes, beginning at
/// byte `from` of its arguments.
fn push_chunks(
    session: SessionRef,
    ack: Seq,
    seq: Seq,
    perform: &Perform,
    (from, max): (u64, usize),
    out: &mut Vec<Body>,
) {
    let bytes = perform.args.as_slice();
    let mut offset = usize::try_from(from).unwrap_or(0).min(bytes.len());
    while offset < bytes.len() {
        let end = (offset + max).min(bytes.len());
        out.push(Body::Chunk {
            session,
            ack,
            seq,
            method: perform.method.clone(),
            total: bytes.len() as u64,
            offset: offset as u64,
            data: Blob::from(&bytes[offset..end]),
        });
        offset = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_waited_for_an_index_of_an_earlier_cluster_is_asked_again_in_the_next_one() {
        let limits = Limits {
            max_message_bytes: 1000,
            max_action_bytes: 1000,
            max_pending_bytes: 1000,
            retry: 100,
        };
        let mut client = Client::new(limits, 1);
        let id = client.next_read;
        client.read(7);
        client.handle_read_at(id, 5, 4);
        client.forget_session();
        client.settle_in_order(5);
        assert_eq!((client.waiting(), client.take_settled().len()), (1, 0), "5 is not that 5");
        client.handle_read_at(id, 2, 2);
        assert_eq!((client.waiting(), client.take_settled().len()), (0, 1));
    }

    #[test]
    fn timeouts_of_settled_performs_do_not_pile_up() {
        let limits = Limits {
            max_message_bytes: 1000,
            max_action_bytes: 1000,
            max_pending_bytes: 1000,
            retry: 100,
        };
        let mut client = Client::new(limits, 1);
        let perform = |ticket, timeout| Perform {
            ticket,
            method: "add".into(),
            args: "[]".into(),
            timeout: Some(timeout),
        };
        // One perform is always pending that times out before those that are settled.
        client.perform(0, perform(0, 10));
        let mut most = 0;
        for round in 1..1000 {
            client.perform(round, perform(2 * round - 1, 1_000_000));
            client.perform(round, perform(2 * round, 10));
            for seq in [2 * round - 1, 2 * round] {
                client.handle_recorded(seq, round, Recorded::Verdict(Verdict::Nothing));
            }
            client.settle_in_order(round);
            assert_eq!((client.waiting(), client.take_settled().len()), (1, 2));
            assert_eq!(client.deadline(), Some(round + 10));
            most = most.max(client.timeouts.len());
        }
        assert_eq!(most, 2 + 64, "two for the pending perform, and 64");
    }

    #[test]
    fn only_a_leader_that_was_sent_the_perform_counts_as_silent() {
        let limits = Limits {
            max_message_bytes: 1000,
            max_action_bytes: 1000,
            max_pending_bytes: 1000,
            retry: 100,
        };
        for sends in [false, true] {
            let mut client = Client::new(limits, 1);
            client.handle_session_opened(1, client.nonce);
            let (method, args) = ("add".into(), "[]".into());
            client.perform(0, Perform { ticket: 1, method, args, timeout: None });
            for term in 1..=3 {
                assert_eq!(client.take_settled(), []);
                client.set_leader(Some((2, term)));
                if sends {
                    assert_eq!(client.take_messages(term).len(), 1);
                }
                client.set_leader(None);
            }
            assert_eq!(client.take_settled().len(), usize::from(sends));
        }
    }
}
