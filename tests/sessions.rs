//! Exactly once: performs whose messages are lost or repeated, whose leader changes, or whose
//! session is closed, on whole hosts without a browser.
#![allow(missing_docs)]

mod common;

use common::host_cluster::{Hosts, failed, follower, forge, three};
use conflux::formation;
use conflux::host::transport;
use conflux::host::types::Input;
use conflux::node::Packet;
use conflux::raft::Blob;
use conflux::store::{Body, Message, Outcome, Perform, Request, Sessions};

#[test]
fn a_verdict_waits_for_the_prefix_it_was_judged_against() {
    let mut hosts = three();
    let leader = hosts.leader().expect("a leader");
    let others: Vec<_> = hosts.hosts.keys().filter(|id| **id != leader).cloned().collect();
    for other in &others {
        hosts.cut.insert((leader.clone(), other.clone()));
        hosts.cut.insert((other.clone(), leader.clone()));
    }
    // The leader is deposed without knowing. It judges against an entry that is never committed.
    let first = hosts.perform(&leader, "once", "x");
    let second = hosts.perform(&leader, "once", "x");
    hosts.deliver_all();
    assert_eq!(hosts.host(&leader).outcome(second), None, "it is not confirmed, so it is not sent");
    let rival = hosts.perform(&others[0], "once", "x");
    hosts.run(3000);
    assert_eq!(hosts.host(&others[0]).outcome(rival), Some(&Outcome::Action("x".into())));
    hosts.cut.clear();
    hosts.run(3000);
    // The new leader judges both performs again, behind the rival action.
    assert_eq!(failed(hosts.host(&leader).outcome(first)).1, "again");
    assert_eq!(failed(hosts.host(&leader).outcome(second)).1, "again");
    assert_eq!(hosts.state(&leader), ["x"]);
}

#[test]
fn a_deposed_leader_sends_no_verdict_on_an_old_state() {
    let mut overlaps = 0;
    for seed in 1..30 {
        let mut hosts = Hosts::new(seed).form();
        let old = hosts.leader().expect("a leader");
        let first = hosts.perform(&old, "append", "first");
        hosts.run(100);
        assert!(hosts.host(&old).outcome(first).is_some());
        let others: Vec<_> = hosts.hosts.keys().filter(|id| **id != old).cloned().collect();
        for other in &others {
            hosts.cut.insert((old.clone(), other.clone()));
            hosts.cut.insert((other.clone(), old.clone()));
        }
        let leads = |hosts: &Hosts, id: &str| {
            hosts.host(id).core.own().raft().is_some_and(|raft| raft.is_leader())
        };
        while !others.iter().any(|other| leads(&hosts, other)) {
            hosts.advance(1);
            hosts.deliver_all();
        }
        // The others commit more. The old leader, which has not noticed, judges against an old
        // state.
        let newer = hosts.perform(&others[0], "append", "second");
        hosts.deliver_all();
        assert!(hosts.host(&others[0]).outcome(newer).is_some());
        if !leads(&hosts, &old) {
            continue;
        }
        overlaps += 1;
        let stale = hosts.perform(&old, "once", "first");
        let again = hosts.perform(&old, "nothing", "");
        hosts.deliver_all();
        assert_eq!(
            hosts.host(&old).outcome(stale),
            None,
            "seed {seed}: a verdict without a majority"
        );
        assert_eq!(
            hosts.host(&old).outcome(again),
            None,
            "seed {seed}: a verdict without a majority"
        );
        hosts.cut.clear();
        hosts.run(3000);
        assert_eq!(failed(hosts.host(&old).outcome(stale)).1, "again");
        assert_eq!(hosts.host(&old).outcome(again), Some(&Outcome::Nothing));
    }
    assert!(overlaps > 3, "in {overlaps} runs the old leader did not notice for a while");
}

#[test]
fn a_perform_whose_verdict_is_known_never_runs_on_the_next_leader() {
    let mut hosts = three();
    let leader = hosts.leader().expect("a leader");
    let id = follower(&hosts);
    let other = hosts.hosts.keys().find(|o| **o != leader && **o != id).expect("three").clone();
    hosts.run(100);
    // Both are judged before either verdict is confirmed. The list is empty: an even length.
    let first = hosts.perform(&id, "nothing", "");
    let second = hosts.perform(&id, "odd", "must not be");
    hosts.deliver_between(&id, &leader);
    hosts.deliver_between(&id, &leader);
    // The first is confirmed, and its verdict is lost on the way to the client.
    hosts.deliver_between(&leader, &other);
    hosts.cut.insert((leader.clone(), id.clone()));
    hosts.network.retain(|frame| frame.to != id);
    hosts.deliver_between(&other, &leader);
    hosts.cut.clear();
    // The verdict of the second arrives. The client still waits for the first.
    hosts.deliver_between(&leader, &other);
    hosts.deliver_between(&other, &leader);
    hosts.deliver_between(&leader, &id);
    assert!(hosts.host(&id).settled.is_empty(), "they settle in order");
    // The list gets an odd length, so that the second method would append now, and the leader dies.
    hosts.perform(&other, "append", "x");
    hosts.deliver_between(&other, &leader);
    hosts.deliver_between(&leader, &other);
    hosts.deliver_between(&other, &leader);
    hosts.kill(&leader);
    hosts.run(3000);
    assert_eq!(hosts.host(&id).outcome(first), Some(&Outcome::Nothing));
    assert_eq!(hosts.host(&id).outcome(second), Some(&Outcome::Nothing));
    assert_eq!(hosts.state(&id), ["x"], "the second perform has not run again");
}

