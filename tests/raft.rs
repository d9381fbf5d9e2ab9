//! Raft's answers to single inputs: what a golden page cannot show well, and what a mutant or the
//! simulator showed to be untested.
#![allow(missing_docs)]

use conflux::raft::{
    AppendResult, Body, Config, Confirmed, Entry, Event, Index, Input, Invalid, Message, NodeId,
    Outgoing, Output, Payload, Position, Raft, Saved, Term, Whole,
};

fn node(id: NodeId, nodes: u64) -> Raft {
    Raft::new(Config::new(id, (1..=nodes).collect()), Saved::default(), 0, id)
}

fn receive(raft: &mut Raft, now: u64, from: NodeId, term: Term, body: Body) -> Output {
    raft.handle(now, Input::Receive { from, message: Message { term, body } })
}

fn entry(index: Index, term: Term) -> Entry {
    Entry { at: Position::new(index, term), payload: Payload::Command("x".into()) }
}

fn append(prev: Position, commit: Index, entries: Vec<Entry>) -> Body {
    Body::Append { prev, commit, round: 7, entries, quiet: false }
}

fn zero() -> Position {
    Position::default()
}

fn error(output: &Output) -> Option<Invalid> {
    output.events.iter().find_map(|event| match event {
        Event::Invalid { error, .. } => Some(*error),
        _ => None,
    })
}

fn answer(output: &Output) -> AppendResult {
    let bodies = output.messages.iter().map(|m| m.message.body.clone());
    let result = |body| match body {
        Body::AppendReply { result, .. } => Some(result),
        _ => None,
    };
    bodies.filter_map(result).next().expect("an answer")
}

/// Elects the node in the next term by the vote of the others, with a disk that is as fast as light.
fn elect(raft: &mut Raft, now: u64) -> Output {
    let mut out = raft.handle(now, Input::Tick);
    let voters = raft.config().voters.len() as u64;
    let others: Vec<_> = (1..=voters).filter(|id| *id != raft.id()).collect();
    for from in &others {
        let body = Body::PreVoteReply { granted: true };
        let term = raft.term() + 1;
        let output = receive(raft, now, *from, term, body);
        if let Some(persist) = output.persist {
            let _ = raft.handle(now, Input::Persisted(persist.seq));
            break;
        }
    }
    let term = raft.term();
    for from in others {
        out = receive(raft, now, from, term, Body::VoteReply { granted: true });
        if raft.is_leader() {
            break;
        }
    }
    assert!(raft.is_leader());
    out
}

#[test]
fn entries_that_are_no_piece_of_a_log_are_refused() {
    let bad = [
        append(zero(), 0, vec![entry(2, 1)]),
        append(zero(), 0, vec![entry(1, 1), entry(3, 1)]),
        append(zero(), 0, vec![entry(1, 2), entry(2, 1)]),
        append(zero(), 0, vec![entry(1, 3)]),
        append(Position::new(0, 1), 0, vec![]),
        append(Position::new(1, 0), 0, vec![]),
        append(Position::new(1, 3), 0, vec![]),
        append(Position::new(1 << 48, 1), 0, vec![entry((1 << 48) + 1, 1)]),
    ];
    for body in bad {
        let mut raft = node(1, 3);
        let output = receive(&mut raft, 1, 2, 2, body.clone());
        assert_eq!(error(&output), Some(Invalid::Entries), "{body:?}");
        assert!(raft.log().is_empty() && output.messages.is_empty());
    }
    let mut raft = node(1, 3);
    let output = receive(&mut raft, 1, 2, 2, append(zero(), 0, vec![entry(1, 1), entry(2, 2)]));
    assert_eq!(answer(&output), AppendResult::Accepted { matched: 2 });
    let far = append(Position::new(1 << 48, 2), 0, vec![]);
    let output = receive(&mut raft, 1, 2, 2, far);
    let hint = Position::new(2, 2);
    assert_eq!(answer(&output), AppendResult::Rejected { prev: 1 << 48, hint });
}

#[test]
fn a_committed_entry_is_never_replaced() {
    let mut raft = node(1, 3);
    let _ = receive(&mut raft, 1, 2, 1, append(zero(), 2, vec![entry(1, 1), entry(2, 1)]));
    assert_eq!(raft.commit_index(), 2);
    // An old message whose entries are all committed is acknowledged as far as they are the leader's.
    let output = receive(&mut raft, 2, 2, 1, append(zero(), 0, vec![entry(1, 1)]));
    assert_eq!(answer(&output), AppendResult::Accepted { matched: 1 });
    let output = receive(&mut raft, 3, 2, 1, append(Position::new(1, 1), 0, vec![entry(2, 1)]));
    assert_eq!(answer(&output), AppendResult::Accepted { matched: 2 });
    assert_eq!((raft.log().last().index, raft.commit_index()), (2, 2));
}

