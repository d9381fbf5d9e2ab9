//! What a host of an elastic cluster does, without a browser: its own node and those that it has
//! adopted, frames between them and others, storage and locks as effects. Pure, so that the same code
//! runs in tabs and under the simulator.

use std::collections::VecDeque;

use super::core::{Effect, Input, Letter, Notice, Output, Phase, Status, describe};
use super::mail::{Address, Mail};
use crate::node::{self, Durability, Node, Packet};
use crate::raft::{self, Index, Members, NodeId, Raft, RoleName, Saved, Time};
use crate::sorted::SortedMap;
use crate::store::{self, Call, Failure, Outcome, Return, Settled};
use crate::tenancy::elastic::{self, Body, Elastic, Trouble, View};
use crate::wire::Header;

/// How soon a node stands for election when this host runs a majority already, in ms.
const FIRST_ELECTION: Time = 5;

/// The settings of a host.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster's name: frames of other clusters are not for this host.
    pub cluster: String,
    /// The most nodes that vote.
    pub max_voters: usize,
    /// Shortest and longest election timeout, in ms.
    pub election_timeout: (Time, Time),
    /// The longest silence of a leader, in ms.
    pub heartbeat_interval: Time,
    /// How long a leader may be silent towards a follower that has everything, in ms.
    pub rest: Option<Time>,
    /// Raft's and the store's limits.
    pub store: store::Config,
}

/// A node that runs here.
#[derive(Debug)]
struct Tenant<S> {
    node: Node<S>,
    epoch: u64,
}

#[derive(Debug)]
enum Work<S> {
    Input(Input<S>),
    Letter(Header, Letter),
    /// For a node here.
    Node(NodeId, node::Input<S>),
    Tenancy(elastic::Input),
    Effect(elastic::Effect),
    /// The last of all: the host is closed.
    Closed,
}

/// What a host of an elastic cluster does.
#[derive(Debug)]
pub struct TabCore<S> {
    settings: Settings,
    initial: S,
    seeds: u64,
    elastic: Elastic,
    /// The own node; 0 while there is none, for the one that keeps what the user performs.
    own: NodeId,
    tenants: SortedMap<NodeId, Tenant<S>>,
    /// The newest state that the user has seen, until the own node is there again.
    floor: (Index, S),
    phase: Phase,
    stopped: Option<Failure>,
    /// Counts how often everything was let go of: what was asked of storage and locks before that is
    /// not heard any more.
    life: u32,
    mail: Mail,
    queue: VecDeque<Work<S>>,
    calling: Option<NodeId>,
    /// While its user code really runs.
    speaking: Option<NodeId>,
}

struct Tenants<'a, S>(&'a SortedMap<NodeId, Tenant<S>>, usize);

impl<S: Clone> View for Tenants<'_, S> {
    fn raft(&self, node: NodeId) -> Option<&Raft> {
        self.0.get(&node)?.node.raft()
    }

    fn waiting(&self) -> usize {
        self.1
    }
}

/// A node's id, as people and channels see it.
pub fn name(node: NodeId) -> String {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let digit = |place: u32| char::from(DIGITS[(node >> (5 * place)) as usize % 32]);
    (0..8).rev().map(digit).collect()
}

impl<S: Clone> TabCore<S> {
    /// A host. `seed` decides every random choice. It begins with [`Input::Resume`].
    pub fn new(settings: Settings, initial: S, visible: bool, now: Time, seed: u64) -> Self {
        // A node that is never started keeps what the user performs until there is one.
        let client = Node::new(settings.store, initial.clone(), Durability::Durable, seed);
        Self {
            mail: Mail::new(&settings.cluster, settings.store.version),
            elastic: Elastic::new(settings.max_voters, visible, now, seed.wrapping_add(1)),
            floor: (0, initial.clone()),
            initial,
            seeds: seed.wrapping_add(2),
            settings,
            own: 0,
            tenants: [(0, Tenant { node: client, epoch: 0 })].into_iter().collect(),
            phase: Phase::Forming,
            stopped: None,
            life: 0,
            queue: VecDeque::new(),
            calling: None,
            speaking: None,
        }
    }

    /// The tenancy, to look at.
    pub fn elastic(&self) -> &Elastic {
        &self.elastic
    }

