//! A few Raft nodes with a network and disks. Messages wait in the network until the test delivers
//! them, disks can be slow, and every node has a clock of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use conflux::raft::{
    Committed, Config, Entry, Event, HardState, Index, Input, Members, Message, NodeId, Outgoing,
    Output, Persist, Position, Raft, Saved, Snapshot, Time,
};

/// The contents of a node's disk, which survive a crash.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub hard: HardState,
    pub snapshot: Option<Snapshot>,
    pub entries: Vec<Entry>,
}

impl Disk {
    pub fn write(&mut self, persist: Persist) {
        if let Some(hard) = persist.hard {
            self.hard = hard;
        }
        if let Some(snapshot) = persist.snapshot {
            self.entries.retain(|e| !persist.reset && e.at.index > snapshot.last.index);
            self.snapshot = Some(snapshot);
        }
        if let Some(first) = persist.entries.first() {
            self.entries.retain(|e| e.at.index < first.at.index);
            self.entries.extend(persist.entries);
        }
    }

    pub fn saved(&self) -> Saved {
        let Self { hard, snapshot, entries } = self.clone();
        Saved { hard, snapshot, entries }
    }
}

pub struct Node {
    pub raft: Raft,
    pub now: Time,
    pub disk: Disk,
    /// Writes that a slow disk has not done yet.
    pub writes: VecDeque<Persist>,
    /// Whether writes wait for [`Cluster::flush_one`].
    pub slow: bool,
    /// Messages that wait for a write.
    pub held: Vec<Outgoing>,
    /// The commands that the state machine has applied, also by way of a snapshot.
    pub applied: Vec<String>,
    /// The index of the last entry that the state machine has applied.
    pub applied_to: Index,
    /// How often the node was restarted.
    pub starts: u64,
}

pub struct Cluster {
    pub config: Config,
    pub nodes: BTreeMap<NodeId, Node>,
    pub down: BTreeSet<NodeId>,
    /// Nodes that were started without members.
    pub joined: BTreeSet<NodeId>,
    pub network: VecDeque<(NodeId, NodeId, Message)>,
    /// Pairs of nodes (sender and receiver) between which messages are lost.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    /// A log of what has happened, for golden scripts.
    pub output: String,
    pub seed: u64,
}

impl Cluster {
    pub fn new(size: u64, seed: u64) -> Self {
        let config = Config::new(1, Members::voters(1..=size));
        Self {
            config,
            nodes: BTreeMap::new(),
            down: BTreeSet::new(),
            joined: BTreeSet::new(),
            network: VecDeque::new(),
            cut: BTreeSet::new(),
            output: String::new(),
            seed,
        }
    }

    pub fn start_all(&mut self) {
        for id in self.config.members.clone().iter().map(|(id, _)| id) {
            self.start(id, Disk::default(), 0, 0);
        }
    }

    /// Starts a node that does not know any members yet.
    pub fn join(&mut self, id: NodeId) {
        let members = std::mem::take(&mut self.config.members);
        self.start(id, Disk::default(), 0, 0);
        self.config.members = members;
        self.joined.insert(id);
    }

    fn start(&mut self, id: NodeId, disk: Disk, now: Time, starts: u64) {
        let mut config = Config { id, ..self.config.clone() };
        if self.joined.contains(&id) {
            config.members = Members::default();
        }
        let seed = self.seed * 1000 + id * 10 + starts;
        let raft = Raft::new(config, disk.saved(), now, seed);
        let mut applied = Vec::new();
        let mut applied_to = 0;
        if let Some(snapshot) = raft.log().snapshot() {
            applied = parse_snapshot(snapshot);
            applied_to = snapshot.last.index;
        }
        let writes = VecDeque::new();
        let node = Node {
            raft,
            now,
            disk,
            writes,
            slow: false,
            held: vec![],
            applied,
            applied_to,
            starts,
        };
        self.nodes.insert(id, node);
        self.down.remove(&id);
    }

    /// Crashes a node and starts it again with the contents of its disk.
    pub fn restart(&mut self, id: NodeId) {
        let node = self.nodes.remove(&id).expect("a node");
        self.start(id, node.disk, node.now, node.starts + 1);
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[&id]
    }

    pub fn leader(&self) -> Option<NodeId> {
        let leads = |n: &&Node| n.raft.is_leader();
        self.nodes.values().filter(leads).max_by_key(|n| n.raft.term()).map(|n| n.raft.id())
    }

    pub fn handle(&mut self, id: NodeId, input: Input) {
        let node = self.nodes.get_mut(&id).expect("a node");
        let output = node.raft.handle(node.now, input);
        self.execute(id, output);
    }

    pub fn advance(&mut self, id: NodeId, ms: Time) {
        self.nodes.get_mut(&id).expect("a node").now += ms;
        self.handle(id, Input::Tick);
    }

