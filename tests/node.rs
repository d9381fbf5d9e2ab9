//! One node: messages that wait for writes, faults of user code, snapshots that cannot be read, and
//! long logs.
#![allow(missing_docs)]

mod common;

use std::rc::Rc;

use common::node_rig::{Rig, State, accept, action, alone, encode, leading};
use conflux::node::{Durability, Input, Node, Output, Packet};
use conflux::raft::{
    self, AppendResult, Body, Config, Entry, HardState, Members, Payload, Position, Saved,
    Snapshot, Wants,
};
use conflux::store::{
    self, Call, Command, Failure, Fault, Message, Outcome, Perform, Performer, Return, SessionRef,
};

/// Node 1 of three, started again in term 1 with an empty log.
fn restarted(seed: u64) -> Node<State> {
    let mut node = Node::new(store::Config::default(), Rc::new(0), Durability::Durable, seed);
    let saved = Saved { hard: HardState { term: 1, vote: None }, ..Saved::default() };
    let config = Config::new(1, Members::voters([1, 2, 3]));
    let _ = handle(&mut node, Input::Start { config, saved });
    node
}

/// Gives the node an input and runs the user code for which it asks.
fn handle(node: &mut Node<State>, input: Input<State>) -> Output<State> {
    let mut output = node.handle(10, input);
    while let Some(call) = output.call.take() {
        let returned = match call {
            Call::Committed(_) => Return::Done,
            Call::Reduce { state, .. } => Return::State(Ok(Rc::new(*state + 1))),
            call => panic!("unexpected {call:?}"),
        };
        let next = node.handle(10, Input::Returned(returned));
        output.send.extend(next.send);
        output.settled.extend(next.settled);
        output.persist.extend(next.persist);
        output.call = next.call;
    }
    output
}

/// Node 2 leads. Its log consists of these commands, all committed.
fn follow(node: &mut Node<State>, commands: &[Command]) -> Output<State> {
    let entry = |(index, command): (u64, &Command)| Entry {
        at: Position::new(index, 1),
        payload: Payload::Command(postcard::to_allocvec(command).expect("bytes").into()),
    };
    let entries: Vec<_> = (1..).zip(commands).map(entry).collect();
    let (prev, commit) = (Position::default(), entries.len() as u64);
    let body = Body::Append { prev, commit, round: 0, entries, wants: Wants::Reply };
    let packet = Packet::Raft(raft::Message { term: 1, body });
    handle(node, Input::Receive { from: 2, packet })
}

/// Applies an entry and asks for a read. Returns the number of the read.
fn read(node: &mut Node<State>) -> u64 {
    let _ = follow(node, &[Command::Open { nonce: 7, by: Performer::default() }]);
    let output = handle(node, Input::Read { ticket: 5 });
    let ask = |(_, packet): &(u64, Packet)| match packet {
        Packet::Store(Message { body: store::Body::Read { id }, .. }) => Some(*id),
        _ => None,
    };
    output.send.iter().find_map(ask).expect("it asks the leader")
}

/// The leader answers the read with this number.
fn read_at(node: &mut Node<State>, id: u64) -> Output<State> {
    let message = Message { term: 1, body: store::Body::ReadAt { id, index: 1 } };
    handle(node, Input::Receive { from: 2, packet: Packet::Store(message) })
}

#[test]
fn an_answer_to_a_read_from_before_a_restart_is_ignored() {
    let before = read(&mut restarted(1));
    let mut node = restarted(2);
    let now = read(&mut node);
    // Both reads were sent in the same term. The answer to the old one arrives late.
    assert!(read_at(&mut node, before).settled.is_empty());
    let settled = read_at(&mut node, now).settled;
    assert_eq!(settled.len(), 1);
    assert_eq!((settled[0].ticket, &settled[0].outcome), (5, &Outcome::Nothing));
}

#[test]
fn a_reply_that_acknowledges_a_write_waits_for_the_write() {
    let mut node = restarted(1);
    let output = follow(
        &mut node,
        &[Command::Open { nonce: 7, by: Performer::default() }, Command::Close { session: 1 }],
    );
    let seq = output.persist.last().expect("entries").seq;
    let replies = |output: &Output<State>| {
        let reply =
            |p: &Packet| matches!(p, Packet::Raft(m) if matches!(m.body, Body::AppendReply { .. }));
        output.send.iter().filter(|(_, packet)| reply(packet)).count()
    };
    assert_eq!((replies(&output), node.held()), (0, 1));
    let output = handle(&mut node, Input::Persisted(seq));
    assert_eq!((replies(&output), node.held()), (1, 0));
}

