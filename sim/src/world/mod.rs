//! The simulator of fixed clusters: processes, the network between them, time, clients and faults.

macro_rules! note {
    ($world:expr, $($text:tt)*) => {
        if $world.tracing {
            let line = format!($($text)*);
            $world.note(&line);
        }
    };
}

mod clients;
mod effects;
mod faults;
mod healed;
mod network;
mod plan;
mod processes;
mod trace;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use conflux::formation::{self, Formation, Plan as MemberPlan, Set, To};
use conflux::host::transport::Message;
use conflux::node::{self, Durability, Node, Packet};
use conflux::raft::{self, Blob, Change, Members, Time};
use conflux::store::Fault as Reported;
use conflux::store::{self, Failure, Perform};
use conflux::wire::{self, FrameWriter, Header};
use rand::{Rng, RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

pub use self::plan::{Plan, Report, Stats};
use self::trace::Entries;
pub(crate) use self::trace::Line;
use crate::clock::{Clock, Micros};
use crate::conditions::{Conditions, Fault};
use crate::disk::{Disk, Identity, Write};
use crate::history::{Asked, History, Op};
use crate::invariants::{Check, Invariants, Last};
use crate::machine::{Args, KEYS, Method, OpId, Registers, State, encode};
use crate::parallel::failure;

/// The most processes, including those that join later.
const MAX_PROCESSES: usize = 8;
/// The nonce of a process that joins later is its number plus this.
const JOINER: u64 = 1 << 40;
/// A client that waits for so many performs and reads asks for nothing more.
const MAX_WAITING: usize = 12;
/// After the faults have stopped, a leader must be known within so many times the longest election
/// timeout.
const LEADER_WITHIN: u64 = 20;
/// After the faults have stopped, the cluster must form within this time.
const FORMED_WITHIN: Micros = 60_000_000;
/// How many events there are at most after the faults have stopped.
const MAX_EVENTS_AFTER_FAULTS: u64 = 2_000_000;
/// After a leader is known, everything must settle within this time.
const SETTLED_WITHIN: Micros = 60_000_000;

/// A message in flight from one process to another.
#[derive(Debug)]
struct InFlight {
    from: usize,
    to: usize,
    header: Header,
    message: Message,
}

#[derive(Debug)]
enum Event {
    Deliver(InFlight),
    Timer { process: usize, start: u32 },
    Written { process: usize, start: u32 },
    Client { process: usize },
    Read { process: usize, start: u32 },
    Fault,
    Change { process: usize, start: u32 },
    Exit { process: usize, start: u32 },
    Restart { process: usize },
    Thaw { process: usize, start: u32 },
}

/// How much of a process is frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frozen {
    No,
    /// Timers do not fire, but messages and the results of writes arrive.
    Timers,
    Everything,
}

/// A process's place in a cluster that has formed.
#[derive(Debug)]
struct Membership {
    /// Its node id in Raft.
    number: u64,
    /// The nonce under which the other members know it.
    nonce: u64,
    /// The place of its cluster in [`World::clusters`].
    cluster: usize,
    /// The hash of the set with which the cluster formed.
    hash: u64,
}

#[derive(Debug)]
struct Process {
    up: bool,
    /// Counts starts. An event that was scheduled for an earlier start is ignored.
    start: u32,
    /// The number of its client. Each start is another client.
    client: u16,
    clock: Clock,
    disk: Disk,
    formation: Formation,
    node: Node<State>,
    machine: Registers,
    membership: Option<Membership>,
    last: Last,
    /// The cluster does not take the process.
    refused: bool,
    /// The leader or the members have changed since the formation last looked at Raft.
    changed: bool,
    closing: bool,
    /// When the node wants its next tick, on the process's own clock.
    deadline: Option<Time>,
    /// When the timer fires that is set, in simulated time.
    timer: Option<Micros>,
    /// The disk is at work on a write.
    writing: bool,
    /// The write that finishes next fails.
    disk_fails: bool,
    /// The process dies after so many more effects.
    crash_after: Option<u32>,
    frozen: Frozen,
    /// What arrived while the process was frozen.
    stash: Vec<Event>,
    /// By how much its messages and writes are late.
    slow: Micros,
}

impl Process {
    /// When the formation needs its next tick. A process that joins an existing cluster has no use
    /// for it.
    fn forming_deadline(&self) -> Option<Time> {
        let joins = self.membership.as_ref().is_some_and(|m| joiner(m.nonce).is_some());
        self.formation.deadline().filter(|_| !joins)
    }
}

