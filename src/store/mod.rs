//! The replicated state container: methods, sessions, committed and provisional state, snapshots.
//!
//! # The problem
//!
//! A user calls a method on any node (a *perform*). The method must run on the leader, against the
//! newest state, and its action must take effect exactly once and in the order in which that user
//! issued it. But messages get lost and arrive twice, leaders change, and a deposed leader does not
//! know at once that it was deposed.
//!
//! The store runs on top of [`crate::raft`]. Like Raft it takes inputs and returns effects. User
//! code is one of these effects ([`Call`]): nothing of the store is borrowed while user code runs,
//! and what the code returns is the next input.
//!
//! # The way of an entry
//!
//! 1. The client of a node gives the perform the next number of its session and sends it to the
//!    leader, again and again until it knows the outcome.
//! 2. The leader's judge takes the performs of a session in the order of their numbers and calls
//!    each method with the provisional state ([`Call::Judge`]).
//! 3. If the method returns an action, the leader reduces the action ([`Call::Reduce`]) and
//!    *stages* the command together with the new state. What one turn has staged is proposed as one
//!    append. If the method returns no action (nothing, or an error), nothing is appended; the
//!    outcome is called a *verdict* and goes back to the client in a message.
//! 4. The other nodes reduce each entry when it arrives in their log. The states wait in the
//!    replica's tail, one behind each entry; the last of them is the provisional state. When the
//!    log is truncated, the states behind the removed entries are removed, too.
//! 5. When an entry is committed, the state behind it becomes the committed state without being
//!    reduced again, and the client whose perform it was settles the perform.
//!
//! Each of the states in the tail may be a copy of a large list, so their number is limited. A node
//! that starts with a long uncommitted log reduces the first part of it, and the rest as entries
//! before it are committed.
//!
//! # Why it is safe
//!
//! - *Once*: the session table is part of the replicated state (dissertation §6.3). An entry whose
//!   session is not open, or whose number has an outcome already, changes nothing on any node. A
//!   leader judges nothing before it has followed its log to the end, so it knows what has run.
//! - *In order*: an action's entry carries the verdicts of its session before it that the client
//!   may not know yet, so that a later leader does not judge those performs again behind the
//!   action.
//! - *No verdict of a state that never was*: a verdict is a linearizable read. It is sent when
//!   everything against which it was judged is committed and leadership has been confirmed since.
//! - *No late messages*: each message names its term, and is ignored in any other.
//!
//! # Files
//!
//! - `client`: the performs and the session of one node's handle
//! - `judge`: the leader's side of sessions; orders performs and holds verdicts back
//! - `propose`: runs the methods, stages what was judged and proposes it
//! - `follow`: reduces and applies entries, loads snapshots
//! - `check`, `divergence`: find out whether the nodes' states differ, and make snapshots of states
//!   that do not
//! - `fetch`, `mend`: replace a wrong state by another node's
//! - `release`, `upgrade`: nodes whose code is newer or older than the state
//! - `replica`: the state behind each entry
//! - `sessions`: the replicated table of sessions, and the commands in the log
//! - `snapshot`: the bytes of a snapshot
//! - `machine`: user code, and how it is called
//! - `message`: what stores send to each other

mod check;
mod client;
mod divergence;
mod fetch;
mod follow;
mod judge;
mod machine;
mod mend;
mod message;
mod propose;
mod release;
mod replica;
mod sessions;
mod snapshot;
mod upgrade;

use self::check::{Checks, Health};
use self::client::{Client, Limits};
pub use self::client::{Outcome, Perform, Settled};
use self::fetch::{Asked, Fetch, Giving, Purpose};
use self::judge::{Chunk, Job, Judge};
pub use self::machine::{Call, Committed, Failure, Machine, Performer, Return};
pub use self::message::{Body, Hash, Message, Request};
use self::release::{Relation, Releases};
use self::replica::{Meta, Replica, TailEntry};
pub use self::sessions::{
    Command, Recorded, Seq, Session, SessionId, SessionRef, Sessions, Verdict,
};
pub use self::snapshot::encode_snapshot;
use crate::raft::{Blob, Confirmed, Index, NodeId, Payload, Position, Raft, Snapshot, Time};

/// A leader stops judging performs while it has so many entries that are not applied, each with a
/// state of its own.
pub const MAX_TAIL: usize = 512;
/// How many entries beyond the applied one a node reduces before they are committed. This is more
/// than a leader proposes ([`MAX_TAIL`]), so that there is always room for the leader's own
/// entries.
const MAX_FOLLOWED: usize = 2 * MAX_TAIL;

