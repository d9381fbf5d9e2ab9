//! The first state of a cluster: every node loads that of the first leader, whatever its own is.
#![allow(missing_docs)]

mod common;

use common::host_cluster::{Hosts, ListMachine, size};
use common::node_cluster::Cluster;
use common::node_rig::{Rig, encode};
use common::raft_cluster::Disk;
use conflux::host::types::Phase;
use conflux::node::Packet;
use conflux::raft::{self, Entry, Payload, Position, Saved};
use conflux::store::{Body, Command, Fault, Outcome, Performer};

/// So many nodes that have not started, each with a first state of its own.
fn different(count: u64) -> Cluster {
    let mut cluster = Cluster::new(count);
    cluster.initial = (1..=count).map(|id| (id, vec![format!("first of {id}")])).collect();
    cluster
}

/// The indices of the first states in a node's log.
fn founds(cluster: &Cluster, id: u64) -> Vec<u64> {
    let log = cluster.node(id).node.raft().expect("started").log();
    let is_found = |entry: &&Entry| {
        let Payload::Command(data) = &entry.payload else { return false };
        matches!(postcard::from_bytes(data.as_slice()), Ok(Command::Found { .. }))
    };
    log.iter_from(1).filter(is_found).map(|entry| entry.at.index).collect()
}

fn is_append(packet: &Packet) -> bool {
    let Packet::Raft(message) = packet else { return false };
    matches!(&message.body, raft::Body::Append { entries, .. } if !entries.is_empty())
}

#[test]
fn every_host_has_its_own_first_state_until_that_of_the_leader_is_committed() {
    let mut hosts = Hosts::new(1);
    for id in ["a", "b", "c"] {
        hosts.initial.insert(id.into(), vec![format!("first of {id}")]);
        hosts.start(id, size(3));
    }
    let mut had_a_leader = 0;
    let mut steps = 0;
    loop {
        let leads = hosts.leader().is_some();
        let mut known = 0;
        for (id, host) in &hosts.hosts {
            let state = hosts.state(id);
            match host.core.status().phase {
                Phase::Forming => {
                    assert_eq!(state, [format!("first of {id}")]);
                    assert!(host.machine.notified.is_empty(), "subscribers are not called");
                }
                phase => {
                    assert_eq!(phase, Phase::Member);
                    assert_eq!(state, hosts.initial[&hosts.leader().expect("a leader")]);
                    assert_eq!(host.machine.notified.len(), 1, "subscribers are called");
                    known += 1;
                }
            }
        }
        if known == 3 {
            break;
        }
        had_a_leader += u32::from(leads && known == 0);
        match hosts.network.is_empty() {
            true => hosts.advance(1),
            false => hosts.deliver(0, false),
        }
        steps += 1;
        assert!(steps < 10_000, "they get the first state");
    }
    assert!(had_a_leader > 3, "the cluster has formed before it has a state");
    hosts.run(1000);
    for host in hosts.hosts.values() {
        assert_eq!(host.machine.notified.len(), 1, "once");
    }
}

#[test]
fn a_node_that_starts_later_or_again_gets_the_state_of_the_cluster() {
    let mut cluster = different(3);
    cluster.start(1, Disk::default());
    cluster.start(2, Disk::default());
    cluster.run(1000);
    cluster.append(2, "x");
    cluster.start(3, Disk::default());
    assert_eq!(cluster.node(3).state(), ["first of 3"]);
    cluster.run(1000);
    assert_eq!(cluster.state(), ["first of 1", "x"]);
    // A node starts again, with another release's first state.
    cluster.initial.insert(2, vec!["newer".into()]);
    cluster.restart(2);
    assert_eq!(cluster.node(2).state(), ["newer"], "it does not know what is committed");
    cluster.run(1000);
    assert_eq!(cluster.state(), ["first of 1", "x"]);
    assert_eq!(founds(&cluster, 2), [2]);
}

