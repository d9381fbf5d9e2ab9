//! One node: Raft, the store on top of it, and the order of their effects.
//!
//! A node accepts and keeps performs even before its cluster has formed; [`Input::Start`] gives it
//! its Raft. From then on [`Node`] ensures that no message leaves before the write on which it
//! depends is durable, that user code returns before the next input is handled, and that the
//! actions of one turn are proposed as one append.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::raft::{
    self, Change, Index, NodeId, Outgoing, Persist, PersistSeq, Raft, Refused, Saved, Term, Time,
};
use crate::store::{
    self, Call, DetachedClient, Failure, Fault, Outcome, Perform, Return, Settled, Step, Store,
};

/// What one node sends to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Packet {
    /// A message of Raft.
    Raft(raft::Message),
    /// A message of the store.
    Store(store::Message),
}

/// Where a node's writes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Nowhere. A node that stops is never started again, so every write counts as durable at once.
    Volatile,
    /// To storage. The caller answers each [`Output::persist`] with [`Input::Persisted`].
    Durable,
}

/// One thing that happened to a node.
#[derive(Debug)]
pub enum Input<S> {
    /// The cluster has formed, or the node restarts in it.
    Start {
        /// Raft's settings, with the members.
        config: raft::Config,
        /// What storage has of the node.
        saved: Saved,
    },
    /// Time has passed.
    Tick,
    /// A packet arrived.
    Receive {
        /// The member that sent it.
        from: NodeId,
        /// What it sent.
        packet: Packet,
    },
    /// Performs, in the order in which they were issued.
    Perform(Vec<Perform>),
    /// Settle this read when the node's state is at least as new as the cluster's is now
    /// (ReadIndex, dissertation §6.4).
    Read {
        /// The caller's number for the read.
        ticket: u64,
    },
    /// This write and all before it are durable.
    Persisted(PersistSeq),
    /// The user code in [`Output::call`] returned.
    Returned(Return<S>),
    /// Change the configuration, if this node leads. Answered in [`Output::changed`].
    Change(Change),
    /// This member's host is known to be dead.
    PeerDown(NodeId),
    /// Work waits for the other members, so this node is quiesced no longer
    /// ([`raft::Config::quiesce_interval`]).
    Wake,
    /// If this node leads: hand leadership to this member, or, if it is `None`, to the live voter
    /// with the longest log.
    Transfer(Option<NodeId>),
    /// The node is about to stop: reject what is pending, close the session, hand leadership over.
    Close(Failure),
}

/// Everything that one call asks of its caller, in the order in which to do it.
#[derive(Debug)]
#[must_use = "an output that is dropped loses messages, writes and settlements"]
pub struct Output<S> {
    /// Writes to start, in order.
    pub persist: Vec<Persist>,
    /// What to send now. Everything that the messages depend on is durable.
    pub send: Vec<(NodeId, Packet)>,
    /// Performs and reads that have ended, in order.
    pub settled: Vec<Settled>,
    /// What the caller may want to know.
    pub events: Vec<Event>,
    /// The answer to [`Input::Change`]: the index of its entry, or why there is none.
    pub changed: Option<Result<Index, Refused>>,
    /// User code to run now. The next input must be [`Input::Returned`] with what it returns.
    pub call: Option<Call<S>>,
    /// When to call next, in ms, if no other input comes before.
    pub deadline: Option<Time>,
}

impl<S> Default for Output<S> {
    fn default() -> Self {
        Self {
            persist: Vec::new(),
            send: Vec::new(),
            settled: Vec::new(),
            events: Vec::new(),
            changed: None,
            call: None,
            deadline: None,
        }
    }
}

/// Something that the caller may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The term changed, or the leader that this node knows.
    Leader {
        /// The current term.
        term: Term,
        /// Its leader, as far as this node knows.
        leader: Option<NodeId>,
    },
    /// The configuration in force changed, or it was there already and is committed now.
    Members,
    /// A member sent a message that no correct member sends. It was ignored.
    Invalid {
        /// The sender.
        from: NodeId,
        /// What was wrong.
        error: raft::Invalid,
    },
    /// The user's code or state has a fault.
    Fault(Fault),
}

