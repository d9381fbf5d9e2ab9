//! What a host does, without a browser: forming, one node, frames. Pure like the modules below it,
//! so that the same code runs in tabs, in Node.js and in native tests.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

pub use super::mail::Letter;
use super::mail::{Address, Mail};
pub use super::words::{Counters, Effect, Input, Notice, Output, Phase, Settings, Status};
use crate::node::{self, Durability, Node, Packet};
use crate::raft::{self, Persist, PersistSeq, RoleName, Saved, Time};
use crate::sorted::SortedSet;
use crate::storage::file;
use crate::store::{Failure, Outcome, Settled, Trouble};
use crate::tenancy::{self, Refusal, Set, Tenancy, To};
use crate::wire::Header;

/// How soon after its cluster has formed the first member stands for election, in ms.
const FIRST_ELECTION: Time = 5;

/// How long a node that closes tries to hand leadership over, in ms.
const LONGEST_CLOSE: Time = 500;

/// What a host does.
#[derive(Debug)]
pub struct HostCore<S> {
    settings: Settings,
    tenancy: Tenancy,
    node: Node<S>,
    phase: Phase,
    /// Why performs are refused.
    stopped: Option<Failure>,
    close_by: Option<Time>,
    /// The nonces of members that have said goodbye.
    left: SortedSet<u64>,
    mail: Mail,
    /// What has arrived and waits until user code has returned.
    inbox: VecDeque<Work<S>>,
    calling: bool,
    /// Storage has not said yet what it has.
    loading: bool,
    /// A leader or the members have changed.
    changed: bool,
    seed: u64,
    /// Who this node is, once that is (being) written, and the number of the last durable record.
    owner: Option<Owner>,
    durable: PersistSeq,
}

/// Who a node of a fixed cluster is, as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    cluster: String,
    id: String,
    nonce: u64,
    set: Set,
}

/// Whom the channel gives a frame to, which start of that node it is for, and the sender's set.
type Destination = (Option<String>, u64, u64);

/// One thing to do. A frame is one for each of its messages, because each may call user code.
#[derive(Debug)]
enum Work<S> {
    Input(Input<S>),
    Letter(Header, Letter),
}

impl<S: Clone> HostCore<S> {
    /// A host. `seed` decides every random choice.
    pub fn new(settings: Settings, initial: S, now: Time, seed: u64) -> Self {
        let tenancy = Tenancy::new(settings.id.clone(), settings.plan.clone(), now, seed);
        let (store, durability) = (settings.store, settings.durability);
        let node = Node::new(store, initial, durability, seed.wrapping_add(1));
        Self {
            mail: Mail::new(&settings.cluster, store.version),
            settings,
            tenancy,
            node,
            phase: Phase::Forming,
            stopped: None,
            close_by: None,
            left: SortedSet::new(),
            inbox: VecDeque::new(),
            calling: false,
            changed: false,
            loading: durability == Durability::Durable,
            seed,
            owner: None,
            durable: 0,
        }
    }

