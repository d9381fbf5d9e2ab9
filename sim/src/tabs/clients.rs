//! Clients: what the users of the tabs ask for, and what they are answered.

use super::*;

impl World {
    pub(super) fn client(&mut self, page: Page) -> Check {
        if self.healed.is_some() || !self.is_current(page) {
            return Ok(());
        }
        let pause = self.rng.random_range(0..self.conditions.pause * 2);
        self.schedule(self.now + pause, Event::Client { page });
        let tab = &self.tabs[page.0];
        if tab.frozen != Frozen::No || tab.core.status().waiting >= MAX_WAITING {
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

    pub(super) fn call(&mut self, at: usize, asked: Asked) -> OpId {
        let key = self.rng.random_range(0..KEYS) as u8;
        let tab = &self.tabs[at];
        let expected = tab.core.provisional().register(key);
        self.stats.ops += 1;
        let (process, client) = (at, tab.machine.client);
        let (called, answered, committed) = (0, None, None);
        self.history.incarnation = tab.incarnation;
        self.history.call(Op { asked, process, client, key, expected, called, answered, committed })
    }

    pub(super) fn perform(&mut self, at: usize, method: Method) -> Perform {
        let op = self.call(at, Asked::Perform(method));
        let Op { client, key, expected, .. } = *self.history.op(op);
        let padding = Blob::from(vec![b'.'; self.rng.random_range(0..60)]);
        let gives_up = self.conditions.timeouts && self.healed.is_none();
        let timeout = (gives_up && self.rng.random_ratio(1, 5))
            .then(|| self.rng.random_range(1..self.conditions.election.1 * 2));
        note!(self, "tab {at} performs op {op}: {method:?}");
        let args = encode(&Args { op, client, key, expected, padding });
        Perform { ticket: u64::from(op), method: method.name().into(), args, timeout }
    }

    pub(super) fn settle(&mut self, at: usize, settled: &store::Settled) -> Check {
        let op = settled.ticket as OpId;
        let core = &self.tabs[at].core;
        let local = core.committed().register(self.history.op(op).key);
        let own = core.elastic().expect("an elastic cluster").own().and_then(|own| core.node(own));
        let applied = own.map_or(0, |node| node.store().applied());
        self.history.incarnation = self.tabs[at].incarnation;
        self.history.answer(op, &settled.outcome, local, applied)?;
        note!(
            self,
            "tab {at}: op {op} is settled: {:?}",
            self.history.op(op).answered.expect("just now").1
        );
        Ok(())
    }
}
