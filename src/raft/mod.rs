//! Consensus: Raft, without a clock, a network or a disk.
//!
//! The members of a cluster elect a leader for a *term*. The leader appends commands to its log and
//! replicates the log to the other members. An entry that a majority of the voters has stored is
//! *committed*: every later leader has it, and every node applies the committed entries in order.
//!
//! [`Raft`] is one node. One [`Input`] goes into [`Raft::handle`], with the current time; one
//! [`Output`] comes out; nothing else happens. The same seed and the same inputs give the same
//! outputs, in a browser tab, in a test and under a model checker.
//!
//! The protocol is that of Ongaro and Ousterhout's paper ("In Search of an Understandable Consensus
//! Algorithm", extended version) with these parts of Ongaro's dissertation ("Consensus: Bridging
//! Theory and Practice"): PreVote (§9.6), leader stickiness and CheckQuorum (§4.2.3, §6.2),
//! membership changes of one member at a time, and learners (§4.1, §4.2.1), leadership transfer
//! (§3.10), ReadIndex (§6.4), pipelining and parallel writes to the leader's disk (§10.2).
//! Quiescing comes from CockroachDB.
//!
//! What a reader must know before changing it:
//!
//! - **Durability is explicit.** [`Outgoing::after`] names the write that must be durable before a
//!   message leaves. A node must remember after a crash every vote, term and acknowledgement that a
//!   peer has seen. Writes become durable in the order of their numbers. A leader sends entries
//!   before its own write of them is durable, and counts itself for a majority only afterwards.
//! - **One place sends entries.** `Raft::replicate` runs at the end of every call and decides, from
//!   what the leader knows of each peer (`Progress`), what to send. Handlers only update that
//!   knowledge.
//! - **A heartbeat is an append without entries.** It passes the same log check. Therefore a
//!   follower never commits entries that the leader has not verified, and the leader notices a lost
//!   message by the reply to the next heartbeat.
//! - **A leader commits by counting only entries of its own term** (paper §5.4.2). It opens its
//!   term with a no-op, so that the entries of earlier terms get committed without a new proposal.
//! - **A new configuration counts as soon as its entry is in the log**, committed or not, and no
//!   longer when the entry is truncated (dissertation §4.1). Majorities are those of the newest
//!   configuration.
//! - **A read needs a round of confirmations**, numbered in the append messages. A node that counts
//!   for a round, the leader included, has made a write durable after it learned of the round; the
//!   write may be empty. Storage refuses it when another process has taken the node over, so that a
//!   frozen process confirms nothing in the name of a node that is no longer its own.
//! - **The log has a base.** Entries up to the base are compacted, and only the snapshot covers
//!   them. Index 1 is not special.
//! - **Time can jump.** [`Raft::handle`] checks the leader's quorum before it reads the input, so
//!   that a leader that was frozen does nothing in its old role. It checks the election timeout
//!   after the input, so that a leader's message that waited during the freeze counts.
//! - **Peers are input.** A message that no correct peer sends is an [`Invalid`], which is reported
//!   and ignored. Assertions guard only what this code alone decides.
//! - **Silence can be agreed on.** Where something other than heartbeats tells who is dead, an idle
//!   leader and a follower that has everything are *quiesced*: the leader sends a heartbeat only
//!   once in a long while, and neither counts the other's silence. A node that has work waiting
//!   wakes the others, and silence counts from then on.
//! - **Deliberate bugs.** `made` is a constant `false` in everything that ships. The simulator
//!   switches on one [`Mistake`] at a time, to show that its checks find it.
//!
//! Files, lower ones first:
//!
//! - `types`: terms, indexes, positions, bytes
//! - `quorum`: majorities and the count of an election
//! - `membership`: the configuration and its changes
//! - `entry`: what a node keeps: entries, snapshot, term and vote
//! - `message`: what nodes send to each other
//! - `output`: input and output of a node
//! - `config`: the settings of a node
//! - `log`: the entries behind a snapshot
//! - `progress`: what a leader knows of a peer
//! - `role`: what only a follower, candidate or leader knows
//! - this file: the node and its dispatch
//! - `election`: terms, votes, timeouts
//! - `follower`: AppendEntries at the receiver
//! - `leader`: proposals, replies, commits, reads, membership changes, transfer
//! - `replicate`: sending to each peer what it lacks
//! - `snapshot`: compaction, and the chunks of snapshots and large entries
//! - `quiesce`: agreeing on silence
//! - `display`: messages and entries as text
//! - `fingerprint`: a node's state as a hash, for a model checker

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
use rand_xoshiro::Xoshiro256PlusPlus;

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
pub use self::types::{Blob, Index, MAX_INDEX, MAX_TERM, NodeId, PersistSeq, Position, Term, Time};
use crate::mistakes::{Mistake, made};

