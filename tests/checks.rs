//! Nodes whose states differ: checks, divergence, and how a node gets a good state again.
#![allow(missing_docs)]

mod common;

use common::node_cluster::Cluster;
use common::node_rig::{Rig, encode};
use common::raft_cluster::Disk;
use conflux::node::{Input, Packet};
use conflux::raft::{self, Blob, Payload, Position, Saved};
use conflux::store::{Body, Command, Fault, Hash, Outcome, Perform};

/// What must stay as it is when a node gets another state: term, vote, log and commit index.
fn raft_of(cluster: &Cluster, id: u64) -> (Vec<(Position, Payload)>, String) {
    let raft = cluster.node(id).node.raft().expect("started");
    let entries = raft.log().iter_from(1).map(|entry| (entry.at, entry.payload.clone()));
    let rest = (raft.hard_state(), raft.commit_index(), raft.log().base());
    (entries.collect(), format!("{rest:?}"))
}

/// What must stay as it is on a node's disk.
fn disk_of(cluster: &Cluster, id: u64) -> (Vec<(Position, Payload)>, String) {
    let disk = &cluster.node(id).disk;
    let entries = disk.entries.iter().map(|entry| (entry.at, entry.payload.clone()));
    (entries.collect(), format!("{:?}", (&disk.hard, disk.snapshot.is_some())))
}

/// Three nodes of which node 3 has another state than the others, which nobody has noticed.
fn one_differs() -> Cluster {
    let mut cluster = Cluster::of(3);
    cluster.append(2, "before");
    cluster.machine(3).alters = Some("odd".into());
    cluster.append(2, "odd");
    assert_eq!(cluster.node(3).state(), ["before", "odd altered"]);
    cluster
}

fn is_fetch(packet: &Packet) -> bool {
    matches!(packet, Packet::Store(message) if matches!(message.body, Body::Fetch { .. }))
}

fn is_state(packet: &Packet) -> bool {
    matches!(packet, Packet::Store(message) if matches!(message.body, Body::State { .. }))
}

/// A request for a check.
fn is_ask(packet: &Packet) -> bool {
    matches!(packet, Packet::Store(message) if message.body == Body::Check)
}

fn is_hash(packet: &Packet) -> bool {
    matches!(packet, Packet::Store(message) if matches!(message.body, Body::Hash { .. }))
}

/// The first bytes that were asked for, one for each request for a chunk.
fn offsets(cluster: &Cluster) -> Vec<u64> {
    let offset = |(_, _, body): &(u64, u64, Body)| match body {
        Body::Fetch { offset, .. } => Some(*offset),
        _ => None,
    };
    cluster.sent.iter().filter_map(offset).collect()
}

#[test]
fn a_check_comes_after_1024_entries_at_latest() {
    let mut cluster = Cluster::of(3);
    let mut appended = 0;
    while cluster.checks().len() < 2 {
        cluster.append(2, "skip");
        appended += 1;
        assert!(appended < 3000, "a check");
    }
    assert_eq!(cluster.checks(), [1025, 2050], "1,024 entries are before each");
    cluster.run(50);
    assert_eq!(cluster.checked(), cluster.checks(), "both are decided at once");
    assert!(cluster.nodes.values().all(|member| member.snapshots.is_empty()), "it is small");
}

#[test]
fn every_snapshot_ends_at_a_check_that_was_found_right() {
    let mut cluster = Cluster::with(3, |cluster| cluster.config.compact_bytes = 2_000);
    for i in 0..100 {
        cluster.append(2, &format!("{i} {}", "x".repeat(200)));
    }
    let confirmed = cluster.checked();
    for (id, member) in &cluster.nodes {
        assert!(member.snapshots.len() > 2, "node {id} has made {:?}", member.snapshots);
        for end in &member.snapshots {
            assert!(matches!(cluster.commands[end], Command::Check { .. }), "{end}");
            assert!(confirmed.contains(end), "{end}");
        }
    }
}

#[test]
fn a_snapshot_is_not_made_before_a_majority_has_found_the_state_right() {
    let mut cluster = Cluster::with(3, |cluster| cluster.config.compact_bytes = 2_000);
    cluster.loses = Box::new(|_, _, packet| is_hash(packet));
    for i in 0..60 {
        cluster.append(2, &format!("{i} {}", "x".repeat(200)));
    }
    assert!(cluster.checks().len() > 1, "the next check does not wait for the last");
    assert_eq!(cluster.checked(), []);
    assert!(cluster.nodes.values().all(|member| member.snapshots.is_empty()));
    cluster.loses = Box::new(|_, _, _| false);
    cluster.run(1000);
    let last = *cluster.checks().last().expect("a check");
    assert_eq!(cluster.checked(), [last], "the hashes are sent again");
    for member in cluster.nodes.values() {
        assert_eq!(member.snapshots, [last]);
    }
}

#[test]
fn a_leader_waits_for_the_hashes_of_a_majority() {
    let mut cluster = Cluster::of(5);
    cluster.append(2, "x");
    // The leader's own hash and one more are no majority of five.
    cluster.loses = Box::new(|from, _, packet| from != 2 && is_hash(packet));
    cluster.check();
    cluster.run(1000);
    assert_eq!(cluster.checked(), []);
    cluster.loses = Box::new(|from, _, packet| from > 3 && is_hash(packet));
    cluster.run(1000);
    assert_eq!(cluster.checked(), cluster.checks());
}

#[test]
fn a_node_whose_state_differs_without_an_error_finds_out_at_the_next_check() {
    let mut cluster = one_differs();
    assert_eq!(cluster.node(3).faults, []);
    assert!(cluster.node(3).node.store().is_fit());
    cluster.loses = Box::new(|_, _, packet| is_state(packet));
    cluster.check();
    let check = cluster.checks()[0];
    assert_eq!(cluster.node(3).diverged(), [(check, None)]);
    let store = cluster.node(3).node.store();
    assert!(store.is_diverged() && !store.is_fit() && !store.is_stopped());
    for id in [1, 2] {
        assert_eq!(cluster.node(id).faults, []);
        assert!(cluster.node(id).node.store().is_fit());
    }
}

