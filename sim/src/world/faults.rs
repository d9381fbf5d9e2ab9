//! Faults that are injected into processes and the network at random times.

use super::*;

impl World {
    pub(super) fn inject_fault(&mut self) -> Check {
        if self.healed.is_some() {
            self.schedule(self.now + 5_000, Event::Fault);
            return self.check_recovery();
        }
        let pause = self.rng.random_range(0..self.conditions.fault_pause * 2);
        self.schedule(self.now + pause, Event::Fault);
        let faults = Fault::SPONTANEOUS;
        let fault = faults[self.rng.random_range(0..faults.len())];
        let process = self.rng.random_range(0..self.processes.len());
        // The leader is chosen more often: there, most depends on the order of events.
        let leads = |p: &Process| p.up && p.node.raft().is_some_and(raft::Raft::is_leader);
        let leader = self.processes.iter().position(leads);
        let process = leader.filter(|_| self.rng.random_ratio(2, 5)).unwrap_or(process);
        if !self.conditions.faults.has(fault) || !self.processes[process].up {
            return Ok(());
        }
        match fault {
            Fault::Partition => self.partition(leader),
            Fault::Crash => {
                self.processes[process].crash_after = Some(self.rng.random_range(0..40))
            }
            Fault::DiskFailure => self.processes[process].disk_fails = true,
            Fault::Drift => {
                let rate = self.rng.random_range(750..=1330);
                note!(self, "{}'s clock runs at {rate} ‰", name(process));
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
                note!(self, "{} is slow by {slow} µs", name(process));
                self.processes[process].slow = slow;
            }
            Fault::Transfer => {
                let to = self.rng.random_range(0..=(self.size + self.joined.len()) as u64);
                note!(self, "{} is asked to transfer leadership to n{to}", name(process));
                return self.feed(process, node::Input::Transfer((to > 0).then_some(to)));
            }
            Fault::Close => return self.close(process),
            Fault::Membership => {
                if let Some(leader) = leader {
                    self.schedule_changes(leader);
                }
            }
            _ => unreachable!("only spontaneous faults are drawn"),
        }
        Ok(())
    }

    /// Schedules reads on a leader that is cut off, for the time at which another node may lead.
    fn schedule_reads(&mut self, leader: usize) {
        let start = self.processes[leader].start;
        let (min, max) = self.conditions.election;
        for _ in 0..4 {
            let at = self.now + self.rng.random_range(min * 1000..(max + 60) * 1000);
            self.schedule(at, Event::Read { process: leader, start });
        }
    }

    /// Schedules one to three requests for a change of the members, soon after each other.
    pub(super) fn schedule_changes(&mut self, leader: usize) {
        let start = self.processes[leader].start;
        let soon = if self.rng.random() { 1_000 } else { 100_000 };
        for _ in 0..self.rng.random_range(1..=3) {
            let at = self.now + self.rng.random_range(0..soon);
            self.schedule(at, Event::Change { process: leader, start });
        }
    }

    /// Asks the leader for a change of the members, or ends a process that was removed, which then
    /// starts again as a new node.
    pub(super) fn change(&mut self, leader: usize) -> Check {
        if self.healed.is_some() {
            return Ok(());
        }
        let p = &self.processes[leader];
        let (Some(membership), Some(raft)) = (&p.membership, p.node.raft()) else { return Ok(()) };
        let (hash, invariants) = (membership.hash, &self.clusters[membership.cluster].1);
        let number =
            |p: &Process| p.membership.as_ref().filter(|m| m.hash == hash).map(|m| m.number);
        let out = |p: &Process| p.up && number(p).is_some_and(|number| invariants.is_out(number));
        if let Some(process) = self.processes.iter().position(out)
            && self.rng.random_ratio(1, 3)
        {
            self.crash(process, "ends, because it was removed");
            return Ok(());
        }
        let members: Vec<_> = raft.members().iter().map(|(id, _)| id).collect();
        let known =
            |p: &Process| number(p).filter(|n| !members.contains(n) && !invariants.is_out(*n));
        let new: Vec<_> = self.processes.iter().filter(|p| p.up).filter_map(known).collect();
        let id = members[self.rng.random_range(0..members.len())];
        let change = match self.rng.random_range(0..6) {
            0 | 1 if !new.is_empty() => {
                let id = new[self.rng.random_range(0..new.len())];
                Change::Add { id, name: String::new() }
            }
            0..4 => {
                let is_learner = |id: &&u64| !raft.members().is_voter(**id);
                Change::Promote(*members.iter().find(is_learner).unwrap_or(&id))
            }
            4 => Change::Demote(id),
            _ => Change::Remove(id),
        };
        note!(self, "{} is asked to {change:?}", name(leader));
        self.stats.changes += 1;
        self.feed(leader, node::Input::Change(change))
    }

