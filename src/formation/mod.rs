//! Which nodes are a cluster: the forming of fixed clusters.
//!
//! Ids are not known beforehand, so nobody may vote before it is settled who the members are: two
//! halves of the same tabs must never take themselves for two clusters. A node proposes a *set* of
//! n members, each an id with the random nonce that it drew when it started, and Raft starts on that
//! set only once **all n** have accepted it. From then on any majority will do.
//!
//! - A node accepts one set at a time. It never goes back on that: to withdraw, it draws a new
//!   nonce, so that to the old set it is a crashed node, and it owes that set nothing.
//! - Everyone says hello to everyone, and with it to which set it is bound. Whoever sees that all
//!   members of its set are bound to it starts, and says so to the others.
//! - Of the nodes that it hears, the one with the smallest id proposes, the n smallest ids. So with
//!   n nodes there is one possible set and no competition. With more, two sets can be proposed at
//!   once; then the one with the smaller hash stays, and whoever sees a member of its own set bound
//!   to a smaller one withdraws. A set that does not fill up in time is given up likewise.
//! - A set, once formed, takes no stranger in: it is one too many (`CLUSTER_FULL`). A known id with
//!   another nonce is a member that lost its memory, and replaces its former self: see `replace`.

mod agree;
mod rejoin;
mod set;
mod types;

use std::hash::{Hash, Hasher};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

pub use self::set::{Member, Plan, Set};
pub use self::types::{Body, Event, Message, Output, Refusal, To};
use crate::raft::{NodeId, Time};
use crate::sorted::{SortedMap, SortedSet};

/// How long a node that is not heard counts as being there, in ms. Hidden tabs' timers fire once
/// a second.
const PRESENT_FOR: Time = 4_000;
/// How long a set may take to fill up, in ms, before its proposer withdraws; up to half as much again
/// is added at random. The others wait for twice as long, so that it is the proposer who decides.
const ACCEPT_TIMEOUT: Time = 4_000;
/// The first and the longest pause between two hellos, in ms.
const HELLO_PAUSE: (Time, Time) = (100, 1_000);

#[derive(Clone, Debug)]
struct Known {
    nonce: u64,
    heard: Time,
    bound: Option<u64>,
}

/// A member that has lost its memory.
#[derive(Clone, Debug)]
struct Rejoining {
    member: Member,
    /// When it was first heard, and last.
    since: Time,
    heard: Time,
}

#[derive(Clone, Debug)]
struct Bound {
    set: Set,
    hash: u64,
    /// The nonces of the members that are known to be bound to it.
    accepted: SortedSet<u64>,
    /// This node proposed it, and repeats the proposal.
    mine: bool,
    give_up: Time,
}

#[derive(Clone, Debug)]
enum State {
    Forming(Option<Bound>),
    Formed(Set),
    Refused,
}

/// The forming of one node's cluster.
#[derive(Clone, Debug)]
pub struct Formation {
    me: Member,
    /// Every nonce that this node has had.
    nonces: SortedSet<u64>,
    plan: Plan,
    rng: SmallRng,
    now: Time,
    state: State,
    set_hash: u64,
    known: SortedMap<String, Known>,
    hello_at: Time,
    hello_pause: Time,
    /// Not before this does the node propose again, after it has withdrawn.
    propose_at: Time,
    mismatched: SortedSet<String>,
    duplicate_told: bool,
    /// The members by their ids, with their numbers in Raft, once the cluster has formed.
    roster: SortedMap<String, NodeId>,
    /// Every number that was ever a member's, as far as this node knows.
    known_numbers: SortedSet<NodeId>,
    rejoining: SortedMap<String, Rejoining>,
    /// This node waits to be taken in.
    joining: bool,
    /// Since when nobody leads, as far as Raft was looked at.
    leaderless: Option<Time>,
    /// When to look at Raft again.
    review_at: Option<Time>,
    out: Output,
}

