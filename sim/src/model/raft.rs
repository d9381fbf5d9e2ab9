//! Raft in a cluster of two or three: elections, replication, crashes.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::hash::{Hash, Hasher};

use conflux::raft::{
    Change, Config, HardState, Index, Input, Members, Message, NodeId, Outgoing, Persist, Position,
    Raft, Saved, Term, Time,
};
use stateright::{Model, Property};

/// The election timeout, and the heartbeat: no matter what, as long as one is smaller.
const ELECTION: Time = 100;
const HEARTBEAT: Time = 60;

/// A cluster, and how far its states are followed.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How many nodes begin as voters.
    pub nodes: u64,
    /// How many more there are, which may join.
    pub joiners: u64,
    /// How many changes of the members are asked for.
    pub changes: u8,
    /// The newest term.
    pub terms: Term,
    /// The longest log.
    pub log: Index,
    /// How many commands are proposed.
    pub proposals: u8,
    /// How many timers go off.
    pub ticks: u8,
    /// How many crashes there are.
    pub crashes: u8,
    /// How many messages arrive twice.
    pub duplicates: u8,
    /// How many messages are under way at once; beyond it, the oldest states are not followed.
    pub network: usize,
    /// Writes take time, and may be lost in a crash. Otherwise they are done at once.
    pub slow_disks: bool,
}

/// Two nodes whose writes take time and may be lost in a crash.
pub const SMALL: Bounds = Bounds {
    nodes: 2,
    joiners: 0,
    changes: 0,
    terms: 2,
    log: 2,
    proposals: 0,
    ticks: 3,
    crashes: 1,
    duplicates: 0,
    network: 2,
    slow_disks: true,
};

/// Two nodes that are given a command, with a crash.
pub const COMMANDS: Bounds =
    Bounds { log: 3, proposals: 1, network: 3, slow_disks: false, ..SMALL };

/// Three nodes, with a crash.
pub const THREE: Bounds = Bounds { nodes: 3, ticks: 2, slow_disks: false, ..SMALL };

/// Three nodes and more messages at once.
pub const THREE_BUSY: Bounds = Bounds { crashes: 0, network: 3, ..THREE };

/// One voter and a node that joins, with two changes of the members, and a crash.
pub const JOINING: Bounds = Bounds {
    nodes: 1,
    joiners: 1,
    changes: 2,
    terms: 3,
    log: 4,
    ticks: 3,
    network: 2,
    slow_disks: false,
    ..SMALL
};

/// Two voters, of which one loses its vote, or goes.
pub const LEAVING: Bounds = Bounds { changes: 1, terms: 3, log: 4, slow_disks: false, ..SMALL };

/// Three voters, and a change of the members.
pub const CHANGING: Bounds = Bounds { changes: 1, log: 3, crashes: 0, ..THREE };

/// One node with its disk.
#[derive(Clone)]
struct Node {
    raft: Raft,
    now: Time,
    disk: Saved,
    writes: VecDeque<Persist>,
    held: Vec<Outgoing>,
}

/// A state of the whole cluster.
#[derive(Clone)]
pub struct State {
    nodes: BTreeMap<NodeId, Node>,
    network: Vec<(NodeId, NodeId, Message)>,
    /// What was ever committed, and in which term that was.
    committed: Vec<(Position, Term)>,
    proposed: u8,
    changed: u8,
    ticks: u8,
    crashes: u8,
    duplicates: u8,
    broken: Option<String>,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        for node in self.nodes.values() {
            node.raft.fingerprint(hasher);
            (node.disk.hard, &node.disk.entries).hash(hasher);
            let newest = node.writes.back().map_or(0, |write| write.seq);
            for write in &node.writes {
                (newest - write.seq, write.hard, &write.entries).hash(hasher);
            }
            for held in &node.held {
                (held.to, &held.message, newest.saturating_sub(held.after)).hash(hasher);
            }
        }
        (&self.network, &self.committed).hash(hasher);
        (self.proposed, self.changed, self.ticks, self.crashes, self.duplicates, &self.broken)
            .hash(hasher);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        super::key(self) == super::key(other)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, node) in &self.nodes {
            let (raft, last) = (&node.raft, node.raft.log().last());
            let (role, term, commit) = (raft.role(), raft.term(), raft.commit_index());
            write!(f, "n{id}: {role} in term {term}, log to {last}, commit {commit}; ")?;
        }
        for (from, to, message) in &self.network {
            write!(f, "[n{from}→n{to} {message}] ")?;
        }
        write!(f, "{:?}", self.broken)
    }
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A message arrives, and perhaps will again.
    Deliver(usize, bool),
    /// A message is lost.
    Lose(usize),
    /// A node's timer goes off.
    Tick(NodeId),
    /// The first of a node's writes is durable.
    Written(NodeId),
    /// A leader is given a command.
    Propose(NodeId),
    /// A leader is asked for a change of the members.
    Change(NodeId, Change),
    /// A node dies with so many of its writes done, and starts again.
    Crash(NodeId, usize),
}