#[test]
fn a_perform_that_arrives_in_a_later_term_is_ignored() {
    let mut hosts = three();
    let leader = hosts.leader().expect("a leader");
    let id = follower(&hosts);
    hosts.run(100);
    // The network duplicates the perform and delays the copy.
    let ticket = hosts.perform(&id, "odd", "must not be");
    let late = hosts.network.iter().find(|frame| frame.from == id && frame.to == leader);
    let late = late.expect("the perform").bytes.clone();
    hosts.run(100);
    assert_eq!(hosts.host(&id).outcome(ticket), Some(&Outcome::Nothing));
    hosts.perform(&leader, "append", "x");
    hosts.run(100);
    // Another node leads, and then the first again. The verdict is in no log, so no node knows it.
    let term = hosts.host(&leader).core.status().term;
    while hosts.leader().as_ref() != Some(&leader) || hosts.host(&leader).core.status().term == term
    {
        if let Some(now) = hosts.leader() {
            let others: Vec<_> = hosts.hosts.keys().filter(|o| **o != now).cloned().collect();
            hosts.cut.extend(others.iter().map(|other| (now.clone(), other.clone())));
        }
        hosts.run(700);
        hosts.cut.clear();
        hosts.run(700);
    }
    hosts.handle(&leader, Input::Frame(late));
    hosts.run(500);
    assert_eq!(hosts.state(&leader), ["x"]);
}

#[test]
fn performs_survive_the_death_of_the_leader() {
    for seed in 1..40 {
        let mut hosts = Hosts::new(seed).form();
        let (leader, id) = (hosts.leader().expect("a leader"), follower(&hosts));
        let tickets: Vec<_> =
            (0..30).map(|i| hosts.perform(&id, "append", &i.to_string())).collect();
        // The leader dies after some of it.
        for _ in 0..seed % 13 {
            if !hosts.network.is_empty() {
                hosts.deliver(0, false);
            }
        }
        hosts.kill(&leader);
        hosts.run(4000);
        for ticket in tickets {
            assert!(matches!(hosts.host(&id).outcome(ticket), Some(Outcome::Action(_))));
        }
        let expected: Vec<_> = (0..30).map(|i| i.to_string()).collect();
        assert_eq!(hosts.state(&id), expected, "seed {seed}");
    }
}

#[test]
fn an_action_carries_each_verdict_once() {
    let mut hosts = three();
    let id = follower(&hosts);
    let performs = (0..2000).map(|i| Perform {
        ticket: 5000 + i,
        method: if i % 2 == 0 { "nothing" } else { "append" }.into(),
        args: "x".into(),
        timeout: None,
    });
    hosts.handle(&id, Input::Perform(performs.collect()));
    hosts.run(2000);
    let outcomes = &hosts.host(&id).settled;
    let actions = outcomes.iter().filter(|(_, o)| matches!(o, Outcome::Action(_))).count();
    assert_eq!((outcomes.len(), actions), (2000, 1000), "no action was refused as too large");
}

