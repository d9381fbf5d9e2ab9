//! Fixed clusters: how n nodes agree which of them are the cluster, before Raft starts.
//!
//! **The problem.** Raft takes its first configuration as given. Here there is none: the nodes find
//! each other on a channel and know only how many they will be, or their ids ([`Plan`]). If each
//! node just started with the nodes that it sees, two halves of the same tabs could become two
//! clusters, each with a leader of its own.
//!
//! **The rule.** A node draws a random nonce when it starts. Its id and this nonce name one *start*
//! of the node ([`Member`]). A node proposes a [`Set`] of n starts, and Raft starts on that set
//! only after **all n** have accepted it. From then on a majority is enough for everything.
//!
//! - Every node says hello to every other one. The hello says which set the sender has accepted.
//! - A node that has accepted no set proposes one when it has the smallest id of all such nodes
//!   that it has heard of. It proposes the n smallest ids. With just n nodes there is only one
//!   possible set. With more nodes, two sets can be proposed at the same time. Then the set with
//!   the smaller hash wins: a node withdraws from its set when a member of that set has accepted
//!   one with a smaller hash.
//! - A node also withdraws from a set that is not complete in time.
//! - A node that sees that all members have accepted starts Raft and informs the others.
//! - A set that has formed takes no further node (`CLUSTER_FULL`). A node with a known id and
//!   another nonce is a member that has lost its memory: see `rejoin`.
//!
//! **Why it is safe.**
//!
//! - One start accepts at most one set, ever. To withdraw, a node draws a new nonce, and so becomes
//!   another start.
//! - No start runs Raft before all members of its set have accepted the set. So a start that
//!   withdrew has never voted. To the other members it is a node that crashed before it did
//!   anything.
//! - Therefore no start ever votes in two sets, and within one set Raft's own rules hold.
//!
//! The model checker visits every order of messages, timers and restarts within small bounds
//! (`sim/src/model/forming.rs`).
//!
//! Files, lower ones first:
//!
//! - `set`: starts of nodes, sets of them, and the plan that says which nodes may become members
//! - `types`: messages, events and the output of a call
//! - this file: the state of one node, and the dispatch of ticks and messages
//! - `agree`: proposing, accepting, withdrawing and starting
//! - `rejoin`: members that have lost their memory (dissertation §3.8, §4.2.1)

mod agree;
mod rejoin;
mod set;
mod types;

use std::hash::{Hash, Hasher};

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

pub use self::set::{Member, Plan, Set};
pub use self::types::{Body, Event, Message, Output, Refusal, To};
use crate::raft::{NodeId, Time};
use crate::sorted::{SortedMap, SortedSet};

/// How long a node counts as present after its last hello, in ms. Several times the longest pause
/// between hellos, because the timers of a hidden tab fire only once a second.
const PRESENT_FOR: Time = 4_000;
/// How long a proposer waits until all have accepted its set, in ms; up to half as much again is
/// added at random. The other members wait twice as long, so that the proposer is the first to
/// withdraw.
const ACCEPT_TIMEOUT: Time = 4_000;
/// The first and the longest pause between two hellos, in ms.
const HELLO_PAUSE: (Time, Time) = (100, 1_000);

/// Another node, as long as no cluster has formed.
#[derive(Clone, Debug)]
struct Peer {
    nonce: u64,
    /// When its last hello or proposal came.
    heard: Time,
    /// The hash of the set that it has accepted.
    accepted: Option<u64>,
}

/// A start that asks to be added in the place of an earlier start of the same node: see `rejoin`.
#[derive(Clone, Debug)]
struct Newcomer {
    member: Member,
    /// When its first hello came.
    since: Time,
    /// When its last hello came.
    heard: Time,
}

/// The set that this start of the node has accepted.
#[derive(Clone, Debug)]
struct AcceptedSet {
    set: Set,
    hash: u64,
    /// The nonces of the members that are known to have accepted it.
    accepted_by: SortedSet<u64>,
    /// This node proposed the set, and repeats the proposal with its hellos.
    is_proposer: bool,
    /// When this node withdraws from the set if it has not become complete.
    give_up_at: Time,
}

