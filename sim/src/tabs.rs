//! The simulator of elastic clusters: one browser, its tabs, and what strikes them. The same seed gives
//! the same run.
//!
//! Each tab runs the real host core ([`TabCore`]) with all that is below it. Tabs open, close, crash
//! between any two effects, freeze with and without warning, hide, and come back; locks are dropped
//! without a word; all tabs die at once.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use conflux::host::core::{Effect, Input, Notice, Output};
use conflux::host::tabs::{Settings, TabCore, name};
use conflux::raft::{Blob, Members, NodeId, Raft, Time};
use conflux::store::{self, Perform};
use conflux::tenancy::elastic;
use conflux::wire;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::browser::{Answer, Browser, Database, Page};
use crate::clock::{Clock, Micros};
use crate::history::{Asked, History, Op};
use crate::machine::{Args, KEYS, Method, OpId, Registers, State, encode};
use crate::spread::failure;
use crate::truth::{Check, Last, Truth};
use crate::weather::rest;

/// The most tabs at once.
const MOST: usize = 8;
/// How many performs and reads of a tab wait before it asks for no more.
const PATIENCE: usize = 8;
/// When faults stop, all settles within this.
const SETTLED_WITHIN: Micros = 120_000_000;
/// How many events there are at most after the faults have stopped.
const LONGEST_END: u64 = 1_000_000;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything else.
    pub seed: u64,
    /// How many events there are before the faults stop.
    pub steps: u64,
    /// Whether to keep the trace.
    pub trace: bool,
}

impl Plan {
    /// A run of the usual length.
    pub fn new(seed: u64) -> Self {
        Self { seed, steps: 4_000, trace: false }
    }
}

/// What happened in a run, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Runs.
    pub runs: u64,
    /// Events.
    pub events: u64,
    /// Simulated time.
    pub time: Micros,
    /// Performs and reads.
    pub ops: u64,
    /// Entries committed.
    pub committed: u64,
    /// Terms that had a leader.
    pub elections: u64,
    /// Tabs that were opened.
    pub opened: u64,
    /// Tabs that closed or crashed.
    pub died: u64,
    /// Tabs that froze, with and without warning.
    pub frozen: u64,
    /// Nodes that a host took over from another one.
    pub adopted: u64,
    /// Locks that were taken from a host that stood still.
    pub stolen: u64,
    /// How often all tabs died at once.
    pub extinct: u64,
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
        self.opened += other.opened;
        self.died += other.died;
        self.frozen += other.frozen;
        self.adopted += other.adopted;
        self.stolen += other.stolen;
        self.extinct += other.extinct;
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
    /// What happened, if the plan says so.
    pub trace: Vec<String>,
}

#[derive(Debug)]
enum Event {
    Frame { to: Page, frame: Vec<u8> },
    Timer { page: Page },
    Storage { database: Database },
    Locks,
    Released { page: Page },
    Client { page: Page },
    Strike,
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
    Whole,
}

struct Tab {
    open: bool,
    page: u32,
    core: TabCore<State>,
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
    strike: Micros,
    pause: Micros,
    latency: Micros,
    storage: Micros,
    compact_bytes: usize,
    max_message_bytes: usize,
    max_voters: usize,
    rest: Option<Time>,
    election: (Time, Time),
}

struct World {
    rng: SmallRng,
    plan: Plan,
    trace: Vec<String>,
    weather: Conditions,
    now: Micros,
    queue: BinaryHeap<Reverse<(Micros, u64, usize)>>,
    scheduled: u64,
    slots: Vec<Option<Event>>,
    browser: Browser,
    tabs: Vec<Tab>,
    truth: Truth,
    history: History,
    pages: u16,
    healed: Option<Micros>,
    probed: bool,
    done: bool,
    stats: Stats,
}

macro_rules! note {
    ($world:expr, $($text:tt)*) => {
        if $world.plan.trace {
            let line = format!($($text)*);
            $world.trace.push(format!("{:>12.3} ms  {line}", $world.now as f64 / 1000.0));
        }
    };
}

