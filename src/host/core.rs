//! The host: it runs nodes in a tab or a Node.js process, for every kind of cluster. It is pure
//! like the modules below it, so that the same code runs in tabs, in Node.js, in native tests and
//! in the simulator.
//!
//! How a node comes to be differs between kinds of cluster and is behind [`Cluster`]. Everything
//! else is here: the queue of work, the nodes, their frames, the phases, closing, and what the user
//! learns.
//!
//! While user code runs, all other work waits in the queue. The result of the code comes first.

use std::collections::VecDeque;

use super::cluster::{Action, Admission, Cluster, Event};
use super::elastic::ElasticCluster;
use super::faults::describe;
use super::fixed::FixedCluster;
use super::transport::{Message, Transport};
use super::types::{Effect, Input, Kind, Notice, Output, Phase, Settings, Status};
use crate::elastic::{self, Elastic, View};
use crate::formation::Set;
use crate::mistakes::{Mistake, made};
use crate::node::{self, Node, Packet};
use crate::raft::{self, Index, Members, NodeId, Raft, RoleName, Saved, Time};
use crate::sorted::SortedMap;
use crate::store::{CARETAKER, Call, DetachedClient, Failure, Fault, Outcome, Return, Settled};
use crate::wire::Header;

/// After how many ms a node campaigns for the first time when this host runs a majority of the
/// voters. It need not wait for an election timeout, because no node elsewhere can be elected
/// without the votes of nodes here.
const FIRST_ELECTION: Time = 5;

/// How long a closing host tries at most to hand leadership over, in ms.
const LONGEST_CLOSE: Time = 500;

/// The key of a node that is never started. While the host has no own node, this one keeps the
/// user's performs and reads.
const NOT_STARTED: NodeId = 0;

/// A node that runs here.
#[derive(Debug)]
struct HostedNode<S> {
    node: Node<S>,
    /// The epoch under which the node writes: storage refuses its writes once another host has
    /// raised the epoch.
    epoch: u64,
}

/// One thing to do. Each message of a frame is work of its own, because each may call user code.
#[derive(Debug)]
enum Work<S> {
    Input(Input<S>),
    Message(Header, Message),
    Node(NodeId, node::Input<S>),
    Cluster(Event),
    Action(Action),
}

/// A host.
#[derive(Debug)]
pub struct Host<S> {
    settings: Settings,
    /// The first state, with which every node begins.
    initial: S,
    /// The seed of the node that was started last. It is raised by one before each start.
    seed: u64,
    cluster: Box<dyn Cluster>,
    /// The own node, or [`NOT_STARTED`].
    own: NodeId,
    nodes: SortedMap<NodeId, HostedNode<S>>,
    /// The newest state that the user has seen and its index. The user is shown this state while
    /// the own node has not applied so much.
    seen: (Index, S),
    /// The incarnation to which `seen` and the client belong; 0 before the first own node.
    incarnation: u64,
    phase: Phase,
    /// Why performs and reads are refused, if they are.
    stopped: Option<Failure>,
    /// When closing ends at the latest.
    close_by: Option<Time>,
    /// Counts how often the host has released all its nodes. Answers to what was asked of storage
    /// and locks in an earlier generation are ignored.
    generation: u32,
    transport: Transport,
    queue: VecDeque<Work<S>>,
    /// The own node waits for user code to return.
    calling: bool,
    /// The same, but only from [`Host::enter`] on, while the code really runs.
    running_code: bool,
}

/// The nodes of a host as its cluster sees them, and how many performs and reads wait.
struct Nodes<'a, S>(&'a SortedMap<NodeId, HostedNode<S>>, usize);

impl<S: Clone> View for Nodes<'_, S> {
    fn raft(&self, node: NodeId) -> Option<&Raft> {
        self.0.get(&node)?.node.raft()
    }

    fn waiting(&self) -> usize {
        self.1
    }
}

