//! What a host does about the cluster's members and leader, and about work that the cluster does
//! not answer: the exact effects of single inputs, with a real Raft for the host's nodes.
//!
//! The host runs node 1. The number of another host is ten times that of its own node.
#![allow(missing_docs)]

use std::collections::BTreeMap;

use conflux::elastic::{Body, Effect, Elastic, Input, Message, Record, Registry, View};
use conflux::raft::{
    self, AppendResult, Config, Entry, Index, Member, Members, NodeId, Payload, Position, Raft,
    Saved, Time, Wants,
};

/// When every test begins, in ms.
const BEGIN: Time = 10_000;

/// The nodes that run on the host.
#[derive(Default)]
struct Nodes {
    rafts: BTreeMap<NodeId, Raft>,
    /// How many performs and reads wait for an answer.
    waiting: usize,
}

impl View for Nodes {
    fn raft(&self, node: NodeId) -> Option<&Raft> {
        self.rafts.get(&node)
    }

    fn waiting(&self) -> usize {
        self.waiting
    }
}

/// A host, the Rafts of its nodes, and the time of all of them.
struct Rig {
    elastic: Elastic,
    nodes: Nodes,
    now: Time,
    /// How many messages of other hosts it has received.
    received: u64,
}

impl Rig {
    /// A host that runs the first of `own` as its own node and has adopted the others, and knows
    /// other hosts by their nodes, of which the first is the host's own. Nothing is due.
    fn new(own: &[NodeId], rafts: impl IntoIterator<Item = Raft>, hosts: &[&[NodeId]]) -> Self {
        let mut rig = Self::started(own, hosts);
        rig.nodes.rafts = rafts.into_iter().map(|raft| (raft.id(), raft)).collect();
        // The hello that a host repeats until its own node is a member.
        assert_eq!(rig.at(BEGIN, Input::Tick), [hello_of(own, false)]);
        assert_eq!(rig.elastic.deadline(), None);
        rig
    }

    /// The same host before its Rafts run. It repeats its hello 300 ms before the test begins.
    fn started(own: &[NodeId], hosts: &[&[NodeId]]) -> Self {
        let now = BEGIN - 300;
        let elastic = Elastic::new(5, true, now, 1);
        let mut rig = Self { elastic, nodes: Nodes::default(), now, received: 0 };
        rig.give(Input::Start);
        rig.give(Input::Registry(Some(Registry { incarnation: 7, nodes: own.to_vec() })));
        for node in own {
            rig.give(Input::Lock { node: *node, granted: true });
            let record = Some(Record { incarnation: 7, epoch: 2, saved: Saved::default() });
            rig.give(Input::Loaded { node: *node, record });
        }
        for nodes in hosts {
            rig.hello(nodes);
        }
        rig
    }

    /// Gives the host one input. Returns the effects as text.
    fn give(&mut self, input: Input) -> Vec<String> {
        let effects = self.elastic.handle(self.now, input, &self.nodes);
        effects.iter().map(|effect| format!("{effect:?}")).collect()
    }

    fn at(&mut self, now: Time, input: Input) -> Vec<String> {
        self.now = now;
        self.give(input)
    }

    /// A host with these nodes, of which the first is its own, says hello. The tab is visible.
    fn hello(&mut self, nodes: &[NodeId]) -> Vec<String> {
        self.hello_from(nodes, true)
    }

    fn hello_from(&mut self, nodes: &[NodeId], visible: bool) -> Vec<String> {
        self.hello_of(nodes, visible, 1)
    }

    fn hello_of(&mut self, nodes: &[NodeId], visible: bool, version: u32) -> Vec<String> {
        let (own, nodes) = (Some(nodes[0]), nodes.to_vec());
        let host = nodes[0] * 10;
        self.receive(host, Body::Hello { own, nodes, visible, ask: false, version })
    }

    fn receive(&mut self, host: u64, body: Body) -> Vec<String> {
        self.received += 1;
        self.give(Input::Message(Message { host, count: self.received, body }))
    }