/// Runs a plan.
pub fn run(plan: &Plan) -> Report {
    let mut world = World::new(plan);
    let failure = failure(|| world.run());
    world.stats.time = world.now;
    world.stats.committed = world.truth.committed();
    world.stats.elections = world.truth.elections() as u64;
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
        let weather = Conditions {
            loss,
            duplication,
            freezes,
            crashes,
            drops,
            extinction,
            hides,
            timeouts,
            strike: rng.random_range(20_000..600_000),
            pause: rng.random_range(5_000..80_000),
            latency: rng.random_range(400..5_000),
            storage: rng.random_range(300..8_000),
            compact_bytes: rng.random_range(200..8_000),
            max_message_bytes: rng.random_range(200..4_000),
            max_voters: rng.random_range(1..=5),
            rest: rest(&rng),
            election: (min, min + rng.random_range(20..=200)),
        };
        let mut world = Self {
            rng,
            plan: plan.clone(),
            trace: Vec::new(),
            weather,
            now: 1_000_000,
            queue: BinaryHeap::new(),
            scheduled: 0,
            slots: Vec::new(),
            browser: Browser::default(),
            tabs: Vec::new(),
            truth: Truth::new(Members::default()),
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
        world.schedule(first, Event::Strike);
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

    fn is_current(&self, (tab, page): Page) -> bool {
        self.tabs[tab].open && self.tabs[tab].page == page
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
                self.tell_locks();
                Ok(())
            }
            Event::Client { page } => self.client(page),
            Event::Strike => self.strike(),
            Event::Thaw { page } if self.is_current(page) => self.thaw(page.0),
            Event::Thaw { .. } => Ok(()),
            Event::Open => self.open(),
        }
    }

    /// An input for a page; a page that stands still gets it later.
    fn give(&mut self, page: Page, input: Input<State>) -> Check {
        if !self.is_current(page) {
            return Ok(());
        }
        let tab = &mut self.tabs[page.0];
        let waits = match tab.frozen {
            Frozen::No => false,
            Frozen::Partly => !matches!(input, Input::Frame(_)),
            Frozen::Told | Frozen::Whole => true,
        };
        if waits {
            tab.stash.push(input);
            return Ok(());
        }
        self.feed(page.0, input)
    }

    fn open(&mut self) -> Check {
        let closed = self.tabs.iter().position(|tab| !tab.open);
        let at = closed.unwrap_or(self.tabs.len());
        if at >= MOST {
            return Ok(());
        }
        let seed = self.rng.next_u64();
        let clock = Clock::new(self.now, self.rng.random_range(0..1_000_000_000));
        let settings = Settings {
            cluster: "c".into(),
            max_voters: self.weather.max_voters,
            election_timeout: self.weather.election,
            heartbeat_interval: 50,
            rest: self.weather.rest,
            store: store::Config {
                max_message_bytes: self.weather.max_message_bytes,
                compact_bytes: self.weather.compact_bytes,
                ..store::Config::default()
            },
        };
        let page = closed.map_or(1, |tab| self.tabs[tab].page + 1);
        let core = TabCore::new(settings, State::default(), true, clock.read(self.now), seed);
        let tab = Tab {
            open: true,
            page,
            core,
            machine: Registers::default(),
            clock,
            deadline: None,
            timer: None,
            frozen: Frozen::No,
            stash: Vec::new(),
            listens: BTreeSet::new(),
            lasts: BTreeMap::new(),
            fuse: None,
            visible: true,
        };
        match closed {
            Some(at) => self.tabs[at] = tab,
            None => self.tabs.push(tab),
        }
        self.pages += 1;
        self.stats.opened += 1;
        self.tabs[at].machine.client = self.pages;
        note!(self, "tab {at} opens, page {page}");
        let pause = self.rng.random_range(0..self.weather.pause * 2);
        self.schedule(self.now + pause, Event::Client { page: (at, page) });
        self.feed(at, Input::Resume)
    }

    /// The tab is gone at once.
    fn kill(&mut self, at: usize) {
        let tab = &mut self.tabs[at];
        if !tab.open {
            return;
        }
        tab.open = false;
        tab.stash.clear();
        let page = (at, tab.page);
        self.stats.died += 1;
        note!(self, "tab {at} is gone");
        // What had begun may be done or not; what had not is not.
        let mut moved = Vec::new();
        for (database, queue) in &mut self.browser.queues {
            let had = queue.len();
            queue.retain(|request| request.page != page || request.begun);
            if queue.len() != had {
                moved.push(*database);
            }
        }
        moved.into_iter().for_each(|database| self.begin(database));
        let pause = self.rng.random_range(10_000..80_000);
        self.schedule(self.now + pause, Event::Released { page });
    }

    /// The database takes up its next request.
    fn begin(&mut self, database: Database) {
        let Some(queue) = self.browser.queues.get_mut(&database) else { return };
        if queue.front().is_none_or(|request| request.begun) {
            return;
        }
        // A page that stands still begins nothing, and what is behind it goes first.
        let tabs = &self.tabs;
        let moves = |page: Page| {
            let tab = &tabs[page.0];
            tab.page != page.1 || matches!(tab.frozen, Frozen::No)
        };
        let Some(next) = queue.iter().position(|request| moves(request.page)) else { return };
        let mut request = queue.remove(next).expect("just found");
        request.begun = true;
        queue.push_front(request);
        let most = if self.healed.is_some() { 400 } else { self.weather.storage };
        let at = self.now + self.rng.random_range(100..=most);
        self.schedule(at, Event::Storage { database });
    }

    fn storage(&mut self, database: Database) -> Check {
        let queue = self.browser.queues.get_mut(&database).expect("something was asked of it");
        let begun = queue.front().is_some_and(|request| request.begun);
        if !begun {
            return Ok(());
        }
        let request = queue.front().expect("just seen");
        let (tab, page) = request.page;
        let alive = self.tabs[tab].page == page && self.tabs[tab].open;
        // A frozen page holds up everyone behind it, until it goes on or dies.
        if alive && self.tabs[tab].frozen != Frozen::No && self.healed.is_none() {
            let at = self.now + 50_000;
            self.schedule(at, Event::Storage { database });
            return Ok(());
        }
        let request = queue.pop_front().expect("just seen");
        let lost = !alive && self.rng.random();
        if !lost {
            let node = match &request.effect {
                Effect::Write { node, epoch, .. } => {
                    let current = self.browser.nodes.get(node).map(|stored| stored.epoch);
                    (current == Some(*epoch)).then_some(*node)
                }
                _ => None,
            };
            if matches!(&request.effect, Effect::Tenancy { effect: elastic::Effect::Load(_), .. }) {
                self.stats.adopted += 1;
            }
            let founds = self.browser.registry.is_none();
            let answer = self.browser.carry_out(request);
            if let Some(node) = node {
                let hard = self.browser.nodes[&node].disk.hard();
                self.truth.persisted(node, hard)?;
            }
            if founds && let Some(registry) = &self.browser.registry {
                let node = registry.nodes[0];
                self.truth = Truth::new(Members::voters([node]));
                let first = self.browser.nodes[&node].disk.load().entries;
                self.truth.append(0, &first)?;
                note!(self, "founded by {}", name(node));
            }
            if let Some(Answer { page, input }) = answer {
                self.give(page, input)?;
            }
        }
        self.begin(database);
        Ok(())
    }

    fn tell_locks(&mut self) {
        if !self.browser.answers.is_empty() {
            let at = self.now + self.rng.random_range(50..3_000);
            self.schedule(at, Event::Locks);
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
            if faulty && self.weather.loss && self.rng.random_ratio(1, 30) {
                continue;
            }
            let twice = faulty && self.weather.duplication && self.rng.random_ratio(1, 30);
            for _ in 0..=usize::from(twice) {
                let at = self.now + self.rng.random_range(200..=self.weather.latency);
                self.schedule(at, Event::Frame { to: page, frame: frame.to_vec() });
            }
        }
        if self.plan.trace
            && let Ok((header, letters)) = wire::read::<conflux::host::core::Letter>(frame)
        {
            for letter in letters {
                let (from, to) = (name(header.from), name(header.to));
                note!(self, "{from} → {to} {}", crate::world::Line(&letter));
            }
        }
    }

    fn effect(&mut self, page: Page, effect: Effect) -> Check {
        match &effect {
            Effect::Listen(id) => {
                self.tabs[page.0].listens.insert(id.clone());
            }
            Effect::Unlisten(id) => {
                self.tabs[page.0].listens.remove(id);
            }
            Effect::Write { .. } | Effect::Record { .. } => {}
            Effect::Tenancy { effect, .. } => {
                note!(self, "tab {} asks {effect:?}", page.0);
                self.stats.stolen += u64::from(matches!(effect, elastic::Effect::StealLock(_)));
            }
        }
        if let Some(database) = self.browser.ask(page, effect) {
            self.begin(database);
        }
        self.tell_locks();
        Ok(())
    }

    /// Entries go into a log, before anything is done about it.
    fn appended(&mut self, at: usize, effect: &Effect) -> Check {
        let Effect::Write { node, epoch, persist, .. } = effect else { return Ok(()) };
        let current = self.browser.nodes.get(node).map(|stored| stored.epoch);
        let raft = self.tabs[at].core.node(*node).and_then(|node| node.raft());
        let (Some(first), Some(raft)) = (persist.entries.first(), raft) else { return Ok(()) };
        if current != Some(*epoch) {
            return Ok(());
        }
        let before = first.at.index - 1;
        let snapshot = persist.snapshot.as_ref().filter(|s| s.last.index == before);
        let term = snapshot.map(|s| s.last.term).or_else(|| raft.log().term(before)).unwrap_or(0);
        if term > 0 || before == 0 {
            self.truth.append(term, &persist.entries)?;
        }
        Ok(())
    }

    /// What must hold in every node here (of the states only once user code has returned), but in one that has been taken over and does not know it.
    fn look(&mut self, at: usize, states: bool) -> Check {
        let tab = &mut self.tabs[at];
        let now = tab.clock.read(self.now);
        let running: Vec<_> = tab.core.elastic().running().collect();
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
                self.truth.look_at_commit(last, raft, &mut self.history)?;
                continue;
            }
            self.truth.look_at_raft(last, raft, now, &mut self.history)?;
            if states {
                self.truth.look_at_state(last, raft, here.store())?;
            }
        }
        Ok(())
    }

    fn settle(&mut self, at: usize, settled: &store::Settled) -> Check {
        let op = settled.ticket as OpId;
        let core = &self.tabs[at].core;
        let local = core.committed().register(self.history.op(op).key);
        let own = core.elastic().own().and_then(|own| core.node(own));
        let applied = own.map_or(0, |node| node.store().applied());
        self.history.answer(op, &settled.outcome, local, applied)?;
        note!(self, "tab {at}: op {op}: {:?}", self.history.op(op).answered.expect("just now").1);
        Ok(())
    }

    fn client(&mut self, page: Page) -> Check {
        if self.healed.is_some() || !self.is_current(page) {
            return Ok(());
        }
        let pause = self.rng.random_range(0..self.weather.pause * 2);
        self.schedule(self.now + pause, Event::Client { page });
        let tab = &self.tabs[page.0];
        if tab.frozen != Frozen::No || tab.core.status().waiting >= PATIENCE {
            return Ok(());
        }
        if self.rng.random_ratio(1, 8) {
            let op = self.call(page.0, Asked::Read);
            return self.feed(page.0, Input::Read { ticket: u64::from(op) });
        }
        let method = match self.rng.random_range(0..10) {
            0..4 => Method::Set,
            4..6 => Method::Swap,
            6 => Method::Cas,
            7 => Method::Get,
            8 => Method::Check,
            _ => Method::Poison,
        };
        let performs = vec![self.perform(page.0, method)];
        self.feed(page.0, Input::Perform(performs))
    }

    fn call(&mut self, at: usize, asked: Asked) -> OpId {
        let key = self.rng.random_range(0..KEYS) as u8;
        let tab = &self.tabs[at];
        let expected = tab.core.provisional().register(key);
        self.stats.ops += 1;
        let (process, client) = (at, tab.machine.client);
        let (called, answered, committed) = (0, None, None);
        self.history.call(Op { asked, process, client, key, expected, called, answered, committed })
    }

    fn perform(&mut self, at: usize, method: Method) -> Perform {
        let op = self.call(at, Asked::Perform(method));
        let Op { client, key, expected, .. } = *self.history.op(op);
        let padding = Blob::from(vec![b'.'; self.rng.random_range(0..60)]);
        let gives_up = self.weather.timeouts && self.healed.is_none();
        let timeout = (gives_up && self.rng.random_ratio(1, 5))
            .then(|| self.rng.random_range(1..self.weather.election.1 * 2));
        note!(self, "tab {at} performs op {op}: {method:?}");
        let args = encode(&Args { op, client, key, expected, padding });
        Perform { ticket: u64::from(op), method: method.name().into(), args, timeout }
    }

    fn strike(&mut self) -> Check {
        if self.healed.is_some() {
            self.schedule(self.now + 20_000, Event::Strike);
            return self.judge();
        }
        let pause = self.rng.random_range(0..self.weather.strike * 2);
        self.schedule(self.now + pause, Event::Strike);
        let open: Vec<_> = (0..self.tabs.len()).filter(|at| self.tabs[*at].open).collect();
        let draw = self.rng.random_range(0..24);
        if open.is_empty() || draw < 5 {
            return self.open();
        }
        // The leader's tab is where most depends on order.
        let leads = |at: &&usize| self.leads(**at);
        let leader = open.iter().find(leads).copied();
        let at = open[self.rng.random_range(0..open.len())];
        let at = leader.filter(|_| self.rng.random_ratio(2, 5)).unwrap_or(at);
        match draw {
            5..9 if self.weather.crashes => {
                self.tabs[at].fuse = Some(self.rng.random_range(0..30));
            }
            9..11 => {
                if self.tabs[at].frozen == Frozen::No {
                    self.feed(at, Input::Suspend)?;
                }
                self.kill(at);
            }
            11..16 if self.weather.freezes => return self.freeze(at),
            16..19 if self.weather.hides => {
                let visible = !self.tabs[at].visible;
                self.tabs[at].visible = visible;
                note!(self, "tab {at} is visible: {visible}");
                let page = (at, self.tabs[at].page);
                return self.give(page, Input::Visible(visible));
            }
            19..21 if self.weather.drops => {
                let nth = self.rng.random_range(0..64);
                if let Some(node) = self.browser.drop_lock(nth) {
                    note!(self, "the lock of {} is dropped", name(node));
                    self.tell_locks();
                }
            }
            21 if self.weather.extinction => {
                note!(self, "all tabs die");
                self.stats.extinct += 1;
                open.into_iter().for_each(|at| self.kill(at));
                let pause = self.rng.random_range(0..500_000);
                self.schedule(self.now + pause, Event::Open);
            }
            _ => {}
        }
        Ok(())
    }

    fn leads(&self, at: usize) -> bool {
        let core = &self.tabs[at].core;
        let raft = |node| core.node(node).and_then(|node| node.raft());
        core.elastic().running().any(|node| raft(node).is_some_and(Raft::is_leader))
    }

    fn freeze(&mut self, at: usize) -> Check {
        if self.tabs[at].frozen != Frozen::No {
            return Ok(());
        }
        let how = [Frozen::Told, Frozen::Partly, Frozen::Whole][self.rng.random_range(0..3)];
        self.stats.frozen += 1;
        note!(self, "tab {at} freezes: {how:?}");
        if how == Frozen::Told {
            self.feed(at, Input::Suspend)?;
            if !self.tabs[at].open {
                return Ok(());
            }
        }
        self.tabs[at].frozen = how;
        let most = if self.rng.random() { 3_000_000 } else { 30_000_000 };
        let pause = self.rng.random_range(1_000..most);
        let page = (at, self.tabs[at].page);
        self.schedule(self.now + pause, Event::Thaw { page });
        Ok(())
    }

    fn thaw(&mut self, at: usize) -> Check {
        let was = std::mem::replace(&mut self.tabs[at].frozen, Frozen::No);
        if was == Frozen::No {
            return Ok(());
        }
        note!(self, "tab {at} thaws");
        let page = (at, self.tabs[at].page);
        let stash = std::mem::take(&mut self.tabs[at].stash);
        if was == Frozen::Told {
            self.feed(at, Input::Resume)?;
        }
        for input in stash {
            self.give(page, input)?;
        }
        for database in self.browser.queues.keys().copied().collect::<Vec<_>>() {
            self.begin(database);
        }
        if self.is_current(page) {
            self.tabs[at].timer = None;
            self.arm(at);
        }
        Ok(())
    }

    /// The faults stop. Some tabs that stand still do so for ever.
    fn heal(&mut self) -> Check {
        note!(self, "the faults stop");
        self.healed = Some(self.now);
        for at in 0..self.tabs.len() {
            self.tabs[at].fuse = None;
            if self.tabs[at].open && self.tabs[at].frozen != Frozen::No && self.rng.random() {
                self.thaw(at)?;
            }
        }
        for database in self.browser.queues.keys().copied().collect::<Vec<_>>() {
            self.begin(database);
        }
        if self.awake().is_empty() {
            self.open()?;
        }
        Ok(())
    }

    fn awake(&self) -> Vec<usize> {
        let awake = |at: &usize| self.tabs[*at].open && self.tabs[*at].frozen == Frozen::No;
        (0..self.tabs.len()).filter(awake).collect()
    }

    /// After the faults: is there what must be there by now?
    fn judge(&mut self) -> Check {
        // Those that stood still for ever go on in the end; a frozen page may thaw by a scheduled event.
        let awake = self.awake();
        if awake.is_empty() {
            return self.open();
        }
        let late = self.now > self.healed.expect("the faults have stopped") + SETTLED_WITHIN;
        if !self.probed {
            let ready = |at: &usize| {
                let status = self.tabs[*at].core.status();
                status.leader.is_some() && status.waiting == 0
            };
            if awake.iter().all(ready) {
                self.probed = true;
                for at in awake {
                    let performs = vec![self.perform(at, Method::Swap)];
                    self.feed(at, Input::Perform(performs))?;
                }
            } else if late {
                let at = awake.iter().find(|at| !ready(at)).expect("not all");
                return Err(format!(
                    "tab {at} never gets anywhere:\n{:?}",
                    self.tabs[*at].core.status()
                ));
            }
            return Ok(());
        }
        match self.unsettled(&awake) {
            None => {
                self.done = true;
                Ok(())
            }
            Some(why) if late => {
                for at in awake {
                    note!(self, "tab {at}: {:?}", self.tabs[at].core.elastic());
                }
                Err(why)
            }
            Some(_) => Ok(()),
        }
    }

    /// What keeps the tabs from having come to rest.
    fn unsettled(&self, awake: &[usize]) -> Option<String> {
        let own = |at: &usize| self.tabs[*at].core.elastic().own();
        let owns: BTreeSet<NodeId> = awake.iter().filter_map(own).collect();
        let mut states = BTreeSet::new();
        for at in awake {
            let core = &self.tabs[*at].core;
            let raft = core.elastic().own().and_then(|own| core.node(own)?.raft());
            let Some(raft) = raft else { return Some(format!("tab {at} has no node")) };
            if core.status().waiting > 0 {
                return Some(format!("something of tab {at} is never settled"));
            }
            states.insert((core.committed().hash(), raft.commit_index()));
            let asleep = self.tabs.len() > awake.len()
                && self.tabs.iter().any(|tab| tab.open && tab.frozen != Frozen::No);
            if asleep {
                continue;
            }
            // Nobody stands still: every node is somebody's own, and every own node is a member.
            let members: BTreeSet<NodeId> = raft.members().iter().map(|(id, _)| id).collect();
            let voters = raft.members().count_voters();
            if members != owns {
                return Some(format!(
                    "the members are not the own nodes:\n{} {owns:?}",
                    raft.members()
                ));
            }
            if voters != owns.len().min(self.weather.max_voters) {
                return Some(format!("there are {voters} voters"));
            }
            // A node whose tab died before it told anybody waits for the next tab that opens.
            let began = |node: &NodeId| {
                let stored = self.browser.nodes.get(node).map(|stored| stored.disk.load());
                stored.is_some_and(|saved| saved.members().is_some())
            };
            let listed = self.browser.registry.iter().flat_map(|registry| &registry.nodes);
            let listed: BTreeSet<NodeId> = listed.copied().filter(began).collect();
            if listed != owns {
                return Some(format!("nodes are stored that nobody needs:\n{listed:?} {owns:?}"));
            }
        }
        (states.len() > 1).then(|| "the tabs end in different states".into())
    }
}