#[test]
fn a_diverged_node_gets_a_good_state_and_its_raft_stays_as_it_is() {
    let mut cluster = one_differs();
    cluster.machine(3).alters = None;
    cluster.loses = Box::new(|_, _, packet| is_state(packet));
    cluster.check();
    assert!(cluster.node(3).node.store().is_diverged());
    let before = (raft_of(&cluster, 3), disk_of(&cluster, 3));
    let notified = cluster.node(3).machine.notified.len();
    cluster.loses = Box::new(|_, _, _| false);
    cluster.run(400);
    assert!(cluster.node(3).node.store().is_fit());
    assert_eq!(cluster.state(), ["before", "odd"]);
    assert_eq!((raft_of(&cluster, 3), disk_of(&cluster, 3)), before);
    assert_eq!(cluster.node(3).machine.notified.len(), notified + 1, "subscribers learn of it");
    cluster.append(3, "after");
    assert_eq!(cluster.state(), ["before", "odd", "after"]);
}

#[test]
fn a_state_is_fetched_in_chunks_and_lost_chunks_are_asked_for_again() {
    let mut cluster = Cluster::with(3, |cluster| cluster.config.max_message_bytes = 100);
    for i in 0..40 {
        cluster.append(2, &format!("some longer text {i}"));
    }
    cluster.machine(3).alters = Some("odd".into());
    cluster.append(2, "odd");
    cluster.machine(3).alters = None;
    let mut sent = 0;
    // Every second request, and every third chunk.
    cluster.loses = Box::new(move |_, _, packet| {
        let is_lost = is_fetch(packet) && sent % 2 == 1 || is_state(packet) && sent % 3 == 1;
        sent += u32::from(is_fetch(packet) || is_state(packet));
        is_lost
    });
    cluster.check();
    assert!(cluster.node(3).node.store().is_diverged(), "it takes longer");
    cluster.run(20_000);
    assert!(cluster.node(3).node.store().is_fit());
    assert_eq!(cluster.state().len(), 41);
    let offsets = offsets(&cluster);
    assert!(offsets.is_sorted(), "no chunk that has arrived is asked for again: {offsets:?}");
    assert_eq!(offsets[..2], [0, 0], "it was lost");
    let last = *offsets.last().expect("some");
    assert!(last > 700 && last.is_multiple_of(100), "{last}");
}

#[test]
fn another_leader_gives_the_whole_state_when_the_first_one_dies_in_the_middle() {
    let mut cluster = Cluster::with(3, |cluster| cluster.config.max_message_bytes = 100);
    for i in 0..40 {
        cluster.append(2, &format!("some longer text {i}"));
    }
    cluster.machine(3).alters = Some("odd".into());
    cluster.append(2, "odd");
    cluster.machine(3).alters = None;
    let mut chunks = 0;
    cluster.loses = Box::new(move |from, _, packet| {
        chunks += u32::from(is_state(packet));
        from == 1 && is_state(packet) && chunks > 3
    });
    cluster.check();
    assert_eq!(offsets(&cluster).last(), Some(&300));
    cluster.sent.clear();
    // The new leader has applied more.
    cluster.kill(1);
    cluster.run(3000);
    assert!(cluster.node(3).node.store().is_fit());
    let state = cluster.state();
    assert_eq!((state.len(), state[40].as_str()), (41, "odd"));
    let first = cluster.sent.iter().find(|(_, _, body)| matches!(body, Body::State { .. }));
    assert!(matches!(first, Some((_, 3, Body::State { offset: 0, .. }))), "it begins anew");
    cluster.append(3, "after");
    assert_eq!(cluster.state().len(), 42);
}

#[test]
fn a_node_is_mended_although_the_others_go_on_while_its_state_arrives() {
    let mut cluster = Cluster::with(3, |cluster| cluster.config.max_message_bytes = 100);
    for i in 0..40 {
        cluster.append(2, &format!("some longer text {i}"));
    }
    cluster.machine(3).alters = Some("odd".into());
    cluster.append(2, "odd");
    cluster.machine(3).alters = None;
    // Each message with a chunk is lost half the time, so that the state takes long.
    let mut sent = 0;
    cluster.loses = Box::new(move |_, _, packet| {
        sent += u32::from(is_state(packet));
        is_state(packet) && sent % 2 == 1
    });
    cluster.check();
    for i in 0..1000 {
        if cluster.node(3).node.store().is_fit() {
            break;
        }
        cluster.append(2, &format!("more {i}"));
    }
    assert!(cluster.node(3).node.store().is_fit(), "it has had 20 s");
    cluster.run(1000);
    let state = cluster.state();
    assert_eq!(state[40], "odd");
}

#[test]
fn performs_and_reads_of_a_diverged_node_wait_and_settle_once() {
    let mut cluster = one_differs();
    cluster.machine(3).alters = None;
    cluster.append(3, "own");
    cluster.loses = Box::new(|_, _, packet| is_state(packet));
    cluster.check();
    assert!(cluster.node(3).node.store().is_diverged());
    let action = cluster.perform(3, "append", "held");
    let verdict = cluster.perform(3, "fail", "");
    let read = cluster.read(3);
    cluster.run(1000);
    assert_eq!(cluster.node(1).state(), ["before", "odd", "own", "held"], "it has run");
    for ticket in [action, verdict, read] {
        assert_eq!(cluster.node(3).outcome(ticket), None);
    }
    cluster.loses = Box::new(|_, _, _| false);
    let settled = cluster.node(3).settled.len();
    while cluster.node(3).settled.len() == settled {
        cluster.run(1);
    }
    assert_eq!(cluster.state(), ["before", "odd", "own", "held"], "the state is there by then");
    cluster.run(1000);
    let outcome = |ticket| cluster.node(3).outcome(ticket);
    assert_eq!(outcome(action), Some(&Outcome::Action("held".into())));
    assert_eq!(
        (cluster.node(3).code(verdict), outcome(read)),
        (Some("METHOD_FAILED"), Some(&Outcome::Nothing))
    );
}