#[test]
fn the_next_leader_gives_its_own_state_if_that_of_the_first_one_has_reached_nobody() {
    let mut cluster = different(3);
    for id in 1..=3 {
        cluster.start(id, Disk::default());
    }
    while cluster.commands.is_empty() {
        cluster.run(1);
        assert!(cluster.now < 2000);
        // The no-op gets through, and nothing behind it.
        cluster.loses = Box::new(|from, _, packet| {
            let Packet::Raft(message) = packet else { return false };
            let behind = |body: &raft::Body| matches!(body, raft::Body::Append { prev, .. } if prev.index > 0);
            from == 1 && behind(&message.body)
        });
    }
    assert_eq!(founds(&cluster, 1), [2]);
    assert_eq!(founds(&cluster, 2), []);
    assert_eq!(cluster.node(1).state(), ["first of 1"]);
    assert_eq!(cluster.node(1).node.store().release(), None);
    let disk = cluster.kill(1);
    cluster.loses = Box::new(|_, _, _| false);
    cluster.run(3000);
    let leader = cluster.leader().expect("a leader");
    cluster.start(1, disk);
    cluster.run(1000);
    assert_eq!(cluster.state(), [format!("first of {leader}")]);
    for id in 1..=3 {
        assert_eq!(founds(&cluster, id).len(), 1);
        assert_eq!(cluster.node(id).machine.notified.len(), 1);
    }
}

#[test]
fn the_next_leader_keeps_the_state_of_the_first_one_if_its_log_has_it() {
    let mut cluster = different(3);
    for id in 1..=3 {
        cluster.start(id, Disk::default());
    }
    // It reaches node 2 only, and is not committed.
    let mut got = false;
    cluster.loses = Box::new(move |from, to, packet| {
        got |= from == 1
            && to == 2
            && is_append(packet)
            && {
                let Packet::Raft(message) = packet else { return false };
                matches!(&message.body, raft::Body::Append { entries, .. } if entries.iter().any(|entry| entry.at.index == 2))
            };
        (to == 3 && from == 1 && got) || (to == 1 && got)
    });
    cluster.run(100);
    assert_eq!([1, 2, 3].map(|id| founds(&cluster, id)), [vec![2], vec![2], vec![]]);
    assert_eq!(cluster.node(2).node.store().release(), None);
    assert_eq!(cluster.node(2).state(), ["first of 2"]);
    cluster.kill(1);
    cluster.loses = Box::new(|_, _, _| false);
    cluster.run(3000);
    assert_eq!(cluster.leader(), Some(2), "its log is longer");
    assert_eq!(cluster.state(), ["first of 1"]);
    assert_eq!(founds(&cluster, 2), [2], "there is one first state");
}

#[test]
fn a_leader_appends_no_second_first_state() {
    let mut cluster = different(3);
    cluster.start_all();
    cluster.append(2, "x");
    cluster.kill(1);
    cluster.run(3000);
    let leader = cluster.leader().expect("a leader");
    cluster.append(leader, "y");
    assert_eq!(cluster.state(), ["first of 1", "x", "y"]);
    assert_eq!(founds(&cluster, leader), [2]);
}

#[test]
fn no_session_is_opened_before_the_first_state_is_committed() {
    let mut cluster = different(3);
    for id in 1..=3 {
        cluster.start(id, Disk::default());
    }
    let tickets = [1, 2].map(|id| cluster.perform(id, "append", "x"));
    // The leader does not learn that the first state has arrived.
    cluster.loses = Box::new(|_, to, packet| match packet {
        Packet::Raft(message) => {
            to == 1
                && matches!(&message.body, raft::Body::AppendReply { result: raft::AppendResult::Accepted { matched }, .. } if *matched >= 2)
        }
        Packet::Store(_) => false,
    });
    cluster.run(250);
    assert_eq!(cluster.leader(), Some(1));
    let asked = |body: &Body| matches!(body, Body::Open { .. });
    assert!(cluster.sent.iter().any(|(from, to, body)| (*from, *to) == (2, 1) && asked(body)));
    assert_eq!(founds(&cluster, 1), [2]);
    let last = cluster.node(1).node.raft().expect("started").log().last();
    assert_eq!(last.index, 2, "nothing is behind it");
    cluster.loses = Box::new(|_, _, _| false);
    cluster.run(3000);
    for (id, ticket) in [1, 2].into_iter().zip(tickets) {
        assert_eq!(cluster.node(id).outcome(ticket), Some(&Outcome::Action("x".into())));
    }
    assert_eq!(cluster.state().len(), 3);
}