/// The version of a node that runs no code of the application. It votes, stores the log, and may
/// lead until a node that can judge takes over.
pub const CARETAKER: u32 = 0;

/// The settings of a store.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The largest arguments and the largest action, in bytes.
    pub max_action_bytes: usize,
    /// How many bytes go into one message; larger arguments are sent in chunks.
    pub max_message_bytes: usize,
    /// How many bytes of method names and arguments may be pending on this node.
    pub max_pending_bytes: usize,
    /// How long to wait for the leader's answer before sending again, in ms.
    pub retry: Time,
    /// The log is compacted when it has grown by this many bytes, or by the size of the last
    /// snapshot if that is more.
    pub compact_bytes: usize,
    /// The version of the application, which entries and snapshots carry; or [`CARETAKER`].
    pub version: u32,
    /// How many sessions may be open. It must be the same on every node of a cluster, because
    /// opening one more closes another, and every node must close the same one.
    pub max_sessions: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_action_bytes: 1 << 20,
            max_message_bytes: 256 << 10,
            max_pending_bytes: 16 << 20,
            retry: 300,
            compact_bytes: 256 << 10,
            version: 1,
            max_sessions: Sessions::MAX,
        }
    }
}

/// What is left of a store when its node stops: the session, and the pending performs and reads. A
/// later node of the same handle continues with them ([`Store::attach`]).
#[derive(Debug)]
pub struct DetachedClient(Client);

impl DetachedClient {
    /// Ends every perform: the cluster in which they were asked for is over. Its session is
    /// forgotten, because the next cluster may have given the same number to the session of another
    /// client.
    pub fn forget_session(&mut self) {
        self.0.forget_session();
    }
}

/// What the driver must do next.
#[derive(Debug)]
#[must_use]
pub enum Step<S> {
    /// Run user code and bring back what it returns.
    Call(Call<S>),
    /// Propose these commands and report the result with [`Store::proposed`].
    Propose(Vec<Blob>),
    /// Ask Raft to confirm that this node leads (ReadIndex), and that an index is committed.
    Confirm {
        /// The store's number for this request.
        id: u64,
        /// The index that must be committed.
        at_least: Index,
    },
    /// Compact the log.
    Compact {
        /// The last entry that the snapshot covers.
        last: Position,
        /// The snapshot: the state and the sessions behind that entry.
        data: Blob,
    },
    /// Replace the log by this snapshot, whatever is in the log: only for
    /// [`crate::mistakes::Mistake::MendResetsLog`].
    #[cfg(feature = "mistakes")]
    Reset {
        /// The last entry that the snapshot covers.
        last: Position,
        /// The snapshot.
        data: Blob,
    },
    /// Hand leadership to this member.
    Transfer(NodeId),
    /// Nothing, until the next input.
    Idle,
}

/// A fault of user code or of the data, to report to the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The state here may differ from the other nodes' state.
    Diverged {
        /// The index of the committed entry at fault; or, if none is known, of the check that found
        /// the divergence.
        index: Index,
        /// The action at fault, if one is known.
        action: Option<Blob>,
        /// What is wrong with the action or the entry.
        failure: Failure,
    },
    /// The state was made by this newer version of the application.
    Outdated {
        /// The newer version.
        release: u32,
    },
    /// The state here is wrong or unknown for good. Performs and reads fail with this failure.
    Stopped(Failure),
    /// The state cannot be saved, so the log cannot be compacted.
    CannotSave(Failure),
}

/// A command that will be proposed at the end of the turn, with the state that it leads to.
#[derive(Debug)]
struct Staged<S> {
    command: Command,
    encoded: Blob,
    state: S,
}