#[test]
fn a_leader_whose_state_differs_hands_leadership_over_and_is_mended() {
    let mut cluster = Cluster::of(3);
    cluster.append(2, "before");
    cluster.machine(1).alters = Some("odd".into());
    cluster.append(2, "odd");
    cluster.machine(1).alters = None;
    cluster.check();
    let check = cluster.checks()[0];
    assert_eq!(cluster.node(1).diverged(), [(check, None)]);
    cluster.run(50);
    assert!(matches!(cluster.leader(), Some(2 | 3)), "without an election timeout");
    cluster.run(1000);
    assert!(cluster.node(1).node.store().is_fit());
    assert_eq!(cluster.state(), ["before", "odd"]);
    cluster.append(1, "after");
    assert_eq!(cluster.state(), ["before", "odd", "after"]);
}

#[test]
fn a_diverged_leader_that_nobody_can_succeed_gets_its_state_from_a_follower() {
    let mut cluster = Cluster::of(3);
    cluster.append(2, "before");
    cluster.machine(1).alters = Some("odd".into());
    cluster.append(2, "odd");
    cluster.machine(1).alters = None;
    let is_timeout_now = |packet: &Packet| match packet {
        Packet::Raft(message) => message.body == raft::Body::TimeoutNow,
        Packet::Store(_) => false,
    };
    cluster.loses = Box::new(move |_, _, packet| is_timeout_now(packet) || is_state(packet));
    cluster.check();
    assert!(cluster.node(1).node.store().is_diverged());
    // A state that nobody can have is not waited for.
    for index in [u64::MAX, cluster.node(1).node.raft().expect("started").commit_index() + 1] {
        let (at, data) = (Position::new(index, 1), Blob::from("rubbish"));
        cluster.forge(3, 1, Body::State { at, total: 7, offset: 0, data });
    }
    // Node 2 gives nothing.
    cluster.loses =
        Box::new(move |from, _, packet| is_timeout_now(packet) || from == 2 && is_state(packet));
    cluster.run(3000);
    assert_eq!(cluster.leader(), Some(1));
    assert!(cluster.node(1).node.store().is_fit());
    assert_eq!(cluster.state(), ["before", "odd"]);
    let asked: Vec<_> = cluster
        .sent
        .iter()
        .filter(|(_, _, body)| matches!(body, Body::Fetch { .. }))
        .map(|(_, to, _)| *to)
        .collect();
    assert_eq!(asked[..2], [2, 3], "all others at once");
    cluster.append(2, "after");
}

#[test]
fn a_node_that_diverges_again_soon_stops_but_keeps_its_log_and_votes() {
    let mut cluster = one_differs();
    cluster.check();
    cluster.run(400);
    assert!(cluster.node(3).node.store().is_fit(), "it is mended, and its reducer is still wrong");
    cluster.append(3, "own");
    cluster.append(2, "odd 2");
    let pending = {
        cluster.loses = Box::new(|from, to, packet| {
            (from == 3 || to == 3) && matches!(packet, Packet::Store(_)) && !is_hash(packet)
        });
        (cluster.perform(3, "append", "pending"), cluster.read(3))
    };
    cluster.check();
    let store = cluster.node(3).node.store();
    assert!(store.is_stopped() && !store.is_fit() && !store.is_diverged());
    let check = cluster.checks()[1];
    assert_eq!(cluster.node(3).diverged(), [(cluster.checks()[0], None), (check, None)]);
    let stopped = cluster.node(3).faults.last();
    assert!(matches!(stopped, Some(Fault::Stopped(failure)) if failure.code == "DIVERGED"));
    cluster.loses = Box::new(|_, _, _| false);
    let (perform, read) = (cluster.perform(3, "append", "late"), cluster.read(3));
    for ticket in [pending.0, pending.1, perform, read] {
        assert_eq!(cluster.node(3).code(ticket), Some("DIVERGED"));
    }
    // It still stores entries, and with its vote another node comes to lead.
    cluster.append(2, "more");
    let last = |cluster: &Cluster, id| cluster.node(id).node.raft().expect("started").log().last();
    assert_eq!(last(&cluster, 3), last(&cluster, 1));
    cluster.kill(1);
    cluster.run(3000);
    assert_eq!(cluster.leader(), Some(2));
    cluster.append(2, "after");
    assert_eq!(last(&cluster, 3), last(&cluster, 2));
    assert_eq!(cluster.node(3).faults.len(), 3, "nothing more is reported");
}

#[test]
fn a_node_that_diverges_again_much_later_is_mended_again() {
    let mut cluster = one_differs();
    cluster.check();
    cluster.run(400);
    let mended = cluster.node(3).node.store().applied();
    cluster.machine(3).alters = None;
    while cluster.node(3).node.store().applied() < mended + 1024 {
        cluster.append(2, "skip");
    }
    cluster.machine(3).alters = Some("odd".into());
    cluster.append(2, "odd 2");
    cluster.check();
    cluster.run(400);
    assert_eq!(cluster.node(3).diverged().len(), 2);
    assert!(cluster.node(3).node.store().is_fit());
    cluster.state();
}

