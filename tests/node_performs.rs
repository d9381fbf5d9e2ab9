//! The performs of one node: limits, messages between client and leader, sessions and verdicts.
#![allow(missing_docs)]

mod common;

use common::node_rig::{Rig, alone, encode};
use conflux::node::{Input, Packet};
use conflux::raft::{self, AppendResult, Blob, Body, Saved};
use conflux::store::{self, Command, Failure, Message, Outcome, Perform, Performer, SessionRef};

/// A follower of node 2 whose session 1 is open, with the session. What it sent before is
/// discarded.
fn client(limit: fn(&mut store::Config)) -> (Rig, SessionRef) {
    let mut rig = Rig::new(3, "", Saved::default(), limit);
    rig.append(0, vec![]);
    // The first perform opens the session.
    rig.perform(0, "first", "");
    let nonce = rig.sent.iter().find_map(|(_, packet)| match packet {
        Packet::Store(Message { body: store::Body::Open { nonce }, .. }) => Some(*nonce),
        _ => None,
    });
    let nonce = nonce.expect("it asks for a session");
    let open = encode(&Command::Open { nonce, by: Performer::default() });
    rig.append(0, vec![Rig::command(1, &open)]);
    let verdicts = vec![(1, 1, store::Verdict::Nothing)];
    let session = SessionRef { id: 1, nonce };
    receive_from_leader(&mut rig, store::Body::Verdicts { session, verdicts });
    assert_eq!(rig.outcome(0), Some(&Outcome::Nothing));
    rig.settled.clear();
    rig.sent.clear();
    (rig, session)
}

/// The store messages that the node has sent since the last call.
fn take_sent(rig: &mut Rig) -> Vec<store::Body> {
    let packets = std::mem::take(&mut rig.sent);
    let store = |(_, packet)| match packet {
        Packet::Store(message) => Some(message.body),
        Packet::Raft(_) => None,
    };
    packets.into_iter().filter_map(store).collect()
}

/// The leader, node 2, sends this store message.
fn receive_from_leader(rig: &mut Rig, body: store::Body) {
    let packet = Packet::Store(Message { term: 1, body });
    rig.handle(Input::Receive { from: 2, packet });
}

/// The leader sends a heartbeat.
fn heartbeat(rig: &mut Rig) {
    let end = rig.node.raft().expect("started").log().last().index;
    rig.append(end, vec![]);
}

/// Node 1 leads, node 2 has acknowledged everything, and node 3 has an open session, which is
/// returned.
fn leader_with_client(limit: fn(&mut store::Config)) -> (Rig, SessionRef) {
    let mut rig = Rig::new(3, "", Saved::default(), limit);
    rig.wait(600);
    rig.receive(2, 1, Body::PreVoteReply { granted: true });
    rig.receive(2, 1, Body::VoteReply { granted: true });
    accept_all(&mut rig);
    let packet = Packet::Store(Message { term: 1, body: store::Body::Open { nonce: 33 } });
    rig.handle(Input::Receive { from: 3, packet });
    accept_all(&mut rig);
    let id = rig.node.store().sessions().with_nonce(33).expect("it is open");
    rig.sent.clear();
    (rig, SessionRef { id, nonce: 33 })
}

/// Node 2 acknowledges the whole log, and the entries that are proposed because of that.
fn accept_all(rig: &mut Rig) {
    for _ in 0..2 {
        let matched = rig.node.raft().expect("started").log().last().index;
        let result = AppendResult::Accepted { matched };
        rig.receive(2, 1, Body::AppendReply { round: 0, result });
    }
}

#[test]
fn a_closed_node_refuses_performs_and_reads() {
    let mut rig = alone("", |_| ());
    rig.handle(Input::Close(Failure::new("CLOSED", "closed")));
    rig.perform(1, "add", "x");
    rig.handle(Input::Read { ticket: 2 });
    assert_eq!((rig.code(1), rig.code(2), rig.state()), (Some("CLOSED"), Some("CLOSED"), 0));
}

#[test]
fn pending_bytes_are_bounded_and_large_actions_are_refused() {
    let mut rig = Rig::new(3, "", Saved::default(), |config| config.max_pending_bytes = 10);
    rig.perform(1, "add", "0123456789");
    rig.perform(2, "add", "x");
    assert_eq!((rig.code(1), rig.code(2)), (None, Some("BUSY")), "the first always fits");
    let mut rig = alone("", |config| config.max_action_bytes = 999);
    rig.perform(1, "grow", "");
    rig.perform(2, "add", "x");
    assert_eq!(rig.code(1), Some("TOO_LARGE"));
    assert_eq!((rig.outcome(2), rig.state()), (Some(&Outcome::Action("x".into())), 1));
    let mut rig = alone("", |config| config.max_action_bytes = 1_000);
    rig.perform(1, "grow", "");
    assert_eq!((rig.code(1), rig.state()), (None, 1));
}