/// The user code that runs now, with what is needed when it returns.
#[derive(Debug)]
enum OngoingCall {
    /// No user code runs.
    Idle,
    /// The reducer, on the action of this entry of the log.
    Reducing(TailEntry<()>),
    /// The method of a perform.
    Judging(Job),
    /// The reducer, on an action that a method returned here and that is not proposed yet. With it
    /// the command and its bytes.
    Staging(Job, Command, Blob),
    /// The serialization of the cluster's first state.
    Founding,
    /// The serialization of the state behind this entry, which is a check.
    Checking(Position),
    /// The deserialization of a snapshot that ends with this entry; the rest of it is read already.
    Loading(Position, Meta),
    /// The serialization of the state behind this entry, for a node that has diverged.
    Giving(Position),
    /// The deserialization of another node's state behind this entry.
    Mending(Position, Meta),
    /// A mistake: the user's `migrate`, run for this entry on every node.
    Recomputing(TailEntry<()>),
    /// A step of the computation of an older version's state.
    Replaying,
    /// The deserialization of a state of this older version.
    LoadingOld(u32),
    /// The user's `migrate`, on a state of this older version.
    Migrating(u32),
    /// The subscribers.
    Notifying,
}

/// The replicated state container of one node.
#[derive(Debug)]
pub struct Store<S> {
    config: Config,
    /// The first state of this node, which it shows as long as it has no state of its version.
    initial: S,
    releases: Releases<S>,
    client: Client,
    /// Only on a leader, and anew for each term.
    judge: Option<Judge>,
    replica: Replica<S>,
    /// What this turn has staged so far.
    staged: Vec<Staged<S>>,
    /// The bytes of what is staged, as Raft counts them.
    staged_bytes: usize,
    ongoing: OngoingCall,
    /// A snapshot that is not loaded yet.
    incoming_snapshot: Option<Snapshot>,
    checks: Checks,
    /// A good state on its way to this node.
    fetch: Option<Fetch>,
    /// The state for nodes that have diverged.
    giving: Giving,
    /// The number of the next [`Step::Confirm`].
    next_confirmation: u64,
    outbox: Vec<(NodeId, Message)>,
    faults: Vec<Fault>,
    /// Sessions that clients asked this leader to close.
    close_requests: Vec<SessionRef>,
    /// Sessions that clients asked this leader to open: the client's nonce and its node.
    open_requests: Vec<(u64, NodeId)>,
    /// The time of the last input that had one.
    now: Time,
}

impl<S: Clone> Store<S> {
    /// A store in its first state. `seed` determines every random choice.
    pub fn new(config: Config, initial: S, seed: u64) -> Self {
        let limits = Limits {
            max_message_bytes: config.max_message_bytes,
            max_action_bytes: config.max_action_bytes,
            max_pending_bytes: config.max_pending_bytes,
            retry: config.retry,
        };
        Self::with_client(config, initial, Client::new(limits, seed))
    }

    /// A store in its first state that continues with the client of an earlier store.
    pub fn attach(config: Config, initial: S, client: DetachedClient) -> Self {
        let mut client = client.0;
        client.leave_leader();
        Self::with_client(config, initial, client)
    }

    /// Ends this store and returns its client.
    pub fn detach(self) -> DetachedClient {
        DetachedClient(self.client)
    }

    fn with_client(config: Config, initial: S, client: Client) -> Self {
        Self {
            config,
            client,
            judge: None,
            replica: Replica::new(initial.clone(), config.max_sessions),
            initial,
            releases: Releases::new(),
            staged: Vec::new(),
            staged_bytes: 0,
            ongoing: OngoingCall::Idle,
            incoming_snapshot: None,
            checks: Checks::new(),
            fetch: None,
            giving: Giving::default(),
            next_confirmation: 1,
            outbox: Vec::new(),
            faults: Vec::new(),
            close_requests: Vec::new(),
            open_requests: Vec::new(),
            now: 0,
        }
    }

    /// The committed state.
    pub fn committed(&self) -> &S {
        self.shown(&self.replica.committed, self.replica.meta.release)
    }

    /// The committed state plus the uncommitted actions of this node's log. If a node starts with
    /// very many of them, only the first are included until some are committed.
    pub fn provisional(&self) -> &S {
        self.shown(&self.replica.tip, self.replica.tip_meta.release)
    }

    /// The index of the last entry that the committed state contains.
    pub fn applied(&self) -> Index {
        self.replica.applied
    }

    /// The session of this node's performs, once it is open.
    pub fn session(&self) -> Option<SessionId> {
        self.client.session()
    }

    /// The same session as messages name it.
    pub fn session_ref(&self) -> Option<SessionRef> {
        self.client.session_ref()
    }

    /// The sessions in the committed state.
    pub fn sessions(&self) -> &Sessions {
        &self.replica.meta.sessions
    }

    /// Whether the leader has something to do for this node's performs and reads.
    pub fn needs_leader(&self) -> bool {
        self.waiting() > 0 && self.relation() != Relation::Ahead
    }

