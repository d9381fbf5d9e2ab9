//! What a node does when its code is newer or older than the state ([`super::release`]).

use super::check::Health;
use super::fetch::{Fetch, Purpose};
use super::machine::{Call, Failure};
use super::message::{Body, Message};
use super::release::{Relation, Replay};
use super::replica::Meta;
use super::sessions::{Command, Sessions};
use super::snapshot::decode_snapshot;
use super::{CARETAKER, Fault, OngoingCall, Step, Store, encode};
use crate::mistakes::{Mistake, made};
use crate::raft::{Index, NodeId, Payload, Raft, Time};

/// How often the other members are asked for the state before a node computes it itself.
const ATTEMPTS: usize = 5;

impl<S: Clone> Store<S> {
    fn relation_to(&self, release: Option<u32>) -> Relation {
        match release {
            _ if self.config.version == CARETAKER => Relation::Outdated,
            Some(release) if release < self.config.version => Relation::Ahead,
            Some(release) if release > self.config.version => Relation::Outdated,
            _ => Relation::Current,
        }
    }

    /// How this node relates to the committed state.
    pub(super) fn relation(&self) -> Relation {
        self.relation_to(self.replica.meta.release)
    }

    /// Whether this node makes states behind entries: their version is its own.
    pub(super) fn may_reduce(&self) -> bool {
        let relation = self.relation_to(self.replica.tip_meta.release);
        relation == Relation::Current || (relation == Relation::Outdated && self.judges_outdated())
    }

    pub(super) fn judges_outdated(&self) -> bool {
        made(Mistake::OutdatedJudges) && self.config.version != CARETAKER
    }

    /// Whether the state was made by a newer version of the application.
    pub fn is_outdated(&self) -> bool {
        self.relation() == Relation::Outdated
    }

    /// A state of this version is the committed one now.
    pub(super) fn release_changed(&mut self, release: u32) {
        self.client.pause(self.relation() == Relation::Ahead);
        if self.relation() == Relation::Outdated {
            self.become_outdated(release);
        }
    }

    /// A state of a newer version is committed.
    fn become_outdated(&mut self, release: u32) {
        let own = self.config.version;
        if self.judges_outdated() {
            return;
        }
        // Its state stands still, so it does not matter any more whether it is right.
        self.fetch = None;
        self.set_health(Health::Sound);
        self.client.withdraw(Failure::new(
            "OUTDATED",
            format!(
                "the cluster runs version {release} of the application, and this is version {own}: \
                 load the newer version, for example by a reload of the page"
            ),
        ));
        if !std::mem::replace(&mut self.releases.told, true) {
            self.faults.push(Fault::Outdated { release });
        }
    }

    /// Offers to lead, and on a leader that cannot judge, seeks a node that can.
    pub(super) fn take_release_messages(&mut self, now: Time, raft: &Raft) {
        self.fetch_snapshot(raft);
        let Some((to, body)) = self.release_message(raft) else {
            self.releases.send_at = None;
            return;
        };
        if self.releases.send_at.is_some_and(|at| now < at) {
            return;
        }
        self.releases.send_at = Some(now + self.config.retry);
        let message = Message { term: raft.term(), body };
        self.outbox.extend(to.into_iter().map(|to| (to, message.clone())));
    }

    /// What to send, and to whom, as long as this node's version is not that of the state.
    fn release_message(&self, raft: &Raft) -> Option<(Vec<NodeId>, Body)> {
        let leader = raft.leader().filter(|_| self.relation() != Relation::Current)?;
        if leader == raft.id() {
            let members = raft.members().iter().map(|(id, _)| id);
            let others: Vec<_> = members.filter(|id| *id != leader).collect();
            return Some((others, Body::Seek))
                .filter(|(to, _)| !to.is_empty() && !self.can_migrate());
        }
        let may_offer = self.can_migrate() && raft.members().is_voter(raft.id());
        may_offer.then(|| (vec![leader], Body::Offer { version: self.config.version }))
    }

