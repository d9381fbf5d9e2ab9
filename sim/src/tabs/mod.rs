//! The simulator of elastic clusters: one browser, its tabs, and what faults them. The same seed gives
//! the same run.
//!
//! Each tab runs the real host core ([`Host`]) with all that is below it. Tabs open, close, crash
//! between any two effects, freeze with and without warning, hide, and come back; locks are dropped
//! without a word; all tabs die at once.

macro_rules! note {
    ($world:expr, $($text:tt)*) => {
        if $world.plan.trace {
            let line = format!($($text)*);
            $world.trace.push(format!("{:>12.3} ms  {line}", $world.now as f64 / 1000.0));
        }
    };
}

mod clients;
mod faults;
mod pages;
mod plan;
mod storage;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use conflux::elastic;
use conflux::host::core::Host;
use conflux::host::elastic::name;
use conflux::host::types::{Effect, Input, Kind, Notice, Output, Settings};
use conflux::node::Durability;
use conflux::raft::{Blob, Members, NodeId, Raft, Time};
use conflux::store::{self, Perform};
use conflux::wire;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

pub use self::plan::{Plan, Report, Stats};
use crate::browser::{Answer, Browser, Database, Page};
use crate::clock::{Clock, Micros};
use crate::conditions::quiesce_interval;
use crate::history::{Asked, History, Op};
use crate::invariants::{Check, Invariants, Last};
use crate::machine::{Args, KEYS, Method, OpId, Registers, State, encode};
use crate::parallel::failure;

/// The most tabs at once.
const MOST: usize = 8;
/// How many performs and reads of a tab wait before it asks for no more.
const PATIENCE: usize = 8;
/// When faults stop, all settles within this.
const SETTLED_WITHIN: Micros = 120_000_000;
/// How many events there are at most after the faults have stopped.
const LONGEST_END: u64 = 1_000_000;

#[derive(Debug)]
enum Event {
    Frame { to: Page, frame: Vec<u8> },
    Timer { page: Page },
    Storage { database: Database },
    Locks,
    Released { page: Page },
    Client { page: Page },
    Fault,
    Thaw { page: Page },
    Open,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frozen {
    No,
    /// The page was told before; it has let go of everything.
    Told,
    /// Timers, storage and locks stand still; frames are taken in.
    Partly,
    /// Nothing happens in it.
    Fully,
}

struct Tab {
    open: bool,
    page: u32,
    core: Host<State>,
    machine: Registers,
    clock: Clock,
    deadline: Option<Time>,
    timer: Option<Micros>,
    frozen: Frozen,
    stash: Vec<Input<State>>,
    listens: BTreeSet<String>,
    lasts: BTreeMap<NodeId, Last>,
    /// So many effects from now on it dies.
    fuse: Option<u32>,
    visible: bool,
}

struct Conditions {
    loss: bool,
    duplication: bool,
    freezes: bool,
    crashes: bool,
    drops: bool,
    extinction: bool,
    hides: bool,
    timeouts: bool,
    fault_pause: Micros,
    pause: Micros,
    latency: Micros,
    storage: Micros,
    compact_bytes: usize,
    max_message_bytes: usize,
    max_voters: usize,
    quiesce_interval: Option<Time>,
    election: (Time, Time),
}

struct World {
    rng: SmallRng,
    plan: Plan,
    trace: Vec<String>,
    conditions: Conditions,
    now: Micros,
    queue: BinaryHeap<Reverse<(Micros, u64, usize)>>,
    scheduled: u64,
    slots: Vec<Option<Event>>,
    browser: Browser,
    tabs: Vec<Tab>,
    invariants: Invariants,
    history: History,
    pages: u16,
    healed: Option<Micros>,
    probed: bool,
    done: bool,
    stats: Stats,
}

/// Runs a plan.
pub fn run(plan: &Plan) -> Report {
    let mut world = World::new(plan);
    let failure = failure(|| world.run());
    world.stats.time = world.now;
    world.stats.committed = world.invariants.committed();
    world.stats.elections = world.invariants.elections() as u64;
    Report { plan: plan.clone(), failure, stats: world.stats, trace: world.trace }
}

impl World {
    fn new(plan: &Plan) -> Self {
        let mut rng = SmallRng::seed_from_u64(plan.seed ^ 0x7ab5);
        let all = rng.random_ratio(1, 6);
        let mut may = |of: u32| all || rng.random_ratio(of, 5);
        let (loss, duplication) = (may(1), may(2));
        let (freezes, crashes, drops) = (may(3), may(4), may(2));
        let (extinction, hides, timeouts) = (may(3), may(3), may(3));
        let min = rng.random_range(100..=300);
        let conditions = Conditions {
            loss,
            duplication,
            freezes,
            crashes,
            drops,
            extinction,
            hides,
            timeouts,
            fault_pause: rng.random_range(20_000..600_000),
            pause: rng.random_range(5_000..80_000),
            latency: rng.random_range(400..5_000),
            storage: rng.random_range(300..8_000),
            compact_bytes: rng.random_range(200..8_000),
            max_message_bytes: rng.random_range(200..4_000),
            max_voters: rng.random_range(1..=5),
            quiesce_interval: quiesce_interval(&rng),
            election: (min, min + rng.random_range(20..=200)),
        };
        let mut world = Self {
            rng,
            plan: plan.clone(),
            trace: Vec::new(),
            conditions,
            now: 1_000_000,
            queue: BinaryHeap::new(),
            scheduled: 0,
            slots: Vec::new(),
            browser: Browser::default(),
            tabs: Vec::new(),
            invariants: Invariants::new(Members::default()),
            history: History::default(),
            pages: 0,
            healed: None,
            probed: false,
            done: false,
            stats: Stats { runs: 1, ..Stats::default() },
        };
        for _ in 0..world.rng.random_range(1..=5) {
            let at = world.now + world.rng.random_range(0..50_000);
            world.schedule(at, Event::Open);
        }
        let first = world.now + world.rng.random_range(0..500_000);
        world.schedule(first, Event::Fault);
        world
    }

