//! Consensus: Raft, without clock, network or disk.
//!
//! One value goes in ([`Input`], with the time), one comes out ([`Output`]), and nothing else
//! happens: the same seed and the same inputs give the same outputs, in a browser tab, in a test
//! and under a model checker. The protocol is that of Ongaro and Ousterhout's paper ("In Search of
//! an Understandable Consensus Algorithm", extended version) with these parts of Ongaro's
//! dissertation: PreVote (§9.6), leader stickiness and CheckQuorum (§4.2.3, §6.2), leadership
//! transfer (§3.10), ReadIndex (§6.4), pipelining and parallel writes to the leader's disk (§10.2).
//!
//! What a reader should know before changing it:
//!
//! - **Durability is explicit.** [`Output::persist`] is written before any message that names it
//!   leaves, and writes become durable in order. A leader replicates before its own write is done
//!   and counts itself only once it is.
//! - **One place sends.** What a follower lacks is decided at the end of a call, in
//!   `replicate`, whatever happened in the call. Handlers only change what the leader knows.
//! - **A heartbeat is an append without entries.** It passes the same log check, so a follower's
//!   tail that nobody verified is never committed, and a lost message is found by the next one.
//! - **Only the current term commits by counting** (paper §5.4.2), and each leader opens its term
//!   with a no-op, so that an older tail never stays uncommitted for want of new proposals.
//! - **Peers are input.** What cannot be is an [`Invalid`], reported and ignored. Assertions guard
//!   only what this code alone decides.
//!
//! - **Silence can be agreed on.** Where something else tells who is dead, a leader whose follower has
//!   everything tells it so, and both rest: the one speaks once in a long while, the other does not
//!   count its silence. Whoever has work that waits wakes the others, and counts from then.
//!
//! Files: `types` (words), `output` (in and out), `log`, `role` (what each role knows),
//! `election` (terms and votes), `follower` (receiving entries and snapshots), `leader` (sending
//! them, committing, confirming), `display` (all of it in words), `fingerprint` (for a
//! model checker), this one (the node and its dispatch).

mod config;
mod display;
mod election;
mod entry;
mod fingerprint;
mod follower;
mod leader;
mod log;
mod membership;
mod message;
mod output;
mod progress;
mod quiesce;
mod quorum;
mod replicate;
mod role;
mod snapshot;
mod types;

use std::collections::VecDeque;

use rand::SeedableRng;
use rand::rngs::SmallRng;

pub use self::config::Config;
pub use self::entry::{Entry, HardState, Payload, Saved, Snapshot};
pub use self::log::Log;
pub use self::membership::{Change, Member, Members, Refused};
pub use self::message::{AppendResult, Body, Chunked, Message, Wants};
use self::output::Unsaved;
pub use self::output::{
    Backlog, Committed, Confirmed, Event, Input, Invalid, Outgoing, Output, Persist,
};
use self::progress::{Progress, ProgressState};
pub use self::role::RoleName;
use self::role::{Follower, Role};
use self::types::MAX_TERM;
pub use self::types::{Blob, Index, NodeId, PersistSeq, Position, Term, Time};
use crate::mistakes::{Mistake, made};

/// One node of a cluster.
#[derive(Clone, Debug)]
pub struct Raft {
    config: Config,
    rng: SmallRng,
    now: Time,
    role: Role,
    hard: HardState,
    leader: Option<NodeId>,
    log: Log,
    commit: Index,
    /// The commit index that the caller has been told.
    reported: Index,
    /// Where the newest configuration and the newest committed one stand that the caller has been
    /// told of.
    reported_members: (Index, Index),
    /// When a leader was last heard: its voters stick to it for a while.
    heard: Option<Time>,
    /// This follower has everything, and its leader said that it falls silent.
    quiesced: bool,
    /// When this node stands for election, unless it leads.
    election_deadline: Time,

    persist_seq: PersistSeq,
    /// For each write under way that touches the log, where the log ended.
    writes: VecDeque<(PersistSeq, Position)>,
    /// The log is durable here up to this index.
    durable: Index,

