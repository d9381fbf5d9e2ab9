//! Raft's outputs for single inputs: membership changes, which members are live, leadership
//! transfer, and quiescing.
#![allow(missing_docs)]

use conflux::raft::{
    AppendResult, Body, Change, Config, Entry, Index, Input, Member, Members, Message, NodeId,
    Output, Payload, Position, Raft, Refused, RoleName, Saved, Term, Time, Wants,
};

/// The voters 1 to 3.
fn voters() -> Members {
    Members::voters(1..=3)
}

/// The voters 1 to 3 and the learner 4.
fn with_learner() -> Members {
    let member = |id| (id, Member { voter: id < 4, name: String::new() });
    Members::new((1..=4).map(member))
}

fn node(id: NodeId, members: Members, quiesce_interval: Option<Time>) -> Raft {
    let config = Config { quiesce_interval, ..Config::new(id, members) };
    Raft::new(config, Saved::default(), 0, id)
}

fn receive(raft: &mut Raft, now: Time, from: NodeId, term: Term, body: Body) -> Output {
    raft.handle(now, Input::Receive { from, message: Message { term, body } })
}

/// Node 1, elected in term 1 at the returned time by the vote of node 2. Its no-op is durable. It
/// knows nothing of the others' logs yet.
fn leader(members: Members, quiesce_interval: Option<Time>) -> (Raft, Time) {
    let mut raft = node(1, members, quiesce_interval);
    let now = raft.deadline();
    let _ = raft.handle(now, Input::Tick);
    let output = receive(&mut raft, now, 2, 1, Body::PreVoteReply { granted: true });
    persisted(&mut raft, now, &output);
    let output = receive(&mut raft, now, 2, 1, Body::VoteReply { granted: true });
    persisted(&mut raft, now, &output);
    assert!(raft.is_leader() && raft.term() == 1);
    (raft, now)
}

fn persisted(raft: &mut Raft, now: Time, output: &Output) {
    let seq = output.persist.as_ref().expect("a write").seq;
    let _ = raft.handle(now, Input::Persisted(seq));
}

/// A member replies that its log matches the leader's up to this index.
fn accept(leader: &mut Raft, now: Time, from: NodeId, matched: Index) -> Output {
    accept_round(leader, now, from, matched, 0)
}

fn accept_round(leader: &mut Raft, now: Time, from: NodeId, matched: Index, round: u64) -> Output {
    let result = AppendResult::Accepted { matched };
    receive(leader, now, from, 1, Body::AppendReply { round, result })
}

/// Proposes so many commands, and makes them durable on the leader.
fn propose(leader: &mut Raft, now: Time, count: usize) {
    let output = leader.handle(now, Input::Propose(vec!["x".into(); count]));
    persisted(leader, now, &output);
}

fn change(leader: &mut Raft, now: Time, change: Change) -> Result<Index, Refused> {
    let output = leader.handle(now, Input::Change(change));
    if output.persist.is_some() {
        persisted(leader, now, &output);
    }
    output.proposed.expect("an answer")
}

/// The members that are asked to become a candidate at once.
fn asked_to_lead(output: &Output) -> Vec<NodeId> {
    let asks = output.messages.iter().filter(|m| m.message.body == Body::TimeoutNow);
    asks.map(|m| m.to).collect()
}

/// What each AppendEntries in the output wants, with its receiver.
fn wants(output: &Output) -> Vec<(NodeId, Wants)> {
    let append = |body: &Body| match body {
        Body::Append { wants, .. } => Some(*wants),
        _ => None,
    };
    let messages = output.messages.iter();
    messages.filter_map(|m| Some((m.to, append(&m.message.body)?))).collect()
}

fn append(prev: Position, entries: Vec<Entry>, wants: Wants) -> Body {
    Body::Append { prev, commit: 0, round: 0, entries, wants }
}

fn zero() -> Position {
    Position::default()
}