/// One node.
#[derive(Debug)]
pub struct Node<S> {
    durability: Durability,
    seed: u64,
    raft: Option<Raft>,
    store: Store<S>,
    /// Writes up to this one are durable.
    durable: PersistSeq,
    /// Messages that wait for a write.
    held: VecDeque<Outgoing>,
    /// User code is running: only [`Input::Returned`] may come in.
    calling: bool,
    /// [`Input::Close`] was handled: new performs and reads are rejected.
    closing: bool,
    /// Leadership is to be handed over once the store has nothing to do.
    hand_over: bool,
    /// A node that cannot judge does not hand leadership over again before this time. If no member
    /// can judge, they would pass it around as fast as messages travel, and none would lead for
    /// long enough to have their states checked.
    hand_over_again: Time,
    /// How often a node that cannot judge has handed leadership over.
    handed_over: usize,
}

impl<S: Clone> Node<S> {
    /// A node that has not started. `seed` decides every random choice.
    pub fn new(config: store::Config, initial: S, durability: Durability, seed: u64) -> Self {
        Self {
            durability,
            seed,
            raft: None,
            store: Store::new(config, initial, seed.wrapping_add(1)),
            durable: 0,
            held: VecDeque::new(),
            calling: false,
            closing: false,
            hand_over: false,
            hand_over_again: 0,
            handed_over: 0,
        }
    }

    /// A node that has not started, with the client of a node that has stopped.
    pub fn attach(
        config: store::Config,
        initial: S,
        durability: Durability,
        seed: u64,
        client: DetachedClient,
    ) -> Self {
        let store = Store::attach(config, initial.clone(), client);
        Self { store, ..Self::new(config, initial, durability, seed) }
    }

    /// Stops this node and returns its client, for [`Self::attach`].
    pub fn detach(self) -> DetachedClient {
        self.store.detach()
    }

    /// The node's Raft, once it has started.
    pub fn raft(&self) -> Option<&Raft> {
        self.raft.as_ref()
    }

    /// The node's store.
    pub fn store(&self) -> &Store<S> {
        &self.store
    }

    /// How many messages wait for a write.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Handles one input at the time `now`, in ms, and returns what the caller must do.
    ///
    /// # Panics
    /// When the last output had a [`Output::call`] and the input is not [`Input::Returned`], or the
    /// reverse: a bug of the caller.
    pub fn handle(&mut self, now: Time, input: Input<S>) -> Output<S> {
        let returned = matches!(input, Input::Returned(_));
        assert_eq!(self.calling, returned, "user code returns before anything else happens");
        self.calling = false;
        let mut out = Output::default();
        match input {
            Input::Start { config, saved } => self.start(now, config, saved),
            Input::Tick => {}
            Input::Receive { from, packet } => self.receive(now, from, packet, &mut out),
            Input::Perform(performs) => self.perform(now, performs, &mut out),
            Input::Read { ticket } if self.closing => out.settled.push(closed(ticket)),
            Input::Read { ticket } => self.store.handle_read(ticket),
            Input::Persisted(seq) => self.persisted(now, seq, &mut out),
            Input::Returned(returned) => self.returned(now, returned, &mut out),
            Input::Change(change) => self.feed(now, raft::Input::Change(change), &mut out),
            Input::PeerDown(id) => self.feed(now, raft::Input::PeerDown(id), &mut out),
            Input::Wake => self.feed(now, raft::Input::Wake, &mut out),
            Input::Transfer(to) => self.feed(now, raft::Input::Transfer(to), &mut out),
            Input::Close(failure) => self.close(&failure),
        }
        // Not every input reaches Raft, so its deadline is checked here.
        if self.raft.as_ref().is_some_and(|raft| now >= raft.deadline()) {
            self.feed(now, raft::Input::Tick, &mut out);
        }
        self.store.handle_tick(now);
        self.drive(now, &mut out);
        // The leader's silence must count while performs or reads wait for it.
        if self.store.needs_leader() && self.raft.as_ref().is_some_and(Raft::is_quiesced) {
            self.feed(now, raft::Input::Wake, &mut out);
        }
        out.settled.extend(self.store.take_settled());
        out.events.extend(self.store.take_faults().into_iter().map(Event::Fault));
        out.deadline = self.deadline();
        out
    }