    /// The followers acknowledge the whole log of the leader, which is node 1.
    fn reply(&mut self, from: &[NodeId]) {
        let raft = self.nodes.rafts.get_mut(&1).expect("it runs");
        from.iter().for_each(|from| acknowledge(raft, self.now, *from));
    }

    /// Time passes, and of the leader's followers only these reply to it.
    fn wait(&mut self, ms: Time, live: &[NodeId]) {
        let end = self.now + ms;
        while self.now < end {
            self.now = end.min(self.now + 100);
            self.reply(live);
        }
    }

    /// Node 2 leads and tells node 1 that the log is committed up to `commit`. Every entry is a
    /// no-op of term 1.
    fn commit(&mut self, commit: Index) {
        let raft = self.nodes.rafts.get_mut(&1).expect("it runs");
        let noop = |index| Entry { at: Position::new(index, 1), payload: Payload::Noop };
        append(raft, self.now, commit, (1..=commit).map(noop).collect());
    }
}

/// Gives a node one input. What it must write is durable at once.
fn handle(raft: &mut Raft, now: Time, input: raft::Input) {
    if let Some(persist) = raft.handle(now, input).persist {
        handle(raft, now, raft::Input::Persisted(persist.seq));
    }
}

fn receive(raft: &mut Raft, now: Time, from: NodeId, body: raft::Body) {
    let message = raft::Message { term: 1, body };
    handle(raft, now, raft::Input::Receive { from, message });
}

fn acknowledge(raft: &mut Raft, now: Time, from: NodeId) {
    let result = AppendResult::Accepted { matched: raft.log().last().index };
    receive(raft, now, from, raft::Body::AppendReply { round: 0, result });
}

/// Node 2 leads and sends the entries from index 1 on.
fn append(raft: &mut Raft, now: Time, commit: Index, entries: Vec<Entry>) {
    let (prev, wants) = (Position::default(), Wants::Reply);
    receive(raft, now, 2, raft::Body::Append { prev, commit, round: 0, entries, wants });
}

fn members(voters: &[NodeId], learners: &[NodeId]) -> Members {
    let member = |voter| move |id: &NodeId| (*id, Member { voter, name: String::new() });
    let (voters, learners) = (voters.iter().map(member(true)), learners.iter().map(member(false)));
    Members::new(voters.chain(learners))
}

/// A node that leads term 1. Of its followers, only these have replied to it.
fn leader(id: NodeId, members: Members, live: &[NodeId]) -> Raft {
    let mut raft = Raft::new(Config::new(id, members.clone()), Saved::default(), 0, 1);
    handle(&mut raft, BEGIN, raft::Input::Tick);
    for granted in
        [raft::Body::PreVoteReply { granted: true }, raft::Body::VoteReply { granted: true }]
    {
        let voters = members.iter().filter(|(other, member)| member.voter && *other != id);
        voters.for_each(|(voter, _)| receive(&mut raft, BEGIN, voter, granted.clone()));
    }
    assert!(raft.is_leader());
    live.iter().for_each(|from| acknowledge(&mut raft, BEGIN, *from));
    raft
}

/// A node that follows node 2 and has no entry.
fn follower(id: NodeId, members: Members) -> Raft {
    let mut raft = Raft::new(Config::new(id, members), Saved::default(), BEGIN, 1);
    append(&mut raft, BEGIN, 0, Vec::new());
    assert_eq!(raft.leader(), Some(2));
    raft
}

/// The hello of the host with these nodes, of which the first is its own.
fn hello_of(nodes: &[NodeId], ask: bool) -> String {
    let own = Some(nodes[0]);
    let body = Body::Hello { own, nodes: nodes.to_vec(), visible: true, ask, version: 1 };
    format!("{:?}", Effect::Broadcast(body))
}

fn change(change: raft::Change) -> String {
    format!("{:?}", Effect::Change { node: 1, change })
}

fn add(id: NodeId) -> String {
    change(raft::Change::Add { id, name: String::new() })
}

fn promote(id: NodeId) -> String {
    change(raft::Change::Promote(id))
}

fn remove(id: NodeId) -> String {
    change(raft::Change::Remove(id))
}

fn transfer(node: NodeId, to: Option<NodeId>) -> String {
    format!("{:?}", Effect::Transfer { node, to })
}

