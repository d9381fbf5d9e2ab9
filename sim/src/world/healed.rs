//! The end of a run: the faults stop, and the cluster must recover.

use super::*;

impl World {
    /// The faults stop.
    pub(super) fn heal(&mut self) -> Check {
        note!(self, "the faults stop");
        self.healed = Some(self.now);
        self.cut = [0; MAX_PROCESSES];
        // In some runs, all processes die at once, as in a power failure, and start again together.
        let blackout = self.conditions.faults.has(Fault::Crash) && self.rng.random_ratio(1, 4);
        for process in 0..self.processes.len() {
            if blackout && self.processes[process].disk.identity().is_some() {
                self.crash(process, "loses power");
            }
        }
        for process in 0..self.processes.len() {
            let now = self.now;
            let p = &mut self.processes[process];
            (p.slow, p.crash_after, p.disk_fails) = (0, None, false);
            p.clock.set_rate(now, 1000);
            if p.up && p.closing {
                self.crash(process, "closes");
            }
            if !self.processes[process].up {
                self.start(process)?;
            }
            if self.processes[process].frozen != Frozen::No {
                self.thaw(process)?;
            }
            if self.processes[process].up {
                self.rearm(process);
            }
        }
        self.schedule(self.now + 5_000, Event::Fault);
        Ok(())
    }

    /// Checks, again and again after the faults have stopped, what must have happened by now.
    pub(super) fn check_recovery(&mut self) -> Check {
        if self.done {
            return Ok(());
        }
        let healed = self.healed.expect("the faults have stopped");
        // A set may have formed without the knowledge of other members, which have withdrawn from
        // it since. The processes that run in it can never go on, so only the largest cluster
        // counts.
        let all = 0..self.processes.len();
        let running = |(hash, invariants): &(u64, Invariants)| {
            let of = |m: &&Membership| m.hash == *hash && invariants.members().contains(m.number);
            let is_member = |p: &usize| {
                let p = &self.processes[*p];
                p.up && p.membership.as_ref().filter(of).is_some()
            };
            let members: Vec<_> = all.clone().filter(is_member).collect();
            let number = |p: &usize| self.processes[*p].membership.as_ref().map_or(0, |m| m.number);
            let voters =
                members.iter().filter(|p| invariants.members().is_voter(number(p))).count();
            (voters >= invariants.members().quorum(), members)
        };
        let clusters = self.clusters.iter().map(running);
        let (has_majority, members) = clusters.max_by_key(|(_, m)| m.len()).unwrap_or_default();
        if self.leader_agreed.is_none() && !has_majority {
            // Processes that withdrew from a set while others formed it, or lost their memory of
            // it, can never become members of it.
            let unbound = self.processes.iter().filter(|p| !p.refused && p.membership.is_none());
            let late = self.now > healed + FORMED_WITHIN;
            let some_are_out = !self.sets.is_empty() || self.processes.iter().any(|p| p.refused);
            if unbound.count() == 0 || late && some_are_out {
                self.stats.lost += 1;
                self.done = true;
            } else if late {
                return Err(format!(
                    "no cluster of {} has formed long after the faults stopped",
                    self.size
                ));
            }
            return Ok(());
        }
        let follows = |p: &usize| {
            let raft = self.processes[*p].node.raft();
            raft.and_then(raft::Raft::leader).map(|leader| (raft.map(raft::Raft::term), leader))
        };
        let Some(leader_agreed) = self.leader_agreed else {
            // A removed node may not know that it was removed. It is not asked, and must not
            // disrupt the members.
            let leaders: BTreeSet<_> = members.iter().map(follows).collect();
            if leaders.len() == 1 && leaders.iter().all(Option::is_some) {
                note!(self, "all members follow one leader");
                self.leader_agreed = Some(self.now);
            } else if self.now > self.leader_due(healed) {
                return Err("no leader is agreed upon long after the faults stopped".into());
            }
            return Ok(());
        };
        if !std::mem::replace(&mut self.probed, true) {
            for process in &members {
                let performs = vec![self.perform(*process, Method::Swap)];
                self.feed(*process, node::Input::Perform(performs))?;
            }
            return Ok(());
        }
        let waiting = members.iter().find(|p| self.processes[**p].node.store().waiting() > 0);
        let ends = |p: &usize| {
            let node = &self.processes[*p].node;
            let raft = node.raft().expect("a member has one");
            (raft.log().last(), raft.commit_index(), node.store().applied())
        };
        // A node that has diverged for good keeps its log, and applies nothing any more.
        let goes_on = |p: &&usize| !self.processes[**p].node.store().is_stopped();
        let members: Vec<_> = members.iter().filter(goes_on).copied().collect();
        let store = |p: &usize| self.processes[*p].node.store();
        let equal = members.windows(2).all(|two| ends(&two[0]) == ends(&two[1]))
            && members.iter().all(|p| ends(p).0.index == ends(p).2 && store(p).is_fit());
        if waiting.is_none() && equal {
            self.done = true;
            return self.check_end(&members);
        }
        if self.now > leader_agreed + SETTLED_WITHIN {
            return Err(match waiting {
                Some(process) => format!("a perform or read of {} never settles", name(*process)),
                None => "the logs of the members never become equal".into(),
            });
        }
        Ok(())
    }

    /// When a leader must be known. That is later while a process is still forming its cluster: it
    /// may also learn late that the cluster has formed.
    pub(super) fn leader_due(&self, healed: Micros) -> Micros {
        let forming = self.processes.iter().any(|p| p.membership.is_none() && !p.refused && p.up);
        let patience = self.conditions.election.1 * 1000 * LEADER_WITHIN;
        healed + if forming { FORMED_WITHIN } else { patience.max(2_000_000) }
    }

    /// Checks that all members have the same state, and that nothing is left unsettled.
    pub(super) fn check_end(&self, members: &[usize]) -> Check {
        let is_current = |p: &&usize| {
            let store = self.processes[**p].node.store();
            store.release() == Some(store.version())
        };
        let states: BTreeSet<u64> = members
            .iter()
            .filter(is_current)
            .flat_map(|p| {
                let store = self.processes[*p].node.store();
                [store.committed().hash(), store.provisional().hash()]
            })
            .collect();
        if states.len() > 1 {
            return Err("the members end in different states".into());
        }
        for (op, record) in (1..).zip(self.history.ops()) {
            let p = &self.processes[record.process];
            if record.answered.is_none()
                && p.client == record.client
                && members.contains(&record.process)
            {
                return Err(format!("op {op} of {} was never settled", name(record.process)));
            }
        }
        Ok(())
    }
}