#[test]
fn a_reducer_that_fails_on_one_node_is_reported_at_once_with_its_action() {
    let mut cluster = Cluster::of(3);
    cluster.append(2, "before");
    cluster.machine(3).refuses = Some("bad".into());
    cluster.loses = Box::new(|_, _, packet| is_ask(packet));
    cluster.append(2, "bad idea");
    let index = cluster.index_of("bad idea");
    assert_eq!(cluster.node(3).diverged(), [(index, Some("bad idea"))]);
    assert_eq!(cluster.checks(), []);
    assert!(!cluster.node(3).node.store().is_fit());
    cluster.machine(3).refuses = None;
    // It asks for a check at once, and again when the request is lost.
    cluster.loses = Box::new(|_, _, _| false);
    cluster.run(1000);
    assert_eq!((cluster.checks().len(), cluster.checked().len()), (1, 1));
    assert_eq!(cluster.node(3).diverged().len(), 1, "it is reported once");
    assert_eq!(cluster.state(), ["before", "bad idea"]);
    assert!(cluster.node(3).node.store().is_fit());
}

#[test]
fn an_entry_that_one_node_cannot_read_leads_to_a_check_and_is_mended() {
    let mut cluster = Cluster::of(3);
    cluster.append(2, "before");
    cluster.append(2, "damaged");
    cluster.append(2, "after");
    let index = cluster.index_of("damaged");
    let mut disk = cluster.kill(3);
    disk.entries.iter_mut().find(|entry| entry.at.index == index).expect("it is there").payload =
        Payload::Command("\u{2}rubbish".into());
    cluster.start(3, disk);
    cluster.run(1000);
    assert_eq!(cluster.node(3).diverged(), [(index, None)]);
    assert_eq!(cluster.checked(), cluster.checks());
    assert_eq!(cluster.checks().len(), 1);
    assert_eq!(cluster.state(), ["before", "damaged", "after"]);
    assert!(cluster.node(3).node.store().is_fit());
}

#[test]
fn a_suspect_node_that_is_elected_hands_leadership_over_and_judges_nothing() {
    let mut cluster = Cluster::of(3);
    cluster.append(2, "before");
    cluster.machine(3).refuses = Some("bad".into());
    // No check comes.
    cluster.loses = Box::new(|_, _, packet| is_ask(packet) || is_hash(packet));
    cluster.append(2, "bad");
    assert!(!cluster.node(3).node.store().is_fit());
    let judged = cluster.node(3).machine.judged;
    let ticket = cluster.perform(2, "append", "after");
    cluster.handle(1, Input::Transfer(Some(3)));
    cluster.run(200);
    assert_ne!(cluster.leader(), Some(3));
    assert!(cluster.term(1) >= 3, "node 3 has led");
    assert_eq!(cluster.node(3).machine.judged, judged);
    cluster.run(1000);
    assert_eq!(cluster.node(2).outcome(ticket), Some(&Outcome::Action("after".into())));
}

#[test]
fn a_node_whose_reducer_fails_on_an_entry_that_is_not_committed_does_not_judge() {
    let mut cluster = Cluster::of(3);
    cluster.append(1, "before");
    cluster.append(2, "before");
    cluster.machine(3).refuses = Some("bad".into());
    // The entry gets to node 3, and nothing gets back.
    cluster.cut.extend([(1, 2), (3, 1), (2, 1)]);
    cluster.perform(1, "append", "bad");
    cluster.deliver_all();
    let raft = cluster.node(3).node.raft().expect("started");
    assert!(raft.log().last().index > raft.commit_index());
    assert!(!cluster.node(3).node.store().is_fit());
    assert_eq!(cluster.node(3).faults, [], "it may never be committed");
    // Node 3 has the longest log, so only it can win.
    let judged = cluster.node(3).machine.judged;
    cluster.kill(1);
    let ticket = cluster.perform(2, "append", "after");
    cluster.run(5000);
    assert_eq!(cluster.node(3).machine.judged, judged);
    assert_eq!(cluster.leader(), Some(2), "it has handed leadership over");
    assert_eq!(cluster.node(2).outcome(ticket), Some(&Outcome::Action("after".into())));
    let index = cluster.index_of("bad");
    assert_eq!(cluster.node(3).diverged()[0], (index, Some("bad")));
}

#[test]
fn a_check_from_before_the_failing_entry_does_not_clear_the_suspicion() {
    let mut cluster = Cluster::of(3);
    cluster.append(2, "before");
    // The check is decided late, when the entry has failed.
    cluster.loses = Box::new(|_, _, packet| is_hash(packet));
    cluster.check();
    cluster.machine(3).refuses = Some("bad".into());
    cluster.append(2, "bad");
    assert!(!cluster.node(3).node.store().is_fit());
    cluster.loses = Box::new(|_, _, packet| is_ask(packet));
    cluster.run(1000);
    assert_eq!(cluster.checked(), cluster.checks());
    assert_eq!(cluster.checked().len(), 1);
    assert!(!cluster.node(3).node.store().is_fit(), "that check was before the entry");
    assert!(!cluster.node(3).node.store().is_diverged());
    cluster.machine(3).refuses = None;
    cluster.loses = Box::new(|_, _, _| false);
    cluster.run(1000);
    assert_eq!(cluster.state(), ["before", "bad"]);
    assert!(cluster.node(3).node.store().is_fit());
}

#[test]
fn nodes_on_which_the_reducer_fails_alike_go_on() {
    let mut cluster = Cluster::of(3);
    cluster.append(2, "before");
    cluster.append(2, "bad");
    cluster.append(2, "after");
    // All are started again, with a reducer that was edited meanwhile.
    let disks: Vec<(u64, Disk)> = (1..=3).map(|id| (id, cluster.kill(id))).collect();
    for (id, disk) in disks {
        let machine =
            common::host_cluster::ListMachine { refuses: Some("bad".into()), ..Default::default() };
        cluster.start_with(id, disk, machine);
    }
    cluster.run(5000);
    let index = cluster.index_of("bad");
    for member in cluster.nodes.values() {
        assert_eq!(member.diverged(), [(index, Some("bad"))]);
        assert!(member.node.store().is_fit());
    }
    cluster.append(2, "later");
    assert_eq!(cluster.state(), ["before", "after", "later"]);
}

