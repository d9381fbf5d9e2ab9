//! One node that forms a cluster: its answers to single messages, and its deadlines.
#![allow(missing_docs)]

use conflux::formation::{Body, Event, Formation, Member, Message, Output, Plan, Refusal, Set, To};

fn member(id: &str, nonce: u64) -> Member {
    Member { id: id.into(), nonce }
}

fn set(members: &[&Member]) -> Set {
    Set::new(members.iter().copied().cloned().collect()).expect("a set")
}

fn hello(size: u64, bound: Option<u64>, ask: bool) -> Body {
    Body::Hello { size, bound, ask }
}

/// A node of a cluster of two. It has sent its first hello at 1,000 ms.
fn node(id: &str) -> Formation {
    started(id, Plan::Size(2)).0
}

fn started(id: &str, plan: Plan) -> (Formation, Output) {
    let mut node = Formation::new(id.into(), plan, 1_000, 1);
    let output = node.handle_tick(1_000);
    (node, output)
}

fn ids(ids: &[&str]) -> Plan {
    Plan::Ids(ids.iter().map(ToString::to_string).collect())
}

fn receive(node: &mut Formation, now: u64, from: &Member, body: Body) -> Output {
    node.handle_message(now, Message { from: from.clone(), body })
}

fn bodies(output: &Output) -> Vec<(&To, &Body)> {
    output.messages.iter().map(|(to, message)| (to, &message.body)).collect()
}

fn is_quiet(output: &Output) -> bool {
    output.messages.is_empty() && output.events.is_empty()
}

/// `a`, after it has formed a cluster with `b`; with `b` and their set.
fn formed() -> (Formation, Member, Set) {
    let (mut a, b) = (node("a"), member("b", 7));
    let _ = receive(&mut a, 1_001, &b, hello(2, None, false));
    let both = set(&[&a.me().clone(), &b]);
    let output = receive(&mut a, 1_002, &b, hello(2, Some(both.hash()), false));
    assert_eq!(output.events, [Event::Formed(both.clone())]);
    (a, b, both)
}

#[test]
fn a_set_needs_valid_members_with_distinct_ids() {
    let long = |length| "x".repeat(length);
    let bad = [
        vec![],
        vec![member("a", 1), member("a", 2)],
        vec![member("a", 1), member("b", 0)],
        vec![member("a", 1), member("", 2)],
        vec![member("a", 1), member(&long(256), 2)],
    ];
    for members in bad {
        assert_eq!(Set::new(members.clone()), None, "{members:?}");
    }
    let good = Set::new(vec![member("b", 1), member(&long(255), 2), member("a", 3)]);
    let good = good.expect("a set");
    assert_eq!(good.members()[0], member("a", 3), "sorted");
    assert_eq!((good.number(1), good.number(2), good.number(9)), (Some(2), Some(3), None));
    assert_eq!((good.member(1), good.member(0)), (Some(&member("a", 3)), None));
    assert_eq!(good.member(4), None);
    assert_ne!(good.hash(), set(&[&member("a", 3), &member("b", 1)]).hash());
}

#[test]
fn a_message_from_an_invalid_sender_is_ignored() {
    let mut a = node("a");
    for sender in [member("b", 0), member("", 7), member(&"x".repeat(256), 7)] {
        assert!(is_quiet(&receive(&mut a, 1_001, &sender, hello(2, None, true))), "{sender:?}");
    }
    assert_eq!(a.present(), 1);
}

#[test]
fn a_node_ignores_its_own_messages_and_reports_another_node_with_its_id_once() {
    let mut a = node("a");
    let former = a.me().clone();
    assert!(is_quiet(&receive(&mut a, 1_001, &former, hello(2, None, true))));
    let _ = receive(&mut a, 1_001, &member("b", 7), hello(2, None, false));
    let _ = a.handle_tick(a.gives_up_at().expect("it has proposed"));
    assert_ne!(*a.me(), former, "it has withdrawn");
    assert!(is_quiet(&receive(&mut a, 9_000, &former, hello(2, None, true))));
    // Another node with the same id is reported, but only once.
    let output = receive(&mut a, 9_000, &member("a", 7), hello(2, None, true));
    assert_eq!((output.messages.len(), output.events), (0, vec![Event::DuplicateId]));
    assert!(is_quiet(&receive(&mut a, 9_000, &member("a", 8), hello(2, None, true))));
}

