//! Exactly once: performs whose messages are lost or repeated, whose leader changes, or whose
//! session is closed, on whole hosts without a browser.
#![allow(missing_docs)]

mod common;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use common::host_cluster::{Hosts, failed, follower, forge, three};
use common::node_cluster::Cluster;
use conflux::formation;
use conflux::host::transport;
use conflux::host::types::Input;
use conflux::node::Packet;
use conflux::raft::Blob;
use conflux::store::{Body, Command, Message, Outcome, Perform, Request, Session, Sessions};

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

#[test]
fn a_node_that_only_reads_and_watches_has_no_session() {
    let mut cluster = Cluster::of(3);
    let read = cluster.read(2);
    cluster.run(1000);
    assert_eq!(cluster.node(2).outcome(read), Some(&Outcome::Nothing));
    for member in cluster.nodes.values() {
        assert!(member.node.store().sessions().is_empty());
        assert_eq!(member.node.store().session(), None);
    }
    assert!(!cluster.sent.iter().any(|(_, _, body)| matches!(body, Body::Open { .. })));
    cluster.append(2, "x");
    for (id, member) in &cluster.nodes {
        assert_eq!(member.node.store().sessions().len(), 1);
        assert_eq!(member.node.store().session().is_some(), *id == 2);
    }
}

#[test]
fn all_performs_are_settled_when_there_are_more_clients_than_places() {
    let mut cluster = Cluster::with(5, |cluster| cluster.config.max_sessions = 2);
    let mut tickets = Vec::new();
    for round in 0..4 {
        for id in 1..=5 {
            let value = format!("{id}-{round}");
            tickets.push((id, cluster.perform(id, "append", &value), Some(value)));
            tickets.push((id, cluster.perform(id, "nothing", ""), None));
        }
        cluster.run(700);
    }
    cluster.run(60_000);
    for (id, ticket, value) in tickets {
        let expected =
            value.map_or(Outcome::Nothing, |value| Outcome::Action(value.as_str().into()));
        assert_eq!(cluster.node(id).outcome(ticket), Some(&expected), "node {id}");
    }
    let state = cluster.state();
    assert_eq!(state.len(), 20, "each has run once: {state:?}");
    for id in 1..=5 {
        let own = state.iter().filter(|value| value.starts_with(&format!("{id}-")));
        assert!(own.is_sorted(), "in order: {state:?}");
        assert!(cluster.node(id).node.store().sessions().len() <= 2);
    }
}

#[test]
fn a_session_that_this_leader_has_just_opened_is_not_closed_for_another_one() {
    let mut cluster = Cluster::with(3, |cluster| cluster.config.max_sessions = 1);
    let before = cluster.now;
    cluster.append(2, "first");
    let first = cluster.node(2).node.store().session().expect("open");
    let waiting = cluster.perform(3, "append", "second");
    while cluster.node(1).node.store().sessions().get(first).is_some() {
        assert_eq!(cluster.node(3).outcome(waiting), None);
        cluster.run(1);
        assert!(cluster.now < before + 10_000);
    }
    // The client asks again every 300 ms.
    let kept = cluster.now - before;
    assert!((2_000..=2_301).contains(&kept), "{kept}");
    cluster.run(100);
    assert_eq!(cluster.node(3).outcome(waiting), Some(&Outcome::Action("second".into())));
    // Another leader does not know when the session was opened.
    cluster.kill(1);
    cluster.run(2000);
    let third = cluster.perform(2, "append", "third");
    cluster.run(400);
    assert_eq!(cluster.node(2).outcome(third), Some(&Outcome::Action("third".into())));
}

/// How many bytes the results of node 2's session take on each node, and how many there are.
fn results(cluster: &Cluster) -> Vec<usize> {
    let session = cluster.node(2).node.store().session().expect("open");
    let of = |sessions: &Sessions| sessions.get(session).map_or(0, |s| s.results().len());
    cluster.nodes.values().map(|member| of(member.node.store().sessions())).collect()
}

fn acknowledgements(cluster: &Cluster) -> usize {
    let is_one = |command: &&Command| matches!(command, Command::Acknowledge { .. });
    cluster.commands.values().filter(is_one).count()
}