#[test]
fn a_single_node_whose_reducer_fails_goes_on() {
    let mut cluster = Cluster::of(1);
    cluster.append(1, "before");
    cluster.append(1, "bad");
    let disk = cluster.kill(1);
    let machine =
        common::host_cluster::ListMachine { refuses: Some("bad".into()), ..Default::default() };
    cluster.start_with(1, disk, machine);
    let ticket = cluster.perform(1, "append", "after");
    cluster.run(1000);
    assert_eq!(cluster.node(1).diverged().len(), 1);
    assert!(cluster.node(1).node.store().is_fit());
    assert_eq!(cluster.node(1).outcome(ticket), Some(&Outcome::Action("after".into())));
    assert_eq!(cluster.state(), ["before", "after"]);
}

#[test]
fn of_two_nodes_that_differ_the_leader_is_right() {
    for wrong in [1, 2] {
        let mut cluster = Cluster::of(2);
        cluster.append(2, "before");
        cluster.machine(wrong).alters = Some("odd".into());
        cluster.append(2, "odd");
        cluster.machine(wrong).alters = None;
        cluster.check();
        cluster.run(1000);
        assert_eq!(cluster.node(1).faults, []);
        assert_eq!(cluster.node(2).diverged().len(), 1);
        let odd = if wrong == 1 { "odd altered" } else { "odd" };
        assert_eq!(cluster.state(), ["before", odd]);
    }
}

#[test]
fn of_two_nodes_that_differ_a_suspect_leader_is_wrong() {
    let mut cluster = Cluster::of(2);
    cluster.append(2, "before");
    cluster.append(2, "bad");
    // Node 1 is started again with another reducer, and only it may lead.
    cluster.timeouts.insert(2, (5000, 6000));
    cluster.restart(2);
    let disk = cluster.kill(1);
    let machine =
        common::host_cluster::ListMachine { refuses: Some("bad".into()), ..Default::default() };
    let is_timeout_now = |packet: &Packet| match packet {
        Packet::Raft(message) => message.body == raft::Body::TimeoutNow,
        Packet::Store(_) => false,
    };
    cluster.loses = Box::new(move |_, _, packet| is_timeout_now(packet));
    cluster.start_with(1, disk, machine);
    cluster.run(3000);
    assert_eq!(cluster.leader(), Some(1));
    assert_eq!(cluster.checked(), cluster.checks());
    assert_eq!(cluster.state(), ["before", "bad"], "node 2 is right");
    assert_eq!(cluster.node(2).faults, []);
}

#[test]
fn a_check_that_no_majority_agrees_on_is_decided_when_every_voter_has_answered() {
    let mut cluster = Cluster::of(3);
    cluster.append(2, "before");
    for id in [2, 3] {
        cluster.machine(id).alters = Some("odd".into());
    }
    // All three differ.
    cluster.append(2, "odd");
    cluster.machine(3).alters = Some("even".into());
    cluster.append(2, "even");
    for id in [2, 3] {
        cluster.machine(id).alters = None;
    }
    cluster.loses = Box::new(|from, _, packet| from == 3 && is_hash(packet));
    cluster.check();
    cluster.run(1000);
    assert_eq!(cluster.checked(), [], "node 3 may make a majority");
    cluster.loses = Box::new(|_, _, _| false);
    cluster.run(1000);
    assert_eq!(cluster.checked(), cluster.checks());
    assert_eq!(cluster.state(), ["before", "odd", "even"], "the leader's");
}

#[test]
fn an_overdue_check_is_decided_by_those_who_answered() {
    let mut cluster = Cluster::of(3);
    cluster.append(2, "before");
    cluster.kill(3);
    cluster.machine(2).alters = Some("odd".into());
    cluster.append(1, "odd");
    cluster.machine(2).alters = None;
    cluster.check();
    let check = cluster.checks()[0];
    while cluster.commands.keys().max() < Some(&(check + 1024)) {
        assert_eq!(cluster.checked(), []);
        cluster.append(1, "skip");
    }
    cluster.run(50);
    assert_eq!(cluster.checked()[0], check, "node 3 is not waited for any longer");
    assert_eq!(cluster.node(2).diverged(), [(check, None)]);
    cluster.run(1000);
    assert_eq!(cluster.state(), ["before", "odd"]);
}

#[test]
fn voters_that_cannot_save_their_state_abstain() {
    let mut cluster = Cluster::of(3);
    cluster.append(2, "before");
    cluster.machine(3).cannot_save = true;
    cluster.machine(2).alters = Some("odd".into());
    cluster.append(1, "odd");
    cluster.machine(2).alters = None;
    cluster.check();
    cluster.run(1000);
    assert_eq!(cluster.checked(), cluster.checks(), "every voter has answered");
    assert!(matches!(cluster.node(3).faults[..], [Fault::CannotSave(_)]));
    assert!(cluster.node(3).node.store().is_fit(), "nothing is known of its state");
    assert_eq!(cluster.state(), ["before", "odd"]);
}

#[test]
fn a_learner_does_not_count_in_a_check_and_does_not_hurry() {
    let mut cluster = Cluster::of(3);
    cluster.append(2, "before");
    let change = raft::Change::Add { id: 4, name: "d".into() };
    cluster.handle(1, Input::Change(change));
    let voters = std::mem::take(&mut cluster.members);
    cluster.start(4, Disk::default());
    cluster.members = voters;
    cluster.run(1000);
    assert_eq!(cluster.node(4).state(), ["before"]);
    cluster.loses = Box::new(|_, _, packet| is_hash(packet));
    cluster.check();
    // The harness fails when a node wants to be called all the time.
    cluster.run(3000);
    assert!(
        !cluster.sent.iter().any(|(from, _, body)| *from == 4 && matches!(body, Body::Hash { .. }))
    );
    cluster.loses = Box::new(|_, _, _| false);
    cluster.run(1000);
    assert_eq!(cluster.checked(), cluster.checks());
}