#[test]
fn a_node_that_expects_another_size_gets_a_hello_and_is_reported_once() {
    let (mut a, b) = (node("a"), member("b", 7));
    let output = receive(&mut a, 1_001, &b, hello(3, None, true));
    assert_eq!(output.events, [Event::SizeMismatch { id: "b".into(), size: 3 }]);
    assert_eq!(bodies(&output), [(&To::Member(b.clone()), &hello(2, None, false))]);
    assert!(is_quiet(&receive(&mut a, 1_002, &b, hello(3, None, true))));
    assert_eq!(a.present(), 1, "b does not count as present");
    let (mut a, ..) = formed();
    let c = member("c", 8);
    let output = receive(&mut a, 1_003, &c, hello(3, None, true));
    assert_eq!(bodies(&output), [(&To::Member(c), &hello(2, None, false))]);
}

#[test]
fn a_node_that_is_not_among_the_named_members_is_reported_and_later_refused() {
    let (mut a, _) = started("a", ids(&["a", "b"]));
    assert_eq!(a.size(), 2);
    let c = member("c", 7);
    let output = receive(&mut a, 1_001, &c, hello(2, None, true));
    assert_eq!(output.events, [Event::NotAMember { id: "c".into() }]);
    assert!(output.messages.is_empty() && a.present() == 1);
    assert!(is_quiet(&receive(&mut a, 1_002, &c, hello(2, None, true))));
    let proposal = Body::Propose { set: set(&[&a.me().clone(), &c]) };
    let output = receive(&mut a, 1_003, &c, proposal);
    assert_eq!(bodies(&output), [(&To::Member(c.clone()), &hello(2, None, false))]);
    let b = member("b", 8);
    let _ = receive(&mut a, 1_004, &b, hello(2, None, false));
    let both = set(&[&a.me().clone(), &b]);
    let _ = receive(&mut a, 1_005, &b, hello(2, Some(both.hash()), false));
    let output = receive(&mut a, 1_006, &c, hello(2, None, true));
    let (why, members) = (Refusal::NotAMember, vec!["a".into(), "b".into()]);
    assert_eq!(bodies(&output), [(&To::Member(c), &Body::Refuse { why, members })]);
}

#[test]
fn the_node_with_the_smallest_id_proposes_once_enough_nodes_are_there() {
    let (mut a, output) = started("a", Plan::Size(3));
    assert_eq!(bodies(&output), [(&To::Everyone, &hello(3, None, true))]);
    let (b, c, d) = (member("b", 7), member("c", 8), member("d", 9));
    let output = receive(&mut a, 1_001, &d, hello(3, None, true));
    assert_eq!(bodies(&output), [(&To::Member(d.clone()), &hello(3, None, false))]);
    assert_eq!((a.present(), a.size()), (2, 3));
    let output = receive(&mut a, 1_002, &c, hello(3, None, false));
    let three = set(&[&a.me().clone(), &c, &d]);
    let proposal = Body::Propose { set: three.clone() };
    let to = |m: &Member| To::Member(m.clone());
    assert_eq!(bodies(&output), [(&to(&c), &proposal), (&to(&d), &proposal)]);
    // It has accepted a set now, so it does not consider b, but answers it.
    let bound = hello(3, Some(three.hash()), false);
    let output = receive(&mut a, 1_003, &b, hello(3, None, true));
    assert_eq!(bodies(&output), [(&to(&b), &bound)]);
    // It repeats the proposal to the member that has not accepted.
    let _ = receive(&mut a, 1_004, &c, bound.clone());
    let output = a.handle_tick(a.deadline().expect("forming"));
    let ask = hello(3, Some(three.hash()), true);
    assert_eq!(bodies(&output), [(&To::Everyone, &ask), (&to(&d), &proposal)]);
    // When all have accepted, it starts, tells the others, and has no deadline any more.
    let output = receive(&mut a, 1_200, &d, bound);
    let formed = Body::Formed { set: three.clone() };
    assert_eq!(bodies(&output), [(&to(&c), &formed), (&to(&d), &formed)]);
    assert_eq!(output.events, [Event::Formed(three.clone())]);
    assert_eq!((a.set(), a.set_hash(), a.deadline()), (Some(&three), three.hash(), None));

    let mut b = node("b");
    let output = receive(&mut b, 1_001, &member("c", 7), hello(2, None, false));
    assert_eq!(output.messages.len(), 1, "b has the smaller id and proposes");
    let mut c = node("c");
    let output = receive(&mut c, 1_001, &member("b", 7), hello(2, None, false));
    assert!(is_quiet(&output), "c waits for b to propose");
}

