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

mod rejoin;

use std::hash::{Hash, Hasher};

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::mistakes::{Mistake, made};
use crate::raft::{Change, NodeId, Time};
use crate::sorted::{SortedMap, SortedSet};
use crate::wire::hash64;
use crate::wire::relay::MAX_ID;

/// One start of one node: its id, and the number that it drew when it started.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// The node's id.
    pub id: String,
    /// Its start-nonce, never 0.
    pub nonce: u64,
}

impl Member {
    /// Whether a node can be called so: channels carry ids of limited length.
    fn is_valid(&self) -> bool {
        self.nonce != 0 && !self.id.is_empty() && self.id.len() <= MAX_ID
    }
}

/// A set of members, sorted by id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Set(Vec<Member>);

impl Set {
    /// A set of these members. `None` when an id is there twice, or a nonce is 0.
    pub fn new(mut members: Vec<Member>) -> Option<Self> {
        members.sort();
        let twice = members.windows(2).any(|pair| pair[0].id == pair[1].id);
        let valid = !members.is_empty() && !twice && members.iter().all(Member::is_valid);
        valid.then_some(Self(members))
    }

    /// The members, sorted by id.
    pub fn members(&self) -> &[Member] {
        &self.0
    }

    /// A number for the set, which frames carry; never 0.
    pub fn hash(&self) -> u64 {
        let nonces: Vec<_> = self.0.iter().map(|member| member.nonce.to_le_bytes()).collect();
        let parts: Vec<&[u8]> = (self.0.iter().zip(&nonces))
            .flat_map(|(member, nonce)| [member.id.as_bytes(), nonce.as_slice()])
            .collect();
        hash64(&parts).max(1)
    }

    /// A member's number in Raft: its place in the set, from 1 on.
    pub fn number(&self, nonce: u64) -> Option<NodeId> {
        self.0.iter().position(|member| member.nonce == nonce).map(|place| place as NodeId + 1)
    }

    /// The member with this number in Raft.
    pub fn member(&self, number: NodeId) -> Option<&Member> {
        self.0.get(usize::try_from(number.checked_sub(1)?).ok()?)
    }

    fn has(&self, member: &Member) -> bool {
        self.0.contains(member)
    }

    /// The members' numbers by their ids.
    fn roster(&self) -> SortedMap<String, NodeId> {
        (1..).zip(&self.0).map(|(number, member)| (member.id.clone(), number)).collect()
    }

    fn with_id(&self, id: &str) -> Option<&Member> {
        self.0.iter().find(|member| member.id == id)
    }
}

/// Who may become a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Any n nodes.
    Size(usize),
    /// The nodes with these ids.
    Ids(SortedSet<String>),
}

impl Plan {
    /// How many members the cluster will have.
    pub fn size(&self) -> usize {
        match self {
            Self::Size(size) => *size,
            Self::Ids(ids) => ids.len(),
        }
    }

    fn admits(&self, id: &str) -> bool {
        match self {
            Self::Size(_) => true,
            Self::Ids(ids) => ids.contains(id),
        }
    }
}

/// What nodes say to each other while they form, and to whoever comes too late.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// The sender.
    pub from: Member,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Body {
    /// "I am here."
    Hello {
        /// How many members the sender expects.
        size: u64,
        /// The hash of the set to which it is bound.
        bound: Option<u64>,
        /// It wants to be told who else is here.
        ask: bool,
    },
    /// "Let us be the cluster." The sender is bound to the set.
    Propose {
        /// The set.
        set: Set,
    },
    /// "All members of this set are bound to it: start."
    Formed {
        /// The set.
        set: Set,
    },
    /// "You were a member of this set and have lost your memory: the leader takes you in anew."
    Welcome {
        /// The set with which the cluster began.
        set: Set,
    },
    /// "I am closing." A hint: nobody is out because of it, but nobody needs to wait for the sender.
    Goodbye,
    /// "You cannot join."
    Refuse {
        /// Why.
        why: Refusal,
        /// The ids of the members.
        members: Vec<String>,
    },
}

/// Why a node cannot join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// The cluster has all its members.
    Full,
    /// A member of that id has lost its memory, and there is no majority that could take it in again.
    Amnesia,
    /// The cluster takes only named members, and this is none.
    NotAMember,
    /// The sender runs in another set.
    OtherSet,
    /// Another node with this id is a member, and lives.
    DuplicateId,
    /// Another start of this node has taken its place.
    Replaced,
}

impl Refusal {
    /// The stable code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Full => "CLUSTER_FULL",
            Self::Amnesia => "AMNESIA",
            Self::NotAMember => "NOT_A_MEMBER",
            Self::OtherSet => "OTHER_CLUSTER",
            Self::DuplicateId => "DUPLICATE_ID",
            Self::Replaced => "REPLACED",
        }
    }
}