/// Runs a plan.
pub fn run(plan: &Plan) -> Report {
    let mut world = World::new(plan);
    let failure = failure(|| world.run());
    world.stats.time = world.now;
    world.stats.committed =
        world.clusters.iter().map(|(_, invariants)| invariants.committed()).sum();
    world.stats.elections =
        world.clusters.iter().map(|(_, cluster)| cluster.elections() as u64).sum();
    Report {
        plan: plan.clone(),
        failure,
        stats: world.stats,
        nodes: world.size,
        faults: world.conditions.faults,
        trace: world.trace,
    }
}

struct World {
    rng: Xoshiro256PlusPlus,
    steps: u64,
    tracing: bool,
    trace: Vec<String>,
    conditions: Conditions,
    /// How many members the cluster has when it forms.
    size: usize,
    /// Which processes may become members.
    member_plan: MemberPlan,
    now: Micros,
    /// When each scheduled event happens, in which order they were scheduled, and its slot.
    queue: BinaryHeap<Reverse<(Micros, u64, usize)>>,
    scheduled: u64,
    slots: Vec<Option<Event>>,
    free: Vec<usize>,
    processes: Vec<Process>,
    /// The processes that joined later, in the order of their numbers, which follow those of the
    /// first members.
    joined: Vec<usize>,
    /// The processes that came back without their memory, by their new number, which is their
    /// nonce.
    returned: BTreeMap<u64, usize>,
    /// The version of the application that each process runs.
    versions: [u32; MAX_PROCESSES],
    /// Bit b of `cut[a]`: what a sends does not reach b.
    cut: [u8; MAX_PROCESSES],
    /// `arrivals[a][b]`: when the last message from a to b arrives.
    arrivals: [[Micros; MAX_PROCESSES]; MAX_PROCESSES],
    /// The clusters that have formed: the hash of the set, and what must hold in the cluster.
    clusters: Vec<(u64, Invariants)>,
    /// The sets with which clusters have formed, by their hash.
    sets: BTreeMap<u64, Set>,
    history: History,
    clients: u16,
    /// How many more processes may die before their identity is durable. If a majority did, the
    /// cluster could never go on.
    expendable: usize,
    /// When the faults stopped.
    healed: Option<Micros>,
    /// When all members followed one leader, after the faults had stopped.
    leader_agreed: Option<Micros>,
    /// Each member has been asked for one more perform since then.
    probed: bool,
    done: bool,
    stats: Stats,
}

/// The number of a node that joins later, from its nonce.
fn joiner(nonce: u64) -> Option<u64> {
    nonce.checked_sub(JOINER).filter(|number| *number < 1_000)
}

/// A process's name in traces, which is also its id: a letter.
fn name(process: usize) -> char {
    char::from(b'a' + process as u8)
}