    fn schedule(&mut self, at: Micros, event: Event) {
        self.slots.push(Some(event));
        self.scheduled += 1;
        self.queue.push(Reverse((at, self.scheduled, self.slots.len() - 1)));
    }

    fn run(&mut self) -> Check {
        while !self.done {
            let Some(Reverse((at, _, slot))) = self.queue.pop() else {
                return Err("nothing will ever happen again".into());
            };
            let event = self.slots[slot].take().expect("it was scheduled");
            self.now = at;
            self.stats.events += 1;
            self.happen(event)?;
            if self.stats.events >= self.plan.steps && self.healed.is_none() {
                self.heal()?;
            }
            if self.stats.events >= self.plan.steps + LONGEST_END {
                return Err("the tabs never get quiet".into());
            }
        }
        self.history.check()
    }

    fn happen(&mut self, event: Event) -> Check {
        match event {
            Event::Frame { to, frame } => match self.is_current(to) {
                true => self.give(to, Input::Frame(frame)),
                false => Ok(()),
            },
            Event::Timer { page } => {
                if !self.is_current(page) || self.tabs[page.0].timer.is_none_or(|at| at > self.now)
                {
                    return Ok(());
                }
                self.tabs[page.0].timer = None;
                self.give(page, Input::Tick)
            }
            Event::Storage { database } => self.storage(database),
            Event::Locks => {
                for Answer { page, input } in std::mem::take(&mut self.browser.answers) {
                    self.give(page, input)?;
                }
                Ok(())
            }
            Event::Released { page } => {
                self.browser.release_all(page);
                self.report_locks();
                Ok(())
            }
            Event::Client { page } => self.client(page),
            Event::Fault => self.inject_fault(),
            Event::Thaw { page } if self.is_current(page) => self.thaw(page.0),
            Event::Thaw { .. } => Ok(()),
            Event::Open => self.open(),
        }
    }

