//! The host's part of a fixed cluster: one node, which forms the cluster with the others before it
//! runs. Its storage, if it has any, is one file.

use serde::{Deserialize, Serialize};

use super::cluster::{Action, Admission, Cluster, Event, Route};
use super::transport::{Address, Message};
use super::types::{Effect, Notice, Settings, Status};
use crate::elastic::View;
use crate::formation::{self, Formation, Plan, Refusal, Set, To};
use crate::node::{Durability, Packet};
use crate::raft::{self, HardState, Members, NodeId, Persist, PersistSeq, Raft, Saved, Time};
use crate::sorted::SortedSet;
use crate::storage::file;
use crate::store::Failure;
use crate::wire::Header;

/// After how many ms the first member of a new cluster campaigns. By the time that it asks the
/// others for their votes, they have started, too.
const FIRST_ELECTION: Time = 5;

/// The fixed cluster of one host.
#[derive(Debug)]
pub(super) struct FixedCluster {
    id: String,
    name: String,
    plan: Plan,
    durability: Durability,
    seed: u64,
    formation: Formation,
    /// Storage has not answered yet whether it has this node.
    loading: bool,
    closing: bool,
    /// The record that names the owner of the storage, once it is written or being written.
    owner: Option<Owner>,
    /// The number of the last record that is durable.
    durable: PersistSeq,
    /// The own node runs.
    running: bool,
    /// The nonces of the members that have announced that they leave.
    left: SortedSet<u64>,
    /// What the host is to do; returned by the next [`Cluster`] method that returns actions.
    actions: Vec<Action>,
}

/// The record in a storage file that says to which node of which cluster the file belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    cluster: String,
    id: String,
    nonce: u64,
    set: Set,
}

impl FixedCluster {
    /// The cluster of a host whose node has not joined any set. `seed` determines every random
    /// choice.
    pub(super) fn new(settings: &Settings, id: String, plan: Plan, now: Time, seed: u64) -> Self {
        Self {
            formation: Formation::new(id.clone(), plan.clone(), now, seed),
            id,
            name: settings.cluster.clone(),
            plan,
            durability: settings.durability,
            seed,
            loading: settings.durability == Durability::Durable,
            closing: false,
            owner: None,
            durable: 0,
            running: false,
            left: SortedSet::new(),
            actions: Vec::new(),
        }
    }

