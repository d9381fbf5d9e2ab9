//! What a host of a fixed cluster reports: its status, its counters, the texts of its errors, and
//! when its timers are due. And how its formation lets the leader add a member that has lost its
//! memory.
#![allow(missing_docs)]

mod common;

use common::host_cluster::{Disk, Hosts, List, failed, forge, size, three};
use common::raft_cluster::Cluster;
use conflux::formation::{self, Body, Event, Formation, Member, Plan, Refusal, Set, To};
use conflux::host::core::Host;
use conflux::host::transport;
use conflux::host::types::{Counters, Input, Notice, Phase};
use conflux::node::Packet;
use conflux::raft::{self, Change, Time};
use conflux::store::Failure;
use conflux::wire::{FrameWriter, Header, hash64};

fn errors(hosts: &Hosts, id: &str) -> Vec<(String, String)> {
    let notices = hosts.host(id).notices.iter();
    let errors = notices.filter_map(|notice| match notice {
        Notice::Error(Failure { code, message }) => Some((code.clone(), message.clone())),
        _ => None,
    });
    errors.collect()
}

fn error(code: &str, message: &str) -> (String, String) {
    (code.into(), message.into())
}

/// How often the status was reported as changed.
fn status_notices(hosts: &Hosts, id: &str) -> usize {
    hosts.host(id).notices.iter().filter(|notice| **notice == Notice::Status).count()
}

/// When the node's Raft is due next, in ms from now on.
fn raft_is_due_in(hosts: &Hosts, id: &str) -> Time {
    hosts.host(id).core.own().raft().expect("it runs").deadline() - hosts.now
}

/// A cluster of the nodes a, b and c with storage, of which one leads.
fn durable() -> Hosts {
    let mut hosts = Hosts::new(1);
    for id in ["a", "b", "c"] {
        hosts.disks.insert(id.into(), Disk::default());
    }
    hosts.form()
}

#[test]
fn the_status_counts_the_nodes_that_are_present_and_each_change_is_reported_once() {
    let mut hosts = Hosts::new(1);
    hosts.start("a", size(3));
    hosts.run(500);
    let status = hosts.host("a").core.status();
    assert_eq!((status.size, status.present, status.phase), (3, 1, Phase::Forming));
    assert_eq!(status_notices(&hosts, "a"), 0, "nothing has changed");
    hosts.start("b", size(3));
    hosts.run(500);
    assert_eq!(hosts.host("a").core.status().present, 2);
    assert_eq!(status_notices(&hosts, "a"), 1);
    hosts.start("c", size(3));
    hosts.run(500);
    let status = hosts.host("a").core.status();
    assert_eq!((status.size, status.present, status.phase), (3, 3, Phase::Member));
    assert_eq!(status.members, ["a", "b", "c"]);
    assert!(hosts.host("a").notices.contains(&Notice::Leader), "there is a leader");
}

#[test]
fn the_status_counts_the_performs_and_reads_that_are_not_settled() {
    let mut hosts = Hosts::new(1);
    hosts.start("a", size(2));
    assert_eq!(hosts.host("a").core.status().waiting, 0);
    hosts.perform("a", "append", "x");
    hosts.read("a");
    assert_eq!(hosts.host("a").core.status().waiting, 2);
}

#[test]
fn the_first_member_of_a_new_cluster_campaigns_after_5_ms_and_the_others_wait() {
    let mut hosts = Hosts::new(1);
    for id in ["a", "b", "c"] {
        hosts.start(id, size(3));
    }
    hosts.deliver_all();
    assert_eq!(raft_is_due_in(&hosts, "a"), 5);
    assert!(raft_is_due_in(&hosts, "b") >= 300 && raft_is_due_in(&hosts, "c") >= 300);
}

#[test]
fn the_first_member_waits_for_an_election_timeout_when_it_starts_again_with_its_storage() {
    let mut hosts = durable();
    hosts.kill("a");
    hosts.run(2_000);
    hosts.start("a", size(3));
    hosts.sync("a");
    assert!(raft_is_due_in(&hosts, "a") >= 300, "there may be a leader");
}