const NOTHING: [String; 0] = [];

/// Node 1 follows node 2, and node 3 is the third voter. Each runs on a host of its own.
fn following() -> Rig {
    Rig::new(&[1], [follower(1, members(&[1, 2, 3], &[]))], &[&[2], &[3]])
}

/// Node 1 leads nodes 2 and 3. Each runs on a host of its own, and only these reply.
fn leading(live: &[NodeId]) -> Rig {
    Rig::new(&[1], [leader(1, members(&[1, 2, 3], &[]), live)], &[&[2], &[3]])
}

/// The host of [`following`], where work has begun to wait.
fn waiting() -> Rig {
    let mut rig = following();
    rig.nodes.waiting = 1;
    assert_eq!(rig.give(Input::Changed), NOTHING);
    rig
}

#[test]
fn a_review_is_due_when_work_begins_to_wait_and_when_it_no_longer_waits() {
    let mut rig = following();
    let due = |rig: &Rig| rig.elastic.is_review_due(&rig.nodes);
    assert!(!due(&rig), "node 1 has a leader and nothing waits");
    rig.nodes.waiting = 1;
    assert!(due(&rig));
    rig.give(Input::Changed);
    assert!(!due(&rig));
    rig.nodes.waiting = 0;
    assert!(due(&rig));
    rig.give(Input::Changed);
    assert!(!due(&rig));
    // A node without a leader waits for one.
    let leaderless = Raft::new(Config::new(1, members(&[1, 2], &[])), Saved::default(), BEGIN, 1);
    rig.nodes.rafts.insert(1, leaderless);
    assert!(due(&rig));
    // A node that does not run waits for nothing, and neither does a host that has not started.
    rig.nodes.rafts.clear();
    assert!(!due(&rig));
    rig.nodes.waiting = 1;
    assert!(!Elastic::new(5, true, 0, 1).is_review_due(&rig.nodes));
}

/// What a host does about work that nobody answers: it asks the other hosts, and storage whether
/// the cluster is still there.
fn asks() -> [String; 2] {
    [hello_of(&[1], true), "ReadRegistry".into()]
}

#[test]
fn work_without_an_answer_makes_the_host_ask_after_2500_ms_and_steal_locks_after_5000_ms() {
    let mut rig = waiting();
    assert_eq!(rig.elastic.deadline(), Some(BEGIN + 2_500));
    assert_eq!(rig.at(BEGIN + 2_499, Input::Tick), NOTHING);
    assert_eq!(rig.at(BEGIN + 2_500, Input::Tick), asks());
    assert_eq!(rig.elastic.deadline(), Some(BEGIN + 5_000));
    assert_eq!(rig.at(BEGIN + 4_999, Input::Tick), NOTHING);
    // Host 30 answers, so only the node of host 20 is taken over.
    assert_eq!(rig.hello(&[3]), NOTHING);
    assert_eq!(rig.at(BEGIN + 5_000, Input::Tick), ["StealLock(2)"]);
    // The cluster gets the same time again.
    assert_eq!(rig.elastic.deadline(), Some(BEGIN + 7_500));
    assert_eq!(rig.at(BEGIN + 7_500, Input::Tick), asks());
    assert_eq!(rig.at(BEGIN + 10_000, Input::Tick), ["StealLock(2)", "StealLock(3)"]);
}

#[test]
fn a_node_without_a_leader_is_work_that_waits() {
    let mut rig = following();
    // Longer than any election timeout, so the node becomes a candidate.
    handle(rig.nodes.rafts.get_mut(&1).expect("it runs"), BEGIN + 501, raft::Input::Tick);
    assert_eq!(rig.give(Input::Changed), NOTHING);
    assert_eq!(rig.at(BEGIN + 2_500, Input::Tick), asks());
}