#[test]
fn a_learner_whose_state_differs_is_mended() {
    let mut cluster = Cluster::of(3);
    cluster.append(2, "before");
    cluster.handle(1, Input::Change(raft::Change::Add { id: 4, name: "d".into() }));
    let voters = std::mem::take(&mut cluster.members);
    cluster.start(4, Disk::default());
    cluster.members = voters;
    cluster.run(1000);
    cluster.machine(4).alters = Some("odd".into());
    cluster.append(2, "odd");
    cluster.machine(4).alters = None;
    cluster.check();
    cluster.run(1000);
    assert_eq!(cluster.node(4).diverged().len(), 1);
    assert_eq!(cluster.state(), ["before", "odd"]);
}

#[test]
fn hashes_of_another_check_are_ignored() {
    let mut cluster = Cluster::of(5);
    cluster.append(2, "x");
    cluster.loses = Box::new(|from, _, packet| from != 2 && is_hash(packet));
    cluster.check();
    let check = cluster.checks()[0];
    cluster.run(1000);
    assert_eq!(cluster.checked(), [], "two of five have answered");
    // Late and forged hashes do not replace those that have arrived, and decide nothing.
    for other in [0, 1, check - 1, check + 1, u64::MAX] {
        for from in [3, 4, 5] {
            cluster.forge(
                from,
                1,
                Body::Hash { check: other, hash: Some(Hash { hash: 7, suspect: false }) },
            );
        }
    }
    cluster.run(20);
    assert_eq!(cluster.checked(), []);
    // Now the third hash is enough, without the others being sent again.
    cluster.loses = Box::new(|from, _, packet| from != 3 && is_hash(packet));
    cluster.run(310);
    assert_eq!(cluster.checked(), cluster.checks());
    assert!(cluster.nodes.values().all(|member| member.faults.is_empty()));
}

#[test]
fn hashes_of_nodes_that_are_no_voters_do_not_count() {
    let mut cluster = Cluster::of(3);
    cluster.append(2, "x");
    cluster.loses = Box::new(|_, _, packet| is_hash(packet));
    cluster.check();
    let check = cluster.checks()[0];
    for from in 10..20 {
        cluster.forge(from, 1, Body::Hash { check, hash: Some(Hash { hash: 7, suspect: false }) });
    }
    cluster.run(50);
    assert_eq!(cluster.checked(), []);
}

#[test]
fn messages_of_checks_and_states_that_make_no_sense_are_ignored() {
    let mut cluster = one_differs();
    cluster.machine(3).alters = None;
    let at = |index| Position::new(index, 1);
    let data = || Blob::from("rubbish");
    let states = |total, offset| {
        let ats = [at(0), at(2), at(5), at(u64::MAX), Position::new(u64::MAX, u64::MAX)];
        ats.map(|at| Body::State { at, total, offset, data: data() })
    };
    let rubbish = || {
        let mut all = Vec::new();
        for (total, offset) in [(0, 0), (7, 0), (7, 7), (100, 0), (u64::MAX, u64::MAX)] {
            all.extend(states(total, offset));
        }
        for (at, offset) in
            [(None, 0), (None, u64::MAX), (Some(at(0)), 3), (Some(at(u64::MAX)), u64::MAX)]
        {
            all.push(Body::Fetch { at, offset, snapshot: false });
            all.push(Body::Fetch { at, offset, snapshot: true });
        }
        all.push(Body::Hash { check: u64::MAX, hash: None });
        all
    };
    // Nodes that do not wait for a state ignore one.
    for from in 1..=4 {
        for to in 1..=3 {
            rubbish().into_iter().for_each(|body| cluster.forge(from, to, body));
        }
    }
    cluster.run(100);
    assert_eq!(cluster.node(1).state(), ["before", "odd"]);
    // A node that waits for one ignores those that another follower sends.
    cluster.loses = Box::new(|_, _, packet| is_state(packet));
    cluster.check();
    for from in [2, 4] {
        rubbish().into_iter().for_each(|body| cluster.forge(from, 3, body));
    }
    assert!(cluster.node(3).node.store().is_diverged());
    // Rubbish from the leader does not get loaded.
    for (total, offset) in [(7, 0), (0, 0), (7, 7), (100, 50)] {
        let body = Body::State { at: at(5), total, offset, data: data() };
        cluster.forge(1, 3, body);
    }
    assert!(cluster.node(3).node.store().is_diverged());
    cluster.loses = Box::new(|_, _, _| false);
    cluster.run(2000);
    assert!(cluster.node(3).node.store().is_fit());
    assert_eq!(cluster.state(), ["before", "odd"]);
    assert_eq!(cluster.node(3).faults.len(), 1);
}

#[test]
fn a_node_that_is_not_fit_gives_its_state_to_nobody() {
    let mut cluster = one_differs();
    cluster.loses = Box::new(|_, _, packet| is_state(packet));
    cluster.check();
    cluster.sent.clear();
    cluster.forge(2, 3, Body::Fetch { at: None, offset: 0, snapshot: false });
    cluster.forge(2, 1, Body::Fetch { at: None, offset: 0, snapshot: false });
    let gave: Vec<_> = cluster
        .sent
        .iter()
        .filter(|(_, to, body)| *to == 2 && matches!(body, Body::State { .. }))
        .map(|(from, _, _)| *from)
        .collect();
    assert_eq!(gave, [1]);
}

#[test]
fn a_perform_whose_session_ends_while_it_is_held_does_not_run_again() {
    let mut cluster = Cluster::with(3, |cluster| cluster.config.max_sessions = 2);
    cluster.append(2, "before");
    cluster.append(3, "own");
    cluster.run(3000);
    cluster.machine(3).refuses = Some("bad".into());
    // No check comes for a while.
    cluster.loses = Box::new(|_, _, packet| is_ask(packet));
    cluster.append(2, "bad");
    assert!(!cluster.node(3).node.store().is_fit());
    let held = cluster.perform(3, "append", "held");
    cluster.run(100);
    assert_eq!(cluster.node(3).outcome(held), None);
    cluster.append(2, "more");
    // Another session takes the place of node 3's.
    cluster.append(1, "last");
    cluster.machine(3).refuses = None;
    cluster.loses = Box::new(|_, _, _| false);
    cluster.run(3000);
    assert_eq!(cluster.state(), ["before", "own", "bad", "held", "more", "last"]);
    assert_eq!(cluster.node(3).outcome(held), Some(&Outcome::Action("held".into())));
}

