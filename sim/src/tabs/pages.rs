//! Tabs open, die, freeze and come back.

use super::*;

impl World {
    pub(super) fn open(&mut self) -> Check {
        let closed = self.tabs.iter().position(|tab| !tab.open);
        let at = closed.unwrap_or(self.tabs.len());
        if at >= MAX_TABS {
            return Ok(());
        }
        let seed = self.rng.next_u64();
        let clock = Clock::new(self.now, self.rng.random_range(0..1_000_000_000));
        // In a third of the runs, a page that opens may bring newer code along.
        if self.plan.seed.is_multiple_of(3) && self.release < 3 && self.rng.random_ratio(1, 5) {
            self.release += 1;
        }
        let version = self.release;
        let settings = Settings {
            cluster: "c".into(),
            kind: Kind::Elastic { max_voters: self.conditions.max_voters },
            durability: Durability::Durable,
            election_timeout: self.conditions.election,
            heartbeat_interval: 50,
            quiesce_interval: self.conditions.quiesce_interval,
            store: store::Config {
                max_message_bytes: self.conditions.max_message_bytes,
                compact_bytes: self.conditions.compact_bytes,
                version,
                ..store::Config::default()
            },
        };
        let page = closed.map_or(1, |tab| self.tabs[tab].page + 1);
        let core = Host::new(settings, State::first(version), true, clock.read(self.now), seed);
        let tab = Tab {
            open: true,
            page,
            core,
            machine: Registers { version, salt: seed, ..Registers::default() },
            clock,
            deadline: None,
            timer: None,
            frozen: Frozen::No,
            stash: Vec::new(),
            listens: BTreeSet::new(),
            lasts: BTreeMap::new(),
            incarnation: 0,
            stopped: false,
            crash_after: None,
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
        let pause = self.rng.random_range(0..self.conditions.pause * 2);
        self.schedule(self.now + pause, Event::Client { page: (at, page) });
        self.feed(at, Input::Start)
    }

    /// The tab dies at once. Its locks are released a little later.
    pub(super) fn kill(&mut self, at: usize) {
        let tab = &mut self.tabs[at];
        if !tab.open {
            return;
        }
        tab.open = false;
        tab.stash.clear();
        let page = (at, tab.page);
        self.stats.died += 1;
        note!(self, "tab {at} dies");
        // A request that has begun may still be carried out. The others are dropped.
        let mut moved = Vec::new();
        for (database, queue) in &mut self.browser.queues {
            let had = queue.len();
            queue.retain(|request| {
                let stays = request.page != page || request.begun;
                if !stays && matches!(request.task, Task::Remove) {
                    self.incarnations.abandon(*database);
                }
                stays
            });
            if queue.len() != had {
                moved.push(*database);
            }
        }
        moved.into_iter().for_each(|database| self.begin(database));
        self.browser.disconnect(page);
        let pause = self.rng.random_range(10_000..80_000);
        self.schedule(self.now + pause, Event::Released { page });
    }

    pub(super) fn freeze(&mut self, at: usize) -> Check {
        if self.tabs[at].frozen != Frozen::No {
            return Ok(());
        }
        let how = [Frozen::Suspended, Frozen::AllButFrames, Frozen::Everything];
        let how = how[self.rng.random_range(0..3)];
        self.stats.frozen += 1;
        note!(self, "tab {at} freezes: {how:?}");
        if how == Frozen::Suspended {
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

    pub(super) fn thaw(&mut self, at: usize) -> Check {
        let was = std::mem::replace(&mut self.tabs[at].frozen, Frozen::No);
        if was == Frozen::No {
            return Ok(());
        }
        note!(self, "tab {at} thaws");
        let page = (at, self.tabs[at].page);
        let stash = std::mem::take(&mut self.tabs[at].stash);
        if was == Frozen::Suspended {
            self.feed(at, Input::Start)?;
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

    pub(super) fn is_current(&self, (tab, page): Page) -> bool {
        self.tabs[tab].open && self.tabs[tab].page == page
    }

    /// Gives an input to a page. A frozen page gets it when it thaws.
    pub(super) fn give(&mut self, page: Page, input: Input<State>) -> Check {
        if !self.is_current(page) {
            return Ok(());
        }
        let tab = &mut self.tabs[page.0];
        let waits = match tab.frozen {
            Frozen::No => false,
            Frozen::AllButFrames => !matches!(input, Input::Frame(_)),
            Frozen::Suspended | Frozen::Everything => true,
        };
        if waits {
            tab.stash.push(input);
            return Ok(());
        }
        self.feed(page.0, input)
    }
}