#[test]
fn large_results_of_a_client_that_falls_silent_are_acknowledged_by_an_entry() {
    let mut cluster = Cluster::of(3);
    let performs = (0..40).map(|ticket| Perform {
        ticket: 9000 + ticket,
        method: "append".into(),
        args: "x".repeat(4096).as_str().into(),
        timeout: None,
    });
    cluster.handle(2, conflux::node::Input::Perform(performs.collect()));
    cluster.deliver_all();
    assert_eq!(cluster.node(2).settled.len(), 40);
    cluster.run(2000);
    assert_eq!(acknowledgements(&cluster), 1);
    assert_eq!(results(&cluster), [0; 3]);
    let last = cluster.node(1).node.raft().expect("started").log().last();
    let sent = cluster.sent.len();
    cluster.run(5000);
    assert_eq!(cluster.node(1).node.raft().expect("started").log().last(), last);
    assert_eq!(cluster.sent.len(), sent, "nobody asks for anything any more");
    cluster.append(2, "after");
    assert_eq!(cluster.state().len(), 41);
}

#[test]
fn results_up_to_the_limit_are_acknowledged_by_the_next_action_only() {
    // A result takes 16 bytes more than its action.
    for (over, entries) in [(0, 0), (1, 1)] {
        let mut cluster = Cluster::of(3);
        cluster.append(2, "opens");
        let args = "x".repeat(Session::MAX_BYTES - 16 + over);
        cluster.append(2, &args);
        cluster.run(2000);
        assert_eq!(acknowledgements(&cluster), entries, "{over} more than the limit");
        assert_eq!(results(&cluster), [1 - entries; 3]);
    }
}

/// Silences the leaders to which node 5 sends a perform of `bad`, one for each element of `answers`,
/// from then on and until the next one is silenced. If the element is `true`, the leader's store
/// still answers. Returns the leaders that were silenced.
fn silence_leaders(cluster: &mut Cluster, answers: &'static [bool]) -> Rc<RefCell<Vec<u64>>> {
    let silenced = Rc::new(RefCell::new(Vec::new()));
    let list = Rc::clone(&silenced);
    cluster.loses = Box::new(move |from, to, packet| {
        let mut list = list.borrow_mut();
        if let Packet::Store(Message { body: Body::Perform { requests, .. }, .. }) = packet
            && from == 5
            && requests.iter().any(|request| request.args == Blob::from("bad"))
            && list.last() != Some(&to)
            && list.len() < answers.len()
        {
            list.push(to);
        }
        let Some(last) = list.last().copied() else { return false };
        match (answers[list.len() - 1], packet) {
            (true, Packet::Store(_)) => false,
            (true, Packet::Raft(_)) => last == from,
            (false, _) => last == from || last == to,
        }
    });
    silenced
}

/// Five nodes, of which node 5 has a session and does not lead.
fn with_a_client() -> Cluster {
    let mut cluster = Cluster::with(5, |cluster| {
        cluster.timeouts.insert(5, (60_000, 70_000));
    });
    cluster.append(5, "before");
    cluster.sent.clear();
    cluster
}

/// The requests that node 5 has sent: the receiver, the first number, and the arguments of each; of
/// one that must not run, `-`. Of those to the same leader only the first.
fn requests(cluster: &Cluster) -> Vec<(u64, u64, Vec<String>)> {
    let mut found: Vec<(u64, u64, Vec<String>)> = Vec::new();
    for (from, to, body) in &cluster.sent {
        if let Body::Perform { first, requests, .. } = body
            && *from == 5
            && found.last().is_none_or(|last| last.0 != *to)
        {
            let text = |request: &Request| match request.method {
                Some(_) => String::from_utf8_lossy(request.args.as_slice()).into_owned(),
                None => "-".into(),
            };
            found.push((*to, *first, requests.iter().map(text).collect()));
        }
    }
    found
}