#[test]
fn the_wait_for_an_answer_starts_anew_when_the_commit_index_moves_and_ends_with_the_answer() {
    let mut rig = waiting();
    rig.now = BEGIN + 2_000;
    rig.commit(1);
    assert_eq!(rig.give(Input::Changed), NOTHING);
    assert_eq!(rig.elastic.deadline(), Some(BEGIN + 4_500));
    assert_eq!(rig.at(BEGIN + 2_500, Input::Tick), NOTHING);
    assert_eq!(rig.at(BEGIN + 4_500, Input::Tick), asks());
    // Also when the hosts were asked already.
    rig.now = BEGIN + 6_000;
    rig.commit(2);
    assert_eq!(rig.give(Input::Changed), NOTHING);
    assert_eq!(rig.elastic.deadline(), Some(BEGIN + 8_500));
    rig.nodes.waiting = 0;
    assert_eq!(rig.at(BEGIN + 8_500, Input::Changed), NOTHING);
    assert_eq!(rig.elastic.deadline(), None);
}

#[test]
fn a_host_that_is_called_more_than_1500_ms_too_late_was_frozen_and_waits_anew() {
    let (ask_at, steal_at) = (BEGIN + 2_500, BEGIN + 5_000);
    let mut rig = waiting();
    assert_eq!(rig.at(ask_at + 1_500, Input::Tick), asks());
    let mut rig = waiting();
    assert_eq!(rig.at(ask_at + 1_501, Input::Tick), NOTHING);
    assert_eq!(rig.elastic.deadline(), Some(ask_at + 1_501 + 2_500));
    // After a freeze the host does not know which of the other hosts were silent.
    for (late, stolen) in [(1_500, 2), (1_501, 0)] {
        let mut rig = waiting();
        rig.at(ask_at, Input::Tick);
        assert_eq!(rig.at(steal_at + late, Input::Tick).len(), stolen, "{late} ms too late");
        assert_eq!(rig.elastic.deadline(), Some(steal_at + late + 2_500));
    }
}

#[test]
fn a_host_repeats_its_hello_every_300_ms_until_its_own_node_is_a_committed_member() {
    let mut rig = Rig::started(&[1], &[&[2]]);
    rig.nodes.rafts.insert(1, follower(1, Members::default()));
    assert_eq!(rig.at(BEGIN - 1, Input::Tick), NOTHING);
    assert_eq!(rig.at(BEGIN, Input::Tick), [hello_of(&[1], false)]);
    assert_eq!(rig.elastic.deadline(), Some(BEGIN + 300));
    // What happens meanwhile does not put the hello off.
    assert_eq!(rig.at(BEGIN + 299, Input::Changed), NOTHING);
    assert_eq!(rig.at(BEGIN + 300, Input::Tick), [hello_of(&[1], false)]);
    // The entry that adds the node may still be lost.
    let payload = Payload::Members(members(&[2], &[1]));
    let entry = Entry { at: Position::new(1, 1), payload };
    let raft = rig.nodes.rafts.get_mut(&1).expect("it runs");
    append(raft, BEGIN + 301, 0, vec![entry.clone()]);
    assert_eq!(rig.at(BEGIN + 600, Input::Tick), [hello_of(&[1], false)]);
    assert_eq!(rig.elastic.deadline(), Some(BEGIN + 900));
    append(rig.nodes.rafts.get_mut(&1).expect("it runs"), BEGIN + 601, 1, vec![entry]);
    assert_eq!(rig.at(BEGIN + 900, Input::Tick), [hello_of(&[1], false)]);
    assert_eq!(rig.elastic.deadline(), None);
}

#[test]
fn a_host_queues_once_for_the_locks_of_all_members_except_deleted_ones() {
    let mut rig = Rig::started(&[1], &[]);
    rig.receive(20, Body::Deleted { node: 4 });
    rig.nodes.rafts.insert(1, follower(1, members(&[1, 2, 3], &[4])));
    assert_eq!(rig.give(Input::Changed), ["AwaitLock(2)", "AwaitLock(3)"]);
    assert_eq!(rig.give(Input::Changed), NOTHING);
}

