//! The leader's side of sessions: takes performs in order, and sends verdicts when they are
//! certain.
//!
//! A verdict (the outcome of a perform without an action: `null` or an error) is a linearizable
//! read. It is sent only when the prefix of the log against which it was judged is committed and
//! this node's leadership has been confirmed since. Otherwise a deposed leader could report a state
//! that never was.

use std::collections::VecDeque;

use super::machine::Failure;
use super::message::{Body, Request};
use super::sessions::{MAX_SEQ, Seq, Session, SessionId, SessionRef, Sessions, Verdict};
use crate::mistakes::{Mistake, made};
use crate::raft::{Blob, Index, NodeId, Time};
use crate::sorted::{SortedMap, SortedSet};

/// For how long a leader keeps a session that it has opened, in ms, before another one may take
/// its place.
const SHORTEST_SESSION: Time = 2_000;

/// A perform that is next in its session.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) session: SessionId,
    pub(super) seq: Seq,
    pub(super) task: Task,
}

/// What is to be done for a perform.
#[derive(Debug)]
pub(super) enum Task {
    /// Run the method of this request.
    Request(Request),
    /// Refuse the perform without running its method.
    Refuse(Failure),
}

/// A verdict that the client has not acknowledged.
#[derive(Debug)]
struct PendingVerdict {
    verdict: Verdict,
    /// The last entry against which the perform was judged. It must be committed before the verdict
    /// is sent, and applied by the client before the perform is settled.
    index: Index,
    /// The entry is committed and leadership was confirmed: the verdict may be sent.
    released: bool,
}

/// What a leader knows of a session, apart from what is in the log.
#[derive(Debug, Default)]
struct ActiveSession {
    /// The node of the client.
    client: NodeId,
    /// The nonce of the session, which messages to the client carry.
    nonce: u64,
    /// When this leader opened the session, if it did.
    opened: Option<Time>,
    /// The client knows the outcome of every perform before this one.
    ack: Seq,
    /// The next perform to take. Every perform before it is in the log, in `verdicts` or in the
    /// queue.
    next: Seq,
    /// The verdicts that the client has not acknowledged.
    verdicts: SortedMap<Seq, PendingVerdict>,
    /// A request of which only some chunks have arrived.
    partial: Option<Partial>,
}

/// A request that arrives in chunks.
#[derive(Debug)]
struct Partial {
    method: String,
    /// The length of the arguments in bytes.
    total: u64,
    /// The arguments as far as they have arrived.
    data: Vec<u8>,
}

/// Something that is sent only after leadership was confirmed.
#[derive(Debug)]
enum Unconfirmed {
    /// The verdict of a perform.
    Verdict(SessionId, Seq),
    /// The answer to a read: the client's node, and its number for the read.
    Read(NodeId, u64),
}

/// The sessions of which this leader has received a request; and those whose outcomes are to be
/// acknowledged by an entry of its own, each with the first perform that is not acknowledged.
#[derive(Debug, Default)]
struct ActiveSessions(SortedMap<SessionId, ActiveSession>, SortedMap<SessionId, Seq>);

impl ActiveSessions {
    /// What the leader knows of a session, brought up to date with the log (`sessions`) and the
    /// client's acknowledgement. `None` for a session that is not open: its client learns that when
    /// it applies the entry that closed the session.
    fn activate(
        &mut self,
        sessions: &Sessions,
        from: NodeId,
        SessionRef { id, nonce }: SessionRef,
        ack: Seq,
    ) -> Option<&mut ActiveSession> {
        let session = sessions.find(SessionRef { id, nonce });
        if session.is_none() && !made(Mistake::ExpiredSessionRuns) {
            // Another client's session may have the number. What is known of it stays.
            if sessions.get(id).is_none() {
                self.0.remove(&id);
            }
            return None;
        }
        if ack > MAX_SEQ {
            return None; // No client performs so often.
        }
        let active = self.0.get_or_insert_with(id, ActiveSession::default);
        (active.client, active.nonce) = (from, nonce);
        active.ack = active.ack.max(ack);
        // The next perform is the one after those in the log. But the client may have acknowledged
        // more: an earlier leader's verdicts, which are in no log.
        let right =
            |_: &&Session| !(made(Mistake::RetryAppliedTwice) || made(Mistake::VerdictJudgedAgain));
        let recorded = session.filter(right).map_or(1, Session::next);
        active.next = active.next.max(recorded).max(ack);
        active.verdicts.remove_before(&ack);
        if session.is_some_and(|session| session.is_worth_acknowledging(active.ack)) {
            self.1.insert(id, active.ack);
        }
        Some(active)
    }
}

