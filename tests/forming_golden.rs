//! How fixed clusters form, as readable scripts: `tests/golden/forming/*.txt`.
#![allow(missing_docs)]

mod common;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::error::Error;
use std::fmt::Write as _;

use common::golden::run_scripts;
use conflux::formation::{Body, Event, Formation, Member, Message, Output, Plan, Refusal, Set, To};
use conflux::raft::Time;

#[derive(goldenscript::Command)]
enum Command {
    /// Starts a node: `start a 3`, or with named members: `start a members=a,b,c`.
    Start {
        id: String,
        size: Option<usize>,
        #[arg(key)]
        members: Option<String>,
    },
    /// A node's tab dies. All messages to it are lost.
    Kill(String),
    /// Time passes on all nodes, in ms.
    Tick(Time),
    /// Delivers the first (or nth) message between two nodes.
    Deliver {
        from: String,
        to: String,
        #[arg(key, optional)]
        nth: usize,
    },
    /// Loses all messages in flight from one node to another.
    Lose(String, String),
    /// Loses all messages in flight.
    LoseAll,
    /// Delivers all messages; with `order=reverse`, the one sent last comes first.
    Stabilize {
        #[arg(key)]
        order: Option<String>,
    },
    /// A node's timers stand still. `deliver` still gives it messages.
    Freeze(String),
    /// A node's timers run again.
    Thaw(String),
    /// A frame of another set arrives: `other_set FROM TO`.
    OtherSet(String, String),
    /// Prints the last event of each node.
    Status,
}

#[derive(Default)]
struct Runner {
    now: Time,
    nodes: BTreeMap<String, (Formation, String)>,
    network: VecDeque<(Member, String, Message)>,
    names: BTreeMap<u64, String>,
    frozen: BTreeSet<String>,
    starts: u64,
    output: String,
}

impl Runner {
    /// Names a nonce by the order of its appearance: `a1` is the first start of `a`.
    fn name(&mut self, member: &Member) -> String {
        let count = self.names.values().filter(|name| name.starts_with(&member.id)).count();
        let fresh = format!("{}{}", member.id, count + 1);
        self.names.entry(member.nonce).or_insert(fresh).clone()
    }

    fn set(&mut self, set: &Set) -> String {
        let names: Vec<_> = set.members().iter().map(|member| self.name(member)).collect();
        names.join(" ")
    }

    fn execute(&mut self, id: &str, output: Output) {
        let me = self.nodes[id].0.me().clone();
        let name = self.name(&me);
        for event in output.events {
            let text = match event {
                Event::Formed(set) => {
                    let set = self.set(&set);
                    format!("starts with [{set}]")
                }
                Event::Readmitted(set) => format!("is taken in anew by [{}]", self.set(&set)),
                Event::Refused { why, members } => {
                    format!("is refused: {} [{}]", why.code(), members.join(" "))
                }
                Event::SizeMismatch { id, size } => format!("sees that {id} expects {size}"),
                Event::NotAMember { id } => format!("sees {id}, which is no member"),
                Event::Leaving(_) => "hears that a member leaves".into(),
                Event::DuplicateId => "sees another node with its id".into(),
            };
            let _ = writeln!(self.output, "{name} {text}");
            self.nodes.get_mut(id).expect("a node").1 = text;
        }
        for (to, message) in output.messages {
            let receivers: Vec<String> = match to {
                To::Everyone | To::Nonce(_) => {
                    self.nodes.keys().filter(|other| *other != id).cloned().collect()
                }
                // The frame names the start that is to get it. The host drops frames for earlier
                // starts.
                To::Member(member) => {
                    let lives = |(t, _): &(Formation, String)| t.me().nonce == member.nonce;
                    let lives = self.nodes.get(&member.id).is_some_and(lives);
                    if lives { vec![member.id] } else { vec![] }
                }
            };
            for receiver in receivers {
                self.network.push_back((me.clone(), receiver, message.clone()));
            }
        }
    }

