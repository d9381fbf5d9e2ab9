//! Agreeing on a set: proposing, accepting and withdrawing, and starting once all have accepted.

use rand::{Rng, RngExt};

use super::set::{Member, Set};
use super::types::{Body, Event, To};
use super::{ACCEPT_TIMEOUT, AcceptedSet, Formation, HELLO_PAUSE, Peer, State};
use crate::mistakes::{Mistake, made};

impl Formation {
    pub(super) fn handle_hello(
        &mut self,
        from: Member,
        size: u64,
        accepted: Option<u64>,
        ask: bool,
    ) {
        if size != self.plan.size() as u64 {
            if self.reported.insert(from.id.clone()) {
                self.out.events.push(Event::SizeMismatch { id: from.id.clone(), size });
                // From this hello the other node learns of the difference and reports it, too.
                self.send(To::Member(from), self.hello(false));
            }
            return;
        }
        if !self.plan.admits(&from.id) {
            // No refusal: before a cluster has formed, the sender's list of members may be the
            // right one.
            if self.reported.insert(from.id.clone()) {
                self.out.events.push(Event::NotAMember { id: from.id });
            }
            return;
        }
        let is_new = self.note_peer(&from, accepted);
        if ask {
            self.send(To::Member(from.clone()), self.hello(false));
        }
        if let State::Forming(Some(own)) = &mut self.state {
            let in_set = own.set.has(&from);
            match accepted {
                Some(hash) if hash == own.hash && in_set => {
                    own.accepted_by.insert(from.nonce);
                    return self.check_complete();
                }
                // A member of this set has accepted another one. Of two sets that compete for a
                // member, the one with the smaller hash wins.
                Some(hash) if in_set && hash < own.hash => self.withdraw(),
                _ => {}
            }
        }
        if is_new {
            self.hello_pause = HELLO_PAUSE.0;
        }
        self.try_propose();
    }

    /// Records that this start of a node is present and which set it has accepted. Returns whether
    /// the node, or this start of it, is new.
    pub(super) fn note_peer(&mut self, member: &Member, accepted: Option<u64>) -> bool {
        let peer = Peer { nonce: member.nonce, heard: self.now, accepted };
        let before = self.peers.insert(member.id.clone(), peer);
        // A member of the accepted set has started again. Its earlier start is dead, so the set can
        // never become complete.
        if let State::Forming(Some(own)) = &self.state
            && own.set.with_id(&member.id).is_some_and(|m| m.nonce != member.nonce)
        {
            self.withdraw();
        }
        before.is_none_or(|before| before.nonce != member.nonce)
    }

    /// Gives up the accepted set by drawing a new nonce: to that set, this node has crashed.
    ///
    /// The node does not propose again at once, or two nodes could withdraw from each other's sets
    /// for ever.
    pub(super) fn withdraw(&mut self) {
        self.state = State::Forming(None);
        self.me.nonce = self.rng.next_u64().max(1);
        self.nonces.insert(self.me.nonce);
        self.propose_after = self.now + self.rng.random_range(10..=100);
        self.send(To::Everyone, self.hello(true));
        self.hello_pause = HELLO_PAUSE.0;
        self.next_hello = self.propose_after;
    }

    /// Proposes a set if enough nodes are free and this node has the smallest id of them.
    pub(super) fn try_propose(&mut self) {
        let State::Forming(None) = &self.state else { return };
        if self.now < self.propose_after {
            return;
        }
        let free = self.peers.iter().filter(|(_, peer)| peer.accepted.is_none());
        let free = free.map(|(id, peer)| Member { id: id.clone(), nonce: peer.nonce });
        let mut members: Vec<_> = free.chain([self.me.clone()]).collect();
        members.sort();
        members.truncate(self.plan.size());
        if members.len() < self.plan.size() || members[0] != self.me {
            return;
        }
        let Some(set) = Set::new(members) else { return };
        self.accept(set.clone(), true);
        for member in set.members().iter().filter(|m| **m != self.me).cloned().collect::<Vec<_>>() {
            self.send(To::Member(member), Body::Propose { set: set.clone() });
        }
        self.check_complete();
    }

    /// Accepts a set. A set that this node proposed itself is given up sooner: see
    /// [`ACCEPT_TIMEOUT`].
    pub(super) fn accept(&mut self, set: Set, is_proposer: bool) {
        let patience = if is_proposer { ACCEPT_TIMEOUT } else { 2 * ACCEPT_TIMEOUT };
        let give_up_at = self.now + patience + self.rng.random_range(0..=ACCEPT_TIMEOUT / 2);
        let hash = set.hash();
        let accepted_by = [self.me.nonce].into_iter().collect();
        let own = AcceptedSet { set, hash, accepted_by, is_proposer, give_up_at };
        self.state = State::Forming(Some(own));
        self.hello_pause = HELLO_PAUSE.0;
        self.next_hello = self.now + HELLO_PAUSE.0;
    }

    pub(super) fn handle_propose(&mut self, from: Member, set: Set) {
        let Some(set) = set.checked() else { return };
        let fits = set.members().len() == self.plan.size()
            && set.members().iter().all(|member| self.plan.admits(&member.id));
        if !fits || !set.has(&from) || !set.has(&self.me) {
            // The sender may know only an earlier start of this node. The hello has the current
            // nonce.
            return self.send(To::Member(from), self.hello(false));
        }
        let hash = set.hash();
        self.note_peer(&from, Some(hash));
        let State::Forming(own) = &mut self.state else { return };
        match own {
            None if set.has(&self.me) => self.accept(set.clone(), false),
            Some(own) if own.hash == hash => {}
            // This node has accepted another set; or `note_peer` has just withdrawn it from one,
            // and the proposal names its old nonce.
            _ => return self.send(To::Member(from), self.hello(false)),
        }
        if let State::Forming(Some(own)) = &mut self.state {
            own.accepted_by.insert(from.nonce);
        }
        // Every member counts the acceptances itself, so each of them must learn of this one.
        for member in set.members().iter().filter(|m| **m != self.me).cloned().collect::<Vec<_>>() {
            self.send(To::Member(member), self.hello(false));
        }
        self.check_complete();
    }

    /// Starts the cluster if all members have accepted the set.
    pub(super) fn check_complete(&mut self) {
        let is_complete = |own: &AcceptedSet| {
            let members = own.set.members().len();
            let early = made(Mistake::VoteBeforeFormed) && own.accepted_by.len() > members / 2;
            own.accepted_by.len() == members || early
        };
        if let State::Forming(Some(own)) = &self.state
            && is_complete(own)
        {
            let set = own.set.clone();
            self.form(set);
        }
    }

    /// Another member has seen that all members have accepted the set.
    pub(super) fn handle_formed(&mut self, set: &Set) {
        if let State::Forming(Some(own)) = &self.state
            && own.set == *set
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