    out: Output,
    unsaved: Unsaved,
    /// The newest round of the current leader that this node has answered.
    round_seen: u64,
}

impl Raft {
    /// A node that starts, with what storage has of it. `seed` decides every random choice.
    ///
    /// # Panics
    /// When the configuration makes no sense (a timeout is 0 or its range is empty) or the saved log
    /// has gaps. Callers validate what users give them.
    pub fn new(config: Config, saved: Saved, now: Time, seed: u64) -> Self {
        assert!(config.id != 0 && !config.members.contains(0), "0 is nobody's number");
        assert!(0 < config.heartbeat_interval, "a heartbeat takes time");
        assert!(config.heartbeat_interval < config.election_timeout.0, "heartbeats keep a leader");
        assert!(config.election_timeout.0 <= config.election_timeout.1, "a timeout range");
        let log = Log::new(config.members.clone(), saved.snapshot, saved.entries);
        let mut raft = Self {
            config,
            rng: SmallRng::seed_from_u64(seed),
            now,
            role: Role::Follower(Follower::default()),
            hard: saved.hard,
            leader: None,
            commit: log.base().index,
            reported: log.base().index,
            reported_members: (log.members().0, log.members_at(log.base().index).0),
            heard: None,
            quiesced: false,
            election_deadline: 0,
            persist_seq: 0,
            writes: VecDeque::new(),
            durable: log.last().index,
            log,
            out: Output::default(),
            unsaved: Unsaved::default(),
            round_seen: 0,
        };
        raft.draw_election_deadline();
        if let Some(soon) = raft.config.first_election {
            raft.election_deadline = now + soon;
        }
        raft
    }

    /// Takes one input at the time `now` and says what to do. Time that goes back is taken for
    /// time that stands still.
    pub fn handle(&mut self, now: Time, input: Input) -> Output {
        self.now = self.now.max(now);
        // Before anything is done in the name of a leadership that may have lapsed in the meantime.
        self.check_quorum();
        match input {
            Input::Tick => {}
            Input::Receive { from, message } => {
                if let Err(error) = self.receive(from, message) {
                    self.out.events.push(Event::Invalid { from, error });
                }
            }
            Input::Propose(commands) => {
                let result = self.propose(commands);
                self.out.proposed = Some(result);
            }
            Input::Change(change) => {
                let result = self.change(&change);
                self.out.proposed = Some(result);
            }
            Input::PeerDown(id) => self.peer_down(id),
            Input::Wake => self.wake(),
            Input::Confirm { id, at_least } => self.confirm(id, at_least),
            Input::Persisted(seq) => self.persisted(seq),
            Input::Transfer(to) => self.transfer(to),
            Input::Compact { last, data } => self.compact(last, data),
        }
        // After it: a leader's message that waited while this node was frozen counts first.
        if !self.role.is_leader() && self.now >= self.election_deadline {
            self.campaign();
        }
        self.replicate();
        self.finish()
    }

    /// When [`Self::handle`] wants to be called next, if nothing happens before.
    pub fn deadline(&self) -> Time {
        match &self.role {
            Role::Leader(_) => self.leader_deadline(),
            // Who may not stand has nobody to miss, once it has missed its leader.
            _ if self.leader.is_none() && !self.can_campaign() => Time::MAX,
            _ => self.election_deadline,
        }
    }

    /// This node's number.
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The current term.
    pub fn term(&self) -> Term {
        self.hard.term
    }

    /// Term and vote.
    pub fn hard_state(&self) -> HardState {
        self.hard
    }

    /// The role.
    pub fn role(&self) -> RoleName {
        self.role.name()
    }

    /// Who leads the current term, as far as this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// Whether this node leads.
    pub fn is_leader(&self) -> bool {
        self.role.is_leader()
    }

    /// The commit index.
    pub fn commit_index(&self) -> Index {
        self.commit
    }

    /// The configuration that counts: the newest one in the log, committed or not.
    pub fn members(&self) -> &Members {
        self.log.members().1
    }