#[test]
fn names_arguments_and_pending_bytes_may_reach_their_limits() {
    let (mut rig, _) = client(|_| ());
    rig.perform(1, &"m".repeat(1_024), "");
    rig.perform(2, &"m".repeat(1_025), "");
    assert_eq!((rig.code(1), rig.code(2)), (None, Some("TOO_LARGE")));
    let (mut rig, _) = client(|config| config.max_action_bytes = 10);
    rig.perform(1, "12345", "12345");
    rig.perform(2, "12345", "123456");
    assert_eq!((rig.code(1), rig.code(2)), (None, Some("TOO_LARGE")));
    let (mut rig, _) = client(|config| config.max_pending_bytes = 10);
    rig.perform(1, "1", "1234");
    rig.perform(2, "1", "1234");
    rig.perform(3, "", "1");
    assert_eq!((rig.code(1), rig.code(2), rig.code(3)), (None, None, Some("BUSY")));
}

#[test]
fn a_long_error_message_is_cut_between_two_characters() {
    let failure = Failure::new(&"C".repeat(100), "aé".repeat(2_000));
    assert_eq!(failure.code.len(), 64);
    assert!(failure.message.ends_with("aé…") || failure.message.ends_with("a…"));
    assert!((4_090..=4_099).contains(&failure.message.len()), "{}", failure.message.len());
    let inside = Failure::new("C", format!("x{}", "é".repeat(3_000)));
    assert_eq!(inside.message.len(), 4_095 + "…".len());
    let exact = Failure::new("C", "x".repeat(4_096));
    assert_eq!(exact.message.len(), 4_096);
}

#[test]
fn settled_performs_free_their_bytes_and_their_results() {
    let mut rig = alone("", |config| config.max_pending_bytes = 30);
    for ticket in 1..=20 {
        rig.perform(ticket, "add", "0123456789");
        assert_eq!(rig.code(ticket), None, "{ticket}");
    }
    assert_eq!(rig.state(), 20);
    // Results that the client has acknowledged are removed, so the table stays small.
    let (sessions, mine) = (rig.node.store().sessions(), rig.node.store().session());
    let results = sessions.get(mine.expect("open")).expect("open").results().len();
    assert!(results <= 2, "{results} outcomes are kept");
}

#[test]
fn performs_are_sent_in_as_few_messages_as_possible() {
    // A perform takes 16 bytes more than its name and arguments.
    let (mut rig, _) = client(|config| config.max_message_bytes = 60);
    let perform = |ticket| Perform {
        ticket,
        method: "abcd".into(),
        args: "0123456789".into(),
        timeout: None,
    };
    rig.handle(Input::Perform((1..=5).map(perform).collect()));
    let sent = take_sent(&mut rig).into_iter().map(|body| match body {
        store::Body::Perform { ack: 2, first, requests, .. } => (first, requests.len()),
        body => panic!("{body:?}"),
    });
    assert_eq!(sent.collect::<Vec<_>>(), [(2, 2), (4, 2), (6, 1)]);
    for (length, chunks) in [(40, 0), (41, 1), (60, 1), (61, 2), (120, 2), (121, 3)] {
        let (mut rig, _) = client(|config| config.max_message_bytes = 60);
        rig.perform(1, "abcd", &"x".repeat(length));
        let is_chunk = |body: &store::Body| matches!(body, store::Body::Chunk { .. });
        assert_eq!(
            take_sent(&mut rig).iter().filter(|b| is_chunk(b)).count(),
            chunks,
            "{length} bytes"
        );
    }
}