    /// How many performs and reads of this node are not settled yet.
    pub fn waiting(&self) -> usize {
        self.client.waiting()
    }

    /// The version of the application whose code made the committed state. `None` until the first
    /// state of the cluster is known here.
    pub fn release(&self) -> Option<u32> {
        self.replica.meta.release
    }

    /// The version of the application that this node runs.
    pub fn version(&self) -> u32 {
        self.config.version
    }

    /// The same for the provisional state.
    pub fn provisional_release(&self) -> Option<u32> {
        self.replica.tip_meta.release
    }

    /// When to call [`Store::handle_tick`] and [`Store::take_messages`] at the latest, while the
    /// node has a leader or not.
    pub fn deadline(&self, has_leader: bool) -> Option<Time> {
        let others = [self.check_deadline(), self.fetch_deadline(), self.release_deadline()];
        let others = others.into_iter().flatten().filter(|_| has_leader);
        others.chain(self.client.deadline()).min()
    }

    /// Performs and reads that were settled since the last call.
    #[must_use]
    pub fn take_settled(&mut self) -> Vec<Settled> {
        self.client.take_settled()
    }

    /// Messages to other members, and to this node itself when it leads.
    #[must_use]
    pub fn take_messages(&mut self, now: Time, raft: &Raft) -> Vec<(NodeId, Message)> {
        let term = raft.term();
        let mine = self.client.session_ref().and_then(|mine| self.replica.meta.sessions.find(mine));
        self.client.set_results(mine);
        if let Some(leader) = raft.leader() {
            let bodies = self.client.take_messages(now);
            self.outbox.extend(bodies.into_iter().map(|body| (leader, Message { term, body })));
        }
        self.take_check_messages(now, raft);
        self.take_release_messages(now, raft);
        self.take_fetch_messages(now, raft);
        if let Some(judge) = &mut self.judge {
            let bodies = judge.take_messages();
            self.outbox.extend(bodies.into_iter().map(|(to, body)| (to, Message { term, body })));
        }
        std::mem::take(&mut self.outbox)
    }

    /// The faults since the last call.
    #[must_use]
    pub fn take_faults(&mut self) -> Vec<Fault> {
        std::mem::take(&mut self.faults)
    }

    /// Performs, in the order in which the user asked for them.
    pub fn handle_performs(&mut self, now: Time, performs: Vec<Perform>) {
        for perform in performs {
            self.client.perform(now, perform);
        }
    }

    /// A read. It is settled when this node has applied everything that the cluster had committed
    /// when the read was asked for (ReadIndex, dissertation §6.4).
    pub fn handle_read(&mut self, ticket: u64) {
        self.client.read(ticket);
    }

    /// Settles every pending perform and read of this node with a failure.
    pub fn fail_all(&mut self, failure: &Failure) {
        self.client.fail_all(failure);
    }

    /// Asks the leader, if there is one, to close this node's session. Nothing waits for the
    /// answer: if the message is lost, the session stays until newer ones need its place.
    pub fn handle_close(&mut self, raft: &Raft) {
        if let (Some(session), Some(leader)) = (self.client.session_ref(), raft.leader()) {
            let body = Body::Close { session };
            self.outbox.push((leader, Message { term: raft.term(), body }));
        }
    }

    /// Time has passed.
    pub fn handle_tick(&mut self, now: Time) {
        self.now = now;
        self.client.expire(now, self.replica.applied);
    }

    /// The term or its leader changed.
    pub fn handle_leader(&mut self, raft: &Raft) {
        self.client.set_leader(raft.leader().map(|leader| (leader, raft.term())));
        // Each term gets a judge of its own, even if this node led the term before, too: what the
        // old judge knew may be out of date.
        let max = self.config.max_message_bytes;
        self.judge = raft.is_leader().then(|| Judge::new(max));
        self.unstage();
        self.checks.new_leader();
        self.releases.new_leader();
        self.fetch = self.fetch.take().filter(|fetch| fetch.purpose != Purpose::Upgrade);
        self.forget_given();
        self.close_requests.clear();
        self.open_requests.clear();
    }

    /// The log changed at `from` and behind it: the states behind entries that were removed are
    /// removed.
    pub fn handle_appended(&mut self, from: Index) {
        if self.replica.truncate(from) {
            self.replica.rewind();
        }
        if let OngoingCall::Reducing(entry) = &self.ongoing {
            debug_assert!(entry.at.index < from, "user code returns before the log changes");
        }
    }

