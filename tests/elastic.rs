//! Which host runs which node: the exact effects of single inputs. The simulator of tabs tests what
//! needs several hosts.
#![allow(missing_docs)]

use conflux::elastic::{Body, Effect, Elastic, Input, Message, Record, Registry, StopReason, View};
use conflux::raft::{NodeId, Payload, Raft, Saved};
use conflux::storage::{Fence, admit};

/// A view without nodes.
struct NoNodes;

impl View for NoNodes {
    fn raft(&self, _: NodeId) -> Option<&Raft> {
        None
    }

    fn waiting(&self) -> usize {
        0
    }
}

struct Rig {
    elastic: Elastic,
    now: u64,
}

impl Rig {
    fn new(seed: u64) -> Self {
        Self { elastic: Elastic::new(5, true, 0, seed), now: 0 }
    }

    fn give(&mut self, input: Input) -> Vec<Effect> {
        self.elastic.handle(self.now, input, &NoNodes)
    }

    fn granted(&mut self, node: NodeId) -> Vec<Effect> {
        self.give(Input::Lock { node, granted: true })
    }

    fn loaded(&mut self, node: NodeId, incarnation: u64) -> Vec<Effect> {
        let record = Some(Record { incarnation, epoch: 2, saved: Saved::default() });
        self.give(Input::Loaded { node, record })
    }

    fn receive(&mut self, host: u64, count: u64, body: Body) -> Vec<Effect> {
        self.give(Input::Message(Message { host, count, body }))
    }

    /// A host that runs the first of these nodes as its own and has adopted the others.
    fn settled(nodes: &[NodeId]) -> Self {
        let mut rig = Self::new(1);
        rig.give(Input::Start);
        rig.give(Input::Registry(Some(Registry { incarnation: 7, nodes: nodes.to_vec() })));
        for node in nodes {
            rig.granted(*node);
        }
        for node in nodes {
            rig.loaded(*node, 7);
        }
        assert_eq!(rig.elastic.own(), Some(nodes[0]));
        rig
    }
}

fn broadcasts(effects: &[Effect]) -> Vec<&Body> {
    let broadcasts = effects.iter().filter_map(|effect| match effect {
        Effect::Broadcast(body) => Some(body),
        _ => None,
    });
    broadcasts.collect()
}

fn shown(effects: &[Effect]) -> Vec<String> {
    effects.iter().map(|effect| format!("{effect:?}")).collect()
}

fn register(node: NodeId, incarnation: u64) -> String {
    format!("{:?}", Effect::Register { node, incarnation })
}

fn hello(own: NodeId, nodes: &[NodeId]) -> Body {
    Body::Hello { own: Some(own), nodes: nodes.to_vec(), visible: true, ask: false, version: 1 }
}

#[test]
fn the_first_host_founds_a_cluster_with_a_node_of_its_own() {
    let mut rig = Rig::new(1);
    assert_eq!(shown(&rig.give(Input::Start)), ["ReadRegistry"]);
    let asked = rig.give(Input::Registry(None));
    let [Effect::TryLock(node)] = asked[..] else { panic!("{asked:?}") };
    let made = rig.granted(node);
    let [Effect::Create { incarnation, saved, .. }] = &made[..] else { panic!("{made:?}") };
    // The founder begins with an entry that makes it the only voter. No other node may begin so.
    let Payload::Members(members) = &saved.entries[0].payload else { panic!("{saved:?}") };
    assert!(members.is_voter(node) && members.len() == 1);
    let found = Registry { incarnation: *incarnation, nodes: vec![node] };
    assert_eq!(shown(&rig.give(Input::Created(node))), [format!("Found({found:?})")]);
    let runs = rig.give(Input::Registry(Some(found)));
    assert!(matches!(&runs[0], Effect::Run { own: true, epoch: 1, .. }));
    assert_eq!((rig.elastic.own(), broadcasts(&runs).len()), (Some(node), 1));
}

#[test]
fn a_host_whose_storage_was_deleted_before_it_founds_a_cluster_begins_again() {
    let mut rig = Rig::new(1);
    rig.give(Input::Start);
    let asked = rig.give(Input::Registry(None));
    let [Effect::TryLock(node)] = asked[..] else { panic!("{asked:?}") };
    rig.granted(node);
    rig.give(Input::Created(node));
    // The node's record may be gone, too, and nobody else could lead.
    let effects = shown(&rig.give(Input::Registry(None)));
    assert_eq!(effects, ["ReadRegistry".to_string(), format!("Delete({node})")]);
    let asked = rig.give(Input::Registry(None));
    let [Effect::TryLock(other)] = asked[..] else { panic!("{asked:?}") };
    assert_ne!(other, node);
    assert_eq!(shown(&rig.give(Input::Deleted(node))), [format!("Unlock({node})")]);
    let made = rig.granted(other);
    assert!(matches!(&made[..], [Effect::Create { saved, .. }] if saved.entries.len() == 1));
}

