//! What the API promises, on whole hosts without a browser: performs, timeouts, reads, closing,
//! snapshots and subscribers. `sessions.rs` has what leader changes and lost messages can break.
#![allow(missing_docs)]

mod common;

use common::host_cluster::{Disk, Hosts, List, failed, follower, size, three};
use conflux::host::core::Host;
use conflux::host::types::{Input, Notice, Phase};
use conflux::store::{Outcome, Perform};

#[test]
fn an_action_is_settled_when_the_performing_node_has_applied_it() {
    let mut hosts = three();
    for id in [hosts.leader().expect("a leader"), follower(&hosts)] {
        let ticket = hosts.perform(&id, "append", &id);
        while hosts.host(&id).outcome(ticket).is_none() {
            hosts.deliver(0, false);
        }
        assert_eq!(hosts.host(&id).outcome(ticket), Some(&Outcome::Action(id.as_str().into())));
        assert!(hosts.state(&id).contains(&id), "the state contains its own action");
        hosts.run(100);
    }
}

#[test]
fn an_action_is_committed_without_waiting_for_a_timer() {
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
fn performs_without_an_action_append_nothing() {
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
fn a_reducer_that_throws_on_the_leader_rejects_the_perform_and_appends_nothing() {
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
fn a_perform_that_times_out_is_rejected_and_blocks_no_other() {
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
    assert_eq!(
        hosts.state(&id),
        ["patient"],
        "a perform that timed out before it was sent never runs"
    );
}

#[test]
fn a_perform_can_time_out_before_the_cluster_has_formed() {
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
fn large_arguments_are_sent_in_chunks_and_too_large_ones_are_refused() {
    let mut hosts = Hosts::with(3, |hosts| hosts.max_message_bytes = Some(1000)).form();
    let id = follower(&hosts);
    let small = hosts.perform(&id, "append", "before");
    let large = hosts.perform(&id, "append", &"x".repeat(300_000));
    let after = hosts.perform(&id, "append", "after");
    // Some chunks are lost.
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
fn a_read_waits_until_the_node_is_as_new_as_the_cluster() {
    let mut hosts = three();
    let (leader, id) = (hosts.leader().expect("a leader"), follower(&hosts));
    hosts.cut.insert((leader.clone(), id.clone()));
    let write = hosts.perform(&leader, "append", "new");
    hosts.deliver_all();
    assert!(hosts.host(&leader).outcome(write).is_some());
    assert!(hosts.state(&id).is_empty(), "it has not received the action");
    let read = hosts.read(&id);
    hosts.deliver_all();
    assert_eq!(hosts.host(&id).outcome(read), None);
    hosts.cut.clear();
    hosts.run(1000);
    assert_eq!(hosts.host(&id).outcome(read), Some(&Outcome::Nothing));
    assert_eq!(hosts.state(&id), ["new"]);
}

#[test]
fn closing_hands_leadership_over_and_rejects_pending_performs() {
    let mut hosts = three();
    let leader = hosts.leader().expect("a leader");
    let id = follower(&hosts);
    let write = hosts.perform(&leader, "append", "pending");
    hosts.handle(&leader, Input::Close);
    assert_eq!(failed(hosts.host(&leader).outcome(write)).0, "CLOSED");
    let before = hosts.now;
    hosts.deliver_all();
    assert_eq!(hosts.now, before, "no timer is needed");
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
    // The node can send but not receive. A perform of its own is in flight and reaches the leader.
    let in_flight = hosts.perform(&id, "append", "in_flight");
    for i in 0..200 {
        hosts.perform(&leader, "append", &i.to_string());
        hosts.deliver_all();
    }
    assert!(hosts.host(&leader).core.status().snapshot > 100, "the log is compacted");
    hosts.cut.clear();
    hosts.run(3000);
    assert_eq!(hosts.host(&id).outcome(in_flight), Some(&Outcome::Action("in_flight".into())));
    assert_eq!(hosts.state(&id), hosts.state(&leader));
    let after = hosts.perform(&id, "append", "after");
    hosts.run(1000);
    assert!(hosts.host(&id).outcome(after).is_some());
    assert_eq!(hosts.state(&id).len(), 203);
}

#[test]
fn subscribers_are_called_once_for_each_committed_action() {
    let mut hosts = three();
    let id = follower(&hosts);
    for host in hosts.hosts.values() {
        assert_eq!(host.machine.notified.len(), 1, "the first state of the cluster");
    }
    for i in 0..5 {
        hosts.perform(&id, "append", &i.to_string());
    }
    hosts.perform(&id, "nothing", "");
    hosts.run(200);
    for host in hosts.hosts.values() {
        assert_eq!(host.machine.notified.len(), 1 + 5);
    }
}

#[test]
fn many_long_error_messages_reach_the_client() {
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
fn arguments_that_only_the_leader_finds_too_large_are_refused() {
    let mut hosts = Hosts::new(5);
    hosts.max_message_bytes = Some(1000);
    for id in ["a", "b", "c"] {
        // The tabs have two versions of the page: a and b accept less than c.
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
fn subscribers_are_called_when_a_snapshot_replaces_the_state() {
    let mut hosts = Hosts::with(7, |hosts| hosts.compact_bytes = Some(500)).form();
    let (leader, id) = (hosts.leader().expect("a leader"), follower(&hosts));
    for other in ["a", "b", "c"] {
        hosts.cut.insert((other.into(), id.clone()));
    }
    for i in 0..50 {
        hosts.perform(&leader, "append", &i.to_string());
        hosts.deliver_all();
    }
    let notified = hosts.host(&id).machine.notified.len();
    hosts.cut.clear();
    hosts.run(1000);
    assert_eq!(hosts.state(&id).len(), 50);
    assert!(hosts.host(&id).machine.notified.len() > notified);
}

#[test]
fn a_method_name_that_is_too_long_is_refused_and_blocks_no_other_perform() {
    let mut hosts = three();
    let id = follower(&hosts);
    let absurd = hosts.perform(&id, &"m".repeat((1 << 20) - 20), "");
    let fine = hosts.perform(&id, "append", "fine");
    hosts.run(500);
    assert_eq!(failed(hosts.host(&id).outcome(absurd)).0, "TOO_LARGE");
    assert_eq!(hosts.host(&id).outcome(fine), Some(&Outcome::Action("fine".into())));
}

#[test]
fn a_node_that_closes_before_its_storage_has_answered_settles_what_waits() {
    let mut hosts = Hosts::new(1);
    hosts.disks.insert("a".into(), Disk::default());
    let mut host = Host::new(hosts.settings("a", size(1)), List::default(), true, 0, 1);
    let _ = host.handle(0, Input::Start);
    let (method, args) = ("append".into(), "x".into());
    let perform = Perform { ticket: 1, method, args, timeout: None };
    assert!(host.handle(0, Input::Perform(vec![perform])).settled.is_empty());
    assert!(host.handle(0, Input::Read { ticket: 2 }).settled.is_empty());
    let closing = host.handle(0, Input::Close);
    let codes: Vec<_> =
        closing.settled.iter().map(|s| (s.ticket, failed(Some(&s.outcome)).0)).collect();
    assert_eq!(codes, [(1, "CLOSED"), (2, "CLOSED")]);
    assert!(closing.effects.is_empty(), "nothing is written over what storage may have");
    assert_eq!(host.handle(0, Input::Restored(None)).effects.len(), 0);
}