#[test]
fn a_proposal_is_accepted_only_from_a_member_and_with_this_node_s_current_nonce() {
    let (a, c) = (member("a", 7), member("c", 9));
    let wrong = |b: &Member| {
        [set(&[&a, &member("b", 1)]), set(&[&a, &c]), set(&[b, &c]), set(&[&a, b, &c])]
    };
    let mut b = node("b");
    for set in wrong(&b.me().clone()) {
        let output = receive(&mut b, 1_001, &a, Body::Propose { set: set.clone() });
        assert_eq!(bodies(&output), [(&To::Member(a.clone()), &hello(2, None, false))], "{set:?}");
    }
    let both = set(&[&a, &b.me().clone()]);
    let output = receive(&mut b, 1_001, &a, Body::Propose { set: both.clone() });
    let bound = hello(2, Some(both.hash()), false);
    // In a cluster of two, the proposer and this node are all members.
    assert_eq!(bodies(&output)[0], (&To::Member(a.clone()), &bound));
    assert_eq!(output.events, [Event::Formed(both)]);

    let (mut b, _) = started("b", Plan::Size(3));
    let three = set(&[&a, &b.me().clone(), &c]);
    let output = receive(&mut b, 1_001, &a, Body::Propose { set: three.clone() });
    let bound = hello(3, Some(three.hash()), false);
    let to = |m: &Member| To::Member(m.clone());
    assert_eq!(bodies(&output), [(&to(&a), &bound), (&to(&c), &bound)]);
    assert!(output.events.is_empty(), "c has not accepted");
    // A second set is not accepted.
    let other = set(&[&b.me().clone(), &c, &member("d", 3)]);
    let output = receive(&mut b, 1_002, &c, Body::Propose { set: other });
    assert_eq!(bodies(&output), [(&to(&c), &bound)]);
    let output = receive(&mut b, 1_003, &c, Body::Formed { set: three.clone() });
    assert_eq!(output.events, [Event::Formed(three)], "c has seen that all have accepted");
}

#[test]
fn a_repeated_proposal_is_answered_to_all_members_because_the_first_answers_may_be_lost() {
    let (a, c) = (member("a", 7), member("c", 9));
    let (mut b, _) = started("b", Plan::Size(3));
    let three = set(&[&a, &b.me().clone(), &c]);
    let bound = hello(3, Some(three.hash()), false);
    let to = |m: &Member| To::Member(m.clone());
    for now in [1_001, 1_101] {
        let output = receive(&mut b, now, &a, Body::Propose { set: three.clone() });
        assert_eq!(bodies(&output), [(&to(&a), &bound), (&to(&c), &bound)], "at {now}");
        assert!(output.events.is_empty(), "c has not accepted");
    }
    // The proposal of the last member that had not accepted completes the set.
    let output = receive(&mut b, 1_201, &c, Body::Propose { set: three.clone() });
    assert_eq!(output.events, [Event::Formed(three)]);
}

#[test]
fn formed_counts_only_for_the_set_that_the_node_has_accepted() {
    let (a, c) = (member("a", 7), member("c", 9));
    let (mut b, _) = started("b", Plan::Size(3));
    let three = set(&[&a, &b.me().clone(), &c]);
    assert!(
        is_quiet(&receive(&mut b, 1_001, &a, Body::Formed { set: three.clone() })),
        "it has accepted no set"
    );
    let _ = receive(&mut b, 1_001, &a, Body::Propose { set: three });
    let other = set(&[&b.me().clone(), &c, &member("d", 3)]);
    assert!(is_quiet(&receive(&mut b, 1_001, &a, Body::Formed { set: other })));
    assert_eq!(b.set(), None);
}

