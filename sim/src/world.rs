//! The simulator: processes, the network between them, time, clients, and what strikes them.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use conflux::host::core::Letter;
use conflux::node::{self, Durability, Node, Packet};
use conflux::raft::{self, Time};
use conflux::store::{self, Failure as Refusal, Perform};
use conflux::tenancy::{self, Plan as Who, Set, Tenancy, To};
use conflux::wire::{self, FrameWriter, Header};
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::clock::{Clock, Micros};
use crate::disk::{Disk, Identity, Write};
use crate::history::{Asked, History, Op};
use crate::machine::{Args, KEYS, Method, OpId, Registers, State, encode};
use crate::truth::{Check, Last, Truth};
use crate::weather::{Fault, Faults, Weather};

/// The most processes, one too many included.
const MOST: usize = 8;
/// How many performs and reads of a client wait before it asks for no more.
const PATIENCE: usize = 12;
/// When faults stop, a leader is known within so many of the longest election timeout.
const LEADER_WITHIN: u64 = 20;
/// When faults stop, the cluster has formed within this.
const FORMED_WITHIN: Micros = 60_000_000;
/// How many events there are at most after the faults have stopped.
const LONGEST_END: u64 = 2_000_000;
/// When a leader is known, everything settles within this.
const SETTLED_WITHIN: Micros = 60_000_000;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything else.
    pub seed: u64,
    /// How many members; drawn from the seed unless it is given.
    pub nodes: Option<usize>,
    /// How many events there are before the faults stop.
    pub steps: u64,
    /// Faults that must not happen.
    pub without: Faults,
    /// Whether to keep the trace.
    pub trace: bool,
}

impl Plan {
    /// How many events a run has by default.
    pub const STEPS: u64 = 4_000;

    /// A run with all that may happen.
    pub fn new(seed: u64) -> Self {
        Self { seed, nodes: None, steps: Self::STEPS, without: Faults::default(), trace: false }
    }
}

/// What happened in a run, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Runs.
    pub runs: u64,
    /// Events: messages, timers, writes, performs, strikes.
    pub events: u64,
    /// Simulated time.
    pub time: Micros,
    /// Performs and reads.
    pub ops: u64,
    /// Entries committed.
    pub committed: u64,
    /// Terms that had a leader.
    pub elections: u64,
    /// Processes that died and started again.
    pub crashes: u64,
    /// Snapshots that were taken or installed.
    pub snapshots: u64,
    /// Runs whose cluster lost its majority for good while it formed, so that nothing is asked of it.
    pub lost: u64,
}

