//! The replicated state container: methods on the leader, verdicts, sessions, committed and
//! provisional state, snapshots.
//!
//! It runs on top of [`crate::raft`] and, like it, takes inputs and gives effects back. User code
//! is one of those effects ([`Call`]): nothing is borrowed while it runs, and what it returns is
//! the next input. The way of an entry:
//!
//! 1. The leader judges a perform against the provisional state ([`Call::Judge`]), reduces its
//!    action ([`Call::Reduce`]), *stages* both, and proposes what a turn has staged as one append.
//! 2. Every node reduces each entry of its log when it arrives. The states wait in `tail`, one behind
//!    each entry; the last of them is the provisional state. When entries are cut off, their states go
//!    with them.
//! 3. When an entry is committed, its state becomes the committed state; nothing is reduced again.
//!    Only so many states wait, since each may be a copy of a large list: what stands behind them in a
//!    long tail, as a node finds it when it starts, is reduced when those before it are committed.
//!
//! Sessions make a perform that is sent twice run once; `session`, `client` and `judge` say how.

mod client;
mod follow;
mod judge;
mod machine;
mod message;
mod propose;
mod replica;
mod sessions;
mod snapshot;

use self::client::{Client, Limits};
pub use self::client::{Outcome, Perform, Settled};
use self::judge::{Chunk, Job, Judge};
pub use self::machine::{Call, Committed, Failure, Machine, Performer, Return};
pub use self::message::{Body, Message, Request};
use self::replica::{Replica, TailEntry};
pub use self::sessions::{Command, Recorded, Seq, Session, SessionId, Sessions, Verdict};
pub use self::snapshot::encode_snapshot;
use crate::raft::{Blob, Confirmed, Index, NodeId, Payload, Position, Raft, Snapshot, Time};

/// How many states wait for their entries to be committed. A leader judges no more performs while it has
/// so many.
pub const MAX_TAIL: usize = 512;
/// How far a log is followed whose end is not known to be committed: further than a leader goes, so that
/// its own entries always find room.
const MAX_FOLLOWED: usize = 2 * MAX_TAIL;

/// The settings of a store.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The largest arguments and the largest action, in bytes.
    pub max_action_bytes: usize,
    /// How many bytes go into one message; larger arguments travel in parts.
    pub max_message_bytes: usize,
    /// How many bytes of performs may wait on this node.
    pub max_pending_bytes: usize,
    /// How long to wait for an answer before asking again, in ms.
    pub retry: Time,
    /// The log is compacted when it has grown by this many bytes, or by the size of the last
    /// snapshot if that is more.
    pub compact_bytes: usize,
    /// The release of the application: entries and snapshots carry it.
    pub version: u32,
    /// How many sessions there may be; the same on every node of a cluster.
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

/// What a store's client has in hand when its node stops: the session, and the performs and reads that
/// wait. It goes on with another node behind the same handle.
#[derive(Debug)]
pub struct DetachedClient(Client);

/// What the store wants its driver to do next.
#[derive(Debug)]
#[must_use]
pub enum Step<S> {
    /// Run user code and bring back what it returns.
    Call(Call<S>),
    /// Propose these commands, and say how it went with [`Store::proposed`].
    Propose(Vec<Blob>),
    /// Ask for a confirmation of leadership and of everything up to an index.
    Confirm {
        /// The store's number for it.
        id: u64,
        /// The index.
        at_least: Index,
    },
    /// Compact the log.
    Compact {
        /// The last entry that is in the data.
        last: Position,
        /// State and sessions there.
        data: Blob,
    },
    /// Nothing, until something arrives.
    Idle,
}

/// Something that the user may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The reducer failed on a committed action, which every node has. The state stays as it was.
    ReducerFailed(Failure),
    /// The state cannot be saved, so the log cannot be compacted.
    CannotSave(Failure),
    /// A snapshot cannot be loaded.
    CannotLoad(Failure),
    /// A log entry cannot be read.
    BadEntry(Index),
}

/// A command that will be proposed at the end of the turn, and the state behind it.
#[derive(Debug)]
struct Staged<S> {
    command: Command,
    encoded: Blob,
    state: S,
}

/// What waits for user code to return.
#[derive(Debug)]
enum OngoingCall {
    Nothing,
    /// An entry of the log is reduced; the item lacks its state.
    Entry(TailEntry<()>),
    Judging(Job),
    /// A judged action is reduced before it is proposed.
    Staging(Job, Command, Blob),
    Saving(Position),
    Loading(Position, Sessions),
    Notifying,
}

