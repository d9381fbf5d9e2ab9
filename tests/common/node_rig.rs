//! One node with a machine: the user code that the node asks for runs at once, and what the node
//! sends, settles and reports is collected.

use std::rc::{Rc, Weak};

use conflux::node::{Durability, Event, Input, Node, Packet};
use conflux::raft::{
    self, AppendResult, Blob, Body, Config, Entry, Members, Payload, Position, Saved, Time, Wants,
};
use conflux::store::{self, Command, Failure, Fault, Machine, Outcome, Perform, Settled};

/// The number of actions so far.
pub type State = Rc<u64>;

/// A machine whose state counts the actions, and which fails on request.
#[derive(Default)]
pub struct Counter {
    /// Which function fails: `save`, or `reduce` on the action `bad`. Empty: none.
    pub fail: &'static str,
    /// How long each call of user code takes, in ms.
    pub takes: Time,
    /// Every state that the reducer has made.
    pub made: Vec<Weak<u64>>,
    /// The indices that subscribers were called with.
    pub committed: Vec<u64>,
}

impl Machine for Counter {
    type State = State;

    fn judge(&mut self, method: &str, args: &[u8]) -> Result<Option<Blob>, Failure> {
        Ok(match method {
            "nothing" => None,
            "grow" => Some(vec![0; 1_000].into()),
            _ => Some(args.into()),
        })
    }

    fn reduce(&mut self, state: &State, action: &[u8]) -> Result<State, Failure> {
        if self.fail == "reduce" && action == b"bad" {
            return Err(Failure::new("REDUCER_FAILED", "no"));
        }
        let state = Rc::new(**state + 1);
        self.made.push(Rc::downgrade(&state));
        Ok(state)
    }

    fn save(&mut self, state: &State) -> Result<Vec<u8>, Failure> {
        if self.fail == "save" {
            return Err(Failure::new("NO_JSON", "no"));
        }
        Ok(state.to_le_bytes().to_vec())
    }

    fn load(&mut self, bytes: &[u8]) -> Result<State, Failure> {
        let bytes = bytes.try_into().map_err(|_| Failure::new("NO_NUMBER", "no"))?;
        Ok(Rc::new(u64::from_le_bytes(bytes)))
    }

    fn committed(&mut self, index: u64) {
        self.committed.push(index);
    }
}

/// A node without storage, whose writes count as durable at once, with its machine and its output.
pub struct Rig {
    pub node: Node<State>,
    pub machine: Counter,
    pub now: Time,
    pub settled: Vec<Settled>,
    pub faults: Vec<Fault>,
    pub sent: Vec<(u64, Packet)>,
}

impl Rig {
    /// Node 1 of so many, started with what storage has of it.
    pub fn new(
        nodes: u64,
        fail: &'static str,
        saved: Saved,
        limit: fn(&mut store::Config),
    ) -> Self {
        let mut settings = store::Config { compact_bytes: 100, ..store::Config::default() };
        limit(&mut settings);
        let mut rig = Self {
            node: Node::new(settings, Rc::new(0), Durability::Volatile, 1),
            machine: Counter { fail, ..Counter::default() },
            now: 0,
            settled: Vec::new(),
            faults: Vec::new(),
            sent: Vec::new(),
        };
        let config = Config::new(1, Members::voters(1..=nodes));
        rig.handle(Input::Start { config, saved });
        rig
    }

    pub fn handle(&mut self, input: Input<State>) {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let output = self.node.handle(self.now, input);
            self.settled.extend(output.settled);
            self.sent.extend(output.send);
            for event in output.events {
                if let Event::Fault(fault) = event {
                    self.faults.push(fault);
                }
            }
            next = output.call.map(|call| Input::Returned(call.run(&mut self.machine)));
            self.now += if next.is_some() { self.machine.takes } else { 0 };
        }
    }

    pub fn receive(&mut self, from: u64, term: u64, body: Body) {
        self.handle(Input::Receive { from, packet: Packet::Raft(raft::Message { term, body }) });
    }

    pub fn perform(&mut self, ticket: u64, method: &str, args: &str) {
        let perform = Perform { ticket, method: method.into(), args: args.into(), timeout: None };
        self.handle(Input::Perform(vec![perform]));
    }

    /// Node 2 answers a round of confirmations.
    pub fn confirm(&mut self, round: u64) {
        let matched = self.node.raft().expect("started").log().last().index;
        let result = AppendResult::Accepted { matched };
        self.receive(2, 1, Body::AppendReply { round, result });
    }

    pub fn wait(&mut self, ms: Time) {
        self.now += ms;
        self.handle(Input::Tick);
    }

    pub fn outcome(&self, ticket: u64) -> Option<&Outcome> {
        self.settled.iter().find(|settled| settled.ticket == ticket).map(|s| &s.outcome)
    }

    pub fn code(&self, ticket: u64) -> Option<&str> {
        match self.outcome(ticket)? {
            Outcome::Failed(failure) => Some(&failure.code),
            _ => None,
        }
    }

    pub fn state(&self) -> u64 {
        **self.node.store().committed()
    }

    /// The entry of term 1 at an index, with a command.
    pub fn command(index: u64, data: &[u8]) -> Entry {
        Entry { at: Position::new(index, 1), payload: Payload::Command(data.into()) }
    }

    /// How many of the states that the reducer has made are still in memory.
    pub fn alive(&self) -> usize {
        self.machine.made.iter().filter(|state| state.strong_count() > 0).count()
    }

    /// Node 2 leads term 1 and sends these entries, all committed, to follow the entry `prev`.
    pub fn append(&mut self, prev: u64, entries: Vec<Entry>) {
        let commit = prev + entries.len() as u64;
        let prev = Position::new(prev, prev.min(1));
        self.receive(2, 1, Body::Append { prev, commit, round: 0, entries, wants: Wants::Reply });
    }
}

/// The only node of a cluster, which leads.
pub fn alone(fail: &'static str, limit: fn(&mut store::Config)) -> Rig {
    let mut rig = Rig::new(1, fail, Saved::default(), limit);
    rig.wait(600);
    assert!(rig.node.raft().is_some_and(raft::Raft::is_leader));
    rig
}

/// The leader of three, with an open session of its own. Node 2 has voted for it.
pub fn leading(limit: fn(&mut store::Config)) -> Rig {
    let mut rig = Rig::new(3, "", Saved::default(), limit);
    rig.wait(600);
    rig.receive(2, 1, Body::PreVoteReply { granted: true });
    rig.receive(2, 1, Body::VoteReply { granted: true });
    // The no-op, and the first state.
    accept(&mut rig);
    accept(&mut rig);
    // The first perform opens the session.
    rig.perform(u64::MAX, "nothing", "");
    for round in 1..=2 {
        accept(&mut rig);
        rig.confirm(round);
    }
    assert_eq!(rig.outcome(u64::MAX), Some(&Outcome::Nothing));
    rig.settled.clear();
    rig
}

/// Node 2 acknowledges the whole log of the leader.
pub fn accept(rig: &mut Rig) {
    let matched = rig.node.raft().expect("started").log().last().index;
    let result = AppendResult::Accepted { matched };
    rig.receive(2, 1, Body::AppendReply { round: 0, result });
}

/// The bytes of a command in the log.
pub fn encode(command: &Command) -> Vec<u8> {
    postcard::to_allocvec(command).expect("bytes")
}

/// The bytes of an action of session 1.
pub fn action(seq: u64, action: &str) -> Vec<u8> {
    encode(&Command::Action {
        version: 1,
        session: 1,
        seq,
        ack: 1,
        verdicts: vec![],
        action: action.into(),
    })
}
