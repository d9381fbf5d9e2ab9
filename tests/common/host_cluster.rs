//! Whole hosts without a browser: formation, Raft, store and frames. The test controls the clock,
//! and which frames the network delivers, loses, duplicates, delays or reorders.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use conflux::formation::Plan;
use conflux::host::core::Host as HostCore;
use conflux::host::transport;
use conflux::host::types::{Effect, Input, Kind, Notice, Settings};
use conflux::node::Durability;
use conflux::raft::{Blob, Index, Time};
use conflux::store::{self, Failure, Machine, Outcome, Perform};
use conflux::wire::{FrameWriter, Header, hash64};

/// A list of everything that was appended.
pub type List = Rc<Vec<String>>;

/// A machine with these methods: `append x`; `nothing`; `fail`; `once x`, which fails if the list
/// has `x` already; `odd x`, which appends only to a list of odd length; `long`, which fails with a
/// long message. The reducer fails on `poison`, and `skip` does not change the state.
#[derive(Default)]
pub struct ListMachine {
    /// The reducer of this node alone fails on actions that begin so.
    pub refuses: Option<String>,
    /// The reducer of this node alone makes another state of actions that begin so.
    pub alters: Option<String>,
    /// No state can be saved.
    pub cannot_save: bool,
    /// The state that methods see.
    pub provisional: List,
    /// The indices that subscribers were called with.
    pub notified: Vec<Index>,
    /// How many methods have run.
    pub judged: u64,
}

impl Machine for ListMachine {
    type State = List;

    fn judge(&mut self, method: &str, args: &[u8]) -> Result<Option<Blob>, Failure> {
        self.judged += 1;
        let value = String::from_utf8_lossy(args).into_owned();
        let fail = |message: &str| Err(Failure::new("METHOD_FAILED", message));
        match method {
            "append" => Ok(Some(args.into())),
            "nothing" => Ok(None),
            "fail" => fail("no"),
            "once" if self.provisional.contains(&value) => fail("again"),
            "once" => Ok(Some(args.into())),
            "odd" if self.provisional.len() % 2 == 1 => Ok(Some(args.into())),
            "odd" => Ok(None),
            "long" => fail(&"no ".repeat(1000)),
            _ => fail("unknown method"),
        }
    }

    fn reduce(&mut self, state: &List, action: &[u8]) -> Result<List, Failure> {
        let mut value = String::from_utf8(action.to_vec()).expect("text");
        let begins_so = |prefix: &String| value.starts_with(prefix);
        if value.starts_with("poison") || self.refuses.as_ref().is_some_and(begins_so) {
            return Err(Failure::new("REDUCER_FAILED", "poison"));
        }
        if value == "skip" {
            return Ok(Rc::clone(state));
        }
        if self.alters.as_ref().is_some_and(begins_so) {
            value.push_str(" altered");
        }
        let mut list = state.as_ref().clone();
        list.push(value);
        Ok(Rc::new(list))
    }

    fn save(&mut self, state: &List) -> Result<Vec<u8>, Failure> {
        if self.cannot_save {
            return Err(Failure::new("NO_JSON", "no"));
        }
        Ok(state.join("\n").into_bytes())
    }

    fn load(&mut self, bytes: &[u8]) -> Result<List, Failure> {
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        Ok(Rc::new(text.lines().map(String::from).collect()))
    }

    fn committed(&mut self, index: Index) {
        self.notified.push(index);
    }
}

pub struct Host {
    pub core: HostCore<List>,
    pub machine: ListMachine,
    pub settled: Vec<(u64, Outcome)>,
    pub notices: Vec<Notice>,
    pub next_ticket: u64,
}

impl Host {
    pub fn errors(&self) -> Vec<&str> {
        self.notices
            .iter()
            .filter_map(|notice| match notice {
                Notice::Error(failure) => Some(failure.code.as_str()),
                _ => None,
            })
            .collect()
    }

