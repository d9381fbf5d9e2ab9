//! Which host runs which node: the answers to single inputs, in exact effects. What needs many hosts is
//! the tabs' simulator's.
#![allow(missing_docs)]

use conflux::elastic::{Body, Effect, Elastic, Input, Message, Record, Registry, StopReason, View};
use conflux::raft::{NodeId, Payload, Raft, Saved};
use conflux::storage::{Fence, admit};

/// A host whose nodes have no Raft to look at.
struct Nothing;

impl View for Nothing {
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
        self.elastic.handle(self.now, input, &Nothing)
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

    /// Runs the first of these nodes as its own, and has adopted the others.
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

fn said(effects: &[Effect]) -> Vec<&Body> {
    let said = effects.iter().filter_map(|effect| match effect {
        Effect::Broadcast(body) => Some(body),
        _ => None,
    });
    said.collect()
}

fn shown(effects: &[Effect]) -> Vec<String> {
    effects.iter().map(|effect| format!("{effect:?}")).collect()
}

fn hello(own: NodeId, nodes: &[NodeId]) -> Body {
    Body::Hello { own: Some(own), nodes: nodes.to_vec(), visible: true, ask: false }
}

#[test]
fn the_first_host_founds_a_cluster_with_a_node_of_its_own() {
    let mut rig = Rig::new(1);
    assert_eq!(shown(&rig.give(Input::Start)), ["ReadRegistry"]);
    let asked = rig.give(Input::Registry(None));
    let [Effect::TryLock(node)] = asked[..] else { panic!("{asked:?}") };
    let made = rig.granted(node);
    let [Effect::Create { incarnation, saved, .. }] = &made[..] else { panic!("{made:?}") };
    // It begins with an entry that makes it the only voter: nobody else may ever begin so.
    let Payload::Members(members) = &saved.entries[0].payload else { panic!("{saved:?}") };
    assert!(members.is_voter(node) && members.len() == 1);
    let found = Registry { incarnation: *incarnation, nodes: vec![node] };
    assert_eq!(shown(&rig.give(Input::Created(node))), [format!("Found({found:?})")]);
    let runs = rig.give(Input::Registry(Some(found)));
    assert!(matches!(&runs[0], Effect::Run { own: true, epoch: 1, .. }));
    assert_eq!((rig.elastic.own(), said(&runs).len()), (Some(node), 1));
}

#[test]
fn who_founds_later_joins_what_is_there() {
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
    // That one is somebody else's, so there must be a new one; it begins without members.
    let effects = rig.give(Input::Lock { node: 4, granted: false });
    let [Effect::AwaitLock(4), Effect::TryLock(fresh)] = effects[..] else { panic!("{effects:?}") };
    let made = rig.granted(fresh);
    let [Effect::Create { incarnation: 9, saved, .. }] = &made[..] else { panic!("{made:?}") };
    assert!(saved.entries.is_empty());
    assert_eq!(shown(&rig.give(Input::Created(fresh))), [format!("Register({fresh})")]);
    assert!(matches!(rig.give(Input::Registered(fresh))[0], Effect::Run { own: true, .. }));
}

#[test]
fn a_free_node_is_taken_before_a_new_one_is_made_and_the_others_are_adopted() {
    let mut rig = Rig::new(1);
    rig.give(Input::Start);
    let nodes = vec![3, 5];
    let asked = rig.give(Input::Registry(Some(Registry { incarnation: 7, nodes })));
    assert_eq!(shown(&asked), ["TryLock(3)", "TryLock(5)"]);
    assert_eq!(shown(&rig.granted(3)), ["Load(3)"]);
    assert_eq!(shown(&rig.granted(5)), ["Load(5)"]);
    let first = rig.loaded(5, 7);
    assert!(first.iter().any(|e| matches!(e, Effect::Run { node: 5, own: true, epoch: 2, .. })));
    assert_eq!(said(&first)[0], &Body::Acquired { node: 5 });
    let second = rig.loaded(3, 7);
    assert!(second.iter().any(|e| matches!(e, Effect::Run { node: 3, own: false, .. })));
    assert_eq!(rig.elastic.running().collect::<Vec<_>>(), [3, 5]);
    assert!(rig.elastic.is_adopted(3) && !rig.elastic.is_adopted(5));
}

#[test]
fn a_granted_lock_without_a_record_means_gone() {
    for record in [
        None,
        // Of a founding that is over.
        Some(Record { incarnation: 6, epoch: 2, saved: Saved::default() }),
    ] {
        let mut rig = Rig::settled(&[2]);
        rig.receive(50, 1, hello(9, &[9]));
        assert_eq!(shown(&rig.granted(9)), ["Load(9)"]);
        let effects = rig.give(Input::Loaded { node: 9, record });
        assert_eq!(said(&effects), [&Body::Deleted { node: 9 }]);
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Delete(9))));
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Run { .. })));
        assert_eq!(shown(&rig.give(Input::Deleted(9))), ["Unlock(9)"]);
        assert!(
            rig.receive(50, 2, hello(8, &[8])).iter().any(|e| matches!(e, Effect::AwaitLock(8)))
        );
    }
}