impl Stats {
    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.events += other.events;
        self.time += other.time;
        self.ops += other.ops;
        self.committed += other.committed;
        self.elections += other.elections;
        self.crashes += other.crashes;
        self.snapshots += other.snapshots;
        self.lost += other.lost;
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Report {
    /// The plan.
    pub plan: Plan,
    /// What did not hold.
    pub failure: Option<String>,
    /// Numbers.
    pub stats: Stats,
    /// How many members there were.
    pub nodes: usize,
    /// The faults that could happen.
    pub faults: Faults,
    /// What happened, a line for each event, if the plan says so.
    pub trace: Vec<String>,
}

/// Something on its way from one process to another.
#[derive(Debug)]
struct Parcel {
    from: usize,
    to: usize,
    header: Header,
    letter: Letter,
}

#[derive(Debug)]
enum Event {
    Deliver(Parcel),
    Timer { process: usize, start: u32 },
    Written { process: usize, start: u32 },
    Client { process: usize },
    Strike,
    Exit { process: usize, start: u32 },
    Restart { process: usize },
    Thaw { process: usize, start: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frozen {
    No,
    Timers,
    Whole,
}

/// A process's place in a cluster that has formed.
#[derive(Debug)]
struct Membership {
    number: u64,
    /// Which cluster.
    truth: usize,
    hash: u64,
    /// The processes, by number.
    peers: Vec<usize>,
}

#[derive(Debug)]
struct Process {
    up: bool,
    /// Counts starts: what was scheduled for an earlier one does not happen.
    start: u32,
    client: u16,
    clock: Clock,
    disk: Disk,
    tenancy: Tenancy,
    node: Node<State>,
    machine: Registers,
    membership: Option<Membership>,
    last: Last,
    refused: bool,
    closing: bool,
    /// When the node wants to be called, on its own clock.
    deadline: Option<Time>,
    timer: Option<Micros>,
    writing: bool,
    disk_fails: bool,
    /// So many effects from now on it dies.
    fuse: Option<u32>,
    frozen: Frozen,
    stash: Vec<Event>,
    slow: Micros,
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Panics become failures of a run, with the place where they happened.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| {
        PANIC.with(|panic| *panic.borrow_mut() = Some(info.to_string()));
    }));
}

/// Runs a plan.
pub fn run(plan: &Plan) -> Report {
    let mut world = World::new(plan);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let failure = match result {
        Ok(check) => check.err(),
        Err(payload) => {
            let text = payload.downcast_ref::<String>().cloned();
            let text = text.or(payload.downcast_ref::<&str>().map(ToString::to_string));
            let placed = PANIC.with(|panic| panic.borrow_mut().take());
            Some(format!("panic: {}", placed.or(text).unwrap_or_default()))
        }
    };
    world.stats.time = world.now;
    world.stats.committed = world.truths.iter().map(|(_, truth)| truth.committed()).sum();
    world.stats.elections = world.truths.iter().map(|(_, t)| t.elections() as u64).sum();
    Report {
        plan: plan.clone(),
        failure,
        stats: world.stats,
        nodes: world.size,
        faults: world.weather.faults,
        trace: world.trace,
    }
}

struct World {
    rng: SmallRng,
    steps: u64,
    tracing: bool,
    trace: Vec<String>,
    weather: Weather,
    size: usize,
    who: Who,
    now: Micros,
    queue: BinaryHeap<Reverse<(Micros, u64, usize)>>,
    scheduled: u64,
    slots: Vec<Option<Event>>,
    free: Vec<usize>,
    processes: Vec<Process>,
    /// Bit b of a's word: what a sends does not reach b.
    cut: [u8; MOST],
    /// When the last message from a to b arrives.
    arrivals: [[Micros; MOST]; MOST],
    /// Clusters that have formed, by the hash of their set.
    truths: Vec<(u64, Truth)>,
    sets: BTreeMap<u64, Set>,
    history: History,
    clients: u16,
    /// How many more members the cluster can lose while it forms.
    expendable: usize,
    healed: Option<Micros>,
    led: Option<Micros>,
    probed: bool,
    done: bool,
    stats: Stats,
}

macro_rules! note {
    ($world:expr, $($text:tt)*) => {
        if $world.tracing {
            let line = format!($($text)*);
            $world.note(&line);
        }
    };
}

/// A process's name.
fn name(process: usize) -> char {
    char::from(b'a' + process as u8)
}

impl World {
    fn new(plan: &Plan) -> Self {
        let mut rng = SmallRng::seed_from_u64(plan.seed);
        let drawn = [1, 2, 3, 3, 3, 4, 5, 5, 6, 7][rng.random_range(0..10)];
        let size = plan.nodes.unwrap_or(drawn);
        let weather = Weather::draw(&mut rng, size + 1, plan.without);
        // A cluster of one is complete with anyone, so there nobody is one too many.
        let crowd = size > 1 && weather.faults.has(Fault::Crowd);
        let processes = size + usize::from(crowd);
        let named = rng.random_ratio(1, 4);
        let who = match named {
            true => Who::Ids((0..size).map(|p| name(p).to_string()).collect()),
            false => Who::Size(size),
        };
        let mut world = Self {
            rng,
            steps: plan.steps,
            tracing: plan.trace,
            trace: Vec::new(),
            weather,
            size,
            who,
            now: 1_000_000,
            queue: BinaryHeap::new(),
            scheduled: 0,
            slots: Vec::new(),
            free: Vec::new(),
            processes: Vec::new(),
            cut: [0; MOST],
            arrivals: [[0; MOST]; MOST],
            truths: Vec::new(),
            sets: BTreeMap::new(),
            history: History::default(),
            clients: 0,
            expendable: (size - 1) / 2,
            healed: None,
            led: None,
            probed: false,
            done: false,
            stats: Stats { runs: 1, ..Stats::default() },
        };
        note!(world, "{size} members, {processes} processes; {:?}", world.weather);
        for process in 0..processes {
            let fresh = world.fresh(process, Disk::default(), 0);
            world.processes.push(fresh);
            let at = world.now + world.rng.random_range(0..50_000);
            world.schedule(at, Event::Restart { process });
        }
        let first = world.now + world.rng.random_range(0..200_000);
        world.schedule(first, Event::Strike);
        world
    }

    /// A process that has not started yet.
    fn fresh(&mut self, process: usize, disk: Disk, start: u32) -> Process {
        let seed = self.rng.next_u64();
        let own = self.rng.random_range(0..1_000_000_000);
        let clock = Clock::new(self.now, own);
        let now = clock.read(self.now);
        let id = name(process).to_string();
        let tenancy = match disk.identity() {
            None => Tenancy::new(id, self.who.clone(), now, seed),
            Some(identity) => {
                let Identity { nonce, set } = identity.clone();
                Tenancy::resume(id, nonce, set, self.who.clone(), now, seed)
            }
        };
        let config = store::Config {
            max_action_bytes: 100_000,
            max_message_bytes: self.weather.max_message_bytes,
            max_pending_bytes: 1 << 20,
            retry: self.weather.retry,
            compact_bytes: self.weather.compact_bytes,
            max_sessions: self.weather.max_sessions,
        };
        Process {
            up: false,
            start,
            client: 0,
            clock,
            disk,
            tenancy,
            node: Node::new(config, State::default(), Durability::Durable, seed.wrapping_add(1)),
            machine: Registers::default(),
            membership: None,
            last: Last::default(),
            refused: false,
            closing: false,
            deadline: None,
            timer: None,
            writing: false,
            disk_fails: false,
            fuse: None,
            frozen: Frozen::No,
            stash: Vec::new(),
            slow: 0,
        }
    }

    fn note(&mut self, line: &str) {
        self.trace.push(format!("{:>12.3} ms  {line}", self.now as f64 / 1000.0));
    }

    fn schedule(&mut self, at: Micros, event: Event) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(event);
        self.scheduled += 1;
        self.queue.push(Reverse((at, self.scheduled, slot)));
    }

    fn run(&mut self) -> Check {
        while !self.done {
            let Some(Reverse((at, _, slot))) = self.queue.pop() else {
                return Err("nothing will ever happen again".into());
            };
            let event = self.slots[slot].take().expect("it was scheduled");
            self.free.push(slot);
            self.now = at;
            self.stats.events += 1;
            self.happen(event)?;
            if self.stats.events >= self.steps && self.healed.is_none() {
                self.heal()?;
            }
            if self.stats.events >= self.steps + LONGEST_END {
                return Err("the processes never get quiet".into());
            }
        }
        self.history.check()
    }

    fn is_current(&self, process: usize, start: u32) -> bool {
        self.processes[process].up && self.processes[process].start == start
    }