#[test]
fn a_perform_over_which_three_leaders_fall_silent_is_given_up_and_later_ones_go_on() {
    let mut cluster = with_a_client();
    let silenced = silence_leaders(&mut cluster, &[false; 3]);
    let perform = |ticket, args: &str| {
        let (method, args) = ("append".into(), args.into());
        Perform { ticket, method, args, timeout: None }
    };
    let performs = vec![perform(100, "bad"), perform(101, "first"), perform(102, "second")];
    cluster.handle(5, conflux::node::Input::Perform(performs));
    while silenced.borrow().len() < 3 {
        cluster.run(10);
        assert!(cluster.now < 20_000);
        assert_eq!(cluster.node(5).outcome(100), None, "other leaders may judge it");
    }
    cluster.run(5000);
    let Some(Outcome::Failed(failure)) = cluster.node(5).outcome(100) else { panic!("no outcome") };
    assert_eq!(failure.code, "OUTCOME_UNKNOWN");
    assert!(failure.message.contains("`append`"), "{}", failure.message);
    for (ticket, args) in [(101, "first"), (102, "second")] {
        assert_eq!(cluster.node(5).outcome(ticket), Some(&Outcome::Action(args.into())));
    }
    cluster.loses = Box::new(|_, _, _| false);
    cluster.run(1000);
    assert_eq!(cluster.state(), ["before", "first", "second"], "it has not run");
    assert_eq!(cluster.node(5).node.store().waiting(), 0);
    let sent = requests(&cluster);
    let texts: Vec<_> = sent.iter().map(|(_, first, texts)| (*first, texts.join(" "))).collect();
    let texts: Vec<_> = texts.iter().map(|(first, text)| (*first, text.as_str())).collect();
    // From the second leader on it is sent alone, so that no other perform is blamed.
    assert_eq!(texts, [(2, "bad first second"), (2, "bad"), (2, "bad"), (2, "-")]);
    let leaders: BTreeSet<_> = sent[..3].iter().map(|(to, _, _)| *to).collect();
    assert_eq!(leaders.len(), 3);
}

#[test]
fn a_perform_over_which_two_leaders_fall_silent_is_performed_by_the_third() {
    let mut cluster = with_a_client();
    let silenced = silence_leaders(&mut cluster, &[false; 2]);
    let tickets = ["bad", "later"].map(|args| cluster.perform(5, "append", args));
    cluster.run(10_000);
    assert_eq!(silenced.borrow().len(), 2);
    for (ticket, args) in tickets.into_iter().zip(["bad", "later"]) {
        assert_eq!(cluster.node(5).outcome(ticket), Some(&Outcome::Action(args.into())));
    }
}

#[test]
fn leaders_that_answered_before_they_were_lost_do_not_count_as_silent() {
    let mut cluster = with_a_client();
    let silenced = silence_leaders(&mut cluster, &[true; 5]);
    let ticket = cluster.perform(5, "append", "bad");
    cluster.run(30_000);
    assert_eq!(silenced.borrow().len(), 5, "so many leaders were lost");
    assert_eq!(cluster.node(5).outcome(ticket), Some(&Outcome::Action("bad".into())));
    cluster.loses = Box::new(|_, _, _| false);
    cluster.run(1000);
    assert_eq!(cluster.state(), ["before", "bad"]);
}

#[test]
fn a_leader_that_answers_in_between_makes_the_count_begin_anew() {
    let mut cluster = with_a_client();
    let silenced = silence_leaders(&mut cluster, &[false, false, true, false, false]);
    let ticket = cluster.perform(5, "append", "bad");
    cluster.run(30_000);
    assert_eq!(silenced.borrow().len(), 5, "so many leaders were lost");
    assert_eq!(cluster.node(5).outcome(ticket), Some(&Outcome::Action("bad".into())));
}

#[test]
fn leaders_that_are_lost_before_the_perform_was_sent_do_not_count() {
    let mut cluster = Cluster::with(5, |cluster| {
        cluster.timeouts.insert(5, (60_000, 70_000));
    });
    // The first four leaders fall silent over the request for a session.
    let silenced = Rc::new(RefCell::new(Vec::new()));
    let list = Rc::clone(&silenced);
    cluster.loses = Box::new(move |from, to, packet| {
        let mut list = list.borrow_mut();
        let asks = matches!(packet, Packet::Store(Message { body: Body::Open { .. }, .. }));
        if asks && list.len() < 4 && list.last() != Some(&to) {
            list.push(to);
        }
        let last = list.last().copied();
        last == Some(from) || last == Some(to)
    });
    let ticket = cluster.perform(5, "append", "x");
    cluster.run(3000);
    while silenced.borrow().len() < 4 {
        cluster.run(100);
        assert!(cluster.now < 30_000);
    }
    cluster.loses = Box::new(|_, _, _| false);
    cluster.run(3000);
    assert_eq!(cluster.node(5).outcome(ticket), Some(&Outcome::Action("x".into())));
}
