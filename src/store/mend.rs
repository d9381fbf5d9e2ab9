//! How a node that has diverged gets a good state ([`super::fetch`]), and gives one to others.

use super::check::Health;
use super::fetch::{Asked, Fetch, Giving};
use super::machine::{Call, Failure};
use super::message::{Body, Message};
use super::replica::Meta;
use super::snapshot::{decode_snapshot, encode_checked};
use super::{OngoingCall, Store};
use crate::raft::{Blob, Position, Raft, Time};

impl<S: Clone> Store<S> {
    /// Begins to ask for a good state.
    pub(super) fn fetch_state(&mut self) {
        self.fetch = Some(Fetch::default());
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
        let others: Vec<_> = match leader == raft.id() {
            false => vec![leader],
            true => raft.members().iter().map(|(id, _)| id).filter(|id| *id != leader).collect(),
        };
        if others.is_empty() {
            // The others were removed. This node is the cluster now, and the next check, in which
            // it is the majority, finds its state right.
            self.fetch = None;
            return self.set_health(Health::Suspect(self.replica.applied));
        }
        let to = others[fetch.asked / 4 % others.len()];
        (fetch.ask_at, fetch.asked) = (now + self.config.retry, fetch.asked + 1);
        let body = Body::Fetch { at: fetch.at, offset: fetch.data.len() as u64 };
        self.outbox.push((to, Message { term: raft.term(), body }));
    }

    /// A chunk arrived.
    pub(super) fn handle_state(&mut self, at: Position, total: u64, offset: u64, data: &Blob) {
        let Some(fetch) = self.fetch.as_mut().filter(|fetch| !fetch.complete) else { return };
        if fetch.at != Some(at) {
            *fetch = Fetch { at: Some(at), asked: fetch.asked, ..Fetch::default() };
        }
        if offset == fetch.data.len() as u64 {
            fetch.data.extend_from_slice(data.as_slice());
            // Ask the same member for the next chunk.
            (fetch.ask_at, fetch.asked) = (0, fetch.asked & !3);
        }
        fetch.complete = fetch.data.len() as u64 >= total;
    }

    /// Begins to load a state that has arrived, once its entry is committed here.
    pub(super) fn load_fetched(&mut self, raft: &Raft) -> Option<Call<S>> {
        let fetch = self.fetch.as_ref().filter(|fetch| fetch.complete)?;
        let at = fetch.at?;
        if at.index > raft.commit_index() {
            return None;
        }
        let fetch = self.fetch.take()?;
        if at.index < self.replica.applied || !raft.log().contains(at) {
            // The other node had not applied so much. It will have by the next time.
            self.fetch = Some(Fetch { ask_at: self.now + self.config.retry, ..Fetch::default() });
            return None;
        }
        match decode_snapshot(&fetch.data) {
            Some(snapshot) => {
                let meta = snapshot.meta(self.config.max_sessions, at.index);
                self.ongoing = OngoingCall::Mending(at, meta);
                Some(Call::Load(snapshot.state))
            }
            None => {
                self.fetch_state();
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
        if self.giving.asked.is_empty() {
            return None;
        }
        if !self.is_fit() || self.replica.meta.release.is_none() {
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
        let Some((at, data)) = &self.giving.state else { return };
        for Asked { from, at: asked, offset } in std::mem::take(&mut self.giving.asked) {
            let offset = if asked == Some(*at) { offset } else { 0 };
            let start = usize::try_from(offset).unwrap_or(0).min(data.len());
            let end = (start + self.config.max_message_bytes).min(data.len());
            let (total, chunk) = (data.len() as u64, Blob::from(&data.as_slice()[start..end]));
            let body = Body::State { at: *at, total, offset: start as u64, data: chunk };
            self.outbox.push((from, Message { term: raft.term(), body }));
        }
    }

    /// The term or the leader changed, or a check has come: a state that nobody asked for since is
    /// not kept.
    pub(super) fn forget_given(&mut self) {
        self.giving = Giving::default();
    }

    /// Whether this node waits for a good state.
    pub fn is_diverged(&self) -> bool {
        self.checks.health == Health::Diverged
    }
}