/// The leader's side of all sessions, for one term.
#[derive(Debug, Default)]
pub(super) struct Judge {
    active_sessions: ActiveSessions,
    /// The performs to judge, in order.
    queue: VecDeque<Job>,
    /// What was added since the last confirmation was asked for.
    unconfirmed: Vec<Unconfirmed>,
    /// The last entry against which any verdict in `unconfirmed` was judged.
    unconfirmed_index: Index,
    /// What waits for a confirmation that was asked for, by the number of the confirmation.
    confirming: SortedMap<u64, Vec<Unconfirmed>>,
    /// Messages to send, each with the receiver.
    out: Vec<(NodeId, Body)>,
    max_message_bytes: usize,
}

impl Judge {
    pub(super) fn new(max_message_bytes: usize) -> Self {
        Self { max_message_bytes, ..Self::default() }
    }

    pub(super) fn take_messages(&mut self) -> Vec<(NodeId, Body)> {
        std::mem::take(&mut self.out)
    }

    pub(super) fn take_job(&mut self) -> Option<Job> {
        self.queue.pop_front()
    }

    /// The next perform that must not run any more, and that no other perform of its session
    /// precedes. A leader that must not run methods can still say of such a perform that it never
    /// ran.
    pub(super) fn take_skip(&mut self) -> Option<Job> {
        let is_skip = |job: &Job| matches!(job.task, Task::Request(Request { method: None, .. }));
        let mut earlier = SortedSet::new();
        let at = self.queue.iter().position(|job| earlier.insert(job.session) && is_skip(job))?;
        self.queue.remove(at)
    }

    /// The sessions whose outcomes are to be acknowledged by an entry, each with the first perform
    /// that is not acknowledged.
    pub(super) fn take_acknowledged(&mut self) -> SortedMap<SessionId, Seq> {
        std::mem::take(&mut self.active_sessions.1)
    }

    /// Whether a session may be closed because another one needs its place. One that this leader
    /// has just opened may not: when there are more clients than places, they would close each
    /// other's sessions before any perform could run.
    pub(super) fn may_close(&self, session: SessionId, now: Time) -> bool {
        let opened = self.active_sessions.0.get(&session).and_then(|active| active.opened);
        opened.is_none_or(|at| now >= at.saturating_add(SHORTEST_SESSION))
    }

    /// A session was opened in place of another one.
    pub(super) fn opened(&mut self, session: SessionId, now: Time, closed: Option<SessionId>) {
        if let Some(closed) = closed {
            self.active_sessions.0.remove(&closed);
        }
        let active = ActiveSession { opened: Some(now), next: 1, ..ActiveSession::default() };
        self.active_sessions.0.insert(session, active);
    }

    pub(super) fn handle_read(&mut self, from: NodeId, id: u64) {
        self.unconfirmed.push(Unconfirmed::Read(from, id));
    }

    /// Requests arrived, numbered from `first` on. `sessions` is the table behind the last entry of
    /// the log. Performs that are not next in their session are ignored: they were taken already,
    /// or the client will send those before them again.
    pub(super) fn handle_perform(
        &mut self,
        sessions: &Sessions,
        from: NodeId,
        session: SessionRef,
        (ack, first): (Seq, Seq),
        requests: Vec<Request>,
    ) {
        let Some(active) = self.active_sessions.activate(sessions, from, session, ack) else {
            return;
        };
        let session = session.id;
        // The limit prevents an overflow of numbers that no real client uses.
        for (seq, request) in (first.min(MAX_SEQ)..).zip(requests) {
            if seq == active.next {
                active.next += 1;
                active.partial = None;
                self.queue.push_back(Job { session, seq, task: Task::Request(request) });
            }
        }
        self.answer(session);
    }

    /// A chunk of a large request arrived. Arguments of more than `max` bytes are refused.
    pub(super) fn handle_chunk(
        &mut self,
        sessions: &Sessions,
        from: NodeId,
        session: SessionRef,
        chunk: Chunk,
        max: u64,
    ) {
        let Some(active) = self.active_sessions.activate(sessions, from, session, chunk.ack) else {
            return;
        };
        let session = session.id;
        if chunk.seq == active.next && chunk.total > max {
            active.next += 1;
            active.partial = None;
            let message =
                format!("the arguments are {} bytes, and the leader takes {max}", chunk.total);
            let task = Task::Refuse(Failure::new("TOO_LARGE", message));
            self.queue.push_back(Job { session, seq: chunk.seq, task });
        } else if chunk.seq == active.next {
            let mut partial = match active.partial.take() {
                Some(partial) if partial.total == chunk.total => partial,
                _ => Partial { method: chunk.method, total: chunk.total, data: Vec::new() },
            };
            if chunk.offset == partial.data.len() as u64 {
                partial.data.extend_from_slice(chunk.data.as_slice());
            }
            if partial.data.len() as u64 >= chunk.total {
                active.next += 1;
                let request =
                    Request { method: Some(partial.method), args: Blob::from(partial.data) };
                let task = Task::Request(request);
                self.queue.push_back(Job { session, seq: chunk.seq, task });
            } else {
                active.partial = Some(partial);
            }
        }
        self.answer(session);
    }

