//! One node: the order of its effects, and what outlives it.
#![allow(missing_docs)]

use std::rc::Rc;

use conflux::node::{Durability, Input, Node, Output, Packet};
use conflux::raft::{self, Body, Config, Entry, HardState, Payload, Position, Saved};
use conflux::store::{self, Call, Command, Message, Outcome, Return};

type State = Rc<u64>;

fn restarted(seed: u64) -> Node<State> {
    let mut node = Node::new(store::Config::default(), Rc::new(0), Durability::Durable, seed);
    let saved = Saved { hard: HardState { term: 1, vote: None }, ..Saved::default() };
    let config = Config::new(1, [1, 2, 3].into());
    let _ = handle(&mut node, Input::Start { config, saved });
    node
}

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

/// Node 2 leads and its log is these commands, all committed.
fn follow(node: &mut Node<State>, commands: &[Command]) -> Output<State> {
    let entry = |(index, command): (u64, &Command)| Entry {
        at: Position::new(index, 1),
        payload: Payload::Command(postcard::to_allocvec(command).expect("bytes").into()),
    };
    let entries: Vec<_> = (1..).zip(commands).map(entry).collect();
    let (prev, commit) = (Position::default(), entries.len() as u64);
    let body = Body::Append { prev, commit, round: 0, entries, quiet: false };
    let packet = Packet::Raft(raft::Message { term: 1, body });
    handle(node, Input::Receive { from: 2, packet })
}

fn nonce(output: &Output<State>) -> u64 {
    let open = |(_, packet): &(u64, Packet)| match packet {
        Packet::Store(Message { body: store::Body::Open { nonce }, .. }) => Some(*nonce),
        _ => None,
    };
    output.send.iter().find_map(open).expect("it asks for a session")
}

/// Has a session, and asks for a read; gives the read's number.
fn read(node: &mut Node<State>) -> u64 {
    let output = follow(node, &[]);
    let opened = [Command::Open { nonce: nonce(&output) }];
    let _ = follow(node, &opened);
    let output = handle(node, Input::Read { ticket: 5 });
    let ask = |(_, packet): &(u64, Packet)| match packet {
        Packet::Store(Message { body: store::Body::Read { id }, .. }) => Some(*id),
        _ => None,
    };
    output.send.iter().find_map(ask).expect("it asks the leader")
}

fn read_at(node: &mut Node<State>, id: u64) -> Output<State> {
    let message = Message { term: 1, body: store::Body::ReadAt { id, index: 1 } };
    handle(node, Input::Receive { from: 2, packet: Packet::Store(message) })
}

#[test]
fn an_answer_to_a_read_of_a_former_self_is_for_nobody() {
    let before = read(&mut restarted(1));
    let mut node = restarted(2);
    let now = read(&mut node);
    // Both wait in the same term. The old answer comes late.
    assert!(read_at(&mut node, before).settled.is_empty());
    let settled = read_at(&mut node, now).settled;
    assert_eq!(settled.len(), 1);
    assert_eq!((settled[0].ticket, &settled[0].outcome), (5, &Outcome::Nothing));
}

#[test]
fn what_acknowledges_a_write_waits_for_it() {
    let mut node = restarted(1);
    let output = follow(&mut node, &[Command::Open { nonce: 7 }, Command::Close { session: 1 }]);
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