    /// When [`Self::take_release_messages`] has something to send again.
    pub(super) fn release_deadline(&self) -> Option<Time> {
        self.releases.send_at
    }

    /// Whether this node's code is newer than the state, and can make the state its own.
    pub(super) fn can_migrate(&self) -> bool {
        self.relation() == Relation::Ahead && self.is_fit() && !self.releases.failed
    }

    /// The leader cannot judge, and seeks a node that can.
    pub(super) fn handle_seek(&mut self, raft: &Raft, from: NodeId) {
        let is_able = match self.relation() {
            Relation::Current => self.is_fit() && self.has_followed(raft),
            Relation::Ahead => self.can_migrate(),
            Relation::Outdated => false,
        };
        if is_able && raft.leader() == Some(from) && raft.members().is_voter(raft.id()) {
            let body = Body::Offer { version: self.config.version };
            self.outbox.push((from, Message { term: raft.term(), body }));
        }
    }

    /// A member offers to lead.
    pub(super) fn handle_offer(&mut self, raft: &Raft, from: NodeId, version: u32) {
        let cannot_judge = self.relation() != Relation::Current && !self.can_migrate();
        if raft.members().is_voter(from) && (version > self.config.version || cannot_judge) {
            self.releases.successor = Some(from);
        }
    }

    /// What a leader with newer code does next to make the state its own. Everything in its log is
    /// followed.
    pub(super) fn migrate(&mut self, raft: &Raft) -> Step<S> {
        let is_committed = raft.commit_index() == raft.log().last().index;
        let Some(from) = self.replica.meta.release.filter(|_| is_committed && self.can_migrate())
        else {
            return Step::Idle;
        };
        if self.releases.replay.is_some() {
            return self.replay_next(raft, from);
        }
        let fetch = self.fetch.take().filter(|fetch| fetch.purpose == Purpose::Upgrade);
        let fetch = self.fetch.insert(fetch.unwrap_or_else(|| Fetch::new(Purpose::Upgrade)));
        let is_alone = raft.members().len() == 1;
        if fetch.complete {
            let contents = decode_snapshot(&fetch.data).filter(|contents| contents.version == from);
            let is_newest = fetch.at.is_some_and(|at| at.index >= self.replica.meta.changed);
            self.fetch = None;
            let Some(contents) = contents.filter(|_| is_newest) else { return Step::Idle };
            self.ongoing = OngoingCall::LoadingOld(from);
            return Step::Call(Call::LoadOld(contents.state));
        }
        if is_alone || fetch.asked >= ATTEMPTS {
            // No node of the old version is left.
            self.fetch = None;
            return self.begin_replay(raft, from);
        }
        Step::Idle
    }

    /// Begins to compute the old state from the snapshot and the log.
    fn begin_replay(&mut self, raft: &Raft, from: u32) -> Step<S> {
        let sessions = || Sessions::with_limit(self.config.max_sessions);
        let state = self.initial.clone();
        let Some(snapshot) = raft.log().snapshot() else {
            self.releases.replay = Some(Replay { at: 0, meta: Meta::new(sessions()), state });
            return self.replay_next(raft, from);
        };
        let at = snapshot.last.index;
        let Some(contents) = decode_snapshot(snapshot.data.as_slice()) else { return Step::Idle };
        let meta = contents.meta(self.config.max_sessions, at);
        self.releases.replay = Some(Replay { at, meta, state });
        self.ongoing = OngoingCall::Replaying;
        Step::Call(Call::LoadOld(contents.state))
    }