impl Formation {
    /// A node that has just started. `seed` decides its nonce and every other random choice.
    pub fn new(id: String, plan: Plan, now: Time, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let nonce = rng.next_u64().max(1);
        Self {
            me: Member { id, nonce },
            nonces: [nonce].into_iter().collect(),
            plan,
            rng,
            now,
            state: State::Forming(None),
            set_hash: 0,
            known: SortedMap::new(),
            hello_at: now,
            hello_pause: HELLO_PAUSE.0,
            propose_at: now,
            mismatched: SortedSet::new(),
            duplicate_told: false,
            roster: SortedMap::new(),
            known_numbers: SortedSet::new(),
            rejoining: SortedMap::new(),
            joining: false,
            leaderless: Some(now),
            review_at: None,
            out: Output::default(),
        }
    }

    /// A node that starts again with the memory of its former self: the nonce that it had and the
    /// set in which it runs. Whatever it has voted since is remembered, too, so it is the same member.
    ///
    /// # Panics
    /// When the set has no member of that id: storage is not a peer, so this is a bug or a broken disk.
    pub fn resume(id: String, nonce: u64, set: Set, plan: Plan, now: Time, seed: u64) -> Self {
        let me = Member { id, nonce };
        assert!(set.with_id(&me.id).is_some(), "a node resumes in a set of its own");
        let mut node = Self::new(me.id.clone(), plan, now, seed);
        node.nonces.insert(nonce);
        // Until Raft says that it is a member.
        node.joining = !set.has(&me);
        node.roster = set.roster();
        (node.me, node.set_hash, node.state) = (me, set.hash(), State::Formed(set));
        node
    }

    /// This start of this node.
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

    /// How many nodes are there as far as this one knows, itself included.
    pub fn present(&self) -> usize {
        self.known.len() + 1
    }

    /// Feeds the hasher with everything that decides what this node will do, given the same inputs at
    /// the same distances in time: how a model checker tells states apart.
    pub fn fingerprint(&self, hasher: &mut impl Hasher) {
        let until = |at: Time| at.saturating_sub(self.now);
        (&self.me, self.nonces.len(), &self.mismatched, self.duplicate_told).hash(hasher);
        (until(self.hello_at), self.hello_pause, until(self.propose_at)).hash(hasher);
        self.rng.clone().next_u64().hash(hasher);
        for (id, known) in self.known.iter() {
            (id, known.nonce, known.bound, (self.now - known.heard).min(PRESENT_FOR)).hash(hasher);
        }
        std::mem::discriminant(&self.state).hash(hasher);
        match &self.state {
            State::Forming(None) | State::Refused => {}
            State::Forming(Some(bound)) => {
                (bound.hash, &bound.accepted, bound.mine, until(bound.give_up)).hash(hasher);
            }
            State::Formed(_) => {
                (self.set_hash, &self.roster, &self.known_numbers, self.joining).hash(hasher);
                self.leaderless.map(|at| (self.now - at).min(PRESENT_FOR)).hash(hasher);
                for (id, one) in self.rejoining.iter() {
                    (id, one.member.nonce, (self.now - one.since).min(PRESENT_FOR)).hash(hasher);
                }
            }
        }
    }

    /// When the set to which this node is bound is given up, if it is bound to one.
    pub fn gives_up_at(&self) -> Option<Time> {
        match &self.state {
            State::Forming(bound) => bound.as_ref().map(|bound| bound.give_up),
            State::Formed(_) | State::Refused => None,
        }
    }

    /// When to call [`Formation::handle_tick`], if nothing happens before.
    pub fn deadline(&self) -> Option<Time> {
        match &self.state {
            State::Forming(bound) => {
                let give_up = bound.as_ref().map(|bound| bound.give_up);
                Some(give_up.map_or(self.hello_at, |at| at.min(self.hello_at)))
            }
            State::Formed(_) => {
                let hello = self.joining.then_some(self.hello_at);
                hello.into_iter().chain(self.review_at).min()
            }
            State::Refused => None,
        }
    }