#[test]
fn a_learner_may_be_promoted_when_it_lacks_at_most_64_entries() {
    let (mut raft, now) = leader(with_learner(), None);
    let _ = accept(&mut raft, now, 2, 1);
    assert_eq!(raft.commit_index(), 1);
    let _ = accept(&mut raft, now, 4, 0);
    assert!(!raft.is_ready(4), "it lacks one entry, but it has accepted nothing");
    let _ = accept(&mut raft, now, 4, 1);
    propose(&mut raft, now, 64);
    assert!(raft.is_ready(4));
    propose(&mut raft, now, 1);
    assert!(!raft.is_ready(4), "it lacks 65 entries");
    assert_eq!(change(&mut raft, now, Change::Promote(4)), Err(Refused::Behind));
    assert_eq!(raft.log().last().index, 66, "nothing was appended");
    let _ = accept(&mut raft, now, 4, 2);
    assert_eq!(change(&mut raft, now, Change::Promote(4)), Ok(67));
    assert!(raft.members().is_voter(4));
    assert!(!raft.is_ready(9), "no member");
    assert!(!node(1, with_learner(), None).is_ready(4), "this node does not lead");
}

#[test]
fn a_learner_may_be_promoted_only_with_the_newest_configuration() {
    let (mut raft, now) = leader(with_learner(), None);
    let _ = accept(&mut raft, now, 2, 1);
    let _ = accept(&mut raft, now, 4, 1);
    assert!(raft.is_ready(4));
    let add = Change::Add { id: 5, name: String::new() };
    assert_eq!(change(&mut raft, now, add), Ok(2));
    assert!(!raft.is_ready(4), "it lacks the entry with the configuration");
    let _ = accept(&mut raft, now, 4, 2);
    assert!(raft.is_ready(4));
}

#[test]
fn a_member_is_live_for_four_of_the_longest_timeouts_after_its_last_reply() {
    let (mut raft, now) = leader(with_learner(), None);
    let _ = accept(&mut raft, now, 3, 0);
    let _ = accept(&mut raft, now, 4, 1);
    // The replies of 2 keep the leader in its role.
    for later in [400, 800, 1_200, 1_600, 2_000] {
        let _ = accept(&mut raft, now + later, 2, 1);
    }
    assert!(raft.is_live(4) && raft.is_ready(4), "after 2000 ms");
    let _ = raft.handle(now + 2_001, Input::Tick);
    assert!(raft.is_leader() && !raft.is_live(4) && !raft.is_ready(4), "after 2001 ms");
    assert_eq!((raft.last_heard(4), raft.last_heard(2)), (Some(now), Some(now + 2_000)));
    assert!(raft.is_live(1), "the leader itself");
    assert!(raft.is_live(2) && !raft.is_live(9), "9 is no member");
    let _ = accept(&mut raft, now + 2_001, 3, 0);
    assert_eq!((raft.is_live(3), raft.last_heard(3)), (false, None), "3 has accepted nothing");
    let _ = accept(&mut raft, now + 2_001, 3, 1);
    assert_eq!((raft.is_live(3), raft.last_heard(3)), (true, Some(now + 2_001)));
    let _ = raft.handle(now + 2_502, Input::Tick);
    assert!(!raft.is_leader(), "2 and 3 were silent");
    assert!(!raft.is_live(1) && !raft.is_live(2) && raft.last_heard(2).is_none());
}

#[test]
fn a_node_knows_whether_it_is_a_voter() {
    assert!(node(3, with_learner(), None).is_voter());
    assert!(!node(4, with_learner(), None).is_voter(), "a learner");
    assert!(!node(5, Members::default(), None).is_voter(), "not a member yet");
}

#[test]
fn a_leader_that_is_being_removed_does_not_count_itself() {
    // Dissertation §4.2.2.
    let (mut raft, now) = leader(with_learner(), None);
    let _ = accept(&mut raft, now, 2, 1);
    assert_eq!(change(&mut raft, now, Change::Remove(1)), Ok(2));
    assert!(raft.is_leader() && !raft.is_voter());
    let output = accept(&mut raft, now, 4, 2);
    assert!(asked_to_lead(&output).is_empty());
    let output = accept(&mut raft, now + 400, 2, 2);
    assert_eq!((raft.commit_index(), raft.is_leader()), (1, true), "one of two voters");
    assert!(asked_to_lead(&output).is_empty());
    let mut silent = raft.clone();
    let output = accept(&mut raft, now + 400, 3, 2);
    assert_eq!((raft.commit_index(), raft.is_leader()), (2, false));
    assert_eq!(asked_to_lead(&output), [2], "of two voters with the same log the lower id");
    assert_eq!(output.deadline, Some(Time::MAX), "it can never be a candidate again");
    // CheckQuorum: 2 alone is no majority of 2 and 3.
    let _ = silent.handle(now + 500, Input::Tick);
    assert!(silent.is_leader());
    let _ = silent.handle(now + 501, Input::Tick);
    assert!(!silent.is_leader());
}