    /// A snapshot replaces the state. [`Store::step`] loads it.
    pub fn handle_snapshot(&mut self, snapshot: Snapshot) {
        self.replica.clear_tail();
        self.incoming_snapshot = Some(snapshot);
    }

    /// Raft has answered a [`Step::Confirm`]. No index means that leadership was lost.
    pub fn handle_confirmed(&mut self, confirmed: Confirmed) {
        if let (Some(judge), Some(index)) = (&mut self.judge, confirmed.index) {
            judge.confirmed(confirmed.id, index);
        }
    }

    /// A message from another member, or from this node to itself.
    pub fn handle_message(&mut self, now: Time, raft: &Raft, from: NodeId, message: Message) {
        if message.term != raft.term() {
            return;
        }
        match message.body {
            Body::Received { session, next, offset } => {
                if self.is_mine(raft, from, session) {
                    self.client.handle_received(now, next, offset);
                }
            }
            Body::Verdicts { session, verdicts } => {
                if self.is_mine(raft, from, session) {
                    self.client.handle_verdicts(verdicts, self.replica.applied);
                }
            }
            Body::ReadAt { id, index } => {
                if raft.leader() == Some(from) {
                    self.client.handle_read_at(id, index, self.replica.applied);
                }
            }
            Body::State { at, total, offset, data } => {
                // Nobody has applied more than a leader has committed, so it would wait for ever.
                let is_possible = raft.is_leader() && at.index <= raft.commit_index();
                if is_possible || raft.leader() == Some(from) && from != raft.id() {
                    self.handle_state(from, at, (total, offset), &data);
                }
            }
            Body::Fetch { at, offset, snapshot } => {
                self.giving.asked.push(Asked { from, at, offset, snapshot });
            }
            Body::Seek => self.handle_seek(raft, from),
            body => self.handle_request(raft, from, body),
        }
    }

    fn is_mine(&self, raft: &Raft, from: NodeId, session: SessionRef) -> bool {
        raft.leader() == Some(from) && self.client.session_ref() == Some(session)
    }

    /// A client's message to the leader.
    fn handle_request(&mut self, raft: &Raft, from: NodeId, body: Body) {
        // A leader that does not know yet what is in its log would judge performs again that are in
        // it. The clients send their requests again.
        if !self.has_followed(raft) {
            return;
        }
        let Some(judge) = &mut self.judge else { return };
        match body {
            Body::Open { nonce } => self.open_requests.push((nonce, from)),
            Body::Close { session } => {
                if self.replica.tip_meta.sessions.find(session).is_some() {
                    self.close_requests.push(session);
                }
            }
            Body::Perform { session, ack, first, requests } => {
                let sessions = &self.replica.tip_meta.sessions;
                judge.handle_perform(sessions, from, session, (ack, first), requests);
            }
            Body::Chunk { session, ack, seq, method, total, offset, data } => {
                let chunk = Chunk { ack, seq, method, total, offset, data };
                let max = self.config.max_action_bytes as u64;
                judge.handle_chunk(&self.replica.tip_meta.sessions, from, session, chunk, max);
            }
            Body::Read { id } => judge.handle_read(from, id),
            // The hashes that have arrived must not make way for one of another check.
            Body::Hash { check, hash } if self.replica.tip_meta.open_check == Some(check) => {
                self.checks.handle_hash(from, check, hash);
            }
            Body::Check => self.checks.handle_ask(from, self.replica.meta.open_check),
            Body::Offer { version } => self.handle_offer(raft, from, version),
            Body::Received { .. }
            | Body::Verdicts { .. }
            | Body::ReadAt { .. }
            | Body::Hash { .. }
            | Body::Fetch { .. }
            | Body::Seek
            | Body::State { .. } => {} // Of no use to a leader, or handled already.
        }
    }

