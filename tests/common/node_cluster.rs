//! A few nodes with their stores, with a network and disks, but without hosts and frames: a test
//! sees each message of a store, and can lose, forge and repeat it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use conflux::node::{Durability, Event, Input, Node, Packet};
use conflux::raft::{Config, Index, Members, NodeId, Payload, Time};
use conflux::store::{self, Body, Command, Fault, Message, Outcome, Perform};

use super::host_cluster::{List, ListMachine};
use super::raft_cluster::Disk;

/// One node with its user code, its disk and what it has reported.
pub struct Member {
    pub node: Node<List>,
    pub machine: ListMachine,
    pub disk: Disk,
    pub settled: Vec<(u64, Outcome)>,
    pub faults: Vec<Fault>,
    /// The ends of the snapshots that the node has made or received, in order.
    pub snapshots: Vec<Index>,
}

impl Member {
    pub fn state(&self) -> Vec<String> {
        self.node.store().committed().as_ref().clone()
    }

    pub fn outcome(&self, ticket: u64) -> Option<&Outcome> {
        let mut found = self.settled.iter().filter(|(settled, _)| *settled == ticket);
        let outcome = found.next().map(|(_, outcome)| outcome);
        assert!(found.next().is_none(), "ticket {ticket} was settled twice");
        outcome
    }

    /// The code of the failure with which a ticket was settled.
    pub fn code(&self, ticket: u64) -> Option<&str> {
        match self.outcome(ticket)? {
            Outcome::Failed(failure) => Some(&failure.code),
            _ => None,
        }
    }

    /// Where the faults of which the node has reported that its state differs are: the index, and
    /// the action at fault.
    pub fn diverged(&self) -> Vec<(Index, Option<&str>)> {
        let at = |fault| match fault {
            &Fault::Diverged { index, ref action, .. } => {
                let text = |action| std::str::from_utf8(action).expect("text");
                Some((index, action.as_ref().map(|action| text(action.as_slice()))))
            }
            _ => None,
        };
        self.faults.iter().filter_map(at).collect()
    }
}

/// Whether a message from one node to another gets lost.
type Loses = Box<dyn FnMut(NodeId, NodeId, &Packet) -> bool>;

/// The nodes of a cluster. Node 1 is the first to lead.
pub struct Cluster {
    pub now: Time,
    pub nodes: BTreeMap<NodeId, Member>,
    pub network: VecDeque<(NodeId, NodeId, Packet)>,
    /// Pairs of nodes (sender and receiver) between which messages are lost.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    /// Nodes that do nothing. What is sent to them is lost.
    pub frozen: BTreeSet<NodeId>,
    pub loses: Loses,
    pub members: Members,
    pub config: store::Config,
    /// Election timeouts that are not the default.
    pub timeouts: BTreeMap<NodeId, (Time, Time)>,
    pub initial: BTreeMap<NodeId, Vec<String>>,
    /// The messages that stores have sent to other nodes: sender, receiver and content.
    pub sent: Vec<(NodeId, NodeId, Body)>,
    /// The commands that any node has written, by their index. Of several at an index, the last.
    pub commands: BTreeMap<Index, Command>,
    next_ticket: u64,
    starts: u64,
}

impl Cluster {
    /// So many voters that have not started.
    pub fn new(size: u64) -> Self {
        Self {
            now: 1000,
            nodes: BTreeMap::new(),
            network: VecDeque::new(),
            cut: BTreeSet::new(),
            frozen: BTreeSet::new(),
            loses: Box::new(|_, _, _| false),
            members: Members::voters(1..=size),
            config: store::Config { compact_bytes: 1 << 20, ..store::Config::default() },
            timeouts: BTreeMap::new(),
            initial: BTreeMap::new(),
            sent: Vec::new(),
            commands: BTreeMap::new(),
            next_ticket: 1,
            starts: 0,
        }
    }

    /// Starts every node and waits until node 1 leads and the first state is there.
    pub fn start_all(&mut self) {
        let ids: Vec<_> = self.members.iter().map(|(id, _)| id).collect();
        ids.into_iter().for_each(|id| self.start(id, Disk::default()));
        self.run(1000);
        assert_eq!(self.leader(), Some(1));
    }

