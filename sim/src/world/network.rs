//! The network: it delivers, loses, repeats, delays, reorders and corrupts messages.

use super::*;

impl World {
    pub(super) fn post(&mut self, from: usize, to: usize, header: Header, message: Message) {
        if self.cut[from] & (1 << to) != 0 {
            note!(self, "{} ─╳ {} {}", name(from), name(to), Line(&message));
            return;
        }
        if self.healed.is_none() {
            if self.chance(self.conditions.loss) {
                note!(self, "{} ─✗ {} lost: {}", name(from), name(to), Line(&message));
                return;
            }
            if self.chance(self.conditions.corruption) {
                return self.corrupt(from, to, header, &message);
            }
            if self.chance(self.conditions.duplication) {
                let again = InFlight { from, to, header, message: message.clone() };
                let at = self.arrival(from, to);
                self.schedule(at, Event::Deliver(again));
            }
        }
        let at = self.arrival(from, to);
        self.schedule(at, Event::Deliver(InFlight { from, to, header, message }));
    }

    pub(super) fn chance(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.rng.random_range(0..1000) < per_mille
    }

    pub(super) fn arrival(&mut self, from: usize, to: usize) -> Micros {
        let (min, max) = self.conditions.latency;
        let slow = self.processes[from].slow + self.processes[to].slow;
        let mut at = self.now + slow + self.rng.random_range(min..=max);
        let mut overtakes = false;
        if self.healed.is_none() {
            if self.chance(self.conditions.delay.0) {
                at += self.rng.random_range(0..self.conditions.delay.1);
                overtakes = true;
            }
            overtakes |= self.chance(self.conditions.reordering);
        }
        if overtakes {
            return at;
        }
        let last = &mut self.arrivals[from][to];
        *last = (*last).max(at);
        *last
    }

    /// Flips some bits of the message's frame and may cut off its end. The codec must refuse the
    /// result.
    pub(super) fn corrupt(&mut self, from: usize, to: usize, header: Header, message: &Message) {
        let mut writer = FrameWriter::new(header);
        writer.push(message);
        for sent in writer.finish() {
            let mut frame = sent.clone();
            for _ in 0..self.rng.random_range(1..4) {
                let bit = self.rng.random_range(0..frame.len() * 8);
                frame[bit / 8] ^= 1 << (bit % 8);
            }
            if self.rng.random_ratio(1, 4) {
                frame.truncate(self.rng.random_range(0..frame.len()));
            }
            // The same bit may have been flipped twice.
            let read = wire::read::<Message>(&frame);
            assert!(read.is_err() || frame == sent, "a corrupted frame was read as {read:?}");
        }
        note!(self, "{} ─✗ {} corrupted: {}", name(from), name(to), Line(message));
    }

    pub(super) fn deliver(&mut self, in_flight: InFlight) -> Check {
        let InFlight { from, to, header, message } = in_flight;
        let p = &mut self.processes[to];
        let own =
            p.membership.as_ref().map_or(p.formation.me().nonce, |membership| membership.nonce);
        if !p.up || header.to != 0 && header.to != own {
            return Ok(());
        }
        note!(self, "{} → {} {}", name(from), name(to), Line(&message));
        let now = self.local(to);
        let p = &mut self.processes[to];
        match message {
            Message::Elastic(_) => Ok(()),
            Message::Formation(_) if joiner(own).is_some() => Ok(()),
            Message::Formation(message) => {
                let output = p.formation.handle_message(now, message);
                self.take_forming(to, output)?;
                self.look_after_members(to)
            }
            Message::Node(packet) => {
                let Some(membership) = &p.membership else { return Ok(()) };
                if membership.hash != header.set {
                    let output = p.formation.handle_other_set(header.from);
                    return self.take_forming(to, output);
                }
                let set = &self.sets[&header.set];
                let number = joiner(header.from).or_else(|| set.number(header.from));
                let number = number.unwrap_or(header.from);
                let to_adopt = term_to_adopt(&packet);
                let start = self.processes[to].start;
                let settled = self.settled_term(to, number, &packet);
                self.feed(to, node::Input::Receive { from: number, packet })?;
                let raft = self.processes[to].node.raft().filter(|_| self.is_current(to, start));
                match raft {
                    Some(raft) if settled.is_some_and(|term| raft.term() > term) => {
                        Err(format!("{} has a leader, but n{number} raises its term", name(to)))
                    }
                    Some(raft) if raft.term() < to_adopt => {
                        Err(format!("{} received term {to_adopt} but did not adopt it", name(to)))
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

impl World {
    /// The term of a node that has just heard from its leader and is asked for a vote by a removed
    /// node. It must stay in this term (dissertation §4.2.3).
    fn settled_term(&self, process: usize, from: u64, packet: &Packet) -> Option<u64> {
        let p = &self.processes[process];
        let out = self.clusters[p.membership.as_ref()?.cluster].1.is_out(from);
        let Packet::Raft(raft::Message { body: raft::Body::Vote { transfer: false, .. }, .. }) =
            packet
        else {
            return None;
        };
        let raft = p.node.raft().filter(|raft| out && raft.is_sticky())?;
        Some(raft.term())
    }
}

/// The term that the receiver of a message must adopt if its own is older (paper §5.1), or 0.
/// PreVote requests and granted PreVotes are about a term that does not exist yet. A vote request
/// may be ignored by a node that hears from its leader.
fn term_to_adopt(packet: &Packet) -> u64 {
    let Packet::Raft(message) = packet else { return 0 };
    match message.body {
        raft::Body::PreVote { .. }
        | raft::Body::PreVoteReply { granted: true }
        | raft::Body::Vote { .. } => 0,
        _ => message.term,
    }
}
