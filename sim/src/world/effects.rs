//! The effects that a node asks for are performed in order. Between any two, its process may die.

use super::*;

impl World {
    /// Counts one more effect. `false` if the process dies instead of performing it.
    pub(super) fn count_effect(&mut self, process: usize) -> bool {
        let Some(left) = &mut self.processes[process].crash_after else { return true };
        if *left > 0 {
            *left -= 1;
            return true;
        }
        self.processes[process].crash_after = None;
        if self.may_crash(process) {
            self.crash(process, "crashes between two effects");
            return false;
        }
        true
    }

    pub(super) fn local(&self, process: usize) -> Time {
        self.processes[process].clock.read(self.now)
    }

    /// Gives a node one input and performs the effects that it asks for. If it calls user code, the
    /// result is its next input.
    pub(super) fn feed(&mut self, process: usize, input: node::Input<State>) -> Check {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let now = self.local(process);
            let output = self.processes[process].node.handle(now, input);
            self.processes[process].deadline = output.deadline;
            self.look_at_raft(process)?;
            for persist in output.persist {
                if !self.count_effect(process) {
                    return Ok(());
                }
                self.persist(process, persist)?;
            }
            for (to, packet) in output.send {
                if !self.count_effect(process) {
                    return Ok(());
                }
                self.send(process, to, packet)?;
            }
            for settled in output.settled {
                if !self.count_effect(process) {
                    return Ok(());
                }
                self.settle(process, &settled)?;
            }
            for event in output.events {
                self.event(process, &event)?;
            }
            if let Some(call) = output.call {
                if !self.count_effect(process) {
                    return Ok(());
                }
                let p = &mut self.processes[process];
                p.machine.provisional = p.node.store().provisional().clone();
                next = Some(node::Input::Returned(call.run(&mut p.machine)));
                self.delay_user_code(process);
            }
        }
        self.look_at_state(process)?;
        self.look_after_members(process)?;
        self.arm(process);
        Ok(())
    }

    /// Lets the formation look at Raft when that is due, so that members that have lost their
    /// memory are taken in again.
    pub(super) fn look_after_members(&mut self, process: usize) -> Check {
        let now = self.local(process);
        let p = &mut self.processes[process];
        let due = std::mem::take(&mut p.changed) || p.formation.is_review_due(now);
        let Some(raft) = p.node.raft().filter(|_| due && p.up && !p.refused) else { return Ok(()) };
        let output = p.formation.handle_raft(now, raft);
        let change = output.change.clone();
        self.take_forming(process, output)?;
        match change.filter(|_| self.processes[process].up) {
            Some(change) => self.feed(process, node::Input::Change(change)),
            None => Ok(()),
        }
    }

    /// Now and then, user code takes long: when it returns, timeouts may have passed.
    fn delay_user_code(&mut self, process: usize) {
        let may = self.healed.is_none() && self.conditions.faults.has(Fault::SlowCode);
        if may && self.rng.random_ratio(1, 300) {
            let by = self.rng.random_range(0..1_000_000);
            note!(self, "{}'s code takes {by} µs", name(process));
            let now = self.now;
            self.processes[process].clock.jump(now, by);
        }
    }

    pub(super) fn persist(&mut self, process: usize, persist: raft::Persist) -> Check {
        let p = &mut self.processes[process];
        let membership = p.membership.as_ref().expect("only members write");
        let raft = p.node.raft().expect("only a node with a Raft writes");
        if let Some(first) = persist.entries.first() {
            let before = first.at.index - 1;
            let term = match persist.snapshot.as_ref().filter(|s| s.last.index == before) {
                Some(snapshot) => snapshot.last.term,
                // The entry before may have been compacted away in the same call.
                None => raft.log().term(before).unwrap_or(0),
            };
            if term > 0 || before == 0 {
                self.clusters[membership.cluster].1.append(term, &persist.entries)?;
            }
        }
        self.stats.snapshots += u64::from(persist.snapshot.is_some());
        note!(
            self,
            "{} writes {}{}{} {}",
            name(process),
            persist.seq,
            persist.hard.map_or(String::new(), |h| format!(
                " term {} vote {}",
                h.term,
                h.vote.unwrap_or(0)
            )),
            persist.snapshot.as_ref().map_or(String::new(), |s| format!(" snapshot {}", s.last)),
            Entries(&persist.entries),
        );
        self.processes[process].disk.start(Write::Raft(persist));
        self.write(process);
        Ok(())
    }

    /// The disk starts its next write, if it is idle.
    pub(super) fn write(&mut self, process: usize) {
        let p = &mut self.processes[process];
        if p.writing || p.disk.pending() == 0 {
            return;
        }
        p.writing = true;
        let (slow, start) = (p.slow, p.start);
        let (min, max) = self.conditions.write;
        let takes = match self.healed {
            None => self.rng.random_range(min..=max) + slow,
            Some(_) => min,
        };
        self.schedule(self.now + takes, Event::Written { process, start });
    }

    pub(super) fn written(&mut self, process: usize) -> Check {
        let p = &mut self.processes[process];
        p.writing = false;
        if std::mem::take(&mut p.disk_fails) && self.may_crash(process) {
            self.crash(process, "stops, because a write failed");
            return Ok(());
        }
        let p = &mut self.processes[process];
        let seq = p.disk.finish();
        if let Some(membership) = &p.membership {
            let invariants = &mut self.clusters[membership.cluster].1;
            invariants.persisted(membership.number, p.disk.hard())?;
        }
        self.write(process);
        note!(self, "{} has written {}", name(process), seq.unwrap_or(0));
        match seq {
            Some(seq) => self.feed(process, node::Input::Persisted(seq)),
            None => Ok(()),
        }
    }

    pub(super) fn send(&mut self, process: usize, to: u64, packet: Packet) -> Check {
        let p = &self.processes[process];
        let membership = p.membership.as_ref().expect("only members send");
        let hash = membership.hash;
        let own = membership.nonce;
        let rejoining = to > self.sets[&hash].members().len() as u64 + self.joined.len() as u64;
        let Some((peer, nonce)) = self.member(hash, to) else {
            // The receiver came back without its memory, and died before it was taken in.
            return if rejoining { Ok(()) } else { Err("a message to an unknown node".into()) };
        };
        let p = &self.processes[process];
        let membership = p.membership.as_ref().expect("only members send");
        if let Packet::Raft(message) = &packet {
            let invariants = &mut self.clusters[membership.cluster].1;
            invariants.send(membership.number, to, message, &p.disk)?;
        }
        let header = Header { cluster: 1, set: hash, from: own, to: nonce, version: 1 };
        self.post(process, peer, header, Message::Node(packet));
        Ok(())
    }

    pub(super) fn take_forming(&mut self, process: usize, output: formation::Output) -> Check {
        let from = self.processes[process].formation.me().nonce;
        for (to, message) in output.messages {
            if !self.count_effect(process) {
                return Ok(());
            }
            let (only, nonce) = match &to {
                To::Everyone => (None, 0),
                To::Nonce(nonce) => (None, *nonce),
                To::Member(member) => {
                    (Some(usize::from(member.id.as_bytes()[0] - b'a')), member.nonce)
                }
            };
            let header = Header { cluster: 1, set: 0, from, to: nonce, version: 1 };
            for peer in 0..self.processes.len() {
                if peer != process && only.is_none_or(|only| only == peer) {
                    self.post(process, peer, header, Message::Formation(message.clone()));
                }
            }
        }
        for event in output.events {
            match event {
                formation::Event::Formed(set) => {
                    let nonce = self.processes[process].formation.me().nonce;
                    let number = set.number(nonce).ok_or("a process forms a set without itself")?;
                    self.join(process, Identity { number, nonce, set }, false)?;
                }
                formation::Event::Readmitted(set) => {
                    let nonce = self.processes[process].formation.me().nonce;
                    self.join(process, Identity { number: nonce, nonce, set }, false)?;
                }
                // The process keeps waiting.
                formation::Event::Refused { why: formation::Refusal::Amnesia, .. } => {}
                formation::Event::Refused { why, .. } if !self.processes[process].refused => {
                    note!(self, "{} is refused: {why:?}", name(process));
                    if self.processes[process].membership.is_none() {
                        self.processes[process].refused = true;
                        let failure = Failure::new(why.code(), "refused");
                        self.feed(process, node::Input::Close(failure))?;
                    }
                }
                event => note!(self, "{} reports {event:?}", name(process)),
            }
        }
        self.arm(process);
        Ok(())
    }
}
