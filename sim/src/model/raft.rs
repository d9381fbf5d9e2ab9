//! Raft in a cluster of two or three: elections, replication, crashes, and nodes with two hosts.
//! One host has taken the node over from the other, and the other has not noticed.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::hash::{Hash, Hasher};

use conflux::raft::{
    Change, Config, HardState, Index, Input, Members, Message, NodeId, Outgoing, Persist, Position,
    Raft, Saved, Term, Time,
};
use conflux::storage::admit;
use stateright::{Model, Property};

/// The election timeout and the heartbeat interval, in ms. Their values do not matter, as long
/// as the heartbeat interval is shorter.
const ELECTION: Time = 100;
const HEARTBEAT: Time = 60;

/// A cluster, and the bounds within which its states are visited.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How many nodes begin as voters.
    pub nodes: u64,
    /// How many more nodes there are, which may join.
    pub joiners: u64,
    /// How many changes of the members are requested.
    pub changes: u8,
    /// The newest term.
    pub terms: Term,
    /// The longest log.
    pub log: Index,
    /// How many commands are proposed.
    pub proposals: u8,
    /// How many timers fire.
    pub ticks: u8,
    /// How many crashes there are.
    pub crashes: u8,
    /// How many messages arrive twice.
    pub duplicates: u8,
    /// How many messages may be in flight at once. States with more are not visited.
    pub network: usize,
    /// Whether writes take time and may be lost in a crash. Otherwise a write is durable at once.
    pub slow_disks: bool,
    /// How often a second host takes a node over, while the first one runs on.
    pub takeovers: u8,
    /// How many confirmations of leadership are requested.
    pub reads: u8,
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
    takeovers: 0,
    reads: 0,
};

/// Two nodes, one command and a crash.
pub const COMMANDS: Bounds =
    Bounds { log: 3, proposals: 1, network: 3, slow_disks: false, ..SMALL };

/// Three nodes, with a crash.
pub const THREE: Bounds = Bounds { nodes: 3, ticks: 2, slow_disks: false, ..SMALL };

/// Three nodes and more messages in flight at once.
pub const THREE_BUSY: Bounds = Bounds { crashes: 0, network: 3, ..THREE };

/// One voter, a node that joins, two changes of the members and a crash.
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

/// Two voters, one of which is demoted or removed.
pub const LEAVING: Bounds = Bounds { changes: 1, terms: 3, log: 4, slow_disks: false, ..SMALL };

/// Three voters, and a change of the members.
pub const CHANGING: Bounds = Bounds { changes: 1, log: 3, crashes: 0, ..THREE };

/// Two nodes, one of which gets a second host.
pub const TWO_HOSTS: Bounds = Bounds { crashes: 0, takeovers: 1, ..SMALL };

/// The same, and a leader is asked to confirm its leadership.
pub const TWO_HOSTS_READ: Bounds =
    Bounds { terms: 3, log: 3, ticks: 3, reads: 1, network: 2, ..TWO_HOSTS };

/// A host of a node: the node, and the epoch under which the host runs it.
type Host = (NodeId, u64);

/// A node as one of its hosts runs it.
#[derive(Clone)]
struct Node {
    raft: Raft,
    now: Time,
    writes: VecDeque<Persist>,
    held: Vec<Outgoing>,
}

