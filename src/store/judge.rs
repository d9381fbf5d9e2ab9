//! The leading side: takes performs in order, and holds verdicts back until they are true.
//!
//! A verdict without an action (`null`, an error) is a linearizable read: it is told only when the
//! prefix of the log against which it was judged is committed, and this node has been confirmed as
//! leader since. Otherwise a deposed leader could tell of a state that never was.

use std::collections::VecDeque;

use super::machine::Failure;
use super::message::{Body, Request};
use super::sessions::{MAX_SEQ, Seq, Session, SessionId, Sessions, Verdict};
use crate::mistakes::{Mistake, made};
use crate::raft::{Blob, Index, NodeId};
use crate::sorted::SortedMap;

/// A perform whose turn it is.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) session: SessionId,
    pub(super) seq: Seq,
    pub(super) task: Task,
}

/// What there is to judge.
#[derive(Debug)]
pub(super) enum Task {
    /// A request.
    Request(Request),
    /// A request that is refused without running it.
    Refuse(Failure),
}

/// A verdict that waits to be told, or to be acknowledged.
#[derive(Debug)]
struct Held {
    verdict: Verdict,
    /// What must be committed, and applied at the client, before it counts.
    index: Index,
    /// Both are so: it may be told.
    released: bool,
}

/// What a leader knows of a session besides what is in the log.
#[derive(Debug, Default)]
struct ActiveSession {
    /// Where its client is.
    client: NodeId,
    ack: Seq,
    /// The next perform to take: everything before it is in the log, held, or queued.
    next: Seq,
    verdicts: SortedMap<Seq, Held>,
    /// A request that is arriving in parts.
    partial: Option<Partial>,
}

#[derive(Debug)]
struct Partial {
    method: String,
    total: u64,
    data: Vec<u8>,
}

/// What waits for a confirmation of leadership.
#[derive(Debug)]
enum Awaited {
    Verdict(SessionId, Seq),
    Read(NodeId, u64),
}

#[derive(Debug, Default)]
struct ActiveSessions(SortedMap<SessionId, ActiveSession>);

impl ActiveSessions {
    /// A session's live part, which begins where the log leaves off. `None` for a session that is
    /// not open: its client finds out when it applies the entry that closed it.
    fn open(
        &mut self,
        sessions: &Sessions,
        from: NodeId,
        id: SessionId,
        ack: Seq,
    ) -> Option<&mut ActiveSession> {
        let session = sessions.get(id);
        if session.is_none() && !made(Mistake::ExpiredSessionRuns) {
            self.0.remove(&id);
            return None;
        }
        if ack > MAX_SEQ {
            return None; // Nobody gets there.
        }
        let live = self.0.get_or_insert_with(id, ActiveSession::default);
        live.client = from;
        live.ack = live.ack.max(ack);
        // What the client has acknowledged was settled by an earlier leader, with a verdict that
        // is in no log.
        let right =
            |_: &&Session| !(made(Mistake::RetryAppliedTwice) || made(Mistake::VerdictJudgedAgain));
        let recorded = session.filter(right).map_or(1, Session::next);
        live.next = live.next.max(recorded).max(ack);
        live.verdicts.remove_before(&ack);
        Some(live)
    }
}

/// The leading side of a node, for one term.
#[derive(Debug, Default)]
pub(super) struct Judge {
    live: ActiveSessions,
    queue: VecDeque<Job>,
    /// What was judged since the last confirmation was asked for, and the index it needs.
    unconfirmed: Vec<Awaited>,
    unconfirmed_index: Index,
    confirming: SortedMap<u64, Vec<Awaited>>,
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

    pub(super) fn handle_read(&mut self, from: NodeId, id: u64) {
        self.unconfirmed.push(Awaited::Read(from, id));
    }

    /// Requests arrived. `sessions` is the table after the last entry of the log.
    pub(super) fn handle_perform(
        &mut self,
        sessions: &Sessions,
        from: NodeId,
        session: SessionId,
        (ack, first): (Seq, Seq),
        requests: Vec<Request>,
    ) {
        let Some(live) = self.live.open(sessions, from, session, ack) else { return };
        // A first number near the end of all numbers is nobody's.
        for (seq, request) in (first.min(MAX_SEQ)..).zip(requests) {
            if seq == live.next {
                live.next += 1;
                live.partial = None;
                self.queue.push_back(Job { session, seq, task: Task::Request(request) });
            }
        }
        self.answer(session);
    }