#[test]
fn the_first_state_may_be_larger_than_any_action_and_any_message() {
    let large = "large ".repeat(20_000);
    let mut cluster = different(3);
    cluster.config.max_action_bytes = 100;
    cluster.config.max_message_bytes = 1000;
    cluster.initial.insert(1, vec![large.clone()]);
    cluster.start_all();
    cluster.append(2, "x");
    assert_eq!(cluster.state(), [large, "x".into()]);
}

/// What an earlier build has written: a session and two actions, and no first state.
fn earlier() -> Disk {
    let open = encode(&Command::Open { nonce: 7, by: Performer::default() });
    let action = |seq, action: &str| {
        let (session, action) = (1, action.into());
        encode(&Command::Action { version: 1, session, seq, ack: 1, verdicts: vec![], action })
    };
    let commands = [open, action(1, "old 1"), action(2, "old 2")];
    let entries = (1..).zip(commands).map(|(index, data)| Entry {
        at: Position::new(index, 1),
        payload: Payload::Command(data.into()),
    });
    let hard = raft::HardState { term: 1, vote: None };
    Disk { hard, snapshot: None, entries: entries.collect() }
}

#[test]
fn a_log_of_an_earlier_build_gets_the_state_of_the_leader_so_far() {
    let mut cluster = different(3);
    for id in 1..=3 {
        cluster.start(id, earlier());
    }
    cluster.run(3000);
    let leader = cluster.leader().expect("a leader");
    let first = format!("first of {leader}");
    assert_eq!(cluster.state(), [&first, "old 1", "old 2"]);
    for (id, member) in &cluster.nodes {
        assert_eq!(member.node.store().release(), Some(1));
        assert!(member.node.store().sessions().get(1).is_some(), "the session goes on");
        assert_eq!(founds(&cluster, *id), [5], "behind the no-op");
        assert_eq!(member.faults, []);
        assert_eq!(member.machine.notified, [2, 3, 5]);
    }
    cluster.append(2, "new");
    assert_eq!(cluster.state(), [&first, "old 1", "old 2", "new"]);
}

#[test]
fn a_leader_whose_first_state_cannot_be_saved_stops_and_another_one_gives_its_own() {
    let mut cluster = different(3);
    cluster.start_with(1, Disk::default(), ListMachine { cannot_save: true, ..<_>::default() });
    cluster.start(2, Disk::default());
    cluster.start(3, Disk::default());
    let (perform, read) = (cluster.perform(1, "append", "x"), cluster.read(1));
    let other = cluster.perform(2, "append", "y");
    cluster.run(100);
    let member = cluster.node(1);
    assert!(member.node.store().is_stopped());
    let [Fault::Stopped(failure)] = &member.faults[..] else { panic!("{:?}", member.faults) };
    assert_eq!(failure.code, "CANNOT_SAVE");
    assert!(failure.message.contains("first state") && failure.message.contains("no"));
    assert_eq!([perform, read].map(|ticket| member.code(ticket)), [Some("CANNOT_SAVE"); 2]);
    let (later, read) = (cluster.perform(1, "append", "x"), cluster.read(1));
    let member = cluster.node(1);
    assert_eq!([later, read].map(|ticket| member.code(ticket)), [Some("CANNOT_SAVE"); 2]);
    cluster.run(1000);
    let leader = cluster.leader().expect("a leader");
    assert_ne!(leader, 1, "it has handed leadership over");
    assert_eq!(cluster.node(2).outcome(other), Some(&Outcome::Action("y".into())));
    assert_eq!(cluster.node(2).state(), [format!("first of {leader}"), "y".into()]);
}