#[test]
fn messages_with_impossible_ids_and_numbers_are_ignored() {
    let mut hosts = three();
    let (leader, id) = (hosts.leader().expect("a leader"), follower(&hosts));
    let term = hosts.host(&leader).core.status().term;
    hosts.perform(&id, "nothing", "");
    hosts.run(100);
    let session = hosts.host(&id).core.own().store().session_ref().expect("a session");
    let request = || Request { method: Some("append".into()), args: Blob::from("evil") };
    let hello = formation::Body::Hello { size: 3, bound: None, ask: true };
    let store = |body| transport::Message::Node(Packet::Store(Message { term, body }));
    let form = |id: String| {
        let from = formation::Member { id, nonce: 7 };
        transport::Message::Formation(formation::Message { from, body: hello.clone() })
    };
    let perform = |ack, first| Body::Perform { session, ack, first, requests: vec![request(); 3] };
    let messages = [
        form("x".repeat(300)),
        form(String::new()),
        store(perform(u64::MAX, 1)),
        store(perform(1, u64::MAX)),
        store(perform(1, u64::MAX - 1)),
        store(Body::Chunk {
            session,
            ack: 1,
            seq: u64::MAX,
            method: "append".into(),
            total: u64::MAX,
            offset: u64::MAX,
            data: Blob::from("x"),
        }),
        store(Body::Received { session, next: u64::MAX, offset: u64::MAX }),
    ];
    for message in messages {
        forge(&mut hosts, &id, &leader, &[message]);
    }
    let fine = hosts.perform(&id, "append", "fine");
    hosts.run(1000);
    assert_eq!(hosts.host(&id).outcome(fine), Some(&Outcome::Action("fine".into())));
    assert_eq!(hosts.state(&leader), ["fine"]);
}

#[test]
fn performs_of_a_closed_session_that_never_ran_are_performed_again_in_the_next_session() {
    let mut hosts = three();
    let leader = hosts.leader().expect("a leader");
    let id = follower(&hosts);
    let other = hosts.hosts.keys().find(|o| **o != leader && **o != id).expect("three").clone();
    let settled = hosts.perform(&id, "append", "before");
    hosts.run(100);
    assert!(hosts.host(&id).outcome(settled).is_some());
    let session = hosts.host(&id).core.own().store().session();
    // A leader keeps the sessions that it has opened for a while.
    hosts.run(2_000);
    // The client is isolated with a perform in flight, while too many other sessions are opened.
    for node in [&leader, &other] {
        hosts.cut.insert((id.clone(), node.clone()));
        hosts.cut.insert((node.clone(), id.clone()));
    }
    let again = ["first", "second"].map(|args| hosts.perform(&id, "append", args));
    let term = hosts.host(&leader).core.status().term;
    let open = |nonce| {
        transport::Message::Node(Packet::Store(Message { term, body: Body::Open { nonce } }))
    };
    let opens: Vec<_> = (0..Sessions::MAX as u64 + 10).map(|i| open(1_000_000 + i)).collect();
    forge(&mut hosts, &other, &leader, &opens);
    hosts.deliver_all();
    hosts.cut.clear();
    hosts.run(3000);
    for (ticket, args) in again.into_iter().zip(["first", "second"]) {
        assert_eq!(hosts.host(&id).outcome(ticket), Some(&Outcome::Action(args.into())));
    }
    let after = hosts.perform(&id, "append", "after");
    hosts.run(1000);
    assert_eq!(hosts.host(&id).outcome(after), Some(&Outcome::Action("after".into())));
    assert_ne!(hosts.host(&id).core.own().store().session(), session);
    assert_eq!(hosts.state(&leader), ["before", "first", "second", "after"]);
}

#[test]
fn a_client_that_learns_from_a_snapshot_of_its_closed_session_reports_unknown_outcomes() {
    let mut hosts = Hosts::with(1, |hosts| {
        (hosts.compact_bytes, hosts.max_sessions) = (Some(2_000), Some(20));
    })
    .form();
    let leader = hosts.leader().expect("a leader");
    let id = follower(&hosts);
    let other = hosts.hosts.keys().find(|o| **o != leader && **o != id).expect("three").clone();
    // A leader keeps the sessions that it has opened for a while.
    hosts.run(2_000);
    // The client can send but not receive: its perform runs, and the client does not learn that.
    for node in [&leader, &other] {
        hosts.cut.insert((node.clone(), id.clone()));
    }
    let ran = hosts.perform(&id, "append", "ran");
    let term = hosts.host(&leader).core.status().term;
    hosts.deliver_all();
    let open = |nonce| {
        transport::Message::Node(Packet::Store(Message { term, body: Body::Open { nonce } }))
    };
    let opens: Vec<_> = (0..30).map(|i| open(1_000_000 + i)).collect();
    forge(&mut hosts, &other, &leader, &opens);
    hosts.deliver_all();
    // The next snapshot has the sessions that are left.
    let last = hosts.perform(&other, "append", &"x".repeat(3_000));
    hosts.run(3_000);
    assert!(hosts.host(&other).outcome(last).is_some());
    hosts.cut.clear();
    hosts.run(3000);
    assert!(hosts.host(&id).core.status().snapshot > 0, "it has loaded a snapshot");
    assert_eq!(failed(hosts.host(&id).outcome(ran)).0, "OUTCOME_UNKNOWN");
    assert_eq!(hosts.state(&id)[0], "ran");
    let after = hosts.perform(&id, "append", "after");
    hosts.run(1000);
    assert_eq!(hosts.host(&id).outcome(after), Some(&Outcome::Action("after".into())));
}