    /// The newest configuration that is known to be committed, and its index.
    pub fn committed_members(&self) -> (Index, &Members) {
        self.log.members_at(self.commit)
    }

    /// Whether this node votes.
    pub fn is_voter(&self) -> bool {
        self.members().is_voter(self.config.id)
    }

    /// The log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The entry at `index`, unless it is compacted or not there yet.
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        self.log.get(index)
    }

    /// How far the log of each other member is known to equal this leader's, and `None` when this
    /// node does not lead.
    pub fn matched(&self) -> Option<Vec<(NodeId, Index)>> {
        match &self.role {
            Role::Leader(leader) => {
                Some(leader.peers.iter().map(|(id, peer)| (*id, peer.matched)).collect())
            }
            _ => None,
        }
    }

    /// What waits here, and how much of it.
    pub fn backlog(&self) -> Backlog {
        let (mut reads, mut inflight, mut uncommitted_bytes) = (0, 0, 0);
        if let Role::Leader(leader) = &self.role {
            let window = |peer: &Progress| match &peer.state {
                ProgressState::Replicate { inflight } => inflight.len(),
                ProgressState::Probe { .. } | ProgressState::Chunks(_) => 0,
            };
            reads = leader.reads.len();
            inflight = leader.peers.values().map(window).max().unwrap_or(0);
            uncommitted_bytes = leader.uncommitted_bytes;
        }
        Backlog { writes: self.writes.len(), reads, inflight, uncommitted_bytes }
    }

    fn receive(&mut self, from: NodeId, message: Message) -> Result<(), Invalid> {
        let Message { term, body } = message;
        // Whoever else speaks is heard: it may be in a configuration that is still on its way to
        // here, and this node may be, too (dissertation §4.1).
        if from == self.config.id || from == 0 {
            return Err(Invalid::NotMember);
        }
        if term == 0 || term > MAX_TERM {
            return Err(Invalid::Term);
        }
        if term > self.hard.term {
            match &body {
                // Neither the question nor a grant is about a term that exists yet.
                Body::PreVote { .. } | Body::PreVoteReply { granted: true } => {}
                Body::PreVoteReply { .. } if made(Mistake::PreVoteTermIgnored) => return Ok(()),
                // Whoever hears a leader lets no other one disturb it (dissertation §4.2.3).
                Body::Vote { transfer: false, .. }
                    if self.is_sticky() && !made(Mistake::RemovedDisrupts) =>
                {
                    return Ok(());
                }
                _ => self.become_follower(term),
            }
        } else if term < self.hard.term {
            self.reject_stale(from, &body);
            return Ok(());
        }
        match body {
            Body::PreVote { last } => self.handle_pre_vote(from, term, last),
            Body::PreVoteReply { granted } => self.handle_pre_vote_reply(from, term, granted),
            Body::Vote { last, transfer: _ } => self.handle_vote(from, last),
            Body::VoteReply { granted } => self.handle_vote_reply(from, granted),
            Body::Append { prev, commit, round, entries, wants } => {
                self.follow(from)?;
                return self.handle_append(from, prev, commit, round, entries, wants);
            }
            Body::Chunk { of, total, offset, round, data } => {
                self.follow(from)?;
                return self.handle_chunk(from, of, total, offset, round, &data);
            }
            Body::AppendReply { round, result } => {
                return self.handle_append_reply(from, round, result);
            }
            Body::ChunkReply { of, offset, round } => {
                return self.handle_chunk_reply(from, of, offset, round);
            }
            Body::TimeoutNow => return self.handle_timeout_now(from),
        }
        Ok(())
    }

    /// Tells the sender of an older term's request about the newer term; answers are just late.
    ///
    /// The round is not echoed. It was the older leadership's; if the same node leads again, it
    /// would take this for an answer to a round that it has only just begun, and serve a stale read.
    fn reject_stale(&mut self, from: NodeId, body: &Body) {
        let reply = match body {
            Body::PreVote { .. } => Body::PreVoteReply { granted: false },
            Body::Vote { .. } => Body::VoteReply { granted: false },
            Body::Append { prev, round, .. } => Body::AppendReply {
                round: if made(Mistake::StaleRoundEchoed) { *round } else { 0 },
                result: AppendResult::Rejected { prev: prev.index, hint: self.log.base() },
            },
            Body::Chunk { of, .. } => Body::ChunkReply { of: *of, offset: 0, round: 0 },
            _ => return,
        };
        self.send_durable(from, reply);
    }

    fn persisted(&mut self, seq: PersistSeq) {
        while let Some((write, end)) = self.writes.front().copied()
            && write <= seq
        {
            self.writes.pop_front();
            // If the end is not there any more, it was cut off after the write had been asked for.
            if self.log.contains(end) {
                self.durable = self.durable.max(end.index);
            }
        }
        self.vote_is_durable(seq);
        if let Role::Leader(leader) = &mut self.role {
            let is_done = |(write, _): &(PersistSeq, u64)| *write <= seq;
            while leader.round_writes.front().is_some_and(is_done) {
                leader.round_own = leader.round_writes.pop_front().map_or(0, |(_, round)| round);
            }
            self.advance_commit();
            self.release_reads();
        }
    }

    /// Sends a message that depends on nothing being durable.
    fn send(&mut self, to: NodeId, body: Body) {
        let message = Message { term: self.hard.term, body };
        self.out.messages.push(Outgoing { to, message, after: 0 });
    }

    /// Sends a message that may leave only when everything before it is durable, this call's
    /// changes included: votes, and whatever acknowledges entries or a term.
    fn send_durable(&mut self, to: NodeId, body: Body) {
        let message = Message { term: self.hard.term, body };
        let early = matches!(message.body, Body::AppendReply { .. });
        // `finish` knows whether this call writes, and puts the real number in.
        let after = if early && made(Mistake::AcknowledgedEarly) { 0 } else { PersistSeq::MAX };
        self.out.messages.push(Outgoing { to, message, after });
    }

    fn set_commit(&mut self, index: Index) {
        debug_assert!(index >= self.commit, "the commit index never goes back");
        debug_assert!(index <= self.log.last().index, "what is committed is in the log");
        self.commit = index;
    }

    /// Asks for the write of what the call has changed.
    fn persist(&mut self, unsaved: Unsaved) {
        self.persist_seq += 1;
        // A snapshot comes with all that follows it, so that storage can begin anew behind it.
        let write_from = match unsaved.snapshot {
            true => Some(self.log.base().index + 1),
            false => unsaved.entries_from,
        };
        self.out.persist = Some(Persist {
            seq: self.persist_seq,
            hard: unsaved.hard.then_some(self.hard),
            snapshot: unsaved.snapshot.then(|| self.log.snapshot().cloned()).flatten(),
            reset: unsaved.reset,
            entries: (write_from.map(|from| self.log.iter_from(from).cloned().collect()))
                .unwrap_or_default(),
        });
        if let Role::Leader(leader) = &mut self.role
            && unsaved.round
        {
            leader.round_writes.push_back((self.persist_seq, leader.round));
        }
        if unsaved.entries_from.is_some() || unsaved.reset {
            self.writes.push_back((self.persist_seq, self.log.last()));
        }
        if let Some(from) = unsaved.entries_from {
            self.out.events.push(Event::Appended { from });
        }
    }

    /// Collects what the call has changed into its output.
    fn finish(&mut self) -> Output {
        let unsaved = std::mem::take(&mut self.unsaved);
        if !unsaved.is_empty() {
            self.persist(unsaved);
        }
        for message in &mut self.out.messages {
            if message.after == PersistSeq::MAX {
                message.after = self.persist_seq;
            }
        }
        if self.commit > self.reported {
            self.reported = self.commit;
            self.out.committed.push(Committed::UpTo(self.commit));
        }
        let members = (self.log.members().0, self.log.members_at(self.commit).0);
        if members != self.reported_members {
            self.reported_members = members;
            self.out.events.push(Event::Members);
        }
        self.out.deadline = Some(self.deadline());
        std::mem::take(&mut self.out)
    }
}
