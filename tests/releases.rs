//! Nodes with newer and older code than the state: who computes the state, and who does not.
#![allow(missing_docs)]

mod common;

use std::rc::Rc;

use common::host_cluster::ListMachine;
use common::node_cluster::Cluster;
use common::raft_cluster::Disk;
use conflux::node::Packet;
use conflux::raft::NodeId;
use conflux::store::{Body, CARETAKER, Fault};

/// A cluster of three nodes of version 1 that has stopped, and the disks of its nodes.
fn stopped(actions: &[&str]) -> (Cluster, Vec<(NodeId, Disk)>) {
    let mut cluster = Cluster::of(3);
    actions.iter().for_each(|action| cluster.append(2, action));
    let disks = (1..=3).map(|id| (id, cluster.kill(id))).collect();
    (cluster, disks)
}

fn refuses(prefix: &str) -> ListMachine {
    ListMachine { refuses: Some(prefix.into()), ..ListMachine::default() }
}

/// What stopped a node.
fn stopped_by(cluster: &Cluster, id: NodeId) -> Vec<(&str, &str)> {
    let faults = cluster.node(id).faults.iter().filter_map(|fault| match fault {
        Fault::Stopped(failure) => Some((failure.code.as_str(), failure.message.as_str())),
        _ => None,
    });
    faults.collect()
}

#[test]
fn a_node_with_newer_code_computes_the_old_state_when_nobody_has_it() {
    let (mut cluster, disks) = stopped(&["a", "b"]);
    cluster.config.version = 2;
    disks.into_iter().for_each(|(id, disk)| cluster.start(id, disk));
    cluster.run(10_000);
    assert_eq!(cluster.state(), ["a", "b"]);
    assert_eq!(cluster.node(1).node.store().release(), Some(2));
}

#[test]
fn an_old_state_is_not_migrated_without_an_action_on_which_the_new_reducer_fails() {
    let (mut cluster, disks) = stopped(&["a", "bad", "c"]);
    cluster.config.version = 2;
    disks.into_iter().for_each(|(id, disk)| cluster.start_with(id, disk, refuses("bad")));
    cluster.run(20_000);
    for id in 1..=3 {
        assert_eq!(cluster.node(id).node.store().release(), Some(1), "nothing is appended");
        let [(code, message)] = stopped_by(&cluster, id)[..] else { panic!("it stops once") };
        assert_eq!(code, "MIGRATION_FAILED");
        assert!(message.starts_with("the reducer failed on an older action"), "{message}");
    }
    // One with a release that can reduce the action makes the state of all.
    let disk = cluster.kill(2);
    cluster.start(2, disk);
    cluster.run(10_000);
    assert_eq!(cluster.state(), ["a", "bad", "c"]);
}

#[test]
fn a_node_that_runs_no_code_votes_and_stores_but_neither_reduces_nor_judges() {
    let mut cluster = Cluster::new(3);
    cluster.start(1, Disk::default());
    cluster.config.version = CARETAKER;
    cluster.start(2, Disk::default());
    cluster.start(3, Disk::default());
    cluster.run(1000);
    cluster.append(1, "a");
    for id in [2, 3] {
        let store = cluster.node(id).node.store();
        assert_eq!((store.committed(), store.release()), (&Rc::new(Vec::new()), Some(1)));
    }
    assert_eq!(cluster.node(1).state(), ["a"]);
    // One that is elected because its log is complete hands leadership over.
    cluster.frozen.insert(1);
    cluster.run(2000);
    cluster.frozen.clear();
    cluster.run(3000);
    assert_eq!(cluster.leader(), Some(1));
    cluster.append(1, "b");
    assert_eq!(cluster.node(1).state(), ["a", "b"]);
    assert_eq!(cluster.machine(2).judged + cluster.machine(3).judged, 0);
}

#[test]
fn a_node_without_a_state_of_its_own_asks_for_each_snapshot_once() {
    let mut cluster = Cluster::new(2);
    cluster.config.compact_bytes = 4000;
    cluster.start(1, Disk::default());
    cluster.config.version = CARETAKER;
    cluster.start(2, Disk::default());
    cluster.run(1000);
    let append = |cluster: &mut Cluster, times: usize| {
        (0..times).for_each(|_| cluster.append(1, &"x".repeat(400)));
    };
    append(&mut cluster, 30);
    cluster.run(1000);
    assert!(!cluster.node(1).snapshots.is_empty() && !cluster.node(2).snapshots.is_empty());
    // From now on the leader makes no more.
    cluster.machine(1).cannot_save = true;
    cluster.sent.clear();
    append(&mut cluster, 100);
    cluster.run(10_000);
    let is_fetch = |body: &Body| matches!(body, Body::Fetch { snapshot: true, .. });
    let asked = cluster.sent.iter().filter(|(from, _, body)| *from == 2 && is_fetch(body)).count();
    assert!((1..=50).contains(&asked), "it asked {asked} times");
}

#[test]
fn a_node_that_runs_no_code_gives_no_first_state() {
    let mut cluster = Cluster::new(3);
    cluster.config.version = CARETAKER;
    cluster.start(2, Disk::default());
    cluster.start(3, Disk::default());
    cluster.run(2000);
    assert!(cluster.leader().is_some());
    assert_eq!(cluster.node(2).node.store().release(), None);
    cluster.config.version = 1;
    cluster.initial.insert(1, vec!["first".into()]);
    cluster.start(1, Disk::default());
    cluster.run(5000);
    assert_eq!((cluster.leader(), cluster.node(1).state()), (Some(1), vec!["first".into()]));
}

#[test]
fn a_node_with_newer_code_does_not_abstain_at_a_check() {
    let mut cluster = Cluster::of(3);
    cluster.append(2, "a");
    // Its offer to lead is lost, so the state stays at the version of the others.
    let is_offer = |body: &Body| matches!(body, Body::Offer { .. });
    cluster.loses = Box::new(
        move |_, _, packet| matches!(packet, Packet::Store(message) if is_offer(&message.body)),
    );
    cluster.config.version = 2;
    cluster.restart(3);
    cluster.run(1000);
    cluster.check();
    cluster.run(1000);
    assert_eq!(cluster.checked().len(), 1, "the two others are a majority");
    let is_hash = |body: &Body| matches!(body, Body::Hash { .. });
    let hashes = cluster.sent.iter().filter(|(from, _, body)| *from == 3 && is_hash(body)).count();
    assert_eq!(hashes, 0);
}