#[test]
fn a_node_that_cannot_be_a_candidate_waits_for_a_leader_without_a_deadline() {
    for (id, members) in [(4, with_learner()), (5, Members::default())] {
        let mut raft = node(id, members, None);
        assert_eq!(raft.deadline(), Time::MAX, "it knows no leader");
        let output = receive(&mut raft, 100, 2, 1, append(zero(), vec![], Wants::Reply));
        let deadline = output.deadline.expect("always there");
        assert!((400..=600).contains(&deadline), "the leader's silence counts: {deadline}");
        let output = raft.handle(deadline, Input::Tick);
        assert_eq!((raft.leader(), output.deadline), (None, Some(Time::MAX)));
    }
}

#[test]
fn leadership_is_transferred_to_another_voter_even_if_the_wish_names_none() {
    for wish in [Some(1), Some(4), Some(9), None] {
        let (mut raft, now) = leader(with_learner(), None);
        let _ = accept(&mut raft, now, 2, 1);
        let _ = accept(&mut raft, now, 4, 1);
        let output = raft.handle(now, Input::Transfer(wish));
        assert_eq!(asked_to_lead(&output), [2], "{wish:?}");
    }
}

#[test]
fn a_learner_with_the_longest_log_is_not_asked_to_lead() {
    let (mut raft, now) = leader(with_learner(), None);
    let _ = accept(&mut raft, now, 2, 1);
    propose(&mut raft, now, 1);
    let _ = accept(&mut raft, now, 4, 2);
    let output = raft.handle(now, Input::Transfer(None));
    assert!(asked_to_lead(&output).is_empty(), "2 lacks an entry");
    let output = accept(&mut raft, now, 2, 2);
    assert_eq!(asked_to_lead(&output), [2]);
}

#[test]
fn only_the_leader_can_ask_and_only_a_voter_can_be_asked_to_campaign_at_once() {
    let mut raft = node(1, voters(), None);
    let mut learner = node(4, with_learner(), None);
    for raft in [&mut raft, &mut learner] {
        let _ = receive(raft, 1, 2, 1, append(zero(), vec![], Wants::Reply));
    }
    let _ = receive(&mut raft, 1, 3, 1, Body::TimeoutNow);
    assert_eq!((raft.role(), raft.term()), (RoleName::Follower, 1), "3 does not lead");
    let _ = receive(&mut raft, 1, 2, 1, Body::TimeoutNow);
    assert_eq!((raft.role(), raft.term()), (RoleName::Candidate, 2));
    let output = receive(&mut learner, 1, 2, 1, Body::TimeoutNow);
    assert_eq!((learner.role(), learner.term()), (RoleName::Follower, 1));
    assert!(output.messages.is_empty());
}

#[test]
fn a_learner_that_misses_its_leader_wakes_the_voters_only_where_nodes_quiesce() {
    for (interval, woken) in [(Some(10_000), vec![1, 2, 3]), (None, vec![])] {
        let mut raft = node(4, with_learner(), interval);
        let _ = receive(&mut raft, 100, 2, 1, append(zero(), vec![], Wants::Reply));
        let output = raft.handle(raft.deadline(), Input::Tick);
        let asked: Vec<_> = output.messages.iter().map(|m| m.to).collect();
        assert_eq!((asked, raft.role()), (woken, RoleName::Follower), "{interval:?}");
        let is_pre_vote = |body: &Body| *body == Body::PreVote { last: zero() };
        assert!(output.messages.iter().all(|m| is_pre_vote(&m.message.body)));
    }
    // A learner that has never heard a leader has nothing to miss.
    let output = node(4, with_learner(), Some(10_000)).handle(1_000, Input::Tick);
    assert!(output.messages.is_empty());
}