#[test]
fn a_host_that_founds_too_late_joins_the_existing_cluster() {
    let mut rig = Rig::new(1);
    rig.give(Input::Start);
    let asked = rig.give(Input::Registry(None));
    let [Effect::TryLock(mine)] = asked[..] else { panic!("{asked:?}") };
    rig.granted(mine);
    rig.give(Input::Created(mine));
    let there = Registry { incarnation: 9, nodes: vec![4] };
    let effects = rig.give(Input::Registry(Some(there)));
    assert_eq!(shown(&effects), [format!("Delete({mine})"), "TryLock(4)".into()]);
    assert_eq!(rig.elastic.incarnation(), 9);
    // Another host runs node 4, so this host creates a new node. It begins without members.
    let effects = rig.give(Input::Lock { node: 4, granted: false });
    let [Effect::AwaitLock(4), Effect::TryLock(fresh)] = effects[..] else { panic!("{effects:?}") };
    let made = rig.granted(fresh);
    let [Effect::Create { incarnation: 9, saved, .. }] = &made[..] else { panic!("{made:?}") };
    assert!(saved.entries.is_empty());
    assert_eq!(shown(&rig.give(Input::Created(fresh))), [register(fresh, 9)]);
    assert!(matches!(rig.give(Input::Registered(fresh))[0], Effect::Run { own: true, .. }));
}

#[test]
fn a_host_that_hears_another_incarnation_looks_into_the_registry_but_not_for_each_message() {
    let reads =
        |effects: Vec<Effect>| shown(&effects).iter().any(|effect| effect == "ReadRegistry");
    let mut rig = Rig::settled(&[3]);
    rig.now = 5_000;
    rig.give(Input::Tick);
    assert!(rig.give(Input::Foreign).is_empty() && rig.give(Input::Foreign).is_empty());
    assert_eq!(rig.elastic.deadline(), Some(5_000));
    assert!(reads(rig.give(Input::Tick)) && !reads(rig.give(Input::Tick)));
    // The other cluster is over, and its hosts must hear this one.
    rig.give(Input::Registry(Some(Registry { incarnation: 7, nodes: vec![3] })));
    assert_eq!(broadcasts(&rig.give(Input::Tick)).len(), 1);
    rig.give(Input::Foreign);
    rig.now = 6_999;
    assert!(!reads(rig.give(Input::Tick)));
    rig.now = 7_000;
    assert!(reads(rig.give(Input::Tick)));
    assert!(Rig::new(1).give(Input::Foreign).is_empty(), "it has not started");
}

#[test]
fn a_host_that_finds_another_cluster_in_the_registry_starts_anew() {
    let registry = |incarnation| Some(Registry { incarnation, nodes: vec![8] });
    let mut rig = Rig::settled(&[3]);
    assert!(rig.give(Input::Registry(registry(7))).is_empty(), "it is still there");
    // The site's data were deleted, and another host has founded a cluster.
    let effects = shown(&rig.give(Input::Registry(registry(9))));
    assert_eq!(effects, ["Stop(3)", "UnlockAll", "ReadRegistry"]);
    assert_eq!(shown(&rig.give(Input::Registry(registry(9)))), ["TryLock(8)"]);
    assert_eq!(rig.elastic.incarnation(), 9);

    let mut rig = Rig::settled(&[3]);
    let effects = rig.give(Input::Registry(None));
    assert!(matches!(effects[..], [.., Effect::Stopped(StopReason::StorageLost)]), "{effects:?}");
}

#[test]
fn a_host_whose_cluster_is_over_before_its_node_is_registered_starts_anew() {
    let mut rig = Rig::new(1);
    rig.give(Input::Start);
    let asked = rig.give(Input::Registry(Some(Registry { incarnation: 7, nodes: vec![] })));
    let [Effect::TryLock(node)] = asked[..] else { panic!("{asked:?}") };
    rig.granted(node);
    assert_eq!(shown(&rig.give(Input::Created(node))), [register(node, 7)]);
    // Site data were deleted, and another host has founded a cluster. A node of the earlier one
    // would wait in the later one for ever.
    assert_eq!(shown(&rig.give(Input::Lost(node))), ["UnlockAll", "ReadRegistry"]);
}