#[test]
fn what_is_known_of_a_perform_is_told_when_its_session_has_ended_in_the_fetched_state() {
    let mut cluster = Cluster::with(3, |cluster| cluster.config.max_sessions = 2);
    cluster.append(2, "before");
    cluster.append(3, "own");
    cluster.run(3000);
    cluster.machine(3).refuses = Some("bad".into());
    cluster.loses = Box::new(|_, _, packet| is_ask(packet));
    cluster.append(2, "bad");
    // This node learns that the first one has run before it knows that its state is wrong.
    let known = cluster.perform(3, "append", "known");
    cluster.run(100);
    cluster.loses = Box::new(|_, _, packet| is_state(packet));
    cluster.run(1000);
    assert!(cluster.node(3).node.store().is_diverged());
    let unknown = cluster.perform(3, "append", "unknown");
    cluster.run(100);
    // Another session takes the place of this node's.
    cluster.append(2, "more");
    cluster.append(1, "last");
    let store = cluster.node(1).node.store();
    let mine = cluster.node(3).node.store().session().expect("it does not know yet");
    assert!(store.sessions().get(mine).is_none());
    assert_eq!(cluster.node(3).outcome(known), None);
    cluster.machine(3).refuses = None;
    cluster.loses = Box::new(|_, _, _| false);
    cluster.run(3000);
    assert_eq!(cluster.state(), ["before", "own", "bad", "known", "unknown", "more", "last"]);
    assert_eq!(cluster.node(3).outcome(known), Some(&Outcome::Action("known".into())));
    assert_eq!(cluster.node(3).code(unknown), Some("OUTCOME_UNKNOWN"));
}

#[test]
fn performs_and_reads_of_a_suspect_node_wait_until_its_state_was_found_right() {
    let mut cluster = Cluster::of(3);
    cluster.append(3, "before");
    let mut disk = cluster.kill(3);
    let entry = raft::Entry {
        at: Position::new(disk.entries.last().expect("some").at.index, 1),
        payload: Payload::Command("\u{2}rubbish".into()),
    };
    // All logs have the same entry that nobody can read, so the states are equal.
    let last = disk.entries.len() - 1;
    disk.entries[last] = entry;
    let disks = [1, 2].map(|id| cluster.kill(id));
    for (id, other) in [1, 2].into_iter().zip(disks) {
        let entries = disk.entries.clone();
        cluster.start(id, Disk { entries, ..other });
    }
    cluster.start(3, disk);
    // No check is decided for a while.
    cluster.loses = Box::new(|_, _, packet| is_hash(packet));
    let tickets = [cluster.perform(3, "append", "x"), cluster.read(3)];
    cluster.run(5000);
    assert!(cluster.nodes.values().all(|member| !member.node.store().is_fit()));
    assert!(cluster.nodes.values().all(|member| member.machine.judged == 0), "nobody judges");
    assert_eq!(cluster.node(3).settled, []);
    cluster.loses = Box::new(|_, _, _| false);
    cluster.run(5000);
    assert!(cluster.nodes.values().all(|member| member.node.store().is_fit()));
    assert_eq!(cluster.node(3).outcome(tickets[0]), Some(&Outcome::Action("x".into())));
    assert_eq!(cluster.node(3).outcome(tickets[1]), Some(&Outcome::Nothing));
    assert_eq!(cluster.state(), ["x"]);
}

#[test]
fn a_node_that_diverges_again_within_1024_entries_stops_and_one_entry_later_it_is_mended() {
    for (entries, stops) in [(1023, true), (1024, false)] {
        let mut cluster = one_differs();
        cluster.machine(3).alters = None;
        cluster.check();
        cluster.run(400);
        let mended = cluster.node(3).node.store().applied();
        let last = |cluster: &Cluster| *cluster.commands.keys().max().expect("some");
        while last(&cluster) < mended + entries - 2 {
            cluster.append(2, "skip");
        }
        cluster.machine(3).alters = Some("odd".into());
        cluster.append(2, "odd 2");
        if cluster.checks().len() < 2 {
            cluster.check();
        }
        assert_eq!(cluster.checks()[1], mended + entries);
        cluster.run(400);
        let store = cluster.node(3).node.store();
        assert_eq!((store.is_stopped(), store.is_fit()), (stops, !stops), "{entries}");
    }
}

#[test]
fn chunks_that_come_twice_or_out_of_turn_are_ignored() {
    let mut cluster = Cluster::with(3, |cluster| cluster.config.max_message_bytes = 100);
    for i in 0..20 {
        cluster.append(2, &format!("some longer text {i}"));
    }
    cluster.machine(3).alters = Some("odd".into());
    cluster.append(2, "odd");
    cluster.machine(3).alters = None;
    let mut chunks = 0;
    cluster.loses = Box::new(move |_, _, packet| {
        chunks += u32::from(is_state(packet));
        is_state(packet) && chunks > 2
    });
    cluster.check();
    let is_chunk = |body: &Body| matches!(body, Body::State { .. });
    let sent: Vec<_> = cluster.sent.iter().map(|(_, _, body)| body.clone()).collect();
    let sent: Vec<_> = sent.into_iter().filter(is_chunk).collect();
    assert_eq!(sent.len(), 3, "two have arrived");
    let Body::State { at, total, .. } = sent[0] else { panic!("a chunk") };
    for chunk in &sent[..2] {
        cluster.forge(1, 3, chunk.clone());
    }
    for offset in [100, 199, 201, 300, total, u64::MAX] {
        let data = "rubbish".repeat(10).as_str().into();
        cluster.forge(1, 3, Body::State { at, total, offset, data });
    }
    cluster.sent.clear();
    cluster.loses = Box::new(|_, _, _| false);
    cluster.run(1000);
    assert_eq!(offsets(&cluster)[..2], [200, 300], "it goes on where it was");
    assert!(offsets(&cluster).is_sorted());
    assert!(cluster.node(3).node.store().is_fit());
    assert_eq!(cluster.state().len(), 21);
}