/// The state of the whole cluster.
#[derive(Clone)]
pub struct State {
    nodes: BTreeMap<Host, Node>,
    /// What is stored of each node, and the epoch of its record.
    disks: BTreeMap<NodeId, (Saved, u64)>,
    network: Vec<(NodeId, NodeId, Message)>,
    /// Every entry that was ever committed, and the term of the node that committed it first.
    committed: Vec<(Position, Term)>,
    proposed: u8,
    changed: u8,
    ticks: u8,
    crashes: u8,
    duplicates: u8,
    takeovers: u8,
    /// For each confirmation that was requested: how many entries were committed at that time.
    asked: Vec<usize>,
    broken: Option<String>,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        for (disk, epoch) in self.disks.values() {
            (disk.hard, &disk.entries, epoch).hash(hasher);
        }
        for (host, node) in &self.nodes {
            host.hash(hasher);
            node.raft.fingerprint(hasher);
            let newest = node.writes.back().map_or(0, |write| write.seq);
            for write in &node.writes {
                (newest - write.seq, write.hard, &write.entries).hash(hasher);
            }
            for held in &node.held {
                (held.to, &held.message, newest.saturating_sub(held.after)).hash(hasher);
            }
        }
        (&self.network, &self.committed).hash(hasher);
        (self.proposed, self.changed, self.ticks, self.crashes, self.duplicates).hash(hasher);
        (self.takeovers, &self.asked, &self.broken).hash(hasher);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        super::key(self) == super::key(other)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((id, epoch), node) in &self.nodes {
            let (raft, last) = (&node.raft, node.raft.log().last());
            let (role, term, commit) = (raft.role(), raft.term(), raft.commit_index());
            write!(
                f,
                "n{id}, host {epoch}: {role} in term {term}, log to {last}, commit {commit}; "
            )?;
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
    /// The message at this place arrives at the host of its receiver with this epoch. It stays in
    /// flight, to arrive again, if the flag is set.
    Deliver(usize, bool, u64),
    /// A message is lost.
    Lose(usize),
    /// A node's timer fires.
    Tick(Host),
    /// The first of a node's writes is durable.
    Written(Host),
    /// A command is proposed to a leader.
    Propose(Host),
    /// A leader is asked for a change of the members.
    Change(Host, Change),
    /// A node dies when so many of its writes are durable, and starts again.
    Crash(Host, usize),
    /// A second host takes a node over. The first one does not notice.
    TakeOver(NodeId),
    /// A leader is asked to confirm its leadership.
    Confirm(Host),
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

    /// A host that starts a node with what is stored.
    fn host(&self, id: NodeId, saved: Saved) -> Node {
        let (writes, held) = (VecDeque::new(), Vec::new());
        Node { raft: self.start(id, saved), now: 0, writes, held }
    }

    fn handle(&self, state: &mut State, host: Host, input: Input) {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let Some(node) = state.nodes.get_mut(&host) else { return };
            let output = node.raft.handle(node.now, input);
            node.held.extend(output.messages);
            let confirmed = output.reads.iter().filter_map(|r| Some((r.id as usize, r.index?)));
            for (read, index) in confirmed {
                if (index as usize) < state.asked[read] {
                    let (id, epoch) = host;
                    state.broken = Some(format!("n{id}, host {epoch}, confirms a stale read"));
                }
            }
            if let Some(persist) = output.persist {
                let seq = persist.seq;
                node.writes.push_back(persist);
                if !self.slow_disks && write(state, host) {
                    next = Some(Input::Persisted(seq));
                }
            }
            release(state, host);
            check_committed(state, host);
        }
    }
}

/// Carries out the first pending write of a host. `false` if there is none, or if another host has
/// taken the node over: then this host notices that and stops.
fn write(state: &mut State, host: Host) -> bool {
    let Some(node) = state.nodes.get_mut(&host) else { return false };
    let Some(persist) = node.writes.pop_front() else { return false };
    let (disk, epoch) = state.disks.get_mut(&host.0).expect("a disk");
    if admit(Some(*epoch), host.1).is_err() {
        state.nodes.remove(&host);
        return false;
    }
    disk.hard = persist.hard.unwrap_or(disk.hard);
    if let Some(first) = persist.entries.first() {
        disk.entries.retain(|entry| entry.at.index < first.at.index);
    }
    disk.entries.extend(persist.entries);
    true
}