    /// A node that runs here.
    pub fn node(&self, id: NodeId) -> Option<&Node<S>> {
        self.tenants.get(&id).map(|tenant| &tenant.node)
    }

    /// The epoch under which a node that runs here writes.
    pub fn epoch(&self, id: NodeId) -> Option<u64> {
        self.tenants.get(&id).map(|tenant| tenant.epoch)
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    fn own(&self) -> Option<&Node<S>> {
        self.node(self.own)
    }

    /// The node whose state a method sees that runs now. At other times the user sees the own node's,
    /// if that is as far as what the user has seen already.
    fn speaker(&self) -> Option<&Node<S>> {
        if let Some(speaking) = self.speaking {
            return self.node(speaking);
        }
        self.own().filter(|node| node.store().applied() >= self.floor.0)
    }

    /// The committed state.
    pub fn committed(&self) -> &S {
        self.speaker().map_or(&self.floor.1, |node| node.store().committed())
    }

    /// The provisional state.
    pub fn provisional(&self) -> &S {
        self.speaker().map_or(&self.floor.1, |node| node.store().provisional())
    }

    /// Where the host stands.
    pub fn status(&self) -> Status {
        let own = self.own();
        let raft = own.and_then(Node::raft);
        let members = raft.map(Raft::members);
        let matched = raft.and_then(Raft::matched).unwrap_or_default();
        let list = |voter: Option<bool>| -> Vec<String> {
            let all = members.into_iter().flat_map(Members::iter);
            let chosen = all.filter(|(_, member)| voter.is_none_or(|voter| member.voter == voter));
            chosen.map(|(id, _)| name(id)).collect()
        };
        let ids = || members.into_iter().flat_map(Members::iter).map(|(id, _)| id);
        let running = self.elastic.running().filter(|id| self.elastic.own() != Some(*id));
        Status {
            phase: self.phase,
            role: raft.map_or(RoleName::Follower, Raft::role),
            term: raft.map_or(0, Raft::term),
            leader: raft.and_then(Raft::leader).map(name),
            commit: raft.map_or(0, Raft::commit_index),
            applied: own.map_or(0, |node| node.store().applied()),
            last: raft.map_or(0, |raft| raft.log().last().index),
            snapshot: raft.map_or(0, |raft| raft.log().base().index),
            members: list(None),
            learners: list(Some(false)),
            adopted: ids().filter(|id| self.elastic.is_adopted(*id)).map(name).collect(),
            hidden: (ids().filter(|id| self.elastic.is_visible(*id) == Some(false)))
                .map(name)
                .collect(),
            running: running.map(name).collect(),
            matched: matched.into_iter().map(|(id, at)| (name(id), at)).collect(),
            size: members.map_or(0, Members::len),
            present: self.elastic.hosts(),
            waiting: own.map_or(0, |node| node.store().waiting()),
            counters: self.mail.counters,
        }
    }

    /// This host's id: its own node's, once there is one.
    pub fn id(&self) -> String {
        self.elastic.own().map(name).unwrap_or_default()
    }

    /// The user code that was asked for runs now, until [`Input::Returned`]: what it asks for is the
    /// state of the node that calls it. What is settled before it is the own node's.
    pub fn enter(&mut self) {
        self.speaking = self.calling;
    }

    /// Takes one input at the time `now` and says what to do. While user code runs, other inputs
    /// wait; what it returns comes before them.
    pub fn handle(&mut self, now: Time, input: Input<S>) -> Output<S> {
        let mut out = Output::default();
        if let Input::Returned(returned) = input {
            let node = self.calling.take().expect("user code was called");
            self.speaking = None;
            self.feed(now, node, node::Input::Returned(returned), &mut out);
        } else {
            self.queue.push_back(Work::Input(input));
        }
        loop {
            while self.calling.is_none()
                && let Some(work) = self.queue.pop_front()
            {
                self.work(now, work, &mut out);
            }
            // The tenancy is to know when work begins to wait, and when it does not any more.
            let view = Tenants(&self.tenants, self.waiting());
            if self.calling.is_some() || !self.elastic.wants_to_look(&view) {
                break;
            }
            self.queue.push_back(Work::Tenancy(elastic::Input::Changed));
        }
        out.deadline = self.deadline();
        out
    }

    /// When something is due.
    pub fn deadline(&self) -> Option<Time> {
        let running = self.tenants.iter().filter(|(id, _)| **id > 0 || self.own == 0);
        let nodes = running.filter_map(|(_, tenant)| tenant.node.deadline());
        nodes.chain(self.elastic.deadline()).min().filter(|_| self.phase != Phase::Closed)
    }

    /// The frames to send, each to a node's id or to everyone: all of a turn's messages to one node
    /// in one frame.
    #[must_use]
    pub fn take_frames(&mut self) -> Vec<(Option<String>, Vec<u8>)> {
        self.mail.take_frames()
    }

    fn waiting(&self) -> usize {
        self.own().map_or(0, |node| node.store().waiting())
    }

    fn work(&mut self, now: Time, work: Work<S>, out: &mut Output<S>) {
        match work {
            Work::Input(input) => self.input(now, input, out),
            Work::Tenancy(input) => self.tenancy(now, input, out),
            Work::Effect(effect) => self.effect(now, effect, out),
            Work::Node(node, input) => self.feed(now, node, input, out),
            Work::Letter(_, Letter::Host(message)) => {
                self.tenancy(now, elastic::Input::Message(message), out);
            }
            Work::Letter(header, Letter::Node(packet)) => {
                let input = node::Input::Receive { from: header.from, packet };
                self.feed(now, header.to, input, out);
            }
            Work::Letter(_, Letter::Form(_)) => {}
            Work::Closed => {
                self.phase = Phase::Closed;
                self.stopped = Some(Failure::new("CLOSED", "the node is closed"));
                out.notices.push(Notice::Closed);
            }
        }
    }

    /// Work to be done before everything that waits, in this order.
    fn first(&mut self, works: impl IntoIterator<Item = Work<S>, IntoIter: DoubleEndedIterator>) {
        works.into_iter().rev().for_each(|work| self.queue.push_front(work));
    }

    fn input(&mut self, now: Time, input: Input<S>, out: &mut Output<S>) {
        match input {
            Input::Close if self.phase == Phase::Closed => out.notices.push(Notice::Closed),
            Input::Perform(performs) if self.stopped.is_some() => {
                let tickets = performs.iter().map(|perform| perform.ticket);
                out.settled.extend(tickets.map(|ticket| self.refuse(ticket)));
            }
            Input::Read { ticket } if self.stopped.is_some() => {
                out.settled.push(self.refuse(ticket));
            }
            _ if self.phase == Phase::Closed => {}
            Input::Perform(performs) => {
                self.feed(now, self.own, node::Input::Perform(performs), out);
            }
            Input::Read { ticket } => {
                self.feed(now, self.own, node::Input::Read { ticket }, out);
            }
            Input::Frame(frame) => self.receive(&frame, out),
            Input::Tick => {
                let due = |tenant: &Tenant<S>| tenant.node.deadline().is_some_and(|at| at <= now);
                let due = self.tenants.iter().filter(|(_, tenant)| due(tenant));
                let works = due.map(|(id, _)| Work::Node(*id, node::Input::Tick));
                let works: Vec<_> = works.collect();
                self.first(works);
                self.tenancy(now, elastic::Input::Tick, out);
            }
            Input::Persisted { life, node, seq } if life == self.life => {
                self.feed(now, node, node::Input::Persisted(seq), out);
            }
            Input::Tenancy { life, input } if life == self.life => {
                self.tenancy(now, input, out);
            }
            Input::Persisted { .. } | Input::Tenancy { .. } => {}
            // Of fixed clusters.
            Input::Restored(_) | Input::Broken(_) => {}
            Input::Visible(visible) => self.tenancy(now, elastic::Input::Visible(visible), out),
            Input::Resume => self.tenancy(now, elastic::Input::Start, out),
            Input::Suspend => self.tenancy(now, elastic::Input::Suspend, out),
            Input::Destroy => self.tenancy(now, elastic::Input::Destroy, out),
            Input::Close => {
                let failure = Failure::new(
                    "CLOSED",
                    "the node was closed before this was settled; it may still take effect",
                );
                self.phase = Phase::Closing;
                self.first([
                    Work::Node(self.own, node::Input::Close(failure)),
                    Work::Tenancy(elastic::Input::Suspend),
                    Work::Closed,
                ]);
            }
            Input::Returned(_) => unreachable!("it never waits"),
        }
    }

    fn refuse(&self, ticket: u64) -> Settled {
        let closed = || Failure::new("CLOSED", "the node is closed");
        let failure = self.stopped.clone().unwrap_or_else(closed);
        Settled { ticket, outcome: Outcome::Failed(failure) }
    }

    fn receive(&mut self, frame: &[u8], out: &mut Output<S>) {
        let Some((header, letters)) = self.mail.open(frame, &mut out.notices) else { return };
        if header.set != self.elastic.incarnation() {
            self.mail.counters.foreign_frames += 1;
            return;
        }
        let fits = |letter: &Letter| match letter {
            Letter::Host(_) => header.to == 0,
            Letter::Node(_) => self.tenants.contains_key(&header.to) && header.to != 0,
            Letter::Form(_) => false,
        };
        let letters: Vec<_> = letters.into_iter().filter(fits).collect();
        self.first(letters.into_iter().map(|letter| Work::Letter(header, letter)));
    }

    /// Gives the tenancy one input and does what it says.
    fn tenancy(&mut self, now: Time, input: elastic::Input, out: &mut Output<S>) {
        let view = Tenants(&self.tenants, self.waiting());
        let hosts = self.elastic.hosts();
        let effects = self.elastic.handle(now, input, &view);
        if self.elastic.hosts() != hosts {
            out.notices.push(Notice::Status);
        }
        self.first(effects.into_iter().map(Work::Effect));
    }

    fn effect(&mut self, now: Time, effect: elastic::Effect, out: &mut Output<S>) {
        match effect {
            elastic::Effect::Run { node, epoch, saved, own } => {
                self.run(now, node, (epoch, own), saved, out);
            }
            elastic::Effect::Stop(node) => self.stop(node, out),
            elastic::Effect::Change { node, change } => {
                self.feed(now, node, node::Input::Change(change), out);
            }
            elastic::Effect::Transfer { node, to } => {
                self.feed(now, node, node::Input::Transfer(to), out);
            }
            elastic::Effect::Gone(node) => {
                let nodes: Vec<_> = self.elastic.running().collect();
                self.first(nodes.into_iter().map(|id| Work::Node(id, node::Input::Gone(node))));
            }
            elastic::Effect::Wake(node) => self.feed(now, node, node::Input::Wake, out),
            elastic::Effect::Say(body) => self.say(body),
            elastic::Effect::Over(trouble) => self.over(now, trouble, out),
            effect => {
                if matches!(effect, elastic::Effect::UnlockAll) {
                    self.life += 1;
                }
                out.effects.push(Effect::Tenancy { life: self.life, effect });
            }
        }
    }

    fn say(&mut self, body: Body) {
        let message = self.elastic.message_of(body);
        let set = self.elastic.incarnation();
        let address = Address { id: None, to: 0, from: self.elastic.own().unwrap_or(0), set };
        self.mail.post(address, &Letter::Host(message));
    }

    fn over(&mut self, now: Time, trouble: Trouble, out: &mut Output<S>) {
        let failure = match trouble {
            Trouble::StorageLost => Failure::new(
                "STORAGE_LOST",
                "the storage of this cluster was deleted while the page was open: reload the page",
            ),
            Trouble::StorageFailed(why) => Failure::new(
                "STORAGE_FAILED",
                format!(
                    "storage does not take what must be written ({why}): make room for this site \
                     and reload the page"
                ),
            ),
            Trouble::Destroyed => Failure::new(
                "DESTROYED",
                "the cluster was ended, and what it had stored deleted: reload the page to begin \
                 a new one",
            ),
        };
        self.phase = Phase::Refused;
        self.stopped = Some(failure.clone());
        out.notices.push(Notice::Error(failure.clone()));
        self.feed(now, self.own, node::Input::Close(failure), out);
    }

    fn run(
        &mut self,
        now: Time,
        id: NodeId,
        (epoch, own): (u64, bool),
        saved: Saved,
        out: &mut Output<S>,
    ) {
        self.seeds = self.seeds.wrapping_add(1);
        let (store, initial, seed) = (self.settings.store, self.initial.clone(), self.seeds);
        let keeper = if own { self.tenants.remove(&0) } else { None };
        let node = match keeper.map(|keeper| keeper.node.into_survivor()) {
            Some(survivor) => Node::revive(store, initial, Durability::Durable, seed, survivor),
            None => Node::new(store, initial, Durability::Durable, seed),
        };
        // When a majority is here, there is nobody whose leader this could be.
        let here = |voter: &NodeId| *voter == id || self.tenants.contains_key(voter);
        let majority = saved.members().is_some_and(|members| {
            let voters = members.iter().filter(|(_, member)| member.voter);
            voters.filter(|(voter, _)| here(voter)).count() >= members.quorum()
        });
        let config = raft::Config {
            first_election: majority.then_some(FIRST_ELECTION),
            election_timeout: self.settings.election_timeout,
            heartbeat_interval: self.settings.heartbeat_interval,
            rest: self.settings.rest,
            ..raft::Config::new(id, Members::default())
        };
        self.tenants.insert(id, Tenant { node, epoch });
        if own {
            self.own = id;
            self.phase = Phase::Member;
            out.notices.push(Notice::Members);
        }
        out.effects.push(Effect::Listen(name(id)));
        self.feed(now, id, node::Input::Start { config, saved }, out);
    }

    /// Stops a node. What the own node's client has in hand is kept for the next one.
    fn stop(&mut self, id: NodeId, out: &mut Output<S>) {
        out.effects.push(Effect::Unlisten(name(id)));
        let Some(Tenant { node, .. }) = self.tenants.remove(&id) else { return };
        if self.own != id {
            return;
        }
        self.own = 0;
        if node.store().applied() >= self.floor.0 {
            self.floor = (node.store().applied(), node.store().committed().clone());
        }
        let (store, initial, seed) = (self.settings.store, self.initial.clone(), self.seeds);
        let survivor = node.into_survivor();
        let node = Node::revive(store, initial, Durability::Durable, seed, survivor);
        self.tenants.insert(0, Tenant { node, epoch: 0 });
        if matches!(self.phase, Phase::Member) {
            self.phase = Phase::Forming;
            out.notices.push(Notice::Members);
        }
    }

    /// Gives a node one input and does what it asks for. What is for a node that is not here any more
    /// is lost.
    fn feed(&mut self, now: Time, id: NodeId, input: node::Input<S>, out: &mut Output<S>) {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let Some(tenant) = self.tenants.get_mut(&id) else { return };
            let node = tenant.node.handle(now, input);
            let (life, epoch) = (self.life, tenant.epoch);
            let writes = node.persist.into_iter();
            out.effects.extend(writes.map(|persist| Effect::Write {
                life,
                node: id,
                epoch,
                persist,
            }));
            self.send(id, node.send);
            out.settled.extend(node.settled);
            self.tell(id, node.events, out);
            let Some(call) = node.call else { continue };
            // Subscribers are told of what the own node commits, and of nothing twice.
            let untold = id == self.own;
            match call {
                Call::Committed(new) if !untold || new.at.index <= self.floor.0 => {
                    next = Some(node::Input::Returned(Return::Done));
                }
                call => {
                    self.calling = Some(id);
                    out.call = Some(call);
                }
            }
        }
    }

    fn send(&mut self, from: NodeId, packets: Vec<(NodeId, Packet)>) {
        let set = self.elastic.incarnation();
        for (to, packet) in packets {
            if self.tenants.contains_key(&to) {
                self.queue.push_back(Work::Node(to, node::Input::Receive { from, packet }));
            } else {
                let address = Address { id: Some(name(to)), to, from, set };
                self.mail.post(address, &Letter::Node(packet));
            }
        }
    }

    fn tell(&mut self, id: NodeId, events: Vec<node::Event>, out: &mut Output<S>) {
        for event in events {
            match event {
                node::Event::Leader { .. } | node::Event::Members => {
                    self.queue.push_back(Work::Tenancy(elastic::Input::Changed));
                    if id == self.own {
                        let is_leader = matches!(event, node::Event::Leader { .. });
                        out.notices.push(if is_leader { Notice::Leader } else { Notice::Members });
                    }
                }
                node::Event::Invalid { from, error } => {
                    let (who, error) = (format!("node {}", name(from)), error.to_string());
                    self.mail.invalid(&who, &error, &mut out.notices);
                }
                node::Event::Trouble(trouble) => {
                    out.notices.push(Notice::Error(describe(trouble)));
                }
            }
        }
    }
}