    /// The node.
    pub fn node(&self) -> &Node<S> {
        &self.node
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The set of members, once the cluster has formed.
    pub fn set(&self) -> Option<&Set> {
        self.tenancy.set()
    }

    /// Where the node stands.
    pub fn status(&self) -> Status {
        let (raft, set) = (self.node.raft(), self.tenancy.set());
        let name = |number| self.tenancy.member(number, raft).map(|member| member.id);
        let members = |voter: Option<bool>| -> Vec<String> {
            let Some(raft) = raft.filter(|raft| !raft.members().is_empty()) else {
                let all = set.into_iter().flat_map(Set::members).map(|member| member.id.clone());
                return all.filter(|_| voter.is_none()).collect();
            };
            let all = raft.members().iter();
            let chosen = all.filter(|(_, member)| voter.is_none_or(|voter| member.voter == voter));
            chosen.filter_map(|(number, _)| name(number)).collect()
        };
        let matched = raft.and_then(raft::Raft::matched).unwrap_or_default();
        let matched = matched.into_iter().filter_map(|(number, at)| Some((name(number)?, at)));
        Status {
            phase: self.phase,
            role: raft.map_or(RoleName::Follower, raft::Raft::role),
            term: raft.map_or(0, raft::Raft::term),
            leader: raft.and_then(raft::Raft::leader).and_then(name),
            commit: raft.map_or(0, raft::Raft::commit_index),
            applied: self.node.store().applied(),
            last: raft.map_or(0, |raft| raft.log().last().index),
            snapshot: raft.map_or(0, |raft| raft.log().base().index),
            members: members(None),
            learners: members(Some(false)),
            adopted: Vec::new(),
            hidden: Vec::new(),
            running: Vec::new(),
            matched: matched.collect(),
            size: self.tenancy.size(),
            present: set.map_or(self.tenancy.present(), |set| set.members().len()),
            waiting: self.node.store().waiting(),
            counters: self.mail.counters,
        }
    }

    /// Takes one input at the time `now` and says what to do. While user code runs, other inputs
    /// wait; what it returns comes before them.
    pub fn handle(&mut self, now: Time, input: Input<S>) -> Output<S> {
        let mut out = Output::default();
        if let Input::Returned(returned) = input {
            self.calling = false;
            self.feed(now, node::Input::Returned(returned), &mut out);
        } else {
            self.inbox.push_back(Work::Input(input));
        }
        let present = self.tenancy.present();
        while !self.calling
            && let Some(at) = self.next_work()
            && let Some(work) = self.inbox.remove(at)
        {
            self.work(now, work, &mut out);
        }
        self.look(now, &mut out);
        if self.tenancy.present() != present {
            out.notices.push(Notice::Status);
        }
        if !self.calling {
            self.finish_closing(now, &mut out);
        }
        out.deadline = self.deadline();
        out
    }

    /// What can be done next. While storage has not said what it has, most of it waits.
    fn next_work(&self) -> Option<usize> {
        let now = |work: &Work<S>| {
            let Work::Input(input) = work else { return false };
            matches!(input, Input::Restored(_) | Input::Broken(_) | Input::Close)
        };
        if self.loading { self.inbox.iter().position(now) } else { Some(0) }
    }

    /// Sees to it that members which have lost their memory come back.
    fn look(&mut self, now: Time, out: &mut Output<S>) {
        if self.calling || self.phase != Phase::Member {
            return;
        }
        if !std::mem::take(&mut self.changed) && !self.tenancy.wants_to_look(now) {
            return;
        }
        let Some(raft) = self.node.raft() else { return };
        let mut form = self.tenancy.handle_raft(now, raft);
        let change = form.change.take();
        self.take_forming(now, form, out);
        if let Some(change) = change {
            self.feed(now, node::Input::Change(change), out);
        }
    }

    fn work(&mut self, now: Time, work: Work<S>, out: &mut Output<S>) {
        match work {
            Work::Input(Input::Broken(failure)) if self.phase != Phase::Closed => {
                self.stop(failure, out);
            }
            Work::Input(Input::Restored(bytes)) if self.phase == Phase::Forming => {
                self.restored(now, bytes.as_deref(), out);
            }
            Work::Input(input) if self.phase == Phase::Closed => self.refuse_input(input, out),
            Work::Input(Input::Frame(frame)) => self.receive(&frame, out),
            Work::Input(Input::Close) => self.close(now, out),
            Work::Input(Input::Tick) => {
                let form = self.tenancy.handle_tick(now);
                self.take_forming(now, form, out);
                if !self.calling {
                    self.feed(now, node::Input::Tick, out);
                }
            }
            Work::Input(input) if self.stopped.is_some() => self.refuse_input(input, out),
            Work::Input(Input::Perform(performs)) => {
                self.feed(now, node::Input::Perform(performs), out);
            }
            Work::Input(Input::Read { ticket }) => {
                self.feed(now, node::Input::Read { ticket }, out);
            }
            Work::Input(Input::Returned(_)) => unreachable!("it never waits"),
            Work::Input(Input::Persisted { seq, .. }) => self.persisted(now, seq, out),
            // A fixed cluster has no tenants.
            Work::Input(_) => {}
            Work::Letter(..) if self.phase == Phase::Closed => {}
            Work::Letter(_, Letter::Form(message)) => {
                let form = self.tenancy.handle_message(now, message);
                self.take_forming(now, form, out);
            }
            Work::Letter(_, Letter::Host(_)) => {}
            Work::Letter(header, Letter::Node(packet)) => {
                self.receive_packet(now, &header, packet, out);
            }
        }
    }

    /// The frames to send, each to a node's id or to everyone: all of a turn's messages to one node
    /// in one frame.
    #[must_use]
    pub fn take_frames(&mut self) -> Vec<(Option<String>, Vec<u8>)> {
        self.mail.take_frames()
    }

    /// When something is due.
    pub fn deadline(&self) -> Option<Time> {
        if self.phase == Phase::Closed || self.loading {
            return self.close_by;
        }
        let raft = self.node.raft().map(raft::Raft::deadline);
        let store = self.node.store().deadline();
        [raft, store, self.tenancy.deadline(), self.close_by].into_iter().flatten().min()
    }

    fn receive(&mut self, frame: &[u8], out: &mut Output<S>) {
        let Some((header, letters)) = self.mail.open(frame, &mut out.notices) else { return };
        if header.to == 0 || header.to == self.tenancy.me().nonce {
            // Otherwise it is for an earlier start of this node.
            let letters = letters.into_iter().map(|letter| Work::Letter(header, letter));
            for letter in letters.rev() {
                self.inbox.push_front(letter);
            }
        }
    }

    fn receive_packet(&mut self, now: Time, header: &Header, packet: Packet, out: &mut Output<S>) {
        let Some(set) = self.tenancy.set() else { return };
        if header.set != self.tenancy.set_hash() {
            let form = self.tenancy.handle_other_set(header.from);
            return self.take_forming(now, form, out);
        }
        let from = set.number(header.from).unwrap_or(header.from);
        let asks = |message: &raft::Message| {
            matches!(message.body, raft::Body::PreVote { .. } | raft::Body::Vote { .. })
        };
        if let (Packet::Raft(message), Some(raft)) = (&packet, self.node.raft())
            && asks(message)
        {
            let form = self.tenancy.handle_former(from, raft);
            self.take_forming(now, form, out);
        }
        self.feed(now, node::Input::Receive { from, packet }, out);
    }

    fn take_forming(&mut self, now: Time, form: tenancy::Output, out: &mut Output<S>) {
        for (to, message) in form.messages {
            let destination = match to {
                To::Everyone => (None, 0, 0),
                To::Nonce(nonce) => (None, nonce, 0),
                To::Member(member) => (Some(member.id), member.nonce, 0),
            };
            self.post(destination, &Letter::Form(message));
        }
        for event in form.events {
            match event {
                tenancy::Event::Formed(set) | tenancy::Event::Welcomed(set) => {
                    self.begin(now, &set, out);
                }
                tenancy::Event::Refused { why, members } => self.refused(why, &members, out),
                tenancy::Event::SizeMismatch { id, size } => {
                    let message = format!(
                        "node `{id}` has clusterSize {size} and this one {}: no cluster can form \
                         of both, give them the same",
                        self.tenancy.size()
                    );
                    out.notices.push(Notice::Error(Failure::new("SIZE_MISMATCH", message)));
                }
                tenancy::Event::Stranger { id } => {
                    let message = format!(
                        "node `{id}` is on this channel and not among `members`: it is ignored"
                    );
                    out.notices.push(Notice::Error(Failure::new("NOT_A_MEMBER", message)));
                }
                tenancy::Event::Leaving(nonce) => {
                    self.left.insert(nonce);
                }
                tenancy::Event::DuplicateId => {
                    let message = format!(
                        "another node on this channel has the id `{}`: every node needs its own",
                        self.settings.id
                    );
                    out.notices.push(Notice::Error(Failure::new("DUPLICATE_ID", message)));
                }
            }
        }
    }

    /// The node belongs to a cluster from now on. First that is written.
    fn begin(&mut self, now: Time, set: &Set, out: &mut Output<S>) {
        if self.settings.durability == Durability::Volatile {
            return self.start(now, set, Saved::default(), out);
        }
        let owner = Owner {
            cluster: self.settings.cluster.clone(),
            id: self.settings.id.clone(),
            nonce: self.tenancy.me().nonce,
            set: set.clone(),
        };
        self.owner = Some(owner);
        self.record(&Persist::begin(0, &Saved::default()), true, out);
    }

    /// Storage says what it has of this node.
    fn restored(&mut self, now: Time, bytes: Option<&[u8]>, out: &mut Output<S>) {
        self.loading = false;
        let Some(bytes) = bytes else { return };
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
                return self.stop(Failure::new("STORAGE_CORRUPT", message), out);
            }
        };
        let (id, cluster, plan) = (&self.settings.id, &self.settings.cluster, &self.settings.plan);
        if owner.id != *id || owner.cluster != *cluster || owner.set.members().len() != plan.size()
        {
            let message = format!(
                "storage has node `{}` of the cluster `{}` with {} members, and this is `{id}` of \
                 `{cluster}` with {}: give each node a folder of its own",
                owner.id,
                owner.cluster,
                owner.set.members().len(),
                plan.size(),
            );
            return self.stop(Failure::new("STORAGE_MISMATCH", message), out);
        }
        let (set, nonce) = (owner.set.clone(), owner.nonce);
        let plan = plan.clone();
        self.tenancy = Tenancy::resume(id.clone(), nonce, set.clone(), plan, now, self.seed);
        self.owner = Some(owner);
        self.record(&Persist::begin(0, &saved), true, out);
        self.start(now, &set, saved, out);
    }

    /// Asks for a record to be written.
    fn record(&mut self, persist: &Persist, begins: bool, out: &mut Output<S>) {
        let (seq, durable) = (persist.seq, self.durable);
        let owner = self.owner.as_ref().filter(|_| begins);
        let owner = owner.map(|owner| postcard::to_allocvec(owner).expect("it fits in memory"));
        let bytes = file::record(seq, durable, owner, persist);
        out.effects.push(Effect::Record { seq, begins, bytes });
    }

    fn persisted(&mut self, now: Time, seq: PersistSeq, out: &mut Output<S>) {
        self.durable = self.durable.max(seq);
        if self.node.raft().is_some() {
            self.feed(now, node::Input::Persisted(seq), out);
        } else if let Some(set) = self.tenancy.set().cloned() {
            // Who this node is was written just now.
            self.start(now, &set, Saved::default(), out);
        }
    }

    fn start(&mut self, now: Time, set: &Set, saved: Saved, out: &mut Output<S>) {
        let number = self.tenancy.number().expect("it belongs to a set");
        let is_new = saved.hard.term == 0;
        let members = (1..).zip(set.members().iter().map(|member| &member.id));
        let member = |(number, name): (_, &String)| {
            (number, raft::Member { voter: true, name: name.clone() })
        };
        // Who takes the place of its former self is yet to join.
        let members = match set.member(number) {
            Some(_) => raft::Members::new(members.map(member)),
            None => raft::Members::default(),
        };
        let config = raft::Config {
            // The others have started, too, by the time that this one asks them.
            first_election: (number == 1 && is_new).then_some(FIRST_ELECTION),
            election_timeout: self.settings.election_timeout,
            heartbeat_interval: self.settings.heartbeat_interval,
            ..raft::Config::new(number, members)
        };
        if self.phase == Phase::Forming {
            self.phase = Phase::Member;
        }
        out.notices.push(Notice::Members);
        self.feed(now, node::Input::Start { config, saved }, out);
    }

    fn refused(&mut self, why: Refusal, members: &[String], out: &mut Output<S>) {
        let (id, list) = (&self.settings.id, members.join(", "));
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
                return self.mail.tell_once("AMNESIA", message, &mut out.notices);
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
                return self.mail.tell_once("OTHER_CLUSTER", message, &mut out.notices);
            }
        };
        self.stop(Failure::new(why.code(), message), out);
    }

    /// The node does nothing any more.
    fn stop(&mut self, failure: Failure, out: &mut Output<S>) {
        self.phase = Phase::Refused;
        self.loading = false;
        self.tenancy.stop();
        self.stopped = Some(failure.clone());
        out.notices.push(Notice::Error(failure.clone()));
        self.feed(Time::default(), node::Input::Close(failure), out);
    }

    fn refuse_input(&mut self, input: Input<S>, out: &mut Output<S>) {
        let closed = || Failure::new("CLOSED", "the node is closed");
        let failure = self.stopped.clone().unwrap_or_else(closed);
        let fail = |ticket| Settled { ticket, outcome: Outcome::Failed(failure.clone()) };
        match input {
            Input::Perform(performs) => {
                out.settled.extend(performs.iter().map(|perform| fail(perform.ticket)));
            }
            Input::Read { ticket } => out.settled.push(fail(ticket)),
            Input::Close => out.notices.push(Notice::Closed),
            _ => {}
        }
    }

    fn close(&mut self, now: Time, out: &mut Output<S>) {
        if self.phase == Phase::Closing {
            return;
        }
        self.phase = Phase::Closing;
        let failure = Failure::new(
            "CLOSED",
            "the node was closed before this was settled; it may still take effect",
        );
        self.stopped = Some(Failure::new("CLOSED", "the node is closed"));
        self.close_by = Some(now + self.settings.election_timeout.0.min(LONGEST_CLOSE));
        let goodbye = self.tenancy.handle_close();
        self.take_forming(now, goodbye, out);
        self.feed(now, node::Input::Close(failure), out);
    }

    /// Closing is done when leadership is handed over, or when that takes too long.
    fn finish_closing(&mut self, now: Time, out: &mut Output<S>) {
        let Some(close_by) = self.close_by else { return };
        let raft = self.node.raft();
        let handing_over = raft.is_some_and(|raft| raft.is_leader() && !raft.takes_proposals());
        let others = self.tenancy.set().map_or(0, |set| set.members().len() - 1);
        // When everyone leaves at once, there is nobody to hand over to.
        if now >= close_by || !handing_over || self.left.len() >= others {
            self.phase = Phase::Closed;
            self.close_by = None;
            out.notices.push(Notice::Closed);
        }
    }

    fn feed(&mut self, now: Time, input: node::Input<S>, out: &mut Output<S>) {
        let node = self.node.handle(now, input);
        out.settled.extend(node.settled);
        let stopped = self.phase == Phase::Refused;
        for persist in node.persist.iter().filter(|_| !stopped) {
            match (&persist.snapshot, self.node.raft()) {
                // With all that follows it, so that what was written before may go.
                (Some(_), Some(raft)) => {
                    let hard = Some(raft.hard_state());
                    self.record(&Persist { hard, ..persist.clone() }, true, out);
                }
                _ => self.record(persist, false, out),
            }
        }
        let hash = self.tenancy.set_hash();
        for (to, packet) in node.send.into_iter().filter(|_| !stopped) {
            let member = self.tenancy.member(to, self.node.raft());
            // Whose id is not known yet hears what everybody hears.
            let nonce = member.as_ref().map_or(to, |member| member.nonce);
            self.post((member.map(|member| member.id), nonce, hash), &Letter::Node(packet));
        }
        for event in node.events {
            match event {
                node::Event::Leader { .. } => {
                    self.changed = true;
                    out.notices.push(Notice::Leader);
                }
                node::Event::Members => {
                    self.changed = true;
                    out.notices.push(Notice::Members);
                }
                node::Event::Invalid { from, error } => {
                    let (who, error) = (format!("member {from}"), error.to_string());
                    self.mail.invalid(&who, &error, &mut out.notices);
                }
                node::Event::Trouble(trouble) => {
                    out.notices.push(Notice::Error(describe(trouble)));
                }
            }
        }
        debug_assert!(out.call.is_none(), "one call at a time");
        out.call = node.call;
        self.calling = out.call.is_some();
    }

    fn post(&mut self, destination: Destination, letter: &Letter) {
        let (id, to, set) = destination;
        let address = Address { id, to, from: self.tenancy.me().nonce, set };
        self.mail.post(address, letter);
    }
}

pub(super) fn describe(trouble: Trouble) -> Failure {
    match trouble {
        Trouble::ReducerFailed(failure) => Failure::new(
            "REDUCER_FAILED",
            format!(
                "the reducer failed on a committed action, and this node's state is as if the \
                 action had not been: {}",
                failure.message
            ),
        ),
        Trouble::CannotSave(failure) => Failure::new(
            "CANNOT_SAVE",
            format!("the state cannot be saved, so the log keeps growing: {}", failure.message),
        ),
        Trouble::CannotLoad(failure) => Failure::new(
            "CANNOT_LOAD",
            format!("a snapshot of the state cannot be loaded: {}", failure.message),
        ),
        Trouble::BadEntry(index) => Failure::new(
            "BAD_ENTRY",
            format!("the log entry at {index} cannot be read, and is skipped"),
        ),
    }
}