    fn start(&mut self, now: Time, config: raft::Config, saved: Saved) {
        debug_assert!(self.raft.is_none(), "a node starts once");
        let raft = Raft::new(config, saved, now, self.seed);
        if let Some(snapshot) = raft.log().snapshot() {
            self.store.handle_snapshot(snapshot.clone());
        }
        self.raft = Some(raft);
    }

    fn receive(&mut self, now: Time, from: NodeId, packet: Packet, out: &mut Output<S>) {
        match packet {
            Packet::Raft(message) => {
                self.feed(now, raft::Input::Receive { from, message }, out);
            }
            Packet::Store(message) => {
                if let Some(raft) = &self.raft {
                    self.store.handle_message(now, raft, from, message);
                }
            }
        }
    }

    fn perform(&mut self, now: Time, performs: Vec<Perform>, out: &mut Output<S>) {
        if self.closing {
            out.settled.extend(performs.into_iter().map(|perform| closed(perform.ticket)));
        } else {
            self.store.handle_performs(now, performs);
        }
    }

    fn close(&mut self, failure: &Failure) {
        self.closing = true;
        self.hand_over = true;
        self.store.fail_all(failure);
        if let Some(raft) = &self.raft {
            self.store.handle_close(raft);
        }
    }

    fn persisted(&mut self, now: Time, seq: PersistSeq, out: &mut Output<S>) {
        self.durable = self.durable.max(seq);
        self.release(out);
        self.feed(now, raft::Input::Persisted(seq), out);
    }

    fn returned(&mut self, now: Time, returned: Return<S>, out: &mut Output<S>) {
        let raft = self.raft.as_ref().expect("only a node that has started calls user code");
        let step = self.store.handle_return(raft, returned);
        self.take_step(now, step, out);
    }

    /// Gives one input to Raft and handles its output.
    fn feed(&mut self, now: Time, input: raft::Input, out: &mut Output<S>) {
        let Some(raft) = &mut self.raft else { return };
        let is_change = matches!(input, raft::Input::Change(_));
        let output = raft.handle(now, input);
        for event in output.events {
            match event {
                raft::Event::Leader { term, leader } => {
                    self.store.handle_leader(raft);
                    out.events.push(Event::Leader { term, leader });
                }
                raft::Event::Appended { from } => self.store.handle_appended(from),
                raft::Event::Members => out.events.push(Event::Members),
                raft::Event::Invalid { from, error } => {
                    out.events.push(Event::Invalid { from, error });
                }
            }
        }
        for committed in output.committed {
            // The store finds committed entries in the log itself.
            if let raft::Committed::Snapshot(snapshot) = committed {
                self.store.handle_snapshot(snapshot);
            }
        }
        for confirmed in output.reads {
            self.store.handle_confirmed(confirmed);
        }
        if is_change {
            out.changed = output.proposed;
        } else if let Some(result) = output.proposed {
            self.store.proposed(raft, result);
        }
        self.held.extend(output.messages);
        if let Some(persist) = output.persist {
            let seq = persist.seq;
            if self.durability == Durability::Volatile {
                return self.persisted(now, seq, out);
            }
            out.persist.push(persist);
        }
        self.release(out);
    }

