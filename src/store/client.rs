//! The performing side: numbers performs, sends them to whoever leads until their fate is known,
//! and settles them in order.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::machine::Failure;
use super::message::{Body, Request};
use super::sessions::{Recorded, Seq, SessionId, Sessions, Verdict};
use crate::raft::{Blob, Index, NodeId, Term, Time};
use crate::sorted::SortedMap;

/// A perform as the user asked for it.
#[derive(Clone, Debug)]
pub struct Perform {
    /// The caller's number, under which it will be settled.
    pub ticket: u64,
    /// The method's name.
    pub method: String,
    /// Its arguments.
    pub args: Blob,
    /// After how many ms it is given up.
    pub timeout: Option<Time>,
}

/// A perform or a read has ended. Each ticket is settled exactly once.
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
    /// The method had nothing to do; or, for a read, the state here is new enough.
    Nothing,
    /// Nothing was appended, or, with the codes `TIMEOUT`, `CLOSED` and `OUTCOME_UNKNOWN`, it is
    /// unknown whether.
    Failed(Failure),
}

/// The longest name of a method, in bytes: it is sent with every part of large arguments.
const MAX_NAME: usize = 1024;
/// How many performs may be on their way at once.
const WINDOW: u64 = 4096;

#[derive(Debug)]
struct Pending {
    perform: Perform,
    /// The user has been told that its time is up. Its fate is still awaited, so that it neither
    /// runs behind a later one nor is forgotten.
    abandoned: bool,
    /// The fate, and the index that must be applied here before it is told.
    fate: Option<(Outcome, Index)>,
}

#[derive(Debug)]
struct PendingRead {
    ticket: u64,
    index: Option<Index>,
}

/// The performing side of a node.
#[derive(Debug)]
pub(super) struct Client {
    rng: SmallRng,
    nonce: u64,
    session: Option<SessionId>,
    next_seq: Seq,
    /// The performs from `next_seq - pending.len()` on. One that is settled before those in front of it,
    /// because they were given up, leaves its place empty.
    pending: VecDeque<Option<Pending>>,
    /// How many places are empty.
    gaps: usize,
    pending_bytes: usize,
    /// When performs are given up, if they are not settled by then.
    timeouts: BinaryHeap<Reverse<(Time, Seq)>>,
    reads: SortedMap<u64, PendingRead>,
    next_read: u64,
    /// The next read to ask this leader for.
    send_read: u64,
    leader: Option<(NodeId, Term)>,
    /// The next request to send to this leader.
    send_next: Seq,
    /// The first request that this leader has not acknowledged, and how much of it it has.
    received: (Seq, u64),
    /// When to ask again, if nothing is heard before.
    retry_at: Time,
    settled: Vec<Settled>,
    limits: Limits,
}

/// Sizes and times that bound the client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_message_bytes: usize,
    pub(super) max_action_bytes: usize,
    pub(super) max_pending_bytes: usize,
    pub(super) retry: Time,
}

impl Client {
    pub(super) fn new(limits: Limits, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let nonce = rng.next_u64();
        // Not from 1 on: an answer to this node's former self may still be on its way, in the same
        // term, and must not be taken for one to a read that was asked for later.
        let first_read = rng.next_u64() >> 16;
        Self {
            nonce,
            rng,
            session: None,
            next_seq: 1,
            pending: VecDeque::new(),
            gaps: 0,
            pending_bytes: 0,
            timeouts: BinaryHeap::new(),
            reads: SortedMap::new(),
            next_read: first_read,
            send_read: first_read,
            leader: None,
            send_next: 1,
            received: (1, 0),
            retry_at: Time::MAX,
            settled: Vec::new(),
            limits,
        }
    }

    pub(super) fn session(&self) -> Option<SessionId> {
        self.session
    }

    pub(super) fn take_settled(&mut self) -> Vec<Settled> {
        std::mem::take(&mut self.settled)
    }

    /// How many performs and reads wait for their fate.
    pub(super) fn waiting(&self) -> usize {
        self.pending.len() - self.gaps + self.reads.len()
    }

    /// The number of the first perform in `pending`.
    fn first(&self) -> Seq {
        self.next_seq - self.pending.len() as Seq
    }

    fn place(&self, seq: Seq) -> Option<usize> {
        usize::try_from(seq.checked_sub(self.first())?).ok()
    }

    fn get(&self, seq: Seq) -> Option<&Pending> {
        self.pending.get(self.place(seq)?)?.as_ref()
    }

    fn get_mut(&mut self, seq: Seq) -> Option<&mut Pending> {
        let at = self.place(seq)?;
        self.pending.get_mut(at)?.as_mut()
    }

    pub(super) fn perform(&mut self, now: Time, perform: Perform) {
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
        self.pending.push_back(Some(Pending { perform, abandoned: false, fate: None }));
        self.next_seq += 1;
    }