    fn own_raft<'a>(&self, nodes: &'a dyn View) -> Option<&'a Raft> {
        nodes.raft(self.formation.number()?)
    }

    /// Turns the output of the formation into actions.
    fn take(&mut self, output: formation::Output) {
        for (to, message) in output.messages {
            let (id, to) = match to {
                To::Everyone => (None, 0),
                To::Nonce(nonce) => (None, nonce),
                To::Member(member) => (Some(member.id), member.nonce),
            };
            let address = Address { id, to, from: self.formation.me().nonce, set: 0 };
            self.actions.push(Action::Send(address, Message::Formation(message)));
        }
        for event in output.events {
            self.take_event(event);
        }
        let own = self.formation.number();
        self.actions
            .extend(own.zip(output.change).map(|(own, change)| Action::Change(own, change)));
    }

    fn take_event(&mut self, event: formation::Event) {
        match event {
            formation::Event::Formed(set) | formation::Event::Readmitted(set) => self.begin(set),
            formation::Event::Refused { why, members } => self.refused(why, &members),
            formation::Event::SizeMismatch { id, size } => {
                let message = format!(
                    "node `{id}` has clusterSize {size} and this one {}: no cluster can form of \
                     both, give them the same",
                    self.formation.size()
                );
                self.report("SIZE_MISMATCH", message);
            }
            formation::Event::NotAMember { id } => {
                let message = format!(
                    "node `{id}` is on this channel and not among `members`: it is ignored"
                );
                self.report("NOT_A_MEMBER", message);
            }
            formation::Event::Leaving(nonce) => {
                self.left.insert(nonce);
            }
            formation::Event::DuplicateId => {
                let message = format!(
                    "another node on this channel has the id `{}`: every node needs its own",
                    self.id
                );
                self.report("DUPLICATE_ID", message);
            }
        }
    }

    fn report(&mut self, code: &str, message: String) {
        self.actions.push(Action::Report(Notice::Error(Failure::new(code, message))));
    }

    /// The node now belongs to a cluster. If it has storage, it runs only when that is written.
    fn begin(&mut self, set: Set) {
        if self.durability == Durability::Volatile {
            return self.run(&set, Saved::default());
        }
        let (cluster, id) = (self.name.clone(), self.id.clone());
        self.owner = Some(Owner { cluster, id, nonce: self.formation.me().nonce, set });
        self.record(&Persist::begin(0, &Saved::default()), true);
    }

    /// Storage has answered. If it has this node, the node runs on from there; if what it has
    /// cannot be read or belongs to another node, the host refuses to run.
    fn restored(&mut self, now: Time, file: Option<&[u8]>) {
        self.loading = false;
        let Some(bytes) = file else { return };
        let read = file::read(bytes).map_err(|error| error.to_string());
        let owner = read.and_then(|contents| {
            let owner: Result<Owner, _> = postcard::from_bytes(&contents.owner);
            Ok((owner.map_err(|_| "it does not say whose it is")?, contents.saved))
        });
        let (owner, saved) = match owner {
            Ok(read) => read,
            Err(why) => {
                let message = format!(
                    "what storage has of this node cannot be read ({why}): restore it from a copy, \
                     or delete it, and the node comes back as one that has lost its memory"
                );
                return self.refuse(Failure::new("STORAGE_CORRUPT", message));
            }
        };
        let (id, cluster, size) = (&self.id, &self.name, self.plan.size());
        if owner.id != *id || owner.cluster != *cluster || owner.set.members().len() != size {
            let message = format!(
                "storage has node `{}` of the cluster `{}` with {} members, and this is `{id}` of \
                 `{cluster}` with {size}: give each node a folder of its own",
                owner.id,
                owner.cluster,
                owner.set.members().len(),
            );
            return self.refuse(Failure::new("STORAGE_MISMATCH", message));
        }
        let (set, nonce) = (owner.set.clone(), owner.nonce);
        let plan = self.plan.clone();
        self.formation = Formation::resume(id.clone(), nonce, set.clone(), plan, now, self.seed);
        self.owner = Some(owner);
        self.record(&Persist::begin(0, &saved), true);
        self.run(&set, saved);
    }

    fn record(&mut self, persist: &Persist, begins: bool) {
        let effect = self.record_of(persist, begins);
        self.actions.push(Action::Effect(effect));
    }

    /// The effect that writes a record. If `begins`, the record replaces everything written before
    /// it.
    fn record_of(&self, persist: &Persist, begins: bool) -> Effect {
        let (seq, durable) = (persist.seq, self.durable);
        let owner = self.owner.as_ref().filter(|_| begins);
        let owner = owner.map(|owner| postcard::to_allocvec(owner).expect("it fits in memory"));
        Effect::Record { seq, begins, bytes: file::record(seq, durable, owner, persist) }
    }

    fn run(&mut self, set: &Set, saved: Saved) {
        let node = self.formation.number().expect("the node belongs to a set");
        let is_new = saved.hard.term == 0;
        let member = |(number, member): (NodeId, &formation::Member)| {
            (number, raft::Member { voter: true, name: member.id.clone() })
        };
        // A node that replaces its former self, whose memory was lost, is not a member yet: it
        // knows no members until the leader has added it.
        let members = match set.member(node) {
            Some(_) => Members::new((1..).zip(set.members()).map(member)),
            None => Members::default(),
        };
        let first_election = (node == 1 && is_new).then_some(FIRST_ELECTION);
        self.running = true;
        self.actions.push(Action::Run {
            node,
            epoch: 0,
            own: true,
            members,
            saved,
            first_election,
        });
    }

    fn refused(&mut self, why: Refusal, members: &[String]) {
        let (id, list) = (&self.id, members.join(", "));
        let message = match why {
            Refusal::Full => format!(
                "the cluster is full: it has its {} members ({list}) and takes no other; to start \
                 over, close them all",
                members.len()
            ),
            Refusal::Amnesia => {
                let message = format!(
                    "node `{id}` was a member of this cluster ({list}) and has lost its memory, and \
                     there is no majority of the others that could take it in anew; it waits for \
                     one: start the others again, or close them all and begin a new cluster"
                );
                return self.actions.push(Action::ReportOnce(why.code(), message));
            }
            Refusal::DuplicateId => format!(
                "another node with the id `{id}` is a member of this cluster, and lives: every node \
                 needs an id of its own"
            ),
            Refusal::Replaced => format!(
                "node `{id}` was taken for dead, and another start of it took its place: reload the \
                 page or start the process anew, and it is taken in again"
            ),
            Refusal::NotAMember => {
                format!("this cluster takes only its members ({list}), and `{id}` is none")
            }
            Refusal::OtherSet => {
                let message = format!(
                    "there is another cluster on this channel ({list}); give each a channel of \
                     its own"
                );
                return self.actions.push(Action::ReportOnce(why.code(), message));
            }
        };
        self.refuse(Failure::new(why.code(), message));
    }

    /// Stops the formation and the host.
    fn refuse(&mut self, failure: Failure) {
        self.loading = false;
        self.formation.stop();
        self.actions.push(Action::Refuse(failure));
    }
}

