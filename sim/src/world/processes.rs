//! Processes: how they start, join a cluster, set their timers and die.

use super::*;

impl World {
    pub(super) fn start(&mut self, process: usize) -> Check {
        if self.processes[process].up || !self.may_start(process) {
            return Ok(());
        }
        let disk = std::mem::take(&mut self.processes[process].disk);
        let start = self.processes[process].start + 1;
        self.processes[process] = self.new_process(process, disk, start);
        self.clients += 1;
        let client = self.clients;
        let p = &mut self.processes[process];
        (p.up, p.client) = (true, client);
        note!(
            self,
            "{} starts with the nonce {}",
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

    /// Whether a process can start. A process that joins later waits until a cluster has formed. A
    /// process that was removed from its cluster starts as a new node.
    fn may_start(&mut self, process: usize) -> bool {
        let joins = process >= self.size && self.conditions.faults.has(Fault::Membership);
        let identity = self.processes[process].disk.identity();
        if let Some(identity) = identity {
            let hash = identity.set.hash();
            let cluster = self.clusters.iter().find(|(known, _)| *known == hash);
            let is_out = cluster.is_some_and(|(_, cluster)| cluster.is_out(identity.number));
            if self.healed.is_some() || !is_out {
                return true;
            }
        } else if !joins {
            return true;
        }
        let Some((hash, _)) = self.clusters.iter().max_by_key(|(_, cluster)| cluster.committed())
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
        // A member that lost its memory is known by its new nonce, even before it knows that it is
        // readmitted.
        let has_nonce = |p: &Process| p.formation.me().nonce == number;
        let returned = self.returned.get(&number).copied();
        let returned = returned.or_else(|| self.processes.iter().position(has_nonce));
        joined.or_else(|| returned.map(|process| (process, number)))
    }

    /// The process is a member from now on, or waits to be made one. `again` says that its identity
    /// is durable already.
    pub(super) fn join(&mut self, process: usize, identity: Identity, again: bool) -> Check {
        let Identity { number, nonce, ref set } = identity;
        let hash = set.hash();
        let initial = Members::voters(1..=set.members().len() as u64);
        let cluster = match self.clusters.iter().position(|(known, _)| *known == hash) {
            Some(cluster) => cluster,
            None => {
                self.clusters.push((hash, Invariants::new(initial.clone())));
                self.sets.insert(hash, set.clone());
                self.clusters.len() - 1
            }
        };
        note!(self, "{} is n{number} of the set {hash:016x}", name(process));
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
        p.membership = Some(Membership { number, nonce, cluster, hash });
        let saved = p.disk.load();
        if !again {
            p.disk.start(Write::Identity(identity));
            self.write(process);
        }
        self.check_clusters()?;
        self.feed(process, node::Input::Start { config, saved })
    }

    /// Checks that no two clusters both have a majority of their members running.
    pub(super) fn check_clusters(&self) -> Check {
        let running = |hash: u64| {
            let first = self.sets[&hash].members().len() as u64;
            let counts = |m: &Membership| m.hash == hash && m.number <= first;
            let runs = |p: &&Process| p.membership.as_ref().is_some_and(counts);
            self.processes.iter().filter(runs).count()
        };
        let with_majority = self.sets.keys().filter(|hash| running(**hash) > self.size / 2);
        if with_majority.count() > 1 {
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

    /// Whether the process may die now. A process that dies before its identity is durable comes
    /// back as a node that is not a member, and a cluster can only lose a minority of its members
    /// so.
    pub(super) fn may_crash(&mut self, process: usize) -> bool {
        let p = &self.processes[process];
        if !p.up || p.refused || p.disk.identity().is_some() {
            return p.up;
        }
        let may = self.expendable > 0;
        self.expendable -= usize::from(may);
        may
    }

    /// Sets the process's timer, unless it is set to an earlier time.
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
            // It was set before an earlier timer, which has fired and set the next one.
            return Ok(());
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
