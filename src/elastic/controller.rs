//! What the leader's host sees to, who leads and who is a member, and what a host does about work that
//! nobody answers: see [`super::elastic`].

use super::types::{Effect, View};
use super::{
    ASK_AFTER, ASK_AGAIN, CONTROL_PAUSE, Elastic, HELLO, Hold, KnownHost, Next, OVERSLEPT,
    STEAL_AFTER,
};
use crate::mistakes::{Mistake, made};
use crate::raft::{Change, Members, NodeId, Raft};
use crate::sorted::SortedSet;

impl Elastic {
    /// Work that nobody answers: first ask who is there, then take the nodes of the silent.
    pub(super) fn watch(&mut self, view: &dyn View) {
        let Some(raft) = self.own.and_then(|own| view.raft(own)) else { return };
        let waits = self.waits(view);
        let overslept = self.deadline().is_some_and(|at| self.now > at + OVERSLEPT)
            || self.now > self.reviewed_at + STEAL_AFTER + OVERSLEPT;
        let commit = raft.commit_index();
        match self.stalled {
            _ if !waits => self.stalled = None,
            Some((_, before, _)) if commit == before && !overslept => {}
            _ => self.stalled = Some((self.now, commit, false)),
        }
        let Some((since, _, asked)) = self.stalled else { return };
        if !asked && self.now >= since + ASK_AFTER {
            self.stalled = Some((since, commit, true));
            self.hello(true);
        }
        if asked && self.now >= since + STEAL_AFTER && !made(Mistake::FrozenKeepsLock) {
            let spoke = |host: &&KnownHost| host.heard > since;
            let heard: SortedSet<_> =
                self.hosts.values().filter(spoke).flat_map(|host| host.nodes.iter()).collect();
            let silent =
                |(node, hold): &(&NodeId, &Hold)| **hold == Hold::Queued && !heard.contains(node);
            let silent: Vec<_> = self.holds.iter().filter(silent).map(|(node, _)| *node).collect();
            self.out.extend(silent.into_iter().map(Effect::StealLock));
            self.stalled = Some((self.now, commit, false));
        }
    }

    /// The voter that should lead after this one: the own node of a host that can be seen, if there
    /// is one.
    pub(super) fn successor(&self, node: NodeId, view: &dyn View) -> Option<NodeId> {
        let members = view.raft(node)?.members();
        let able = |host: &&KnownHost| host.own.is_some_and(|own| members.is_voter(own));
        let hosts = self.hosts.values().filter(able);
        hosts.max_by_key(|host| (host.visible, host.own)).and_then(|host| host.own)
    }

    /// What the host of the leader sees to: who leads, and who is a member.
    pub(super) fn control(&mut self, view: &dyn View) {
        let Some(own) = self.own else { return };
        let leads = |node: &NodeId| view.raft(*node).is_some_and(Raft::takes_proposals);
        let Some(leader) = self.running().find(leads) else {
            (self.control_at, self.ask_at) = (None, None);
            return;
        };
        let Some(raft) = view.raft(leader) else { return };
        let members = raft.members();
        self.ask_for_hosts(members);
        if self.control_at.is_some() {
            return;
        }
        if leader != own && members.is_voter(own) {
            return self.act(Effect::Transfer { node: leader, to: Some(own) });
        }
        if !self.visible
            && let Some(to) = self.successor(leader, view)
            && self.is_visible(to) == Some(true)
        {
            return self.act(Effect::Transfer { node: leader, to: Some(to) });
        }
        match self.next_change(own, raft) {
            Some(Next::Change(change)) => self.act(Effect::Change { node: leader, change }),
            Some(Next::Later) => {
                self.out.push(Effect::Wake(leader));
                self.control_at = Some(self.now + HELLO);
            }
            None => {}
        }
    }

    /// Asks who is there while there are members that nobody says he runs: what was said may be lost.
    fn ask_for_hosts(&mut self, members: &Members) {
        let here = |node: NodeId| self.holds.get(&node) == Some(&Hold::Running);
        let known = |node: NodeId| self.hosts.values().any(|host| host.nodes.contains(&node));
        if members.iter().all(|(node, _)| here(node) || known(node)) {
            self.ask_at = None;
            return;
        }
        match self.ask_at {
            Some(at) if self.now < at => {}
            Some(_) => {
                self.hello(true);
                self.ask_at = Some(self.now + ASK_AGAIN);
            }
            None => self.ask_at = Some(self.now + HELLO),
        }
    }

    /// Does something, and looks again a little later whether more is to be done.
    fn act(&mut self, effect: Effect) {
        self.out.push(effect);
        self.control_at = Some(self.now + CONTROL_PAUSE);
    }

    /// What is to be changed next: newcomers first, then promotions, then removals.
    fn next_change(&self, own: NodeId, raft: &Raft) -> Option<Next> {
        let members = raft.members();
        // Whose lock is held here, or whose storage is gone, does not run elsewhere, whoever says so.
        let elsewhere = |node: &NodeId| {
            matches!(self.holds.get(node), None | Some(Hold::Queued))
                && !self.deleted.contains(node)
        };
        let owns = self.hosts.values().filter_map(|host| host.own).filter(elsewhere).chain([own]);
        let owns: SortedSet<_> = owns.collect();
        if let Some(id) = owns.iter().find(|id| !members.contains(**id)) {
            return Some(Next::Change(Change::Add { id: *id, name: String::new() }));
        }
        // Those that are about to leave make room already.
        let surplus = |id: &NodeId| self.deleted.contains(id) || self.is_adopted(*id);
        let stays = |id: &NodeId| members.is_voter(*id) && !surplus(id);
        let staying = members.iter().map(|(id, _)| id).filter(stays).count();
        let room = staying < self.max_voters;
        let mut learners = owns.iter().filter(|id| room && !members.is_voter(**id)).peekable();
        let waits = learners.peek().is_some();
        if let Some(id) = learners.find(|id| raft.is_ready(**id)) {
            return Some(Next::Change(Change::Promote(*id)));
        }
        // Whoever goes, a majority of those who stay must be there: hosts that are frozen keep nodes
        // that do not answer. So the silent go first.
        let is_needed = |id: &NodeId| {
            let voters = members.iter().map(|(other, _)| other).filter(|o| members.is_voter(*o));
            let staying: Vec<_> = voters.filter(|other| other != id).collect();
            let live = staying.iter().filter(|other| raft.is_live(**other)).count();
            members.is_voter(*id) && live < staying.len() / 2 + 1
        };
        let mut leaves = members.iter().map(|(id, _)| id).filter(surplus).peekable();
        let waits = waits || leaves.peek().is_some();
        let next = leaves.filter(|id| !is_needed(id)).min_by_key(|id| raft.is_live(*id));
        next.map(|id| Next::Change(Change::Remove(id))).or(waits.then_some(Next::Later))
    }
}
