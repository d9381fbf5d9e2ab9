//! What the API promises, on whole hosts without a browser: exactly once, in order, read your own
//! writes, verdicts, timeouts.
#![allow(missing_docs)]

mod common;

use common::host_cluster::{Hosts, size};
use conflux::formation;
use conflux::host::transport;
use conflux::host::types::{Input, Notice, Phase};
use conflux::node::Packet;
use conflux::raft::Blob;
use conflux::store::{Body, Failure, Message, Outcome, Perform, Request, Sessions};
use conflux::wire::{FrameWriter, Header, hash64};

fn three() -> Hosts {
    Hosts::new(1).form()
}

fn follower(hosts: &Hosts) -> String {
    let leader = hosts.leader().expect("a leader");
    hosts.hosts.keys().find(|id| **id != leader).expect("a follower").clone()
}

/// Brings messages to a node as if another one had sent them.
fn forge(hosts: &mut Hosts, from: &str, to: &str, messages: &[transport::Message]) {
    let set = hosts.host(to).core.set().expect("formed").clone();
    let nonce = |id: &str| set.members().iter().find(|m| m.id == id).expect("a member").nonce;
    let cluster = hash64(&[b"test"]);
    let header = Header { cluster, set: set.hash(), from: nonce(from), to: nonce(to), version: 1 };
    let mut writer = FrameWriter::new(header);
    messages.iter().for_each(|message| writer.push(message));
    for frame in writer.finish() {
        hosts.handle(to, Input::Frame(frame));
    }
}

fn failed(outcome: Option<&Outcome>) -> (&str, &str) {
    match outcome {
        Some(Outcome::Failed(Failure { code, message })) => (code, message),
        other => panic!("expected a failure, got {other:?}"),
    }
}

#[test]
fn an_action_is_settled_when_it_is_applied_here() {
    let mut hosts = three();
    for id in [hosts.leader().expect("a leader"), follower(&hosts)] {
        let ticket = hosts.perform(&id, "append", &id);
        while hosts.host(&id).outcome(ticket).is_none() {
            hosts.deliver(0, false);
        }
        assert_eq!(hosts.host(&id).outcome(ticket), Some(&Outcome::Action(id.as_str().into())));
        assert!(hosts.state(&id).contains(&id), "its own write is there");
        hosts.run(100);
    }
}

#[test]
fn a_commit_needs_no_time() {
    let mut hosts = three();
    let (leader, follower) = (hosts.leader().expect("a leader"), follower(&hosts));
    let before = hosts.now;
    let first = hosts.perform(&leader, "append", "x");
    let second = hosts.perform(&follower, "append", "y");
    hosts.deliver_all();
    assert_eq!(hosts.now, before);
    assert!(hosts.host(&leader).outcome(first).is_some());
    assert!(hosts.host(&follower).outcome(second).is_some());
}

#[test]
fn verdicts_without_an_action_append_nothing() {
    let mut hosts = three();
    let id = follower(&hosts);
    let last = hosts.host(&id).core.status().last;
    let nothing = hosts.perform(&id, "nothing", "");
    let refused = hosts.perform(&id, "fail", "");
    hosts.run(100);
    assert_eq!(hosts.host(&id).outcome(nothing), Some(&Outcome::Nothing));
    assert_eq!(failed(hosts.host(&id).outcome(refused)), ("METHOD_FAILED", "no"));
    assert_eq!(hosts.host(&id).core.status().last, last);
}