#[test]
fn after_a_silence_only_the_chunks_that_the_leader_lacks_are_sent_again() {
    let (mut rig, session) = client(|config| config.max_message_bytes = 60);
    rig.perform(1, "abcd", &"x".repeat(150));
    let offsets = |bodies: Vec<store::Body>| -> Vec<u64> {
        let offset = |body| match body {
            store::Body::Chunk { offset, .. } => offset,
            body => panic!("{body:?}"),
        };
        bodies.into_iter().map(offset).collect()
    };
    assert_eq!(offsets(take_sent(&mut rig)), [0, 60, 120]);
    // A part of it arrives. When the leader has been silent for the retry time, only the rest is
    // sent.
    rig.wait(200);
    heartbeat(&mut rig);
    receive_from_leader(&mut rig, store::Body::Received { session, next: 2, offset: 60 });
    rig.wait(200);
    heartbeat(&mut rig);
    assert_eq!(take_sent(&mut rig).len(), 0, "the answer postponed the next attempt");
    rig.wait(100);
    assert_eq!(offsets(take_sent(&mut rig)), [60, 120]);
    // Acknowledgements that are old or impossible change nothing.
    for (next, offset) in [(2, 60), (2, 0), (0, 90), (9, 0), (u64::MAX, u64::MAX)] {
        receive_from_leader(&mut rig, store::Body::Received { session, next, offset });
    }
    rig.wait(100);
    heartbeat(&mut rig);
    receive_from_leader(&mut rig, store::Body::Received { session, next: 2, offset: 60 });
    rig.wait(190);
    heartbeat(&mut rig);
    assert_eq!(take_sent(&mut rig).len(), 0);
    rig.wait(10);
    assert_eq!(offsets(take_sent(&mut rig)), [60, 120]);
    // All of it arrived: now the client only asks for the outcome.
    receive_from_leader(&mut rig, store::Body::Received { session, next: 3, offset: 0 });
    rig.wait(290);
    heartbeat(&mut rig);
    assert_eq!(take_sent(&mut rig).len(), 0);
    rig.wait(10);
    let asked = store::Body::Perform { session, ack: 2, first: 3, requests: vec![] };
    assert_eq!(take_sent(&mut rig), [asked]);
}

#[test]
fn a_perform_that_timed_out_does_not_block_later_ones() {
    let (mut rig, session) = client(|_| ());
    let perform =
        |ticket, timeout| Perform { ticket, method: "nothing".into(), args: "".into(), timeout };
    rig.handle(Input::Perform(vec![perform(1, Some(10)), perform(2, None)]));
    // The message with the verdict of the first perform was lost.
    let verdicts = vec![(3, 1, store::Verdict::Nothing)];
    receive_from_leader(&mut rig, store::Body::Verdicts { session, verdicts });
    assert_eq!((rig.outcome(1), rig.outcome(2)), (None, None), "they settle in order");
    rig.wait(10);
    assert_eq!((rig.code(1), rig.outcome(2)), (Some("TIMEOUT"), Some(&Outcome::Nothing)));
    // The first perform is still sent, because it may yet run.
    assert_eq!(rig.node.store().waiting(), 1);
    rig.handle(Input::Read { ticket: 3 });
    assert_eq!(rig.node.store().waiting(), 2);
    let verdicts = vec![(2, 1, store::Verdict::Nothing)];
    receive_from_leader(&mut rig, store::Body::Verdicts { session, verdicts });
    assert_eq!((rig.node.store().waiting(), rig.settled.len()), (1, 2), "only the read");
}

#[test]
fn a_perform_in_chunks_is_assembled_once() {
    let (mut rig, session) = leader_with_client(|config| config.max_action_bytes = 6);
    let chunk = |rig: &mut Rig, seq, total, offset, data: &str| {
        let (method, data) = ("add".to_string(), Blob::from(data));
        let body = store::Body::Chunk { session, ack: 1, seq, method, total, offset, data };
        let packet = Packet::Store(Message { term: 1, body });
        rig.handle(Input::Receive { from: 3, packet });
        let received = take_sent(rig).into_iter().find_map(|body| match body {
            store::Body::Received { next, offset, .. } => Some((next, offset)),
            _ => None,
        });
        received.expect("an answer")
    };
    assert_eq!(chunk(&mut rig, 1, 6, 0, "abc"), (1, 3));
    assert_eq!(chunk(&mut rig, 1, 6, 0, "abc"), (1, 3), "it is there already");
    assert_eq!(chunk(&mut rig, 2, 6, 0, "abc"), (1, 3), "the one before is not complete");
    assert_eq!(chunk(&mut rig, 1, 6, 3, "def"), (2, 0));
    assert_eq!(chunk(&mut rig, 1, 6, 3, "def"), (2, 0), "it is complete already");
    assert_eq!(chunk(&mut rig, 2, 7, 0, "x"), (3, 0), "it is too large, which is its outcome");
    assert_eq!(chunk(&mut rig, 3, 6, 0, "123"), (3, 3));
    assert_eq!(chunk(&mut rig, 3, 5, 3, "456"), (3, 0), "a request of another length begins anew");
    accept_all(&mut rig);
    assert_eq!(rig.state(), 1);
    let unknown = rig.node.store().sessions().get(session.id).expect("open").results().len();
    assert_eq!(unknown, 1, "one action");
}