#[test]
fn a_host_takes_a_free_node_as_its_own_and_adopts_the_other_free_nodes() {
    let mut rig = Rig::new(1);
    rig.give(Input::Start);
    let nodes = vec![3, 5];
    let asked = rig.give(Input::Registry(Some(Registry { incarnation: 7, nodes })));
    assert_eq!(shown(&asked), ["TryLock(3)", "TryLock(5)"]);
    assert_eq!(shown(&rig.granted(3)), ["Load(3)"]);
    assert_eq!(shown(&rig.granted(5)), ["Load(5)"]);
    let first = rig.loaded(5, 7);
    assert!(first.iter().any(|e| matches!(e, Effect::Run { node: 5, own: true, epoch: 2, .. })));
    assert_eq!(broadcasts(&first)[0], &Body::Acquired { node: 5 });
    let second = rig.loaded(3, 7);
    assert!(second.iter().any(|e| matches!(e, Effect::Run { node: 3, own: false, .. })));
    assert_eq!(rig.elastic.running().collect::<Vec<_>>(), [3, 5]);
    assert!(rig.elastic.is_adopted(3) && !rig.elastic.is_adopted(5));
}

#[test]
fn a_node_without_a_record_of_this_cluster_is_deleted_when_its_lock_is_granted() {
    for record in [
        None,
        // A record of an earlier cluster.
        Some(Record { incarnation: 6, epoch: 2, saved: Saved::default() }),
    ] {
        let mut rig = Rig::settled(&[2]);
        rig.receive(50, 1, hello(9, &[9]));
        assert_eq!(shown(&rig.granted(9)), ["Load(9)"]);
        let effects = rig.give(Input::Loaded { node: 9, record });
        assert_eq!(broadcasts(&effects), [&Body::Deleted { node: 9 }]);
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Delete(9))));
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Run { .. })));
        assert_eq!(shown(&rig.give(Input::Deleted(9))), ["Unlock(9)"]);
        assert!(
            rig.receive(50, 2, hello(8, &[8])).iter().any(|e| matches!(e, Effect::AwaitLock(8)))
        );
    }
}

#[test]
fn a_granted_lock_means_that_the_host_that_had_it_is_dead() {
    let mut rig = Rig::settled(&[2]);
    // The first hello of a host does not mean that another host is dead.
    let effects = rig.receive(50, 1, hello(9, &[9]));
    assert_eq!(shown(&effects), ["AwaitLock(9)"]);
    let effects = rig.receive(60, 1, Body::Acquired { node: 9 });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::PeerDown(9))), "{effects:?}");
    // A hello in which the host names the node again changes nothing, and neither does an older
    // hello that arrives late.
    rig.receive(60, 3, hello(4, &[4, 9]));
    assert!(rig.elastic.is_adopted(9));
    rig.receive(60, 2, hello(4, &[4]));
    assert!(rig.elastic.is_adopted(9));
    // A host that says goodbye releases all its nodes.
    let effects = rig.receive(60, 4, Body::Goodbye);
    let down: Vec<_> = effects.iter().filter(|e| matches!(e, Effect::PeerDown(_))).collect();
    assert_eq!(down.len(), 2);
}

#[test]
fn the_old_hello_of_a_dead_host_does_not_stop_the_loading_of_its_node() {
    let mut rig = Rig::settled(&[2]);
    rig.receive(50, 1, hello(9, &[9]));
    assert_eq!(shown(&rig.granted(9)), ["Load(9)"]);
    assert!(rig.receive(50, 2, hello(9, &[9])).is_empty());
    assert!(rig.loaded(9, 7).iter().any(|e| matches!(e, Effect::Run { node: 9, .. })));
    assert_eq!(rig.elastic.hosts(), 1, "host 50 has no node left");
}

#[test]
fn a_host_that_loses_its_last_node_is_no_longer_known() {
    let mut rig = Rig::settled(&[2]);
    assert_eq!(rig.elastic.hosts(), 1, "this host");
    rig.receive(50, 1, hello(9, &[9]));
    rig.receive(60, 1, hello(8, &[8]));
    rig.receive(70, 1, hello(7, &[6, 7]));
    assert_eq!(rig.elastic.hosts(), 4);
    rig.receive(60, 2, Body::Acquired { node: 9 });
    assert_eq!(rig.elastic.hosts(), 3, "host 50 ran only node 9");
    rig.receive(60, 3, Body::Acquired { node: 6 });
    assert_eq!(rig.elastic.hosts(), 3, "host 70 runs node 7");
    assert!(rig.receive(50, 2, Body::Goodbye).is_empty());
    let effects = rig.receive(60, 4, Body::Goodbye);
    assert_eq!(shown(&effects), ["PeerDown(6)", "PeerDown(8)", "PeerDown(9)"]);
    assert_eq!(rig.elastic.hosts(), 2);
    // A host may have no node.
    rig.receive(
        80,
        1,
        Body::Hello { own: None, nodes: vec![], visible: true, ask: false, version: 1 },
    );
    assert_eq!(rig.elastic.hosts(), 3);
    rig.receive(80, 2, Body::Acquired { node: 5 });
    assert_eq!(shown(&rig.receive(80, 3, Body::Goodbye)), ["PeerDown(5)"]);
}

