//! Clients: what they ask for, and what they are answered.

use super::*;

impl World {
    pub(super) fn client(&mut self, process: usize) -> Check {
        let p = &self.processes[process];
        if self.healed.is_some() || !p.up || p.refused || p.closing {
            return Ok(());
        }
        let pause = self.rng.random_range(0..self.conditions.pause * 2);
        self.schedule(self.now + pause, Event::Client { process });
        let p = &self.processes[process];
        if p.frozen != Frozen::No || p.node.store().waiting() >= MAX_WAITING {
            return Ok(());
        }
        self.ask(process)
    }

    /// One client reads, unless it waits for too much already.
    pub(super) fn read(&mut self, process: usize) -> Check {
        let p = &self.processes[process];
        let busy = p.node.store().waiting() >= MAX_WAITING;
        if self.healed.is_some() || p.closing || p.refused || p.frozen != Frozen::No || busy {
            return Ok(());
        }
        let op = self.call(process, Asked::Read);
        note!(self, "{} reads: op {op}", name(process));
        self.feed(process, node::Input::Read { ticket: u64::from(op) })
    }

    /// One client performs or reads, once or several times at once.
    pub(super) fn ask(&mut self, process: usize) -> Check {
        let many = if self.rng.random_ratio(1, 20) { self.rng.random_range(2..12) } else { 1 };
        let mut performs = Vec::new();
        for _ in 0..many {
            if self.rng.random_ratio(1, 8) {
                let op = self.call(process, Asked::Read);
                note!(self, "{} reads: op {op}", name(process));
                self.feed(process, node::Input::Read { ticket: u64::from(op) })?;
                if !self.processes[process].up {
                    return Ok(());
                }
                continue;
            }
            let method = match self.rng.random_range(0..20) {
                0..7 => Method::Set,
                7..11 => Method::Swap,
                11..14 => Method::Cas,
                14..17 => Method::Get,
                17..19 => Method::Check,
                _ => Method::Poison,
            };
            performs.push(self.perform(process, method));
        }
        self.feed(process, node::Input::Perform(performs))
    }

    pub(super) fn call(&mut self, process: usize, asked: Asked) -> OpId {
        let key = self.rng.random_range(0..KEYS) as u8;
        let p = &self.processes[process];
        // Right, unless another client writes first.
        let expected = p.node.store().provisional().register(key);
        self.stats.ops += 1;
        let client = p.client;
        let (called, answered, committed) = (0, None, None);
        let op = Op { asked, process, client, key, expected, called, answered, committed };
        self.history.call(op)
    }

    pub(super) fn perform(&mut self, process: usize, method: Method) -> Perform {
        let op = self.call(process, Asked::Perform(method));
        let Op { client, key, expected, .. } = *self.history.op(op);
        let large = self.rng.random_ratio(1, 10);
        let most = self.conditions.padding * if large { 10 } else { 1 };
        let padding = Blob::from(vec![b'.'; self.rng.random_range(0..=most)]);
        let gives_up = self.conditions.faults.has(Fault::Timeout) && self.healed.is_none();
        let timeout = (gives_up && self.rng.random_ratio(1, 4))
            .then(|| self.rng.random_range(1..self.conditions.election.1 * 2));
        note!(
            self,
            "{} performs op {op}: {method:?} of register {key}, {expected} there, {} bytes more{}",
            name(process),
            padding.len(),
            timeout.map_or(String::new(), |ms| format!(", for {ms} ms"))
        );
        Perform {
            ticket: u64::from(op),
            method: method.name().into(),
            args: encode(&Args { op, client, key, expected, padding }),
            timeout,
        }
    }

    pub(super) fn settle(&mut self, process: usize, settled: &store::Settled) -> Check {
        let op = settled.ticket as OpId;
        let p = &self.processes[process];
        let store = p.node.store();
        let local = store.committed().register(self.history.op(op).key);
        self.history.answer(op, &settled.outcome, local, store.applied())?;
        note!(
            self,
            "{}: op {op} is settled: {:?}",
            name(process),
            self.history.op(op).answered.expect("just now").1
        );
        let timed_out =
            matches!(&settled.outcome, store::Outcome::Failed(f) if f.code == "TIMEOUT");
        if timed_out && self.rng.random() {
            self.schedule(self.now + 1, Event::Client { process });
        }
        Ok(())
    }

    pub(super) fn event(&mut self, process: usize, event: &node::Event) -> Check {
        match event {
            node::Event::Leader { term, leader } => {
                self.processes[process].changed = true;
                note!(
                    self,
                    "{}: the leader of term {term} is {}",
                    name(process),
                    leader.map_or("not known".into(), |leader| format!("n{leader}"))
                );
                // A leader that dies soon after its election leaves its successor the most to
                // finish.
                let p = &self.processes[process];
                let leads = p.node.raft().is_some_and(raft::Raft::is_leader);
                let changes = leads && self.conditions.faults.has(Fault::Membership);
                if changes && self.rng.random_ratio(1, 3) {
                    self.schedule_changes(process);
                }
                let dies = self.healed.is_none() && self.conditions.faults.has(Fault::Crash);
                if leads && dies && self.rng.random_ratio(1, 6) {
                    self.processes[process].crash_after = Some(self.rng.random_range(0..30));
                }
                Ok(())
            }
            node::Event::Members => {
                self.processes[process].changed = true;
                let raft = self.processes[process].node.raft();
                if let Some(raft) = raft {
                    note!(self, "{} uses the configuration {}", name(process), raft.members());
                }
                Ok(())
            }
            // All nodes are honest, so no message may be rejected as impossible.
            node::Event::Invalid { from, error } => {
                Err(format!("{} rejects a message of n{from}: {error}", name(process)))
            }
            node::Event::Fault(fault @ (Reported::Diverged { .. } | Reported::Stopped(_)))
                if self.processes[process].machine.fails_on.is_some() =>
            {
                note!(self, "{} reports {fault:?}", name(process));
                self.stats.divergences += 1;
                Ok(())
            }
            node::Event::Fault(Reported::Outdated { release }) => {
                note!(self, "{} is outdated: the state is of version {release}", name(process));
                Ok(())
            }
            node::Event::Fault(fault) => {
                Err(format!("{} reports a fault: {fault:?}", name(process)))
            }
        }
    }

    pub(super) fn look_at_raft(&mut self, process: usize) -> Check {
        let now = self.local(process);
        let p = &mut self.processes[process];
        let (Some(membership), Some(raft)) = (&p.membership, p.node.raft()) else { return Ok(()) };
        let invariants = &mut self.clusters[membership.cluster].1;
        invariants.look_at_raft(&mut p.last, raft, now, &mut self.history)
    }

    pub(super) fn look_at_state(&mut self, process: usize) -> Check {
        let p = &mut self.processes[process];
        if p.machine.notified_twice {
            return Err(format!("{} was notified of one action twice", name(process)));
        }
        let (Some(membership), Some(raft)) = (&p.membership, p.node.raft()) else { return Ok(()) };
        let (number, invariants) = (membership.number, &mut self.clusters[membership.cluster].1);
        let (held, sessions) = (p.node.held(), p.node.store().sessions().len());
        invariants.look_at_state(&mut p.last, raft, p.node.store())?;
        if sessions > self.conditions.max_sessions {
            return Err(format!("n{number} has {sessions} sessions"));
        }
        // A slow disk delays the messages that wait for its writes, but their number must be
        // bounded.
        if held > 20_000 {
            return Err(format!("n{number} holds {held} messages back"));
        }
        Ok(())
    }
}