#[test]
fn verdicts_are_sent_after_leadership_is_confirmed_in_messages_of_limited_size() {
    // The verdict `Nothing` takes 65 bytes.
    let (mut rig, session) = leader_with_client(|config| config.max_message_bytes = 130);
    let request = store::Request { method: Some("nothing".into()), args: "".into() };
    let requests = vec![request; 5];
    let body = store::Body::Perform { session, ack: 1, first: 1, requests };
    let packet = Packet::Store(Message { term: 1, body });
    rig.handle(Input::Receive { from: 3, packet });
    let round = rig.sent.iter().rev().find_map(|(_, packet)| match packet {
        Packet::Raft(raft::Message { body: Body::Append { round, .. }, .. }) => Some(*round),
        _ => None,
    });
    let sent_verdicts = |rig: &mut Rig| -> Vec<usize> {
        let verdicts = |body| match body {
            store::Body::Verdicts { verdicts, .. } => Some(verdicts.len()),
            _ => None,
        };
        take_sent(rig).into_iter().filter_map(verdicts).collect()
    };
    assert!(sent_verdicts(&mut rig).is_empty(), "another node may lead by now");
    let matched = rig.node.raft().expect("started").log().last().index;
    let result = AppendResult::Accepted { matched };
    let round = round.expect("a round for the confirmation");
    rig.receive(2, 1, Body::AppendReply { round: round - 1, result });
    assert!(sent_verdicts(&mut rig).is_empty(), "a reply to an earlier round");
    rig.receive(2, 1, Body::AppendReply { round, result });
    assert_eq!(sent_verdicts(&mut rig), [2, 2, 1]);
}

#[test]
fn a_closing_node_closes_its_session() {
    let (mut rig, session) = client(|_| ());
    rig.handle(Input::Close(Failure::new("CLOSED", "closed")));
    assert_eq!(take_sent(&mut rig), [store::Body::Close { session }]);
    let (mut rig, session) = leader_with_client(|_| ());
    let close = store::Body::Close { session };
    let packet = Packet::Store(Message { term: 1, body: close });
    rig.handle(Input::Receive { from: 3, packet });
    assert!(rig.node.store().sessions().get(session.id).is_some(), "not before it is committed");
    accept_all(&mut rig);
    assert!(rig.node.store().sessions().get(session.id).is_none());
}

/// A client's message to the leader, node 1.
fn receive_from_client(rig: &mut Rig, body: store::Body) {
    let packet = Packet::Store(Message { term: 1, body });
    rig.handle(Input::Receive { from: 3, packet });
}

#[test]
fn a_leader_ignores_messages_with_the_number_of_a_session_and_another_nonce() {
    let (mut rig, session) = leader_with_client(|_| ());
    let stranger = SessionRef { nonce: 34, ..session };
    let end = rig.node.raft().expect("started").log().last();
    let request = |method: &str| store::Request { method: Some(method.into()), args: "x".into() };
    let perform = |session, method: &str, ack| {
        let requests = vec![request(method)];
        store::Body::Perform { session, ack, first: 1, requests }
    };
    let (method, data) = ("add".to_string(), Blob::from("x"));
    let (ack, seq, total, offset) = (1, 1, 1, 0);
    let chunk = store::Body::Chunk { session: stranger, ack, seq, method, total, offset, data };
    let strange = [perform(stranger, "add", 1), chunk, store::Body::Close { session: stranger }];
    // The client's perform is judged, and its verdict is not confirmed yet.
    receive_from_client(&mut rig, perform(session, "nothing", 1));
    let received = store::Body::Received { session, next: 2, offset: 0 };
    assert_eq!(take_sent(&mut rig), std::slice::from_ref(&received));
    for body in strange {
        receive_from_client(&mut rig, body);
        accept_all(&mut rig);
        assert!(take_sent(&mut rig).is_empty(), "nobody is answered");
        assert_eq!(rig.node.raft().expect("started").log().last(), end);
    }
    assert!(rig.node.store().sessions().get(session.id).is_some(), "it is open");
    // What was judged is not judged again, although the request comes again.
    receive_from_client(&mut rig, perform(session, "add", 1));
    accept_all(&mut rig);
    assert_eq!(take_sent(&mut rig), [received]);
    assert_eq!(rig.node.raft().expect("started").log().last(), end);
    // Nor does anybody else acknowledge results.
    receive_from_client(&mut rig, perform(stranger, "add", 2));
    assert!(take_sent(&mut rig).is_empty());
}

