//! How a node that has diverged gets a good state ([`super::fetch`]), and gives one to others.

use super::check::Health;
use super::fetch::{Asked, Fetch, Giving, Purpose};
use super::machine::{Call, Failure};
use super::message::{Body, Message};
use super::replica::Meta;
use super::snapshot::{decode_snapshot, encode_checked};
use super::{OngoingCall, Step, Store};
#[cfg(feature = "mistakes")]
use crate::mistakes::{Mistake, made};
use crate::raft::{Blob, NodeId, Position, Raft, Time};

/// A member that is asked so often for a chunk without an answer is asked no more.
const MAX_SILENT: usize = 4;

impl<S: Clone> Store<S> {
    /// Begins to ask for a good state.
    pub(super) fn fetch_state(&mut self) {
        self.fetch = Some(Fetch::new(Purpose::Mend));
    }

    /// Begins anew to ask for a good state, but not at once.
    fn fetch_state_later(&mut self) {
        let ask_at = self.now + self.config.retry;
        self.fetch = Some(Fetch { ask_at, ..Fetch::new(Purpose::Mend) });
    }

    /// When to ask for the next chunk.
    pub(super) fn fetch_deadline(&self) -> Option<Time> {
        self.fetch.as_ref().filter(|fetch| !fetch.complete).map(|fetch| fetch.ask_at)
    }

    /// Asks for the next chunk, if it is time.
    pub(super) fn take_fetch_messages(&mut self, now: Time, raft: &Raft) {
        let (Some(fetch), Some(leader)) = (&mut self.fetch, raft.leader()) else { return };
        if fetch.complete || now < fetch.ask_at {
            return;
        }
        let others = || raft.members().iter().map(|(id, _)| id).filter(|id| *id != raft.id());
        // Until one of them answers, a leader asks all others.
        let asked: Vec<_> = match fetch.giver.filter(|_| fetch.asked < MAX_SILENT) {
            Some(giver) => vec![giver],
            None if leader == raft.id() => others().collect(),
            None => vec![leader],
        };
        if asked.is_empty() && fetch.purpose != Purpose::Mend {
            return;
        }
        if asked.is_empty() {
            // The others were removed. This node is the cluster now, and the next check, in which
            // it is the majority, finds its state right.
            self.fetch = None;
            return self.set_health(Health::Suspect(self.replica.applied));
        }
        (fetch.ask_at, fetch.asked) = (now + self.config.retry, fetch.asked + 1);
        let (offset, snapshot) = (fetch.data.len() as u64, fetch.purpose == Purpose::Compact);
        let body = Body::Fetch { at: fetch.at, offset, snapshot };
        let message = Message { term: raft.term(), body };
        self.outbox.extend(asked.into_iter().map(|to| (to, message.clone())));
    }

    /// A chunk arrived: the bytes of the state from `offset` on, of `total` ones.
    pub(super) fn handle_state(
        &mut self,
        from: NodeId,
        at: Position,
        (total, offset): (u64, u64),
        data: &Blob,
    ) {
        let Some(fetch) = self.fetch.as_mut().filter(|fetch| !fetch.complete) else { return };
        if fetch.at != Some(at) {
            *fetch = Fetch { at: Some(at), asked: fetch.asked, ..Fetch::new(fetch.purpose) };
        }
        if offset == fetch.data.len() as u64 {
            fetch.data.extend_from_slice(data.as_slice());
            // Ask the same member for the next chunk.
            (fetch.ask_at, fetch.asked, fetch.giver) = (0, 0, Some(from));
        }
        fetch.complete = fetch.data.len() as u64 >= total;
    }