#[test]
fn a_follower_quiesces_only_if_it_is_asked_to_and_has_the_leaders_log() {
    let cases = [
        (zero(), Wants::Quiesce, Some(10_000), true),
        (zero(), Wants::Reply, Some(10_000), false),
        (zero(), Wants::NoReply, Some(10_000), false),
        // The log check rejects the message.
        (Position::new(1, 1), Wants::Quiesce, Some(10_000), false),
        (zero(), Wants::Quiesce, None, false),
    ];
    for (prev, wants, interval, quiesces) in cases {
        let mut raft = node(1, voters(), interval);
        let _ = receive(&mut raft, 100, 2, 1, append(prev, vec![], wants));
        assert_eq!(raft.is_quiesced(), quiesces, "{prev} {wants:?} {interval:?}");
        let silence = if quiesces { 30_300..=30_500 } else { 300..=500 };
        assert!(silence.contains(&(raft.deadline() - 100)), "{}", raft.deadline());
    }
}

#[test]
fn a_quiesced_follower_counts_its_leaders_silence_from_when_it_is_woken() {
    let mut raft = node(1, voters(), Some(10_000));
    let _ = receive(&mut raft, 100, 2, 1, append(zero(), vec![], Wants::Quiesce));
    let _ = raft.handle(9_000, Input::Tick);
    assert!(raft.is_quiesced() && raft.is_sticky());
    let _ = raft.handle(9_000, Input::Wake);
    assert!(!raft.is_quiesced());
    assert!((9_300..=9_500).contains(&raft.deadline()), "{}", raft.deadline());
    let _ = raft.handle(9_299, Input::Tick);
    assert!(raft.is_sticky());
    // The next message of the leader ends it as well.
    let _ = receive(&mut raft, 9_299, 2, 1, append(zero(), vec![], Wants::Quiesce));
    assert!(raft.is_quiesced());
    let _ = receive(&mut raft, 9_299, 2, 1, append(zero(), vec![], Wants::Reply));
    assert!(!raft.is_quiesced());
}

#[test]
fn an_idle_leader_asks_followers_that_have_everything_to_quiesce() {
    let (mut raft, now) = leader(voters(), Some(10_000));
    let _ = accept(&mut raft, now, 2, 1);
    let output = raft.handle(now + 50, Input::Tick);
    assert_eq!(wants(&output), [(2, Wants::Quiesce), (3, Wants::Reply)], "3 has not replied");
    let (mut raft, now) = leader(voters(), None);
    let _ = accept(&mut raft, now, 2, 1);
    let output = raft.handle(now + 50, Input::Tick);
    assert_eq!(wants(&output), [(2, Wants::Reply), (3, Wants::Reply)], "nodes do not quiesce");
}

#[test]
fn a_leader_with_a_pending_read_asks_nobody_to_quiesce() {
    let (mut raft, now) = leader(voters(), Some(10_000));
    let _ = accept(&mut raft, now, 2, 1);
    // The round is confirmed, but the index is not committed yet.
    let _ = raft.handle(now, Input::Confirm { id: 5, at_least: 9 });
    let output = accept_round(&mut raft, now, 2, 1, 1);
    assert!(output.reads.is_empty());
    let output = raft.handle(now + 50, Input::Tick);
    assert_eq!(wants(&output), [(2, Wants::Reply), (3, Wants::Reply)]);
}

#[test]
fn a_leader_that_transfers_its_leadership_asks_nobody_to_quiesce() {
    let (mut raft, now) = leader(voters(), Some(10_000));
    let _ = accept(&mut raft, now, 2, 1);
    let _ = raft.handle(now, Input::Transfer(Some(3)));
    assert!(!raft.takes_proposals());
    let output = raft.handle(now + 50, Input::Tick);
    assert_eq!(wants(&output), [(2, Wants::Reply), (3, Wants::Reply)]);
}

#[test]
fn a_leader_with_an_uncommitted_entry_asks_nobody_to_quiesce() {
    let (mut raft, now) = leader(voters(), Some(10_000));
    let _ = accept(&mut raft, now, 2, 1);
    // The leader's own write of the entry takes long.
    let _ = raft.handle(now, Input::Propose(vec!["x".into()]));
    let _ = accept(&mut raft, now, 2, 2);
    assert_eq!(raft.commit_index(), 1);
    let output = raft.handle(now + 50, Input::Tick);
    assert_eq!(wants(&output), [(2, Wants::Reply), (3, Wants::Reply)]);
}