#[test]
fn a_follower_stays_quiesced_until_a_perform_or_a_read_waits() {
    let perform = Perform { ticket: 5, method: "add".into(), args: "x".into(), timeout: None };
    for input in [Input::Perform(vec![perform]), Input::Read { ticket: 5 }] {
        let mut node = Node::new(store::Config::default(), Rc::new(0), Durability::Durable, 1);
        let members = Members::voters([1, 2, 3]);
        let config = Config { quiesce_interval: Some(10_000), ..Config::new(1, members) };
        let _ = handle(&mut node, Input::Start { config, saved: Saved::default() });
        let (prev, wants) = (Position::default(), Wants::Quiesce);
        let body = Body::Append { prev, commit: 0, round: 0, entries: vec![], wants };
        let packet = Packet::Raft(raft::Message { term: 1, body });
        let is_quiesced = |node: &Node<State>| node.raft().is_some_and(raft::Raft::is_quiesced);
        let _ = handle(&mut node, Input::Receive { from: 2, packet });
        assert!(is_quiesced(&node));
        let _ = handle(&mut node, Input::Tick);
        assert!(is_quiesced(&node), "nothing waits");
        let _ = handle(&mut node, input);
        assert!(!is_quiesced(&node), "the leader's silence counts");
        assert_eq!(node.store().waiting(), 1);
    }
}

/// A node whose snapshot is garbage, in a cluster of so many.
fn broken(nodes: u64) -> Saved {
    let last = Position::new(5, 1);
    let snapshot =
        Some(Snapshot { last, members: Members::voters(1..=nodes), data: "garbage".into() });
    Saved { hard: HardState { term: 1, vote: None }, snapshot, entries: vec![] }
}

#[test]
fn a_node_that_cannot_read_its_snapshot_votes_but_judges_nothing() {
    let mut rig = Rig::new(1, "", broken(1), |_| ());
    let bad = Failure::new(
        "CANNOT_LOAD",
        "the state of the cluster cannot be loaded: the snapshot cannot be read",
    );
    assert_eq!(rig.faults, [Fault::Stopped(bad)]);
    rig.perform(1, "add", "x");
    rig.wait(600);
    assert!(rig.node.raft().is_some_and(raft::Raft::is_leader), "there is no other node");
    rig.perform(2, "add", "x");
    rig.handle(Input::Read { ticket: 3 });
    assert_eq!([1, 2, 3].map(|ticket| rig.code(ticket)), [Some("CANNOT_LOAD"); 3]);
    assert_eq!(rig.state(), 0);
}

#[test]
fn a_leader_that_cannot_read_its_snapshot_hands_leadership_over() {
    let mut rig = Rig::new(3, "", broken(3), |_| ());
    rig.wait(600);
    rig.receive(2, 2, Body::PreVoteReply { granted: true });
    rig.receive(2, 2, Body::VoteReply { granted: true });
    let result = AppendResult::Accepted { matched: 6 };
    rig.receive(2, 2, Body::AppendReply { round: 0, result });
    let is_handed_over = |p: &(u64, Packet)| match &p.1 {
        Packet::Raft(message) => (p.0, &message.body) == (2, &Body::TimeoutNow),
        Packet::Store(_) => false,
    };
    assert!(rig.sent.iter().any(is_handed_over), "{:?}", rig.sent);
}

#[test]
fn a_state_that_cannot_be_loaded_is_reported() {
    let sessions = store::Sessions::default();
    let data = store::encode_snapshot(1, &sessions, b"seven");
    let snapshot =
        Some(Snapshot { last: Position::new(5, 1), members: Members::voters([1, 2, 3]), data });
    let rig = Rig::new(3, "", Saved { snapshot, ..broken(3) }, |_| ());
    let message = "the state of the cluster cannot be loaded: no";
    assert_eq!(rig.faults, [Fault::Stopped(Failure::new("CANNOT_LOAD", message))]);
    assert!(rig.node.store().is_stopped() && !rig.node.store().is_fit());
}

#[test]
fn a_state_that_cannot_be_saved_is_reported_and_the_log_is_kept() {
    let mut rig = alone("", |_| ());
    rig.machine.fail = "save";
    for ticket in 1..=20 {
        rig.perform(ticket, "add", "0123456789");
    }
    let reports = rig.faults.len();
    assert!(
        (1..20).contains(&reports),
        "a report per attempt to compact, not per action: {reports}"
    );
    assert!(
        rig.faults.iter().all(|fault| matches!(fault, Fault::CannotSave(f) if f.code == "NO_JSON"))
    );
    assert_eq!(rig.node.raft().map(|raft| raft.log().base().index), Some(0));
    assert_eq!((rig.state(), rig.settled.len()), (20, 20), "performs still work");
}