#[test]
fn a_node_with_storage_does_nothing_before_its_storage_has_answered() {
    let mut hosts = Hosts::new(1);
    hosts.disks.insert("a".into(), Disk::default());
    let settings = hosts.settings("a", size(2));
    let mut host = Host::new(settings, List::default(), true, 0, 1);
    for input in [Input::Start, Input::Tick] {
        let output = host.handle(0, input);
        assert_eq!((output.deadline, host.take_frames()), (None, vec![]));
    }
    let output = host.handle(0, Input::Restored(None));
    assert_eq!(host.take_frames().len(), 1, "the hello that had to wait");
    assert!(output.deadline.is_some());
}

#[test]
fn a_node_that_starts_again_alone_shows_the_actions_of_its_log_as_provisional() {
    let mut hosts = durable();
    hosts.perform("a", "append", "x");
    hosts.run(500);
    ["a", "b", "c"].into_iter().for_each(|id| hosts.kill(id));
    hosts.start("a", size(3));
    let host = &hosts.host("a").core;
    assert_eq!((host.status().applied, host.committed().len()), (0, 0), "there is no majority");
    assert_eq!(host.provisional().as_slice(), ["x"]);
}

#[test]
fn a_node_whose_storage_belongs_to_another_node_is_refused() {
    let hosts = durable();
    let file = hosts.disks["a"].file.clone();
    let start = |id: &str, cluster: &str, members: usize| {
        let mut hosts = Hosts::new(2);
        hosts.disks.insert(id.into(), Disk::default());
        let mut settings = hosts.settings(id, size(members));
        settings.cluster = cluster.into();
        let mut host = Host::new(settings, List::default(), true, 0, 1);
        let output = host.handle(0, Input::Restored(Some(file.clone())));
        (host, output.notices)
    };
    let (host, notices) = start("a", "test", 3);
    // The first state of the cluster is in its log, but not known to be committed.
    assert_eq!((host.status().phase, notices), (Phase::Forming, vec![Notice::Members]));
    for (id, cluster, members) in [("b", "test", 3), ("a", "other", 3), ("a", "test", 2)] {
        let (mut host, notices) = start(id, cluster, members);
        let message = format!(
            "storage has node `a` of the cluster `test` with 3 members, and this is `{id}` of \
             `{cluster}` with {members}: give each node a folder of its own"
        );
        assert_eq!(notices, [Notice::Error(Failure::new("STORAGE_MISMATCH", message))]);
        assert_eq!(host.status().phase, Phase::Refused);
        let output = host.handle(0, Input::Start);
        assert_eq!((output.deadline, host.take_frames()), (None, vec![]), "it has stopped");
    }
}

#[test]
fn a_node_whose_storage_cannot_be_read_or_fails_is_refused() {
    let mut hosts = Hosts::new(1);
    let broken = Disk { file: b"no record".to_vec(), ..Disk::default() };
    hosts.disks.insert("a".into(), broken);
    hosts.start("a", size(2));
    let [(code, message)] = &errors(&hosts, "a")[..] else { panic!("one error") };
    assert_eq!(code, "STORAGE_CORRUPT");
    assert!(message.starts_with("what storage has of this node cannot be read ("), "{message}");
    let ticket = hosts.perform("a", "append", "x");
    assert_eq!(failed(hosts.host("a").outcome(ticket)).0, "STORAGE_CORRUPT");
    hosts.start("b", size(2));
    let ticket = hosts.perform("b", "append", "x");
    hosts.handle("b", Input::Failed(Failure::new("STORAGE_FAILED", "the disk is full")));
    assert_eq!(failed(hosts.host("b").outcome(ticket)), ("STORAGE_FAILED", "the disk is full"));
    assert_eq!(hosts.host("b").core.status().phase, Phase::Refused);
    assert_eq!(hosts.host("b").core.deadline(), None);
}

#[test]
fn a_node_that_its_cluster_does_not_take_is_refused_with_the_list_of_members() {
    let mut hosts = three();
    hosts.start("d", size(3));
    hosts.run(100);
    let full = "the cluster is full: it has its 3 members (a, b, c) and takes no other; to start \
                over, close them all";
    assert_eq!(errors(&hosts, "d"), [error("CLUSTER_FULL", full)]);
    assert_eq!(hosts.host("d").core.status().phase, Phase::Refused);
    let ticket = hosts.perform("d", "append", "x");
    assert_eq!(failed(hosts.host("d").outcome(ticket)), ("CLUSTER_FULL", full));
    let before = hosts.host("d").core.status().counters.sent;
    hosts.run(10_000);
    assert_eq!(hosts.host("d").core.status().counters.sent, before, "it is silent");
}