    /// A part of a large request arrived. `max` is the largest that is taken.
    pub(super) fn handle_chunk(
        &mut self,
        sessions: &Sessions,
        from: NodeId,
        session: SessionId,
        chunk: Chunk,
        max: u64,
    ) {
        let Some(live) = self.live.open(sessions, from, session, chunk.ack) else { return };
        if chunk.seq == live.next && chunk.total > max {
            live.next += 1;
            live.partial = None;
            let message =
                format!("the arguments are {} bytes, and the leader takes {max}", chunk.total);
            let task = Task::Refuse(Failure::new("TOO_LARGE", message));
            self.queue.push_back(Job { session, seq: chunk.seq, task });
        } else if chunk.seq == live.next {
            let mut partial = match live.partial.take() {
                Some(partial) if partial.total == chunk.total => partial,
                _ => Partial { method: chunk.method, total: chunk.total, data: Vec::new() },
            };
            if chunk.offset == partial.data.len() as u64 {
                partial.data.extend_from_slice(chunk.data.as_slice());
            }
            if partial.data.len() as u64 >= chunk.total {
                live.next += 1;
                let request =
                    Request { method: Some(partial.method), args: Blob::from(partial.data) };
                let task = Task::Request(request);
                self.queue.push_back(Job { session, seq: chunk.seq, task });
            } else {
                live.partial = Some(partial);
            }
        }
        self.answer(session);
    }

    /// Says how far the session's requests have arrived, and repeats what was released.
    fn answer(&mut self, id: SessionId) {
        let Some(live) = self.live.0.get(&id) else { return };
        let offset = live.partial.as_ref().map_or(0, |partial| partial.data.len() as u64);
        let received = Body::Received { session: id, next: live.next, offset };
        self.out.push((live.client, received));
        let released = live.verdicts.iter().filter(|(_, held)| held.released);
        let verdicts: Vec<_> =
            released.map(|(seq, held)| (*seq, held.index, held.verdict.clone())).collect();
        let client = live.client;
        self.tell(client, id, verdicts);
    }

    /// Tells verdicts, in messages of a size that frames can carry.
    fn tell(&mut self, client: NodeId, session: SessionId, told: Vec<(Seq, Index, Verdict)>) {
        let mut verdicts = Vec::new();
        let mut bytes = 0;
        for verdict in told {
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

    /// A perform ended without an action, judged against everything up to `index`.
    pub(super) fn hold(&mut self, session: SessionId, seq: Seq, verdict: Verdict, index: Index) {
        if made(Mistake::VerdictUnconfirmed)
            && let Some(live) = self.live.0.get(&session)
        {
            let verdicts = vec![(seq, 0, verdict.clone())];
            self.out.push((live.client, Body::Verdicts { session, verdicts }));
        }
        if let Some(live) = self.live.0.get_mut(&session) {
            live.verdicts.insert(seq, Held { verdict, index, released: false });
            self.unconfirmed.push(Awaited::Verdict(session, seq));
            self.unconfirmed_index = self.unconfirmed_index.max(index);
        }
    }

    /// What an action's entry must carry: what the client has acknowledged, and the verdicts
    /// before the action that it has not. Those before `recorded` are in the log already.
    pub(super) fn carried(
        &self,
        session: SessionId,
        recorded: Seq,
        seq: Seq,
    ) -> (Seq, Vec<(Seq, Verdict)>) {
        let Some(live) = self.live.0.get(&session) else { return (seq, Vec::new()) };
        if made(Mistake::VerdictJudgedAgain) {
            return (live.ack, Vec::new());
        }
        let verdicts = live
            .verdicts
            .iter_from(&recorded)
            .take_while(|(s, _)| **s < seq)
            .map(|(s, held)| (*s, held.verdict.clone()));
        (live.ack, verdicts.collect())
    }

    /// Asks for one confirmation of everything that waits for one.
    pub(super) fn take_confirmation(&mut self, id: u64) -> Option<Index> {
        if self.unconfirmed.is_empty() {
            return None;
        }
        self.confirming.insert(id, std::mem::take(&mut self.unconfirmed));
        Some(std::mem::take(&mut self.unconfirmed_index))
    }

    /// A confirmation arrived: what waited for it may be told.
    pub(super) fn confirmed(&mut self, id: u64, index: Index) {
        let mut verdicts: SortedMap<SessionId, Vec<(Seq, Index, Verdict)>> = SortedMap::new();
        for awaited in self.confirming.remove(&id).unwrap_or_default() {
            match awaited {
                Awaited::Read(client, id) => self.out.push((client, Body::ReadAt { id, index })),
                Awaited::Verdict(session, seq) => {
                    let live = self.live.0.get_mut(&session);
                    if let Some(held) = live.and_then(|live| live.verdicts.get_mut(&seq)) {
                        held.released = true;
                        let told = (seq, held.index, held.verdict.clone());
                        verdicts.get_or_insert_with(session, Vec::new).push(told);
                    }
                }
            }
        }
        for (session, verdicts) in verdicts {
            if let Some(client) = self.live.0.get(&session).map(|live| live.client) {
                self.tell(client, session, verdicts);
            }
        }
    }
}

/// The fields of [`Body::Chunk`] but for the session.
pub(super) struct Chunk {
    pub(super) ack: Seq,
    pub(super) seq: Seq,
    pub(super) method: String,
    pub(super) total: u64,
    pub(super) offset: u64,
    pub(super) data: Blob,
}
