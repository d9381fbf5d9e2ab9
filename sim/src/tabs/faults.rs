//! Faults, and what must hold once they have stopped.

use super::*;

impl World {
    pub(super) fn inject_fault(&mut self) -> Check {
        if self.healed.is_some() {
            self.schedule(self.now + 20_000, Event::Fault);
            return self.check_recovery();
        }
        let pause = self.rng.random_range(0..self.conditions.fault_pause * 2);
        self.schedule(self.now + pause, Event::Fault);
        let open: Vec<_> = (0..self.tabs.len()).filter(|at| self.tabs[*at].open).collect();
        let draw = self.rng.random_range(0..24);
        if open.is_empty() || draw < 5 {
            return self.open();
        }
        // The leader's tab is chosen more often: there, most depends on the order of events.
        let leads = |at: &&usize| self.leads(**at);
        let leader = open.iter().find(leads).copied();
        let at = open[self.rng.random_range(0..open.len())];
        let at = leader.filter(|_| self.rng.random_ratio(2, 5)).unwrap_or(at);
        match draw {
            5..9 if self.conditions.crashes => {
                self.tabs[at].crash_after = Some(self.rng.random_range(0..30));
            }
            9..11 => {
                if self.tabs[at].frozen == Frozen::No {
                    self.feed(at, Input::Suspend)?;
                }
                self.kill(at);
            }
            11..16 if self.conditions.freezes => return self.freeze(at),
            16..19 if self.conditions.hides => {
                let visible = !self.tabs[at].visible;
                self.tabs[at].visible = visible;
                note!(self, "tab {at} is visible: {visible}");
                let page = (at, self.tabs[at].page);
                return self.give(page, Input::Visible(visible));
            }
            19..21 if self.conditions.drops => {
                let nth = self.rng.random_range(0..64);
                if let Some(node) = self.browser.drop_lock(nth) {
                    note!(self, "the lock of {} is dropped", name(node));
                    self.report_locks();
                }
            }
            21 if self.conditions.extinction => {
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

    pub(super) fn leads(&self, at: usize) -> bool {
        let core = &self.tabs[at].core;
        let raft = |node| core.node(node).and_then(|node| node.raft());
        core.elastic()
            .expect("an elastic cluster")
            .running()
            .any(|node| raft(node).is_some_and(Raft::is_leader))
    }

    /// The faults stop. Some of the frozen tabs stay frozen.
    pub(super) fn heal(&mut self) -> Check {
        note!(self, "the faults stop");
        self.healed = Some(self.now);
        for at in 0..self.tabs.len() {
            self.tabs[at].crash_after = None;
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

    pub(super) fn awake(&self) -> Vec<usize> {
        let awake = |at: &usize| {
            let tab = &self.tabs[*at];
            tab.open && tab.frozen == Frozen::No && !tab.stopped
        };
        (0..self.tabs.len()).filter(awake).collect()
    }

    /// Checks, again and again after the faults have stopped, what must have happened by now.
    pub(super) fn check_recovery(&mut self) -> Check {
        if self.is_final() {
            return self.check_final();
        }
        // A tab that stayed frozen may still thaw, by an event that was scheduled when it froze.
        let awake = self.awake();
        if awake.is_empty() {
            return self.open();
        }
        // What a user has ended may go on as long as no other page opens, if the page that deleted it
        // has died in between.
        if self.browser.registry.is_none() && !self.reopened {
            self.reopened = true;
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
                    "tab {at} never recovers:\n{:?}",
                    self.tabs[*at].core.status()
                ));
            }
            return Ok(());
        }
        match self.unsettled(&awake) {
            None => self.finish(),
            Some(why) if late => {
                for at in awake {
                    note!(
                        self,
                        "tab {at}: {:?}",
                        self.tabs[at].core.elastic().expect("an elastic cluster")
                    );
                }
                Err(why)
            }
            Some(_) => Ok(()),
        }
    }

    /// What is not yet as it must be in the end, if anything.
    pub(super) fn unsettled(&self, awake: &[usize]) -> Option<String> {
        let own = |at: &usize| self.tabs[*at].core.elastic().expect("an elastic cluster").own();
        let owns: BTreeSet<NodeId> = awake.iter().filter_map(own).collect();
        let mut states = BTreeSet::new();
        for at in awake {
            let core = &self.tabs[*at].core;
            let raft = core
                .elastic()
                .expect("an elastic cluster")
                .own()
                .and_then(|own| core.node(own)?.raft());
            let Some(raft) = raft else { return Some(format!("tab {at} has no node")) };
            if core.status().waiting > 0 {
                return Some(format!("a perform or read of tab {at} never settles"));
            }
            // A tab with older code than the state keeps the state that it has.
            if core.own().store().release() == Some(core.own().store().version()) {
                states.insert((core.committed().hash(), raft.commit_index()));
            }
            let asleep = self.tabs.len() > awake.len()
                && self.tabs.iter().any(|tab| tab.open && tab.frozen != Frozen::No);
            if asleep {
                continue;
            }
            // No tab is frozen, so the members must be exactly the tabs' own nodes.
            let members: BTreeSet<NodeId> = raft.members().iter().map(|(id, _)| id).collect();
            let voters = raft.members().count_voters();
            if members != owns {
                return Some(format!(
                    "the members are not the tabs' own nodes:\n{} {owns:?}",
                    raft.members()
                ));
            }
            if voters != owns.len().min(self.conditions.max_voters) {
                return Some(format!("there are {voters} voters"));
            }
            // A node whose tab died before it reported the node to any other tab waits for the next
            // tab that opens.
            let began = |node: &NodeId| {
                let stored = self.browser.nodes.get(node).map(|stored| stored.disk.load());
                stored.is_some_and(|saved| saved.members().is_some())
            };
            let listed = self.browser.registry.iter().flat_map(|registry| &registry.nodes);
            let listed: BTreeSet<NodeId> = listed.copied().filter(began).collect();
            if listed != owns {
                return Some(format!("nodes are stored that no tab needs:\n{listed:?} {owns:?}"));
            }
        }
        if states.len() > 1 {
            return Some("the tabs end in different states".into());
        }
        self.orphan()
    }
}