    /// What to do next. To be called until it returns [`Step::Idle`] or [`Step::Call`].
    pub fn step(&mut self, raft: &Raft) -> Step<S> {
        debug_assert!(matches!(self.ongoing, OngoingCall::Idle), "user code has not returned");
        loop {
            if let Some(step) = self.take_fetched(raft) {
                return step;
            }
            if let Some(call) = self.load().or_else(|| self.apply(raft.commit_index())) {
                return Step::Call(call);
            }
            if self.incoming_snapshot.is_none() && self.checks.health == Health::Stopped {
                return Step::Idle;
            }
            let from = self.replica.followed();
            if let Some(call) = self.follow_log(raft) {
                return Step::Call(call);
            }
            // Entries that need no user code have been followed just now, and may be committed.
            if let Some(call) = self.apply(raft.commit_index()) {
                return Step::Call(call);
            }
            if self.replica.followed() == from {
                break;
            }
        }
        if let Some(compact) = self.take_confirmed() {
            return compact;
        }
        match self.give_state(raft) {
            Some(call) => Step::Call(call),
            None => self.lead(raft),
        }
    }

    /// User code returned.
    ///
    /// # Panics
    /// When the result is not of the kind that the last [`Step::Call`] asked for: a bug of the
    /// driver.
    pub fn handle_return(&mut self, raft: &Raft, returned: Return<S>) -> Step<S> {
        match (std::mem::replace(&mut self.ongoing, OngoingCall::Idle), returned) {
            (OngoingCall::Reducing(entry), Return::State(result)) => {
                self.replica.push(entry, result)
            }
            (OngoingCall::Judging(job), Return::Judged(result)) => {
                return self.judged(raft, job, result);
            }
            (OngoingCall::Staging(job, command, encoded), Return::State(result)) => match result {
                // The node was deposed meanwhile. Nothing was proposed or sent, so nothing is lost:
                // the client sends the perform to the next leader.
                Ok(_) if self.judge.is_none() => {}
                Ok(state) => {
                    let has_effect = self.replica.tip_meta.apply(self.next_index(raft), &command);
                    debug_assert!(has_effect, "it was judged against these sessions");
                    self.stage(Staged { command, encoded, state });
                }
                Err(failure) => self.add_verdict(raft, &job, Verdict::Failed(failure)),
            },
            (OngoingCall::Founding, Return::Saved(result)) => {
                return self.first_state_saved(raft, result);
            }
            (OngoingCall::Checking(at), Return::Saved(result)) => {
                return self.state_saved(at, result);
            }
            (OngoingCall::Recomputing(entry), Return::Saved(Ok(state))) => {
                self.ongoing = OngoingCall::Reducing(entry);
                return Step::Call(Call::Load(state.into()));
            }
            (OngoingCall::Replaying, Return::State(result)) => return self.replayed(result),
            (OngoingCall::LoadingOld(from), Return::State(result)) => {
                return self.old_state_loaded(result, from);
            }
            (OngoingCall::Migrating(from), Return::Saved(result)) => {
                return self.migrated(raft, from, result);
            }
            (OngoingCall::Giving(at), Return::Saved(result)) => self.given(raft, at, result),
            (OngoingCall::Loading(at, meta), Return::State(Ok(state))) => {
                self.loaded(at, meta, state);
                return self.notify_of_state(at);
            }
            (OngoingCall::Mending(at, meta), Return::State(Ok(state))) => {
                self.fetched(at, state, meta);
                return self.notify_of_state(at);
            }
            (OngoingCall::Loading(..) | OngoingCall::Mending(..), Return::State(Err(failure))) => {
                self.cannot_load(&failure)
            }
            (OngoingCall::Notifying, Return::Done) => {}
            (ongoing, _) => panic!("{} got another call's result", ongoing.name()),
        }
        Step::Idle
    }
}

impl<S: Clone> Store<S> {
    /// Subscribers must learn of a state that was loaded.
    fn notify_of_state(&mut self, at: Position) -> Step<S> {
        self.ongoing = OngoingCall::Notifying;
        Step::Call(Call::Committed(Committed { at, action: None }))
    }
}

impl<S> Staged<S> {
    fn size(&self) -> usize {
        Payload::Command(self.encoded.clone()).size()
    }
}

impl OngoingCall {
    fn name(&self) -> &'static str {
        match self {
            Self::Idle => "nobody",
            Self::Reducing(_) => "an entry",
            Self::Judging(_) => "a perform",
            Self::Staging(..) => "an action",
            Self::Founding | Self::Checking(_) | Self::Giving(_) => "a state to save",
            Self::Loading(..) | Self::Mending(..) | Self::LoadingOld(_) => "a state to load",
            Self::Replaying | Self::Migrating(_) | Self::Recomputing(_) => "an old state",
            Self::Notifying => "a notice",
        }
    }
}

fn encode(command: &Command) -> Blob {
    postcard::to_allocvec(command).expect("it fits in memory").into()
}
