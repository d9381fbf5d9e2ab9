//! The membership controller: the leader's host decides which node leads and which nodes are
//! members. Also what a host does about work that the cluster does not answer.
//!
//! Members change one at a time (dissertation §4.1). A new member begins as a learner (§4.2.1).

use super::types::{Effect, View};
use super::{
    CONTROL_PAUSE, Elastic, FROZEN_AFTER, HELLO_INTERVAL, KnownHost, LockState, NextStep,
    QUERY_AFTER, QUERY_INTERVAL, STEAL_AFTER,
};
use crate::mistakes::{Mistake, made};
use crate::raft::{Change, Members, NodeId, Raft};
use crate::sorted::SortedSet;

impl Elastic {
    /// Deals with work that the cluster does not answer. First it asks the other hosts for a hello,
    /// and storage whether the cluster is still there. Then it steals the locks of the nodes whose
    /// hosts stay silent, because such a host may be frozen.
    ///
    /// The wait starts anew when the commit index moves, because then the cluster works, and when
    /// this host was frozen itself, because then it cannot know whether the others were silent.
    pub(super) fn check_unanswered(&mut self, view: &dyn View) {
        let Some(raft) = self.own.and_then(|own| view.raft(own)) else { return };
        let is_waiting = self.has_waiting_work(view);
        let was_frozen = self.deadline().is_some_and(|at| self.now > at + FROZEN_AFTER);
        let commit = raft.commit_index();
        match self.unanswered {
            _ if !is_waiting => self.unanswered = None,
            Some((_, before, _)) if commit == before && !was_frozen => {}
            _ => self.unanswered = Some((self.now, commit, false)),
        }
        let Some((since, _, asked)) = self.unanswered else { return };
        if !asked && self.now >= since + QUERY_AFTER {
            self.unanswered = Some((since, commit, true));
            self.send_hello(true);
            // The cluster may be over. Storage tells a node that writes, but a node that has not
            // joined, or asks for votes in vain, writes nothing.
            if !made(Mistake::EndNotNoticed) {
                self.out.push(Effect::ReadRegistry);
            }
        }
        if asked && self.now >= since + STEAL_AFTER && !made(Mistake::FrozenKeepsLock) {
            let is_alive = |host: &&KnownHost| host.heard > since;
            let alive: SortedSet<_> =
                self.hosts.values().filter(is_alive).flat_map(|host| host.nodes.iter()).collect();
            let is_silent = |(node, state): &(&NodeId, &LockState)| {
                **state == LockState::Queued && !alive.contains(node)
            };
            let silent: Vec<_> =
                self.locks.iter().filter(is_silent).map(|(node, _)| *node).collect();
            self.out.extend(silent.into_iter().map(Effect::StealLock));
            self.unanswered = Some((self.now, commit, false));
        }
    }

    /// The voter that should lead after this node: the own node of another host, if possible of one
    /// with the newest version of the application, and among those of one whose tab is visible.
    pub(super) fn successor(&self, node: NodeId, view: &dyn View) -> Option<NodeId> {
        let members = view.raft(node)?.members();
        let can_lead = |host: &&KnownHost| host.own.is_some_and(|own| members.is_voter(own));
        let hosts = self.hosts.values().filter(can_lead);
        let best = hosts.max_by_key(|host| (host.version, host.visible, host.own));
        best.and_then(|host| host.own)
    }

    /// The version of the application that runs a node, as far as this host knows.
    fn version_of(&self, node: NodeId) -> u32 {
        let runner = self.hosts.values().find(|host| host.nodes.contains(&node));
        match self.locks.get(&node) {
            Some(LockState::Running) => self.version,
            _ => runner.map_or(self.version, |host| host.version),
        }
    }

    /// If the leader runs on this host: transfers leadership, or makes the next configuration
    /// change.
    ///
    /// A host's own node leads rather than an adopted one, and a node of a visible tab rather than
    /// one of a hidden tab, whose timers the browser slows down.
    pub(super) fn control(&mut self, view: &dyn View) {
        let Some(own) = self.own else { return };
        let leads = |node: &NodeId| view.raft(*node).is_some_and(Raft::takes_proposals);
        let Some(leader) = self.running().find(leads) else {
            (self.next_control, self.next_query) = (None, None);
            return;
        };
        let Some(raft) = view.raft(leader) else { return };
        let members = raft.members();
        self.query_hosts(members);
        if self.next_control.is_some() {
            return;
        }
        if leader != own && members.is_voter(own) {
            return self.act_and_pause(Effect::Transfer { node: leader, to: Some(own) });
        }
        if !self.visible
            && let Some(to) = self.successor(leader, view)
            && self.is_visible(to) == Some(true)
            && self.version_of(to) >= self.version
        {
            return self.act_and_pause(Effect::Transfer { node: leader, to: Some(to) });
        }
        match self.next_change(own, raft) {
            Some(NextStep::Change(change)) => {
                self.act_and_pause(Effect::Change { node: leader, change });
            }
            Some(NextStep::Transfer(to)) => {
                self.act_and_pause(Effect::Transfer { node: leader, to: Some(to) });
            }
            Some(NextStep::Wait) => {
                self.out.push(Effect::Wake(leader));
                self.next_control = Some(self.now + HELLO_INTERVAL);
            }
            None => {}
        }
    }