/// One node of a cluster.
#[derive(Clone, Debug)]
pub struct Raft {
    config: Config,
    /// Draws the election timeouts.
    rng: Xoshiro256PlusPlus,
    /// The latest time that the caller has passed, in ms.
    now: Time,
    role: Role,
    /// Term and vote.
    hard: HardState,
    /// The leader of the current term, as far as this node knows.
    leader: Option<NodeId>,
    log: Log,
    /// The commit index.
    commit: Index,
    /// The commit index that was last reported in an output.
    reported: Index,
    /// The indexes of the newest configuration and of the newest committed one that an event has
    /// reported.
    reported_members: (Index, Index),
    /// When this node last received a message from a leader, in ms. A voter grants no other
    /// candidate its vote for a while after that.
    heard: Option<Time>,
    /// This follower has everything, and its leader announced that it falls silent.
    quiesced: bool,
    /// When this node becomes a candidate unless it leads, in ms.
    election_deadline: Time,

    /// The number of the last write that was asked for.
    persist_seq: PersistSeq,
    /// For each write under way that changes the log: the position at which the log then ended.
    writes: VecDeque<(PersistSeq, Position)>,
    /// The log is durable on this node up to this index.
    durable: Index,

    /// What the current call has collected so far.
    out: Output,
    /// What the current call has changed and must be written.
    unsaved: Unsaved,
    /// The newest round of the current leader that this node has answered.
    round_seen: u64,
}

impl Raft {
    /// A node that starts, from what its storage has. `now` is in ms; `seed` decides every random
    /// choice.
    ///
    /// # Panics
    /// When the configuration is impossible (an id of 0, a heartbeat interval of 0 or not below the
    /// election timeout, an empty range of timeouts) or the saved log has gaps. Callers validate
    /// what users give them.
    pub fn new(config: Config, saved: Saved, now: Time, seed: u64) -> Self {
        assert!(config.id != 0 && !config.members.contains(0), "0 is no node's number");
        assert!(0 < config.heartbeat_interval, "a heartbeat takes time");
        assert!(config.heartbeat_interval < config.election_timeout.0, "heartbeats keep a leader");
        assert!(config.election_timeout.0 <= config.election_timeout.1, "a timeout range");
        let log = Log::new(config.members.clone(), saved.snapshot, saved.entries);
        let mut raft = Self {
            config,
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
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
        raft.reset_election_timeout();
        if let Some(soon) = raft.config.first_election {
            raft.election_deadline = now + soon;
        }
        raft
    }

    /// Handles one input at the time `now`, in ms, and returns what the caller must do. If `now` is
    /// earlier than before, time stands still.
    pub fn handle(&mut self, now: Time, input: Input) -> Output {
        self.now = self.now.max(now);
        // First: the leadership may have lapsed since the last call, and then the input must not be
        // handled as a leader.
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
            #[cfg(feature = "mistakes")]
            Input::Reset { last, data } => self.reset(last, data),
        }
        // Last: a leader's message that waited while this node was frozen puts the deadline off.
        if !self.role.is_leader() && self.now >= self.election_deadline {
            self.campaign();
        }
        self.replicate();
        self.finish()
    }