#[test]
fn what_was_cut_off_is_not_durable_any_more() {
    let mut raft = node(1, 3);
    let long = append(zero(), 0, (1..=5).map(|index| entry(index, 1)).collect());
    let output = receive(&mut raft, 1, 2, 1, long);
    let seq = output.persist.expect("entries").seq;
    let _ = raft.handle(1, Input::Persisted(seq));
    // Another leader replaces everything from 3 on. Its write is not done when this node is elected.
    let short = append(Position::new(2, 1), 0, vec![entry(3, 2)]);
    let _ = receive(&mut raft, 2, 3, 2, short);
    let election = raft.deadline();
    let _ = raft.handle(election, Input::Tick);
    let output = receive(&mut raft, election, 2, 3, Body::PreVoteReply { granted: true });
    let vote = output.persist.expect("a vote").seq;
    let _ = receive(&mut raft, election, 2, 3, Body::VoteReply { granted: true });
    let output = receive(&mut raft, election, 3, 3, Body::VoteReply { granted: true });
    assert!(raft.is_leader(), "by the others' votes");
    let noop = output.persist.expect("a no-op").seq;
    assert_eq!(raft.log().last(), Position::new(4, 3));
    // One other member has it all. Without its own write that is no majority.
    let result = AppendResult::Accepted { matched: 4 };
    let _ = receive(&mut raft, election, 2, 3, Body::AppendReply { round: 0, result });
    assert_eq!(raft.commit_index(), 0);
    let _ = raft.handle(election, Input::Persisted(vote));
    assert_eq!(raft.commit_index(), 0, "the entry is durable, the no-op is not");
    let _ = raft.handle(election, Input::Persisted(noop));
    assert_eq!(raft.commit_index(), 4);
}

#[test]
fn an_answer_to_an_earlier_term_confirms_nothing() {
    let mut follower = node(1, 3);
    let _ = receive(&mut follower, 1, 2, 5, append(zero(), 0, vec![]));
    // A message of the same member's earlier leadership arrives late.
    let output = receive(&mut follower, 2, 2, 4, append(zero(), 0, vec![]));
    let [Outgoing { message, .. }] = output.messages.as_slice() else { panic!("an answer") };
    let late = Message { term: 5, body: message.body.clone() };
    assert_eq!(*message, late);
    let Body::AppendReply { round, result } = message.body else { panic!("another answer") };
    assert_eq!((round, result), (0, AppendResult::Rejected { prev: 0, hint: zero() }));
    let of = Whole::Snapshot { last: Position::new(3, 3) };
    let piece = Body::Piece { of, total: 2, offset: 0, round: 7, data: "ab".into() };
    let output = receive(&mut follower, 2, 2, 4, piece);
    let body = &output.messages[0].message.body;
    assert_eq!(*body, Body::PieceReply { of, offset: 0, round: 0 });

    // The leader of the new term takes it for what it is: no proof, and no offence.
    let mut leader = node(2, 3);
    let now = leader.deadline();
    let _ = elect(&mut leader, now);
    let _ = leader.handle(now, Input::Confirm { id: 9, at_least: 0 });
    let term = leader.term();
    let output = receive(&mut leader, now, 1, term, Body::AppendReply { round, result });
    assert_eq!((error(&output), output.reads.len()), (None, 0));
    let output = receive(&mut leader, now, 1, term, Body::AppendReply { round: 2, result });
    assert_eq!(error(&output), Some(Invalid::Unasked), "no such round has begun");
}

#[test]
fn a_leader_that_steps_down_answers_its_reads() {
    let mut leader = node(1, 3);
    let now = leader.deadline();
    let _ = elect(&mut leader, now);
    let _ = leader.handle(now, Input::Confirm { id: 9, at_least: 0 });
    let output = receive(&mut leader, now, 2, 9, append(zero(), 0, vec![]));
    assert_eq!(output.reads, [Confirmed { id: 9, index: None }]);
    let output = leader.handle(now, Input::Confirm { id: 10, at_least: 0 });
    assert_eq!(output.reads, [Confirmed { id: 10, index: None }], "it does not lead");
}
