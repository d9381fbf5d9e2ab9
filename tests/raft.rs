//! Raft's outputs for single inputs: cases that a golden page cannot show well, and cases of which
//! a mutant or the simulator showed that no test covered them.
#![allow(missing_docs)]

use conflux::raft::{
    AppendResult, Body, Chunked, Config, Confirmed, Entry, Event, Index, Input, Invalid, Members,
    Message, NodeId, Outgoing, Output, Payload, Position, Raft, Refused, RoleName, Saved, Snapshot,
    Term, Wants,
};

fn node(id: NodeId, nodes: u64) -> Raft {
    Raft::new(Config::new(id, Members::voters(1..=nodes)), Saved::default(), 0, id)
}

fn receive(raft: &mut Raft, now: u64, from: NodeId, term: Term, body: Body) -> Output {
    raft.handle(now, Input::Receive { from, message: Message { term, body } })
}

fn entry(index: Index, term: Term) -> Entry {
    Entry { at: Position::new(index, term), payload: Payload::Command("x".into()) }
}

fn append(prev: Position, commit: Index, entries: Vec<Entry>) -> Body {
    Body::Append { prev, commit, round: 7, entries, wants: Wants::Reply }
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

/// Elects the node in the next term by the votes of the others. Its writes are durable at once.
fn elect(raft: &mut Raft, now: u64) -> Output {
    let mut out = raft.handle(now, Input::Tick);
    let voters = raft.config().members.len() as u64;
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
fn entries_that_cannot_be_part_of_a_log_are_refused() {
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
        assert!(raft.log().last() == zero() && output.messages.is_empty());
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
    // An old message whose entries are all committed is acknowledged up to its last entry.
    let output = receive(&mut raft, 2, 2, 1, append(zero(), 0, vec![entry(1, 1)]));
    assert_eq!(answer(&output), AppendResult::Accepted { matched: 1 });
    let output = receive(&mut raft, 3, 2, 1, append(Position::new(1, 1), 0, vec![entry(2, 1)]));
    assert_eq!(answer(&output), AppendResult::Accepted { matched: 2 });
    assert_eq!((raft.log().last().index, raft.commit_index()), (2, 2));
}

#[test]
fn truncated_entries_do_not_count_as_durable() {
    let mut raft = node(1, 3);
    let long = append(zero(), 0, (1..=5).map(|index| entry(index, 1)).collect());
    let output = receive(&mut raft, 1, 2, 1, long);
    let seq = output.persist.expect("entries").seq;
    let _ = raft.handle(1, Input::Persisted(seq));
    // Another leader replaces everything from 3 on. That write is not done yet when this node is
    // elected.
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
    // One other member has the whole log. That is no majority while this node's own write is not
    // done.
    let result = AppendResult::Accepted { matched: 4 };
    let _ = receive(&mut raft, election, 2, 3, Body::AppendReply { round: 0, result });
    assert_eq!(raft.commit_index(), 0);
    let _ = raft.handle(election, Input::Persisted(vote));
    assert_eq!(raft.commit_index(), 0, "the entry is durable, the no-op is not");
    let _ = raft.handle(election, Input::Persisted(noop));
    assert_eq!(raft.commit_index(), 4);
}

#[test]
fn a_reply_to_an_earlier_term_confirms_nothing() {
    let mut follower = node(1, 3);
    let _ = receive(&mut follower, 1, 2, 5, append(zero(), 0, vec![]));
    // A message of the same member's earlier leadership arrives late.
    let output = receive(&mut follower, 2, 2, 4, append(zero(), 0, vec![]));
    let [Outgoing { message, .. }] = output.messages.as_slice() else { panic!("an answer") };
    let late = Message { term: 5, body: message.body.clone() };
    assert_eq!(*message, late);
    let Body::AppendReply { round, result } = message.body else { panic!("another answer") };
    assert_eq!((round, result), (0, AppendResult::Rejected { prev: 0, hint: zero() }));
    let of = Chunked::Snapshot { last: Position::new(3, 3) };
    let chunk = Body::Chunk { of, total: 2, offset: 0, round: 7, data: "ab".into() };
    let output = receive(&mut follower, 2, 2, 4, chunk);
    let body = &output.messages[0].message.body;
    assert_eq!(*body, Body::ChunkReply { of, offset: 0, round: 0 });

    // For the leader of the new term the reply confirms nothing, and it is not an error.
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
fn a_leader_that_steps_down_answers_its_pending_reads() {
    let mut leader = node(1, 3);
    let now = leader.deadline();
    let _ = elect(&mut leader, now);
    let _ = leader.handle(now, Input::Confirm { id: 9, at_least: 0 });
    let output = receive(&mut leader, now, 2, 9, append(zero(), 0, vec![]));
    assert_eq!(output.reads, [Confirmed { id: 9, index: None }]);
    let output = leader.handle(now, Input::Confirm { id: 10, at_least: 0 });
    assert_eq!(output.reads, [Confirmed { id: 10, index: None }], "it does not lead");
}

#[test]
fn a_pre_vote_for_an_earlier_term_does_not_count() {
    let mut raft = node(1, 3);
    let _ = receive(&mut raft, 1, 2, 1, append(zero(), 0, vec![]));
    let now = raft.deadline();
    let _ = raft.handle(now, Input::Tick);
    let _ = receive(&mut raft, now, 2, 1, Body::PreVoteReply { granted: true });
    assert_eq!(raft.role(), RoleName::PreCandidate, "it asks for term 2");
    let _ = receive(&mut raft, now, 2, 2, Body::PreVoteReply { granted: true });
    assert_eq!(raft.role(), RoleName::Candidate);
}

#[test]
fn a_second_leader_of_a_term_is_not_followed() {
    let mut raft = node(1, 3);
    let _ = receive(&mut raft, 1, 2, 1, append(zero(), 0, vec![]));
    let output = receive(&mut raft, 1, 3, 1, append(zero(), 0, vec![entry(1, 1)]));
    assert_eq!((error(&output), raft.leader()), (Some(Invalid::SecondLeader), Some(2)));
    assert!(raft.log().last() == zero());
    let mut leader = node(1, 3);
    let now = leader.deadline();
    let _ = elect(&mut leader, now);
    let term = leader.term();
    for body in [append(zero(), 0, vec![]), Body::TimeoutNow] {
        let output = receive(&mut leader, now, 2, term, body);
        assert_eq!((error(&output), leader.is_leader()), (Some(Invalid::SecondLeader), true));
    }
}

#[test]
fn the_log_is_also_checked_at_the_commit_index() {
    let mut raft = node(1, 3);
    let _ = receive(&mut raft, 1, 2, 2, append(zero(), 2, vec![entry(1, 1), entry(2, 2)]));
    let output = receive(&mut raft, 1, 2, 2, append(Position::new(2, 1), 2, vec![]));
    let hint = Position::new(1, 1);
    assert_eq!(answer(&output), AppendResult::Rejected { prev: 2, hint });
}

fn chunk(of: Chunked, total: u64, offset: u64, data: &str) -> Body {
    Body::Chunk { of, total, offset, round: 0, data: data.into() }
}

#[test]
fn chunks_that_do_not_fit_their_item_are_refused() {
    let snapshot = |index, term| Chunked::Snapshot { last: Position::new(index, term) };
    let of = snapshot(9, 1);
    let bad = [
        (chunk(of, 2, 1, "ab"), Invalid::Chunk),
        (chunk(of, 2, u64::MAX, "ab"), Invalid::Chunk),
        (chunk(of, 5, 1, ""), Invalid::Chunk),
        (chunk(of, (1 << 30) + 1, 0, "ab"), Invalid::Chunk),
        (chunk(of, 2, 0, "ab"), Invalid::Snapshot),
        (chunk(of, 0, 0, ""), Invalid::Snapshot),
        (chunk(snapshot(0, 1), 2, 0, "ab"), Invalid::Entries),
        (chunk(snapshot(9, 0), 2, 0, "ab"), Invalid::Entries),
        (chunk(snapshot(9, 2), 2, 0, "ab"), Invalid::Entries),
        (chunk(snapshot((1 << 48) + 1, 1), 2, 0, "ab"), Invalid::Entries),
    ];
    for (body, why) in bad {
        let mut raft = node(1, 3);
        let output = receive(&mut raft, 1, 2, 1, body.clone());
        assert_eq!(error(&output), Some(why), "{body:?}");
        assert!(output.messages.is_empty());
    }
    // The largest total, the last byte and an empty item fit.
    let entry = Chunked::Entry { prev: Position::default(), at: Position::new(1, 1) };
    for body in [chunk(of, 1 << 30, 0, "ab"), chunk(of, 3, 0, "ab"), chunk(entry, 0, 0, "")] {
        let mut raft = node(1, 3);
        let output = receive(&mut raft, 1, 2, 1, body.clone());
        assert_eq!((error(&output), output.messages.len()), (None, 1), "{body:?}");
    }
}

#[test]
fn chunks_of_two_items_are_not_mixed() {
    let mut raft = node(1, 3);
    let of = |index| Chunked::Snapshot { last: Position::new(index, 1) };
    let have = |output: Output| match output.messages[0].message.body {
        Body::ChunkReply { offset, .. } => offset,
        ref body => panic!("{body:?}"),
    };
    assert_eq!(have(receive(&mut raft, 1, 2, 1, chunk(of(9), 6, 0, "ab"))), 2);
    assert_eq!(
        have(receive(&mut raft, 1, 2, 1, chunk(of(9), 6, 4, "ef"))),
        2,
        "a chunk is missing"
    );
    assert_eq!(
        have(receive(&mut raft, 1, 2, 1, chunk(of(9), 6, 0, "ab"))),
        2,
        "it is there already"
    );
    assert_eq!(have(receive(&mut raft, 1, 2, 1, chunk(of(9), 7, 2, "cd"))), 0, "another length");
    assert_eq!(have(receive(&mut raft, 1, 2, 1, chunk(of(9), 7, 0, "ab"))), 2);
    assert_eq!(have(receive(&mut raft, 1, 2, 1, chunk(of(8), 7, 2, "cd"))), 0, "another snapshot");
}

#[test]
fn a_chunk_of_an_entry_that_is_here_already_acknowledges_the_whole_entry() {
    let mut raft = node(1, 3);
    let entries = vec![entry(1, 1), entry(2, 1), entry(3, 1)];
    let _ = receive(&mut raft, 1, 2, 1, append(zero(), 2, entries));
    let last = Position::new(2, 1);
    let _ = raft.handle(1, Input::Compact { last, data: "state".into() });
    let of = |prev, at| Chunked::Entry { prev: Position::new(prev, prev.min(1)), at };
    // The entry is compacted; in the log; next to the end of the log; behind a gap.
    let at = Position::new(1, 1);
    let output = receive(&mut raft, 1, 2, 1, chunk(of(0, at), 9, 0, "x"));
    assert_eq!(answer(&output), AppendResult::Accepted { matched: 1 });
    let at = Position::new(3, 1);
    let output = receive(&mut raft, 1, 2, 1, chunk(of(2, at), 9, 0, "x"));
    assert_eq!(answer(&output), AppendResult::Accepted { matched: 3 });
    let of_next = of(3, Position::new(4, 1));
    let output = receive(&mut raft, 1, 2, 1, chunk(of_next, 9, 0, "x"));
    let body = &output.messages[0].message.body;
    assert_eq!(*body, Body::ChunkReply { of: of_next, offset: 1, round: 0 });
    let output = receive(&mut raft, 1, 2, 1, chunk(of(8, Position::new(9, 1)), 9, 0, "x"));
    let hint = Position::new(3, 1);
    assert_eq!(answer(&output), AppendResult::Rejected { prev: 8, hint });
}

#[test]
fn uncommitted_bytes_may_reach_their_limit() {
    let config =
        Config { max_uncommitted_bytes: 100, ..Config::new(1, Members::voters([1, 2, 3])) };
    let mut leader = Raft::new(config, Saved::default(), 0, 1);
    let now = leader.deadline();
    let _ = elect(&mut leader, now);
    assert_eq!(leader.backlog().uncommitted_bytes, 16, "the no-op");
    assert!(leader.has_room(84) && !leader.has_room(85));
    let full = leader.handle(now, Input::Propose(vec!["x".repeat(69).as_str().into()]));
    assert_eq!(full.proposed, Some(Err(Refused::Busy)));
    let fits = leader.handle(now, Input::Propose(vec!["x".repeat(68).as_str().into()]));
    assert_eq!(fits.proposed, Some(Ok(2)));
    assert_eq!(leader.backlog().uncommitted_bytes, 100);
}

#[test]
fn leadership_is_transferred_only_to_a_member_that_answered_within_a_timeout() {
    for (later, silent) in [(500, false), (501, true)] {
        let mut leader = node(1, 5);
        let now = leader.deadline();
        let _ = elect(&mut leader, now);
        let term = leader.term();
        // 3 and 4 still answer and have no entries. 2 had all entries, and has been silent since.
        let _ = receive(&mut leader, now, 2, term, accepted(1));
        for at in [now + 400, now + later] {
            for from in [3, 4] {
                let _ = receive(&mut leader, at, from, term, accepted(0));
            }
        }
        assert!(leader.is_leader());
        let output = leader.handle(now + later, Input::Transfer(None));
        let is_chosen = |m: &Outgoing| m.to == 2 && m.message.body == Body::TimeoutNow;
        assert_eq!(output.messages.iter().any(is_chosen), !silent, "after {later} ms");
    }
}

/// A leader of three that knows nothing of its followers' logs yet.
fn leader_of_three(config: impl FnOnce(&mut Config)) -> (Raft, u64) {
    let mut of_three = Config::new(1, Members::voters([1, 2, 3]));
    config(&mut of_three);
    let mut leader = Raft::new(of_three, Saved::default(), 0, 1);
    let now = leader.deadline();
    let output = elect(&mut leader, now);
    let noop = output.persist.expect("a no-op").seq;
    let _ = leader.handle(now, Input::Persisted(noop));
    (leader, now)
}

fn accepted(matched: Index) -> Body {
    Body::AppendReply { round: 0, result: AppendResult::Accepted { matched } }
}

fn rejected(prev: Index) -> Body {
    Body::AppendReply { round: 0, result: AppendResult::Rejected { prev, hint: zero() } }
}

fn propose(leader: &mut Raft, now: u64, command: &str) -> Output {
    let mut output = leader.handle(now, Input::Propose(vec![command.into()]));
    let seq = output.persist.take().expect("an entry").seq;
    let more = leader.handle(now, Input::Persisted(seq));
    output.messages.extend(more.messages);
    output
}

fn to(output: &Output, peer: NodeId) -> Vec<&Body> {
    output.messages.iter().filter(|m| m.to == peer).map(|m| &m.message.body).collect()
}

#[test]
fn a_leader_without_a_quorum_steps_down_just_after_the_longest_timeout() {
    let (mut leader, now) = leader_of_three(|_| ());
    let _ = leader.handle(now + 500, Input::Tick);
    assert!(leader.is_leader());
    let _ = leader.handle(now + 501, Input::Tick);
    assert!(!leader.is_leader());
}

#[test]
fn a_late_rejection_changes_nothing() {
    let (mut leader, now) = leader_of_three(|_| ());
    let term = leader.term();
    let _ = receive(&mut leader, now, 2, term, accepted(1));
    let _ = propose(&mut leader, now, "a");
    let _ = receive(&mut leader, now, 2, term, accepted(2));
    let _ = propose(&mut leader, now, "b");
    // Index 2 is known to match, 3 is in flight, and 4 was never sent.
    for prev in [1, 2, 4, 5] {
        let output = receive(&mut leader, now, 2, term, rejected(prev));
        assert!(to(&output, 2).is_empty(), "rejected at {prev}");
    }
    let output = receive(&mut leader, now, 2, term, rejected(3));
    assert_eq!(to(&output, 2).len(), 1, "it begins again behind the matching index");
}

#[test]
fn a_follower_with_a_full_window_is_not_sent_the_same_commit_index_again() {
    let (mut leader, now) = leader_of_three(|config| config.max_inflight = 1);
    let term = leader.term();
    let _ = receive(&mut leader, now, 2, term, accepted(1));
    let _ = receive(&mut leader, now, 3, term, accepted(1));
    for (index, command) in (2..).zip(["a", "b", "c"]) {
        let _ = propose(&mut leader, now, command);
        let _ = receive(&mut leader, now, 2, term, accepted(index));
    }
    assert_eq!(leader.commit_index(), 4);
    let output = leader.handle(now + 1, Input::Tick);
    assert!(to(&output, 3).is_empty(), "entry 2 is in flight, and its commit was sent");
}

#[test]
fn an_entry_that_fits_into_a_message_is_not_chunked() {
    for (length, whole) in [(84, true), (85, false)] {
        let (mut leader, now) = leader_of_three(|config| config.max_message_bytes = 100);
        let term = leader.term();
        let _ = receive(&mut leader, now, 2, term, accepted(1));
        let output = propose(&mut leader, now, &"x".repeat(length));
        let sent = to(&output, 2)[0];
        assert_eq!(matches!(sent, Body::Append { .. }), whole, "{length} bytes: {sent:?}");
    }
}

#[test]
fn a_chunk_that_was_never_sent_cannot_be_acknowledged() {
    let (mut leader, now) = leader_of_three(|config| config.max_message_bytes = 100);
    let term = leader.term();
    let _ = receive(&mut leader, now, 2, term, accepted(1));
    let output = propose(&mut leader, now, &"x".repeat(150));
    let Body::Chunk { of, total: 150, offset: 0, .. } = to(&output, 2)[0] else { panic!("chunks") };
    for (offset, why) in
        [(150, Some(Invalid::Chunk)), (u64::MAX, Some(Invalid::Chunk)), (100, None)]
    {
        let body = Body::ChunkReply { of: *of, offset, round: 0 };
        let output = receive(&mut leader, now, 2, term, body);
        assert_eq!(error(&output), why, "{offset}");
        assert_eq!(to(&output, 2).len(), usize::from(why.is_none()), "{offset}");
    }
}

#[test]
fn a_transfer_is_given_up_after_the_shortest_timeout() {
    let (mut leader, now) = leader_of_three(|_| ());
    let term = leader.term();
    let _ = receive(&mut leader, now, 2, term, accepted(0));
    let _ = leader.handle(now, Input::Transfer(Some(3)));
    let _ = leader.handle(now + 299, Input::Tick);
    assert!(!leader.takes_proposals());
    let _ = leader.handle(now + 300, Input::Tick);
    assert!(leader.takes_proposals());
}

#[test]
fn impossible_senders_and_terms_are_refused() {
    let hello = || append(zero(), 0, vec![]);
    let cases = [
        (1, 1, Some(Invalid::NotMember)),
        (0, 1, Some(Invalid::NotMember)),
        // Node 4 may be a member in a configuration that has not arrived here yet.
        (4, 1, None),
        (2, 0, Some(Invalid::Term)),
        (2, (1 << 48) + 1, Some(Invalid::Term)),
        (2, 1 << 48, None),
    ];
    for (from, term, why) in cases {
        let mut raft = node(1, 3);
        let output = receive(&mut raft, 1, from, term, hello());
        assert_eq!((error(&output), output.messages.is_empty()), (why, why.is_some()));
        assert_eq!(raft.term(), if why.is_some() { 0 } else { term });
    }
}

#[test]
fn a_follower_that_hears_its_leader_votes_only_in_a_transfer() {
    let vote = |transfer| Body::Vote { last: zero(), transfer };
    let mut raft = node(1, 3);
    let _ = receive(&mut raft, 1, 2, 1, append(zero(), 0, vec![]));
    let output = receive(&mut raft, 300, 3, 2, vote(false));
    assert!(output.messages.is_empty() && raft.term() == 1, "within the shortest timeout");
    let output = receive(&mut raft, 300, 3, 2, Body::PreVote { last: zero() });
    assert_eq!(to(&output, 3), [&Body::PreVoteReply { granted: false }]);
    let output = receive(&mut raft, 301, 3, 2, Body::PreVote { last: zero() });
    assert_eq!(to(&output, 3), [&Body::PreVoteReply { granted: true }]);
    let output = receive(&mut raft, 300, 3, 2, vote(true));
    assert_eq!(to(&output, 3), [&Body::VoteReply { granted: true }]);
    assert_eq!(raft.term(), 2);
}

#[test]
fn a_candidate_of_an_old_term_learns_the_new_term() {
    for (body, answer) in [
        (Body::PreVote { last: zero() }, Body::PreVoteReply { granted: false }),
        (Body::Vote { last: zero(), transfer: false }, Body::VoteReply { granted: false }),
    ] {
        let mut raft = node(1, 3);
        let _ = receive(&mut raft, 1, 2, 5, append(zero(), 0, vec![]));
        let output = receive(&mut raft, 1, 3, 4, body);
        assert_eq!(to(&output, 3), [&answer]);
        assert_eq!(output.messages[0].message.term, 5);
        let late = receive(&mut raft, 1, 3, 4, Body::VoteReply { granted: true });
        assert!(late.messages.is_empty(), "a late reply is ignored");
    }
}

#[test]
fn an_outdated_compaction_is_ignored() {
    let members = Members::voters(1..=3);
    let last = |index| Position::new(index, 1);
    let snapshot =
        |index| Snapshot { last: last(index), members: members.clone(), data: "state".into() };
    let compact = |index| Input::Compact { last: last(index), data: "state".into() };
    let mut raft = node(1, 3);
    let entries = (1..=4).map(|index| entry(index, 1)).collect();
    let _ = receive(&mut raft, 1, 2, 1, append(zero(), 3, entries));
    let output = raft.handle(1, compact(2));
    assert_eq!(output.persist.and_then(|persist| persist.snapshot), Some(snapshot(2)));
    for index in [1, 2, 4, 5] {
        let output = raft.handle(1, compact(index));
        assert!(output.persist.is_none(), "{index}");
        assert_eq!(raft.log().base().index, 2);
    }
    let output = raft.handle(1, compact(3));
    assert!(output.persist.is_some());
    assert_eq!((raft.log().base(), raft.log().last().index), (Position::new(3, 1), 4));
}

#[test]
fn a_leader_reports_how_far_each_follower_matches() {
    let (mut leader, now) = leader_of_three(|_| ());
    let term = leader.term();
    let _ = receive(&mut leader, now, 3, term, accepted(1));
    assert_eq!(leader.matched(), Some(vec![(2, 0), (3, 1)]));
    assert_eq!(node(1, 3).matched(), None);
}

#[test]
fn the_first_election_can_be_set_to_come_early() {
    let config = Config { first_election: Some(5), ..Config::new(1, Members::voters([1, 2, 3])) };
    assert_eq!(Raft::new(config, Saved::default(), 100, 1).deadline(), 105);
    assert!(
        (400..=600)
            .contains(&Raft::new(node(1, 3).config().clone(), Saved::default(), 100, 1).deadline())
    );
}

#[test]
fn a_chunk_is_sent_again_when_a_later_heartbeat_is_answered() {
    let (mut leader, now) = leader_of_three(|config| config.max_message_bytes = 100);
    let term = leader.term();
    let _ = receive(&mut leader, now, 2, term, accepted(1));
    let output = propose(&mut leader, now, &"x".repeat(150));
    assert!(matches!(to(&output, 2)[0], Body::Chunk { offset: 0, .. }));
    for (later, chunks) in [(1, 0), (49, 0), (50, 1)] {
        let _ = leader.handle(now + later, Input::Tick);
        let output = receive(&mut leader, now + later, 2, term, accepted(1));
        let chunk = |body: &&&Body| matches!(body, Body::Chunk { offset: 0, .. });
        assert_eq!(to(&output, 2).iter().filter(chunk).count(), chunks, "{later} ms later");
    }
}

#[test]
fn a_round_counts_only_after_a_write_shows_that_storage_is_still_the_nodes_own() {
    // The only member: another host may run this node by now and may have voted for another leader.
    let mut leader = node(1, 1);
    let _ = leader.handle(600, Input::Tick);
    let _ = leader.handle(600, Input::Persisted(1));
    let _ = leader.handle(600, Input::Persisted(2));
    assert_eq!(leader.commit_index(), 1);
    let output = leader.handle(601, Input::Confirm { id: 7, at_least: 0 });
    let write = output.persist.expect("a write that shows it");
    assert!(write.entries.is_empty() && write.hard.is_none() && output.reads.is_empty());
    let output = leader.handle(602, Input::Persisted(write.seq));
    assert_eq!(output.reads, [Confirmed { id: 7, index: Some(1) }]);
    // A follower: its reply waits for a write that began after the heartbeat had arrived.
    let mut follower = node(1, 3);
    let beat = |round| Body::Append {
        prev: zero(),
        commit: 0,
        round,
        entries: vec![],
        wants: Wants::Reply,
    };
    let _ = receive(&mut follower, 1, 2, 1, beat(0));
    let output = receive(&mut follower, 2, 2, 1, beat(1));
    let write = output.persist.expect("a write that shows it");
    assert_eq!(output.messages[0].after, write.seq);
    // The same round again needs no other write.
    assert!(receive(&mut follower, 3, 2, 1, beat(1)).persist.is_none());
}