    pub fn outcome(&self, ticket: u64) -> Option<&Outcome> {
        let mut found = self.settled.iter().filter(|(t, _)| *t == ticket);
        let outcome = found.next().map(|(_, outcome)| outcome);
        assert!(found.next().is_none(), "ticket {ticket} was settled twice");
        outcome
    }
}

/// A frame in the network.
pub struct Frame {
    pub from: String,
    pub to: String,
    pub bytes: Vec<u8>,
}

/// The file of a node, and the writes to it that are not done.
#[derive(Default)]
pub struct Disk {
    /// What is durable.
    pub file: Vec<u8>,
    /// For each write: its number, whether a new file begins with it, and its bytes.
    pub writes: VecDeque<(u64, bool, Vec<u8>)>,
}

impl Disk {
    /// The power fails: of the writes that are not done, a random part is there, perhaps with an
    /// incomplete write at the end. `random` returns a number below its argument.
    pub fn fail(&mut self, mut random: impl FnMut(usize) -> usize) {
        let mut done = random(self.writes.len() + 1);
        while let Some((_, begins, bytes)) = self.writes.pop_front() {
            let torn = done == 0;
            // A file without a complete beginning does not count, and the file before it is still
            // there.
            if torn && begins {
                break;
            }
            if begins {
                self.file.clear();
            }
            let end = if torn { random(bytes.len()) } else { bytes.len() };
            self.file.extend(&bytes[..end]);
            if torn {
                break;
            }
            done -= 1;
        }
        self.writes.clear();
    }
}

/// The hosts of a cluster, with their network and their disks.
#[derive(Default)]
pub struct Hosts {
    pub now: Time,
    pub hosts: BTreeMap<String, Host>,
    pub network: VecDeque<Frame>,
    /// Pairs of nodes (sender and receiver) between which frames are lost.
    pub cut: BTreeSet<(String, String)>,
    /// How many nodes have been started, which gives each a seed of its own.
    pub starts: u64,
    pub seed: u64,
    pub compact_bytes: Option<usize>,
    pub max_sessions: Option<usize>,
    pub max_message_bytes: Option<usize>,
    pub max_action_bytes: Option<usize>,
    /// Shortest and longest election timeout, in ms; (300, 500) unless it is set.
    pub election_timeout: Option<(Time, Time)>,
    /// The local first states of nodes, where they are not empty.
    pub initial: BTreeMap<String, Vec<String>>,
    /// The disks of the nodes that have storage. Writes are done by [`Hosts::sync`].
    pub disks: BTreeMap<String, Disk>,
}

impl Hosts {
    pub fn new(seed: u64) -> Self {
        Self { now: 1000, seed, ..Self::default() }
    }

    /// The same, with limits that the test sets.
    pub fn with(seed: u64, limit: impl FnOnce(&mut Self)) -> Self {
        let mut hosts = Self::new(seed);
        limit(&mut hosts);
        hosts
    }

    pub fn settings(&self, id: &str, plan: Plan) -> Settings {
        let mut store = store::Config::default();
        store.compact_bytes = self.compact_bytes.unwrap_or(store.compact_bytes);
        store.max_sessions = self.max_sessions.unwrap_or(store.max_sessions);
        store.max_message_bytes = self.max_message_bytes.unwrap_or(store.max_message_bytes);
        store.max_action_bytes = self.max_action_bytes.unwrap_or(store.max_action_bytes);
        Settings {
            kind: Kind::Fixed { id: id.into(), plan },
            quiesce_interval: None,
            cluster: "test".into(),
            election_timeout: self.election_timeout.unwrap_or((300, 500)),
            heartbeat_interval: 50,
            store,
            durability: match self.disks.contains_key(id) {
                true => Durability::Durable,
                false => Durability::Volatile,
            },
        }
    }