    /// Acknowledges the requests of a session that have arrived, and sends its released verdicts
    /// again.
    fn answer(&mut self, id: SessionId) {
        let Some(active) = self.active_sessions.0.get(&id) else { return };
        let offset = active.partial.as_ref().map_or(0, |partial| partial.data.len() as u64);
        let session = SessionRef { id, nonce: active.nonce };
        let received = Body::Received { session, next: active.next, offset };
        self.out.push((active.client, received));
        let released = active.verdicts.iter().filter(|(_, pending)| pending.released);
        let verdicts: Vec<_> =
            released.map(|(seq, pending)| (*seq, pending.index, pending.verdict.clone())).collect();
        let client = active.client;
        self.send_verdicts(client, session, verdicts);
    }

    /// Sends verdicts, split into messages of at most `max_message_bytes`.
    fn send_verdicts(
        &mut self,
        client: NodeId,
        session: SessionRef,
        released: Vec<(Seq, Index, Verdict)>,
    ) {
        let mut verdicts = Vec::new();
        let mut bytes = 0;
        for verdict in released {
            let size = 64 + verdict.2.size();
            if bytes + size > self.max_message_bytes && !verdicts.is_empty() {
                let verdicts = std::mem::take(&mut verdicts);
                self.out.push((client, Body::Verdicts { session, verdicts }));
                bytes = 0;
            }
            bytes += size;
            verdicts.push(verdict);
        }
        if !verdicts.is_empty() {
            self.out.push((client, Body::Verdicts { session, verdicts }));
        }
    }

    /// A perform ended without an action. It was judged against everything up to `index`.
    pub(super) fn add_verdict(
        &mut self,
        session: SessionId,
        seq: Seq,
        verdict: Verdict,
        index: Index,
    ) {
        if made(Mistake::VerdictUnconfirmed)
            && let Some(active) = self.active_sessions.0.get(&session)
        {
            let verdicts = vec![(seq, 0, verdict.clone())];
            let session = SessionRef { id: session, nonce: active.nonce };
            self.out.push((active.client, Body::Verdicts { session, verdicts }));
        }
        if let Some(active) = self.active_sessions.0.get_mut(&session) {
            active.verdicts.insert(seq, PendingVerdict { verdict, index, released: false });
            self.unconfirmed.push(Unconfirmed::Verdict(session, seq));
            self.unconfirmed_index = self.unconfirmed_index.max(index);
        }
    }

    /// What the entry of an action must carry: up to where the client has acknowledged outcomes,
    /// and the verdicts between there and the action. Verdicts before `recorded` are in the log
    /// already.
    pub(super) fn carried(
        &self,
        session: SessionId,
        recorded: Seq,
        seq: Seq,
    ) -> (Seq, Vec<(Seq, Verdict)>) {
        let Some(active) = self.active_sessions.0.get(&session) else { return (seq, Vec::new()) };
        if made(Mistake::VerdictJudgedAgain) {
            return (active.ack, Vec::new());
        }
        let verdicts = active
            .verdicts
            .iter_from(&recorded)
            .take_while(|(s, _)| **s < seq)
            .map(|(s, pending)| (*s, pending.verdict.clone()));
        (active.ack, verdicts.collect())
    }

    /// Combines everything that needs a confirmation into one request with this number. Returns the
    /// index that must be committed.
    pub(super) fn take_confirmation(&mut self, id: u64) -> Option<Index> {
        if self.unconfirmed.is_empty() {
            return None;
        }
        self.confirming.insert(id, std::mem::take(&mut self.unconfirmed));
        Some(std::mem::take(&mut self.unconfirmed_index))
    }

    /// A confirmation arrived: sends what waited for it. A reader must have applied everything up
    /// to `index`.
    pub(super) fn confirmed(&mut self, id: u64, index: Index) {
        let mut verdicts: SortedMap<SessionId, Vec<(Seq, Index, Verdict)>> = SortedMap::new();
        for awaited in self.confirming.remove(&id).unwrap_or_default() {
            match awaited {
                Unconfirmed::Read(client, id) => {
                    self.out.push((client, Body::ReadAt { id, index }))
                }
                Unconfirmed::Verdict(session, seq) => {
                    let active = self.active_sessions.0.get_mut(&session);
                    if let Some(pending) = active.and_then(|active| active.verdicts.get_mut(&seq)) {
                        pending.released = true;
                        let released = (seq, pending.index, pending.verdict.clone());
                        verdicts.get_or_insert_with(session, Vec::new).push(released);
                    }
                }
            }
        }
        for (id, verdicts) in verdicts {
            if let Some(active) = self.active_sessions.0.get(&id) {
                let (client, session) = (active.client, SessionRef { id, nonce: active.nonce });
                self.send_verdicts(client, session, verdicts);
            }
        }
    }
}

/// The fields of [`Body::Chunk`] without the session.
pub(super) struct Chunk {
    pub(super) ack: Seq,
    pub(super) seq: Seq,
    pub(super) method: String,
    pub(super) total: u64,
    pub(super) offset: u64,
    pub(super) data: Blob,
}