    pub(super) fn read(&mut self, ticket: u64) {
        self.reads.insert(self.next_read, PendingRead { ticket, index: None });
        self.next_read += 1;
    }

    /// Rejects everything that waits.
    pub(super) fn fail_all(&mut self, failure: &Failure) {
        self.fail_performs(failure);
        for (_, read) in std::mem::take(&mut self.reads) {
            self.settle(read.ticket, Outcome::Failed(failure.clone()));
        }
    }

    fn fail_performs(&mut self, failure: &Failure) {
        for pending in std::mem::take(&mut self.pending).into_iter().flatten() {
            if !pending.abandoned {
                self.settle(pending.perform.ticket, Outcome::Failed(failure.clone()));
            }
        }
        (self.pending_bytes, self.gaps) = (0, 0);
        self.timeouts.clear();
    }

    fn settle(&mut self, ticket: u64, outcome: Outcome) {
        self.settled.push(Settled { ticket, outcome });
    }

    /// When something here is due.
    pub(super) fn deadline(&self) -> Option<Time> {
        let timeout = self.timeouts.peek().map(|Reverse((deadline, _))| *deadline);
        let retry = self.has_work().then_some(self.retry_at);
        [timeout, retry].into_iter().flatten().min()
    }

    fn has_work(&self) -> bool {
        self.leader.is_some()
            && (self.session.is_none() || !self.pending.is_empty() || !self.reads.is_empty())
    }