    /// Begins to load a state that has arrived, or compacts the log behind it, once its entry is
    /// committed here.
    pub(super) fn take_fetched(&mut self, raft: &Raft) -> Option<Step<S>> {
        let fetch = self.fetch.as_ref().filter(|fetch| fetch.complete)?;
        let at = fetch.at.filter(|_| fetch.purpose != Purpose::Upgrade)?;
        // What is compacted away cannot be applied any more.
        let reached = match fetch.purpose {
            Purpose::Compact => self.replica.applied,
            Purpose::Mend | Purpose::Upgrade => raft.commit_index(),
        };
        if at.index > reached {
            return None;
        }
        let fetch = self.fetch.take()?;
        if fetch.purpose == Purpose::Compact {
            let is_newer = at.index > raft.log().base().index && raft.log().contains(at);
            // If the leader has no newer one, this node asks again when the log has grown as much.
            self.checks.log_bytes = 0;
            return is_newer.then(|| self.compact(at, fetch.data.into()));
        }
        if at.index < self.replica.applied || !raft.log().contains(at) {
            // The other node had not applied so much. It will have by the next time.
            self.fetch_state_later();
            return None;
        }
        #[cfg(feature = "mistakes")]
        if made(Mistake::MendResetsLog) {
            return Some(Step::Reset { last: at, data: fetch.data.into() });
        }
        match decode_snapshot(&fetch.data) {
            Some(snapshot) => {
                let meta = snapshot.meta(self.config.max_sessions, at.index);
                if snapshot.version != self.config.version {
                    self.skip_state(at.index, meta);
                    return None;
                }
                self.ongoing = OngoingCall::Mending(at, meta);
                Some(Step::Call(Call::Load(snapshot.state)))
            }
            None => {
                self.fetch_state_later();
                None
            }
        }
    }

    /// The state from the other node was loaded.
    pub(super) fn fetched(&mut self, at: Position, state: S, meta: Meta) {
        self.checks.mended = Some(at.index);
        self.load_state(at, meta, state);
    }

    /// Answers requests for the state of this node.
    pub(super) fn give_state(&mut self, raft: &Raft) -> Option<Call<S>> {
        for asked in self.giving.take_snapshot_requests() {
            if let Some(snapshot) = raft.log().snapshot() {
                self.answer(raft, &asked, snapshot.last, &snapshot.data);
            }
        }
        if self.giving.asked.is_empty() {
            return None;
        }
        if !self.is_fit() || self.replica.meta.release != Some(self.config.version) {
            self.giving.asked.clear();
            return None;
        }
        let applied = self.replica.applied;
        let state = self.giving.state.as_ref();
        let is_kept = |asked: &Asked| match asked.at {
            Some(at) => state.is_some_and(|(kept, _)| *kept == at),
            None => state.is_some_and(|(kept, _)| kept.index == applied),
        };
        if self.giving.asked.iter().all(is_kept) {
            self.answer_asked(raft);
            return None;
        }
        let term = raft.log().term(applied)?;
        self.ongoing = OngoingCall::Giving(Position::new(applied, term));
        Some(Call::Save(self.replica.committed.clone()))
    }

    /// The state to give was saved.
    pub(super) fn given(&mut self, raft: &Raft, at: Position, saved: Result<Vec<u8>, Failure>) {
        let Ok(bytes) = saved else {
            self.giving = Giving::default();
            return;
        };
        let sessions = &self.replica.meta.sessions;
        let (data, _) = encode_checked(self.config.version, sessions, &bytes);
        self.giving.state = Some((at, data));
        self.answer_asked(raft);
    }

    fn answer_asked(&mut self, raft: &Raft) {
        let Some((at, data)) = self.giving.state.clone() else { return };
        for asked in std::mem::take(&mut self.giving.asked) {
            self.answer(raft, &asked, at, &data);
        }
    }

    /// Sends a chunk of a snapshot that ends at `at`; the first one if another snapshot was asked
    /// for.
    fn answer(&mut self, raft: &Raft, asked: &Asked, at: Position, data: &Blob) {
        let offset = if asked.at == Some(at) { asked.offset } else { 0 };
        let start = usize::try_from(offset).unwrap_or(0).min(data.len());
        let end = (start + self.config.max_message_bytes).min(data.len());
        let (total, chunk) = (data.len() as u64, Blob::from(&data.as_slice()[start..end]));
        let body = Body::State { at, total, offset: start as u64, data: chunk };
        self.outbox.push((asked.from, Message { term: raft.term(), body }));
    }

    /// The term or the leader changed: a state that nobody asked for since is not kept.
    pub(super) fn forget_given(&mut self) {
        self.giving = Giving::default();
    }

    /// Whether this node waits for a good state.
    pub fn is_diverged(&self) -> bool {
        self.checks.health == Health::Diverged
    }
}