    /// One more effect. `false` when the tab dies instead.
    fn burn(&mut self, at: usize) -> bool {
        match &mut self.tabs[at].fuse {
            Some(0) => {
                self.kill(at);
                false
            }
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }

    /// Gives a tab one input, and does what it asks for, up to where user code has run.
    fn feed(&mut self, at: usize, input: Input<State>) -> Check {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let now = self.tabs[at].clock.read(self.now);
            let output = self.tabs[at].core.handle(now, input);
            let page = (at, self.tabs[at].page);
            let Output { settled, notices, effects, call, deadline } = output;
            for effect in &effects {
                self.appended(at, effect)?;
            }
            self.look(at, false)?;
            self.tabs[at].deadline = deadline;
            for settled in settled {
                self.settle(at, &settled)?;
            }
            for (to, frame) in self.tabs[at].core.take_frames() {
                if !self.burn(at) {
                    return Ok(());
                }
                self.post(page, to.as_deref(), &frame);
            }
            for effect in effects {
                if !self.burn(at) {
                    return Ok(());
                }
                self.effect(page, effect)?;
            }
            for notice in notices {
                if let Notice::Error(failure) = notice {
                    note!(self, "tab {at} is told {}: {}", failure.code, failure.message);
                    if failure.code != "REDUCER_FAILED" {
                        return Err(format!("tab {at} is told {failure:?}"));
                    }
                }
            }
            if let Some(call) = call {
                if !self.burn(at) {
                    return Ok(());
                }
                let tab = &mut self.tabs[at];
                tab.core.enter();
                tab.machine.provisional = tab.core.provisional().clone();
                next = Some(Input::Returned(call.run(&mut tab.machine)));
            }
        }
        self.look(at, true)?;
        if self.tabs[at].machine.notified_twice {
            return Err(format!("tab {at} was told of one action twice"));
        }
        self.arm(at);
        Ok(())
    }

    fn arm(&mut self, at: usize) {
        let (now, tab) = (self.now, &mut self.tabs[at]);
        let Some(deadline) = tab.deadline.filter(|_| tab.open) else { return };
        let when = tab.clock.when(now, deadline).max(now + 1);
        if tab.timer.is_none_or(|timer| timer > when) {
            tab.timer = Some(when);
            let page = (at, tab.page);
            self.schedule(when, Event::Timer { page });
        }
    }

    fn post(&mut self, from: Page, to: Option<&str>, frame: &[u8]) {
        let receivers = self.tabs.iter().enumerate().filter(|(at, tab)| {
            tab.open && *at != from.0 && to.is_none_or(|id| tab.listens.contains(id))
        });
        let receivers: Vec<_> = receivers.map(|(at, tab)| (at, tab.page)).collect();
        for page in receivers {
            let faulty = self.healed.is_none();
            if faulty && self.conditions.loss && self.rng.random_ratio(1, 30) {
                continue;
            }
            let twice = faulty && self.conditions.duplication && self.rng.random_ratio(1, 30);
            for _ in 0..=usize::from(twice) {
                let at = self.now + self.rng.random_range(200..=self.conditions.latency);
                self.schedule(at, Event::Frame { to: page, frame: frame.to_vec() });
            }
        }
        if self.plan.trace
            && let Ok((header, messages)) = wire::read::<conflux::host::transport::Message>(frame)
        {
            for message in messages {
                let (from, to) = (name(header.from), name(header.to));
                note!(self, "{from} → {to} {}", crate::world::Line(&message));
            }
        }
    }

    /// What must hold in every node here (of the states only once user code has returned), but in one that has been taken over and does not know it.
    fn look(&mut self, at: usize, states: bool) -> Check {
        let tab = &mut self.tabs[at];
        let now = tab.clock.read(self.now);
        let running: Vec<_> = tab.core.elastic().expect("an elastic cluster").running().collect();
        tab.lasts.retain(|node, _| running.contains(node));
        for node in running {
            let (Some(here), Some(epoch)) = (tab.core.node(node), tab.core.epoch(node)) else {
                continue;
            };
            let current = self.browser.nodes.get(&node).map(|stored| stored.epoch);
            let Some(raft) = here.raft() else { continue };
            let last = tab.lasts.entry(node).or_default();
            if current != Some(epoch) {
                // Even so what it takes for committed is.
                self.invariants.look_at_commit(last, raft, &mut self.history)?;
                continue;
            }
            self.invariants.look_at_raft(last, raft, now, &mut self.history)?;
            if states {
                self.invariants.look_at_state(last, raft, here.store())?;
            }
        }
        Ok(())
    }
}