    /// Sends the messages whose write is durable.
    fn release(&mut self, out: &mut Output<S>) {
        for message in std::mem::take(&mut self.held) {
            if message.after <= self.durable {
                out.send.push((message.to, Packet::Raft(message.message)));
            } else {
                self.held.push_back(message);
            }
        }
    }

    /// Lets the store work until it has nothing to do, or user code must run.
    fn drive(&mut self, now: Time, out: &mut Output<S>) {
        while !self.calling {
            let Some(raft) = &self.raft else { return };
            let step = self.store.step(raft);
            let idle = matches!(step, Step::Idle);
            self.take_step(now, step, out);
            if idle && !self.deliver(now, out) {
                // Leadership is handed over last, because a leader refuses proposals meanwhile.
                let leads = self.raft.as_ref().is_some_and(Raft::takes_proposals);
                // A leader whose state is wrong or unknown cannot judge.
                let must_not_lead = leads && !self.store.is_fit() && now >= self.hand_over_again;
                if !std::mem::take(&mut self.hand_over) && !must_not_lead {
                    return;
                }
                let successor = self.successor().filter(|_| must_not_lead);
                self.feed(now, raft::Input::Transfer(successor), out);
                if must_not_lead && let Some(raft) = &self.raft {
                    if raft.takes_proposals() {
                        return; // No other member can lead.
                    }
                    let longest_election = raft.config().election_timeout.1;
                    self.hand_over_again = now.saturating_add(2 * longest_election);
                    self.handed_over += 1;
                }
            }
        }
    }

    /// To whom a node that cannot judge hands leadership over. At first that is for Raft to choose.
    /// But that member may not be able to judge either, so then it is each voter in turn.
    fn successor(&self) -> Option<NodeId> {
        let raft = self.raft.as_ref()?;
        let members = raft.members().iter().filter(|(id, _)| *id != raft.id());
        let voters: Vec<_> = members.filter(|(_, m)| m.voter).map(|(id, _)| id).collect();
        let turn = self.handed_over.checked_sub(1)?.checked_rem(voters.len())?;
        voters.get(turn).copied()
    }

    fn take_step(&mut self, now: Time, step: Step<S>, out: &mut Output<S>) {
        match step {
            Step::Call(call) => {
                self.calling = true;
                out.call = Some(call);
            }
            Step::Propose(commands) => self.feed(now, raft::Input::Propose(commands), out),
            Step::Confirm { id, at_least } => {
                self.feed(now, raft::Input::Confirm { id, at_least }, out);
            }
            Step::Transfer(to) => self.feed(now, raft::Input::Transfer(Some(to)), out),
            Step::Compact { last, data } => {
                self.feed(now, raft::Input::Compact { last, data }, out);
            }
            #[cfg(feature = "mistakes")]
            Step::Reset { last, data } => {
                self.feed(now, raft::Input::Reset { last, data }, out);
            }
            Step::Idle => {}
        }
    }

    /// Sends the store's messages. Those to this node itself arrive at once; returns whether there
    /// were any.
    fn deliver(&mut self, now: Time, out: &mut Output<S>) -> bool {
        let Some(raft) = &self.raft else { return false };
        let mut any_to_self = false;
        for (to, message) in self.store.take_messages(now, raft) {
            if to == raft.id() {
                self.store.handle_message(now, raft, to, message);
                any_to_self = true;
            } else {
                out.send.push((to, Packet::Store(message)));
            }
        }
        any_to_self
    }

    /// When to call [`Self::handle`] next, in ms; `None` when only an input can change anything.
    pub fn deadline(&self) -> Option<Time> {
        let raft = self.raft.as_ref().map(Raft::deadline);
        let has_leader = self.raft.as_ref().is_some_and(|raft| raft.leader().is_some());
        [raft, self.store.deadline(has_leader)].into_iter().flatten().min()
    }
}

fn closed(ticket: u64) -> Settled {
    Settled { ticket, outcome: Outcome::Failed(Failure::new("CLOSED", "the node is closed")) }
}