#[test]
fn a_lock_that_is_granted_says_that_its_holder_is_dead() {
    let mut rig = Rig::settled(&[2]);
    // To hear of hosts for the first time says nothing of their death.
    let effects = rig.receive(50, 1, hello(9, &[9]));
    assert_eq!(shown(&effects), ["AwaitLock(9)"]);
    let effects = rig.receive(60, 1, Body::Acquired { node: 9 });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::PeerDown(9))), "{effects:?}");
    // Nor does it count twice, nor does an older greeting that comes late.
    rig.receive(60, 3, hello(4, &[4, 9]));
    assert!(rig.elastic.is_adopted(9));
    rig.receive(60, 2, hello(4, &[4]));
    assert!(rig.elastic.is_adopted(9));
    // Who says goodbye has let go of all.
    let effects = rig.receive(60, 4, Body::Goodbye);
    let gone: Vec<_> = effects.iter().filter(|e| matches!(e, Effect::PeerDown(_))).collect();
    assert_eq!(gone.len(), 2);
}

#[test]
fn a_host_that_has_lost_its_own_node_begins_anew_and_another_one_is_queued_for() {
    let mut rig = Rig::settled(&[2, 3]);
    let effects = rig.give(Input::Lost(3));
    assert_eq!(shown(&effects[..3]), ["Stop(3)", "Unlock(3)", "AwaitLock(3)"]);
    let effects = rig.receive(60, 1, Body::Acquired { node: 2 });
    assert_eq!(shown(&effects), ["PeerDown(2)", "Stop(2)", "UnlockAll", "ReadRegistry"]);
    assert_eq!(rig.elastic.own(), None);
    // What was asked before is answered to nobody.
    assert!(rig.loaded(2, 7).is_empty());
    assert_eq!(shown(&rig.granted(2)), ["Unlock(2)"]);
}

#[test]
fn a_host_that_is_suspended_lets_go_of_everything_and_goes_on_later() {
    let mut rig = Rig::settled(&[2, 3]);
    let effects = rig.give(Input::Suspend);
    assert_eq!(shown(&effects), ["Broadcast(Goodbye)", "Stop(2)", "Stop(3)", "UnlockAll"]);
    assert_eq!(rig.elastic.deadline(), None);
    assert!(rig.receive(50, 1, hello(9, &[9])).is_empty(), "nothing is asked for meanwhile");
    assert_eq!(shown(&rig.give(Input::Suspend)), ["UnlockAll"]);
    assert_eq!(shown(&rig.give(Input::Start)), ["ReadRegistry"]);
    assert!(rig.give(Input::Start).is_empty(), "once is enough");
}

#[test]
fn trouble_with_storage_is_the_end_and_is_told_once() {
    let over = |input, reason| {
        let mut rig = Rig::settled(&[2]);
        let effects = rig.give(input);
        assert_eq!(shown(&effects).last(), Some(&format!("Stopped({reason:?})")));
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Stop(2))));
        assert!(effects.iter().any(|effect| matches!(effect, Effect::UnlockAll)));
        assert!(rig.give(Input::Start).is_empty(), "there is no way back");
        effects
    };
    let full = StopReason::StorageFailed("QuotaExceededError".into());
    over(Input::Failed(full.clone()), full);
    over(Input::Failed(StopReason::StorageLost), StopReason::StorageLost);
    let effects = over(Input::Destroy, StopReason::Destroyed);
    assert_eq!(shown(&effects[..2]), ["Broadcast(Destroyed)", "DeleteAll"]);
    let message = Message { host: 50, count: 1, body: Body::Destroyed };
    let effects = over(Input::Message(message), StopReason::Destroyed);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::DeleteAll)), "that is another's");
}

#[test]
fn writes_count_only_under_the_newest_epoch() {
    assert_eq!(admit(Some(4), 4), Ok(()));
    assert_eq!(admit(Some(5), 4), Err(Fence::Taken));
    assert_eq!(admit(None, 4), Err(Fence::NoRecord));
}

#[test]
fn absurd_greetings_are_ignored() {
    let mut rig = Rig::settled(&[2]);
    let many: Vec<_> = (10..2_000).collect();
    assert!(rig.receive(50, 1, hello(10, &many)).is_empty());
    assert!(rig.receive(50, 1, hello(10, &[0])).iter().all(|e| !matches!(e, Effect::AwaitLock(0))));
    // A change of the members cannot be had by messages alone.
    let changes = |effects: &[Effect]| effects.iter().any(|e| matches!(e, Effect::Change { .. }));
    assert!(!changes(&rig.receive(51, 1, hello(11, &[11]))));
}
