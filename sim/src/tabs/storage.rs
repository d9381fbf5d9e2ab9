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
        let queue = self.browser.queues.get_mut(&database).expect("something was asked of it");
        let begun = queue.front().is_some_and(|request| request.begun);
        if !begun {
            return Ok(());
        }
        let request = queue.front().expect("just seen");
        let (tab, page) = request.page;
        let alive = self.tabs[tab].page == page && self.tabs[tab].open;
        // The transaction of a frozen page blocks all requests behind it until the page thaws or
        // dies.
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
            if matches!(&request.effect, Effect::Elastic { effect: elastic::Effect::Load(_), .. }) {
                self.stats.adopted += 1;
            }
            let founds = self.browser.registry.is_none();
            let answer = self.browser.carry_out(request);
            if let Some(node) = node {
                let hard = self.browser.nodes[&node].disk.hard();
                self.invariants.persisted(node, hard)?;
            }
            if founds && let Some(registry) = &self.browser.registry {
                let node = registry.nodes[0];
                self.invariants = Invariants::new(Members::voters([node]));
                let first = self.browser.nodes[&node].disk.load().entries;
                self.invariants.append(0, &first)?;
                note!(self, "the cluster is founded by {}", name(node));
            }
            if let Some(Answer { page, input }) = answer {
                self.give(page, input)?;
            }
        }
        self.begin(database);
        Ok(())
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
            self.invariants.append(term, &persist.entries)?;
        }
        Ok(())
    }
}