#[test]
fn a_client_ignores_messages_with_the_number_of_its_session_and_another_nonce() {
    let (mut rig, session) = client(|_| ());
    let stranger = SessionRef { nonce: session.nonce.wrapping_add(1), ..session };
    rig.perform(1, "nothing", "");
    assert_eq!(take_sent(&mut rig).len(), 1);
    let verdicts = vec![(2, 1, store::Verdict::Nothing)];
    let verdicts = |session| store::Body::Verdicts { session, verdicts: verdicts.clone() };
    receive_from_leader(&mut rig, verdicts(stranger));
    assert_eq!(rig.outcome(1), None);
    // It does not count as received, so it is sent again.
    let received = |session| store::Body::Received { session, next: 3, offset: 0 };
    rig.wait(200);
    heartbeat(&mut rig);
    receive_from_leader(&mut rig, received(stranger));
    rig.wait(100);
    let sent = take_sent(&mut rig);
    let [store::Body::Perform { requests, .. }] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(requests.len(), 1);
    heartbeat(&mut rig);
    receive_from_leader(&mut rig, verdicts(session));
    assert_eq!(rig.outcome(1), Some(&Outcome::Nothing));
}

#[test]
fn a_client_whose_session_was_closed_performs_again_in_order_without_what_timed_out() {
    let (mut rig, session) = client(|_| ());
    let perform = |ticket, method: &str, timeout| Perform {
        ticket,
        method: method.into(),
        args: "x".into(),
        timeout,
    };
    rig.handle(Input::Perform(vec![
        perform(1, "first", None),
        perform(2, "late", Some(50)),
        perform(3, "third", Some(5_000)),
        perform(4, "fourth", None),
    ]));
    // The third has a verdict, which waits for the first.
    let verdicts = vec![(4, 1, store::Verdict::Nothing)];
    receive_from_leader(&mut rig, store::Body::Verdicts { session, verdicts });
    rig.wait(60);
    heartbeat(&mut rig);
    assert_eq!((rig.code(2), rig.outcome(3)), (Some("TIMEOUT"), None));
    take_sent(&mut rig);
    rig.append(1, vec![Rig::command(2, &encode(&Command::Close { session: 1 }))]);
    assert_eq!(rig.node.store().session(), None);
    assert_eq!(rig.node.store().waiting(), 3);
    let sent = take_sent(&mut rig);
    let [store::Body::Open { nonce }] = sent[..] else { panic!("{sent:?}") };
    assert_ne!(nonce, session.nonce);
    let open = encode(&Command::Open { nonce, by: Performer::default() });
    rig.append(2, vec![Rig::command(3, &open)]);
    let next = SessionRef { id: 3, nonce };
    let sent = take_sent(&mut rig);
    let [store::Body::Perform { session: to, ack: 1, first: 1, requests }] = &sent[..] else {
        panic!("{sent:?}")
    };
    let methods: Vec<_> = requests.iter().filter_map(|r| r.method.as_deref()).collect();
    assert_eq!((*to, methods), (next, vec!["first", "third", "fourth"]));
    // A late verdict of the old session says nothing, and the new ones settle all, once.
    let verdict = |seq| (seq, 3, store::Verdict::Nothing);
    let old = vec![verdict(2), verdict(1)];
    receive_from_leader(&mut rig, store::Body::Verdicts { session, verdicts: old });
    assert_eq!(rig.settled.len(), 1);
    let verdicts = vec![verdict(1), verdict(3)];
    receive_from_leader(&mut rig, store::Body::Verdicts { session: next, verdicts });
    assert_eq!((rig.outcome(1), rig.outcome(4)), (Some(&Outcome::Nothing), None));
    // The timeout of the third still runs, from when it was asked for.
    rig.wait(4_900);
    heartbeat(&mut rig);
    assert_eq!(rig.outcome(3), None);
    rig.wait(40);
    assert_eq!((rig.code(3), rig.outcome(4)), (Some("TIMEOUT"), Some(&Outcome::Nothing)));
    assert_eq!(rig.settled.len(), 4);
}
