//! The simulator of elastic clusters: one browser and its tabs, under faults. The same seed gives
//! the same run.
//!
//! Each tab runs the real host core ([`Host`]) and everything below it. Tabs open, close, hide,
//! crash between any two effects, and freeze, with or without a warning. Tabs lose locks without
//! notice. All tabs die at once. In a quarter of the runs users end the cluster or delete the site's
//! data, and another cluster is founded.

macro_rules! note {
    ($world:expr, $($text:tt)*) => {
        if $world.plan.trace {
            let line = format!($($text)*);
            $world.trace.push(format!("{:>12.3} ms  {line}", $world.now as f64 / 1000.0));
        }
    };
}

mod clients;
mod endings;
mod faults;
mod incarnations;
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
use rand::{Rng, RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use self::endings::Endings;
use self::incarnations::Incarnations;
pub use self::plan::{Plan, Report, Stats};
use crate::browser::{Answer, Browser, Database, Page, Request, Task};
use crate::clock::{Clock, Micros};
use crate::conditions::quiesce_interval;
use crate::history::{Asked, History, Op};
use crate::invariants::{Check, Invariants, Last};
use crate::machine::{Args, KEYS, Method, OpId, Registers, State, encode};
use crate::parallel::failure;

/// The most tabs at once.
const MAX_TABS: usize = 8;
/// A tab that waits for so many performs and reads asks for nothing more.
const MAX_WAITING: usize = 8;
/// After the faults have stopped, everything must settle within this time.
const SETTLED_WITHIN: Micros = 120_000_000;
/// How many events there are at most after the faults have stopped.
const MAX_EVENTS_AFTER_FAULTS: u64 = 1_000_000;

#[derive(Debug)]
enum Event {
    Frame {
        to: Page,
        frame: Vec<u8>,
    },
    Timer {
        page: Page,
    },
    Storage {
        database: Database,
    },
    /// A page makes the request that follows another one.
    Next {
        database: Database,
        request: Request,
    },
    Locks,
    Released {
        page: Page,
    },
    Client {
        page: Page,
    },
    Fault,
    Thaw {
        page: Page,
    },
    Open,
    /// A user ends the cluster, or the site's data are deleted. `planned`: or that is to happen in
    /// a moment that matters.
    Ending {
        planned: bool,
    },
    /// The user goes to another page.
    Leave {
        page: Page,
    },
    /// The user loads the page again.
    Reload {
        page: Page,
    },
}

/// How much of a tab is frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frozen {
    No,
    /// Everything. The page was warned and has released its nodes and locks.
    Suspended,
    /// Timers, storage and locks, but the page still receives frames.
    AllButFrames,
    /// Everything. The page was not warned.
    Everything,
}

struct Tab {
    open: bool,
    /// Which of its pages the tab shows, counted from 1.
    page: u32,
    core: Host<State>,
    machine: Registers,
    clock: Clock,
    /// When the host wants its next tick, on the tab's own clock.
    deadline: Option<Time>,
    /// When the timer fires that is set, in simulated time.
    timer: Option<Micros>,
    frozen: Frozen,
    /// The inputs that came while the tab was frozen.
    stash: Vec<Input<State>>,
    /// The ids for which it receives frames.
    listens: BTreeSet<String>,
    /// What each node that runs in the tab showed when it was last checked.
    lasts: BTreeMap<NodeId, Last>,
    /// The incarnation of the cluster to which its last own node belongs; 0 if it had none yet.
    incarnation: u64,
    /// Its host has stopped for good: the user was told that the cluster is over.
    stopped: bool,
    /// The tab dies after so many more effects.
    crash_after: Option<u32>,
    visible: bool,
}

/// The conditions of one run: which faults may happen, how often, latencies and limits.
struct Conditions {
    loss: bool,
    duplication: bool,
    freezes: bool,
    crashes: bool,
    /// Tabs lose locks without notice.
    drops: bool,
    /// All tabs die at once.
    extinction: bool,
    hides: bool,
    /// Clients give up on performs.
    timeouts: bool,
    /// The mean pause between two attempts to inject a fault.
    fault_pause: Micros,
    /// The mean pause between two requests of one tab.
    pause: Micros,
    /// The longest time that a frame takes.
    latency: Micros,
    /// The longest time that a transaction takes.
    storage: Micros,
    compact_bytes: usize,
    max_message_bytes: usize,
    max_voters: usize,
    quiesce_interval: Option<Time>,
    election: (Time, Time),
}