#[test]
fn the_proposer_is_the_first_to_withdraw_from_an_incomplete_set() {
    let (mut a, b) = (node("a"), member("b", 7));
    let _ = receive(&mut a, 1_001, &b, hello(2, None, false));
    let mine = a.gives_up_at().expect("bound");
    assert!((1_001 + 4_000..=1_001 + 6_000).contains(&mine), "{mine}");
    let (mut c, _) = started("c", Plan::Size(3));
    let three = set(&[&member("a", 3), &b, &c.me().clone()]);
    let _ = receive(&mut c, 1_001, &b, Body::Propose { set: three });
    let others = c.gives_up_at().expect("bound");
    assert!((1_001 + 8_000..=1_001 + 10_000).contains(&others), "{others}");
    let before = a.me().clone();
    let _ = a.handle_tick(mine - 1);
    assert_eq!((a.me(), a.gives_up_at()), (&before, Some(mine)));
    let output = a.handle_tick(mine);
    assert_ne!(*a.me(), before, "the withdrawal changes the nonce");
    assert_eq!(output.messages[0].1.from, *a.me());
    assert_eq!(bodies(&output), [(&To::Everyone, &hello(2, None, true))]);
    // It does not propose again at once, or two nodes could withdraw from each other's sets for
    // ever.
    let again = a.deadline().expect("forming");
    assert!((mine + 10..=mine + 100).contains(&again), "{again}");
    let output = receive(&mut a, again - 1, &b, hello(2, None, false));
    assert!(is_quiet(&output), "{output:?}");
    let output = a.handle_tick(again);
    assert!(bodies(&output).iter().any(|(_, body)| matches!(body, Body::Propose { .. })));
}

#[test]
fn a_late_hello_does_not_complete_a_set_but_a_late_formed_does() {
    let (mut a, b) = (node("a"), member("b", 7));
    let _ = receive(&mut a, 1_001, &b, hello(2, None, false));
    let (both, late) = (set(&[&a.me().clone(), &b]), a.gives_up_at().expect("bound"));
    let mut frozen = a.clone();
    let _ = receive(&mut a, late, &b, hello(2, Some(both.hash()), false));
    assert_eq!(a.set(), None, "the others have withdrawn from the set");
    assert!(!both.members().contains(a.me()));
    let output = receive(&mut frozen, late, &b, Body::Formed { set: both.clone() });
    assert_eq!(output.events, [Event::Formed(both)]);
}

#[test]
fn a_node_withdraws_when_a_member_has_accepted_a_set_with_a_smaller_hash() {
    let (mut a, b) = (node("a"), member("b", 7));
    let _ = receive(&mut a, 1_001, &b, hello(2, None, false));
    let (me, hash) = (a.me().clone(), set(&[&a.me().clone(), &b]).hash());
    let _ = receive(&mut a, 1_002, &b, hello(2, Some(hash + 1), false));
    let _ = receive(&mut a, 1_002, &member("c", 8), hello(2, Some(1), false));
    assert_eq!((a.me(), a.gives_up_at().is_some()), (&me, true));
    let _ = receive(&mut a, 1_003, &b, hello(2, Some(hash - 1), false));
    assert_ne!(*a.me(), me);
}

#[test]
fn a_node_withdraws_when_a_member_of_its_set_starts_again() {
    let (mut a, b) = (node("a"), member("b", 7));
    let _ = receive(&mut a, 1_001, &b, hello(2, None, false));
    let me = a.me().clone();
    let _ = receive(&mut a, 1_002, &member("b", 8), hello(2, None, false));
    assert_ne!(*a.me(), me);
    assert_eq!(a.gives_up_at(), None, "it has withdrawn");
}