    /// Time has passed.
    pub fn handle_tick(&mut self, now: Time) -> Output {
        self.now = self.now.max(now);
        if let State::Forming(bound) = &self.state {
            let late = bound.as_ref().is_some_and(|bound| self.now >= bound.give_up);
            let now = self.now;
            self.known.retain(|_, known| now < known.heard + PRESENT_FOR);
            if late {
                self.withdraw();
            }
            if self.now >= self.hello_at {
                self.say_hello();
            }
            self.try_propose();
        } else if self.joining && self.now >= self.hello_at {
            self.say_hello();
        }
        std::mem::take(&mut self.out)
    }

    /// A message arrived.
    pub fn handle_message(&mut self, now: Time, message: Message) -> Output {
        self.now = self.now.max(now);
        let Message { from, body } = message;
        // Some channels bring a node its own words back, also those of an earlier nonce.
        let own = from.id == self.me.id && self.nonces.contains(&from.nonce);
        if own || !from.is_valid() {
            return Output::default();
        }
        // A set whose time is over is not completed any more, not even by what was said in time and
        // is heard late, after this node was frozen: the others have given it up. What all have
        // accepted counts however late it is heard.
        if let State::Forming(Some(bound)) = &self.state
            && self.now >= bound.give_up
            && !matches!(body, Body::Formed { .. })
        {
            self.withdraw();
        }
        if from.id == self.me.id && from.nonce != self.me.nonce && self.set().is_none() {
            if !std::mem::replace(&mut self.duplicate_told, true) {
                self.out.events.push(Event::DuplicateId);
            }
            return std::mem::take(&mut self.out);
        }
        match (&self.state, body) {
            (State::Refused, _) => {}
            (State::Formed(_), Body::Hello { size, .. }) if size != self.plan.size() as u64 => {
                // It sees the difference, and says so to its user.
                let body = Body::Hello { size: self.plan.size() as u64, bound: None, ask: false };
                self.send(To::Member(from), body);
            }
            (State::Formed(_), Body::Hello { .. }) => self.answer_late(from),
            (State::Forming(_), Body::Hello { size, bound, ask }) => {
                self.handle_hello(from, size, bound, ask);
            }
            (State::Forming(_), Body::Propose { set }) => self.handle_propose(from, set),
            (State::Forming(_), Body::Formed { set }) => self.handle_formed(&set),
            (State::Forming(_), Body::Readmit { set }) => self.handle_readmit(set),
            // It may still be taken in.
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
                self.known.remove(&from.id);
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

    /// A frame of another set arrived from the node with this nonce: tell it that this is not its
    /// cluster.
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
            State::Forming(bound) => bound.as_ref().map(|bound| bound.hash),
            _ => None,
        };
        Body::Hello { size: self.plan.size() as u64, bound, ask }
    }

    /// Says hello to everyone, and repeats what a set that fills up may be waiting for.
    fn say_hello(&mut self) {
        self.send(To::Everyone, self.hello(true));
        if let State::Forming(Some(bound)) = &self.state
            && bound.mine
        {
            let set = bound.set.clone();
            let missing = |m: &&Member| !bound.accepted.contains(&m.nonce);
            let missing: Vec<_> = set.members().iter().filter(missing).cloned().collect();
            for member in missing {
                self.send(To::Member(member), Body::Propose { set: set.clone() });
            }
        }
        self.hello_at = self.now + self.hello_pause;
        self.hello_pause = (self.hello_pause * 2).min(HELLO_PAUSE.1);
    }

    fn refuse(&mut self, to: To, why: Refusal) {
        let Some(set) = self.set() else { return };
        let members = set.members().iter().map(|member| member.id.clone()).collect();
        self.send(to, Body::Refuse { why, members });
    }
}