    /// When to call [`Self::handle`] next, in ms, if no other input comes before.
    pub fn deadline(&self) -> Time {
        match &self.role {
            Role::Leader(_) => self.leader_deadline(),
            // A node that cannot be a candidate needs no election timer once it knows that there is
            // no leader.
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

    /// The leader of the current term, as far as this node knows.
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

    /// The configuration in force: the newest one in the log, committed or not.
    pub fn members(&self) -> &Members {
        self.log.members().1
    }

    /// The newest configuration that is known to be committed, and its index.
    pub fn committed_members(&self) -> (Index, &Members) {
        self.log.members_at(self.commit)
    }

    /// Whether this node is a voter in the configuration in force.
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

    /// For each other member, the index up to which its log is known to equal this leader's; `None`
    /// when this node does not lead.
    pub fn matched(&self) -> Option<Vec<(NodeId, Index)>> {
        match &self.role {
            Role::Leader(leader) => {
                Some(leader.peers.iter().map(|(id, peer)| (*id, peer.matched)).collect())
            }
            _ => None,
        }
    }

    /// How much work is waiting in this node.
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
        // A sender that is not a member is accepted: the configuration that contains the sender, or
        // this node, may not have arrived here yet (dissertation §4.1).
        if from == self.config.id || from == 0 {
            return Err(Invalid::NotMember);
        }
        if term == 0 || term > MAX_TERM {
            return Err(Invalid::Term);
        }
        if term > self.hard.term {
            match &body {
                // A PreVote and its grant carry the term of a possible election, which nobody need
                // have entered yet.
                Body::PreVote { .. } | Body::PreVoteReply { granted: true } => {}
                Body::PreVoteReply { .. } if made(Mistake::PreVoteTermIgnored) => return Ok(()),
                // A node that hears from a leader ignores other candidates, so that a removed
                // member cannot depose the leader (dissertation §4.2.3).
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
                self.accept_leader(from)?;
                return self.handle_append(from, prev, commit, round, entries, wants);
            }
            Body::Chunk { of, total, offset, round, data } => {
                self.accept_leader(from)?;
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

    /// Refuses a request of an older term, so that its sender learns the newer term. A reply of an
    /// older term is only late, and is dropped.
    ///
    /// The round is not echoed: it belongs to the older leadership. If the same node led again, it
    /// would take the echo for a reply to a round that it has only just begun, and serve a stale
    /// read.
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

    /// Every write up to `seq` is durable.
    fn persisted(&mut self, seq: PersistSeq) {
        while let Some((write, end)) = self.writes.front().copied()
            && write <= seq
        {
            self.writes.pop_front();
            // If the log no longer contains `end`, it was truncated after the write was asked for.
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

    /// Sends a message that may leave at once.
    fn send(&mut self, to: NodeId, body: Body) {
        let message = Message { term: self.hard.term, body };
        self.out.messages.push(Outgoing { to, message, after: 0 });
    }

    /// Sends a message that may leave only when everything up to and including the changes of this
    /// call is durable: votes, and replies that acknowledge entries or show a term.
    fn send_durable(&mut self, to: NodeId, body: Body) {
        let message = Message { term: self.hard.term, body };
        let is_ack = matches!(message.body, Body::AppendReply { .. });
        // `finish` replaces this by the number of the write.
        let after = if is_ack && made(Mistake::AcknowledgedEarly) { 0 } else { PersistSeq::MAX };
        self.out.messages.push(Outgoing { to, message, after });
    }

    fn set_commit(&mut self, index: Index) {
        debug_assert!(index >= self.commit, "the commit index never goes back");
        debug_assert!(index <= self.log.last().index, "what is committed is in the log");
        self.commit = index;
    }

    /// Asks for a write of what the call has changed.
    fn persist(&mut self, unsaved: Unsaved) {
        self.persist_seq += 1;
        // A snapshot is written together with every entry behind it, so that storage can delete
        // everything older.
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

    /// Completes the output of the call.
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