/// The reducer failed on an action.
fn reducer_failed(index: u64, action: &str) -> Fault {
    let failure = Failure::new("REDUCER_FAILED", "no");
    Fault::Diverged { index, action: Some(action.into()), failure }
}

#[test]
fn a_reducer_that_fails_on_a_committed_action_does_not_change_the_state() {
    let mut rig = Rig::new(3, "reduce", Saved::default(), |_| ());
    let open = encode(&Command::Open { nonce: 9, by: Performer::default() });
    let commands =
        [open, action(1, "good"), action(2, "bad"), b"\x02garbage".to_vec(), action(3, "x")];
    let entries = (1..).zip(&commands).map(|(index, data)| Rig::command(index, data)).collect();
    rig.append(0, entries);
    assert_eq!(rig.state(), 2, "the first and the last");
    assert_eq!(rig.node.store().applied(), 5);
    let failed = reducer_failed(3, "bad");
    let failure = Failure::new("BAD_ENTRY", "the entry is damaged");
    assert_eq!(rig.faults, [failed, Fault::Diverged { index: 4, action: None, failure }]);
    assert!(!rig.node.store().is_fit(), "it judges nothing until its state is checked");
}

#[test]
fn a_method_during_which_leadership_is_lost_appends_nothing() {
    let mut rig = leading(|_| ());
    assert!(rig.node.store().session().is_some());
    let end = rig.node.raft().expect("started").log().last();
    rig.machine.takes = 10_000;
    rig.perform(1, "add", "x");
    let raft = rig.node.raft().expect("started");
    assert_eq!((raft.is_leader(), raft.log().last()), (false, end));
    assert_eq!(**rig.node.store().provisional(), 0, "the action is discarded");
    assert_eq!(rig.outcome(1), None, "it is still pending, for the next leader");
}

/// A log of an opened session and so many actions, of which nothing is known to be committed.
fn long(actions: u64) -> Saved {
    let open = Rig::command(1, &encode(&Command::Open { nonce: 1, by: Performer::default() }));
    let actions = (1..=actions).map(|seq| Rig::command(seq + 1, &action(seq, "x")));
    let entries = [open].into_iter().chain(actions).collect();
    Saved { hard: HardState { term: 1, vote: None }, snapshot: None, entries }
}

/// Settings with which the logs of these tests are not compacted.
fn roomy(config: &mut store::Config) {
    config.compact_bytes = 1 << 20;
}

/// How many uncommitted entries a node reduces.
const FOLLOWED: u64 = 2 * store::MAX_TAIL as u64;

#[test]
fn a_long_log_is_reduced_once_with_few_states_at_a_time() {
    let actions = 5 * store::MAX_TAIL as u64;
    let mut rig = Rig::new(3, "", long(actions), roomy);
    // The first entry opens the session.
    assert_eq!((rig.state(), **rig.node.store().provisional()), (0, FOLLOWED - 1));
    // A leader commits the first half, then the rest.
    for commit in [actions / 2, actions + 1] {
        let prev = Position::new(actions + 1, 1);
        let wants = Wants::Reply;
        rig.receive(2, 2, Body::Append { prev, commit, round: 0, entries: vec![], wants });
        let followed = (commit - 1 + FOLLOWED).min(actions);
        assert_eq!((rig.state(), **rig.node.store().provisional()), (commit - 1, followed));
        assert!(rig.alive() as u64 <= FOLLOWED + 2, "{}", rig.alive());
    }
    assert_eq!(rig.machine.made.len() as u64, actions, "each is reduced once");
    assert_eq!(
        rig.machine.committed,
        (2..=actions + 1).collect::<Vec<_>>(),
        "subscribers are called once for each"
    );
    let store = rig.node.store();
    assert!(Rc::ptr_eq(store.committed(), store.provisional()), "one state, one reference");
}