    /// Starts a node, with what its disk has if it has one.
    pub fn start(&mut self, id: &str, plan: Plan) {
        self.starts += 1;
        let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(self.starts);
        let settings = self.settings(id, plan);
        let initial = Rc::new(self.initial.get(id).cloned().unwrap_or_default());
        let core = HostCore::new(settings, initial, true, self.now, seed);
        let machine = ListMachine::default();
        let host = Host { core, machine, settled: vec![], notices: vec![], next_ticket: 1 };
        self.hosts.insert(id.into(), host);
        if let Some(disk) = self.disks.get(id) {
            let file = (!disk.file.is_empty()).then(|| disk.file.clone());
            self.handle(id, Input::Restored(file));
        }
        self.handle(id, Input::Start);
    }

    /// Makes the next write of a node durable. Returns `false` when there is none.
    pub fn sync(&mut self, id: &str) -> bool {
        let Some(disk) = self.disks.get_mut(id) else { return false };
        let Some((seq, begins, bytes)) = disk.writes.pop_front() else { return false };
        if begins {
            disk.file.clear();
        }
        disk.file.extend(bytes);
        self.handle(id, Input::Persisted { generation: 0, node: 0, seq });
        true
    }

    /// Starts the nodes a, b and c, and waits until one leads.
    pub fn form(mut self) -> Self {
        for id in ["a", "b", "c"] {
            self.start(id, size(3));
        }
        self.run(2000);
        assert!(self.leader().is_some(), "a leader is there");
        // The first perform of each opens its session.
        for id in ["a", "b", "c"] {
            let ticket = self.perform(id, "nothing", "");
            self.run(200);
            assert_eq!(self.host(id).outcome(ticket), Some(&Outcome::Nothing));
            self.hosts.get_mut(id).expect("a host").settled.clear();
        }
        self
    }

    /// The tab of a node dies.
    pub fn kill(&mut self, id: &str) {
        self.hosts.remove(id);
        self.network.retain(|frame| frame.to != id);
    }

    pub fn host(&self, id: &str) -> &Host {
        &self.hosts[id]
    }

    pub fn state(&self, id: &str) -> Vec<String> {
        self.host(id).core.own().store().committed().as_ref().clone()
    }

    pub fn leader(&self) -> Option<String> {
        let leads = |h: &&Host| h.core.own().raft().is_some_and(|raft| raft.is_leader());
        let leaders = self.hosts.values().filter(leads);
        let newest = leaders.max_by_key(|h| h.core.status().term);
        newest.map(|h| h.core.id())
    }

    pub fn perform(&mut self, id: &str, method: &str, args: &str) -> u64 {
        self.perform_within(id, method, args, None)
    }

    pub fn perform_within(
        &mut self,
        id: &str,
        method: &str,
        args: &str,
        timeout: Option<Time>,
    ) -> u64 {
        let host = self.hosts.get_mut(id).expect("a host");
        let ticket = host.next_ticket;
        host.next_ticket += 1;
        let perform = Perform { ticket, method: method.into(), args: args.into(), timeout };
        self.handle(id, Input::Perform(vec![perform]));
        ticket
    }

    pub fn read(&mut self, id: &str) -> u64 {
        let host = self.hosts.get_mut(id).expect("a host");
        let ticket = host.next_ticket;
        host.next_ticket += 1;
        self.handle(id, Input::Read { ticket });
        ticket
    }

    /// Gives a host an input, runs the user code for which it asks, and puts its frames into the
    /// network.
    pub fn handle(&mut self, id: &str, input: Input<List>) {
        let Some(host) = self.hosts.get_mut(id) else { return };
        let mut output = host.core.handle(self.now, input);
        loop {
            host.settled.extend(output.settled.into_iter().map(|s| (s.ticket, s.outcome)));
            host.notices.extend(output.notices);
            for effect in output.effects {
                if let (Effect::Record { seq, begins, bytes }, Some(disk)) =
                    (effect, self.disks.get_mut(id))
                {
                    disk.writes.push_back((seq, begins, bytes));
                }
            }
            let Some(call) = output.call else { break };
            host.machine.provisional = host.core.own().store().provisional().clone();
            let returned = call.run(&mut host.machine);
            output = host.core.handle(self.now, Input::Returned(returned));
        }
        let frames = host.core.take_frames();
        for (to, bytes) in frames {
            let receivers: Vec<_> = match to {
                Some(to) => vec![to],
                None => self.hosts.keys().filter(|other| *other != id).cloned().collect(),
            };
            for to in receivers {
                if !self.cut.contains(&(id.to_string(), to.clone())) {
                    self.network.push_back(Frame { from: id.into(), to, bytes: bytes.clone() });
                }
            }
        }
    }