#[test]
fn a_node_is_visible_if_the_tab_is_whose_own_node_it_is() {
    let mut rig = Rig::settled(&[2, 3]);
    let hidden =
        Body::Hello { own: Some(8), nodes: vec![7, 8], visible: false, ask: false, version: 1 };
    rig.receive(50, 1, hello(9, &[6, 9]));
    rig.receive(60, 1, hidden);
    let visible = |rig: &Rig, nodes: [NodeId; 3]| nodes.map(|node| rig.elastic.is_visible(node));
    assert_eq!(visible(&rig, [2, 9, 8]), [Some(true), Some(true), Some(false)]);
    assert_eq!(visible(&rig, [3, 6, 7]), [None; 3], "they are adopted");
    rig.give(Input::Visible(false));
    assert_eq!(visible(&rig, [2, 9, 8]), [Some(false), Some(true), Some(false)]);
    // Host 60 adopts nodes of host 50: first an adopted one, then its own.
    rig.receive(60, 2, Body::Acquired { node: 6 });
    assert_eq!(rig.elastic.is_visible(9), Some(true));
    rig.receive(50, 2, hello(9, &[6, 9]));
    rig.receive(60, 3, Body::Acquired { node: 9 });
    assert_eq!(rig.elastic.is_visible(9), None);
}

#[test]
fn a_host_ignores_its_own_messages_and_a_suspended_host_ignores_all() {
    let mut rig = Rig::settled(&[2]);
    let own = rig.elastic.message_of(hello(9, &[9]));
    assert!(rig.give(Input::Message(own)).is_empty());
    assert_eq!(rig.elastic.hosts(), 1);
    rig.give(Input::Suspend);
    assert!(rig.receive(50, 1, hello(9, &[9])).is_empty());
    assert_eq!(rig.elastic.hosts(), 1);
    assert!(rig.receive(50, 2, Body::Destroyed).is_empty());
    assert_eq!(shown(&rig.give(Input::Start)), ["ReadRegistry"], "it was not stopped");
}

#[test]
fn a_host_that_is_asked_answers_at_the_next_tick_also_if_the_question_arrives_twice() {
    let ask = || Body::Hello { own: Some(9), nodes: vec![9], visible: true, ask: true, version: 1 };
    let mut rig = Rig::settled(&[2]);
    let answer =
        Body::Hello { own: Some(2), nodes: vec![2], visible: true, ask: false, version: 1 };
    for _ in 0..2 {
        assert!(broadcasts(&rig.receive(50, 3, ask())).is_empty());
        assert_eq!(rig.elastic.deadline(), Some(rig.now));
        assert_eq!(broadcasts(&rig.give(Input::Tick)), [&answer]);
    }
    // A question that a later hello has overtaken has no effect.
    assert!(rig.receive(50, 2, ask()).is_empty());
    assert!(rig.give(Input::Tick).is_empty());
}

#[test]
fn a_suspended_host_creates_no_node_when_a_deletion_is_done() {
    let mut rig = Rig::settled(&[2]);
    rig.receive(50, 1, hello(9, &[9]));
    rig.granted(9);
    rig.give(Input::Loaded { node: 9, record: None });
    rig.give(Input::Suspend);
    assert_eq!(shown(&rig.give(Input::Deleted(9))), ["Unlock(9)"]);
}

#[test]
fn a_host_that_was_granted_a_dead_hosts_node_first_gives_up_the_node_that_it_wanted_to_create() {
    let mut rig = Rig::new(1);
    rig.give(Input::Start);
    rig.give(Input::Registry(Some(Registry { incarnation: 7, nodes: vec![4] })));
    let effects = rig.give(Input::Lock { node: 4, granted: false });
    let [Effect::AwaitLock(4), Effect::TryLock(fresh)] = effects[..] else { panic!("{effects:?}") };
    rig.granted(4);
    rig.loaded(4, 7);
    assert_eq!(rig.elastic.own(), Some(4));
    assert_eq!(shown(&rig.granted(fresh)), [format!("Unlock({fresh})")]);
    assert_eq!(rig.elastic.running().collect::<Vec<_>>(), [4]);
}

