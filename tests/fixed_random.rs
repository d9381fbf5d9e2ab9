//! Fixed clusters whose nodes die and come back, with their storage or without. No acknowledged
//! action is lost or applied twice as long as at most one node at a time has lost its storage. A
//! seed determines everything.
#![allow(missing_docs)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::host_cluster::{Disk, Hosts, size};
use conflux::host::types::Phase;
use conflux::store::Outcome;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

struct Run {
    rng: Xoshiro256PlusPlus,
    hosts: Hosts,
    ids: Vec<String>,
    /// The value of each perform since the last start of its node, by node and ticket.
    asked: BTreeMap<(String, u64), String>,
    /// The values whose performs were settled with an action.
    acknowledged: BTreeSet<String>,
    /// The values whose performs were settled without an action.
    refused: BTreeSet<String>,
    /// How many values were used.
    values: u32,
    /// How often a node has lost its storage.
    forgotten: u32,
    seed: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let n = rng.random_range(1..=5_usize);
        let mut hosts = Hosts::new(seed);
        hosts.compact_bytes = Some(rng.random_range(300..5_000));
        hosts.max_message_bytes = Some(rng.random_range(100..4_000));
        let ids: Vec<String> =
            ["a", "b", "c", "d", "e"][..n].iter().map(|s| s.to_string()).collect();
        for id in &ids {
            // In a cluster of one or two nodes, the death of a node without storage would leave no
            // majority.
            if n < 3 || rng.random_ratio(2, 3) {
                hosts.disks.insert(id.clone(), Disk::default());
            }
        }
        let (asked, acknowledged, refused) = Default::default();
        Self { rng, hosts, ids, asked, acknowledged, refused, values: 0, forgotten: 0, seed }
    }

    fn run(&mut self) {
        let n = self.ids.len();
        for id in self.ids.clone() {
            self.hosts.start(&id, size(n));
        }
        self.hosts.run(3_000);
        assert!(self.hosts.leader().is_some(), "seed {}: it forms", self.seed);
        for _ in 0..2_500 {
            self.step();
        }
        self.hosts.cut.clear();
        self.start_all();
        self.hosts.run(30_000);
        self.check();
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.rng.random_range(0..of.len())]
    }

    fn step(&mut self) {
        let alive: Vec<String> = self.hosts.hosts.keys().cloned().collect();
        let all = self.ids.clone();
        let id = self.one(if alive.is_empty() { &all } else { &alive }).clone();
        match self.rng.random_range(0..100) {
            0..55 if !self.hosts.network.is_empty() => {
                let nth = self.rng.random_range(0..self.hosts.network.len().min(4));
                match self.rng.random_range(0..60) {
                    0..3 => {
                        self.hosts.network.remove(nth);
                    }
                    3 => self.hosts.deliver(nth, true),
                    _ => self.hosts.deliver(nth, false),
                }
            }
            0..65 => self.hosts.advance(self.rng.random_range(1..80)),
            65..80 => {
                self.hosts.sync(&id);
            }
            80..91 if self.hosts.hosts.contains_key(&id) => {
                self.values += 1;
                let value = format!("{id}{:05}", self.values);
                let method = *self.one(&["append", "append", "once", "nothing"]);
                let ticket = self.hosts.perform(&id, method, &value);
                self.asked.insert((id, ticket), value);
            }
            91 => {
                let other = self.one(&all).clone();
                self.hosts.cut.insert((id, other));
            }
            92 => self.hosts.cut.clear(),
            93 if self.rng.random_ratio(1, 3) => self.die(&id, false),
            // A node may lose its storage only while all the others are alive and have everything.
            96 if self.rng.random_ratio(1, 12) && all.len() > 2 => {
                self.hosts.cut.clear();
                self.start_all();
                self.hosts.run(5_000);
                self.die(&id, true);
            }
            94..96 => {
                let dead = all.iter().find(|id| !self.hosts.hosts.contains_key(*id));
                if let Some(id) = dead.cloned() {
                    self.hosts.start(&id, size(all.len()));
                }
            }
            _ => {}
        }
        let excess = self.hosts.network.len().saturating_sub(300);
        self.hosts.network.drain(..excess);
    }

    fn start_all(&mut self) {
        for id in self.ids.clone() {
            if !self.hosts.hosts.contains_key(&id) {
                self.hosts.start(&id, size(self.ids.len()));
            }
        }
    }

    /// Kills a node. If `forgets`, it loses its storage.
    fn die(&mut self, id: &str, forgets: bool) {
        let kept = self.hosts.disks.contains_key(id);
        if !self.hosts.hosts.contains_key(id) || !forgets && !kept {
            return;
        }
        self.note(id);
        self.hosts.kill(id);
        if let Some(disk) = self.hosts.disks.get_mut(id) {
            let rng = &mut self.rng;
            disk.fail(|below| rng.random_range(0..below.max(1)));
            if forgets {
                *disk = Disk::default();
            }
        }
        self.forgotten += u32::from(forgets);
        self.asked.retain(|(of, _), _| of != id);
    }

    /// Notes how the performs of a node were settled.
    fn note(&mut self, id: &str) {
        let host = self.hosts.host(id);
        for ((of, ticket), value) in &self.asked {
            if of != id {
                continue;
            }
            match host.outcome(*ticket) {
                Some(Outcome::Action(_)) => {
                    self.acknowledged.insert(value.clone());
                }
                Some(Outcome::Nothing) => {
                    self.refused.insert(value.clone());
                }
                Some(Outcome::Failed(failure)) if failure.code == "OUTCOME_UNKNOWN" => {}
                Some(Outcome::Failed(_)) => {
                    self.refused.insert(value.clone());
                }
                None => {}
            }
        }
    }

    fn check(&mut self) {
        let seed = self.seed;
        let state = self.hosts.state(&self.ids[0]);
        for id in self.ids.clone() {
            self.note(&id);
            let host = self.hosts.host(&id);
            let status = host.core.status();
            assert_eq!(status.phase, Phase::Member, "seed {seed}: {id} {:?}", host.notices.last());
            assert_eq!(
                (status.members.len(), status.learners.len()),
                (self.ids.len(), 0),
                "seed {seed}"
            );
            assert_eq!(self.hosts.state(&id), state, "seed {seed}: {id} differs");
            assert_eq!(host.core.own().store().waiting(), 0, "seed {seed}: {id} still waits");
        }
        let times = |value: &String| state.iter().filter(|other| *other == value).count();
        for value in &self.acknowledged {
            assert_eq!(times(value), 1, "seed {seed}: {value} is acknowledged");
        }
        for value in &self.refused {
            assert_eq!(times(value), 0, "seed {seed}: {value} was refused");
        }
        assert!(
            state.iter().all(|value| times(value) == 1),
            "seed {seed}: a value was applied twice"
        );
        for id in &self.ids {
            let of_node: Vec<_> = state.iter().filter(|value| value.starts_with(id)).collect();
            assert!(of_node.windows(2).all(|w| w[0] < w[1]), "seed {seed}: {id} is out of order");
        }
    }
}

#[test]
fn no_acknowledged_action_is_lost_when_nodes_die_and_come_back() {
    let only = std::env::var("CONFLUX_SEED").ok().map(|seed| seed.parse().expect("a number"));
    let seeds = match std::env::var("CONFLUX_SEEDS") {
        Ok(seeds) => 1..=seeds.parse().expect("a number"),
        Err(_) => only.map_or(1..=60, |seed| seed..=seed),
    };
    let mut forgotten = 0;
    for seed in seeds.clone() {
        let run = std::panic::catch_unwind(|| {
            let mut run = Run::new(seed);
            run.run();
            run.forgotten
        });
        forgotten += run.unwrap_or_else(|panic| {
            eprintln!(
                "failed; to run it again: CONFLUX_SEED={seed} cargo test --test fixed_random"
            );
            std::panic::resume_unwind(panic)
        });
    }
    assert!(forgotten > 0 || seeds.count() < 10, "some nodes lose their memory");
    println!("{forgotten} nodes lost their memory");
}