#[test]
fn the_leader_adds_another_hosts_own_node_and_then_pauses_for_60_ms() {
    let mut rig = Rig::new(&[1], [leader(1, members(&[1], &[]), &[])], &[]);
    // Host 20 has adopted node 5, so node 5 is not added.
    assert_eq!(rig.hello(&[2, 5]), ["AwaitLock(2)".into(), "AwaitLock(5)".into(), add(2)]);
    assert_eq!(rig.elastic.deadline(), Some(BEGIN + 60));
    assert_eq!(rig.at(BEGIN + 59, Input::Tick), NOTHING);
    assert_eq!(rig.at(BEGIN + 60, Input::Tick), [add(2)], "the first change failed");
}

#[test]
fn the_leader_does_not_add_a_node_that_was_deleted_or_whose_lock_its_host_was_granted() {
    let rig = || Rig::new(&[1], [leader(1, members(&[1], &[]), &[])], &[]);
    let mut deleted = rig();
    deleted.receive(30, Body::Deleted { node: 2 });
    assert_eq!(deleted.hello(&[2]), ["AwaitLock(2)"], "an old hello arrives late");
    let mut granted = rig();
    granted.hello(&[2]);
    assert_eq!(granted.give(Input::Lock { node: 2, granted: true }), ["Load(2)"]);
    assert_eq!(granted.at(BEGIN + 60, Input::Tick), NOTHING, "host 20 is dead");
}

#[test]
fn the_leader_promotes_a_learner_that_has_caught_up_and_until_then_wakes_peers_every_300_ms() {
    let raft = leader(1, members(&[1], &[2]), &[]);
    let mut rig = Rig::started(&[1], &[&[2]]);
    rig.nodes.rafts.insert(1, raft);
    assert_eq!(rig.at(BEGIN, Input::Tick), [hello_of(&[1], false), "Wake(1)".into()]);
    assert_eq!(rig.elastic.deadline(), Some(BEGIN + 300));
    assert_eq!(rig.at(BEGIN + 299, Input::Tick), NOTHING);
    assert_eq!(rig.at(BEGIN + 300, Input::Tick), ["Wake(1)"]);
    rig.reply(&[2]);
    assert_eq!(rig.at(BEGIN + 600, Input::Tick), [promote(2)]);
}

#[test]
fn the_leader_removes_a_deleted_voter_if_a_live_majority_of_the_others_remains() {
    // It does not matter whether the deleted node itself replies.
    for live in [&[2][..], &[2, 3]] {
        let mut rig = leading(live);
        assert_eq!(rig.receive(20, Body::Deleted { node: 3 }), [remove(3)], "{live:?} reply");
    }
    // Without node 2, the leader would be one live voter of two.
    let mut rig = leading(&[2]);
    assert_eq!(rig.receive(30, Body::Deleted { node: 2 }), ["Wake(1)"]);
    assert_eq!(rig.elastic.deadline(), Some(BEGIN + 300));
    assert_eq!(rig.at(BEGIN + 300, Input::Tick), ["Wake(1)"]);
    rig.reply(&[2, 3]);
    assert_eq!(rig.at(BEGIN + 600, Input::Tick), [remove(2)]);
}

#[test]
fn a_voter_that_is_silent_for_more_than_four_election_timeouts_is_not_live() {
    for (ms, effect) in [(2_000, remove(2)), (2_001, "Wake(1)".into())] {
        let mut rig = leading(&[2, 3]);
        rig.wait(ms, &[2]);
        let effects = rig.receive(30, Body::Deleted { node: 2 });
        assert_eq!(effects, [effect], "node 3 is silent for {ms} ms");
    }
}

#[test]
fn the_leader_removes_silent_nodes_before_live_ones() {
    let raft = leader(1, members(&[1, 2, 3, 4, 5], &[]), &[2, 3, 5]);
    let mut rig = Rig::new(&[1], [raft], &[&[2], &[3], &[4], &[5]]);
    // Host 30 adopts node 2, which is live, and node 4, which is silent.
    assert_eq!(rig.receive(30, Body::Acquired { node: 2 }), ["PeerDown(2)".into(), remove(2)]);
    assert_eq!(rig.receive(30, Body::Acquired { node: 4 }), ["PeerDown(4)"]);
    assert_eq!(rig.at(BEGIN + 60, Input::Tick), [remove(4)]);
}