    /// Gives up the performs whose time is up.
    pub(super) fn expire(&mut self, now: Time, applied: Index) {
        while let Some(Reverse((deadline, seq))) = self.timeouts.peek().copied()
            && now >= deadline
        {
            self.timeouts.pop();
            let Some(pending) = self.get_mut(seq) else { continue };
            pending.abandoned = true;
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

    /// Whom to send to, from now on.
    pub(super) fn set_leader(&mut self, leader: Option<(NodeId, Term)>) {
        if self.leader != leader {
            self.leader = leader;
            self.send_next = self.first_unknown();
            self.send_read = 0;
            self.received = (self.send_next, 0);
            self.retry_at = 0;
        }
    }

    /// The first perform whose fate this client does not know.
    fn first_unknown(&self) -> Seq {
        let unknown = |one: &Option<Pending>| one.as_ref().is_some_and(|one| one.fate.is_none());
        let known = self.pending.iter().position(unknown).unwrap_or(self.pending.len());
        self.first() + known as Seq
    }

    /// What to say to the leader now.
    pub(super) fn take_messages(&mut self, now: Time) -> Vec<Body> {
        if !self.has_work() {
            return Vec::new();
        }
        let again = now >= self.retry_at;
        let mut out = Vec::new();
        let Some(session) = self.session else {
            if again {
                out.push(Body::Open { nonce: self.nonce });
                self.retry_at = now + self.limits.retry;
            }
            return out;
        };
        if again {
            self.send_next = self.received.0.max(self.first_unknown());
            self.send_read = 0;
            self.retry_at = now + self.limits.retry;
        }
        let unread = self.reads.iter_from(&self.send_read).filter(|(_, read)| read.index.is_none());
        out.extend(unread.map(|(id, _)| Body::Read { id: *id }));
        self.send_read = self.next_read;
        self.take_requests(session, again, &mut out);
        out
    }

    /// The requests that the window lets go, in as few messages as fit.
    fn take_requests(&mut self, session: SessionId, again: bool, out: &mut Vec<Body>) {
        let ack = self.first_unknown();
        let (max, end) = (self.limits.max_message_bytes, ack.saturating_add(WINDOW));
        let mut first = self.send_next;
        let mut requests = Vec::new();
        let mut bytes = 0;
        let end = end.min(self.next_seq).max(self.send_next);
        for seq in self.send_next..end {
            // What has its fate, or was given up before it was judged, must not run any more; its
            // number is taken all the same, or those behind it would be judged under others.
            let runs = |pending: &&Pending| !pending.abandoned && pending.fate.is_none();
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
        if !requests.is_empty() || (again && nothing && !self.pending.is_empty()) {
            out.push(Body::Perform { session, ack, first, requests });
        }
    }

    /// The leader has everything before `next`, and `offset` bytes of it.
    pub(super) fn handle_received(&mut self, now: Time, next: Seq, offset: u64) {
        // Nothing can have arrived that was not sent.
        if (next, offset) > self.received && next <= self.send_next {
            self.received = (next, offset);
            self.retry_at = now + self.limits.retry;
        }
    }

    pub(super) fn handle_verdicts(&mut self, verdicts: Vec<(Seq, Index, Verdict)>, applied: Index) {
        for (seq, index, verdict) in verdicts {
            self.decide(seq, index, outcome(Recorded::Verdict(verdict)));
        }
        self.settle_in_order(applied);
    }

    pub(super) fn handle_read_at(&mut self, id: u64, index: Index, applied: Index) {
        if let Some(read) = self.reads.get_mut(&id) {
            read.index = Some(index);
            self.settle_in_order(applied);
        }
    }

    /// This node has applied the entry that closed its session, and every one before it: whatever has
    /// no fate by now never ran and never will.
    pub(super) fn expired(&mut self) {
        self.start_over(&Failure::new(
            "SESSION_EXPIRED",
            "the session of this node was closed, and the perform was not run: perform it again",
        ));
    }

    /// The session is gone, and so are its results: nobody can tell any more what ran.
    fn lost(&mut self) {
        self.start_over(&Failure::new(
            "OUTCOME_UNKNOWN",
            "the session of this node was closed while it was away: the perform may have taken \
             effect, so look at the state before you perform it again",
        ));
    }

    fn start_over(&mut self, failure: &Failure) {
        self.fail_performs(failure);
        self.nonce = self.rng.next_u64();
        self.session = None;
        self.next_seq = 1;
        self.send_next = 1;
        self.received = (1, 0);
        self.retry_at = 0;
    }

    /// A session was opened at `index`; is it this client's?
    pub(super) fn opened(&mut self, index: SessionId, nonce: u64) {
        if nonce == self.nonce && self.session.is_none() {
            self.session = Some(index);
            self.retry_at = 0;
        }
    }

    /// An entry was applied here that settles a perform of this client's session.
    pub(super) fn recorded(&mut self, seq: Seq, index: Index, recorded: Recorded) {
        self.decide(seq, index, outcome(recorded));
    }

    /// The whole table was replaced by a snapshot's.
    pub(super) fn replaced(&mut self, sessions: &Sessions, applied: Index) {
        match self.session {
            None => {
                if let Some(session) = sessions.with_nonce(self.nonce) {
                    self.opened(session, self.nonce);
                }
            }
            Some(session) => match sessions.get(session) {
                None if session > applied => {}
                None => self.lost(),
                Some(session) => {
                    for (seq, result) in session.results().iter() {
                        self.decide(*seq, applied, outcome(result.clone()));
                    }
                }
            },
        }
        self.settle_in_order(applied);
    }

    fn decide(&mut self, seq: Seq, index: Index, outcome: Outcome) {
        if let Some(pending) = self.get_mut(seq)
            && pending.fate.is_none()
        {
            pending.fate = Some((outcome, index));
        }
    }

    /// Settles what is decided and applied, in the order in which it was issued. What the user has
    /// given up holds nobody up.
    pub(super) fn settle_in_order(&mut self, applied: Index) {
        for at in 0..self.pending.len() {
            let place = &mut self.pending[at];
            let Some(pending) = place else { continue };
            match &pending.fate {
                Some((_, index)) if *index <= applied => {}
                None if pending.abandoned => continue,
                _ => break,
            }
            let Some(pending) = place.take() else { continue };
            self.gaps += 1;
            self.pending_bytes -= pending.perform.args.len() + pending.perform.method.len();
            if let Some((outcome, _)) = pending.fate
                && !pending.abandoned
            {
                self.settle(pending.perform.ticket, outcome);
            }
        }
        while let Some(None) = self.pending.front() {
            self.pending.pop_front();
            self.gaps -= 1;
        }
        while let Some(Reverse((_, seq))) = self.timeouts.peek()
            && self.get(*seq).is_none()
        {
            self.timeouts.pop();
        }
        // Those that are settled and ring late, behind others that are pending.
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

fn outcome(recorded: Recorded) -> Outcome {
    match recorded {
        Recorded::Action(action) => Outcome::Action(action),
        Recorded::Verdict(Verdict::Nothing) => Outcome::Nothing,
        Recorded::Verdict(Verdict::Failed(failure)) => Outcome::Failed(failure),
        Recorded::Verdict(Verdict::Skipped) => {
            Outcome::Failed(Failure::new("TIMEOUT", "the perform was given up before it ran"))
        }
    }
}

/// Cuts a request that is larger than a message into parts, beginning at a byte of its arguments.
fn push_chunks(
    session: SessionId,
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
    fn the_timeouts_of_what_is_settled_do_not_pile_up() {
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
        // There is always one pending that rings earlier than those that are settled.
        client.perform(0, perform(0, 10));
        for round in 1..1000 {
            client.perform(round, perform(2 * round - 1, 1_000_000));
            client.perform(round, perform(2 * round, 10));
            for seq in [2 * round - 1, 2 * round] {
                client.recorded(seq, round, Recorded::Verdict(Verdict::Nothing));
            }
            client.settle_in_order(round);
            assert_eq!((client.waiting(), client.take_settled().len()), (1, 2));
            assert!(client.timeouts.len() <= 67, "{}", client.timeouts.len());
            assert_eq!(client.deadline(), Some(round + 10));
        }
    }
}