#[test]
fn a_verdict_waits_for_the_prefix_it_was_judged_against() {
    let mut hosts = three();
    let leader = hosts.leader().expect("a leader");
    let others: Vec<_> = hosts.hosts.keys().filter(|id| **id != leader).cloned().collect();
    for other in &others {
        hosts.cut.insert((leader.clone(), other.clone()));
        hosts.cut.insert((other.clone(), leader.clone()));
    }
    // Judged against an entry that never commits, on a leader that is one no more.
    let first = hosts.perform(&leader, "once", "x");
    let second = hosts.perform(&leader, "once", "x");
    hosts.deliver_all();
    assert_eq!(hosts.host(&leader).outcome(second), None, "not confirmed, not told");
    let rival = hosts.perform(&others[0], "once", "x");
    hosts.run(3000);
    assert_eq!(hosts.host(&others[0]).outcome(rival), Some(&Outcome::Action("x".into())));
    hosts.cut.clear();
    hosts.run(3000);
    // Judged again by the new leader, behind the rival's.
    assert_eq!(failed(hosts.host(&leader).outcome(first)).1, "again");
    assert_eq!(failed(hosts.host(&leader).outcome(second)).1, "again");
    assert_eq!(hosts.state(&leader), ["x"]);
}

#[test]
fn a_deposed_leader_tells_no_verdict_of_a_state_that_is_past() {
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
        // The others move on; the old leader, which has not noticed, judges what is past.
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
        assert_eq!(hosts.host(&old).outcome(stale), None, "seed {seed}: told without a majority");
        assert_eq!(hosts.host(&old).outcome(again), None, "seed {seed}: told without a majority");
        hosts.cut.clear();
        hosts.run(3000);
        assert_eq!(failed(hosts.host(&old).outcome(stale)).1, "again");
        assert_eq!(hosts.host(&old).outcome(again), Some(&Outcome::Nothing));
    }
    assert!(overlaps > 3, "the old leader led on for a while in {overlaps} runs");
}

#[test]
fn what_has_its_fate_never_runs_at_the_next_leader() {
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
    // The confirmation of the first arrives, and its verdict is lost on the way to the client.
    hosts.deliver_between(&leader, &other);
    hosts.cut.insert((leader.clone(), id.clone()));
    hosts.network.retain(|frame| frame.to != id);
    hosts.deliver_between(&other, &leader);
    hosts.cut.clear();
    // That of the second gets through; its client still waits for the first.
    hosts.deliver_between(&leader, &other);
    hosts.deliver_between(&other, &leader);
    hosts.deliver_between(&leader, &id);
    assert!(hosts.host(&id).settled.is_empty(), "they settle in order");
    // The list gets an odd length, and the leader dies.
    hosts.perform(&other, "append", "x");
    hosts.deliver_between(&other, &leader);
    hosts.deliver_between(&leader, &other);
    hosts.deliver_between(&other, &leader);
    hosts.kill(&leader);
    hosts.run(3000);
    assert_eq!(hosts.host(&id).outcome(first), Some(&Outcome::Nothing));
    assert_eq!(hosts.host(&id).outcome(second), Some(&Outcome::Nothing));
    assert_eq!(hosts.state(&id), ["x"], "what ended without an action has none");
}