impl World {
    fn new(plan: &Plan) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(plan.seed);
        let drawn = [1, 2, 3, 3, 3, 4, 5, 5, 6, 7][rng.random_range(0..10)];
        let size = plan.nodes.unwrap_or(drawn);
        let conditions = Conditions::draw(&mut rng, size + 1, plan.without);
        // Any process completes a cluster of one, so no process is one too many there.
        let changes = conditions.faults.has(Fault::Membership);
        let crowd = size > 1 && conditions.faults.has(Fault::Crowd) && !changes;
        let joiners = if changes { (size + 2).min(MAX_PROCESSES) - size } else { 0 };
        let processes = size + usize::from(crowd) + joiners;
        let named = rng.random_ratio(1, 4);
        let member_plan = match named {
            true => MemberPlan::Ids((0..size).map(|p| name(p).to_string()).collect()),
            false => MemberPlan::Size(size),
        };
        let mut world = Self {
            rng,
            steps: plan.steps,
            tracing: plan.trace,
            trace: Vec::new(),
            conditions,
            size,
            member_plan,
            now: 1_000_000,
            queue: BinaryHeap::new(),
            scheduled: 0,
            slots: Vec::new(),
            free: Vec::new(),
            processes: Vec::new(),
            joined: Vec::new(),
            returned: BTreeMap::new(),
            versions: [1; MAX_PROCESSES],
            cut: [0; MAX_PROCESSES],
            arrivals: [[0; MAX_PROCESSES]; MAX_PROCESSES],
            clusters: Vec::new(),
            sets: BTreeMap::new(),
            history: History::default(),
            clients: 0,
            expendable: if changes { 0 } else { (size - 1) / 2 },
            healed: None,
            leader_agreed: None,
            probed: false,
            done: false,
            stats: Stats { runs: 1, ..Stats::default() },
        };
        note!(world, "{size} members, {processes} processes; {:?}", world.conditions);
        for process in 0..processes {
            let new = world.new_process(process, Disk::default(), 0);
            world.processes.push(new);
            let at = world.now + world.rng.random_range(0..50_000);
            world.schedule(at, Event::Restart { process });
        }
        let first = world.now + world.rng.random_range(0..200_000);
        world.schedule(first, Event::Fault);
        world
    }

    /// A process that has not started yet.
    fn new_process(&mut self, process: usize, disk: Disk, start: u32) -> Process {
        let seed = self.rng.next_u64();
        let own = self.rng.random_range(0..1_000_000_000);
        let clock = Clock::new(self.now, own);
        let now = clock.read(self.now);
        let id = name(process).to_string();
        let formation = match disk.identity() {
            None => Formation::new(id, self.member_plan.clone(), now, seed),
            Some(identity) if joiner(identity.nonce).is_some() => {
                Formation::new(id, self.member_plan.clone(), now, seed)
            }
            Some(identity) => {
                let Identity { nonce, set, .. } = identity.clone();
                Formation::resume(id, nonce, set, self.member_plan.clone(), now, seed)
            }
        };
        let newest = self.versions[process];
        // Only a voter can judge. In runs with both, nothing makes the processes with newer code
        // voters.
        let faults = self.conditions.faults;
        let releases = faults.has(Fault::Release) && !faults.has(Fault::Membership);
        let is_new = start > 0 && newest < 3 && releases;
        let version = newest + u32::from(is_new && self.rng.random_ratio(1, 4));
        self.versions[process] = version;
        let salt = u64::from(start) << 8 | process as u64;
        let failing = self.conditions.failing_reducer.filter(|(failing, _)| *failing == process);
        let fails_on = failing.map(|(_, every)| every);
        let config = store::Config {
            max_action_bytes: 100_000,
            max_message_bytes: self.conditions.max_message_bytes,
            max_pending_bytes: 1 << 20,
            retry: self.conditions.retry,
            compact_bytes: self.conditions.compact_bytes,
            version,
            max_sessions: self.conditions.max_sessions,
        };
        Process {
            up: false,
            start,
            client: 0,
            clock,
            disk,
            formation,
            node: Node::new(
                config,
                State::local(process, version),
                Durability::Durable,
                seed.wrapping_add(1),
            ),
            machine: Registers { fails_on, version, salt, ..Registers::default() },
            membership: None,
            last: Last::default(),
            refused: false,
            changed: false,
            closing: false,
            deadline: None,
            timer: None,
            writing: false,
            disk_fails: false,
            crash_after: None,
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
                return Err("the run has not ended, but no event is scheduled".into());
            };
            let event = self.slots[slot].take().expect("it was scheduled");
            self.free.push(slot);
            self.now = at;
            self.stats.events += 1;
            self.dispatch(event)?;
            if self.stats.events >= self.steps && self.healed.is_none() {
                self.heal()?;
            }
            if self.stats.events >= self.steps + MAX_EVENTS_AFTER_FAULTS {
                return Err("the processes are not done long after the faults stopped".into());
            }
        }
        self.history.check()
    }

    fn is_current(&self, process: usize, start: u32) -> bool {
        self.processes[process].up && self.processes[process].start == start
    }

    fn dispatch(&mut self, event: Event) -> Check {
        let receiver = match &event {
            Event::Deliver(in_flight) => Some(in_flight.to),
            Event::Timer { process, start } | Event::Written { process, start } => {
                if !self.is_current(*process, *start) {
                    return Ok(());
                }
                Some(*process)
            }
            _ => None,
        };
        if let Some(process) = receiver {
            let timer = matches!(event, Event::Timer { .. });
            match self.processes[process].frozen {
                Frozen::Everything => {
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
            Event::Deliver(in_flight) => self.deliver(in_flight),
            Event::Timer { process, .. } => self.timer(process),
            Event::Written { process, .. } => self.written(process),
            Event::Client { process } => self.client(process),
            Event::Read { process, start } if self.is_current(process, start) => self.read(process),
            Event::Fault => self.inject_fault(),
            Event::Exit { process, start } if self.is_current(process, start) => {
                self.crash(process, "closes");
                Ok(())
            }
            Event::Restart { process } => self.start(process),
            Event::Thaw { process, start } if self.is_current(process, start) => self.thaw(process),
            Event::Change { process, start } if self.is_current(process, start) => {
                self.change(process)
            }
            Event::Exit { .. } | Event::Thaw { .. } | Event::Change { .. } => Ok(()),
            Event::Read { .. } => Ok(()),
        }
    }
}