#[derive(Clone, Debug)]
enum State {
    /// No cluster yet; with the set that this node has accepted, if it has accepted one.
    Forming(Option<AcceptedSet>),
    /// This node belongs to the cluster that began with this set.
    Formed(Set),
    /// This node cannot join or was stopped: it sends and answers nothing.
    Refused,
}

/// One node's part in the formation of its cluster.
#[derive(Clone, Debug)]
pub struct Formation {
    me: Member,
    /// Every nonce that this node has had, so that it recognizes its own messages.
    nonces: SortedSet<u64>,
    plan: Plan,
    rng: Xoshiro256PlusPlus,
    now: Time,
    state: State,
    /// The hash of the set that has formed; 0 before.
    set_hash: u64,
    /// The other nodes that were heard of lately, by id.
    peers: SortedMap<String, Peer>,
    next_hello: Time,
    /// The pause after the next hello. It doubles with every hello.
    hello_pause: Time,
    /// A node that has withdrawn does not propose before this time.
    propose_after: Time,
    /// The ids of the nodes whose size or id was reported as wrong, so that each is reported once.
    reported: SortedSet<String>,
    /// Another node with this node's id was reported.
    duplicate_reported: bool,
    /// The members' numbers in Raft by their ids, once the cluster has formed.
    roster: SortedMap<String, NodeId>,
    /// Every number that a member has or had in Raft, as far as this node knows.
    past_numbers: SortedSet<NodeId>,
    /// The starts that ask to be added, by id.
    newcomers: SortedMap<String, Newcomer>,
    /// This node waits to be added itself, in the place of its former self.
    joining: bool,
    /// Since when Raft has had no leader; `None` while there is one.
    leaderless_since: Option<Time>,
    /// When [`Formation::handle_raft`] is due though nothing has changed in Raft.
    next_review: Option<Time>,
    out: Output,
}