/// To whom a message goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum To {
    /// Whoever listens.
    Everyone,
    /// One start of one node.
    Member(Member),
    /// The start with this nonce, whose id is not known.
    Nonce(u64),
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The cluster has formed: start Raft.
    Formed(Set),
    /// The cluster that began with this set takes this node in: start Raft without members.
    Welcomed(Set),
    /// This node cannot join, and stops trying; but for [`Refusal::Amnesia`], with which it waits on.
    Refused {
        /// Why.
        why: Refusal,
        /// The ids of the cluster's members.
        members: Vec<String>,
    },
    /// Another node expects another number of members. Told once for each such node.
    SizeMismatch {
        /// The other node's id.
        id: String,
        /// How many it expects.
        size: u64,
    },
    /// A node is here that is none of the named members. Told once for each.
    Stranger {
        /// Its id.
        id: String,
    },
    /// Another node has this node's id. Told once.
    DuplicateId,
    /// The member with this nonce is closing.
    Leaving(u64),
}

/// Everything that one call asks of its caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Output {
    /// What to send.
    pub messages: Vec<(To, Message)>,
    /// What happened.
    pub events: Vec<Event>,
    /// A change of the configuration to ask Raft for, which leads here.
    pub change: Option<Change>,
}

/// How long a node that is not heard counts as being there, in ms. Hidden tabs' timers fire once
/// a second.
const LIVE: Time = 4_000;
/// How long a set may take to fill up, in ms, before its proposer withdraws; up to half as much again
/// is added at random. The others wait for twice as long, so that it is the proposer who decides.
const BOUND: Time = 4_000;
/// The first and the longest pause between two hellos, in ms.
const HELLO: (Time, Time) = (100, 1_000);

#[derive(Clone, Debug)]
struct Known {
    nonce: u64,
    heard: Time,
    bound: Option<u64>,
}