impl Bounds {
    fn start(&self, id: NodeId, saved: Saved) -> Raft {
        let config = Config {
            election_timeout: (ELECTION, ELECTION),
            heartbeat_interval: HEARTBEAT,
            max_inflight: 2,
            ..Config::new(id, Members::voters((1..=self.nodes).filter(|_| id <= self.nodes)))
        };
        Raft::new(config, saved, 0, id)
    }

    fn handle(&self, state: &mut State, id: NodeId, input: Input) {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let node = state.nodes.get_mut(&id).expect("a node");
            let output = node.raft.handle(node.now, input);
            node.held.extend(output.messages);
            if let Some(persist) = output.persist {
                let seq = persist.seq;
                node.writes.push_back(persist);
                if !self.slow_disks {
                    write(node);
                    next = Some(Input::Persisted(seq));
                }
            }
            release(state, id);
            check_committed(state, id);
        }
    }
}

/// Does the first write.
fn write(node: &mut Node) {
    let Some(persist) = node.writes.pop_front() else { return };
    node.disk.hard = persist.hard.unwrap_or(node.disk.hard);
    if let Some(first) = persist.entries.first() {
        node.disk.entries.retain(|entry| entry.at.index < first.at.index);
    }
    node.disk.entries.extend(persist.entries);
}

/// Lets messages go whose write is done. The network is a sorted set: what is under way twice is under
/// way once, and order means nothing.
fn release(state: &mut State, id: NodeId) {
    let node = state.nodes.get_mut(&id).expect("a node");
    let first = node.writes.front().map_or(u64::MAX, |write| write.seq);
    let (wait, go) = std::mem::take(&mut node.held).into_iter().partition(|m| m.after >= first);
    node.held = wait;
    for Outgoing { to, message, .. } in go {
        let parcel = (id, to, message);
        if !state.network.contains(&parcel) {
            let key = |p: &(NodeId, NodeId, Message)| super::key(p);
            let at = state.network.partition_point(|p| key(p) < key(&parcel));
            state.network.insert(at, parcel);
        }
    }
}

/// What is committed stays so, for everyone (paper §5.4.3).
fn check_committed(state: &mut State, id: NodeId) {
    let raft = &state.nodes[&id].raft;
    for index in 1..=raft.commit_index() {
        let at = Position::new(index, raft.log().term(index).unwrap_or_default());
        match state.committed.get(index as usize - 1) {
            None => state.committed.push((at, raft.term())),
            Some((known, _)) if *known == at => {}
            Some((known, _)) => state.broken = Some(format!("n{id} commits {at}, not {known}")),
        }
    }
}

