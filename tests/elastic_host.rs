//! A host of an elastic cluster in a browser of its own: storage and locks that answer at once.
#![allow(missing_docs)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::host_cluster::{List, ListMachine};
use conflux::elastic::{self, Effect as Ask, Record, Registry};
use conflux::host::core::Host;
use conflux::host::transport::Message;
use conflux::host::types::{Effect, Input, Kind, Notice, Phase, Settings};
use conflux::node::Durability;
use conflux::raft::{NodeId, RoleName, Saved, Time};
use conflux::store::{self, Outcome, Perform};
use conflux::wire::{self, FrameWriter, Header, hash64};

/// What one browser has stored of one cluster.
#[derive(Default)]
struct Browser {
    registry: Option<Registry>,
    /// By node: founding, epoch, and what it must not forget.
    nodes: BTreeMap<NodeId, (u64, u64, Saved)>,
    locks: BTreeSet<NodeId>,
}

/// The only tab of the browser.
struct Tab {
    host: Host<List>,
    machine: ListMachine,
    now: Time,
    settled: Vec<(u64, Outcome)>,
    notices: Vec<Notice>,
}

impl Tab {
    fn open(seed: u64) -> Self {
        let settings = Settings {
            cluster: "test".into(),
            kind: Kind::Elastic { max_voters: 5 },
            election_timeout: (300, 500),
            heartbeat_interval: 50,
            quiesce_interval: None,
            store: store::Config::default(),
            durability: Durability::Durable,
        };
        let host = Host::new(settings, List::default(), true, 0, seed);
        let machine = ListMachine::default();
        Self { host, machine, now: 0, settled: Vec::new(), notices: Vec::new() }
    }

    /// Gives the host one input, does what it asks for, and brings it the answers.
    fn handle(&mut self, browser: &mut Browser, input: Input<List>) {
        let mut inputs = vec![input];
        while !inputs.is_empty() {
            let input = inputs.remove(0);
            let output = self.host.handle(self.now, input);
            self.settled.extend(output.settled.into_iter().map(|s| (s.ticket, s.outcome)));
            self.notices.extend(output.notices);
            let answers = output.effects.into_iter().filter_map(|effect| browser.answer(effect));
            inputs.extend(answers);
            if let Some(call) = output.call {
                self.host.enter();
                self.machine.provisional = self.host.provisional().clone();
                inputs.insert(0, Input::Returned(call.run(&mut self.machine)));
            }
        }
    }

    fn wait(&mut self, browser: &mut Browser, ms: Time) {
        for _ in 0..ms / 10 {
            self.now += 10;
            self.handle(browser, Input::Tick);
        }
    }

    fn append(&mut self, browser: &mut Browser, ticket: u64, value: &str) {
        let (method, args) = ("append".into(), value.into());
        let perform = Perform { ticket, method, args, timeout: None };
        self.handle(browser, Input::Perform(vec![perform]));
    }

    fn state(&self) -> Vec<String> {
        self.host.committed().as_ref().clone()
    }

    fn code(&self, ticket: u64) -> Option<&str> {
        self.settled.iter().find(|(t, _)| *t == ticket).map(|(_, outcome)| match outcome {
            Outcome::Action(_) => "action",
            Outcome::Nothing => "nothing",
            Outcome::Failed(failure) => failure.code.as_str(),
        })
    }
}

impl Browser {
    fn answer(&mut self, effect: Effect) -> Option<Input<List>> {
        match effect {
            Effect::Write { generation, node, epoch, persist } => {
                let (_, stored, saved) = self.nodes.get_mut(&node).expect("it has a record");
                assert_eq!(*stored, epoch, "nobody else has taken the node over");
                saved.hard = persist.hard.unwrap_or(saved.hard);
                saved.snapshot = persist.snapshot.or(saved.snapshot.take());
                if let Some(first) = persist.entries.first() {
                    saved.entries.retain(|entry| entry.at.index < first.at.index);
                }
                saved.entries.extend(persist.entries);
                Some(Input::Persisted { generation, node, seq: persist.seq })
            }
            Effect::Elastic { generation, effect } => {
                let input = self.ask(effect)?;
                Some(Input::Elastic { generation, input })
            }
            Effect::Listen(_) | Effect::Unlisten(_) => None,
            Effect::Record { .. } => panic!("that is for fixed clusters"),
        }
    }

