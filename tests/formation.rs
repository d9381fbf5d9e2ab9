//! One node that forms a cluster: its answers to single messages, and when it does what.
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

/// A node of a cluster of two, which has said hello at 1,000.
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

fn hear(node: &mut Formation, now: u64, from: &Member, body: Body) -> Output {
    node.handle_message(now, Message { from: from.clone(), body })
}

fn bodies(output: &Output) -> Vec<(&To, &Body)> {
    output.messages.iter().map(|(to, message)| (to, &message.body)).collect()
}

fn is_quiet(output: &Output) -> bool {
    output.messages.is_empty() && output.events.is_empty()
}

/// `a`, in a cluster with `b`.
fn formed() -> (Formation, Member, Set) {
    let (mut a, b) = (node("a"), member("b", 7));
    let _ = hear(&mut a, 1_001, &b, hello(2, None, false));
    let both = set(&[&a.me().clone(), &b]);
    let output = hear(&mut a, 1_002, &b, hello(2, Some(both.hash()), false));
    assert_eq!(output.events, [Event::Formed(both.clone())]);
    (a, b, both)
}

#[test]
fn a_set_has_members_that_can_be_told_apart() {
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
fn who_is_nobody_is_not_heard() {
    let mut a = node("a");
    for nobody in [member("b", 0), member("", 7), member(&"x".repeat(256), 7)] {
        assert!(is_quiet(&hear(&mut a, 1_001, &nobody, hello(2, None, true))), "{nobody:?}");
    }
    assert_eq!(a.present(), 1);
}

#[test]
fn its_own_words_come_back_and_mean_nothing() {
    let mut a = node("a");
    let former = a.me().clone();
    assert!(is_quiet(&hear(&mut a, 1_001, &former, hello(2, None, true))));
    let _ = hear(&mut a, 1_001, &member("b", 7), hello(2, None, false));
    let _ = a.handle_tick(a.gives_up_at().expect("it has proposed"));
    assert_ne!(*a.me(), former, "it has withdrawn");
    assert!(is_quiet(&hear(&mut a, 9_000, &former, hello(2, None, true))));
    // Another one of its name is something else, and told once.
    let output = hear(&mut a, 9_000, &member("a", 7), hello(2, None, true));
    assert_eq!((output.messages.len(), output.events), (0, vec![Event::DuplicateId]));
    assert!(is_quiet(&hear(&mut a, 9_000, &member("a", 8), hello(2, None, true))));
}

#[test]
fn who_expects_another_number_is_told_and_so_is_the_user_once() {
    let (mut a, b) = (node("a"), member("b", 7));
    let output = hear(&mut a, 1_001, &b, hello(3, None, true));
    assert_eq!(output.events, [Event::SizeMismatch { id: "b".into(), size: 3 }]);
    assert_eq!(bodies(&output), [(&To::Member(b.clone()), &hello(2, None, false))]);
    assert!(is_quiet(&hear(&mut a, 1_002, &b, hello(3, None, true))));
    assert_eq!(a.present(), 1, "it is not one of us");
    let (mut a, ..) = formed();
    let c = member("c", 8);
    let output = hear(&mut a, 1_003, &c, hello(3, None, true));
    assert_eq!(bodies(&output), [(&To::Member(c), &hello(2, None, false))]);
}

#[test]
fn who_is_not_named_stays_outside() {
    let (mut a, _) = started("a", ids(&["a", "b"]));
    assert_eq!(a.size(), 2);
    let c = member("c", 7);
    let output = hear(&mut a, 1_001, &c, hello(2, None, true));
    assert_eq!(output.events, [Event::NotAMember { id: "c".into() }]);
    assert!(output.messages.is_empty() && a.present() == 1);
    assert!(is_quiet(&hear(&mut a, 1_002, &c, hello(2, None, true))));
    let proposal = Body::Propose { set: set(&[&a.me().clone(), &c]) };
    let output = hear(&mut a, 1_003, &c, proposal);
    assert_eq!(bodies(&output), [(&To::Member(c.clone()), &hello(2, None, false))]);
    let b = member("b", 8);
    let _ = hear(&mut a, 1_004, &b, hello(2, None, false));
    let both = set(&[&a.me().clone(), &b]);
    let _ = hear(&mut a, 1_005, &b, hello(2, Some(both.hash()), false));
    let output = hear(&mut a, 1_006, &c, hello(2, None, true));
    let (why, members) = (Refusal::NotAMember, vec!["a".into(), "b".into()]);
    assert_eq!(bodies(&output), [(&To::Member(c), &Body::Refuse { why, members })]);
}

#[test]
fn the_smallest_id_proposes_when_all_are_there() {
    let (mut a, output) = started("a", Plan::Size(3));
    assert_eq!(bodies(&output), [(&To::Everyone, &hello(3, None, true))]);
    let (b, c, d) = (member("b", 7), member("c", 8), member("d", 9));
    let output = hear(&mut a, 1_001, &d, hello(3, None, true));
    assert_eq!(bodies(&output), [(&To::Member(d.clone()), &hello(3, None, false))]);
    assert_eq!((a.present(), a.size()), (2, 3));
    let output = hear(&mut a, 1_002, &c, hello(3, None, false));
    let three = set(&[&a.me().clone(), &c, &d]);
    let proposal = Body::Propose { set: three.clone() };
    let to = |m: &Member| To::Member(m.clone());
    assert_eq!(bodies(&output), [(&to(&c), &proposal), (&to(&d), &proposal)]);
    // Bound, it does not look for others; it tells them so.
    let bound = hello(3, Some(three.hash()), false);
    let output = hear(&mut a, 1_003, &b, hello(3, None, true));
    assert_eq!(bodies(&output), [(&to(&b), &bound)]);
    // It repeats the proposal to who has not accepted.
    let _ = hear(&mut a, 1_004, &c, bound.clone());
    let output = a.handle_tick(a.deadline().expect("forming"));
    let ask = hello(3, Some(three.hash()), true);
    assert_eq!(bodies(&output), [(&To::Everyone, &ask), (&to(&d), &proposal)]);
    // All have accepted: it says so, and that is that.
    let output = hear(&mut a, 1_200, &d, bound);
    let formed = Body::Formed { set: three.clone() };
    assert_eq!(bodies(&output), [(&to(&c), &formed), (&to(&d), &formed)]);
    assert_eq!(output.events, [Event::Formed(three.clone())]);
    assert_eq!((a.set(), a.set_hash(), a.deadline()), (Some(&three), three.hash(), None));

    let mut b = node("b");
    let output = hear(&mut b, 1_001, &member("c", 7), hello(2, None, false));
    assert_eq!(output.messages.len(), 1, "b is before c");
    let mut c = node("c");
    let output = hear(&mut c, 1_001, &member("b", 7), hello(2, None, false));
    assert!(is_quiet(&output), "and c waits for b");
}

#[test]
fn a_proposal_is_accepted_from_a_member_for_this_start_of_this_node() {
    let (a, c) = (member("a", 7), member("c", 9));
    let wrong = |b: &Member| {
        [set(&[&a, &member("b", 1)]), set(&[&a, &c]), set(&[b, &c]), set(&[&a, b, &c])]
    };
    let mut b = node("b");
    for set in wrong(&b.me().clone()) {
        let output = hear(&mut b, 1_001, &a, Body::Propose { set: set.clone() });
        assert_eq!(bodies(&output), [(&To::Member(a.clone()), &hello(2, None, false))], "{set:?}");
    }
    let both = set(&[&a, &b.me().clone()]);
    let output = hear(&mut b, 1_001, &a, Body::Propose { set: both.clone() });
    let bound = hello(2, Some(both.hash()), false);
    // With two, the proposer and this node are all.
    assert_eq!(bodies(&output)[0], (&To::Member(a.clone()), &bound));
    assert_eq!(output.events, [Event::Formed(both)]);

    let (mut b, _) = started("b", Plan::Size(3));
    let three = set(&[&a, &b.me().clone(), &c]);
    let output = hear(&mut b, 1_001, &a, Body::Propose { set: three.clone() });
    let bound = hello(3, Some(three.hash()), false);
    let to = |m: &Member| To::Member(m.clone());
    assert_eq!(bodies(&output), [(&to(&a), &bound), (&to(&c), &bound)]);
    assert!(output.events.is_empty(), "c has not accepted");
    // Another set is not accepted now.
    let other = set(&[&b.me().clone(), &c, &member("d", 3)]);
    let output = hear(&mut b, 1_002, &c, Body::Propose { set: other });
    assert_eq!(bodies(&output), [(&to(&c), &bound)]);
    let output = hear(&mut b, 1_003, &c, Body::Formed { set: three.clone() });
    assert_eq!(output.events, [Event::Formed(three)], "somebody saw that all have");
}

#[test]
fn formed_counts_for_the_set_to_which_a_node_is_bound() {
    let (a, c) = (member("a", 7), member("c", 9));
    let (mut b, _) = started("b", Plan::Size(3));
    let three = set(&[&a, &b.me().clone(), &c]);
    assert!(is_quiet(&hear(&mut b, 1_001, &a, Body::Formed { set: three.clone() })), "not bound");
    let _ = hear(&mut b, 1_001, &a, Body::Propose { set: three });
    let other = set(&[&b.me().clone(), &c, &member("d", 3)]);
    assert!(is_quiet(&hear(&mut b, 1_001, &a, Body::Formed { set: other })));
    assert_eq!(b.set(), None);
}

#[test]
fn a_set_that_does_not_fill_up_is_given_up_by_its_proposer_first() {
    let (mut a, b) = (node("a"), member("b", 7));
    let _ = hear(&mut a, 1_001, &b, hello(2, None, false));
    let mine = a.gives_up_at().expect("bound");
    assert!((1_001 + 4_000..=1_001 + 6_000).contains(&mine), "{mine}");
    let (mut c, _) = started("c", Plan::Size(3));
    let three = set(&[&member("a", 3), &b, &c.me().clone()]);
    let _ = hear(&mut c, 1_001, &b, Body::Propose { set: three });
    let others = c.gives_up_at().expect("bound");
    assert!((1_001 + 8_000..=1_001 + 10_000).contains(&others), "{others}");
    let before = a.me().clone();
    let _ = a.handle_tick(mine - 1);
    assert_eq!((a.me(), a.gives_up_at()), (&before, Some(mine)));
    let output = a.handle_tick(mine);
    assert_ne!(*a.me(), before, "to that set it has crashed");
    assert_eq!(output.messages[0].1.from, *a.me());
    assert_eq!(bodies(&output), [(&To::Everyone, &hello(2, None, true))]);
    // It does not propose again at once, lest two withdraw from each other for ever.
    let again = a.deadline().expect("forming");
    assert!((mine + 10..=mine + 100).contains(&again), "{again}");
    let output = hear(&mut a, again - 1, &b, hello(2, None, false));
    assert!(is_quiet(&output), "{output:?}");
    let output = a.handle_tick(again);
    assert!(bodies(&output).iter().any(|(_, body)| matches!(body, Body::Propose { .. })));
}

#[test]
fn what_is_heard_too_late_completes_nothing_unless_all_have_accepted() {
    let (mut a, b) = (node("a"), member("b", 7));
    let _ = hear(&mut a, 1_001, &b, hello(2, None, false));
    let (both, late) = (set(&[&a.me().clone(), &b]), a.gives_up_at().expect("bound"));
    let mut frozen = a.clone();
    let _ = hear(&mut a, late, &b, hello(2, Some(both.hash()), false));
    assert_eq!(a.set(), None, "the others have given it up");
    assert!(!both.members().contains(a.me()));
    let output = hear(&mut frozen, late, &b, Body::Formed { set: both.clone() });
    assert_eq!(output.events, [Event::Formed(both)]);
}

#[test]
fn of_two_sets_the_one_with_the_smaller_hash_stays() {
    let (mut a, b) = (node("a"), member("b", 7));
    let _ = hear(&mut a, 1_001, &b, hello(2, None, false));
    let (me, hash) = (a.me().clone(), set(&[&a.me().clone(), &b]).hash());
    let _ = hear(&mut a, 1_002, &b, hello(2, Some(hash + 1), false));
    let _ = hear(&mut a, 1_002, &member("c", 8), hello(2, Some(1), false));
    assert_eq!((a.me(), a.gives_up_at().is_some()), (&me, true));
    let _ = hear(&mut a, 1_003, &b, hello(2, Some(hash - 1), false));
    assert_ne!(*a.me(), me);
}

#[test]
fn a_member_that_starts_again_makes_the_set_impossible() {
    let (mut a, b) = (node("a"), member("b", 7));
    let _ = hear(&mut a, 1_001, &b, hello(2, None, false));
    let me = a.me().clone();
    let _ = hear(&mut a, 1_002, &member("b", 8), hello(2, None, false));
    assert_ne!(*a.me(), me);
    assert_eq!(a.gives_up_at(), None, "it is bound no more");
}

#[test]
fn a_cluster_that_has_formed_answers_who_comes_late() {
    let (mut a, b, both) = formed();
    let to = |m: &Member| To::Member(m.clone());
    let output = hear(&mut a, 2_000, &b, hello(2, Some(both.hash()), true));
    assert_eq!(bodies(&output), [(&to(&b), &Body::Formed { set: both.clone() })]);
    let members = vec!["a".to_string(), "b".to_string()];
    // Perhaps there is a leader soon.
    assert!(is_quiet(&hear(&mut a, 2_000, &member("b", 8), hello(2, None, true))));
    assert!(is_quiet(&hear(&mut a, 11_999, &member("b", 8), hello(2, None, true))));
    for (late, why) in [
        (member("c", 8), Refusal::Full),
        (member("b", 8), Refusal::Amnesia),
        (member("a", 8), Refusal::DuplicateId),
    ] {
        let output = hear(&mut a, 12_000, &late, hello(2, None, true));
        let refuse = Body::Refuse { why, members: members.clone() };
        assert_eq!(bodies(&output), [(&to(&late), &refuse)]);
        let proposal = Body::Propose { set: set(&[&late, &member("z", 3)]) };
        assert!(is_quiet(&hear(&mut a, 12_000, &late, proposal)));
    }
    let why = Refusal::OtherSet;
    let output = a.handle_other_set(99);
    assert_eq!(bodies(&output), [(&To::Nonce(99), &Body::Refuse { why, members })]);
    assert!(is_quiet(&node("a").handle_other_set(99)), "who forms knows of no other set");
    assert!(is_quiet(&a.handle_tick(99_000)));
}

#[test]
fn who_is_refused_stops_trying_and_who_runs_is_only_told() {
    let refuse = |why| Body::Refuse { why, members: vec!["x".into()] };
    let mut a = node("a");
    let b = member("b", 7);
    let output = hear(&mut a, 1_001, &b, refuse(Refusal::Full));
    let (why, members) = (Refusal::Full, vec!["x".into()]);
    assert_eq!(output.events, [Event::Refused { why, members }]);
    assert_eq!(a.deadline(), None);
    assert!(is_quiet(&hear(&mut a, 1_002, &b, hello(2, None, true))));
    assert!(is_quiet(&a.handle_tick(9_000)));
    let (mut a, b, both) = formed();
    assert!(is_quiet(&hear(&mut a, 2_000, &b, refuse(Refusal::Full))), "it is a member");
    let output = hear(&mut a, 2_000, &b, refuse(Refusal::OtherSet));
    let (why, members) = (Refusal::OtherSet, vec!["x".into()]);
    assert_eq!(output.events, [Event::Refused { why, members }]);
    assert_eq!(a.set(), Some(&both));
}

#[test]
fn goodbyes_are_hints() {
    let (mut a, b, _) = formed();
    let output = hear(&mut a, 2_000, &b, Body::Goodbye);
    assert_eq!(output.events, [Event::Leaving(7)]);
    assert!(is_quiet(&hear(&mut a, 2_000, &member("c", 8), Body::Goodbye)));
    assert_eq!(bodies(&a.handle_close()), [(&To::Member(b.clone()), &Body::Goodbye)]);
    let (mut a, _) = started("a", Plan::Size(3));
    let _ = hear(&mut a, 1_001, &b, hello(3, None, false));
    assert_eq!(a.present(), 2);
    let _ = hear(&mut a, 1_002, &b, Body::Goodbye);
    assert_eq!(a.present(), 1);
    assert!(is_quiet(&a.handle_close()), "who forms owes nobody anything");
}

#[test]
fn who_is_silent_for_four_seconds_is_gone() {
    for (now, there) in [(5_000, 2), (5_001, 1)] {
        let (mut a, _) = started("a", Plan::Size(3));
        let _ = hear(&mut a, 1_001, &member("b", 7), hello(3, None, false));
        let _ = a.handle_tick(now);
        assert_eq!(a.present(), there, "at {now}");
    }
}

#[test]
fn hellos_get_rarer_until_somebody_new_comes() {
    let (mut a, _) = started("a", Plan::Size(3));
    let mut now = 1_000;
    for pause in [100, 200, 400, 800, 1_000, 1_000] {
        assert_eq!(a.deadline(), Some(now + pause));
        assert!(is_quiet(&a.handle_tick(now + pause - 1)));
        now += pause;
        assert_eq!(a.handle_tick(now).messages.len(), 1);
    }
    let b = member("b", 7);
    let _ = hear(&mut a, now, &b, hello(3, None, false));
    let _ = a.handle_tick(now + 1_000);
    assert_eq!(a.deadline(), Some(now + 1_100), "it begins again with short ones");
    let _ = hear(&mut a, now + 1_000, &b, hello(3, None, false));
    let _ = a.handle_tick(now + 1_100);
    assert_eq!(a.deadline(), Some(now + 1_300), "b is not new");
}

#[test]
fn a_member_resumes_where_it_was() {
    let (a, b, both) = formed();
    let me = a.me().clone();
    let plan = Plan::Size(2);
    let mut again = Formation::resume("a".into(), me.nonce, both.clone(), plan, 5_000, 9);
    assert_eq!((again.me(), again.set(), again.set_hash()), (&me, Some(&both), both.hash()));
    assert_eq!(again.deadline(), None);
    assert!(is_quiet(&hear(&mut again, 5_001, &me, hello(2, None, true))), "its own words");
    let output = hear(&mut again, 5_001, &b, hello(2, None, true));
    assert_eq!(bodies(&output), [(&To::Member(b), &Body::Formed { set: both })]);
}

#[test]
fn the_codes_are_stable() {
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