#[test]
fn a_state_is_loaded_only_when_its_entry_is_committed_here() {
    let mut cluster = Cluster::with(3, |cluster| {
        cluster.timeouts.insert(3, (60_000, 70_000));
    });
    cluster.append(2, "before");
    cluster.machine(3).alters = Some("odd".into());
    cluster.append(2, "odd");
    cluster.machine(3).alters = None;
    cluster.loses = Box::new(|_, _, packet| is_state(packet));
    cluster.check();
    assert!(cluster.node(3).node.store().is_diverged());
    // Entries arrive, but that they are committed does not.
    cluster.loses = Box::new(|from, to, packet| match packet {
        Packet::Raft(message) => {
            let is_empty = |body: &raft::Body| matches!(body, raft::Body::Append { entries, .. } if entries.is_empty());
            (from, to) == (1, 3) && is_empty(&message.body)
        }
        Packet::Store(_) => false,
    });
    cluster.append(2, "more");
    cluster.run(1000);
    let raft = cluster.node(3).node.raft().expect("started");
    assert!(raft.commit_index() < raft.log().last().index);
    assert!(cluster.node(3).node.store().applied() <= raft.commit_index());
    assert!(cluster.node(3).node.store().is_diverged());
    let asked = offsets(&cluster).len();
    cluster.run(2000);
    assert_eq!(offsets(&cluster).len(), asked, "the state is there");
    cluster.loses = Box::new(|_, _, _| false);
    cluster.run(100);
    assert_eq!(offsets(&cluster).len(), asked);
    assert!(cluster.node(3).node.store().is_fit());
    assert_eq!(cluster.state(), ["before", "odd", "more"]);
}

#[test]
fn the_right_hash_of_an_earlier_check_does_not_end_a_later_one() {
    let mut rig = Rig::new(3, "", Saved::default(), |_| ());
    let state = 7_u64.to_le_bytes().as_slice().into();
    let check = || Command::Check { version: 1 };
    let commands = [Command::Found { version: 1, state }, check(), check()];
    let entries =
        (1..).zip(&commands).map(|(index, command)| Rig::command(index, &encode(command)));
    rig.append(0, entries.collect());
    let hashes = |rig: &mut Rig| {
        rig.sent.clear();
        rig.wait(310);
        let hash = |(_, packet): &(u64, Packet)| match packet {
            Packet::Store(message) => match message.body {
                Body::Hash { check, hash } => Some((check, hash.map(|hash| hash.hash))),
                _ => None,
            },
            Packet::Raft(_) => None,
        };
        rig.sent.iter().filter_map(hash).collect::<Vec<_>>()
    };
    let [(3, Some(hash))] = hashes(&mut rig)[..] else { panic!("its own hash") };
    // This node has no state of that check any more, so it cannot know whether it was wrong.
    let checked = |check, hash| encode(&Command::Checked { check, hash });
    rig.append(3, vec![Rig::command(4, &checked(2, hash ^ 1))]);
    assert_eq!(hashes(&mut rig), [(3, Some(hash))]);
    rig.append(4, vec![Rig::command(5, &checked(3, hash))]);
    assert_eq!(hashes(&mut rig), []);
    rig.append(5, vec![Rig::command(6, &checked(3, hash ^ 1))]);
    assert!(rig.node.store().is_fit(), "what was decided stays");
    assert_eq!(rig.faults, []);
}

#[test]
fn a_node_that_has_another_version_of_the_application_abstains() {
    let mut rig = Rig::new(3, "", Saved::default(), |_| ());
    let state = 7_u64.to_le_bytes().as_slice().into();
    let commands = [Command::Found { version: 1, state }, Command::Check { version: 2 }];
    let entries =
        (1..).zip(&commands).map(|(index, command)| Rig::command(index, &encode(command)));
    rig.append(0, entries.collect());
    let body = Body::Hash { check: 2, hash: None };
    let is_hash = |(to, packet): &(u64, Packet)| {
        *to == 2 && matches!(packet, Packet::Store(message) if message.body == body)
    };
    assert!(rig.sent.iter().any(is_hash), "{:?}", rig.sent);
    rig.append(2, vec![Rig::command(3, &encode(&Command::Checked { check: 2, hash: 9 }))]);
    assert!(rig.node.store().is_fit());
}

#[test]
fn a_check_is_not_delayed_by_a_burst_of_performs() {
    let mut cluster = Cluster::of(3);
    cluster.append(2, "skip");
    for _ in 0..2 {
        let performs = (0..800).map(|i| Perform {
            ticket: 50_000 + i,
            method: "append".into(),
            args: "skip".into(),
            timeout: None,
        });
        cluster.handle(2, Input::Perform(performs.collect()));
        cluster.run(50);
    }
    let checks = cluster.checks();
    assert_eq!(checks, [1025]);
}

#[test]
fn a_suspect_node_whose_state_cannot_be_saved_gets_another_one_and_asks_no_more() {
    let mut cluster = Cluster::of(3);
    cluster.append(2, "before");
    cluster.machine(3).cannot_save = true;
    cluster.machine(3).refuses = Some("bad".into());
    cluster.append(2, "bad");
    cluster.run(10_000);
    assert_eq!(cluster.checks().len(), 1, "{:?}", cluster.checks());
    assert!(cluster.node(3).node.store().is_fit());
    assert_eq!(cluster.state(), ["before", "bad"]);
    let index = cluster.index_of("bad");
    assert_eq!(cluster.node(3).diverged(), [(index, Some("bad"))]);
}