/// A leader of three whose followers were asked to quiesce at the returned time, and replied 1 ms
/// later.
fn quiesced() -> (Raft, Time) {
    let (mut raft, now) = leader(voters(), Some(10_000));
    for from in [2, 3] {
        let _ = accept(&mut raft, now, from, 1);
    }
    let asked = now + 50;
    let output = raft.handle(asked, Input::Tick);
    assert_eq!(wants(&output), [(2, Wants::Quiesce), (3, Wants::Quiesce)]);
    for from in [2, 3] {
        let _ = accept(&mut raft, asked + 1, from, 1);
    }
    assert_eq!(raft.deadline(), asked + 10_000);
    (raft, asked)
}

#[test]
fn quiesced_followers_that_reply_to_their_rare_heartbeats_stay_quiesced() {
    let (mut raft, asked) = quiesced();
    for heartbeat in [asked + 10_000, asked + 20_000, asked + 30_000] {
        assert!(wants(&raft.handle(heartbeat - 1, Input::Tick)).is_empty());
        let output = raft.handle(heartbeat, Input::Tick);
        assert_eq!(wants(&output), [(2, Wants::Quiesce), (3, Wants::Quiesce)]);
        // A reply in the same millisecond counts, too.
        let _ = accept(&mut raft, heartbeat, 2, 1);
        let _ = accept(&mut raft, heartbeat + 1, 3, 1);
        assert_eq!(raft.deadline(), heartbeat + 10_000);
    }
}

#[test]
fn a_leader_misses_quiesced_followers_that_do_not_reply_to_a_rare_heartbeat() {
    let (mut raft, asked) = quiesced();
    let output = raft.handle(asked + 10_000, Input::Tick);
    assert_eq!(wants(&output), [(2, Wants::Quiesce), (3, Wants::Quiesce)]);
    let output = raft.handle(asked + 10_001, Input::Tick);
    assert!(wants(&output).is_empty(), "the reply may take a while");
    let next = asked + 20_000;
    assert_eq!(output.deadline, Some(next));
    // Nobody has replied: from now on silence counts.
    let output = raft.handle(next, Input::Tick);
    assert_eq!(wants(&output), [(2, Wants::Reply), (3, Wants::Reply)]);
    assert_eq!(output.deadline, Some(next + 50));
    let _ = raft.handle(next + 500, Input::Tick);
    assert!(raft.is_leader());
    let _ = raft.handle(next + 501, Input::Tick);
    assert!(!raft.is_leader());
}

#[test]
fn a_leader_that_is_woken_sends_a_heartbeat_at_once() {
    let (mut raft, asked) = quiesced();
    let output = raft.handle(asked + 5_000, Input::Wake);
    assert_eq!(wants(&output), [(2, Wants::Reply), (3, Wants::Reply)]);
    assert_eq!(output.deadline, Some(asked + 5_050));
}

#[test]
fn leadership_can_be_transferred_to_a_quiesced_follower() {
    let (mut raft, asked) = quiesced();
    let output = raft.handle(asked + 9_000, Input::Transfer(None));
    assert_eq!(asked_to_lead(&output), [2], "its silence says nothing");
}

#[test]
fn an_entry_ends_the_silence() {
    let (mut raft, asked) = quiesced();
    let output = raft.handle(asked + 5_000, Input::Propose(vec!["x".into()]));
    assert_eq!(wants(&output), [(2, Wants::Reply), (3, Wants::Reply)]);
    let mut follower = node(1, voters(), Some(10_000));
    let _ = receive(&mut follower, 100, 2, 1, append(zero(), vec![], Wants::Quiesce));
    let entry = Entry { at: Position::new(1, 1), payload: Payload::Noop };
    let _ = receive(&mut follower, 200, 2, 1, append(zero(), vec![entry], Wants::Reply));
    assert!(!follower.is_quiesced());
    assert!((500..=700).contains(&follower.deadline()));
}