#[test]
fn a_node_reports_others_that_cannot_be_in_its_cluster() {
    let mut hosts = Hosts::new(1);
    hosts.start("a", size(2));
    hosts.start("b", size(3));
    hosts.run(5_000);
    let text = "node `b` has clusterSize 3 and this one 2: no cluster can form of both, give them \
                the same";
    assert_eq!(errors(&hosts, "a"), [error("SIZE_MISMATCH", text)]);
    let mut hosts = Hosts::new(1);
    hosts.start("a", Plan::Ids(["a".into(), "b".into()].into_iter().collect()));
    hosts.start("x", size(2));
    hosts.run(5_000);
    let text = "node `x` is on this channel and not among `members`: it is ignored";
    assert_eq!(errors(&hosts, "a"), [error("NOT_A_MEMBER", text)]);
}

#[test]
fn a_frame_that_cannot_be_read_is_counted_and_its_kind_reported_once() {
    let mut hosts = three();
    let frame = |cluster: &str| {
        let cluster = hash64(&[cluster.as_bytes()]);
        let header = Header { cluster, set: 0, from: 1, to: 0, version: 1 };
        let mut writer = FrameWriter::new(header);
        let (from, body) = (Member { id: "x".into(), nonce: 1 }, Body::Goodbye);
        writer.push(&transport::Message::Formation(formation::Message { from, body }));
        writer.finish().remove(0)
    };
    let mut old = frame("test");
    old[3] = 1;
    let before = hosts.host("a").core.status().counters;
    for frame in [b"nonsense".to_vec(), old, frame("another")] {
        hosts.handle("a", Input::Frame(frame.clone()));
        hosts.handle("a", Input::Frame(frame));
    }
    let received = before.received + 6;
    let expected = Counters { received, bad_frames: 4, foreign_frames: 2, ..before };
    assert_eq!(hosts.host("a").core.status().counters, expected);
    let bad = "this is not a Conflux frame; it is ignored, and so are later ones, which \
               `status().counters` counts";
    let version = "the frame has version 1, and this node speaks version 3: let all tabs load the \
                   same release of the page";
    let other = "frames of another cluster arrive on this channel, and are ignored; this one is \
                 called `test`";
    let expected =
        [error("BAD_FRAME", bad), error("VERSION", version), error("OTHER_CLUSTER", other)];
    assert_eq!(errors(&hosts, "a"), expected);
}

#[test]
fn an_impossible_message_is_counted_and_reported_once_with_the_number_of_its_sender() {
    let mut hosts = three();
    for _ in 0..2 {
        let (term, body) = (1 << 49, raft::Body::TimeoutNow);
        let message = transport::Message::Node(Packet::Raft(raft::Message { term, body }));
        forge(&mut hosts, "b", "a", &[message]);
    }
    assert_eq!(hosts.host("a").core.status().counters.invalid_messages, 2);
    let [(code, message)] = &errors(&hosts, "a")[..] else { panic!("one error") };
    assert_eq!(code, "BAD_MESSAGE");
    assert!(message.starts_with("member 2 sent something impossible: "), "{message}");
}

#[test]
fn a_leader_whose_successor_does_not_answer_closes_after_500_ms() {
    let mut hosts = Hosts::with(1, |hosts| hosts.election_timeout = Some((1_000, 1_500))).form();
    let leader = hosts.leader().expect("a leader");
    let by = hosts.now + 500;
    hosts.handle(&leader, Input::Close);
    for (now, phase) in [(by - 1, Phase::Closing), (by, Phase::Closed)] {
        hosts.now = now;
        hosts.handle(&leader, Input::Tick);
        assert_eq!(hosts.host(&leader).core.status().phase, phase, "at {now} of {by}");
    }
}