#[test]
fn the_end_of_a_long_log_can_be_replaced() {
    let actions = FOLLOWED + 500;
    for from in [FOLLOWED / 2, FOLLOWED - 2, FOLLOWED - 1, FOLLOWED, FOLLOWED + 1, actions] {
        let mut rig = Rig::new(3, "", long(actions), roomy);
        let prev = Position::new(from, 1);
        let at = Position::new(from + 1, 2);
        let payload = Payload::Command(action(from, "y").into());
        let (entries, wants) = (vec![Entry { at, payload }], Wants::Reply);
        rig.receive(2, 2, Body::Append { prev, commit: 0, round: 0, entries, wants });
        let followed = from.min(FOLLOWED - 1);
        assert_eq!((rig.state(), **rig.node.store().provisional()), (0, followed));
        let (prev, wants) = (at, Wants::Reply);
        rig.receive(
            2,
            2,
            Body::Append { prev, commit: at.index, round: 0, entries: vec![], wants },
        );
        assert_eq!((rig.state(), **rig.node.store().provisional()), (from, from));
    }
}

#[test]
fn a_leader_judges_nothing_before_it_has_followed_its_log() {
    let actions = FOLLOWED + 500;
    let mut rig = Rig::new(3, "", long(actions), roomy);
    rig.wait(600);
    rig.receive(2, 2, Body::PreVoteReply { granted: true });
    rig.receive(2, 2, Body::VoteReply { granted: true });
    assert!(rig.node.raft().expect("started").is_leader());
    // The client of the session repeats the performs at the end of the log, and adds a new one.
    let request = || store::Request { method: Some("add".into()), args: "x".into() };
    let term = rig.node.raft().expect("started").term();
    let body = || store::Body::Perform {
        session: SessionRef { id: 1, nonce: 1 },
        ack: 1,
        first: FOLLOWED,
        requests: (FOLLOWED..=actions + 1).map(|_| request()).collect(),
    };
    let ask = |rig: &mut Rig| {
        let packet = Packet::Store(Message { term, body: body() });
        rig.handle(Input::Receive { from: 3, packet });
    };
    ask(&mut rig);
    assert_eq!(rig.node.raft().expect("started").log().last().index, actions + 2, "a no-op");
    let matched = actions + 2;
    let result = AppendResult::Accepted { matched };
    rig.receive(2, term, Body::AppendReply { round: 0, result });
    assert_eq!(rig.state(), actions);
    // The log of an earlier build has no first state: the leader adds the state so far.
    let result = AppendResult::Accepted { matched: actions + 3 };
    rig.receive(2, term, Body::AppendReply { round: 0, result });
    assert_eq!((rig.state(), rig.node.store().release()), (actions, Some(1)));
    ask(&mut rig);
    assert_eq!(**rig.node.store().provisional(), actions + 1, "only the new perform has run");
}

#[test]
fn a_reducer_failure_in_a_long_log_is_reported_once() {
    let mut saved = long(store::MAX_TAIL as u64 + 10);
    for index in [3, store::MAX_TAIL + 5, store::MAX_TAIL + 10] {
        let seq = saved.entries[index].at.index - 1;
        saved.entries[index].payload = Payload::Command(action(seq, "bad").into());
    }
    let last = saved.entries.last().expect("many").at;
    let mut rig = Rig::new(3, "reduce", saved, roomy);
    let good = store::MAX_TAIL as u64 + 7;
    assert_eq!(**rig.node.store().provisional(), good);
    let (commit, wants) = (last.index, Wants::Reply);
    rig.receive(2, 2, Body::Append { prev: last, commit, round: 0, entries: vec![], wants });
    assert_eq!((rig.state(), **rig.node.store().provisional()), (good, good));
    let [third, last] = [store::MAX_TAIL + 6, store::MAX_TAIL + 11].map(|index| index as u64);
    let failures = [4, third, last].map(|index| reducer_failed(index, "bad"));
    assert_eq!(rig.faults, failures, "each is reported once");
}

#[test]
fn a_leader_judges_no_more_performs_than_its_tail_may_hold() {
    let mut rig = leading(roomy);
    let many = 2 * store::MAX_TAIL as u64 + 5;
    let perform =
        |ticket| Perform { ticket, method: "add".into(), args: "x".into(), timeout: None };
    rig.handle(Input::Perform((0..many).map(perform).collect()));
    // One of the entries is a check.
    for so_far in [store::MAX_TAIL as u64, 2 * store::MAX_TAIL as u64 - 1, many] {
        assert_eq!(**rig.node.store().provisional(), so_far);
        assert!(rig.alive() <= store::MAX_TAIL + 1, "{}", rig.alive());
        accept(&mut rig);
        assert_eq!((rig.state(), rig.settled.len() as u64), (so_far, so_far));
    }
}