impl Model for Bounds {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let node = |id| Node {
            raft: self.start(id, Saved::default()),
            now: 0,
            disk: Saved::default(),
            writes: VecDeque::new(),
            held: Vec::new(),
        };
        vec![State {
            nodes: (1..=self.nodes + self.joiners).map(|id| (id, node(id))).collect(),
            network: Vec::new(),
            committed: Vec::new(),
            proposed: 0,
            changed: 0,
            ticks: 0,
            crashes: 0,
            duplicates: 0,
            broken: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for at in 0..state.network.len() {
            actions.push(Action::Deliver(at, false));
            actions.push(Action::Lose(at));
            if state.duplicates < self.duplicates {
                actions.push(Action::Deliver(at, true));
            }
        }
        for (id, node) in &state.nodes {
            if state.ticks < self.ticks && node.raft.deadline() < Time::MAX {
                actions.push(Action::Tick(*id));
            }
            if !node.writes.is_empty() {
                actions.push(Action::Written(*id));
            }
            if node.raft.is_leader() && state.proposed < self.proposals {
                actions.push(Action::Propose(*id));
            }
            if node.raft.is_leader() && state.changed < self.changes {
                for id in 1..=self.nodes + self.joiners {
                    let change = match node.raft.members().get(id) {
                        None => vec![Change::Add { id, name: String::new() }],
                        Some(member) if member.voter => {
                            vec![Change::Demote(id), Change::Remove(id)]
                        }
                        Some(_) => vec![Change::Promote(id), Change::Remove(id)],
                    };
                    let leader = node.raft.id();
                    actions.extend(change.into_iter().map(|change| Action::Change(leader, change)));
                }
            }
            if state.crashes < self.crashes {
                actions.extend((0..=node.writes.len()).map(|done| Action::Crash(*id, done)));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Deliver(at, again) => {
                state.duplicates += u8::from(again);
                let (from, to, message) = match again {
                    true => state.network[at].clone(),
                    false => state.network.remove(at),
                };
                self.handle(&mut state, to, Input::Receive { from, message });
            }
            Action::Lose(at) => drop(state.network.remove(at)),
            Action::Tick(id) => {
                state.ticks += 1;
                let node = state.nodes.get_mut(&id)?;
                node.now = node.raft.deadline().max(node.now);
                self.handle(&mut state, id, Input::Tick);
            }
            Action::Written(id) => {
                let node = state.nodes.get_mut(&id)?;
                let seq = node.writes.front()?.seq;
                write(node);
                release(&mut state, id);
                self.handle(&mut state, id, Input::Persisted(seq));
            }
            Action::Propose(id) => {
                state.proposed += 1;
                let command = [state.proposed].as_slice().into();
                self.handle(&mut state, id, Input::Propose(vec![command]));
            }
            Action::Change(id, change) => {
                state.changed += 1;
                self.handle(&mut state, id, Input::Change(change));
            }
            Action::Crash(id, done) => {
                state.crashes += 1;
                let node = state.nodes.get_mut(&id)?;
                (0..done).for_each(|_| write(node));
                node.writes.clear();
                node.held.clear();
                node.now = 0;
                node.raft = self.start(id, node.disk.clone());
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always("what is committed stays", |_, state| state.broken.is_none()),
            Property::<Self>::always("election safety", |_, state| {
                let mut leaders: Vec<_> = leaders(state).map(Raft::term).collect();
                leaders.sort_unstable();
                leaders.windows(2).all(|two| two[0] != two[1])
            }),
            Property::<Self>::always("log matching", |_, state| {
                let logs: Vec<_> = state.nodes.values().map(|node| node.raft.log()).collect();
                logs.iter().enumerate().all(|(nth, one)| {
                    logs[..nth].iter().all(|other| {
                        let both = one.last().index.min(other.last().index);
                        let agree = (1..=both).rev().find(|i| one.term(*i) == other.term(*i));
                        (1..=agree.unwrap_or(0)).all(|i| one.get(i) == other.get(i))
                    })
                })
            }),
            Property::<Self>::always("leader completeness", |_, state| {
                leaders(state).all(|leader| {
                    let earlier = state.committed.iter().filter(|(_, by)| *by < leader.term());
                    earlier.into_iter().all(|(at, _)| leader.log().contains(*at))
                })
            }),
            Property::<Self>::always(
                "votes and terms are durable before they count",
                |_, state| {
                    state.nodes.values().all(|node| {
                        let HardState { term, vote } = node.disk.hard;
                        let leads = node.raft.is_leader();
                        !leads || term == node.raft.term() && vote == Some(node.raft.id())
                    })
                },
            ),
            Property::<Self>::sometimes("somebody leads", |_, state| leaders(state).count() > 0),
            Property::<Self>::sometimes("a command is committed", |_, state| {
                state.committed.len() > 1
            }),
        ]
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.network.len() <= self.network
            && state.nodes.values().all(|node| {
                node.raft.term() <= self.terms && node.raft.log().last().index <= self.log
            })
    }
}

fn leaders(state: &State) -> impl Iterator<Item = &Raft> {
    state.nodes.values().map(|node| &node.raft).filter(|raft| raft.is_leader())
}