#[test]
fn a_voter_that_will_be_removed_makes_room_for_a_learner() {
    let raft = leader(1, members(&[1, 2, 3, 4, 5], &[6]), &[2, 3, 4, 5, 6]);
    // The cluster has at most five voters, so the learner remains one.
    let mut rig = Rig::new(&[1], [raft], &[&[2], &[3], &[4], &[5], &[6]]);
    let effects = rig.receive(20, Body::Acquired { node: 5 });
    assert_eq!(effects, ["PeerDown(5)".into(), promote(6)], "node 5 is adopted");
}

#[test]
fn an_adopted_node_is_deleted_when_another_node_here_knows_that_its_removal_is_committed() {
    let config = |index, ids: &[NodeId]| {
        let payload = Payload::Members(members(ids, &[]));
        Entry { at: Position::new(index, 1), payload }
    };
    let all = || members(&[1, 2, 4], &[]);
    let (removal, return_) = (config(1, &[1, 2]), config(2, &[1, 2, 4]));
    let rig = || Rig::new(&[1, 4], [follower(1, all()), follower(4, all())], &[&[2]]);
    let learn = |rig: &mut Rig, node, commit, entries| {
        append(rig.nodes.rafts.get_mut(&node).expect("it runs"), BEGIN, commit, entries);
        rig.give(Input::Changed)
    };
    let mut removed = rig();
    assert_eq!(learn(&mut removed, 1, 0, vec![removal.clone()]), NOTHING, "it is not committed");
    let deleted = ["Stop(4)", "Broadcast(Deleted { node: 4 })", "Delete(4)"];
    assert_eq!(learn(&mut removed, 1, 1, vec![]), NOTHING, "the heartbeat covers no entry");
    assert_eq!(learn(&mut removed, 1, 1, vec![removal.clone()]), deleted);
    assert_eq!(removed.give(Input::Tick), [hello_of(&[1], false)], "the others learn of it");
    // A newer configuration may need the node.
    let mut added = rig();
    assert_eq!(learn(&mut added, 4, 0, vec![removal.clone(), return_]), NOTHING);
    assert_eq!(learn(&mut added, 1, 1, vec![removal]), NOTHING);
    // The host's own node is not deleted. It asks to be added again.
    let mut own = rig();
    assert_eq!(learn(&mut own, 4, 1, vec![config(1, &[2, 4])]), NOTHING);
    // A node that has no configuration knows of no removal.
    let mut joining = Rig::started(&[1, 4], &[&[2]]);
    joining.nodes.rafts = [(1, follower(1, Members::default())), (4, follower(4, all()))].into();
    assert_eq!(joining.give(Input::Changed), NOTHING);
}

#[test]
fn a_host_says_hello_when_its_tab_becomes_hidden_but_not_when_nothing_changes() {
    let mut rig = following();
    assert_eq!(rig.give(Input::Visible(true)), NOTHING);
    assert_eq!(rig.elastic.deadline(), None);
    assert_eq!(rig.give(Input::Visible(false)), NOTHING);
    assert_eq!(rig.elastic.deadline(), Some(BEGIN));
    assert_eq!(rig.give(Input::Tick), [hello_of(&[1], false).replace("true", "false")]);
}

#[test]
fn the_leaders_host_asks_for_the_members_that_no_known_host_runs() {
    let mut rig = Rig::new(&[1], [leader(1, members(&[1, 2, 3], &[]), &[2, 3])], &[&[2], &[3]]);
    // Host 20 says goodbye.
    assert_eq!(rig.receive(20, Body::Goodbye), ["PeerDown(2)"]);
    assert_eq!(rig.elastic.deadline(), Some(BEGIN + 300));
    assert_eq!(rig.at(BEGIN + 299, Input::Tick), NOTHING);
    assert_eq!(rig.at(BEGIN + 300, Input::Tick), [hello_of(&[1], true)]);
    assert_eq!(rig.elastic.deadline(), Some(BEGIN + 2_300));
    assert_eq!(rig.at(BEGIN + 2_299, Input::Tick), NOTHING);
    assert_eq!(rig.at(BEGIN + 2_300, Input::Tick), [hello_of(&[1], true)]);
    assert_eq!(rig.hello(&[2]), NOTHING);
    assert_eq!(rig.elastic.deadline(), None);
}

