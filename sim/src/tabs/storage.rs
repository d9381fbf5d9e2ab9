//! Storage and locks: requests begin, are carried out or lost, and are answered.

use super::*;

impl World {
    /// The database starts its next request, if it is idle.
    pub(super) fn begin(&mut self, database: Database) {
        let Some(queue) = self.browser.queues.get_mut(&database) else { return };
        if queue.front().is_none_or(|request| request.begun) {
            return;
        }
        // A frozen page begins no transaction, so requests of other pages overtake its requests.
        let tabs = &self.tabs;
        let can_begin = |page: Page| {
            let tab = &tabs[page.0];
            tab.page != page.1 || matches!(tab.frozen, Frozen::No)
        };
        let Some(next) = queue.iter().position(|request| can_begin(request.page)) else { return };
        let mut request = queue.remove(next).expect("just found");
        request.begun = true;
        queue.push_front(request);
        let most = if self.healed.is_some() { 400 } else { self.conditions.storage };
        let at = self.now + self.rng.random_range(100..=most);
        self.schedule(at, Event::Storage { database });
    }

    pub(super) fn storage(&mut self, database: Database) -> Check {
        let queue = self.browser.queues.get(&database).expect("something was asked of it");
        let Some(request) = queue.front().filter(|request| request.begun) else { return Ok(()) };
        let (tab, page) = request.page;
        let blocked = matches!(request.task, Task::Remove) && self.is_held(database);
        let alive = self.tabs[tab].page == page && self.tabs[tab].open;
        // The transaction of a frozen page blocks all requests behind it until the page thaws or
        // dies.
        if blocked || alive && self.tabs[tab].frozen != Frozen::No && self.healed.is_none() {
            let at = self.now + 50_000;
            self.schedule(at, Event::Storage { database });
            return Ok(());
        }
        let queue = self.browser.queues.get_mut(&database).expect("just seen");
        let request = queue.pop_front().expect("just seen");
        let lost = !alive && self.rng.random();
        if !lost {
            self.carry_out(database, request)?;
        } else if matches!(request.task, Task::Remove) {
            self.incarnations.abandon(database);
        }
        self.begin(database);
        Ok(())
    }

    /// Carries out a request. The page gets the answer, and makes the requests that follow.
    pub(super) fn carry_out(&mut self, database: Database, request: Request) -> Check {
        let mut written = None;
        if let Task::Effect(effect) = &request.task {
            if let Effect::Write { node, epoch, .. } = effect {
                let current = self.browser.nodes.get(node).map(|stored| stored.epoch);
                written = (current == Some(*epoch)).then_some(*node);
            }
            if matches!(effect, Effect::Elastic { effect: elastic::Effect::Load(_), .. }) {
                self.stats.adopted += 1;
            }
        }
        self.look_at_moment(request.page, endings::moment(&request.task));
        let before = self.browser.registry.as_ref().map(|registry| registry.incarnation);
        // Whoever asks for an end may not know yet that there is another cluster by now.
        let ends = |effect: &Effect| {
            matches!(effect, Effect::Elastic { effect: elastic::Effect::DeleteAll, .. })
        };
        if let (Some(before), Task::Effect(effect)) = (before, &request.task)
            && ends(effect)
        {
            self.incarnations.destroy(before);
        }
        let (answer, next) = self.browser.carry_out(database, request);
        if let Some(stored) = written.and_then(|node| self.browser.nodes.get(&node)) {
            let hard = stored.disk.hard();
            self.incarnations.of(stored.incarnation).persisted(database, hard)?;
        }
        self.look_at_registry(before)?;
        self.look_at_nodes(database)?;
        for (database, request) in next {
            let at = self.now + self.rng.random_range(50..3_000);
            self.schedule(at, Event::Next { database, request });
        }
        match answer {
            Some(Answer { page, input }) => self.give(page, input),
            None => Ok(()),
        }
    }

    /// A page makes the request that follows another one, if it still lives.
    pub(super) fn follow(&mut self, database: Database, request: Request) {
        if self.is_current(request.page) {
            self.browser.queue(database, request);
            self.begin(database);
        } else if matches!(request.task, Task::Remove) {
            self.incarnations.abandon(database);
        }
    }

    /// Whether a page that stands still has a connection to this database.
    fn is_held(&self, database: Database) -> bool {
        let mut pages = self.browser.connections.range((database, (0, 0))..);
        pages.any(|(other, page)| {
            *other == database && self.is_current(*page) && self.tabs[page.0].frozen != Frozen::No
        })
    }

    pub(super) fn report_locks(&mut self) {
        if !self.browser.answers.is_empty() {
            let at = self.now + self.rng.random_range(50..3_000);
            self.schedule(at, Event::Locks);
        }
    }

    pub(super) fn effect(&mut self, page: Page, effect: Effect) -> Check {
        match &effect {
            Effect::Listen(id) => {
                self.tabs[page.0].listens.insert(id.clone());
            }
            Effect::Unlisten(id) => {
                self.tabs[page.0].listens.remove(id);
            }
            Effect::Write { .. } | Effect::Record { .. } => {}
            Effect::Elastic { effect, .. } => {
                note!(self, "tab {} requests {effect:?}", page.0);
                self.stats.stolen += u64::from(matches!(effect, elastic::Effect::StealLock(_)));
            }
        }
        if let Some(database) = self.browser.ask(page, effect) {
            self.begin(database);
        }
        self.report_locks();
        Ok(())
    }

    /// Checks the entries that a write appends to a log, before the write is requested.
    pub(super) fn appended(&mut self, at: usize, effect: &Effect) -> Check {
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
            let incarnation = self.incarnation(at);
            self.incarnations.of(incarnation).append(term, &persist.entries)?;
        }
        Ok(())
    }
}