    fn happen(&mut self, event: Event) -> Check {
        let whose = match &event {
            Event::Deliver(parcel) => Some(parcel.to),
            Event::Timer { process, start } | Event::Written { process, start } => {
                if !self.is_current(*process, *start) {
                    return Ok(());
                }
                Some(*process)
            }
            _ => None,
        };
        if let Some(process) = whose {
            let timer = matches!(event, Event::Timer { .. });
            match self.processes[process].frozen {
                Frozen::Whole => {
                    self.processes[process].stash.push(event);
                    return Ok(());
                }
                Frozen::Timers if timer => {
                    self.processes[process].stash.push(event);
                    return Ok(());
                }
                _ => {}
            }
        }
        match event {
            Event::Deliver(parcel) => self.deliver(parcel),
            Event::Timer { process, .. } => self.timer(process),
            Event::Written { process, .. } => self.written(process),
            Event::Client { process } => self.client(process),
            Event::Strike => self.strike(),
            Event::Exit { process, start } if self.is_current(process, start) => {
                self.crash(process, "closes");
                Ok(())
            }
            Event::Restart { process } => self.start(process),
            Event::Thaw { process, start } if self.is_current(process, start) => self.thaw(process),
            Event::Exit { .. } | Event::Thaw { .. } => Ok(()),
        }
    }

    // Processes.

    fn start(&mut self, process: usize) -> Check {
        if self.processes[process].up {
            return Ok(());
        }
        let disk = std::mem::take(&mut self.processes[process].disk);
        let start = self.processes[process].start + 1;
        self.processes[process] = self.fresh(process, disk, start);
        self.clients += 1;
        let client = self.clients;
        let p = &mut self.processes[process];
        (p.up, p.client) = (true, client);
        note!(self, "{} starts, as {}", name(process), self.processes[process].tenancy.me().nonce);
        let set = self.processes[process].tenancy.set().cloned();
        match set {
            Some(set) => self.join(process, &set, true)?,
            None => self.tick(process)?,
        }
        let pause = self.rng.random_range(0..self.weather.pause * 2);
        self.schedule(self.now + pause, Event::Client { process });
        self.arm(process);
        Ok(())
    }

    /// The process is a member from now on.
    fn join(&mut self, process: usize, set: &Set, again: bool) -> Check {
        let hash = set.hash();
        let nonce = self.processes[process].tenancy.me().nonce;
        let number = set.number(nonce).ok_or("a process runs in a set that is not its own")?;
        let truth = match self.truths.iter().position(|(known, _)| *known == hash) {
            Some(truth) => truth,
            None => {
                self.truths.push((hash, Truth::default()));
                self.sets.insert(hash, set.clone());
                self.truths.len() - 1
            }
        };
        let peers = set.members().iter().map(|m| usize::from(m.id.as_bytes()[0] - b'a')).collect();
        note!(self, "{} is n{number} of {hash:016x}", name(process));
        let weather = &self.weather;
        let config = raft::Config {
            first_election: (number == 1 && !again).then_some(5),
            election_timeout: weather.election,
            heartbeat_interval: weather.heartbeat,
            max_message_bytes: weather.max_message_bytes,
            max_inflight: weather.max_inflight,
            max_uncommitted_bytes: weather.max_uncommitted_bytes,
            ..raft::Config::new(number, (1..=set.members().len() as u64).collect())
        };
        let p = &mut self.processes[process];
        p.membership = Some(Membership { number, truth, hash, peers });
        let saved = p.disk.load();
        if !again {
            p.disk.start(Write::Identity(Identity { nonce, set: set.clone() }));
            self.write(process);
        }
        self.check_clusters()?;
        self.feed(process, node::Input::Start { config, saved })
    }

    /// No two clusters ever have a majority of their members running in them.
    fn check_clusters(&self) -> Check {
        let running = |hash: u64| {
            let runs = |p: &&Process| p.membership.as_ref().is_some_and(|m| m.hash == hash);
            self.processes.iter().filter(runs).count()
        };
        let able = self.sets.keys().filter(|hash| running(**hash) > self.size / 2);
        if able.count() > 1 {
            return Err("two clusters have formed, each with a majority".into());
        }
        Ok(())
    }

    fn crash(&mut self, process: usize, how: &str) {
        let p = &mut self.processes[process];
        if !p.up {
            return;
        }
        p.up = false;
        p.writing = false;
        p.stash.clear();
        let lost = p.disk.crash(&mut self.rng);
        self.stats.crashes += 1;
        note!(self, "{} {how}; writes: {} done, {} lost", name(process), lost.done, lost.lost);
        let pause = match self.rng.random_range(0..4) {
            0 => self.rng.random_range(0..5_000),
            _ => self.rng.random_range(5_000..3_000_000),
        };
        self.schedule(self.now + pause, Event::Restart { process });
    }

    /// Whether the process may die: one that dies before its identity is durable comes back as a
    /// stranger, and a cluster survives only a minority of those.
    fn may_crash(&mut self, process: usize) -> bool {
        let p = &self.processes[process];
        if !p.up || p.refused || p.disk.identity().is_some() {
            return p.up;
        }
        let may = self.expendable > 0;
        self.expendable -= usize::from(may);
        may
    }

    // Effects.

    /// One more effect. `false` when the process dies instead.
    fn burn(&mut self, process: usize) -> bool {
        let Some(left) = &mut self.processes[process].fuse else { return true };
        if *left > 0 {
            *left -= 1;
            return true;
        }
        self.processes[process].fuse = None;
        if self.may_crash(process) {
            self.crash(process, "crashes between two effects");
            return false;
        }
        true
    }