    /// Sets the process's timer again, after its clock has changed.
    pub(super) fn rearm(&mut self, process: usize) {
        self.processes[process].timer = None;
        self.arm(process);
    }

    pub(super) fn partition(&mut self, leader: Option<usize>) {
        let all = (1u8 << (self.processes.len() - 1) << 1).wrapping_sub(1);
        let half = self.rng.next_u32() as u8 & all;
        self.cut = [0; MAX_PROCESSES];
        match self.rng.random_range(0..6) {
            0 | 1 => {}
            2 => self.cut_between(half, all & !half),
            3 => {
                for from in 0..self.processes.len() {
                    if half & (1 << from) != 0 {
                        // This half receives what the other half sends, but not the other way
                        // round.
                        self.cut[from] = all & !half;
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
                if let Some(leader) = leader {
                    self.schedule_reads(leader);
                }
                if let Some(leader) =
                    leader.filter(|_| self.conditions.faults.has(Fault::Membership))
                {
                    self.schedule_changes(leader);
                }
            }
        }
        note!(self, "cuts: {:?}", &self.cut[..self.processes.len()]);
    }

    pub(super) fn cut_between(&mut self, one: u8, other: u8) {
        for process in 0..self.processes.len() {
            if one & (1 << process) != 0 {
                self.cut[process] |= other;
            }
            if other & (1 << process) != 0 {
                self.cut[process] |= one;
            }
        }
    }

    pub(super) fn freeze(&mut self, process: usize) {
        let everything = self.rng.random();
        let p = &mut self.processes[process];
        if p.frozen != Frozen::No {
            return;
        }
        p.frozen = if everything { Frozen::Everything } else { Frozen::Timers };
        let start = p.start;
        let pause = self.rng.random_range(1_000..5_000_000);
        note!(
            self,
            "{} freezes for {pause} µs, {}",
            name(process),
            match everything {
                true => "entirely",
                false => "only its timers",
            }
        );
        self.schedule(self.now + pause, Event::Thaw { process, start });
    }

    pub(super) fn thaw(&mut self, process: usize) -> Check {
        let p = &mut self.processes[process];
        p.frozen = Frozen::No;
        note!(self, "{} thaws", name(process));
        // Events happen in the order in which they arrived, or timers first: no platform promises
        // an order.
        let mut stash = std::mem::take(&mut self.processes[process].stash);
        if self.rng.random() {
            stash.sort_by_key(|event| !matches!(event, Event::Timer { .. }));
        }
        let start = self.processes[process].start;
        for event in stash {
            if self.is_current(process, start) {
                self.dispatch(event)?;
            }
        }
        Ok(())
    }

    pub(super) fn close(&mut self, process: usize) -> Check {
        if self.processes[process].closing || !self.may_crash(process) {
            return Ok(());
        }
        note!(self, "{} is being closed", name(process));
        let p = &mut self.processes[process];
        p.closing = true;
        let (start, goodbye) = (p.start, p.formation.handle_close());
        let pause = self.rng.random_range(0..400_000);
        self.schedule(self.now + pause, Event::Exit { process, start });
        self.take_forming(process, goodbye)?;
        if !self.is_current(process, start) || self.processes[process].refused {
            return Ok(());
        }
        self.feed(process, node::Input::Close(Failure::new("CLOSED", "closed")))
    }
}