#[test]
fn only_the_leaders_host_asks_for_members_that_no_known_host_runs() {
    let mut rig = following();
    rig.receive(20, Body::Goodbye);
    assert_eq!(rig.elastic.deadline(), None);
}

#[test]
fn a_hosts_own_node_leads_rather_than_an_adopted_one() {
    let all = || members(&[1, 2], &[]);
    let mut rig = Rig::started(&[1, 2], &[]);
    rig.nodes.rafts.insert(1, follower(1, all()));
    rig.nodes.rafts.insert(2, leader(2, all(), &[1]));
    assert_eq!(
        rig.at(BEGIN, Input::Tick),
        [hello_of(&[1, 2], false), transfer(2, Some(1))],
        "both run here, so no host is asked for them"
    );
    assert_eq!(rig.elastic.deadline(), Some(BEGIN + 60));
}

#[test]
fn a_hidden_leader_hands_leadership_to_a_voter_of_a_visible_tab() {
    let mut rig = leading(&[2, 3]);
    rig.hello_from(&[3], false);
    assert_eq!(rig.give(Input::Visible(false)), [transfer(1, Some(2))]);
    // If every other tab is hidden, too, the leader stays.
    let mut rig = leading(&[2, 3]);
    rig.hello_from(&[2], false);
    rig.hello_from(&[3], false);
    assert_eq!(rig.give(Input::Visible(false)), NOTHING);
    // A learner cannot lead.
    let raft = leader(1, members(&[1, 3], &[2]), &[2, 3]);
    let mut rig = Rig::started(&[1], &[&[2], &[3]]);
    rig.hello_from(&[3], false);
    rig.nodes.rafts.insert(1, raft);
    assert_eq!(rig.give(Input::Visible(false)), [promote(2)]);
}

#[test]
fn the_leader_demotes_the_voter_with_the_oldest_code_when_there_are_too_many() {
    let six = || leader(1, members(&[1, 2, 3, 4, 5, 6], &[]), &[2, 3, 4, 5, 6]);
    let rig = |versions: [u32; 5]| {
        let mut rig = Rig::started(&[1], &[]);
        for (node, version) in (2..).zip(versions) {
            rig.hello_of(&[node], true, version);
        }
        rig.nodes.rafts.insert(1, six());
        rig
    };
    let demoted = |id| [hello_of(&[1], false), change(raft::Change::Demote(id))];
    assert_eq!(rig([1; 5]).at(BEGIN, Input::Tick), demoted(2));
    // A leader does not demote itself: it first hands leadership to one with newer code.
    let expected = [hello_of(&[1], false), transfer(1, Some(4))];
    assert_eq!(rig([2, 2, 3, 2, 2]).at(BEGIN, Input::Tick), expected);
}

#[test]
fn a_suspended_leader_hands_leadership_to_a_voter_of_another_host() {
    let suspended = |rig: &mut Rig| rig.give(Input::Suspend)[0].clone();
    let mut rig = leading(&[2, 3]);
    rig.hello_from(&[3], false);
    assert_eq!(suspended(&mut rig), transfer(1, Some(2)), "the tab of node 2 is visible");
    let mut rig = leading(&[2, 3]);
    rig.hello_from(&[2], false);
    assert_eq!(suspended(&mut rig), transfer(1, Some(3)));
    // Host 20 loses its own node to host 30, whose own node can lead.
    let mut rig = leading(&[2, 3]);
    rig.hello_from(&[3], false);
    rig.receive(30, Body::Acquired { node: 2 });
    assert_eq!(suspended(&mut rig), transfer(1, Some(3)));
    // Nobody else is known, so Raft chooses.
    let mut rig = leading(&[2, 3]);
    rig.receive(20, Body::Goodbye);
    rig.receive(30, Body::Goodbye);
    assert_eq!(suspended(&mut rig), transfer(1, None));
    assert_eq!(suspended(&mut following()), "Broadcast(Goodbye)", "node 1 does not lead");
}