#[test]
fn the_last_member_that_closes_does_not_wait_for_the_others() {
    for closed in 0..=2 {
        let mut hosts = three();
        let leader = hosts.leader().expect("a leader");
        let others: Vec<_> = hosts.hosts.keys().filter(|id| **id != leader).cloned().collect();
        for id in others.iter().take(closed) {
            hosts.handle(id, Input::Close);
        }
        hosts.deliver_all();
        hosts.handle(&leader, Input::Close);
        let phase = if closed == 2 { Phase::Closed } else { Phase::Closing };
        assert_eq!(hosts.host(&leader).core.status().phase, phase, "{closed} have closed");
    }
}

/// The nodes a, b and c, whose numbers in Raft are 1, 2 and 3, as the formation of `id` sees them
/// when the node starts with its storage at the time `now`.
fn resumed(id: &str, nonce: u64, now: Time) -> Formation {
    let plan = Plan::Size(3);
    Formation::resume(id.into(), nonce, members_of("abc"), plan, now, 1)
}

/// A set of nodes with these letters as their ids; their nonces are 11, 12 and so on.
fn members_of(ids: &str) -> Set {
    let members = (11..).zip(ids.chars()).map(|(nonce, id)| Member { id: id.into(), nonce });
    Set::new(members.collect()).expect("a set")
}

/// Three Raft nodes, of which the first leads. It has heard from all of them after 5,000 ms.
fn rafts() -> Cluster {
    let mut cluster = Cluster::new(3, 1);
    cluster.start_all();
    cluster.advance(1, 5_000);
    cluster.stabilize();
    assert_eq!((cluster.leader(), cluster.node(1).raft.last_heard(3)), (Some(1), Some(5_000)));
    cluster
}

/// The start of c that has lost its memory.
fn newcomer() -> Member {
    Member { id: "c".into(), nonce: 99 }
}

fn hello_from(node: &mut Formation, now: Time, from: Member) {
    let body = Body::Hello { size: 3, bound: None, ask: true };
    let output = node.handle_message(now, formation::Message { from, body });
    assert_eq!(output, formation::Output::default(), "only the leader acts on it");
    assert!(node.is_review_due(now));
}

#[test]
fn a_leader_removes_a_former_self_that_has_been_silent_for_an_election_timeout() {
    let cluster = rafts();
    // The time counts from the former self's last reply or from the newcomer's first hello,
    // whichever is later.
    for first in [4_990, 5_010] {
        let mut a = resumed("a", 11, first);
        hello_from(&mut a, first, newcomer());
        let removed = first.max(5_000) + 300;
        for (now, change) in [(removed - 1, None), (removed, Some(Change::Remove(3)))] {
            let output = a.handle_raft(now, &cluster.node(1).raft);
            assert_eq!((output.change, output.messages.len()), (change, 0), "at {now}");
            assert_eq!(a.deadline(), Some(now + 60), "when it looks again");
            assert!(!a.is_review_due(now + 59) && a.is_review_due(now + 60));
        }
    }
}

#[test]
fn a_former_self_that_replies_two_seconds_after_the_newcomer_s_hello_counts_as_alive() {
    let cluster = rafts();
    for (first, is_alive) in [(3_001, false), (3_000, true)] {
        let mut a = resumed("a", 11, first);
        hello_from(&mut a, first, newcomer());
        let output = a.handle_raft(5_000, &cluster.node(1).raft);
        assert_eq!(output.change, None);
        let (why, members) =
            (Refusal::DuplicateId, vec!["a".to_string(), "b".to_string(), "c".to_string()]);
        let from = a.me().clone();
        let refusal = formation::Message { from, body: Body::Refuse { why, members } };
        let expected = if is_alive { vec![(To::Member(newcomer()), refusal)] } else { vec![] };
        assert_eq!(output.messages, expected);
        assert_eq!(a.deadline(), (!is_alive).then_some(5_060), "no newcomer is left");
    }
}

#[test]
fn a_leader_forgets_a_newcomer_four_seconds_after_its_last_hello() {
    let cluster = rafts();
    for (now, change) in [(13_999, Some(Change::Remove(3))), (14_000, None)] {
        let mut a = resumed("a", 11, 10_000);
        hello_from(&mut a, 10_000, newcomer());
        let output = a.handle_raft(now, &cluster.node(1).raft);
        assert_eq!((output.change, a.deadline()), (change.clone(), change.map(|_| now + 60)));
    }
}