    /// Delivers a frame of the network. If `keep`, it stays in the network and may arrive again.
    pub fn deliver(&mut self, nth: usize, keep: bool) {
        let frame = &self.network[nth];
        let (to, bytes) = (frame.to.clone(), frame.bytes.clone());
        if !keep {
            self.network.remove(nth);
        }
        self.handle(&to, Input::Frame(bytes));
    }

    /// Delivers the first frame between two nodes.
    pub fn deliver_between(&mut self, from: &str, to: &str) {
        let between = |frame: &Frame| frame.from == from && frame.to == to;
        let nth = self.network.iter().position(between).expect("such a frame");
        self.deliver(nth, false);
    }

    /// Delivers all frames and does all writes, and what follows from them, until there are none.
    pub fn deliver_all(&mut self) {
        let mut steps = 0;
        loop {
            while !self.network.is_empty() {
                self.deliver(0, false);
                steps += 1;
                assert!(steps < 100_000, "the hosts never get quiet");
            }
            let ids: Vec<_> = self.disks.keys().cloned().collect();
            if !ids.iter().any(|id| self.hosts.contains_key(id) && self.sync(id)) {
                return;
            }
        }
    }

    /// Lets time pass until the next deadline, but at most `ms`, and ticks the hosts that are due.
    pub fn advance(&mut self, ms: Time) {
        let due = self.hosts.values().filter_map(|host| host.core.deadline()).min();
        self.now = due.map_or(self.now + ms, |due| due.clamp(self.now, self.now + ms));
        if due.is_some_and(|due| due <= self.now) {
            let ids: Vec<_> = self.hosts.keys().cloned().collect();
            for id in ids {
                let due = self.hosts[&id].core.deadline();
                if due.is_some_and(|due| due <= self.now) {
                    self.handle(&id, Input::Tick);
                }
            }
        }
    }

    /// Runs for so many ms with a network that delivers everything at once.
    pub fn run(&mut self, ms: Time) {
        let end = self.now + ms;
        self.deliver_all();
        while self.now < end {
            self.advance(end - self.now);
            self.deliver_all();
        }
    }
}

pub fn size(n: usize) -> Plan {
    Plan::Size(n)
}

/// The nodes a, b and c, of which one leads.
pub fn three() -> Hosts {
    Hosts::new(1).form()
}

/// The id of a node that does not lead.
pub fn follower(hosts: &Hosts) -> String {
    let leader = hosts.leader().expect("a leader");
    hosts.hosts.keys().find(|id| **id != leader).expect("a follower").clone()
}

/// Delivers messages to a node as if another member had sent them.
pub fn forge(hosts: &mut Hosts, from: &str, to: &str, messages: &[transport::Message]) {
    let set = hosts.host(to).core.set().expect("formed").clone();
    let nonce = |id: &str| set.members().iter().find(|m| m.id == id).expect("a member").nonce;
    let cluster = hash64(&[b"test"]);
    let header = Header { cluster, set: set.hash(), from: nonce(from), to: nonce(to), version: 1 };
    let mut writer = FrameWriter::new(header);
    messages.iter().for_each(|message| writer.push(message));
    for frame in writer.finish() {
        hosts.handle(to, Input::Frame(frame));
    }
}

/// The code and the message of a failure.
pub fn failed(outcome: Option<&Outcome>) -> (&str, &str) {
    match outcome {
        Some(Outcome::Failed(Failure { code, message })) => (code, message),
        other => panic!("expected a failure, got {other:?}"),
    }
}