impl<S: Clone> Host<S> {
    /// A host, which begins to work with [`Input::Start`]. `visible` says whether its tab is
    /// visible. `seed` determines every random choice.
    pub fn new(settings: Settings, initial: S, visible: bool, now: Time, seed: u64) -> Self {
        let client = Node::new(settings.store, initial.clone(), settings.durability, seed);
        let cluster: Box<dyn Cluster> = match &settings.kind {
            Kind::Fixed { id, plan } => {
                let (id, plan) = (id.clone(), plan.clone());
                Box::new(FixedCluster::new(&settings, id, plan, now, seed.wrapping_add(1)))
            }
            Kind::Elastic { max_voters } => {
                let (version, seed) = (settings.store.version, seed.wrapping_add(1));
                Box::new(ElasticCluster::new(*max_voters, version, visible, now, seed))
            }
        };
        Self {
            transport: Transport::new(&settings.cluster, settings.store.version),
            cluster,
            seen: (0, initial.clone()),
            incarnation: 0,
            initial,
            seed: seed.wrapping_add(2),
            settings,
            own: NOT_STARTED,
            nodes: [(NOT_STARTED, HostedNode { node: client, epoch: 0 })].into_iter().collect(),
            phase: Phase::Forming,
            stopped: None,
            close_by: None,
            generation: 0,
            queue: VecDeque::new(),
            calling: false,
            running_code: false,
        }
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The id of the host's own node; empty while there is none.
    pub fn id(&self) -> String {
        self.cluster.id()
    }

    /// The host's own node. While there is none, the node that keeps the user's performs and reads.
    ///
    /// # Panics
    /// Never: there is always one of these two nodes.
    pub fn own(&self) -> &Node<S> {
        self.node(self.own).expect("a host has a node of its own, or one that is not started")
    }

    /// A node that runs here.
    pub fn node(&self, id: NodeId) -> Option<&Node<S>> {
        self.nodes.get(&id).map(|hosted| &hosted.node)
    }

    /// The epoch under which a node that runs here writes.
    pub fn epoch(&self, id: NodeId) -> Option<u64> {
        self.nodes.get(&id).map(|hosted| hosted.epoch)
    }

    /// The set of members of a fixed cluster, once it has formed.
    pub fn set(&self) -> Option<&Set> {
        self.cluster.set()
    }

    /// Which host runs which node, in an elastic cluster.
    pub fn elastic(&self) -> Option<&Elastic> {
        self.cluster.elastic()
    }

    /// The committed state.
    pub fn committed(&self) -> &S {
        self.shown().map_or(&self.seen.1, |node| node.store().committed())
    }

    /// The provisional state.
    pub fn provisional(&self) -> &S {
        self.shown().map_or(&self.seen.1, |node| node.store().provisional())
    }

    /// The node whose state the user sees: the own node. `None` when that is behind what the user
    /// has seen already, unless it calls the user's code: a reducer sees the state that it gets.
    fn shown(&self) -> Option<&Node<S>> {
        let own = self.own();
        (self.running_code || own.store().applied() >= self.seen.0).then_some(own)
    }

    /// The status of the host and of its own node.
    pub fn status(&self) -> Status {
        let own = self.own();
        let raft = own.raft();
        let name = |id| self.cluster.name(id, raft);
        let members = |learners: bool| -> Vec<String> {
            let all = raft.map(Raft::members).into_iter().flat_map(Members::iter);
            let chosen = all.filter(|(_, member)| !learners || !member.voter);
            chosen.filter_map(|(id, _)| name(id)).collect()
        };
        let matched = raft.and_then(Raft::matched).unwrap_or_default();
        let has_state = own.store().release() == Some(self.settings.store.version);
        let is_outdated = own.store().is_outdated();
        let mut status = Status {
            phase: match self.phase {
                Phase::Member if is_outdated => Phase::Outdated,
                Phase::Member if !has_state => Phase::Forming,
                phase => phase,
            },
            role: raft.map_or(RoleName::Follower, Raft::role),
            term: raft.map_or(0, Raft::term),
            leader: raft.and_then(Raft::leader).and_then(name),
            commit: raft.map_or(0, Raft::commit_index),
            applied: own.store().applied(),
            last: raft.map_or(0, |raft| raft.log().last().index),
            snapshot: raft.map_or(0, |raft| raft.log().base().index),
            members: members(false),
            learners: members(true),
            adopted: Vec::new(),
            hidden: Vec::new(),
            running: Vec::new(),
            matched: matched.into_iter().filter_map(|(id, at)| Some((name(id)?, at))).collect(),
            size: 0,
            present: self.cluster.present(),
            waiting: self.waiting(),
            counters: self.transport.counters,
        };
        self.cluster.complete(&mut status, raft);
        status
    }

    /// To be called just before the requested user code runs. Until [`Input::Returned`] the state
    /// that the host shows is that of the own node. Callbacks that run before this
    /// (settled performs and notices) see the state of the own node.
    pub fn enter(&mut self) {
        self.running_code = self.calling;
    }

    /// Takes one input at the time `now` and returns what to do.
    pub fn handle(&mut self, now: Time, input: Input<S>) -> Output<S> {
        let mut out = Output::default();
        let present = self.cluster.present();
        if let Input::Returned(returned) = input {
            assert!(std::mem::take(&mut self.calling), "user code was called");
            self.running_code = false;
            self.feed(now, self.own, node::Input::Returned(returned), &mut out);
        } else {
            self.queue.push_back(Work::Input(input));
        }
        loop {
            while !self.calling
                && let Some(work) = self.next_work()
            {
                self.work(now, work, &mut out);
            }
            let nodes = Nodes(&self.nodes, self.waiting());
            if self.calling || !self.cluster.wants_review(now, &nodes) {
                break;
            }
            self.queue.push_back(Work::Cluster(Event::Changed));
        }
        if self.cluster.present() != present {
            out.notices.push(Notice::Status);
        }
        if !self.calling {
            self.finish_closing(now, &mut out);
        }
        out.deadline = self.deadline();
        out
    }

    /// When to call with [`Input::Tick`] at the latest.
    pub fn deadline(&self) -> Option<Time> {
        if self.phase == Phase::Closed || self.cluster.is_loading() {
            return self.close_by;
        }
        let nodes = self.nodes.values().filter_map(|hosted| hosted.node.deadline());
        nodes.chain(self.cluster.deadline()).chain(self.close_by).min()
    }

    /// The frames to send, each to the node with this id, or to everyone. All messages to one node
    /// since the last call share a frame.
    #[must_use]
    pub fn take_frames(&mut self) -> Vec<(Option<String>, Vec<u8>)> {
        self.transport.take_frames()
    }

    fn waiting(&self) -> usize {
        self.own().store().waiting()
    }

    /// The next work that can be done. While storage has not answered yet, most inputs wait.
    fn next_work(&mut self) -> Option<Work<S>> {
        let can_be_done = |work: &Work<S>| match work {
            Work::Input(input) => {
                matches!(input, Input::Restored(_) | Input::Failed(_) | Input::Close)
            }
            _ => true,
        };
        match self.cluster.is_loading() {
            true => self.queue.remove(self.queue.iter().position(can_be_done)?),
            false => self.queue.pop_front(),
        }
    }

    fn work(&mut self, now: Time, work: Work<S>, out: &mut Output<S>) {
        match work {
            Work::Input(input) => self.input(now, input, out),
            Work::Node(node, input) => self.feed(now, node, input, out),
            Work::Cluster(event) => self.cluster(now, event),
            Work::Action(action) => self.act(now, action, out),
            Work::Message(..) if self.phase == Phase::Closed => {}
            // Hosts send to everyone; a message to one node alone is forged.
            Work::Message(header, Message::Elastic(_)) if header.to != 0 => {}
            Work::Message(header, Message::Node(packet)) => {
                let nodes = Nodes(&self.nodes, self.waiting());
                let (route, actions) = self.cluster.route(&header, &packet, &nodes);
                if let Some(route) = route {
                    let input = node::Input::Receive { from: route.from, packet };
                    self.queue.push_front(Work::Node(route.to, input));
                }
                self.do_first(actions.into_iter().map(Work::Action));
            }
            Work::Message(_, message) => self.cluster(now, Event::Message(message)),
        }
    }

    /// Puts work in front of the queue, in this order.
    fn do_first(
        &mut self,
        works: impl IntoIterator<Item = Work<S>, IntoIter: DoubleEndedIterator>,
    ) {
        works.into_iter().rev().for_each(|work| self.queue.push_front(work));
    }

    fn input(&mut self, now: Time, input: Input<S>, out: &mut Output<S>) {
        match input {
            Input::Perform(performs) if self.stopped.is_some() => {
                let refused: Vec<_> = performs.iter().map(|p| self.refused(p.ticket)).collect();
                out.settled.extend(refused);
            }
            Input::Read { ticket } if self.stopped.is_some() => {
                out.settled.push(self.refused(ticket));
            }
            Input::Close => self.close(now, out),
            _ if self.phase == Phase::Closed => {}
            Input::Perform(performs) => {
                self.feed(now, self.own, node::Input::Perform(performs), out);
            }
            Input::Read { ticket } => self.feed(now, self.own, node::Input::Read { ticket }, out),
            Input::Frame(frame) => self.receive(now, &frame, out),
            Input::Tick => {
                let due =
                    |hosted: &HostedNode<S>| hosted.node.deadline().is_some_and(|at| at <= now);
                let due = self.nodes.iter().filter(|(_, hosted)| due(hosted));
                let ticks: Vec<_> = due.map(|(id, _)| Work::Node(*id, node::Input::Tick)).collect();
                self.do_first(ticks);
                self.cluster(now, Event::Tick);
            }
            // A refused node counts on nothing that it writes.
            Input::Persisted { .. } if self.phase == Phase::Refused => {}
            Input::Persisted { generation, node, seq } if generation == self.generation => {
                let node = if node == NOT_STARTED { self.own } else { node };
                let actions = self.cluster.persisted(seq);
                self.queue.push_front(Work::Node(node, node::Input::Persisted(seq)));
                self.do_first(actions.into_iter().map(Work::Action));
            }
            Input::Elastic { generation, input } if generation == self.generation => {
                self.cluster(now, Event::Elastic(input));
            }
            Input::Persisted { .. } | Input::Elastic { .. } => {}
            Input::Start => self.cluster(now, Event::Start),
            Input::Restored(file) => self.cluster(now, Event::Restored(file)),
            Input::Failed(failure) => self.cluster(now, Event::Failed(failure)),
            Input::Visible(visible) => {
                self.cluster(now, Event::Visible(visible));
            }
            Input::Suspend => self.cluster(now, Event::Suspend),
            Input::Destroy => self.cluster(now, Event::Destroy),
            Input::Returned(_) => unreachable!("it never waits"),
        }
    }

    /// How a perform or a read is settled after the host has stopped.
    fn refused(&self, ticket: u64) -> Settled {
        let failure = self.stopped.clone().unwrap_or_else(closed);
        Settled { ticket, outcome: Outcome::Failed(failure) }
    }

    fn receive(&mut self, now: Time, frame: &[u8], out: &mut Output<S>) {
        let opened = self.transport.open(frame, &mut out.notices);
        let Some((header, messages)) = opened else { return };
        match self.cluster.admit(&header) {
            Admission::Taken => {
                let works = messages.into_iter().map(|message| Work::Message(header, message));
                self.do_first(works);
            }
            Admission::Stale => {}
            Admission::Foreign => {
                self.transport.counters.foreign_frames += 1;
                self.cluster(now, Event::Foreign);
            }
        }
    }

    /// Sends an event to the cluster and queues the resulting actions.
    fn cluster(&mut self, now: Time, event: Event) {
        let nodes = Nodes(&self.nodes, self.waiting());
        let actions = self.cluster.handle(now, event, &nodes);
        self.do_first(actions.into_iter().map(Work::Action));
    }

    fn act(&mut self, now: Time, action: Action, out: &mut Output<S>) {
        match action {
            Action::Run { node, epoch, own, members, saved, first_election } => {
                let config = raft::Config { first_election, ..raft::Config::new(node, members) };
                self.run(now, config, (epoch, own), saved, out);
            }
            Action::Stop(node) => self.stop(node, out),
            Action::Change(node, change) => {
                self.feed(now, node, node::Input::Change(change), out);
            }
            Action::Transfer(node, to) => self.feed(now, node, node::Input::Transfer(to), out),
            Action::PeerDown(down) => {
                let nodes: Vec<_> = self.nodes.keys().copied().collect();
                self.do_first(
                    nodes.into_iter().map(|id| Work::Node(id, node::Input::PeerDown(down))),
                );
            }
            Action::Wake(node) => self.feed(now, node, node::Input::Wake, out),
            Action::Send(address, message) => self.transport.send(address, &message),
            Action::Effect(effect) => out.effects.push(effect),
            Action::Ask(effect) => {
                // Answers to what was asked before everything is let go of are not heard any more.
                self.generation += u32::from(matches!(effect, elastic::Effect::UnlockAll));
                out.effects.push(Effect::Elastic { generation: self.generation, effect });
            }
            Action::Report(notice) => out.notices.push(notice),
            Action::ReportOnce(code, message) => {
                self.transport.report_once(code, message, &mut out.notices);
            }
            Action::Refuse(failure) => {
                self.phase = Phase::Refused;
                self.stopped = Some(failure.clone());
                out.notices.push(Notice::Error(failure.clone()));
                self.feed(now, self.own, node::Input::Close(failure), out);
            }
        }
    }

    fn run(
        &mut self,
        now: Time,
        config: raft::Config,
        (epoch, own): (u64, bool),
        saved: Saved,
        out: &mut Output<S>,
    ) {
        let id = config.id;
        self.seed = self.seed.wrapping_add(1);
        let Settings { mut store, durability, .. } = self.settings;
        if !own && !made(Mistake::AdoptedReduces) {
            store.version = CARETAKER; // The own node reduces, and nothing is reduced twice.
        }
        let (initial, seed) = (self.initial.clone(), self.seed);
        let not_started = if own { self.nodes.remove(&NOT_STARTED) } else { None };
        let client = not_started.map(|hosted| hosted.node.detach());
        let node = match client.map(|client| self.enter_incarnation(client, out)) {
            Some(client) => Node::attach(store, initial, durability, seed, client),
            None => Node::new(store, initial, durability, seed),
        };
        let here = |voter: &NodeId| *voter == id || self.nodes.contains_key(voter);
        let majority = saved.members().is_some_and(|members| {
            let voters = members.iter().filter(|(_, member)| member.voter);
            voters.filter(|(voter, _)| here(voter)).count() >= members.quorum()
        });
        let config = raft::Config {
            first_election: config.first_election.or(majority.then_some(FIRST_ELECTION)),
            election_timeout: self.settings.election_timeout,
            heartbeat_interval: self.settings.heartbeat_interval,
            quiesce_interval: self.settings.quiesce_interval,
            ..config
        };
        self.nodes.insert(id, HostedNode { node, epoch });
        if own {
            self.own = id;
            if self.phase == Phase::Forming {
                self.phase = Phase::Member;
            }
            out.notices.push(Notice::Members);
        }
        self.feed(now, id, node::Input::Start { config, saved }, out);
    }

    /// The own node is about to run. If the cluster was founded anew since the last own node, what
    /// the user saw and asked for belongs to a cluster that is over.
    fn enter_incarnation(
        &mut self,
        mut client: DetachedClient,
        out: &mut Output<S>,
    ) -> DetachedClient {
        let incarnation = self.cluster.incarnation();
        let before = std::mem::replace(&mut self.incarnation, incarnation);
        let revived = made(Mistake::ClientRevived) || made(Mistake::SessionWithoutNonce);
        if before != 0 && before != incarnation && !revived {
            self.seen = (0, self.initial.clone());
            out.notices.push(Notice::State);
            client.forget_session();
        }
        client
    }

    /// Stops a node. The pending performs and reads of the own node are kept for the next own node.
    fn stop(&mut self, id: NodeId, out: &mut Output<S>) {
        let Some(HostedNode { node, .. }) = self.nodes.remove(&id) else { return };
        if self.own != id {
            return;
        }
        self.own = NOT_STARTED;
        if node.store().applied() >= self.seen.0 {
            self.seen = (node.store().applied(), node.store().committed().clone());
        }
        let Settings { store, durability, .. } = self.settings;
        let (initial, seed, client) = (self.initial.clone(), self.seed, node.detach());
        let node = Node::attach(store, initial, durability, seed, client);
        self.nodes.insert(NOT_STARTED, HostedNode { node, epoch: 0 });
        if self.phase == Phase::Member {
            self.phase = Phase::Forming;
            out.notices.push(Notice::Members);
        }
    }

    fn close(&mut self, now: Time, out: &mut Output<S>) {
        match self.phase {
            Phase::Closed => return out.notices.push(Notice::Closed),
            Phase::Closing => return,
            Phase::Forming | Phase::Member | Phase::Outdated | Phase::Refused => {}
        }
        self.phase = Phase::Closing;
        self.stopped = Some(closed());
        self.close_by = Some(now + self.settings.election_timeout.0.min(LONGEST_CLOSE));
        let failure = Failure::new(
            "CLOSED",
            "the node was closed before this was settled; it may still take effect",
        );
        self.do_first([
            Work::Node(self.own, node::Input::Close(failure)),
            Work::Cluster(Event::Close),
        ]);
    }

    /// Closes the host when leadership is handed over, or when that has taken too long.
    fn finish_closing(&mut self, now: Time, out: &mut Output<S>) {
        let Some(close_by) = self.close_by else { return };
        let raft = self.own().raft();
        let handing_over = raft.is_some_and(|raft| raft.is_leader() && !raft.takes_proposals());
        if now >= close_by || !handing_over || self.cluster.is_last() {
            self.refuse_waiting(out);
            self.phase = Phase::Closed;
            self.close_by = None;
            out.notices.push(Notice::Closed);
        }
    }

    /// Ends what waits in the queue because storage has not said yet what it has.
    fn refuse_waiting(&mut self, out: &mut Output<S>) {
        for work in std::mem::take(&mut self.queue) {
            match work {
                Work::Input(Input::Perform(performs)) => {
                    out.settled.extend(performs.iter().map(|perform| self.refused(perform.ticket)));
                }
                Work::Input(Input::Read { ticket }) => out.settled.push(self.refused(ticket)),
                _ => {}
            }
        }
    }

    /// Gives a node one input and does what the node asks for. Inputs for a node that is not here
    /// any more are dropped.
    fn feed(&mut self, now: Time, id: NodeId, input: node::Input<S>, out: &mut Output<S>) {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let Some(hosted) = self.nodes.get_mut(&id) else { return };
            let output = hosted.node.handle(now, input);
            // A refused node neither writes nor sends. No other node relies on it.
            if self.phase != Phase::Refused {
                let (epoch, generation) = (hosted.epoch, self.generation);
                let hard = hosted.node.raft().map(Raft::hard_state).unwrap_or_default();
                for persist in output.persist {
                    out.effects.push(self.cluster.write(id, epoch, generation, persist, hard));
                }
                self.send(id, output.send);
            }
            out.settled.extend(output.settled);
            self.report(id, output.events, out);
            let Some(call) = output.call else { continue };
            match call {
                // Subscribers are never called twice for an entry.
                Call::Committed(new) if new.at.index <= self.seen.0 => {
                    next = Some(node::Input::Returned(Return::Done));
                }
                call => {
                    debug_assert_eq!(id, self.own, "user code runs for the own node only");
                    self.calling = true;
                    out.call = Some(call);
                }
            }
        }
    }