    fn local(&self, process: usize) -> Time {
        self.processes[process].clock.read(self.now)
    }

    /// Gives a node one input, and does what it asks for, up to where user code has run.
    fn feed(&mut self, process: usize, input: node::Input<State>) -> Check {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let now = self.local(process);
            let output = self.processes[process].node.handle(now, input);
            self.processes[process].deadline = output.deadline;
            self.look_at_raft(process)?;
            for persist in output.persist {
                if !self.burn(process) {
                    return Ok(());
                }
                self.persist(process, persist)?;
            }
            for (to, packet) in output.send {
                if !self.burn(process) {
                    return Ok(());
                }
                self.send(process, to, packet)?;
            }
            for settled in output.settled {
                if !self.burn(process) {
                    return Ok(());
                }
                self.settle(process, &settled)?;
            }
            for event in output.events {
                self.event(process, &event)?;
            }
            if let Some(call) = output.call {
                if !self.burn(process) {
                    return Ok(());
                }
                let p = &mut self.processes[process];
                p.machine.provisional = p.node.store().provisional().clone();
                next = Some(node::Input::Returned(call.run(&mut p.machine)));
            }
        }
        self.look_at_state(process)?;
        self.arm(process);
        Ok(())
    }

    fn persist(&mut self, process: usize, persist: raft::Persist) -> Check {
        let p = &mut self.processes[process];
        let membership = p.membership.as_ref().expect("only members write");
        let raft = p.node.raft().expect("only a node with a Raft writes");
        if let Some(first) = persist.entries.first() {
            let before = first.at.index - 1;
            let term = match persist.snapshot.as_ref().filter(|s| s.last.index == before) {
                Some(snapshot) => snapshot.last.term,
                // It may have been compacted away in the same call.
                None => raft.log().term(before).unwrap_or(0),
            };
            if term > 0 || before == 0 {
                self.truths[membership.truth].1.append(term, &persist.entries)?;
            }
        }
        self.stats.snapshots += u64::from(persist.snapshot.is_some());
        note!(
            self,
            "{} writes {}{}{} {}",
            name(process),
            persist.seq,
            persist.hard.map_or(String::new(), |h| format!(
                " term {} vote {}",
                h.term,
                h.vote.unwrap_or(0)
            )),
            persist.snapshot.as_ref().map_or(String::new(), |s| format!(" snapshot {}", s.last)),
            Entries(&persist.entries),
        );
        self.processes[process].disk.start(Write::Raft(persist));
        self.write(process);
        Ok(())
    }

    /// The disk takes up its next write, if it is idle.
    fn write(&mut self, process: usize) {
        let p = &mut self.processes[process];
        if p.writing || p.disk.pending() == 0 {
            return;
        }
        p.writing = true;
        let (slow, start) = (p.slow, p.start);
        let (min, max) = self.weather.write;
        let takes = match self.healed {
            None => self.rng.random_range(min..=max) + slow,
            Some(_) => min,
        };
        self.schedule(self.now + takes, Event::Written { process, start });
    }

    fn written(&mut self, process: usize) -> Check {
        let p = &mut self.processes[process];
        p.writing = false;
        if std::mem::take(&mut p.disk_fails) && self.may_crash(process) {
            self.crash(process, "stops, because a write failed");
            return Ok(());
        }
        let p = &mut self.processes[process];
        let seq = p.disk.finish();
        if let Some(membership) = &p.membership {
            let truth = &mut self.truths[membership.truth].1;
            truth.persisted(membership.number, p.disk.hard())?;
        }
        self.write(process);
        note!(self, "{} has written {}", name(process), seq.unwrap_or(0));
        match seq {
            Some(seq) => self.feed(process, node::Input::Persisted(seq)),
            None => Ok(()),
        }
    }

    fn send(&mut self, process: usize, to: u64, packet: Packet) -> Check {
        let p = &self.processes[process];
        let membership = p.membership.as_ref().expect("only members send");
        let peer = membership.peers[to as usize - 1];
        if let Packet::Raft(message) = &packet {
            let truth = &mut self.truths[membership.truth].1;
            truth.send(membership.number, to, message, &p.disk)?;
        }
        let set = &self.sets[&membership.hash];
        let member = set.member(to).ok_or("a message to nobody")?;
        let header = Header {
            cluster: 1,
            set: membership.hash,
            from: p.tenancy.me().nonce,
            to: member.nonce,
        };
        self.post(process, peer, header, Letter::Node(packet));
        Ok(())
    }

    fn take_forming(&mut self, process: usize, output: tenancy::Output) -> Check {
        let from = self.processes[process].tenancy.me().nonce;
        for (to, message) in output.messages {
            if !self.burn(process) {
                return Ok(());
            }
            let (only, nonce) = match &to {
                To::Everyone => (None, 0),
                To::Nonce(nonce) => (None, *nonce),
                To::Member(member) => {
                    (Some(usize::from(member.id.as_bytes()[0] - b'a')), member.nonce)
                }
            };
            let header = Header { cluster: 1, set: 0, from, to: nonce };
            for peer in 0..self.processes.len() {
                if peer != process && only.is_none_or(|only| only == peer) {
                    self.post(process, peer, header, Letter::Form(message.clone()));
                }
            }
        }
        for event in output.events {
            match event {
                tenancy::Event::Formed(set) => self.join(process, &set, false)?,
                tenancy::Event::Refused { why, .. } if !self.processes[process].refused => {
                    note!(self, "{} is refused: {why:?}", name(process));
                    if self.processes[process].membership.is_none() {
                        self.processes[process].refused = true;
                        let failure = Refusal::new(why.code(), "refused");
                        self.feed(process, node::Input::Close(failure))?;
                    }
                }
                event => note!(self, "{} notices {event:?}", name(process)),
            }
        }
        self.arm(process);
        Ok(())
    }

    // The network.

    fn post(&mut self, from: usize, to: usize, header: Header, letter: Letter) {
        if self.cut[from] & (1 << to) != 0 {
            note!(self, "{} ─╳ {} {}", name(from), name(to), Line(&letter));
            return;
        }
        if self.healed.is_none() {
            if self.chance(self.weather.loss) {
                note!(self, "{} ─✗ {} lost: {}", name(from), name(to), Line(&letter));
                return;
            }
            if self.chance(self.weather.corruption) {
                return self.corrupt(from, to, header, &letter);
            }
            if self.chance(self.weather.duplication) {
                let again = Parcel { from, to, header, letter: letter.clone() };
                let at = self.arrival(from, to);
                self.schedule(at, Event::Deliver(again));
            }
        }
        let at = self.arrival(from, to);
        self.schedule(at, Event::Deliver(Parcel { from, to, header, letter }));
    }

    fn chance(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.rng.random_range(0..1000) < per_mille
    }

    fn arrival(&mut self, from: usize, to: usize) -> Micros {
        let (min, max) = self.weather.latency;
        let slow = self.processes[from].slow + self.processes[to].slow;
        let mut at = self.now + slow + self.rng.random_range(min..=max);
        let mut overtakes = false;
        if self.healed.is_none() {
            if self.chance(self.weather.delay.0) {
                at += self.rng.random_range(0..self.weather.delay.1);
                overtakes = true;
            }
            overtakes |= self.chance(self.weather.reordering);
        }
        if overtakes {
            return at;
        }
        let last = &mut self.arrivals[from][to];
        *last = (*last).max(at);
        *last
    }

    /// Turns a bit or several of the frame, which must then be no frame.
    fn corrupt(&mut self, from: usize, to: usize, header: Header, letter: &Letter) {
        let mut writer = FrameWriter::new(header);
        writer.push(letter);
        for whole in writer.finish() {
            let mut frame = whole.clone();
            for _ in 0..self.rng.random_range(1..4) {
                let bit = self.rng.random_range(0..frame.len() * 8);
                frame[bit / 8] ^= 1 << (bit % 8);
            }
            if self.rng.random_ratio(1, 4) {
                frame.truncate(self.rng.random_range(0..frame.len()));
            }
            // The same bit may have been turned twice.
            let read = wire::read::<Letter>(&frame);
            assert!(read.is_err() || frame == whole, "a corrupted frame was read as {read:?}");
        }
        note!(self, "{} ─✗ {} corrupted: {}", name(from), name(to), Line(letter));
    }

    fn deliver(&mut self, parcel: Parcel) -> Check {
        let Parcel { from, to, header, letter } = parcel;
        let p = &mut self.processes[to];
        if !p.up || header.to != 0 && header.to != p.tenancy.me().nonce {
            return Ok(());
        }
        note!(self, "{} → {} {}", name(from), name(to), Line(&letter));
        let now = self.local(to);
        let p = &mut self.processes[to];
        match letter {
            Letter::Form(message) => {
                let output = p.tenancy.handle_message(now, message);
                self.take_forming(to, output)
            }
            Letter::Node(packet) => {
                let Some(membership) = &p.membership else { return Ok(()) };
                if membership.hash != header.set {
                    let output = p.tenancy.handle_other_set(header.from);
                    return self.take_forming(to, output);
                }
                let number = self.sets[&header.set].number(header.from);
                let number = number.ok_or("a message from nobody")?;
                self.feed(to, node::Input::Receive { from: number, packet })
            }
        }
    }

    // Time.

    /// Schedules the process's next timer, unless an earlier one is under way.
    fn arm(&mut self, process: usize) {
        let p = &mut self.processes[process];
        if !p.up {
            return;
        }
        let wanted = [p.deadline, p.tenancy.deadline()].into_iter().flatten().min();
        let Some(wanted) = wanted else { return };
        let at = p.clock.when(self.now, wanted).max(self.now + 1);
        if p.timer.is_none_or(|timer| timer > at) {
            p.timer = Some(at);
            let start = p.start;
            self.schedule(at, Event::Timer { process, start });
        }
    }

    fn timer(&mut self, process: usize) -> Check {
        let p = &mut self.processes[process];
        if p.timer.is_some_and(|timer| timer > self.now) {
            return Ok(()); // One that was overtaken by an earlier one, which has run.
        }
        p.timer = None;
        self.tick(process)
    }

    fn tick(&mut self, process: usize) -> Check {
        let now = self.local(process);
        let p = &mut self.processes[process];
        if p.tenancy.deadline().is_some_and(|deadline| deadline <= now) {
            let output = p.tenancy.handle_tick(now);
            self.take_forming(process, output)?;
        }
        let p = &mut self.processes[process];
        if p.up && p.deadline.is_some_and(|deadline| deadline <= now) {
            self.feed(process, node::Input::Tick)?;
        }
        self.arm(process);
        Ok(())
    }

    // Clients.

    fn client(&mut self, process: usize) -> Check {
        let p = &self.processes[process];
        if self.healed.is_some() || !p.up || p.refused || p.closing {
            return Ok(());
        }
        let pause = self.rng.random_range(0..self.weather.pause * 2);
        self.schedule(self.now + pause, Event::Client { process });
        let p = &self.processes[process];
        if p.frozen != Frozen::No || p.node.store().waiting() >= PATIENCE {
            return Ok(());
        }
        self.ask(process)
    }

    /// One client asks for something, or for several things at once.
    fn ask(&mut self, process: usize) -> Check {
        let many = if self.rng.random_ratio(1, 20) { self.rng.random_range(2..12) } else { 1 };
        let mut performs = Vec::new();
        for _ in 0..many {
            if self.rng.random_ratio(1, 8) {
                let op = self.call(process, Asked::Read);
                note!(self, "{} reads: op {op}", name(process));
                self.feed(process, node::Input::Read { ticket: u64::from(op) })?;
                if !self.processes[process].up {
                    return Ok(());
                }
                continue;
            }
            let method = match self.rng.random_range(0..20) {
                0..7 => Method::Set,
                7..11 => Method::Swap,
                11..14 => Method::Cas,
                14..17 => Method::Get,
                17..19 => Method::Check,
                _ => Method::Poison,
            };
            performs.push(self.perform(process, method));
        }
        self.feed(process, node::Input::Perform(performs))
    }

    fn call(&mut self, process: usize, asked: Asked) -> OpId {
        let key = self.rng.random_range(0..KEYS) as u8;
        let p = &self.processes[process];
        // Likely to be right, as long as nobody else is faster.
        let expected = p.node.store().provisional().register(key);
        self.stats.ops += 1;
        let client = p.client;
        let (called, answered, committed) = (0, None, None);
        let op = Op { asked, process, client, key, expected, called, answered, committed };
        self.history.call(op)
    }

    fn perform(&mut self, process: usize, method: Method) -> Perform {
        let op = self.call(process, Asked::Perform(method));
        let Op { client, key, expected, .. } = *self.history.op(op);
        let large = self.rng.random_ratio(1, 10);
        let most = self.weather.padding * if large { 10 } else { 1 };
        let padding = vec![b'.'; self.rng.random_range(0..=most)];
        let gives_up = self.weather.faults.has(Fault::Timeout) && self.healed.is_none();
        let timeout = (gives_up && self.rng.random_ratio(1, 4))
            .then(|| self.rng.random_range(1..self.weather.election.1 * 2));
        note!(
            self,
            "{} performs op {op}: {method:?} of register {key}, {expected} there, {} bytes more{}",
            name(process),
            padding.len(),
            timeout.map_or(String::new(), |ms| format!(", for {ms} ms"))
        );
        Perform {
            ticket: u64::from(op),
            method: method.name().into(),
            args: encode(&Args { op, client, key, expected, padding }),
            timeout,
        }
    }

    fn settle(&mut self, process: usize, settled: &store::Settled) -> Check {
        let op = settled.ticket as OpId;
        let p = &self.processes[process];
        let store = p.node.store();
        let local = store.committed().register(self.history.op(op).key);
        self.history.answer(op, &settled.outcome, local, store.applied())?;
        note!(
            self,
            "{}: op {op} is settled: {:?}",
            name(process),
            self.history.op(op).answered.expect("just now").1
        );
        let timed_out =
            matches!(&settled.outcome, store::Outcome::Failed(f) if f.code == "TIMEOUT");
        if timed_out && self.rng.random() {
            self.schedule(self.now + 1, Event::Client { process });
        }
        Ok(())
    }

    fn event(&mut self, process: usize, event: &node::Event) -> Check {
        match event {
            node::Event::Leader { term, leader } => {
                note!(
                    self,
                    "{}: in term {term} {} leads",
                    name(process),
                    leader.map_or("nobody".into(), |leader| format!("n{leader}"))
                );
                // A leader that dies early leaves most to its successor.
                let p = &self.processes[process];
                let leads = p.node.raft().is_some_and(raft::Raft::is_leader);
                let dies = self.healed.is_none() && self.weather.faults.has(Fault::Crash);
                if leads && dies && self.rng.random_ratio(1, 6) {
                    self.processes[process].fuse = Some(self.rng.random_range(0..30));
                }
                Ok(())
            }
            // Nobody here lies.
            node::Event::Invalid { from, error } => {
                Err(format!("{} takes a message of n{from} for invalid: {error}", name(process)))
            }
            node::Event::Trouble(trouble) => {
                Err(format!("{} is in trouble: {trouble:?}", name(process)))
            }
        }
    }

    fn look_at_raft(&mut self, process: usize) -> Check {
        let now = self.local(process);
        let p = &mut self.processes[process];
        let (Some(membership), Some(raft)) = (&p.membership, p.node.raft()) else { return Ok(()) };
        let truth = &mut self.truths[membership.truth].1;
        truth.look_at_raft(&mut p.last, raft, now, &mut self.history)
    }

    fn look_at_state(&mut self, process: usize) -> Check {
        let p = &mut self.processes[process];
        if p.machine.notified_twice {
            return Err(format!("{} was told of one action twice", name(process)));
        }
        let (Some(membership), Some(raft)) = (&p.membership, p.node.raft()) else { return Ok(()) };
        let (number, truth) = (membership.number, &mut self.truths[membership.truth].1);
        let (held, sessions) = (p.node.held(), p.node.store().sessions().len());
        truth.look_at_state(&mut p.last, raft, p.node.store())?;
        if sessions > self.weather.max_sessions {
            return Err(format!("n{number} has {sessions} sessions"));
        }
        // A slow disk holds up what depends on it, but no more than is under way to it.
        if held > 20_000 {
            return Err(format!("n{number} holds {held} messages back"));
        }
        Ok(())
    }

    // Faults.

    fn strike(&mut self) -> Check {
        if self.healed.is_some() {
            self.schedule(self.now + 5_000, Event::Strike);
            return self.judge();
        }
        let pause = self.rng.random_range(0..self.weather.strike * 2);
        self.schedule(self.now + pause, Event::Strike);
        let strikes = Fault::STRIKES;
        let fault = strikes[self.rng.random_range(0..strikes.len())];
        let process = self.rng.random_range(0..self.processes.len());
        // The leader is where most depends on order.
        let leads = |p: &Process| p.up && p.node.raft().is_some_and(raft::Raft::is_leader);
        let leader = self.processes.iter().position(leads);
        let process = leader.filter(|_| self.rng.random_ratio(2, 5)).unwrap_or(process);
        if !self.weather.faults.has(fault) || !self.processes[process].up {
            return Ok(());
        }
        match fault {
            Fault::Partition => self.partition(leader),
            Fault::Crash => self.processes[process].fuse = Some(self.rng.random_range(0..40)),
            Fault::DiskFailure => self.processes[process].disk_fails = true,
            Fault::Drift => {
                let rate = self.rng.random_range(750..=1330);
                note!(self, "{}'s clock goes at {rate} ‰", name(process));
                let now = self.now;
                self.processes[process].clock.set_rate(now, rate);
                self.rearm(process);
            }
            Fault::Jump => {
                let by = match self.rng.random_range(0..3) {
                    0 => -self.rng.random_range(0..1_000_000),
                    1 => self.rng.random_range(0..1_000_000),
                    _ => self.rng.random_range(0..10_000_000),
                };
                note!(self, "{}'s clock jumps by {by} µs", name(process));
                let now = self.now;
                self.processes[process].clock.jump(now, by);
                self.rearm(process);
            }
            Fault::Freeze => self.freeze(process),
            Fault::SlowNode => {
                let slow = self.rng.random_range(0..100_000);
                let slow = if self.rng.random() { 0 } else { slow };
                note!(self, "{} does everything {slow} µs late", name(process));
                self.processes[process].slow = slow;
            }
            Fault::Transfer => {
                let to = self.rng.random_range(0..=self.size as u64);
                note!(self, "{} is asked to hand over to n{to}", name(process));
                return self.feed(process, node::Input::Transfer((to > 0).then_some(to)));
            }
            Fault::Close => return self.close(process),
            _ => unreachable!("no strike"),
        }
        Ok(())
    }

    /// After its clock changed, the process's timer is another one.
    fn rearm(&mut self, process: usize) {
        self.processes[process].timer = None;
        self.arm(process);
    }

    fn partition(&mut self, leader: Option<usize>) {
        let all = (1u8 << (self.processes.len() - 1) << 1).wrapping_sub(1);
        let half = self.rng.next_u32() as u8 & all;
        self.cut = [0; MOST];
        match self.rng.random_range(0..6) {
            0 | 1 => {}
            2 => self.cut_between(half, all & !half),
            3 => {
                for from in 0..self.processes.len() {
                    if half & (1 << from) != 0 {
                        self.cut[from] = all & !half; // They are heard, and hear nothing.
                    }
                }
            }
            4 => {
                let bridge = 1 << self.rng.random_range(0..self.processes.len());
                self.cut_between(half & !bridge, all & !half & !bridge);
            }
            _ => {
                let alone = 1 << leader.unwrap_or(0);
                self.cut_between(alone, all & !alone);
            }
        }
        note!(self, "cuts: {:?}", &self.cut[..self.processes.len()]);
    }

    fn cut_between(&mut self, one: u8, other: u8) {
        for process in 0..self.processes.len() {
            if one & (1 << process) != 0 {
                self.cut[process] |= other;
            }
            if other & (1 << process) != 0 {
                self.cut[process] |= one;
            }
        }
    }

    fn freeze(&mut self, process: usize) {
        let whole = self.rng.random();
        let p = &mut self.processes[process];
        if p.frozen != Frozen::No {
            return;
        }
        p.frozen = if whole { Frozen::Whole } else { Frozen::Timers };
        let start = p.start;
        let pause = self.rng.random_range(1_000..5_000_000);
        note!(
            self,
            "{} freezes for {pause} µs, {}",
            name(process),
            match whole {
                true => "whole",
                false => "only its timers",
            }
        );
        self.schedule(self.now + pause, Event::Thaw { process, start });
    }

    fn thaw(&mut self, process: usize) -> Check {
        let p = &mut self.processes[process];
        p.frozen = Frozen::No;
        note!(self, "{} thaws", name(process));
        // In the order in which things happened, or timers first: nobody promises anything.
        let mut stash = std::mem::take(&mut self.processes[process].stash);
        if self.rng.random() {
            stash.sort_by_key(|event| !matches!(event, Event::Timer { .. }));
        }
        let start = self.processes[process].start;
        for event in stash {
            if self.is_current(process, start) {
                self.happen(event)?;
            }
        }
        Ok(())
    }

    fn close(&mut self, process: usize) -> Check {
        if self.processes[process].closing || !self.may_crash(process) {
            return Ok(());
        }
        note!(self, "{} is being closed", name(process));
        let p = &mut self.processes[process];
        p.closing = true;
        let (start, goodbye) = (p.start, p.tenancy.handle_close());
        let pause = self.rng.random_range(0..400_000);
        self.schedule(self.now + pause, Event::Exit { process, start });
        self.take_forming(process, goodbye)?;
        if !self.is_current(process, start) || self.processes[process].refused {
            return Ok(());
        }
        self.feed(process, node::Input::Close(Refusal::new("CLOSED", "closed")))
    }

    // The end.

    /// The faults stop.
    fn heal(&mut self) -> Check {
        note!(self, "the faults stop");
        self.healed = Some(self.now);
        self.cut = [0; MOST];
        // Sometimes the power was out: everyone begins in the same moment, and with the same hopes.
        let blackout = self.weather.faults.has(Fault::Crash) && self.rng.random_ratio(1, 4);
        for process in 0..self.processes.len() {
            if blackout && self.processes[process].disk.identity().is_some() {
                self.crash(process, "has no power");
            }
        }
        for process in 0..self.processes.len() {
            let now = self.now;
            let p = &mut self.processes[process];
            (p.slow, p.fuse, p.disk_fails) = (0, None, false);
            p.clock.set_rate(now, 1000);
            if p.up && p.closing {
                self.crash(process, "closes");
            }
            if !self.processes[process].up {
                self.start(process)?;
            }
            if self.processes[process].frozen != Frozen::No {
                self.thaw(process)?;
            }
            if self.processes[process].up {
                self.rearm(process);
            }
        }
        self.schedule(self.now + 5_000, Event::Strike);
        Ok(())
    }

    /// After the faults: is there what must be there by now?
    fn judge(&mut self) -> Check {
        if self.done {
            return Ok(());
        }
        let healed = self.healed.expect("the faults have stopped");
        // Who runs in a set that formed without the others' knowledge, which have withdrawn since, is
        // out for good.
        let set = |p: &usize| {
            let p = &self.processes[*p];
            p.membership.as_ref().filter(|_| p.up).map(|membership| membership.hash)
        };
        let all = 0..self.processes.len();
        let among = |hash| all.clone().filter(|p| set(p) == Some(hash)).collect::<Vec<_>>();
        let members = self.sets.keys().map(|hash| among(*hash)).max_by_key(Vec::len);
        let members = members.unwrap_or_default();
        let quorum = self.size / 2 + 1;
        if self.led.is_none() && members.len() < quorum {
            // Those who withdrew while others formed, or forgot that they had, are out for good.
            let free = self.processes.iter().filter(|p| !p.refused && p.membership.is_none());
            let late = self.now > healed + FORMED_WITHIN;
            let some_are_out = !self.sets.is_empty() || self.processes.iter().any(|p| p.refused);
            if free.count() == 0 || late && some_are_out {
                self.stats.lost += 1;
                self.done = true;
            } else if late {
                return Err(format!("{} of {} never form a cluster", members.len(), self.size));
            }
            return Ok(());
        }
        let follows = |p: &usize| {
            let raft = self.processes[*p].node.raft();
            raft.and_then(raft::Raft::leader).map(|leader| (raft.map(raft::Raft::term), leader))
        };
        let Some(led) = self.led else {
            let leaders: BTreeSet<_> = members.iter().map(follows).collect();
            if leaders.len() == 1 && leaders.iter().all(Option::is_some) {
                note!(self, "everyone follows one leader");
                self.led = Some(self.now);
            } else if self.now > self.led_by(healed) {
                return Err("no leader is agreed upon long after the faults stopped".into());
            }
            return Ok(());
        };
        if !std::mem::replace(&mut self.probed, true) {
            for process in &members {
                let performs = vec![self.perform(*process, Method::Swap)];
                self.feed(*process, node::Input::Perform(performs))?;
            }
            return Ok(());
        }
        let waiting = members.iter().find(|p| self.processes[**p].node.store().waiting() > 0);
        let ends = |p: &usize| {
            let node = &self.processes[*p].node;
            let raft = node.raft().expect("a member has one");
            (raft.log().last(), raft.commit_index(), node.store().applied())
        };
        let even = members.windows(2).all(|two| ends(&two[0]) == ends(&two[1]))
            && members.iter().all(|p| ends(p).0.index == ends(p).2);
        if waiting.is_none() && even {
            self.done = true;
            return self.check_end(&members);
        }
        if self.now > led + SETTLED_WITHIN {
            return Err(match waiting {
                Some(process) => format!("a perform or read of {} never settles", name(*process)),
                None => "the members never agree on one log".into(),
            });
        }
        Ok(())
    }

    /// When a leader must be known: the forming of the cluster may still be under way, and a node that
    /// learns late that it has formed disturbs nobody.
    fn led_by(&self, healed: Micros) -> Micros {
        let forming = self.processes.iter().any(|p| p.membership.is_none() && !p.refused);
        let patience = self.weather.election.1 * 1000 * LEADER_WITHIN;
        healed + if forming { FORMED_WITHIN } else { patience.max(2_000_000) }
    }

    fn check_end(&self, members: &[usize]) -> Check {
        let states: BTreeSet<u64> = members
            .iter()
            .flat_map(|p| {
                let store = self.processes[*p].node.store();
                [store.committed().hash(), store.provisional().hash()]
            })
            .collect();
        if states.len() > 1 {
            return Err("the members end in different states".into());
        }
        for (op, record) in (1..).zip(self.history.ops()) {
            let p = &self.processes[record.process];
            if record.answered.is_none()
                && p.client == record.client
                && members.contains(&record.process)
            {
                return Err(format!("op {op} of {} was never settled", name(record.process)));
            }
        }
        Ok(())
    }
}

/// A letter in a line.
struct Line<'a>(&'a Letter);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Letter::Node(Packet::Raft(message)) => write!(f, "{message}"),
            Letter::Node(Packet::Store(message)) => {
                write!(f, "T{} {:?}", message.term, message.body)
            }
            Letter::Form(message) => write!(f, "{:?}", message.body),
        }
    }
}

struct Entries<'a>(&'a [raft::Entry]);

impl fmt::Display for Entries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entry in self.0 {
            write!(f, " {entry}")?;
        }
        Ok(())
    }
}