#[test]
fn a_perform_that_arrives_in_a_later_term_is_ignored() {
    let mut hosts = three();
    let leader = hosts.leader().expect("a leader");
    let id = follower(&hosts);
    hosts.run(100);
    // It is repeated on the way, and the second copy stays there for a long time.
    let ticket = hosts.perform(&id, "odd", "must not be");
    let late = hosts.network.iter().find(|frame| frame.from == id && frame.to == leader);
    let late = late.expect("the perform").bytes.clone();
    hosts.run(100);
    assert_eq!(hosts.host(&id).outcome(ticket), Some(&Outcome::Nothing));
    hosts.perform(&leader, "append", "x");
    hosts.run(100);
    // Leadership goes to another, and comes back: the verdict is in no log, and forgotten.
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
fn performs_of_one_node_keep_their_order_and_settle_in_it() {
    let mut hosts = three();
    let id = follower(&hosts);
    let mut tickets = Vec::new();
    for i in 0..50 {
        let method = if i % 7 == 3 { "nothing" } else { "append" };
        tickets.push(hosts.perform(&id, method, &i.to_string()));
    }
    hosts.run(500);
    let settled: Vec<_> = hosts.host(&id).settled.iter().map(|(ticket, _)| *ticket).collect();
    assert_eq!(settled, tickets);
    let expected: Vec<_> = (0..50).filter(|i| i % 7 != 3).map(|i| i.to_string()).collect();
    assert_eq!(hosts.state(&id), expected);
}

#[test]
fn performs_of_one_turn_are_one_append() {
    let mut hosts = three();
    let leader = hosts.leader().expect("a leader");
    let performs = (0..100).map(|i| Perform {
        ticket: 1000 + i,
        method: "append".into(),
        args: "x".into(),
        timeout: None,
    });
    let sent = hosts.host(&leader).core.status().counters.sent;
    hosts.handle(&leader, Input::Perform(performs.collect()));
    assert_eq!(hosts.host(&leader).core.status().counters.sent, sent + 2, "one frame a follower");
    hosts.deliver_all();
    assert_eq!(hosts.host(&leader).settled.len(), 100);
}

#[test]
fn a_reducer_that_throws_on_the_leader_rejects_and_appends_nothing() {
    let mut hosts = three();
    let id = follower(&hosts);
    let last = hosts.host(&id).core.status().last;
    let poison = hosts.perform(&id, "append", "poison");
    let after = hosts.perform(&id, "append", "fine");
    hosts.run(100);
    assert_eq!(failed(hosts.host(&id).outcome(poison)), ("REDUCER_FAILED", "poison"));
    assert_eq!(hosts.host(&id).outcome(after), Some(&Outcome::Action("fine".into())));
    assert_eq!(hosts.host(&id).core.status().last, last + 1);
}

#[test]
fn a_perform_survives_the_leader() {
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
fn a_timeout_rejects_and_blocks_nobody() {
    let mut hosts = three();
    let id = follower(&hosts);
    let others: Vec<_> = hosts.hosts.keys().filter(|other| **other != id).cloned().collect();
    for other in &others {
        hosts.cut.insert((id.clone(), other.clone()));
    }
    let late = hosts.perform_within(&id, "append", "late", Some(100));
    let patient = hosts.perform(&id, "append", "patient");
    hosts.run(150);
    let (code, message) = failed(hosts.host(&id).outcome(late));
    assert_eq!((code, message.contains("may still take effect")), ("TIMEOUT", true));
    hosts.cut.clear();
    hosts.run(3000);
    assert_eq!(hosts.host(&id).outcome(patient), Some(&Outcome::Action("patient".into())));
    assert_eq!(hosts.state(&id), ["patient"], "what was given up unsent never runs");
}

#[test]
fn a_timeout_before_the_cluster_has_formed() {
    let mut hosts = Hosts::new(1);
    hosts.start("a", size(3));
    let ticket = hosts.perform_within("a", "append", "x", Some(200));
    hosts.run(199);
    assert_eq!(hosts.host("a").outcome(ticket), None);
    hosts.run(2);
    assert_eq!(failed(hosts.host("a").outcome(ticket)).0, "TIMEOUT");
}

#[test]
fn performs_before_the_cluster_has_formed_are_kept() {
    let mut hosts = Hosts::new(1);
    hosts.start("a", size(2));
    let ticket = hosts.perform("a", "append", "early");
    hosts.run(500);
    hosts.start("b", size(2));
    hosts.run(2000);
    assert_eq!(hosts.host("a").outcome(ticket), Some(&Outcome::Action("early".into())));
}

#[test]
fn large_arguments_travel_in_parts_and_too_large_ones_not_at_all() {
    let mut hosts = Hosts::with(3, |hosts| hosts.max_message_bytes = Some(1000)).form();
    let id = follower(&hosts);
    let small = hosts.perform(&id, "append", "before");
    let large = hosts.perform(&id, "append", &"x".repeat(300_000));
    let after = hosts.perform(&id, "append", "after");
    // Some parts are lost.
    for nth in 0..40 {
        if nth % 9 == 5 && !hosts.network.is_empty() {
            hosts.network.pop_front();
        } else if !hosts.network.is_empty() {
            hosts.deliver(0, false);
        }
    }
    hosts.run(4000);
    for ticket in [small, large, after] {
        assert!(matches!(hosts.host(&id).outcome(ticket), Some(Outcome::Action(_))));
    }
    let lengths: Vec<_> = hosts.state(&id).iter().map(String::len).collect();
    assert_eq!(lengths, [6, 300_000, 5]);
    let monster = hosts.perform(&id, "append", &"x".repeat((1 << 20) + 1));
    let (code, message) = failed(hosts.host(&id).outcome(monster));
    assert!(code == "TOO_LARGE" && message.contains("maxActionBytes is 1048576"), "{message}");
}

#[test]
fn a_read_is_as_new_as_the_cluster() {
    let mut hosts = three();
    let (leader, id) = (hosts.leader().expect("a leader"), follower(&hosts));
    hosts.cut.insert((leader.clone(), id.clone()));
    let write = hosts.perform(&leader, "append", "new");
    hosts.deliver_all();
    assert!(hosts.host(&leader).outcome(write).is_some());
    assert!(hosts.state(&id).is_empty(), "it has not heard");
    let read = hosts.read(&id);
    hosts.deliver_all();
    assert_eq!(hosts.host(&id).outcome(read), None);
    hosts.cut.clear();
    hosts.run(1000);
    assert_eq!(hosts.host(&id).outcome(read), Some(&Outcome::Nothing));
    assert_eq!(hosts.state(&id), ["new"]);
}

#[test]
fn closing_hands_leadership_over_and_rejects_what_waits() {
    let mut hosts = three();
    let leader = hosts.leader().expect("a leader");
    let id = follower(&hosts);
    let write = hosts.perform(&leader, "append", "pending");
    hosts.handle(&leader, Input::Close);
    assert_eq!(failed(hosts.host(&leader).outcome(write)).0, "CLOSED");
    let before = hosts.now;
    hosts.deliver_all();
    assert_eq!(hosts.now, before, "no timeout is waited for");
    assert!(hosts.host(&leader).notices.contains(&Notice::Closed));
    assert_eq!(hosts.host(&leader).core.status().phase, Phase::Closed);
    assert_ne!(hosts.leader(), Some(leader.clone()));
    let next = hosts.perform(&id, "append", "next");
    let refused = hosts.perform(&leader, "append", "refused");
    hosts.run(1000);
    assert!(hosts.host(&id).outcome(next).is_some());
    assert_eq!(failed(hosts.host(&leader).outcome(refused)).0, "CLOSED");
}

#[test]
fn a_log_is_compacted_and_a_lagging_node_gets_the_snapshot() {
    let mut hosts = Hosts::with(7, |hosts| hosts.compact_bytes = Some(2000)).form();
    let (leader, id) = (hosts.leader().expect("a leader"), follower(&hosts));
    let own = hosts.perform(&id, "append", "own");
    hosts.run(100);
    assert!(hosts.host(&id).outcome(own).is_some());
    for other in ["a", "b", "c"] {
        hosts.cut.insert((other.into(), id.clone()));
    }
    // It is cut off with a perform of its own under way, which gets there.
    let swallowed = hosts.perform(&id, "append", "swallowed");
    for i in 0..200 {
        hosts.perform(&leader, "append", &i.to_string());
        hosts.deliver_all();
    }
    assert!(hosts.host(&leader).core.status().snapshot > 100, "the log is cut");
    hosts.cut.clear();
    hosts.run(3000);
    assert_eq!(hosts.host(&id).outcome(swallowed), Some(&Outcome::Action("swallowed".into())));
    assert_eq!(hosts.state(&id), hosts.state(&leader));
    let after = hosts.perform(&id, "append", "after");
    hosts.run(1000);
    assert!(hosts.host(&id).outcome(after).is_some());
    assert_eq!(hosts.state(&id).len(), 203);
}

#[test]
fn every_committed_action_is_told_once() {
    let mut hosts = three();
    let id = follower(&hosts);
    for i in 0..5 {
        hosts.perform(&id, "append", &i.to_string());
    }
    hosts.perform(&id, "nothing", "");
    hosts.run(200);
    for host in hosts.hosts.values() {
        assert_eq!(host.machine.notified.len(), 5);
    }
}

#[test]
fn a_burst_of_long_refusals_reaches_the_client() {
    let mut hosts = three();
    let id = follower(&hosts);
    let performs = (0..1000).map(|ticket| Perform {
        ticket: 5000 + ticket,
        method: "long".into(),
        args: "".into(),
        timeout: None,
    });
    hosts.handle(&id, Input::Perform(performs.collect()));
    hosts.run(2000);
    assert_eq!(hosts.host(&id).settled.len(), 1000);
    assert!(hosts.host(&id).errors().is_empty(), "no frame was too large");
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
    assert_eq!((outcomes.len(), actions), (2000, 1000), "nothing was refused as too much");
}

#[test]
fn arguments_that_only_the_leader_finds_too_large_are_refused() {
    let mut hosts = Hosts::new(5);
    hosts.max_message_bytes = Some(1000);
    for id in ["a", "b", "c"] {
        // Two releases of a page: the others take less than c does.
        hosts.max_action_bytes = Some(if id == "c" { 50_000 } else { 5_000 });
        hosts.start(id, size(3));
    }
    hosts.run(2000);
    assert_ne!(hosts.leader().as_deref(), Some("c"));
    let large = hosts.perform("c", "append", &"x".repeat(20_000));
    let after = hosts.perform("c", "append", "after");
    hosts.run(1000);
    assert_eq!(failed(hosts.host("c").outcome(large)).0, "TOO_LARGE");
    assert_eq!(hosts.host("c").outcome(after), Some(&Outcome::Action("after".into())));
}

#[test]
fn a_snapshot_that_replaces_the_state_is_told() {
    let mut hosts = Hosts::with(7, |hosts| hosts.compact_bytes = Some(500)).form();
    let (leader, id) = (hosts.leader().expect("a leader"), follower(&hosts));
    for other in ["a", "b", "c"] {
        hosts.cut.insert((other.into(), id.clone()));
    }
    for i in 0..50 {
        hosts.perform(&leader, "append", &i.to_string());
        hosts.deliver_all();
    }
    let told = hosts.host(&id).machine.notified.len();
    hosts.cut.clear();
    hosts.run(1000);
    assert_eq!(hosts.state(&id).len(), 50);
    assert!(hosts.host(&id).machine.notified.len() > told);
}

#[test]
fn messages_with_impossible_ids_and_numbers_are_ignored() {
    let mut hosts = three();
    let (leader, id) = (hosts.leader().expect("a leader"), follower(&hosts));
    let term = hosts.host(&leader).core.status().term;
    let session = hosts.host(&id).core.own().store().session().expect("a session");
    let request = || Request { method: Some("append".into()), args: Blob::from("evil") };
    let hello = formation::Body::Hello { size: 3, bound: None, ask: true };
    let store = |body| transport::Message::Node(Packet::Store(Message { term, body }));
    let form = |id: String| {
        let from = formation::Member { id, nonce: 7 };
        transport::Message::Formation(formation::Message { from, body: hello.clone() })
    };
    let perform = |ack, first| Body::Perform { session, ack, first, requests: vec![request(); 3] };
    let letters = [
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
    for letter in letters {
        forge(&mut hosts, &id, &leader, &[letter]);
    }
    let fine = hosts.perform(&id, "append", "fine");
    hosts.run(1000);
    assert_eq!(hosts.host(&id).outcome(fine), Some(&Outcome::Action("fine".into())));
    assert_eq!(hosts.state(&leader), ["fine"]);
}

#[test]
fn performs_of_a_session_that_has_expired_are_rejected_and_never_run() {
    let mut hosts = three();
    let leader = hosts.leader().expect("a leader");
    let id = follower(&hosts);
    let other = hosts.hosts.keys().find(|o| **o != leader && **o != id).expect("three").clone();
    let settled = hosts.perform(&id, "append", "before");
    hosts.run(100);
    assert!(hosts.host(&id).outcome(settled).is_some());
    let session = hosts.host(&id).core.own().store().session();
    // Cut off with a perform under way, while more sessions are opened than there may be.
    for node in [&leader, &other] {
        hosts.cut.insert((id.clone(), node.clone()));
        hosts.cut.insert((node.clone(), id.clone()));
    }
    let expired = hosts.perform(&id, "append", "expired");
    let term = hosts.host(&leader).core.status().term;
    let open = |nonce| {
        transport::Message::Node(Packet::Store(Message { term, body: Body::Open { nonce } }))
    };
    let opens: Vec<_> = (0..Sessions::MAX as u64 + 10).map(|i| open(1_000_000 + i)).collect();
    forge(&mut hosts, &other, &leader, &opens);
    hosts.deliver_all();
    hosts.cut.clear();
    hosts.run(3000);
    assert_eq!(failed(hosts.host(&id).outcome(expired)).0, "SESSION_EXPIRED");
    let after = hosts.perform(&id, "append", "after");
    hosts.run(1000);
    assert_eq!(hosts.host(&id).outcome(after), Some(&Outcome::Action("after".into())));
    assert_ne!(hosts.host(&id).core.own().store().session(), session);
    assert_eq!(hosts.state(&leader), ["before", "after"]);
}

#[test]
fn who_learns_of_its_closed_session_by_a_snapshot_cannot_tell_what_ran() {
    let mut hosts = Hosts::with(1, |hosts| hosts.compact_bytes = Some(2_000)).form();
    let leader = hosts.leader().expect("a leader");
    let id = follower(&hosts);
    let other = hosts.hosts.keys().find(|o| **o != leader && **o != id).expect("three").clone();
    hosts.run(100);
    // It is heard, and hears nothing: its perform runs, and it never gets to know.
    for node in [&leader, &other] {
        hosts.cut.insert((node.clone(), id.clone()));
    }
    let ran = hosts.perform(&id, "append", "ran");
    let term = hosts.host(&leader).core.status().term;
    hosts.deliver_all();
    let open = |nonce| {
        transport::Message::Node(Packet::Store(Message { term, body: Body::Open { nonce } }))
    };
    let opens: Vec<_> = (0..Sessions::MAX as u64 + 10).map(|i| open(1_000_000 + i)).collect();
    forge(&mut hosts, &other, &leader, &opens);
    hosts.deliver_all();
    hosts.run(100);
    hosts.cut.clear();
    hosts.run(3000);
    assert!(hosts.host(&id).core.status().snapshot > 1_000, "it came by a snapshot");
    assert_eq!(failed(hosts.host(&id).outcome(ran)).0, "OUTCOME_UNKNOWN");
    assert_eq!(hosts.state(&id), ["ran"]);
    let after = hosts.perform(&id, "append", "after");
    hosts.run(1000);
    assert_eq!(hosts.host(&id).outcome(after), Some(&Outcome::Action("after".into())));
}

#[test]
fn a_name_that_no_message_can_carry_is_refused_and_blocks_nobody() {
    let mut hosts = three();
    let id = follower(&hosts);
    let absurd = hosts.perform(&id, &"m".repeat((1 << 20) - 20), "");
    let fine = hosts.perform(&id, "append", "fine");
    hosts.run(500);
    assert_eq!(failed(hosts.host(&id).outcome(absurd)).0, "TOO_LARGE");
    assert_eq!(hosts.host(&id).outcome(fine), Some(&Outcome::Action("fine".into())));
}