    fn send(&mut self, from: NodeId, packets: Vec<(NodeId, Packet)>) {
        for (to, packet) in packets {
            if self.nodes.contains_key(&to) {
                self.queue.push_back(Work::Node(to, node::Input::Receive { from, packet }));
            } else {
                let address = self.cluster.address(from, to, self.own().raft());
                self.transport.send(address, &Message::Node(packet));
            }
        }
    }

    fn report(&mut self, id: NodeId, events: Vec<node::Event>, out: &mut Output<S>) {
        for event in events {
            match event {
                node::Event::Leader { .. } | node::Event::Members => {
                    self.queue.push_back(Work::Cluster(Event::Changed));
                    if id == self.own {
                        let is_leader = matches!(event, node::Event::Leader { .. });
                        out.notices.push(if is_leader { Notice::Leader } else { Notice::Members });
                    }
                }
                node::Event::Invalid { from, error } => {
                    let who = self.cluster.label(from);
                    self.transport.invalid(&who, &error.to_string(), &mut out.notices);
                }
                node::Event::Fault(fault) => self.report_fault(id, fault, out),
            }
        }
    }
}

impl<S: Clone> Host<S> {
    fn report_fault(&self, id: NodeId, fault: Fault, out: &mut Output<S>) {
        match &fault {
            // A release concerns the host, and so does the state that the user sees.
            Fault::Outdated { .. } if id != self.own => return,
            Fault::Outdated { release } => return out.notices.push(Notice::Outdated(*release)),
            Fault::Diverged { index, action, failure } if id == self.own => {
                let (index, action, failure) = (*index, action.clone(), failure.clone());
                out.notices.push(Notice::Diverged { index, action, failure });
            }
            _ => {}
        }
        out.notices.push(Notice::Error(describe(fault)));
    }
}

fn closed() -> Failure {
    Failure::new("CLOSED", "the node is closed")
}