#[test]
fn a_formed_cluster_answers_nodes_that_come_late() {
    let (mut a, b, both) = formed();
    let to = |m: &Member| To::Member(m.clone());
    let output = receive(&mut a, 2_000, &b, hello(2, Some(both.hash()), true));
    assert_eq!(bodies(&output), [(&to(&b), &Body::Formed { set: both.clone() })]);
    let members = vec!["a".to_string(), "b".to_string()];
    // A leader may come within ten seconds.
    assert!(is_quiet(&receive(&mut a, 2_000, &member("b", 8), hello(2, None, true))));
    assert!(is_quiet(&receive(&mut a, 11_999, &member("b", 8), hello(2, None, true))));
    for (late, why) in [
        (member("c", 8), Refusal::Full),
        (member("b", 8), Refusal::Amnesia),
        (member("a", 8), Refusal::DuplicateId),
    ] {
        let output = receive(&mut a, 12_000, &late, hello(2, None, true));
        let refuse = Body::Refuse { why, members: members.clone() };
        assert_eq!(bodies(&output), [(&to(&late), &refuse)]);
        let proposal = Body::Propose { set: set(&[&late, &member("z", 3)]) };
        assert!(is_quiet(&receive(&mut a, 12_000, &late, proposal)));
    }
    let why = Refusal::OtherSet;
    let output = a.handle_other_set(99);
    assert_eq!(bodies(&output), [(&To::Nonce(99), &Body::Refuse { why, members })]);
    assert!(
        is_quiet(&node("a").handle_other_set(99)),
        "before a cluster has formed, no set is another one"
    );
    assert!(is_quiet(&a.handle_tick(99_000)));
}

#[test]
fn a_refusal_stops_a_forming_node_but_not_a_member() {
    let refuse = |why| Body::Refuse { why, members: vec!["x".into()] };
    let mut a = node("a");
    let b = member("b", 7);
    let output = receive(&mut a, 1_001, &b, refuse(Refusal::Full));
    let (why, members) = (Refusal::Full, vec!["x".into()]);
    assert_eq!(output.events, [Event::Refused { why, members }]);
    assert_eq!(a.deadline(), None);
    assert!(is_quiet(&receive(&mut a, 1_002, &b, hello(2, None, true))));
    assert!(is_quiet(&a.handle_tick(9_000)));
    let (mut a, b, both) = formed();
    assert!(is_quiet(&receive(&mut a, 2_000, &b, refuse(Refusal::Full))), "it is a member");
    let output = receive(&mut a, 2_000, &b, refuse(Refusal::OtherSet));
    let (why, members) = (Refusal::OtherSet, vec!["x".into()]);
    assert_eq!(output.events, [Event::Refused { why, members }]);
    assert_eq!(a.set(), Some(&both));
}

#[test]
fn a_member_stops_when_a_later_start_of_it_has_taken_its_place() {
    let (mut a, b, _) = formed();
    let members = vec!["a".to_string(), "b".to_string()];
    let refuse = Body::Refuse { why: Refusal::Replaced, members: members.clone() };
    let output = receive(&mut a, 2_000, &b, refuse);
    assert_eq!(output.events, [Event::Refused { why: Refusal::Replaced, members }]);
    assert_eq!((a.set(), a.deadline()), (None, None));
    assert!(is_quiet(&receive(&mut a, 2_001, &member("c", 8), hello(2, None, true))));
}

#[test]
fn a_node_that_its_cluster_adds_anew_is_joining_and_can_be_refused() {
    let (a, _, _) = formed();
    assert!(!a.is_joining());
    let (mut a, b) = (node("a"), member("b", 7));
    assert!(!a.is_joining());
    let former = set(&[&member("a", 3), &b]);
    let output = receive(&mut a, 1_001, &b, Body::Readmit { set: former.clone() });
    assert_eq!(output.events, [Event::Readmitted(former.clone())]);
    assert!(a.is_joining());
    assert_eq!(a.deadline(), Some(1_101), "it repeats its hello");
    assert!(is_quiet(&a.handle_tick(1_100)));
    assert_eq!(bodies(&a.handle_tick(1_101)), [(&To::Everyone, &hello(2, None, true))]);
    let refuse = |why| Body::Refuse { why, members: vec!["x".into()] };
    let output = receive(&mut a, 1_102, &b, refuse(Refusal::DuplicateId));
    let (why, members) = (Refusal::DuplicateId, vec!["x".into()]);
    assert_eq!(output.events, [Event::Refused { why, members }]);
    assert_eq!((a.set(), a.deadline()), (None, None));
    // A node that restarts with its storage is joining if the set does not have its nonce.
    for (nonce, joining) in [(3, false), (4, true)] {
        let again = Formation::resume("a".into(), nonce, former.clone(), Plan::Size(2), 5_000, 9);
        assert_eq!(again.is_joining(), joining);
    }
}