    /// The next entry of the computation; at its end, `migrate`.
    fn replay_next(&mut self, raft: &Raft, from: u32) -> Step<S> {
        let Some(replay) = &mut self.releases.replay else { return Step::Idle };
        while let Some(entry) = raft.entry(replay.at + 1) {
            replay.at += 1;
            let Payload::Command(data) = &entry.payload else { continue };
            let Ok(command) = postcard::from_bytes::<Command>(data.as_slice()) else { continue };
            if !replay.meta.apply(replay.at, &command) {
                continue;
            }
            let call = match command {
                Command::Action { action, .. } => {
                    Call::Reduce { state: replay.state.clone(), action, proposed: false }
                }
                Command::Found { state, .. } | Command::Upgrade { state, .. } => {
                    Call::LoadOld(state)
                }
                _ => continue,
            };
            self.ongoing = OngoingCall::Replaying;
            return Step::Call(call);
        }
        match self.releases.replay.take() {
            Some(replay) => self.run_migrate(replay.state, from),
            None => Step::Idle,
        }
    }

    /// A step of the computation returned. An action that had an effect on the nodes of the old
    /// version must have one here, too: it was acknowledged.
    pub(super) fn replayed(&mut self, result: Result<S, Failure>) -> Step<S> {
        match (result, &mut self.releases.replay) {
            (Ok(state), Some(replay)) => replay.state = state,
            (Ok(_), None) => {}
            (Err(failure), _) => {
                self.releases.replay = None;
                return self.migration_failed("the reducer failed on an older action", &failure);
            }
        }
        Step::Idle
    }

    /// The state of the old version was loaded.
    pub(super) fn old_state_loaded(&mut self, result: Result<S, Failure>, from: u32) -> Step<S> {
        match result {
            Ok(state) => self.run_migrate(state, from),
            Err(failure) => self.migration_failed("the older state cannot be loaded", &failure),
        }
    }

    fn run_migrate(&mut self, state: S, from: u32) -> Step<S> {
        self.ongoing = OngoingCall::Migrating(from);
        Step::Call(Call::Migrate { state, from })
    }

    /// `migrate` returned.
    pub(super) fn migrated(
        &mut self,
        raft: &Raft,
        from: u32,
        result: Result<Vec<u8>, Failure>,
    ) -> Step<S> {
        match result {
            // This node may have been deposed meanwhile.
            Ok(_) if !raft.takes_proposals() || self.replica.meta.release != Some(from) => {
                Step::Idle
            }
            Ok(state) => {
                let (version, state) = (self.config.version, state.into());
                Step::Propose(vec![encode(&Command::Upgrade { version, state })])
            }
            Err(failure) => self.migration_failed("`migrate` failed", &failure),
        }
    }

    fn migration_failed(&mut self, why: &str, failure: &Failure) -> Step<S> {
        self.releases.failed = true;
        let message = format!(
            "{why}, so the cluster stays at its version, and this node cannot take part: {}",
            failure.message
        );
        let failure = Failure::new("MIGRATION_FAILED", message);
        self.client.refuse(Some(failure.clone()));
        self.faults.push(Fault::Stopped(failure));
        Step::Idle
    }

    /// Asks for the leader's snapshot when the log has grown: a caretaker has no state of its own
    /// of which to make one.
    fn fetch_snapshot(&mut self, raft: &Raft) {
        if self.relation() != Relation::Current
            && self.fetch.is_none()
            && !raft.is_leader()
            && self.checks.log_bytes >= 2 * self.snapshot_threshold()
        {
            self.fetch = Some(Fetch::new(Purpose::Compact));
        }
    }

    /// The state to show while the one that this node has is of an older version.
    pub(super) fn shown<'a>(&'a self, state: &'a S, release: Option<u32>) -> &'a S {
        match self.relation_to(release) {
            Relation::Ahead => &self.initial,
            _ => state,
        }
    }

    /// A snapshot or a state of another version arrived. It is not loaded.
    pub(super) fn skip_state(&mut self, last: Index, meta: Meta) {
        self.checks.forget_states();
        self.set_health(Health::Sound);
        let (release, state) = (meta.release, self.replica.committed.clone());
        self.client.pause(self.relation_to(release) == Relation::Ahead);
        if let Some(release) = release.filter(|_| self.relation_to(release) == Relation::Outdated) {
            self.become_outdated(release);
        }
        self.client.handle_snapshot(&meta.sessions, last);
        self.replica.load(last, state, meta);
    }
}
