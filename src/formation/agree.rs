//! How nodes agree on a set: proposing, accepting, withdrawing, and starting once all have accepted.

use rand::{Rng, RngExt};

use super::set::{Member, Set};
use super::types::{Body, Event, To};
use super::{ACCEPT_TIMEOUT, Bound, Formation, HELLO_PAUSE, Known, State};
use crate::mistakes::{Mistake, made};

impl Formation {
    pub(super) fn handle_hello(&mut self, from: Member, size: u64, bound: Option<u64>, ask: bool) {
        if size != self.plan.size() as u64 {
            if self.mismatched.insert(from.id.clone()) {
                self.out.events.push(Event::SizeMismatch { id: from.id.clone(), size });
                // So that it knows as well.
                self.send(To::Member(from), self.hello(false));
            }
            return;
        }
        if !self.plan.admits(&from.id) {
            // Who is right is not settled before a cluster has formed.
            if self.mismatched.insert(from.id.clone()) {
                self.out.events.push(Event::NotAMember { id: from.id });
            }
            return;
        }
        let is_new = self.note_present(&from, bound);
        if ask {
            self.send(To::Member(from.clone()), self.hello(false));
        }
        if let State::Forming(Some(mine)) = &mut self.state {
            let in_set = mine.set.has(&from);
            match bound {
                Some(hash) if hash == mine.hash && in_set => {
                    mine.accepted.insert(from.nonce);
                    return self.check_complete();
                }
                // A member that is bound elsewhere. Of two sets that compete the smaller stays.
                Some(hash) if in_set && hash < mine.hash => self.withdraw(),
                _ => {}
            }
        }
        if is_new {
            self.hello_pause = HELLO_PAUSE.0;
        }
        self.try_propose();
    }

    /// Takes note of a node. Says whether it, or this start of it, is new.
    pub(super) fn note_present(&mut self, member: &Member, bound: Option<u64>) -> bool {
        let known = Known { nonce: member.nonce, heard: self.now, bound };
        let before = self.known.insert(member.id.clone(), known);
        // A new start of a member of the set to which this node is bound: the old one is dead to
        // us, and the set can never be complete.
        if let State::Forming(Some(mine)) = &self.state
            && mine.set.with_id(&member.id).is_some_and(|m| m.nonce != member.nonce)
        {
            self.withdraw();
        }
        before.is_none_or(|before| before.nonce != member.nonce)
    }

    /// Draws a new nonce: to the set to which this node was bound it has crashed.
    pub(super) fn withdraw(&mut self) {
        self.state = State::Forming(None);
        self.me.nonce = self.rng.next_u64().max(1);
        self.nonces.insert(self.me.nonce);
        self.propose_at = self.now + self.rng.random_range(10..=100);
        self.send(To::Everyone, self.hello(true));
        self.hello_pause = HELLO_PAUSE.0;
        self.hello_at = self.propose_at;
    }

    /// Proposes a set, if this is the node to do it.
    pub(super) fn try_propose(&mut self) {
        let State::Forming(None) = &self.state else { return };
        if self.now < self.propose_at {
            return;
        }
        let others = self.known.iter().filter(|(_, known)| known.bound.is_none());
        let others = others.map(|(id, known)| Member { id: id.clone(), nonce: known.nonce });
        let mut members: Vec<_> = others.chain([self.me.clone()]).collect();
        members.sort();
        members.truncate(self.plan.size());
        if members.len() < self.plan.size() || members[0] != self.me {
            return;
        }
        let Some(set) = Set::new(members) else { return };
        self.bind(set.clone(), true);
        for member in set.members().iter().filter(|m| **m != self.me).cloned().collect::<Vec<_>>() {
            self.send(To::Member(member), Body::Propose { set: set.clone() });
        }
        self.check_complete();
    }

    pub(super) fn bind(&mut self, set: Set, mine: bool) {
        let patience = if mine { ACCEPT_TIMEOUT } else { 2 * ACCEPT_TIMEOUT };
        let give_up = self.now + patience + self.rng.random_range(0..=ACCEPT_TIMEOUT / 2);
        let hash = set.hash();
        let accepted = [self.me.nonce].into_iter().collect();
        self.state = State::Forming(Some(Bound { set, hash, accepted, mine, give_up }));
        self.hello_pause = HELLO_PAUSE.0;
        self.hello_at = self.now + HELLO_PAUSE.0;
    }

    pub(super) fn handle_propose(&mut self, from: Member, set: Set) {
        // What came over the wire is checked like any other set.
        let Some(set) = set.checked() else { return };
        let fits = set.members().len() == self.plan.size()
            && set.members().iter().all(|member| self.plan.admits(&member.id));
        if !fits || !set.has(&from) || !set.has(&self.me) {
            // Perhaps it knows an earlier start of this node.
            return self.send(To::Member(from), self.hello(false));
        }
        let hash = set.hash();
        self.note_present(&from, Some(hash));
        let State::Forming(bound) = &mut self.state else { return };
        match bound {
            None if set.has(&self.me) => self.bind(set.clone(), false),
            Some(bound) if bound.hash == hash => {}
            // Bound to another set, or `meet` has just withdrawn from it.
            _ => return self.send(To::Member(from), self.hello(false)),
        }
        if let State::Forming(Some(bound)) = &mut self.state {
            bound.accepted.insert(from.nonce);
        }
        // Every member counts for itself who has accepted.
        for member in set.members().iter().filter(|m| **m != self.me).cloned().collect::<Vec<_>>() {
            self.send(To::Member(member), self.hello(false));
        }
        self.check_complete();
    }

    pub(super) fn check_complete(&mut self) {
        let enough = |bound: &Bound| {
            let members = bound.set.members().len();
            let early = made(Mistake::VoteBeforeFormed) && bound.accepted.len() > members / 2;
            bound.accepted.len() == members || early
        };
        if let State::Forming(Some(bound)) = &self.state
            && enough(bound)
        {
            let set = bound.set.clone();
            self.form(set);
        }
    }

    pub(super) fn handle_formed(&mut self, set: &Set) {
        if let State::Forming(Some(bound)) = &self.state
            && bound.set == *set
        {
            self.form(set.clone());
        }
    }

    pub(super) fn form(&mut self, set: Set) {
        for member in set.members().iter().filter(|m| **m != self.me).cloned().collect::<Vec<_>>() {
            self.send(To::Member(member), Body::Formed { set: set.clone() });
        }
        self.set_hash = set.hash();
        self.roster = set.roster();
        self.state = State::Formed(set.clone());
        self.out.events.push(Event::Formed(set));
    }
}
