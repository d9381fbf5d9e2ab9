//! Processes: how they start, join a cluster, die, and tell the time.

use super::*;

impl World {
    pub(super) fn start(&mut self, process: usize) -> Check {
        if self.processes[process].up {
            return Ok(());
        }
        let disk = std::mem::take(&mut self.processes[process].disk);
        let start = self.processes[process].start + 1;
        self.processes[process] = self.fresh(process, disk, start);
        self.clients += 1;
        let client = self.clients;
        let p = &mut self.processes[process];
        (p.up, p.client) = (true, client);
        note!(self, "{} starts, as {}", name(process), self.processes[process].tenancy.me().nonce);
        let set = self.processes[process].tenancy.set().cloned();
        match set {
            Some(set) => self.join(process, &set, true)?,
            None => self.tick(process)?,
        }
        let pause = self.rng.random_range(0..self.weather.pause * 2);
        self.schedule(self.now + pause, Event::Client { process });
        self.arm(process);
        Ok(())
    }

    /// The process is a member from now on.
    pub(super) fn join(&mut self, process: usize, set: &Set, again: bool) -> Check {
        let hash = set.hash();
        let nonce = self.processes[process].tenancy.me().nonce;
        let number = set.number(nonce).ok_or("a process runs in a set that is not its own")?;
        let truth = match self.truths.iter().position(|(known, _)| *known == hash) {
            Some(truth) => truth,
            None => {
                self.truths.push((hash, Truth::default()));
                self.sets.insert(hash, set.clone());
                self.truths.len() - 1
            }
        };
        let peers = set.members().iter().map(|m| usize::from(m.id.as_bytes()[0] - b'a')).collect();
        note!(self, "{} is n{number} of {hash:016x}", name(process));
        let weather = &self.weather;
        let config = raft::Config {
            first_election: (number == 1 && !again).then_some(5),
            election_timeout: weather.election,
            heartbeat_interval: weather.heartbeat,
            max_message_bytes: weather.max_message_bytes,
            max_inflight: weather.max_inflight,
            max_uncommitted_bytes: weather.max_uncommitted_bytes,
            ..raft::Config::new(number, (1..=set.members().len() as u64).collect())
        };
        let p = &mut self.processes[process];
        p.membership = Some(Membership { number, truth, hash, peers });
        let saved = p.disk.load();
        if !again {
            p.disk.start(Write::Identity(Identity { nonce, set: set.clone() }));
            self.write(process);
        }
        self.check_clusters()?;
        self.feed(process, node::Input::Start { config, saved })
    }

    /// No two clusters ever have a majority of their members running in them.
    pub(super) fn check_clusters(&self) -> Check {
        let running = |hash: u64| {
            let runs = |p: &&Process| p.membership.as_ref().is_some_and(|m| m.hash == hash);
            self.processes.iter().filter(runs).count()
        };
        let able = self.sets.keys().filter(|hash| running(**hash) > self.size / 2);
        if able.count() > 1 {
            return Err("two clusters have formed, each with a majority".into());
        }
        Ok(())
    }

    pub(super) fn crash(&mut self, process: usize, how: &str) {
        let p = &mut self.processes[process];
        if !p.up {
            return;
        }
        p.up = false;
        p.writing = false;
        p.stash.clear();
        let lost = p.disk.crash(&mut self.rng);
        self.stats.crashes += 1;
        note!(self, "{} {how}; writes: {} done, {} lost", name(process), lost.done, lost.lost);
        let pause = match self.rng.random_range(0..4) {
            0 => self.rng.random_range(0..5_000),
            _ => self.rng.random_range(5_000..3_000_000),
        };
        self.schedule(self.now + pause, Event::Restart { process });
    }

    /// Whether the process may die: one that dies before its identity is durable comes back as a
    /// stranger, and a cluster survives only a minority of those.
    pub(super) fn may_crash(&mut self, process: usize) -> bool {
        let p = &self.processes[process];
        if !p.up || p.refused || p.disk.identity().is_some() {
            return p.up;
        }
        let may = self.expendable > 0;
        self.expendable -= usize::from(may);
        may
    }

    /// Schedules the process's next timer, unless an earlier one is under way.
    pub(super) fn arm(&mut self, process: usize) {
        let p = &mut self.processes[process];
        if !p.up {
            return;
        }
        let wanted = [p.deadline, p.tenancy.deadline()].into_iter().flatten().min();
        let Some(wanted) = wanted else { return };
        let at = p.clock.when(self.now, wanted).max(self.now + 1);
        if p.timer.is_none_or(|timer| timer > at) {
            p.timer = Some(at);
            let start = p.start;
            self.schedule(at, Event::Timer { process, start });
        }
    }

    pub(super) fn timer(&mut self, process: usize) -> Check {
        let p = &mut self.processes[process];
        if p.timer.is_some_and(|timer| timer > self.now) {
            return Ok(()); // One that was overtaken by an earlier one, which has run.
        }
        p.timer = None;
        self.tick(process)
    }

    pub(super) fn tick(&mut self, process: usize) -> Check {
        let now = self.local(process);
        let p = &mut self.processes[process];
        if p.tenancy.deadline().is_some_and(|deadline| deadline <= now) {
            let output = p.tenancy.handle_tick(now);
            self.take_forming(process, output)?;
        }
        let p = &mut self.processes[process];
        if p.up && p.deadline.is_some_and(|deadline| deadline <= now) {
            self.feed(process, node::Input::Tick)?;
        }
        self.arm(process);
        Ok(())
    }
}
