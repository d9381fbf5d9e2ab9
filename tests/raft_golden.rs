//! Protocol scenarios as pages that a person can read: `tests/golden/raft/*.txt`.
#![allow(missing_docs)]

mod common;

use std::error::Error;
use std::fmt::Write as _;

use common::golden::run_scripts;
use common::raft_cluster::Cluster;
use conflux::raft::{Change, Input, NodeId};

#[derive(goldenscript::Command)]
enum Command {
    /// Starts a cluster:
    /// `cluster 3 max_message=100 max_inflight=2 max_uncommitted=64 quiesce=10000`.
    Cluster {
        size: u64,
        #[arg(key)]
        max_message: Option<usize>,
        #[arg(key)]
        max_inflight: Option<usize>,
        #[arg(key)]
        max_uncommitted: Option<usize>,
        #[arg(key)]
        quiesce: Option<u64>,
    },
    /// Advances a node's clock to its deadline, so that it campaigns.
    Campaign(NodeId),
    /// Advances a node's clock by so many ms.
    Tick(NodeId, u64),
    /// Proposes commands on a node.
    Propose(NodeId, Vec<String>),
    /// Proposes one command of so many bytes.
    ProposeLarge(NodeId, usize),
    /// Asks a node to confirm that it leads, with a number that the script chooses.
    Read(NodeId, u64),
    /// Asks a leader to transfer leadership to a node, or to the one with the longest log.
    Transfer(NodeId, Option<NodeId>),
    /// Starts a node that is not a member yet.
    Join(NodeId),
    /// Asks a node for a change of the members: `change 1 add 4`.
    Change(NodeId, String, NodeId),
    /// Reports to a node that the host of another node is dead.
    PeerDown(NodeId, NodeId),
    /// Reports to a node that work waits for the other nodes.
    Wake(NodeId),
    /// Saves a node's state as a snapshot and compacts its log.
    Compact(NodeId),
    /// Delivers the first (or nth, from 0) message between two nodes.
    Deliver {
        from: NodeId,
        to: NodeId,
        #[arg(key, optional)]
        nth: usize,
    },
    /// The same, but the message stays in the network and arrives again later.
    Duplicate {
        from: NodeId,
        to: NodeId,
        #[arg(key, optional)]
        nth: usize,
    },
    /// Loses the first (or nth) message between two nodes.
    Lose {
        from: NodeId,
        to: NodeId,
        #[arg(key, optional)]
        nth: usize,
    },
    /// Loses all messages in the network.
    LoseAll,
    /// Delivers all messages until the network is empty.
    Stabilize,
    /// Separates these nodes from all others. Messages between the two groups are lost.
    Partition(Vec<NodeId>),
    /// Ends all partitions.
    Heal,
    /// Crashes a node and starts it from its disk.
    Restart(NodeId),
    /// From now on a node's disk does its writes only at `flush`.
    SlowDisk(NodeId),
    /// Makes a slow disk do all its writes.
    Flush(NodeId),
    /// Prints every node.
    Status,
    /// Prints the log of every node.
    Logs,
}