/// A member that has lost its memory.
#[derive(Clone, Debug)]
struct Returning {
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
    met: SortedSet<NodeId>,
    returning: SortedMap<String, Returning>,
    /// This node waits to be taken in.
    joining: bool,
    /// Since when nobody leads, as far as Raft was looked at.
    leaderless: Option<Time>,
    /// When to look at Raft again.
    look_at: Option<Time>,
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
            hello_pause: HELLO.0,
            propose_at: now,
            mismatched: SortedSet::new(),
            duplicate_told: false,
            roster: SortedMap::new(),
            met: SortedSet::new(),
            returning: SortedMap::new(),
            joining: false,
            leaderless: Some(now),
            look_at: None,
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
            (id, known.nonce, known.bound, (self.now - known.heard).min(LIVE)).hash(hasher);
        }
        std::mem::discriminant(&self.state).hash(hasher);
        match &self.state {
            State::Forming(None) | State::Refused => {}
            State::Forming(Some(bound)) => {
                (bound.hash, &bound.accepted, bound.mine, until(bound.give_up)).hash(hasher);
            }
            State::Formed(_) => {
                (self.set_hash, &self.roster, &self.met, self.joining).hash(hasher);
                self.leaderless.map(|at| (self.now - at).min(LIVE)).hash(hasher);
                for (id, one) in self.returning.iter() {
                    (id, one.member.nonce, (self.now - one.since).min(LIVE)).hash(hasher);
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
                hello.into_iter().chain(self.look_at).min()
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
            self.known.retain(|_, known| now < known.heard + LIVE);
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
            (State::Forming(_), Body::Welcome { set }) => self.handle_welcome(set),
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
        self.hello_pause = (self.hello_pause * 2).min(HELLO.1);
    }

    fn refuse(&mut self, to: To, why: Refusal) {
        let Some(set) = self.set() else { return };
        let members = set.members().iter().map(|member| member.id.clone()).collect();
        self.send(to, Body::Refuse { why, members });
    }

    fn handle_hello(&mut self, from: Member, size: u64, bound: Option<u64>, ask: bool) {
        if size != self.plan.size() as u64 {
            if self.mismatched.insert(from.id.clone()) {
                self.out.events.push(Event::SizeMismatch { id: from.id.clone(), size });
                // So that it knows as well.
                self.send(To::Member(from), self.hello(false));
            }
            return;
        }
        if !self.plan.admits(&from.id) {
            // Who is right is not settled before a cluster has formed.
            if self.mismatched.insert(from.id.clone()) {
                self.out.events.push(Event::Stranger { id: from.id });
            }
            return;
        }
        let is_new = self.meet(&from, bound);
        if ask {
            self.send(To::Member(from.clone()), self.hello(false));
        }
        if let State::Forming(Some(mine)) = &mut self.state {
            let in_set = mine.set.has(&from);
            match bound {
                Some(hash) if hash == mine.hash && in_set => {
                    mine.accepted.insert(from.nonce);
                    return self.check_complete();
                }
                // A member that is bound elsewhere. Of two sets that compete the smaller stays.
                Some(hash) if in_set && hash < mine.hash => self.withdraw(),
                _ => {}
            }
        }
        if is_new {
            self.hello_pause = HELLO.0;
        }
        self.try_propose();
    }

    /// Takes note of a node. Says whether it, or this start of it, is new.
    fn meet(&mut self, member: &Member, bound: Option<u64>) -> bool {
        let known = Known { nonce: member.nonce, heard: self.now, bound };
        let before = self.known.insert(member.id.clone(), known);
        // A new start of a member of the set to which this node is bound: the old one is dead to
        // us, and the set can never be complete.
        if let State::Forming(Some(mine)) = &self.state
            && mine.set.with_id(&member.id).is_some_and(|m| m.nonce != member.nonce)
        {
            self.withdraw();
        }
        before.is_none_or(|before| before.nonce != member.nonce)
    }

    /// Draws a new nonce: to the set to which this node was bound it has crashed.
    fn withdraw(&mut self) {
        self.state = State::Forming(None);
        self.me.nonce = self.rng.next_u64().max(1);
        self.nonces.insert(self.me.nonce);
        self.propose_at = self.now + self.rng.random_range(10..=100);
        self.send(To::Everyone, self.hello(true));
        self.hello_pause = HELLO.0;
        self.hello_at = self.propose_at;
    }

    /// Proposes a set, if this is the node to do it.
    fn try_propose(&mut self) {
        let State::Forming(None) = &self.state else { return };
        if self.now < self.propose_at {
            return;
        }
        let others = self.known.iter().filter(|(_, known)| known.bound.is_none());
        let others = others.map(|(id, known)| Member { id: id.clone(), nonce: known.nonce });
        let mut members: Vec<_> = others.chain([self.me.clone()]).collect();
        members.sort();
        members.truncate(self.plan.size());
        if members.len() < self.plan.size() || members[0] != self.me {
            return;
        }
        let Some(set) = Set::new(members) else { return };
        self.bind(set.clone(), true);
        for member in set.members().iter().filter(|m| **m != self.me).cloned().collect::<Vec<_>>() {
            self.send(To::Member(member), Body::Propose { set: set.clone() });
        }
        self.check_complete();
    }

    fn bind(&mut self, set: Set, mine: bool) {
        let patience = if mine { BOUND } else { 2 * BOUND };
        let give_up = self.now + patience + self.rng.random_range(0..=BOUND / 2);
        let hash = set.hash();
        let accepted = [self.me.nonce].into_iter().collect();
        self.state = State::Forming(Some(Bound { set, hash, accepted, mine, give_up }));
        self.hello_pause = HELLO.0;
        self.hello_at = self.now + HELLO.0;
    }

    fn handle_propose(&mut self, from: Member, set: Set) {
        // What came over the wire is checked like any other set.
        let Some(set) = Set::new(set.0) else { return };
        let fits = set.members().len() == self.plan.size()
            && set.members().iter().all(|member| self.plan.admits(&member.id));
        if !fits || !set.has(&from) || !set.has(&self.me) {
            // Perhaps it knows an earlier start of this node.
            return self.send(To::Member(from), self.hello(false));
        }
        let hash = set.hash();
        self.meet(&from, Some(hash));
        let State::Forming(bound) = &mut self.state else { return };
        match bound {
            None if set.has(&self.me) => self.bind(set.clone(), false),
            Some(bound) if bound.hash == hash => {}
            // Bound to another set, or `meet` has just withdrawn from it.
            _ => return self.send(To::Member(from), self.hello(false)),
        }
        if let State::Forming(Some(bound)) = &mut self.state {
            bound.accepted.insert(from.nonce);
        }
        // Every member counts for itself who has accepted.
        for member in set.members().iter().filter(|m| **m != self.me).cloned().collect::<Vec<_>>() {
            self.send(To::Member(member), self.hello(false));
        }
        self.check_complete();
    }

    fn check_complete(&mut self) {
        let enough = |bound: &Bound| {
            let members = bound.set.members().len();
            let early = made(Mistake::VoteBeforeFormed) && bound.accepted.len() > members / 2;
            bound.accepted.len() == members || early
        };
        if let State::Forming(Some(bound)) = &self.state
            && enough(bound)
        {
            let set = bound.set.clone();
            self.form(set);
        }
    }

    fn handle_formed(&mut self, set: &Set) {
        if let State::Forming(Some(bound)) = &self.state
            && bound.set == *set
        {
            self.form(set.clone());
        }
    }

    fn form(&mut self, set: Set) {
        for member in set.members().iter().filter(|m| **m != self.me).cloned().collect::<Vec<_>>() {
            self.send(To::Member(member), Body::Formed { set: set.clone() });
        }
        self.set_hash = set.hash();
        self.roster = set.roster();
        self.state = State::Formed(set.clone());
        self.out.events.push(Event::Formed(set));
    }
}