    fn ask(&mut self, effect: Ask) -> Option<elastic::Input> {
        Some(match effect {
            Ask::ReadRegistry => elastic::Input::Registry(self.registry.clone()),
            Ask::Found(registry) => {
                elastic::Input::Registry(Some(self.registry.get_or_insert(registry).clone()))
            }
            Ask::Register { node, incarnation } => {
                let registry = self.registry.as_mut().expect("there is one");
                assert_eq!(registry.incarnation, incarnation);
                registry.nodes.push(node);
                elastic::Input::Registered(node)
            }
            Ask::TryLock(node) | Ask::AwaitLock(node) => {
                elastic::Input::Lock { node, granted: self.locks.insert(node) }
            }
            Ask::Unlock(node) => {
                self.locks.remove(&node);
                return None;
            }
            Ask::UnlockAll => {
                self.locks.clear();
                return None;
            }
            Ask::Load(node) => {
                let record = self.nodes.get_mut(&node).map(|(incarnation, epoch, saved)| {
                    *epoch += 1;
                    Record { incarnation: *incarnation, epoch: *epoch, saved: saved.clone() }
                });
                elastic::Input::Loaded { node, record }
            }
            Ask::Create { node, incarnation, saved } => {
                self.nodes.insert(node, (incarnation, 1, saved));
                elastic::Input::Created(node)
            }
            other => panic!("a tab that is alone does not ask for {other:?}"),
        })
    }
}

/// A tab that has founded a cluster and appended a value.
fn founded() -> (Tab, Browser) {
    let (mut tab, mut browser) = (Tab::open(1), Browser::default());
    tab.handle(&mut browser, Input::Start);
    tab.wait(&mut browser, 1_000);
    tab.append(&mut browser, 1, "old");
    tab.wait(&mut browser, 1_000);
    assert_eq!((tab.code(1), tab.state()), (Some("action"), vec!["old".to_string()]));
    (tab, browser)
}

#[test]
fn a_tab_that_was_suspended_goes_on_with_its_state_and_its_performs() {
    let (mut tab, mut browser) = founded();
    tab.handle(&mut browser, Input::Suspend);
    assert_eq!((tab.state(), tab.host.status().phase), (vec!["old".to_string()], Phase::Forming));
    tab.append(&mut browser, 2, "while away");
    assert_eq!(tab.code(2), None);
    tab.handle(&mut browser, Input::Start);
    tab.wait(&mut browser, 2_000);
    assert_eq!(
        (tab.code(2), tab.state()),
        (Some("action"), vec!["old".into(), "while away".into()])
    );
    assert!(!tab.notices.contains(&Notice::State), "it is the same cluster");
}

#[test]
fn a_tab_that_comes_back_into_a_cluster_that_was_founded_anew_forgets_the_earlier_one() {
    let (mut tab, mut browser) = founded();
    tab.handle(&mut browser, Input::Suspend);
    tab.append(&mut browser, 2, "for the earlier cluster");
    // Site data was deleted, and another tab has founded a cluster, with a session of the same
    // number.
    let (_, others) = {
        let (mut other, mut browser) = (Tab::open(2), Browser::default());
        other.handle(&mut browser, Input::Start);
        other.wait(&mut browser, 1_000);
        other.append(&mut browser, 1, "new");
        other.wait(&mut browser, 1_000);
        browser.locks.clear();
        (other, browser)
    };
    let mut browser = others;
    tab.handle(&mut browser, Input::Start);
    assert_eq!(tab.code(2), Some("OUTCOME_UNKNOWN"), "it is not performed in the new cluster");
    assert!(!tab.state().contains(&"old".to_string()), "nothing of the earlier state is shown");
    assert!(tab.notices.contains(&Notice::State), "subscribers are called");
    tab.wait(&mut browser, 2_000);
    assert_eq!(tab.state(), ["new"]);
    // The session of the other tab has the number that this tab's session had.
    tab.append(&mut browser, 3, "mine");
    tab.wait(&mut browser, 1_000);
    assert_eq!((tab.code(3), tab.state()), (Some("action"), vec!["new".into(), "mine".into()]));
}

