//! Processes: how they start, join a cluster, die, and tell the time.

use super::*;

impl World {
    pub(super) fn start(&mut self, process: usize) -> Check {
        if self.processes[process].up || !self.may_start(process) {
            return Ok(());
        }
        let disk = std::mem::take(&mut self.processes[process].disk);
        let start = self.processes[process].start + 1;
        self.processes[process] = self.fresh(process, disk, start);
        self.clients += 1;
        let client = self.clients;
        let p = &mut self.processes[process];
        (p.up, p.client) = (true, client);
        note!(
            self,
            "{} starts, as {}",
            name(process),
            self.processes[process].formation.me().nonce
        );
        match self.processes[process].disk.identity().cloned() {
            Some(identity) => self.join(process, identity, true)?,
            None => self.tick(process)?,
        }
        let pause = self.rng.random_range(0..self.conditions.pause * 2);
        self.schedule(self.now + pause, Event::Client { process });
        self.arm(process);
        Ok(())
    }

    /// Whether a process can start. Who joins a cluster later waits until there is one; and who was
    /// removed from it comes back as a new node.
    fn may_start(&mut self, process: usize) -> bool {
        let joins = process >= self.size && self.conditions.faults.has(Fault::Membership);
        let identity = self.processes[process].disk.identity();
        if let Some(identity) = identity {
            let hash = identity.set.hash();
            let invariants = self.clusters.iter().find(|(known, _)| *known == hash);
            if self.healed.is_some() || !invariants.is_some_and(|(_, t)| t.is_out(identity.number))
            {
                return true;
            }
        } else if !joins {
            return true;
        }
        let Some((hash, _)) =
            self.clusters.iter().max_by_key(|(_, invariants)| invariants.committed())
        else {
            if self.healed.is_none() {
                self.schedule(self.now + 50_000, Event::Restart { process });
            }
            return false;
        };
        let set = self.sets[hash].clone();
        self.joined.push(process);
        let number = (set.members().len() + self.joined.len()) as u64;
        self.processes[process].disk = Disk::of(Identity { number, nonce: JOINER + number, set });
        true
    }

    /// The process with a number in a cluster, and its nonce.
    pub(super) fn member(&self, hash: u64, number: u64) -> Option<(usize, u64)> {
        let set = &self.sets[&hash];
        if let Some(member) = set.member(number) {
            return Some((usize::from(member.id.as_bytes()[0] - b'a'), member.nonce));
        }
        let later = usize::try_from(number).ok()?.checked_sub(set.members().len() + 1)?;
        let joined = self.joined.get(later).map(|process| (*process, JOINER + number));
        // Who comes back is known by its nonce, also before it has heard that it is welcome.
        let speaks = |p: &Process| p.formation.me().nonce == number;
        let returned = self.returned.get(&number).copied();
        let returned = returned.or_else(|| self.processes.iter().position(speaks));
        joined.or_else(|| returned.map(|process| (process, number)))
    }

    /// The process is a member from now on, or waits to become one.
    pub(super) fn join(&mut self, process: usize, identity: Identity, again: bool) -> Check {
        let Identity { number, nonce, ref set } = identity;
        let hash = set.hash();
        let initial = Members::voters(1..=set.members().len() as u64);
        let invariants = match self.clusters.iter().position(|(known, _)| *known == hash) {
            Some(invariants) => invariants,
            None => {
                self.clusters.push((hash, Invariants::new(initial.clone())));
                self.sets.insert(hash, set.clone());
                self.clusters.len() - 1
            }
        };
        note!(self, "{} is n{number} of {hash:016x}", name(process));
        let conditions = &self.conditions;
        let config = raft::Config {
            first_election: (number == 1 && !again).then_some(5),
            election_timeout: conditions.election,
            heartbeat_interval: conditions.heartbeat,
            quiesce_interval: conditions.quiesce_interval,
            max_message_bytes: conditions.max_message_bytes,
            max_inflight: conditions.max_inflight,
            max_uncommitted_bytes: conditions.max_uncommitted_bytes,
            ..raft::Config::new(
                number,
                if set.member(number).is_some() { initial } else { Members::default() },
            )
        };
        if set.member(number).is_none() && joiner(nonce).is_none() {
            self.returned.insert(number, process);
        }
        let p = &mut self.processes[process];
        p.membership = Some(Membership { number, nonce, invariants, hash });
        let saved = p.disk.load();
        if !again {
            p.disk.start(Write::Identity(identity));
            self.write(process);
        }
        self.check_clusters()?;
        self.feed(process, node::Input::Start { config, saved })
    }

    /// No two clusters ever have a majority of their members running in them.
    pub(super) fn check_clusters(&self) -> Check {
        let running = |hash: u64| {
            let first = self.sets[&hash].members().len() as u64;
            let counts = |m: &Membership| m.hash == hash && m.number <= first;
            let runs = |p: &&Process| p.membership.as_ref().is_some_and(counts);
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
        let wanted = [p.deadline, p.forming_deadline()].into_iter().flatten().min();
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
        if p.forming_deadline().is_some_and(|deadline| deadline <= now) {
            let output = p.formation.handle_tick(now);
            self.take_forming(process, output)?;
            self.look_after_members(process)?;
        }
        let p = &mut self.processes[process];
        if p.up && p.deadline.is_some_and(|deadline| deadline <= now) {
            self.feed(process, node::Input::Tick)?;
        }
        self.arm(process);
        Ok(())
    }
}