    /// Asks the other hosts for a hello as long as there are members that no known host runs: a
    /// host's message may be lost.
    fn query_hosts(&mut self, members: &Members) {
        let runs_here = |node: NodeId| self.locks.get(&node) == Some(&LockState::Running);
        let runs_there = |node: NodeId| self.hosts.values().any(|host| host.nodes.contains(&node));
        if members.iter().all(|(node, _)| runs_here(node) || runs_there(node)) {
            self.next_query = None;
            return;
        }
        match self.next_query {
            Some(at) if self.now < at => {}
            Some(_) => {
                self.send_hello(true);
                self.next_query = Some(self.now + QUERY_INTERVAL);
            }
            None => self.next_query = Some(self.now + HELLO_INTERVAL),
        }
    }

    /// Emits an effect, and looks for the next step only after a pause.
    fn act_and_pause(&mut self, effect: Effect) {
        self.out.push(effect);
        self.next_control = Some(self.now + CONTROL_PAUSE);
    }

    /// The next change of the members: first additions, then promotions, then removals.
    fn next_change(&self, own: NodeId, raft: &Raft) -> Option<NextStep> {
        let members = raft.members();
        // A host's message may be outdated: a node whose lock this host has, or whose storage was
        // deleted, does not run on another host.
        let may_run_there = |node: &NodeId| {
            matches!(self.locks.get(node), None | Some(LockState::Queued))
                && !self.deleted.contains(node)
        };
        let own_nodes =
            self.hosts.values().filter_map(|host| host.own).filter(may_run_there).chain([own]);
        let own_nodes: SortedSet<_> = own_nodes.collect();
        if let Some(id) = own_nodes.iter().find(|id| !members.contains(**id)) {
            return Some(NextStep::Change(Change::Add { id: *id, name: String::new() }));
        }
        // Voters that are to be removed do not count towards the limit, so that others can be
        // promoted first.
        let is_leaving = |id: &NodeId| self.deleted.contains(id) || self.is_adopted(*id);
        let is_staying = |id: &NodeId| members.is_voter(*id) && !is_leaving(id);
        let staying: Vec<_> = members.iter().map(|(id, _)| id).filter(is_staying).collect();
        // Only a voter can judge, so a node with newer code takes the place of one with older code.
        let order = |id: &NodeId| (self.version_of(*id), *id == raft.id(), *id);
        let oldest = staying.iter().copied().min_by_key(order);
        if let Some(surplus) = oldest.filter(|_| staying.len() > self.max_voters) {
            let newest = staying.iter().copied().max_by_key(order);
            return Some(match newest.filter(|_| surplus == raft.id()) {
                Some(to) => NextStep::Transfer(to),
                None => NextStep::Change(Change::Demote(surplus)),
            });
        }
        let has_room = |learner: NodeId| {
            let is_newer = |oldest| self.version_of(oldest) < self.version_of(learner);
            staying.len() < self.max_voters || oldest.is_some_and(is_newer)
        };
        let mut learners =
            own_nodes.iter().filter(|id| !members.is_voter(**id) && has_room(**id)).peekable();
        let is_pending = learners.peek().is_some();
        if let Some(id) = learners.find(|id| raft.is_ready(**id)) {
            return Some(NextStep::Change(Change::Promote(*id)));
        }
        // Without a live majority of the voters that remain, the cluster would stop: the nodes of
        // frozen hosts do not answer. So nodes that do not answer are removed first, and a voter is
        // removed only if such a majority remains.
        let must_stay = |id: &NodeId| {
            let voters = members.iter().map(|(other, _)| other).filter(|o| members.is_voter(*o));
            let remaining: Vec<_> = voters.filter(|other| other != id).collect();
            let live = remaining.iter().filter(|other| raft.is_live(**other)).count();
            members.is_voter(*id) && live < remaining.len() / 2 + 1
        };
        let mut leaving = members.iter().map(|(id, _)| id).filter(is_leaving).peekable();
        let is_pending = is_pending || leaving.peek().is_some();
        let next = leaving.filter(|id| !must_stay(id)).min_by_key(|id| raft.is_live(*id));
        next.map(|id| NextStep::Change(Change::Remove(id))).or(is_pending.then_some(NextStep::Wait))
    }
}