#[test]
fn a_leader_adds_a_newcomer_and_watches_it_until_it_votes_again() {
    let mut cluster = rafts();
    let mut a = resumed("a", 11, 10_000);
    let _ = a.handle_raft(10_000, &cluster.node(1).raft);
    assert_eq!(a.deadline(), None, "there is nothing to do");
    cluster.handle(1, raft::Input::Change(Change::Remove(3)));
    cluster.stabilize();
    hello_from(&mut a, 10_000, newcomer());
    let output = a.handle_raft(10_000, &cluster.node(1).raft);
    let change = Change::Add { id: 99, name: "c".into() };
    assert_eq!(output.change, Some(change.clone()));
    let (from, body) = (a.me().clone(), Body::Readmit { set: members_of("abc") });
    let readmit = formation::Message { from, body };
    assert_eq!(output.messages, [(To::Member(newcomer()), readmit)]);

    let mut c = resumed("c", 99, 10_000);
    let _ = c.handle_raft(10_000, &cluster.node(2).raft);
    assert!(c.is_joining(), "the committed configuration does not have it");
    cluster.down.insert(99);
    cluster.handle(1, raft::Input::Change(change));
    cluster.stabilize();
    cluster.advance(1, 50);
    cluster.stabilize();
    let _ = c.handle_raft(10_001, &cluster.node(2).raft);
    assert!(!c.is_joining());
    // The leader looks again while there is a learner to promote.
    let output = a.handle_raft(10_001, &cluster.node(1).raft);
    assert_eq!((output.change, output.messages, a.deadline()), (None, vec![], Some(10_061)));
}

#[test]
fn a_leader_that_hands_leadership_over_looks_again_after_an_election_timeout() {
    let mut cluster = rafts();
    let mut a = resumed("a", 11, 10_000);
    hello_from(&mut a, 10_000, newcomer());
    cluster.handle(1, raft::Input::Transfer(Some(2)));
    let output = a.handle_raft(11_000, &cluster.node(1).raft);
    assert_eq!((output.change, a.deadline()), (None, Some(11_300)));
}

#[test]
fn a_node_that_was_removed_is_refused_when_it_asks_for_votes() {
    let mut cluster = rafts();
    let mut b = resumed("b", 12, 10_000);
    let none = formation::Output::default();
    assert_eq!(b.handle_former(3, &cluster.node(2).raft), none, "it is a member");
    cluster.handle(1, raft::Input::Change(Change::Remove(3)));
    cluster.advance(1, 50);
    cluster.stabilize();
    let output = b.handle_former(3, &cluster.node(2).raft);
    let (why, members) = (Refusal::Replaced, vec!["a".into(), "b".into(), "c".into()]);
    let refusal = formation::Message { from: b.me().clone(), body: Body::Refuse { why, members } };
    assert_eq!(output.messages, [(To::Nonce(13), refusal)]);
    assert_eq!(b.handle_former(99, &cluster.node(2).raft), none, "it never was a member");
}

#[test]
fn a_node_joins_only_a_cluster_of_its_size_that_has_its_id_and_not_this_start_of_it() {
    let start = || Formation::new("c".into(), Plan::Size(3), 1_000, 1);
    let me = start().me().clone();
    let with_me = [members_of("ab").members(), &[me]].concat();
    for (set, fits) in [
        (members_of("abc"), true),
        (members_of("bc"), false),
        (members_of("abd"), false),
        (Set::new(with_me).expect("a set"), false),
    ] {
        let mut c = start();
        let (from, body) =
            (members_of("abc").members()[0].clone(), Body::Readmit { set: set.clone() });
        let output = c.handle_message(1_001, formation::Message { from, body });
        let expected = if fits { vec![Event::Readmitted(set.clone())] } else { vec![] };
        assert_eq!((output.events, c.is_joining()), (expected, fits), "{set:?}");
    }
}

#[test]
fn a_formation_that_was_stopped_has_no_cluster_and_answers_nothing() {
    let mut a = resumed("a", 11, 10_000);
    a.stop();
    assert_eq!((a.set(), a.number(), a.deadline()), (None, None, None));
    let body = Body::Hello { size: 3, bound: None, ask: true };
    let output = a.handle_message(10_001, formation::Message { from: newcomer(), body });
    assert_eq!(output, formation::Output::default());
}