/// A frame to everyone from another tab of the same cluster.
fn frame_from_another_tab(tab: &Tab, body: elastic::Body) -> Vec<u8> {
    let set = tab.host.elastic().expect("an elastic cluster").incarnation();
    let header = Header { cluster: hash64(&[b"test"]), set, from: 9, to: 0, version: 1 };
    let mut writer = FrameWriter::new(header);
    writer.push(&Message::Elastic(elastic::Message { host: 99, count: 1, body }));
    writer.finish().remove(0)
}

#[test]
fn the_status_says_which_nodes_are_hidden_and_how_many_tabs_are_present() {
    let (mut tab, mut browser) = founded();
    let own = tab.host.id();
    let status = tab.host.status();
    assert_eq!((status.size, status.present, status.members), (1, 1, vec![own.clone()]));
    assert!(status.running.is_empty() && status.adopted.is_empty() && status.hidden.is_empty());
    tab.handle(&mut browser, Input::Visible(false));
    assert_eq!(tab.host.status().hidden, [own]);
    tab.notices.clear();
    let body =
        elastic::Body::Hello { own: None, nodes: vec![], visible: true, ask: false, version: 1 };
    let frame = frame_from_another_tab(&tab, body);
    tab.handle(&mut browser, Input::Frame(frame));
    assert_eq!((tab.host.status().present, tab.notices), (2, vec![Notice::Status]));
}

#[test]
fn a_tab_that_runs_all_voters_leads_5_ms_after_it_has_come_back() {
    let (mut tab, mut browser) = founded();
    tab.handle(&mut browser, Input::Suspend);
    tab.handle(&mut browser, Input::Start);
    let back = tab.now;
    for (after, role) in [(0, RoleName::Follower), (4, RoleName::Follower), (5, RoleName::Leader)] {
        tab.now = back + after;
        tab.handle(&mut browser, Input::Tick);
        assert_eq!(tab.host.status().role, role, "after {after} ms");
    }
}

#[test]
fn a_tab_asks_the_others_when_a_perform_has_waited_for_2_500_ms_and_only_then() {
    let (mut tab, mut browser) = founded();
    let _ = tab.host.take_frames();
    tab.wait(&mut browser, 10_000);
    assert!(tab.host.take_frames().is_empty(), "nothing waits for an answer");
    let began = tab.now;
    let (method, args) = ("append".into(), "x".into());
    let perform = Perform { ticket: 2, method, args, timeout: None };
    let mut output = tab.host.handle(began, Input::Perform(vec![perform]));
    while let Some(call) = output.call.take() {
        tab.host.enter();
        tab.machine.provisional = tab.host.provisional().clone();
        output = tab.host.handle(began, Input::Returned(call.run(&mut tab.machine)));
    }
    assert_eq!(tab.host.status().waiting, 1);
    // Storage does not answer from now on. It is asked whether the cluster is still there.
    let reads =
        |effect: &Effect| matches!(effect, Effect::Elastic { effect: Ask::ReadRegistry, .. });
    let asked = loop {
        let due = tab.host.deadline().expect("work waits");
        assert!(due <= began + 2_500, "it has not asked");
        let output = tab.host.handle(due, Input::Tick);
        assert_eq!(output.effects.iter().any(reads), due == began + 2_500);
        if let Some((to, frame)) = tab.host.take_frames().pop() {
            assert_eq!(to, None, "it is for everyone");
            let (_, messages) = wire::read::<Message>(&frame).expect("a frame");
            let [Message::Elastic(message)] = &messages[..] else { panic!("one message") };
            assert!(matches!(message.body, elastic::Body::Hello { ask: true, .. }), "{message:?}");
            break due;
        }
    };
    assert_eq!(asked, began + 2_500);
}