/// The replicated state container of one node.
#[derive(Debug)]
pub struct Store<S> {
    config: Config,
    client: Client,
    judge: Option<Judge>,
    replica: Replica<S>,
    staged: Vec<Staged<S>>,
    staged_bytes: usize,
    ongoing: OngoingCall,
    incoming: Option<Snapshot>,
    broken: bool,
    log_bytes: usize,
    snapshot_bytes: usize,
    next_confirmation: u64,
    outbox: Vec<(NodeId, Message)>,
    faults: Vec<Fault>,
    close_wanted: Vec<SessionId>,
    open_wanted: Vec<(u64, NodeId)>,
}

impl<S: Clone> Store<S> {
    /// A store in its first state. `seed` decides every random choice.
    pub fn new(config: Config, initial: S, seed: u64) -> Self {
        let limits = Limits {
            max_message_bytes: config.max_message_bytes,
            max_action_bytes: config.max_action_bytes,
            max_pending_bytes: config.max_pending_bytes,
            retry: config.retry,
        };
        Self::with_client(config, initial, Client::new(limits, seed))
    }

    /// A store in its first state that goes on with what another one's client had in hand.
    pub fn attach(config: Config, initial: S, client: DetachedClient) -> Self {
        let mut client = client.0;
        client.set_leader(None);
        Self::with_client(config, initial, client)
    }

    /// What outlives this store.
    pub fn detach(self) -> DetachedClient {
        DetachedClient(self.client)
    }

    fn with_client(config: Config, initial: S, client: Client) -> Self {
        Self {
            config,
            client,
            judge: None,
            replica: Replica::new(initial, config.max_sessions),
            staged: Vec::new(),
            staged_bytes: 0,
            ongoing: OngoingCall::Nothing,
            incoming: None,
            broken: false,
            log_bytes: 0,
            snapshot_bytes: 0,
            next_confirmation: 1,
            outbox: Vec::new(),
            faults: Vec::new(),
            close_wanted: Vec::new(),
            open_wanted: Vec::new(),
        }
    }

    /// The committed state.
    pub fn committed(&self) -> &S {
        &self.replica.committed
    }

    /// The committed state plus every uncommitted action of this node's log; or, where there are very many,
    /// as a node finds it when it starts, the first of them.
    pub fn provisional(&self) -> &S {
        &self.replica.tip
    }

    /// The index up to which the committed state has been built.
    pub fn applied(&self) -> Index {
        self.replica.applied
    }

    /// The session of this node's performs, once one is open.
    pub fn session(&self) -> Option<SessionId> {
        self.client.session()
    }

    /// The sessions in the committed state.
    pub fn sessions(&self) -> &Sessions {
        &self.replica.sessions
    }

    /// How many performs and reads of this node wait for their fate.
    pub fn waiting(&self) -> usize {
        self.client.waiting()
    }

    /// When something here is due.
    pub fn deadline(&self) -> Option<Time> {
        self.client.deadline()
    }

    /// Performs and reads that have ended since the last call.
    #[must_use]
    pub fn take_settled(&mut self) -> Vec<Settled> {
        self.client.take_settled()
    }

    /// Messages to other members, and to this one.
    #[must_use]
    pub fn take_messages(&mut self, now: Time, raft: &Raft) -> Vec<(NodeId, Message)> {
        let term = raft.term();
        if let Some(leader) = raft.leader() {
            let bodies = self.client.take_messages(now);
            self.outbox.extend(bodies.into_iter().map(|body| (leader, Message { term, body })));
        }
        if let Some(judge) = &mut self.judge {
            let bodies = judge.take_messages();
            self.outbox.extend(bodies.into_iter().map(|(to, body)| (to, Message { term, body })));
        }
        std::mem::take(&mut self.outbox)
    }

    /// What the user may want to know.
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

    /// A read: settles when this node's state is at least as new as the cluster's is now.
    pub fn handle_read(&mut self, ticket: u64) {
        self.client.read(ticket);
    }

    /// Gives up every perform and read of this node.
    pub fn fail_all(&mut self, failure: &Failure) {
        self.client.fail_all(failure);
    }

    /// Closes this node's session, as far as that is possible without waiting.
    pub fn handle_close(&mut self, raft: &Raft) {
        if let (Some(session), Some(leader)) = (self.client.session(), raft.leader()) {
            let body = Body::Close { session };
            self.outbox.push((leader, Message { term: raft.term(), body }));
        }
    }

    /// Time has passed.
    pub fn handle_tick(&mut self, now: Time) {
        self.client.expire(now, self.replica.applied);
    }

    /// The term, or who leads it, changed.
    pub fn handle_leader(&mut self, raft: &Raft) {
        self.client.set_leader(raft.leader().map(|leader| (leader, raft.term())));
        // A new term is a new judge, also for a node that leads twice in a row.
        let max = self.config.max_message_bytes;
        self.judge = raft.is_leader().then(|| Judge::new(max));
        self.unstage();
        self.close_wanted.clear();
        self.open_wanted.clear();
    }