#[test]
fn nodes_none_of_which_can_save_the_first_state_stop_and_do_not_pass_leadership_around_for_ever() {
    let mut cluster = different(3);
    for id in 1..=3 {
        let machine = ListMachine { cannot_save: true, ..ListMachine::default() };
        cluster.start_with(id, Disk::default(), machine);
    }
    cluster.run(10_000);
    for member in cluster.nodes.values() {
        assert!(member.node.store().is_stopped());
        assert_eq!(member.faults.len(), 1, "it is reported once");
    }
    assert!(cluster.term(1) < 35, "each hands it over about once a second: {}", cluster.term(1));
}

#[test]
fn leadership_gets_to_the_only_node_that_can_save_its_first_state() {
    for good in 1..=5 {
        let mut cluster = different(5);
        for id in 1..=5 {
            let machine = ListMachine { cannot_save: id != good, ..ListMachine::default() };
            cluster.start_with(id, Disk::default(), machine);
        }
        let ticket = cluster.perform(good, "append", "x");
        cluster.run(15_000);
        let outcome = cluster.node(good).outcome(ticket);
        assert_eq!(outcome, Some(&Outcome::Action("x".into())), "node {good}");
        assert_eq!(cluster.node(good).state(), [format!("first of {good}"), "x".into()]);
        assert_eq!(cluster.leader(), Some(good));
    }
}

#[test]
fn a_first_state_that_cannot_be_loaded_stops_the_node() {
    let mut rig = Rig::new(3, "", Saved::default(), |_| ());
    rig.perform(1, "add", "x");
    let found = |state: &[u8]| encode(&Command::Found { version: 1, state: state.into() });
    rig.append(0, vec![Rig::command(1, &found(b"seven"))]);
    let [Fault::Stopped(failure)] = &rig.faults[..] else { panic!("{:?}", rig.faults) };
    assert_eq!(failure.code, "CANNOT_LOAD");
    assert_eq!(rig.code(1), Some("CANNOT_LOAD"));
    assert!(rig.machine.committed.is_empty());
}

#[test]
fn of_two_first_states_in_a_log_the_first_one_counts() {
    let mut rig = Rig::new(3, "", Saved::default(), |_| ());
    let found = |version, state: u64| {
        let state = state.to_le_bytes().as_slice().into();
        Rig::command(u64::from(version), &encode(&Command::Found { version, state }))
    };
    rig.append(0, vec![found(1, 7), found(2, 8)]);
    assert_eq!((rig.state(), rig.node.store().release()), (7, Some(1)));
    assert_eq!(rig.node.store().provisional_release(), Some(1));
    assert_eq!((rig.machine.committed.as_slice(), rig.faults.len()), (&[1][..], 0));
}

#[test]
fn a_first_state_that_is_not_committed_is_provisional_and_is_removed_with_the_log() {
    let mut rig = Rig::new(3, "", Saved::default(), |_| ());
    let state = 7_u64.to_le_bytes().as_slice().into();
    let found = Rig::command(1, &encode(&Command::Found { version: 1, state }));
    let append = |entries: Vec<Entry>, prev| raft::Body::Append {
        prev,
        commit: 0,
        round: 0,
        entries,
        wants: raft::Wants::Reply,
    };
    rig.receive(2, 1, append(vec![found], Position::default()));
    let store = rig.node.store();
    assert_eq!((store.release(), store.provisional_release()), (None, Some(1)));
    assert_eq!((**store.committed(), **store.provisional()), (0, 7));
    let at = Position::new(1, 2);
    let noop = Entry { at, payload: Payload::Noop };
    rig.receive(3, 2, append(vec![noop], Position::default()));
    let store = rig.node.store();
    assert_eq!((store.release(), store.provisional_release()), (None, None));
    assert_eq!(**store.provisional(), 0);
}