/// Sends the messages whose writes are durable. The network is a sorted set: a message that is sent
/// again while it is in flight is in it once, and the order of messages means nothing.
fn release(state: &mut State, host: Host) {
    let id = host.0;
    let Some(node) = state.nodes.get_mut(&host) else { return };
    let first = node.writes.front().map_or(u64::MAX, |write| write.seq);
    let (wait, go) = std::mem::take(&mut node.held).into_iter().partition(|m| m.after >= first);
    node.held = wait;
    for Outgoing { to, message, .. } in go {
        let in_flight = (id, to, message);
        if !state.network.contains(&in_flight) {
            let key = |p: &(NodeId, NodeId, Message)| super::key(p);
            let at = state.network.partition_point(|p| key(p) < key(&in_flight));
            state.network.insert(at, in_flight);
        }
    }
}

/// A committed entry stays committed, on every node (paper §5.4.3).
fn check_committed(state: &mut State, host: Host) {
    let id = host.0;
    let Some(raft) = state.nodes.get(&host).map(|node| &node.raft) else { return };
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
        let all = 1..=self.nodes + self.joiners;
        vec![State {
            nodes: all.clone().map(|id| ((id, 1), self.host(id, Saved::default()))).collect(),
            disks: all.map(|id| (id, (Saved::default(), 1))).collect(),
            network: Vec::new(),
            committed: Vec::new(),
            proposed: 0,
            changed: 0,
            ticks: 0,
            crashes: 0,
            duplicates: 0,
            takeovers: 0,
            asked: Vec::new(),
            broken: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (at, (_, to, _)) in state.network.iter().enumerate() {
            actions.push(Action::Lose(at));
            for ((_, epoch), _) in state.nodes.range((*to, 0)..=(*to, u64::MAX)) {
                actions.push(Action::Deliver(at, false, *epoch));
                if state.duplicates < self.duplicates {
                    actions.push(Action::Deliver(at, true, *epoch));
                }
            }
        }
        if state.takeovers < self.takeovers {
            actions.extend(state.disks.keys().map(|id| Action::TakeOver(*id)));
        }
        for (id, node) in &state.nodes {
            if node.raft.is_leader() && state.asked.len() < usize::from(self.reads) {
                actions.push(Action::Confirm(*id));
            }
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
                    let host = state.nodes.keys().find(|host| host.0 == leader).expect("itself");
                    actions.extend(change.into_iter().map(|change| Action::Change(*host, change)));
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
            Action::Deliver(at, again, epoch) => {
                state.duplicates += u8::from(again);
                let (from, to, message) = match again {
                    true => state.network[at].clone(),
                    false => state.network.remove(at),
                };
                self.handle(&mut state, (to, epoch), Input::Receive { from, message });
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
                if write(&mut state, id) {
                    release(&mut state, id);
                    self.handle(&mut state, id, Input::Persisted(seq));
                }
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
                for _ in 0..done {
                    write(&mut state, id);
                }
                if let Some(node) = state.nodes.get_mut(&id) {
                    *node = self.host(id.0, state.disks[&id.0].0.clone());
                }
            }
            Action::TakeOver(id) => {
                state.takeovers += 1;
                let (disk, epoch) = state.disks.get_mut(&id)?;
                *epoch += 1;
                let (host, disk) = ((id, *epoch), disk.clone());
                state.nodes.insert(host, self.host(id, disk));
            }
            Action::Confirm(id) => {
                let read = state.asked.len() as u64;
                state.asked.push(state.committed.len());
                self.handle(&mut state, id, Input::Confirm { id: read, at_least: 0 });
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always("committed entries stay committed", |_, state| {
                state.broken.is_none()
            }),
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
                    state.nodes.iter().all(|((id, epoch), node)| {
                        let (disk, current) = &state.disks[id];
                        let HardState { term, vote } = disk.hard;
                        // If another host has written since, the disk says nothing about this host.
                        let leads = node.raft.is_leader() && epoch == current;
                        !leads || term == node.raft.term() && vote == Some(node.raft.id())
                    })
                },
            ),
            Property::<Self>::sometimes("a node leads", |_, state| leaders(state).count() > 0),
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