impl Formation {
    /// A node that has just started. `seed` decides its nonce and every other random choice.
    pub fn new(id: String, plan: Plan, now: Time, seed: u64) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let nonce = rng.next_u64().max(1);
        Self {
            me: Member { id, nonce },
            nonces: [nonce].into_iter().collect(),
            plan,
            rng,
            now,
            state: State::Forming(None),
            set_hash: 0,
            peers: SortedMap::new(),
            next_hello: now,
            hello_pause: HELLO_PAUSE.0,
            propose_after: now,
            reported: SortedSet::new(),
            duplicate_reported: false,
            roster: SortedMap::new(),
            past_numbers: SortedSet::new(),
            newcomers: SortedMap::new(),
            joining: false,
            leaderless_since: Some(now),
            next_review: None,
            out: Output::default(),
        }
    }

    /// A node that restarts with its storage: with the nonce that it had and the set of its
    /// cluster. Because Raft's term, vote and log were stored as well, it is the same member as
    /// before (dissertation §3.8).
    ///
    /// # Panics
    /// When the set has no member with this id. The set comes from this node's own storage, so that
    /// is a bug or a broken disk, and not a peer's doing.
    pub fn resume(id: String, nonce: u64, set: Set, plan: Plan, now: Time, seed: u64) -> Self {
        let me = Member { id, nonce };
        assert!(set.with_id(&me.id).is_some(), "a node resumes in a set of its own");
        let mut node = Self::new(me.id.clone(), plan, now, seed);
        node.nonces.insert(nonce);
        // A nonce that is not in the set is that of a start that was added later, or is yet to be.
        // Raft says which.
        node.joining = !set.has(&me);
        node.roster = set.roster();
        (node.me, node.set_hash, node.state) = (me, set.hash(), State::Formed(set));
        node
    }

    /// This start of the node: its id and its present nonce.
    pub fn me(&self) -> &Member {
        &self.me
    }

    /// The set, once it has formed.
    pub fn set(&self) -> Option<&Set> {
        match &self.state {
            State::Formed(set) => Some(set),
            _ => None,
        }
    }

    /// The hash of the set, which frames carry; 0 until it has formed.
    pub fn set_hash(&self) -> u64 {
        self.set_hash
    }

    /// How many members the cluster has or will have.
    pub fn size(&self) -> usize {
        self.plan.size()
    }

    /// How many nodes are present, this one included. Not kept up to date once a cluster has
    /// formed.
    pub fn present(&self) -> usize {
        self.peers.len() + 1
    }

    /// Feeds the hasher with everything that decides what this node will do when it gets the same
    /// inputs after the same times. A model checker tells states apart by it.
    pub fn fingerprint(&self, hasher: &mut impl Hasher) {
        let until = |at: Time| at.saturating_sub(self.now);
        (&self.me, self.nonces.len(), &self.reported, self.duplicate_reported).hash(hasher);
        (until(self.next_hello), self.hello_pause, until(self.propose_after)).hash(hasher);
        self.rng.clone().next_u64().hash(hasher);
        for (id, peer) in self.peers.iter() {
            (id, peer.nonce, peer.accepted, (self.now - peer.heard).min(PRESENT_FOR)).hash(hasher);
        }
        std::mem::discriminant(&self.state).hash(hasher);
        match &self.state {
            State::Forming(None) | State::Refused => {}
            State::Forming(Some(own)) => {
                (own.hash, &own.accepted_by, own.is_proposer, until(own.give_up_at)).hash(hasher);
            }
            State::Formed(_) => {
                (self.set_hash, &self.roster, &self.past_numbers, self.joining).hash(hasher);
                self.leaderless_since.map(|at| (self.now - at).min(PRESENT_FOR)).hash(hasher);
                for (id, newcomer) in self.newcomers.iter() {
                    let waited = (self.now - newcomer.since).min(PRESENT_FOR);
                    (id, newcomer.member.nonce, waited).hash(hasher);
                }
            }
        }
    }

    /// When this node withdraws from the set that it has accepted; `None` if it has accepted none
    /// or the cluster has formed.
    pub fn gives_up_at(&self) -> Option<Time> {
        match &self.state {
            State::Forming(own) => own.as_ref().map(|own| own.give_up_at),
            State::Formed(_) | State::Refused => None,
        }
    }

    /// When to call [`Formation::handle_tick`], if nothing happens before.
    pub fn deadline(&self) -> Option<Time> {
        match &self.state {
            State::Forming(own) => {
                let give_up_at = own.as_ref().map(|own| own.give_up_at);
                Some(give_up_at.map_or(self.next_hello, |at| at.min(self.next_hello)))
            }
            State::Formed(_) => {
                let hello = self.joining.then_some(self.next_hello);
                hello.into_iter().chain(self.next_review).min()
            }
            State::Refused => None,
        }
    }

    /// Time has passed.
    pub fn handle_tick(&mut self, now: Time) -> Output {
        self.now = self.now.max(now);
        if let State::Forming(own) = &self.state {
            let is_late = own.as_ref().is_some_and(|own| self.now >= own.give_up_at);
            let now = self.now;
            self.peers.retain(|_, peer| now < peer.heard + PRESENT_FOR);
            if is_late {
                self.withdraw();
            }
            if self.now >= self.next_hello {
                self.send_hello();
            }
            self.try_propose();
        } else if self.joining && self.now >= self.next_hello {
            self.send_hello();
        }
        std::mem::take(&mut self.out)
    }

    /// A message arrived.
    pub fn handle_message(&mut self, now: Time, message: Message) -> Output {
        self.now = self.now.max(now);
        let Message { from, body } = message;
        // Some channels return a node's own messages to it, also those of an earlier nonce.
        let is_own = from.id == self.me.id && self.nonces.contains(&from.nonce);
        if is_own || !from.is_valid() {
            return Output::default();
        }
        // A hello cannot complete a set whose time is over, even if the hello arrived in time while
        // this node was frozen: the other members have given the set up. `Formed` counts however
        // late it is read, because then all members had accepted.
        if let State::Forming(Some(own)) = &self.state
            && self.now >= own.give_up_at
            && !matches!(body, Body::Formed { .. })
        {
            self.withdraw();
        }
        if from.id == self.me.id && from.nonce != self.me.nonce && self.set().is_none() {
            if !std::mem::replace(&mut self.duplicate_reported, true) {
                self.out.events.push(Event::DuplicateId);
            }
            return std::mem::take(&mut self.out);
        }
        match (&self.state, body) {
            (State::Refused, _) => {}
            (State::Formed(_), Body::Hello { size, .. }) if size != self.plan.size() as u64 => {
                // From this hello the sender learns that the sizes differ, and reports it to its
                // user.
                let body = Body::Hello { size: self.plan.size() as u64, bound: None, ask: false };
                self.send(To::Member(from), body);
            }
            (State::Formed(_), Body::Hello { .. }) => self.answer_latecomer(from),
            (State::Forming(_), Body::Hello { size, bound, ask }) => {
                self.handle_hello(from, size, bound, ask);
            }
            (State::Forming(_), Body::Propose { set }) => self.handle_propose(from, set),
            (State::Forming(_), Body::Formed { set }) => self.handle_formed(&set),
            (State::Forming(_), Body::Readmit { set }) => self.handle_readmit(set),
            // Not final: the cluster may have a leader again, which adds this node.
            (State::Forming(_) | State::Formed(_), Body::Refuse { why, members })
                if why == Refusal::Amnesia =>
            {
                if self.set().is_none() || self.joining {
                    self.out.events.push(Event::Refused { why, members });
                }
            }
            (State::Formed(_), Body::Refuse { why, members })
                if self.joining || why == Refusal::Replaced =>
            {
                self.state = State::Refused;
                self.out.events.push(Event::Refused { why, members });
            }
            (State::Forming(_), Body::Refuse { why, members }) => {
                self.state = State::Refused;
                self.out.events.push(Event::Refused { why, members });
            }
            (State::Formed(_), Body::Refuse { why: Refusal::OtherSet, members }) => {
                let why = Refusal::OtherSet;
                self.out.events.push(Event::Refused { why, members });
            }
            (State::Formed(set), Body::Goodbye) => {
                if set.has(&from) {
                    self.out.events.push(Event::Leaving(from.nonce));
                }
            }
            (State::Forming(_), Body::Goodbye) => {
                self.peers.remove(&from.id);
            }
            (State::Formed(_), _) => {}
        }
        std::mem::take(&mut self.out)
    }

    /// This node is closing.
    pub fn handle_close(&mut self) -> Output {
        let members = self.set().map(|set| set.members().to_vec()).unwrap_or_default();
        for member in members {
            if member != self.me {
                self.send(To::Member(member), Body::Goodbye);
            }
        }
        std::mem::take(&mut self.out)
    }

    /// A frame of another set arrived from the node with this nonce. That node is sent a
    /// refusal, because this is not its cluster.
    pub fn handle_other_set(&mut self, nonce: u64) -> Output {
        self.refuse(To::Nonce(nonce), Refusal::OtherSet);
        std::mem::take(&mut self.out)
    }

    fn send(&mut self, to: To, body: Body) {
        let from = self.me.clone();
        self.out.messages.push((to, Message { from, body }));
    }

    fn hello(&self, ask: bool) -> Body {
        let bound = match &self.state {
            State::Forming(own) => own.as_ref().map(|own| own.hash),
            _ => None,
        };
        Body::Hello { size: self.plan.size() as u64, bound, ask }
    }

    /// Sends a hello to everyone. A proposer also repeats its proposal to the members that have not
    /// accepted, because messages can get lost.
    fn send_hello(&mut self) {
        self.send(To::Everyone, self.hello(true));
        if let State::Forming(Some(own)) = &self.state
            && own.is_proposer
        {
            let set = own.set.clone();
            let missing = |m: &&Member| !own.accepted_by.contains(&m.nonce);
            let missing: Vec<_> = set.members().iter().filter(missing).cloned().collect();
            for member in missing {
                self.send(To::Member(member), Body::Propose { set: set.clone() });
            }
        }
        self.next_hello = self.now + self.hello_pause;
        self.hello_pause = (self.hello_pause * 2).min(HELLO_PAUSE.1);
    }

    fn refuse(&mut self, to: To, why: Refusal) {
        let Some(set) = self.set() else { return };
        let members = set.members().iter().map(|member| member.id.clone()).collect();
        self.send(to, Body::Refuse { why, members });
    }
}