    /// The log changed from `from` on: what was derived from entries that are gone, goes.
    pub fn handle_appended(&mut self, from: Index) {
        if self.replica.truncate(from) {
            self.replica.rewind();
        }
        if let OngoingCall::Entry(item) = &self.ongoing {
            debug_assert!(item.at.index < from, "user code returns before the log changes");
        }
    }

    /// A snapshot replaces everything.
    pub fn handle_snapshot(&mut self, snapshot: Snapshot) {
        self.replica.clear_tail();
        self.incoming = Some(snapshot);
    }

    /// A confirmation of leadership arrived, or cannot arrive any more.
    pub fn handle_confirmed(&mut self, confirmed: Confirmed) {
        if let (Some(judge), Some(index)) = (&mut self.judge, confirmed.index) {
            judge.confirmed(confirmed.id, index);
        }
    }

    /// A message from a member, or from this one.
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
            body => self.handle_request(raft, from, body),
        }
    }

    fn is_mine(&self, raft: &Raft, from: NodeId, session: SessionId) -> bool {
        raft.leader() == Some(from) && self.client.session() == Some(session)
    }

    /// A client's message to the leader.
    fn handle_request(&mut self, raft: &Raft, from: NodeId, body: Body) {
        // Until it knows what is in its log it would judge again what stands there. They ask again.
        if !self.has_followed(raft) {
            return;
        }
        let Some(judge) = &mut self.judge else { return };
        match body {
            Body::Open { nonce } => self.open_wanted.push((nonce, from)),
            Body::Close { session } => self.close_wanted.push(session),
            Body::Perform { session, ack, first, requests } => {
                let sessions = &self.replica.tip_sessions;
                judge.handle_perform(sessions, from, session, (ack, first), requests);
            }
            Body::Chunk { session, ack, seq, method, total, offset, data } => {
                let chunk = Chunk { ack, seq, method, total, offset, data };
                let max = self.config.max_action_bytes as u64;
                judge.handle_chunk(&self.replica.tip_sessions, from, session, chunk, max);
            }
            Body::Read { id } => judge.handle_read(from, id),
            Body::Received { .. } | Body::Verdicts { .. } | Body::ReadAt { .. } => {
                unreachable!("the leader's own messages are handled before")
            }
        }
    }

    /// What to do next. Called again and again until it says [`Step::Idle`] or [`Step::Call`].
    pub fn step(&mut self, raft: &Raft) -> Step<S> {
        debug_assert!(matches!(self.ongoing, OngoingCall::Nothing), "user code has not returned");
        loop {
            if let Some(call) = self.load().or_else(|| self.apply(raft.commit_index())) {
                return Step::Call(call);
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
        if let Some(call) = self.save(raft) {
            return Step::Call(call);
        }
        self.lead(raft)
    }

    /// User code returned.
    ///
    /// # Panics
    /// When what it returned is no answer to the call that was asked for: a bug of the driver.
    pub fn handle_return(&mut self, raft: &Raft, returned: Return<S>) -> Step<S> {
        match (std::mem::replace(&mut self.ongoing, OngoingCall::Nothing), returned) {
            (OngoingCall::Entry(entry), Return::State(result)) => self.replica.push(entry, result),
            (OngoingCall::Judging(job), Return::Judged(result)) => {
                return self.judged(raft, job, result);
            }
            (OngoingCall::Staging(job, command, encoded), Return::State(result)) => match result {
                // Deposed meanwhile: nothing was promised.
                Ok(_) if self.judge.is_none() => {}
                Ok(state) => {
                    let counts = self.replica.tip_sessions.apply(self.next_index(raft), &command);
                    debug_assert!(counts, "it was judged against these sessions");
                    self.stage(Staged { command, encoded, state });
                }
                Err(failure) => self.hold(raft, &job, Verdict::Failed(failure)),
            },
            (OngoingCall::Saving(last), Return::Saved(result)) => return self.saved(last, result),
            (OngoingCall::Loading(last, sessions), Return::State(result)) => match result {
                Ok(state) => {
                    self.loaded(last, sessions, state);
                    // Whoever watches this node must hear of its new state.
                    self.ongoing = OngoingCall::Notifying;
                    return Step::Call(Call::Committed(Committed { at: last, action: None }));
                }
                Err(failure) => self.cannot_load(failure),
            },
            (OngoingCall::Notifying, Return::Done) => {}
            (ongoing, _) => panic!("{} got another call's result", ongoing.name()),
        }
        Step::Idle
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
            Self::Nothing => "nobody",
            Self::Entry(_) => "an entry",
            Self::Judging(_) => "a perform",
            Self::Staging(..) => "an action",
            Self::Saving(_) => "a snapshot to save",
            Self::Loading(..) => "a snapshot to load",
            Self::Notifying => "a notice",
        }
    }
}

fn encode(command: &Command) -> Blob {
    postcard::to_allocvec(command).expect("it fits in memory").into()
}