struct World {
    rng: Xoshiro256PlusPlus,
    plan: Plan,
    trace: Vec<String>,
    conditions: Conditions,
    now: Micros,
    queue: BinaryHeap<Reverse<(Micros, u64, usize)>>,
    scheduled: u64,
    slots: Vec<Option<Event>>,
    browser: Browser,
    tabs: Vec<Tab>,
    incarnations: Incarnations,
    /// How clusters end, if they do in this run.
    endings: Option<Endings>,
    history: History,
    /// The newest version of the application.
    release: u32,
    /// How many pages were ever opened. Each is a client.
    pages: u16,
    /// When the faults stopped.
    healed: Option<Micros>,
    /// Each tab that is not frozen has been asked for one more perform since then.
    probed: bool,
    /// One more tab was opened since then, because there was no registry.
    reopened: bool,
    done: bool,
    stats: Stats,
}

/// Runs a plan.
pub fn run(plan: &Plan) -> Report {
    let mut world = World::new(plan);
    let failure = failure(|| world.run());
    world.stats.time = world.now;
    world.stats.committed = world.incarnations.all().map(Invariants::committed).sum();
    world.stats.elections = world.incarnations.all().map(|all| all.elections() as u64).sum();
    Report { plan: plan.clone(), failure, stats: world.stats, trace: world.trace }
}

impl World {
    fn new(plan: &Plan) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(plan.seed ^ 0x7ab5);
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
            incarnations: Incarnations::default(),
            endings: Endings::draw(plan.seed),
            history: History::default(),
            release: 1,
            pages: 0,
            healed: None,
            probed: false,
            reopened: false,
            done: false,
            stats: Stats { runs: 1, ..Stats::default() },
        };
        for _ in 0..world.rng.random_range(1..=5) {
            let at = world.now + world.rng.random_range(0..50_000);
            world.schedule(at, Event::Open);
        }
        let first = world.now + world.rng.random_range(0..500_000);
        world.schedule(first, Event::Fault);
        if let Some(endings) = &mut world.endings {
            world.browser.stepwise = true;
            let first = world.now + endings.pause();
            world.schedule(first, Event::Ending { planned: true });
        }
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
                return Err("the run has not ended, but no event is scheduled".into());
            };
            let event = self.slots[slot].take().expect("it was scheduled");
            self.now = at;
            self.stats.events += 1;
            self.dispatch(event)?;
            if self.stats.events >= self.plan.steps && self.healed.is_none() {
                self.heal()?;
            }
            if self.stats.events >= self.plan.steps + MAX_EVENTS_AFTER_FAULTS {
                return Err("the tabs are not done long after the faults stopped".into());
            }
        }
        self.history.check()
    }

    fn dispatch(&mut self, event: Event) -> Check {
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
            Event::Next { database, request } => {
                self.follow(database, request);
                Ok(())
            }
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
            Event::Ending { planned: true } => self.plan_ending(),
            Event::Ending { planned: false } => self.end(),
            Event::Leave { page } => self.leave(page),
            Event::Reload { page } => self.reload(page),
        }
    }

    /// Counts one more effect. `false` if the tab dies instead of performing it.
    fn count_effect(&mut self, at: usize) -> bool {
        match &mut self.tabs[at].crash_after {
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

    /// Gives a tab one input and performs the effects that it asks for. If it calls user code, the
    /// result is its next input.
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
            self.check_nodes(at, false)?;
            self.tabs[at].deadline = deadline;
            for settled in settled {
                self.settle(at, &settled)?;
            }
            for (to, frame) in self.tabs[at].core.take_frames() {
                if !self.count_effect(at) {
                    return Ok(());
                }
                self.post(page, to.as_deref(), &frame);
            }
            for effect in effects {
                if !self.count_effect(at) {
                    return Ok(());
                }
                self.effect(page, effect)?;
            }
            for notice in notices {
                match notice {
                    Notice::Error(failure) => {
                        note!(self, "tab {at} reports {}: {}", failure.code, failure.message);
                        self.reported(at, &failure)?;
                    }
                    // Indexes count anew.
                    Notice::State => self.tabs[at].machine.notified = 0,
                    _ => {}
                }
            }
            if let Some(call) = call {
                if !self.count_effect(at) {
                    return Ok(());
                }
                let tab = &mut self.tabs[at];
                tab.core.enter();
                tab.machine.provisional = tab.core.provisional().clone();
                next = Some(Input::Returned(call.run(&mut tab.machine)));
            }
        }
        self.check_nodes(at, true)?;
        if self.tabs[at].machine.notified_twice {
            return Err(format!("tab {at} was notified of one action twice"));
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
        if self.is_silent(from) {
            return;
        }
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
}