struct Runner(Cluster);

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(
        &mut self,
        command: &Command,
        _context: &goldenscript::Context,
    ) -> Result<String, Box<dyn Error>> {
        let cluster = &mut self.0;
        match command {
            Command::Cluster { size, max_message, max_inflight, max_uncommitted, quiesce } => {
                *cluster = Cluster::new(*size, 1);
                let config = &mut cluster.config;
                config.max_message_bytes = max_message.unwrap_or(config.max_message_bytes);
                config.max_inflight = max_inflight.unwrap_or(config.max_inflight);
                config.max_uncommitted_bytes =
                    max_uncommitted.unwrap_or(config.max_uncommitted_bytes);
                config.quiesce_interval = *quiesce;
                cluster.start_all();
            }
            Command::Campaign(id) => {
                let ms = cluster.node(*id).raft.deadline() - cluster.node(*id).now;
                cluster.advance(*id, ms);
            }
            Command::Tick(id, ms) => cluster.advance(*id, *ms),
            Command::Propose(id, commands) => {
                let commands = commands.iter().map(|c| c.as_str().into()).collect();
                cluster.handle(*id, Input::Propose(commands));
            }
            Command::ProposeLarge(id, bytes) => {
                cluster.handle(*id, Input::Propose(vec![vec![b'x'; *bytes].into()]));
            }
            Command::Read(id, number) => {
                cluster.handle(*id, Input::Confirm { id: *number, at_least: 0 });
            }
            Command::Transfer(id, to) => cluster.handle(*id, Input::Transfer(*to)),
            Command::Join(id) => cluster.join(*id),
            Command::Wake(id) => cluster.handle(*id, Input::Wake),
            Command::PeerDown(id, other) => cluster.handle(*id, Input::PeerDown(*other)),
            Command::Change(id, how, whom) => {
                let change = match how.as_str() {
                    "add" => Change::Add { id: *whom, name: String::new() },
                    "promote" => Change::Promote(*whom),
                    "demote" => Change::Demote(*whom),
                    "remove" => Change::Remove(*whom),
                    _ => return Err("add, promote, demote or remove".into()),
                };
                cluster.handle(*id, Input::Change(change));
            }
            Command::Compact(id) => {
                cluster.compact(*id);
            }
            Command::Deliver { from, to, nth } => {
                let position = cluster.find(*from, *to, *nth).ok_or("no such message")?;
                cluster.deliver(position, false);
            }
            Command::Duplicate { from, to, nth } => {
                let position = cluster.find(*from, *to, *nth).ok_or("no such message")?;
                cluster.deliver(position, true);
            }
            Command::Lose { from, to, nth } => {
                let position = cluster.find(*from, *to, *nth).ok_or("no such message")?;
                cluster.network.remove(position);
            }
            Command::LoseAll => cluster.network.clear(),
            Command::Stabilize => cluster.stabilize(),
            Command::Partition(ids) => {
                for id in ids {
                    for other in cluster.nodes.keys().filter(|o| !ids.contains(o)) {
                        cluster.cut.insert((*id, *other));
                        cluster.cut.insert((*other, *id));
                    }
                }
                let cut = &cluster.cut;
                cluster.network.retain(|(from, to, _)| !cut.contains(&(*from, *to)));
            }
            Command::Heal => cluster.cut.clear(),
            Command::Restart(id) => cluster.restart(*id),
            Command::SlowDisk(id) => cluster.nodes.get_mut(id).ok_or("no such node")?.slow = true,
            Command::Flush(id) => while cluster.flush_one(*id) {},
            Command::Status => {
                for (id, node) in &cluster.nodes {
                    let raft = &node.raft;
                    let vote = raft.hard_state().vote.map_or("-".into(), |v| format!("n{v}"));
                    let leader = raft.leader().map_or("-".into(), |l| format!("n{l}"));
                    let role = raft.role();
                    let (term, commit) = (raft.term(), raft.commit_index());
                    let last = raft.log().last();
                    let applied = node.applied.join(",");
                    writeln!(
                        cluster.output,
                        "n{id} {role} term={term} vote={vote} leader={leader} last={last} \
                         commit={commit} applied=[{applied}]"
                    )?;
                }
            }
            Command::Logs => {
                for (id, node) in &cluster.nodes {
                    let log = node.raft.log();
                    let entries: Vec<_> = log.iter_from(1).map(ToString::to_string).collect();
                    let base = log.base();
                    writeln!(cluster.output, "n{id} base={base} {}", entries.join(" "))?;
                }
            }
        }
        Ok(std::mem::take(&mut cluster.output))
    }
}

#[test]
fn golden_raft_scripts() {
    run_scripts("tests/golden/raft", 44, || Runner(Cluster::new(1, 1)));
}