    /// A started cluster of so many voters.
    pub fn of(size: u64) -> Self {
        Self::with(size, |_| ())
    }

    /// The same, with settings of the test.
    pub fn with(size: u64, set: impl FnOnce(&mut Self)) -> Self {
        let mut cluster = Self::new(size);
        set(&mut cluster);
        cluster.start_all();
        cluster
    }

    /// Starts a node with what its disk has.
    pub fn start(&mut self, id: NodeId, disk: Disk) {
        let machine = ListMachine::default();
        self.start_with(id, disk, machine);
    }

    pub fn start_with(&mut self, id: NodeId, disk: Disk, machine: ListMachine) {
        self.starts += 1;
        let initial = Rc::new(self.initial.get(&id).cloned().unwrap_or_default());
        let node = Node::new(self.config, initial, Durability::Durable, 100 * self.starts + id);
        let mut config = Config::new(id, self.members.clone());
        config.election_timeout = self.timeouts.get(&id).copied().unwrap_or((300, 500));
        config.first_election = (id == 1 && disk.entries.is_empty()).then_some(5);
        let saved = disk.saved();
        let (settled, faults, snapshots) = (Vec::new(), Vec::new(), Vec::new());
        let member = Member { node, machine, disk, settled, faults, snapshots };
        self.nodes.insert(id, member);
        self.handle(id, Input::Start { config, saved });
    }

    /// A node crashes. Returns its disk.
    pub fn kill(&mut self, id: NodeId) -> Disk {
        self.network.retain(|(_, to, _)| *to != id);
        self.nodes.remove(&id).expect("a node").disk
    }

    /// A node crashes and is started again with what its disk has.
    pub fn restart(&mut self, id: NodeId) {
        let disk = self.kill(id);
        self.start(id, disk);
    }

    pub fn node(&self, id: NodeId) -> &Member {
        &self.nodes[&id]
    }

    pub fn machine(&mut self, id: NodeId) -> &mut ListMachine {
        &mut self.nodes.get_mut(&id).expect("a node").machine
    }

    pub fn leader(&self) -> Option<NodeId> {
        let rafts = self.nodes.values().filter_map(|member| member.node.raft());
        let leaders = rafts.filter(|raft| raft.is_leader() && !self.frozen.contains(&raft.id()));
        leaders.max_by_key(|raft| raft.term()).map(|raft| raft.id())
    }

    /// The states of all nodes, which are equal.
    pub fn state(&self) -> Vec<String> {
        let states: BTreeSet<_> = self.nodes.values().map(Member::state).collect();
        assert_eq!(states.len(), 1, "{states:?}");
        states.into_iter().next().expect("one")
    }

    pub fn term(&self, id: NodeId) -> u64 {
        self.node(id).node.raft().expect("started").term()
    }

    /// The indices of the checks in the log.
    pub fn checks(&self) -> Vec<Index> {
        let is_check = |(_, command): &(&Index, &Command)| matches!(command, Command::Check { .. });
        self.commands.iter().filter(is_check).map(|(index, _)| *index).collect()
    }

    /// The checks whose right hash is in the log.
    pub fn checked(&self) -> Vec<Index> {
        let checked = |command: &Command| match command {
            Command::Checked { check, .. } => Some(*check),
            _ => None,
        };
        self.commands.values().filter_map(checked).collect()
    }

    /// The index of the entry with this action.
    pub fn index_of(&self, action: &str) -> Index {
        let has = |command: &Command| matches!(command, Command::Action { action: a, .. } if a.as_slice() == action.as_bytes());
        let mut found = self.commands.iter().filter(|(_, command)| has(command));
        *found.next().expect("the action is in the log").0
    }

    pub fn perform(&mut self, id: NodeId, method: &str, args: &str) -> u64 {
        self.perform_within(id, method, args, None)
    }

