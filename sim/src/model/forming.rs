//! The formation of a fixed cluster, with one node too many.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};

use conflux::formation::{Event, Formation, Message, Output, Plan, To};
use conflux::raft::Time;
use stateright::{Model, Property};

/// A cluster that is yet to form, and the bounds within which its states are visited.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How many members the cluster will have.
    pub size: usize,
    /// How many nodes there are.
    pub nodes: usize,
    /// How many timers fire. With its first timer, a node says hello.
    pub ticks: u8,
    /// How many times a node gives up the set to which it is bound.
    pub withdrawals: u8,
    /// How many nodes die and start again without memory.
    pub restarts: u8,
    /// How many messages arrive twice.
    pub duplicates: u8,
    /// How many messages may be in flight at once. States with more are not visited.
    pub network: usize,
}

/// A cluster of two with one node too many. One of the nodes gives up a set.
pub const SMALL: Bounds =
    Bounds { size: 2, nodes: 3, ticks: 2, withdrawals: 1, restarts: 0, duplicates: 0, network: 3 };

/// The same with one more timer, and no node gives up.
pub const LONGER: Bounds = Bounds { ticks: 3, withdrawals: 0, ..SMALL };

/// The same with a node that dies and comes back without memory.
pub const RESTART: Bounds = Bounds { withdrawals: 0, restarts: 1, ..SMALL };

/// The state of all nodes and of the network.
#[derive(Clone)]
pub struct State {
    nodes: Vec<Formation>,
    clocks: Vec<Time>,
    starts: u64,
    network: Vec<(usize, Message)>,
    ticks: u8,
    withdrawals: u8,
    restarts: u8,
    duplicates: u8,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.nodes.iter().for_each(|node| node.fingerprint(hasher));
        self.network.hash(hasher);
        (self.ticks, self.withdrawals, self.restarts, self.duplicates).hash(hasher);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        super::key(self) == super::key(other)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for node in &self.nodes {
            write!(f, "{:?} runs in {:x}; ", node.me(), node.set_hash())?;
        }
        write!(f, "{:?}", self.network)
    }
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The message at this place arrives. It stays in flight, to arrive again, if the flag is set.
    Deliver(usize, bool),
    /// A message is lost.
    Lose(usize),
    /// A node's timer fires.
    Tick(usize),
    /// A node gives up the set to which it is bound.
    GiveUp(usize),
    /// A node dies, and starts again without memory.
    Restart(usize),
}

fn name(node: usize) -> String {
    char::from(b'a' + node as u8).to_string()
}

impl Bounds {
    fn take(&self, state: &mut State, from: usize, output: Output) {
        for (to, message) in output.messages {
            let receivers = (0..self.nodes).filter(|node| {
                *node != from
                    && match &to {
                        To::Everyone => true,
                        To::Member(member) => *state.nodes[*node].me() == *member,
                        To::Nonce(nonce) => state.nodes[*node].me().nonce == *nonce,
                    }
            });
            for receiver in receivers.collect::<Vec<_>>() {
                let in_flight = (receiver, message.clone());
                if !state.network.contains(&in_flight) {
                    let key = |p: &(usize, Message)| super::key(p);
                    let at = state.network.partition_point(|p| key(p) < key(&in_flight));
                    state.network.insert(at, in_flight);
                }
            }
        }
        debug_assert!(!output.events.contains(&Event::DuplicateId), "ids are different here");
    }
}

impl Model for Bounds {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let node = |n| Formation::new(name(n), Plan::Size(self.size), 0, n as u64 + 1);
        vec![State {
            nodes: (0..self.nodes).map(node).collect(),
            clocks: vec![0; self.nodes],
            starts: self.nodes as u64,
            network: Vec::new(),
            ticks: 0,
            withdrawals: 0,
            restarts: 0,
            duplicates: 0,
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
        for node in 0..self.nodes {
            if state.ticks < self.ticks && state.nodes[node].deadline().is_some() {
                actions.push(Action::Tick(node));
            }
            if state.withdrawals < self.withdrawals && state.nodes[node].gives_up_at().is_some() {
                actions.push(Action::GiveUp(node));
            }
            if state.restarts < self.restarts {
                actions.push(Action::Restart(node));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let (node, output) = match action {
            Action::Deliver(at, again) => {
                state.duplicates += u8::from(again);
                let (to, message) = match again {
                    true => state.network[at].clone(),
                    false => state.network.remove(at),
                };
                (to, state.nodes[to].handle_message(state.clocks[to], message))
            }
            Action::Lose(at) => {
                state.network.remove(at);
                return Some(state);
            }
            Action::Tick(node) => {
                state.ticks += 1;
                state.clocks[node] = state.clocks[node].max(state.nodes[node].deadline()?);
                (node, state.nodes[node].handle_tick(state.clocks[node]))
            }
            Action::GiveUp(node) => {
                state.withdrawals += 1;
                state.clocks[node] = state.clocks[node].max(state.nodes[node].gives_up_at()?);
                (node, state.nodes[node].handle_tick(state.clocks[node]))
            }
            Action::Restart(node) => {
                state.restarts += 1;
                state.starts += 1;
                state.clocks[node] = 0;
                let plan = Plan::Size(self.size);
                state.nodes[node] = Formation::new(name(node), plan, 0, state.starts);
                (node, state.nodes[node].handle_tick(0))
            }
        };
        self.take(&mut state, node, output);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always("one cluster", |bounds, state| {
                running_majorities(bounds, state).count() <= 1
            }),
            Property::<Self>::always("a node that runs is a member", |_, state| {
                let member = |n: &Formation| n.set().is_none_or(|s| s.members().contains(n.me()));
                state.nodes.iter().all(member)
            }),
            Property::<Self>::always("a set that formed has the planned size", |bounds, state| {
                let sets = state.nodes.iter().filter_map(Formation::set);
                sets.into_iter().all(|set| set.members().len() == bounds.size)
            }),
            Property::<Self>::sometimes("all members run", |bounds, state| {
                running_majorities(bounds, state).any(|(_, runs)| runs == bounds.size)
            }),
        ]
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.network.len() <= self.network
    }
}

/// The sets in which a majority of the members runs, and how many members run in each.
fn running_majorities<'a>(
    bounds: &Bounds,
    state: &'a State,
) -> impl Iterator<Item = (u64, usize)> + use<'a> {
    let mut running = BTreeMap::new();
    for set in state.nodes.iter().filter_map(Formation::set) {
        *running.entry(set.hash()).or_insert(0) += 1;
    }
    let quorum = bounds.size / 2 + 1;
    running.into_iter().filter(move |(_, runs)| *runs >= quorum)
}