#[test]
fn a_goodbye_is_only_a_hint() {
    let (mut a, b, _) = formed();
    let output = receive(&mut a, 2_000, &b, Body::Goodbye);
    assert_eq!(output.events, [Event::Leaving(7)]);
    assert!(is_quiet(&receive(&mut a, 2_000, &member("c", 8), Body::Goodbye)));
    assert_eq!(bodies(&a.handle_close()), [(&To::Member(b.clone()), &Body::Goodbye)]);
    let (mut a, _) = started("a", Plan::Size(3));
    let _ = receive(&mut a, 1_001, &b, hello(3, None, false));
    assert_eq!(a.present(), 2);
    let _ = receive(&mut a, 1_002, &b, Body::Goodbye);
    assert_eq!(a.present(), 1);
    assert!(is_quiet(&a.handle_close()), "before a cluster has formed, no goodbye is sent");
}

#[test]
fn a_node_that_is_silent_for_four_seconds_no_longer_counts_as_present() {
    for (now, present) in [(5_000, 2), (5_001, 1)] {
        let (mut a, _) = started("a", Plan::Size(3));
        let _ = receive(&mut a, 1_001, &member("b", 7), hello(3, None, false));
        let _ = a.handle_tick(now);
        assert_eq!(a.present(), present, "at {now}");
    }
}

#[test]
fn hellos_get_rarer_until_a_new_node_appears() {
    let (mut a, _) = started("a", Plan::Size(3));
    let mut now = 1_000;
    for pause in [100, 200, 400, 800, 1_000, 1_000] {
        assert_eq!(a.deadline(), Some(now + pause));
        assert!(is_quiet(&a.handle_tick(now + pause - 1)));
        now += pause;
        assert_eq!(a.handle_tick(now).messages.len(), 1);
    }
    let b = member("b", 7);
    let _ = receive(&mut a, now, &b, hello(3, None, false));
    let _ = a.handle_tick(now + 1_000);
    assert_eq!(a.deadline(), Some(now + 1_100), "the pauses are short again");
    let _ = receive(&mut a, now + 1_000, &b, hello(3, None, false));
    let _ = a.handle_tick(now + 1_100);
    assert_eq!(a.deadline(), Some(now + 1_300), "b is not new");
}

#[test]
fn a_member_resumes_with_its_nonce_and_set() {
    let (a, b, both) = formed();
    let me = a.me().clone();
    let plan = Plan::Size(2);
    let mut again = Formation::resume("a".into(), me.nonce, both.clone(), plan, 5_000, 9);
    assert_eq!((again.me(), again.set(), again.set_hash()), (&me, Some(&both), both.hash()));
    assert_eq!(again.deadline(), None);
    assert!(is_quiet(&receive(&mut again, 5_001, &me, hello(2, None, true))), "its own message");
    let output = receive(&mut again, 5_001, &b, hello(2, None, true));
    assert_eq!(bodies(&output), [(&To::Member(b), &Body::Formed { set: both })]);
}

#[test]
fn the_codes_of_refusals_are_stable() {
    let codes = [
        (Refusal::Full, "CLUSTER_FULL"),
        (Refusal::Amnesia, "AMNESIA"),
        (Refusal::NotAMember, "NOT_A_MEMBER"),
        (Refusal::OtherSet, "OTHER_CLUSTER"),
        (Refusal::DuplicateId, "DUPLICATE_ID"),
        (Refusal::Replaced, "REPLACED"),
    ];
    for (why, code) in codes {
        assert_eq!(why.code(), code);
    }
}