    fn execute(&mut self, id: NodeId, output: Output) {
        let node = self.nodes.get_mut(&id).expect("a node");
        for event in output.events {
            match event {
                Event::Leader { term, leader } => {
                    let leader = leader.map_or("nobody".into(), |l| format!("n{l}"));
                    let role = node.raft.role();
                    let _ =
                        writeln!(self.output, "n{id} is {role} in term {term}, led by {leader}");
                }
                Event::Appended { .. } => {}
                Event::Members => {
                    let (members, committed) = (node.raft.members(), node.raft.committed_members());
                    let sure = if committed.1 == members { "" } else { ", not committed" };
                    let _ = writeln!(self.output, "n{id} counts {members}{sure}");
                }
                Event::Invalid { from, error } => {
                    let _ = writeln!(self.output, "n{id} ignores n{from}: {error}");
                }
            }
        }
        if let Some(result) = output.proposed {
            let _ = match result {
                Ok(index) => writeln!(self.output, "n{id} appends from {index}"),
                Err(error) => writeln!(self.output, "n{id} refuses: {error}"),
            };
        }
        for committed in output.committed {
            match committed {
                Committed::Snapshot(snapshot) => {
                    node.applied = parse_snapshot(&snapshot);
                    node.applied_to = snapshot.last.index;
                    let at = snapshot.last;
                    let _ = writeln!(self.output, "n{id} loads the snapshot at {at}");
                }
                Committed::UpTo(index) => {
                    let mut fresh = Vec::new();
                    for i in node.applied_to + 1..=index {
                        fresh.push(
                            node.raft.entry(i).expect("what is committed is there").to_string(),
                        );
                        if let Some(command) = node.raft.log().command(i) {
                            let text = String::from_utf8_lossy(command.as_slice()).into_owned();
                            node.applied.push(text);
                        }
                    }
                    node.applied_to = index;
                    let _ = writeln!(self.output, "n{id} commits {}", fresh.join(" "));
                }
            }
        }
        for read in output.reads {
            let _ = match read.index {
                Some(index) => writeln!(self.output, "n{id} confirms read {} at {index}", read.id),
                None => writeln!(self.output, "n{id} cannot confirm read {}", read.id),
            };
        }
        node.held.extend(output.messages);
        let mut done = None;
        if let Some(persist) = output.persist {
            if node.slow || !node.writes.is_empty() {
                node.writes.push_back(persist);
            } else {
                done = Some(persist.seq);
                node.disk.write(persist);
            }
        }
        self.release(id);
        if let Some(seq) = done {
            self.handle(id, Input::Persisted(seq));
        }
    }

    /// Sends the messages whose write is done.
    fn release(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a node");
        let blocked = node.writes.front().map_or(u64::MAX, |w| w.seq);
        for message in std::mem::take(&mut node.held) {
            if message.after >= blocked {
                node.held.push(message);
            } else if !self.cut.contains(&(id, message.to)) {
                self.network.push_back((id, message.to, message.message));
            }
        }
    }

    /// Does the first write that a slow disk has not done. Returns `false` when there is none.
    pub fn flush_one(&mut self, id: NodeId) -> bool {
        let node = self.nodes.get_mut(&id).expect("a node");
        let Some(persist) = node.writes.pop_front() else { return false };
        let seq = persist.seq;
        node.disk.write(persist);
        self.release(id);
        self.handle(id, Input::Persisted(seq));
        true
    }

    /// Delivers the message at `position` in the network. If `keep`, it stays there and may arrive
    /// again.
    pub fn deliver(&mut self, position: usize, keep: bool) {
        let (from, to, message) = match keep {
            true => self.network[position].clone(),
            false => self.network.remove(position).expect("a message"),
        };
        if self.cut.contains(&(from, to)) || self.down.contains(&to) {
            return;
        }
        let _ = writeln!(self.output, "n{from} → n{to} {}", message);
        self.handle(to, Input::Receive { from, message });
    }

    /// Delivers all messages, and those that follow from them, until the network is empty.
    pub fn stabilize(&mut self) {
        let mut steps = 0;
        while !self.network.is_empty() {
            self.deliver(0, false);
            steps += 1;
            assert!(steps < 10_000, "the cluster never gets quiet");
        }
    }

    /// The position of the nth message (from 0) between two nodes.
    pub fn find(&self, from: NodeId, to: NodeId, nth: usize) -> Option<usize> {
        let between = |m: &(NodeId, NodeId, Message)| m.0 == from && m.1 == to;
        let mut found = self.network.iter().enumerate().filter(|(_, m)| between(m));
        found.nth(nth).map(|(position, _)| position)
    }

    /// Saves a node's state as a snapshot and compacts its log.
    pub fn compact(&mut self, id: NodeId) {
        let node = self.node(id);
        let index = node.raft.commit_index();
        let term = node.raft.log().term(index).expect("committed");
        let text = format!("{index}|{}", node.applied.join(","));
        let last = Position::new(index, term);
        self.handle(id, Input::Compact { last, data: text.as_str().into() });
    }
}

fn parse_snapshot(snapshot: &Snapshot) -> Vec<String> {
    let text = String::from_utf8(snapshot.data.as_slice().to_vec()).expect("text");
    let (_, commands) = text.split_once('|').expect("index|commands");
    commands.split(',').filter(|c| !c.is_empty()).map(String::from).collect()
}