impl Cluster for FixedCluster {
    fn handle(&mut self, now: Time, event: Event, nodes: &dyn View) -> Vec<Action> {
        let output = match event {
            Event::Start | Event::Tick => self.formation.handle_tick(now),
            Event::Message(Message::Formation(message)) => {
                self.formation.handle_message(now, message)
            }
            Event::Changed => match self.own_raft(nodes).filter(|_| !self.closing) {
                Some(raft) => self.formation.handle_raft(now, raft),
                None => formation::Output::default(),
            },
            Event::Restored(file) => {
                if self.loading {
                    self.restored(now, file.as_deref());
                }
                formation::Output::default()
            }
            Event::Failed(failure) => {
                self.refuse(failure);
                formation::Output::default()
            }
            Event::Close => {
                self.closing = true;
                self.formation.handle_close()
            }
            // A fixed cluster goes on in a hidden tab, and has nothing to release or to delete.
            Event::Message(_)
            | Event::Elastic(_)
            | Event::Visible(_)
            | Event::Foreign
            | Event::Suspend
            | Event::Destroy => formation::Output::default(),
        };
        self.take(output);
        std::mem::take(&mut self.actions)
    }

    fn is_loading(&self) -> bool {
        self.loading
    }

    fn deadline(&self) -> Option<Time> {
        self.formation.deadline()
    }

    fn wants_review(&self, now: Time, nodes: &dyn View) -> bool {
        !self.closing && self.formation.is_review_due(now) && self.own_raft(nodes).is_some()
    }

    fn admit(&self, header: &Header) -> Admission {
        match header.to == 0 || header.to == self.formation.me().nonce {
            true => Admission::Taken,
            false => Admission::Stale,
        }
    }

    fn route(
        &mut self,
        header: &Header,
        packet: &Packet,
        nodes: &dyn View,
    ) -> (Option<Route>, Vec<Action>) {
        let (Some(set), Some(to)) = (self.formation.set(), self.formation.number()) else {
            return (None, Vec::new());
        };
        if header.set != self.formation.set_hash() {
            let output = self.formation.handle_other_set(header.from);
            self.take(output);
            return (None, std::mem::take(&mut self.actions));
        }
        let from = set.number(header.from).unwrap_or(header.from);
        let asks_for_vote = |packet: &Packet| match packet {
            Packet::Raft(message) => {
                matches!(message.body, raft::Body::PreVote { .. } | raft::Body::Vote { .. })
            }
            Packet::Store(_) => false,
        };
        if let Some(raft) = self.own_raft(nodes)
            && asks_for_vote(packet)
        {
            let output = self.formation.handle_former(from, raft);
            self.take(output);
        }
        (Some(Route { to, from }), std::mem::take(&mut self.actions))
    }

    fn address(&self, _from: NodeId, to: NodeId, own: Option<&Raft>) -> Address {
        let member = self.formation.member(to, own);
        Address {
            // A message to a member whose id is not known yet is broadcast.
            to: member.as_ref().map_or(to, |member| member.nonce),
            id: member.map(|member| member.id),
            from: self.formation.me().nonce,
            set: self.formation.set_hash(),
        }
    }

    fn write(
        &mut self,
        _node: NodeId,
        _epoch: u64,
        _generation: u32,
        persist: Persist,
        hard: HardState,
    ) -> Effect {
        // A write with a snapshot also contains all entries behind the snapshot, so a new file can
        // begin with it, which replaces the old file.
        match persist.snapshot.is_some() {
            true => self.record_of(&Persist { hard: Some(hard), ..persist }, true),
            false => self.record_of(&persist, false),
        }
    }

    fn persisted(&mut self, seq: PersistSeq) -> Vec<Action> {
        self.durable = self.durable.max(seq);
        if let Some(set) = self.formation.set().cloned().filter(|_| !self.running) {
            // The record of the owner has just become durable.
            self.run(&set, Saved::default());
        }
        std::mem::take(&mut self.actions)
    }

    fn id(&self) -> String {
        self.id.clone()
    }

    fn name(&self, node: NodeId, own: Option<&Raft>) -> Option<String> {
        self.formation.member(node, own).map(|member| member.id)
    }

    fn label(&self, node: NodeId) -> String {
        format!("member {node}")
    }

    fn present(&self) -> usize {
        self.formation.present()
    }

    fn is_last(&self) -> bool {
        let others = self.formation.set().map_or(0, |set| set.members().len() - 1);
        self.left.len() >= others
    }

    fn complete(&self, status: &mut Status, own: Option<&Raft>) {
        status.size = self.formation.size();
        if let Some(set) = self.formation.set() {
            status.present = set.members().len();
            // Without a running Raft, or while this node is not a member yet, the members are those
            // of the set.
            if own.is_none_or(|raft| raft.members().is_empty()) {
                status.members = set.members().iter().map(|member| member.id.clone()).collect();
            }
        }
    }

    fn set(&self) -> Option<&Set> {
        self.formation.set()
    }
}