    pub fn perform_within(
        &mut self,
        id: NodeId,
        method: &str,
        args: &str,
        timeout: Option<Time>,
    ) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let perform = Perform { ticket, method: method.into(), args: args.into(), timeout };
        self.handle(id, Input::Perform(vec![perform]));
        ticket
    }

    /// Performs `append` on a node, runs for a while, and expects the action as the outcome.
    pub fn append(&mut self, id: NodeId, args: &str) {
        let ticket = self.perform(id, "append", args);
        self.run(20);
        let outcome = self.node(id).outcome(ticket);
        assert_eq!(outcome, Some(&Outcome::Action(args.into())), "{args}");
    }

    pub fn read(&mut self, id: NodeId) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.handle(id, Input::Read { ticket });
        ticket
    }

    /// Delivers a message to a node's store as if another node had sent it in the receiver's term.
    pub fn forge(&mut self, from: NodeId, to: NodeId, body: Body) {
        let message = Message { term: self.term(to), body };
        self.handle(to, Input::Receive { from, packet: Packet::Store(message) });
    }

    /// A member asks the leader for a check, and it comes.
    pub fn check(&mut self) {
        let checks = self.checks().len();
        let leader = self.leader().expect("a leader");
        let other = self.nodes.keys().copied().find(|id| *id != leader).unwrap_or(leader);
        self.forge(other, leader, Body::Check);
        self.run(20);
        assert!(self.checks().len() > checks, "a check");
    }

    /// Gives a node an input, and does what it asks for.
    pub fn handle(&mut self, id: NodeId, input: Input<List>) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let Some(member) = self.nodes.get_mut(&id) else { return };
            let output = member.node.handle(self.now, input);
            member.settled.extend(output.settled.into_iter().map(|s| (s.ticket, s.outcome)));
            let fault = |event| match event {
                Event::Fault(fault) => Some(fault),
                _ => None,
            };
            member.faults.extend(output.events.into_iter().filter_map(fault));
            if let Some(call) = output.call {
                member.machine.provisional = member.node.store().provisional().clone();
                inputs.push_front(Input::Returned(call.run(&mut member.machine)));
            }
            for persist in output.persist {
                member.snapshots.extend(persist.snapshot.as_ref().map(|snap| snap.last.index));
                for entry in &persist.entries {
                    let Payload::Command(data) = &entry.payload else { continue };
                    if let Ok(command) = postcard::from_bytes(data.as_slice()) {
                        self.commands.insert(entry.at.index, command);
                    }
                }
                inputs.push_back(Input::Persisted(persist.seq));
                member.disk.write(persist);
            }
            for (to, packet) in output.send {
                if let Packet::Store(message) = &packet {
                    self.sent.push((id, to, message.body.clone()));
                }
                let is_lost = self.cut.contains(&(id, to)) || (self.loses)(id, to, &packet);
                if !is_lost {
                    self.network.push_back((id, to, packet));
                }
            }
        }
    }

    /// Delivers all messages, and what follows from them, until there are none.
    pub fn deliver_all(&mut self) {
        let mut steps = 0;
        while let Some((from, to, packet)) = self.network.pop_front() {
            if !self.frozen.contains(&to) {
                self.handle(to, Input::Receive { from, packet });
            }
            steps += 1;
            assert!(steps < 100_000, "the nodes never get quiet");
        }
    }

    /// Runs for so many ms with a network that delivers everything at once.
    pub fn run(&mut self, ms: Time) {
        let end = self.now + ms;
        let mut at_once = 0;
        self.deliver_all();
        while self.now < end {
            let awake = |(id, _): &(&NodeId, &Member)| !self.frozen.contains(id);
            let awake: Vec<_> = self.nodes.iter().filter(awake).map(|(id, _)| *id).collect();
            let due = |id: &NodeId| self.nodes[id].node.deadline().unwrap_or(Time::MAX);
            let next = awake.iter().map(due).min().unwrap_or(Time::MAX);
            at_once = if next <= self.now { at_once + 1 } else { 0 };
            assert!(at_once < 100, "a node wants to be called again at once, again and again");
            self.now = next.clamp(self.now, end);
            let due: Vec<_> = awake.iter().copied().filter(|id| due(id) <= self.now).collect();
            for id in due {
                self.handle(id, Input::Tick);
                self.deliver_all();
            }
        }
    }
}