    fn deliver(&mut self, nth: usize) {
        let (_, to, message) = self.network.remove(nth).expect("a message");
        let body = match &message.body {
            Body::Hello { size, bound, ask } => {
                let bound = if bound.is_some() { " bound" } else { "" };
                let ask = if *ask { " who is there?" } else { "" };
                format!("hello of {size}{bound}{ask}")
            }
            Body::Propose { set } => format!("propose [{}]", self.set(set)),
            Body::Formed { set } => format!("formed [{}]", self.set(set)),
            Body::Readmit { set } => format!("welcome to [{}]", self.set(set)),
            Body::Goodbye => "goodbye".into(),
            Body::Refuse { why, .. } => format!("refuse {}", why.code()),
        };
        let from = self.name(&message.from.clone());
        if !self.nodes.contains_key(&to) {
            return;
        }
        let _ = writeln!(self.output, "{from} → {to}: {body}");
        let now = self.now;
        let output = self.nodes.get_mut(&to).expect("a node").0.handle_message(now, message);
        self.execute(&to, output);
    }
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(
        &mut self,
        command: &Command,
        _context: &goldenscript::Context,
    ) -> Result<String, Box<dyn Error>> {
        match command {
            Command::Start { id, size, members } => {
                let plan = match (size, members) {
                    (Some(size), None) => Plan::Size(*size),
                    (None, Some(ids)) => Plan::Ids(ids.split(',').map(String::from).collect()),
                    _ => return Err("either a size or members".into()),
                };
                self.starts += 1;
                let mut formation = Formation::new(id.clone(), plan, self.now, self.starts);
                let output = formation.handle_tick(self.now);
                self.nodes.insert(id.clone(), (formation, "forming".into()));
                self.execute(id, output);
            }
            Command::Kill(id) => {
                self.nodes.remove(id).ok_or("no such node")?;
                self.network.retain(|(_, to, _)| to != id);
            }
            Command::Tick(ms) => {
                self.now += ms;
                let awake = |id: &&String| !self.frozen.contains(*id);
                for id in self.nodes.keys().filter(awake).cloned().collect::<Vec<_>>() {
                    let (formation, _) = self.nodes.get_mut(&id).expect("a node");
                    if formation.deadline().is_some_and(|deadline| deadline <= self.now) {
                        let output = formation.handle_tick(self.now);
                        self.execute(&id, output);
                    }
                }
            }
            Command::Deliver { from, to, nth } => {
                let fits = |m: &(Member, String, Message)| m.0.id == *from && m.1 == *to;
                let mut found = self.network.iter().enumerate().filter(|(_, m)| fits(m));
                let position = found.nth(*nth).ok_or("no such message")?.0;
                self.deliver(position);
            }
            Command::Lose(from, to) => {
                self.network.retain(|m| !(m.0.id == *from && m.1 == *to));
            }
            Command::LoseAll => self.network.clear(),
            Command::Stabilize { order } => {
                let mut steps = 0;
                while !self.network.is_empty() {
                    let reverse = order.as_deref() == Some("reverse");
                    self.deliver(if reverse { self.network.len() - 1 } else { 0 });
                    steps += 1;
                    assert!(steps < 1000, "never quiet");
                }
            }
            Command::Freeze(id) => {
                self.frozen.insert(id.clone());
            }
            Command::Thaw(id) => {
                self.frozen.remove(id);
            }
            Command::OtherSet(from, to) => {
                let nonce = self.nodes[from].0.me().nonce;
                let (formation, _) = self.nodes.get_mut(to).ok_or("no such node")?;
                let output = formation.handle_other_set(nonce);
                let why = |(_, m): &(To, Message)| match &m.body {
                    Body::Refuse { why, .. } => *why == Refusal::OtherSet,
                    _ => false,
                };
                let told = output.messages.iter().any(why);
                let _ = writeln!(self.output, "{to} tells {from} that it is another set: {told}");
                self.execute(&to.clone(), output);
            }
            Command::Status => {
                for id in self.nodes.keys().cloned().collect::<Vec<_>>() {
                    let me = self.nodes[&id].0.me().clone();
                    let name = self.name(&me);
                    let _ = writeln!(self.output, "{name} {}", self.nodes[&id].1);
                }
            }
        }
        Ok(std::mem::take(&mut self.output))
    }
}

#[test]
fn golden_forming_scripts() {
    run_scripts("tests/golden/forming", 15, Runner::default);
}