#[test]
fn a_host_queues_for_a_lost_adopted_node_and_starts_anew_without_its_own() {
    let mut rig = Rig::settled(&[2, 3]);
    let effects = rig.give(Input::Lost(3));
    assert_eq!(shown(&effects[..3]), ["Stop(3)", "Unlock(3)", "AwaitLock(3)"]);
    let effects = rig.receive(60, 1, Body::Acquired { node: 2 });
    assert_eq!(shown(&effects), ["PeerDown(2)", "Stop(2)", "UnlockAll", "ReadRegistry"]);
    assert_eq!(rig.elastic.own(), None);
    // Answers to what the host asked before have no effect.
    assert!(rig.loaded(2, 7).is_empty());
    assert_eq!(shown(&rig.granted(2)), ["Unlock(2)"]);
}

#[test]
fn a_host_that_hears_that_a_node_it_runs_was_deleted_has_lost_the_node() {
    let mut rig = Rig::settled(&[2, 3]);
    let effects = rig.receive(60, 1, Body::Deleted { node: 3 });
    assert_eq!(shown(&effects[..3]), ["Stop(3)", "Unlock(3)", "AwaitLock(3)"]);
    let effects = rig.receive(60, 2, Body::Deleted { node: 2 });
    assert_eq!(shown(&effects), ["Stop(2)", "UnlockAll", "ReadRegistry"]);
    assert_eq!(rig.elastic.own(), None);
}

#[test]
fn a_suspended_host_releases_everything_and_can_start_again() {
    let mut rig = Rig::settled(&[2, 3]);
    let effects = rig.give(Input::Suspend);
    assert_eq!(shown(&effects), ["Broadcast(Goodbye)", "Stop(2)", "Stop(3)", "UnlockAll"]);
    assert_eq!(rig.elastic.deadline(), None);
    assert!(rig.receive(50, 1, hello(9, &[9])).is_empty(), "a suspended host asks for nothing");
    assert_eq!(shown(&rig.give(Input::Suspend)), ["UnlockAll"]);
    assert_eq!(shown(&rig.give(Input::Start)), ["ReadRegistry"]);
    assert!(rig.give(Input::Start).is_empty(), "a second start does nothing");
}

#[test]
fn a_failure_of_storage_or_the_end_of_the_cluster_stops_a_host_for_good() {
    let stop = |input, reason| {
        let mut rig = Rig::settled(&[2]);
        let effects = rig.give(input);
        assert_eq!(shown(&effects).last(), Some(&format!("Stopped({reason:?})")));
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Stop(2))));
        assert!(effects.iter().any(|effect| matches!(effect, Effect::UnlockAll)));
        assert!(rig.give(Input::Start).is_empty(), "it does not start again");
        effects
    };
    let full = StopReason::StorageFailed("QuotaExceededError".into());
    stop(Input::Failed(full.clone()), full);
    stop(Input::Failed(StopReason::StorageLost), StopReason::StorageLost);
    let effects = stop(Input::Destroy, StopReason::Destroyed);
    assert_eq!(shown(&effects[..2]), ["Broadcast(Destroyed)", "DeleteAll"]);
    let message = Message { host: 50, count: 1, body: Body::Destroyed };
    let effects = stop(Input::Message(message), StopReason::Destroyed);
    assert!(
        !effects.iter().any(|effect| matches!(effect, Effect::DeleteAll)),
        "the sender deletes the storage"
    );
}

#[test]
fn writes_count_only_under_the_newest_epoch() {
    assert_eq!(admit(Some(4), 4), Ok(()));
    assert_eq!(admit(Some(5), 4), Err(Fence::Taken));
    assert_eq!(admit(None, 4), Err(Fence::NoRecord));
}

#[test]
fn an_absurd_hello_has_no_effect() {
    let mut rig = Rig::settled(&[2]);
    let many: Vec<_> = (10..10 + 1_025).collect();
    assert!(rig.receive(50, 1, hello(10, &many)).is_empty());
    assert_eq!(rig.receive(50, 1, hello(10, &many[1..])).len(), 1_024, "so many are allowed");
    assert!(rig.receive(50, 1, hello(10, &[0])).iter().all(|e| !matches!(e, Effect::AwaitLock(0))));
    // Messages alone do not change the members.
    let changes = |effects: &[Effect]| effects.iter().any(|e| matches!(e, Effect::Change { .. }));
    assert!(!changes(&rig.receive(51, 1, hello(11, &[11]))));
}
