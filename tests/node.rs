//! One node: the order of its effects, and what outlives it.
#![allow(missing_docs)]

use std::rc::{Rc, Weak};

use conflux::node::Event;
use conflux::node::{Durability, Input, Node, Output, Packet};
use conflux::raft::{
    self, AppendResult, Blob, Body, Config, Entry, HardState, Members, Payload, Position, Saved,
    Snapshot, Time, Wants,
};
use conflux::store::{
    self, Call, Command, Failure, Fault, Machine, Message, Outcome, Perform, Performer, Return,
    Settled,
};

type State = Rc<u64>;

fn restarted(seed: u64) -> Node<State> {
    let mut node = Node::new(store::Config::default(), Rc::new(0), Durability::Durable, seed);
    let saved = Saved { hard: HardState { term: 1, vote: None }, ..Saved::default() };
    let config = Config::new(1, Members::voters([1, 2, 3]));
    let _ = handle(&mut node, Input::Start { config, saved });
    node
}

fn handle(node: &mut Node<State>, input: Input<State>) -> Output<State> {
    let mut output = node.handle(10, input);
    while let Some(call) = output.call.take() {
        let returned = match call {
            Call::Committed(_) => Return::Done,
            Call::Reduce { state, .. } => Return::State(Ok(Rc::new(*state + 1))),
            call => panic!("unexpected {call:?}"),
        };
        let next = node.handle(10, Input::Returned(returned));
        output.send.extend(next.send);
        output.settled.extend(next.settled);
        output.persist.extend(next.persist);
        output.call = next.call;
    }
    output
}

/// Node 2 leads and its log is these commands, all committed.
fn follow(node: &mut Node<State>, commands: &[Command]) -> Output<State> {
    let entry = |(index, command): (u64, &Command)| Entry {
        at: Position::new(index, 1),
        payload: Payload::Command(postcard::to_allocvec(command).expect("bytes").into()),
    };
    let entries: Vec<_> = (1..).zip(commands).map(entry).collect();
    let (prev, commit) = (Position::default(), entries.len() as u64);
    let body = Body::Append { prev, commit, round: 0, entries, wants: Wants::Reply };
    let packet = Packet::Raft(raft::Message { term: 1, body });
    handle(node, Input::Receive { from: 2, packet })
}

fn nonce(output: &Output<State>) -> u64 {
    let open = |(_, packet): &(u64, Packet)| match packet {
        Packet::Store(Message { body: store::Body::Open { nonce }, .. }) => Some(*nonce),
        _ => None,
    };
    output.send.iter().find_map(open).expect("it asks for a session")
}

/// Has a session, and asks for a read; gives the read's number.
fn read(node: &mut Node<State>) -> u64 {
    let output = follow(node, &[]);
    let opened = [Command::Open { nonce: nonce(&output), by: Performer::default() }];
    let _ = follow(node, &opened);
    let output = handle(node, Input::Read { ticket: 5 });
    let ask = |(_, packet): &(u64, Packet)| match packet {
        Packet::Store(Message { body: store::Body::Read { id }, .. }) => Some(*id),
        _ => None,
    };
    output.send.iter().find_map(ask).expect("it asks the leader")
}

fn read_at(node: &mut Node<State>, id: u64) -> Output<State> {
    let message = Message { term: 1, body: store::Body::ReadAt { id, index: 1 } };
    handle(node, Input::Receive { from: 2, packet: Packet::Store(message) })
}

#[test]
fn an_answer_to_a_read_of_a_former_self_is_for_nobody() {
    let before = read(&mut restarted(1));
    let mut node = restarted(2);
    let now = read(&mut node);
    // Both wait in the same term. The old answer comes late.
    assert!(read_at(&mut node, before).settled.is_empty());
    let settled = read_at(&mut node, now).settled;
    assert_eq!(settled.len(), 1);
    assert_eq!((settled[0].ticket, &settled[0].outcome), (5, &Outcome::Nothing));
}

#[test]
fn what_acknowledges_a_write_waits_for_it() {
    let mut node = restarted(1);
    let output = follow(
        &mut node,
        &[Command::Open { nonce: 7, by: Performer::default() }, Command::Close { session: 1 }],
    );
    let seq = output.persist.last().expect("entries").seq;
    let replies = |output: &Output<State>| {
        let reply =
            |p: &Packet| matches!(p, Packet::Raft(m) if matches!(m.body, Body::AppendReply { .. }));
        output.send.iter().filter(|(_, packet)| reply(packet)).count()
    };
    assert_eq!((replies(&output), node.held()), (0, 1));
    let output = handle(&mut node, Input::Persisted(seq));
    assert_eq!((replies(&output), node.held()), (1, 0));
}

/// A machine that counts, and fails where it is told to.
#[derive(Default)]
struct Counter {
    fail: &'static str,
    /// How long user code takes.
    takes: Time,
    /// Every state that was ever made.
    made: Vec<Weak<u64>>,
    committed: Vec<u64>,
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

/// A node whose writes are done at once.
struct Rig {
    node: Node<State>,
    machine: Counter,
    now: Time,
    settled: Vec<Settled>,
    faults: Vec<Fault>,
    sent: Vec<(u64, Packet)>,
}

impl Rig {
    fn new(nodes: u64, fail: &'static str, saved: Saved, limit: fn(&mut store::Config)) -> Self {
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

    fn handle(&mut self, input: Input<State>) {
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

    fn receive(&mut self, from: u64, term: u64, body: Body) {
        self.handle(Input::Receive { from, packet: Packet::Raft(raft::Message { term, body }) });
    }

    fn perform(&mut self, ticket: u64, method: &str, args: &str) {
        let perform = Perform { ticket, method: method.into(), args: args.into(), timeout: None };
        self.handle(Input::Perform(vec![perform]));
    }

    fn wait(&mut self, ms: Time) {
        self.now += ms;
        self.handle(Input::Tick);
    }

    fn outcome(&self, ticket: u64) -> Option<&Outcome> {
        self.settled.iter().find(|settled| settled.ticket == ticket).map(|s| &s.outcome)
    }

    fn code(&self, ticket: u64) -> Option<&str> {
        match self.outcome(ticket)? {
            Outcome::Failed(failure) => Some(&failure.code),
            _ => None,
        }
    }

    fn state(&self) -> u64 {
        **self.node.store().committed()
    }

    fn command(index: u64, data: &[u8]) -> Entry {
        Entry { at: Position::new(index, 1), payload: Payload::Command(data.into()) }
    }

    /// How many states are still held.
    fn alive(&self) -> usize {
        self.machine.made.iter().filter(|state| state.strong_count() > 0).count()
    }

    fn append(&mut self, prev: u64, entries: Vec<Entry>) {
        let commit = prev + entries.len() as u64;
        let prev = Position::new(prev, prev.min(1));
        self.receive(2, 1, Body::Append { prev, commit, round: 0, entries, wants: Wants::Reply });
    }
}

fn alone(fail: &'static str, limit: fn(&mut store::Config)) -> Rig {
    let mut rig = Rig::new(1, fail, Saved::default(), limit);
    rig.wait(600);
    assert!(rig.node.raft().is_some_and(raft::Raft::is_leader));
    rig
}

/// The leader of three, with a session of its own.
fn leading(limit: fn(&mut store::Config)) -> Rig {
    let mut rig = Rig::new(3, "", Saved::default(), limit);
    rig.wait(600);
    rig.receive(2, 1, Body::PreVoteReply { granted: true });
    rig.receive(2, 1, Body::VoteReply { granted: true });
    accept(&mut rig);
    accept(&mut rig);
    rig
}

/// Another member has all of the leader's log.
fn accept(rig: &mut Rig) {
    let matched = rig.node.raft().expect("started").log().last().index;
    let result = AppendResult::Accepted { matched };
    rig.receive(2, 1, Body::AppendReply { round: 0, result });
}

fn encode(command: &Command) -> Vec<u8> {
    postcard::to_allocvec(command).expect("bytes")
}

fn action(seq: u64, action: &str) -> Vec<u8> {
    encode(&Command::Action {
        version: 1,
        session: 1,
        seq,
        ack: 1,
        verdicts: vec![],
        action: action.into(),
    })
}

fn broken(nodes: u64) -> Saved {
    let last = Position::new(5, 1);
    let snapshot =
        Some(Snapshot { last, members: Members::voters(1..=nodes), data: "garbage".into() });
    Saved { hard: HardState { term: 1, vote: None }, snapshot, entries: vec![] }
}

#[test]
fn a_node_that_cannot_read_its_snapshot_votes_and_judges_nothing() {
    let mut rig = Rig::new(1, "", broken(1), |_| ());
    let bad = Failure::new("BAD_SNAPSHOT", "the snapshot cannot be read");
    assert_eq!(rig.faults, [Fault::CannotLoad(bad)]);
    rig.wait(600);
    assert!(rig.node.raft().is_some_and(raft::Raft::is_leader), "there is nobody else");
    rig.perform(1, "add", "x");
    rig.wait(1_000);
    assert_eq!((rig.outcome(1), rig.state()), (None, 0));
}

#[test]
fn a_leader_that_cannot_read_its_snapshot_hands_over() {
    let mut rig = Rig::new(3, "", broken(3), |_| ());
    rig.wait(600);
    rig.receive(2, 2, Body::PreVoteReply { granted: true });
    rig.receive(2, 2, Body::VoteReply { granted: true });
    let result = AppendResult::Accepted { matched: 6 };
    rig.receive(2, 2, Body::AppendReply { round: 0, result });
    let told = |p: &(u64, Packet)| match &p.1 {
        Packet::Raft(message) => (p.0, &message.body) == (2, &Body::TimeoutNow),
        Packet::Store(_) => false,
    };
    assert!(rig.sent.iter().any(told), "{:?}", rig.sent);
}

#[test]
fn a_state_that_cannot_be_loaded_is_reported() {
    let sessions = store::Sessions::default();
    let data = store::encode_snapshot(1, &sessions, b"seven");
    let snapshot =
        Some(Snapshot { last: Position::new(5, 1), members: Members::voters([1, 2, 3]), data });
    let rig = Rig::new(3, "", Saved { snapshot, ..broken(3) }, |_| ());
    assert_eq!(rig.faults, [Fault::CannotLoad(Failure::new("NO_NUMBER", "no"))]);
    assert!(rig.node.store().is_broken());
}

#[test]
fn a_state_that_cannot_be_saved_is_reported_and_the_log_stays() {
    let mut rig = alone("save", |_| ());
    for ticket in 1..=20 {
        rig.perform(ticket, "add", "0123456789");
    }
    let reports = rig.faults.len();
    assert!((1..20).contains(&reports), "once for each growth, not for each action: {reports}");
    assert!(rig.faults.iter().all(|t| matches!(t, Fault::CannotSave(f) if f.code == "NO_JSON")));
    assert_eq!(rig.node.raft().map(|raft| raft.log().base().index), Some(0));
    assert_eq!((rig.state(), rig.settled.len()), (20, 20), "work goes on");
}

#[test]
fn a_reducer_that_fails_on_what_is_committed_leaves_the_state() {
    let mut rig = Rig::new(3, "reduce", Saved::default(), |_| ());
    let open = encode(&Command::Open { nonce: 9, by: Performer::default() });
    let commands = [open, action(1, "good"), action(2, "bad"), b"garbage".to_vec(), action(3, "x")];
    let entries = (1..).zip(&commands).map(|(index, data)| Rig::command(index, data)).collect();
    rig.append(0, entries);
    assert_eq!(rig.state(), 2, "the first and the last");
    assert_eq!(rig.node.store().applied(), 5);
    let failed = Fault::ReducerFailed(Failure::new("REDUCER_FAILED", "no"));
    assert_eq!(rig.faults, [failed, Fault::BadEntry(4)]);
}

#[test]
fn a_closed_node_takes_nothing() {
    let mut rig = alone("", |_| ());
    rig.handle(Input::Close(Failure::new("CLOSED", "closed")));
    rig.perform(1, "add", "x");
    rig.handle(Input::Read { ticket: 2 });
    assert_eq!((rig.code(1), rig.code(2), rig.state()), (Some("CLOSED"), Some("CLOSED"), 0));
}

#[test]
fn what_waits_is_bounded_and_what_is_too_large_is_refused() {
    let mut rig = Rig::new(3, "", Saved::default(), |config| config.max_pending_bytes = 10);
    rig.perform(1, "add", "0123456789");
    rig.perform(2, "add", "x");
    assert_eq!((rig.code(1), rig.code(2)), (None, Some("BUSY")), "the first always fits");
    let mut rig = alone("", |config| config.max_action_bytes = 999);
    rig.perform(1, "grow", "");
    rig.perform(2, "add", "x");
    assert_eq!(rig.code(1), Some("TOO_LARGE"));
    assert_eq!((rig.outcome(2), rig.state()), (Some(&Outcome::Action("x".into())), 1));
    let mut rig = alone("", |config| config.max_action_bytes = 1_000);
    rig.perform(1, "grow", "");
    assert_eq!((rig.code(1), rig.state()), (None, 1));
}

#[test]
fn a_method_that_outlives_its_leader_appends_nothing() {
    let mut rig = leading(|_| ());
    assert!(rig.node.store().session().is_some());
    let end = rig.node.raft().expect("started").log().last();
    rig.machine.takes = 10_000;
    rig.perform(1, "add", "x");
    let raft = rig.node.raft().expect("started");
    assert_eq!((raft.is_leader(), raft.log().last()), (false, end));
    assert_eq!(**rig.node.store().provisional(), 0, "as if it had not been");
    assert_eq!(rig.outcome(1), None, "it waits for the next leader");
}

#[test]
fn a_long_message_is_cut_between_two_characters() {
    let failure = Failure::new(&"C".repeat(100), "aé".repeat(2_000));
    assert_eq!(failure.code.len(), 64);
    assert!(failure.message.ends_with("aé…") || failure.message.ends_with("a…"));
    assert!((4_090..=4_099).contains(&failure.message.len()), "{}", failure.message.len());
    let inside = Failure::new("C", format!("x{}", "é".repeat(3_000)));
    assert_eq!(inside.message.len(), 4_095 + "…".len());
    let exact = Failure::new("C", "x".repeat(4_096));
    assert_eq!(exact.message.len(), 4_096);
}

/// A follower of node 2 with a session, which is number 1, and what it has sent since.
fn client(limit: fn(&mut store::Config)) -> Rig {
    let mut rig = Rig::new(3, "", Saved::default(), limit);
    rig.append(0, vec![]);
    let nonce = rig.sent.iter().find_map(|(_, packet)| match packet {
        Packet::Store(Message { body: store::Body::Open { nonce }, .. }) => Some(*nonce),
        _ => None,
    });
    let open = encode(&Command::Open {
        nonce: nonce.expect("it asks for a session"),
        by: Performer::default(),
    });
    rig.append(0, vec![Rig::command(1, &open)]);
    rig.sent.clear();
    rig
}

/// What it has said to the leader's store since this was last asked.
fn said(rig: &mut Rig) -> Vec<store::Body> {
    let packets = std::mem::take(&mut rig.sent);
    let store = |(_, packet)| match packet {
        Packet::Store(message) => Some(message.body),
        Packet::Raft(_) => None,
    };
    packets.into_iter().filter_map(store).collect()
}

fn hear(rig: &mut Rig, body: store::Body) {
    let packet = Packet::Store(Message { term: 1, body });
    rig.handle(Input::Receive { from: 2, packet });
}

/// The leader is there, and says nothing else.
fn heartbeat(rig: &mut Rig) {
    let end = rig.node.raft().expect("started").log().last().index;
    rig.append(end, vec![]);
}

#[test]
fn names_arguments_and_what_waits_may_be_as_large_as_the_limits() {
    let mut rig = client(|_| ());
    rig.perform(1, &"m".repeat(1_024), "");
    rig.perform(2, &"m".repeat(1_025), "");
    assert_eq!((rig.code(1), rig.code(2)), (None, Some("TOO_LARGE")));
    let mut rig = client(|config| config.max_action_bytes = 10);
    rig.perform(1, "12345", "12345");
    rig.perform(2, "12345", "123456");
    assert_eq!((rig.code(1), rig.code(2)), (None, Some("TOO_LARGE")));
    let mut rig = client(|config| config.max_pending_bytes = 10);
    rig.perform(1, "1", "1234");
    rig.perform(2, "1", "1234");
    rig.perform(3, "", "1");
    assert_eq!((rig.code(1), rig.code(2), rig.code(3)), (None, None, Some("BUSY")));
}

#[test]
fn what_is_settled_makes_room() {
    let mut rig = alone("", |config| config.max_pending_bytes = 30);
    for ticket in 1..=20 {
        rig.perform(ticket, "add", "0123456789");
        assert_eq!(rig.code(ticket), None, "{ticket}");
    }
    assert_eq!(rig.state(), 20);
    // What the client knows is forgotten: the table stays small.
    let (sessions, mine) = (rig.node.store().sessions(), rig.node.store().session());
    let results = sessions.get(mine.expect("open")).expect("open").results().len();
    assert!(results <= 2, "{results} outcomes are kept");
}

#[test]
fn performs_are_sent_in_as_few_messages_as_fit() {
    // A perform takes 16 bytes more than what it says.
    let mut rig = client(|config| config.max_message_bytes = 60);
    let perform = |ticket| Perform {
        ticket,
        method: "abcd".into(),
        args: "0123456789".into(),
        timeout: None,
    };
    rig.handle(Input::Perform((1..=5).map(perform).collect()));
    let sent = said(&mut rig).into_iter().map(|body| match body {
        store::Body::Perform { ack: 1, first, requests, .. } => (first, requests.len()),
        body => panic!("{body:?}"),
    });
    assert_eq!(sent.collect::<Vec<_>>(), [(1, 2), (3, 2), (5, 1)]);
    for (length, parts) in [(40, 0), (41, 1), (60, 1), (61, 2), (120, 2), (121, 3)] {
        let mut rig = client(|config| config.max_message_bytes = 60);
        rig.perform(1, "abcd", &"x".repeat(length));
        let part = |body: &store::Body| matches!(body, store::Body::Chunk { .. });
        assert_eq!(said(&mut rig).iter().filter(|b| part(b)).count(), parts, "{length} bytes");
    }
}

#[test]
fn what_the_leader_has_is_not_sent_again_and_silence_is_not_endless() {
    let mut rig = client(|config| config.max_message_bytes = 60);
    rig.perform(1, "abcd", &"x".repeat(150));
    let offsets = |bodies: Vec<store::Body>| -> Vec<u64> {
        let offset = |body| match body {
            store::Body::Chunk { offset, .. } => offset,
            body => panic!("{body:?}"),
        };
        bodies.into_iter().map(offset).collect()
    };
    assert_eq!(offsets(said(&mut rig)), [0, 60, 120]);
    // Part of it arrived; after a silence only the rest is sent.
    rig.wait(200);
    heartbeat(&mut rig);
    hear(&mut rig, store::Body::Received { session: 1, next: 1, offset: 60 });
    rig.wait(200);
    heartbeat(&mut rig);
    assert_eq!(said(&mut rig).len(), 0, "the answer put the next try off");
    rig.wait(100);
    assert_eq!(offsets(said(&mut rig)), [60, 120]);
    // What is no news, or cannot be, changes nothing.
    for (next, offset) in [(1, 60), (1, 0), (0, 90), (9, 0), (u64::MAX, u64::MAX)] {
        hear(&mut rig, store::Body::Received { session: 1, next, offset });
    }
    rig.wait(100);
    heartbeat(&mut rig);
    hear(&mut rig, store::Body::Received { session: 1, next: 1, offset: 60 });
    rig.wait(190);
    heartbeat(&mut rig);
    assert_eq!(said(&mut rig).len(), 0);
    rig.wait(10);
    assert_eq!(offsets(said(&mut rig)), [60, 120]);
    // All of it arrived: it is only asked how it went.
    hear(&mut rig, store::Body::Received { session: 1, next: 2, offset: 0 });
    rig.wait(290);
    heartbeat(&mut rig);
    assert_eq!(said(&mut rig).len(), 0);
    rig.wait(10);
    let asked = store::Body::Perform { session: 1, ack: 1, first: 2, requests: vec![] };
    assert_eq!(said(&mut rig), [asked]);
}

/// A leader, node 1 of three, for which node 2 acknowledges everything, and node 3's session.
fn judge(limit: fn(&mut store::Config)) -> (Rig, u64) {
    let mut rig = Rig::new(3, "", Saved::default(), limit);
    rig.wait(600);
    rig.receive(2, 1, Body::PreVoteReply { granted: true });
    rig.receive(2, 1, Body::VoteReply { granted: true });
    let packet = Packet::Store(Message { term: 1, body: store::Body::Open { nonce: 33 } });
    rig.handle(Input::Receive { from: 3, packet });
    agree(&mut rig);
    let session = rig.node.store().sessions().with_nonce(33).expect("it is open");
    rig.sent.clear();
    (rig, session)
}

fn agree(rig: &mut Rig) {
    for _ in 0..2 {
        let matched = rig.node.raft().expect("started").log().last().index;
        let result = AppendResult::Accepted { matched };
        rig.receive(2, 1, Body::AppendReply { round: 0, result });
    }
}

#[test]
fn a_perform_in_parts_is_put_together_once() {
    let (mut rig, session) = judge(|config| config.max_action_bytes = 6);
    let part = |rig: &mut Rig, seq, total, offset, data: &str| {
        let (method, data) = ("add".to_string(), Blob::from(data));
        let body = store::Body::Chunk { session, ack: 1, seq, method, total, offset, data };
        let packet = Packet::Store(Message { term: 1, body });
        rig.handle(Input::Receive { from: 3, packet });
        let received = said(rig).into_iter().find_map(|body| match body {
            store::Body::Received { next, offset, .. } => Some((next, offset)),
            _ => None,
        });
        received.expect("an answer")
    };
    assert_eq!(part(&mut rig, 1, 6, 0, "abc"), (1, 3));
    assert_eq!(part(&mut rig, 1, 6, 0, "abc"), (1, 3), "it is there");
    assert_eq!(part(&mut rig, 2, 6, 0, "abc"), (1, 3), "it is not its turn");
    assert_eq!(part(&mut rig, 1, 6, 3, "def"), (2, 0));
    assert_eq!(part(&mut rig, 1, 6, 3, "def"), (2, 0), "it is complete");
    assert_eq!(part(&mut rig, 2, 7, 0, "x"), (3, 0), "it is too large, and that is its fate");
    assert_eq!(part(&mut rig, 3, 6, 0, "123"), (3, 3));
    assert_eq!(part(&mut rig, 3, 5, 3, "456"), (3, 0), "another whole begins anew");
    agree(&mut rig);
    assert_eq!(rig.state(), 1);
    let unknown = rig.node.store().sessions().get(session).expect("open").results().len();
    assert_eq!(unknown, 1, "one action");
}

#[test]
fn verdicts_are_told_when_leadership_is_confirmed_in_messages_that_fit() {
    // A verdict that says nothing takes 65 bytes.
    let (mut rig, session) = judge(|config| config.max_message_bytes = 130);
    let request = store::Request { method: Some("nothing".into()), args: "".into() };
    let requests = vec![request; 5];
    let body = store::Body::Perform { session, ack: 1, first: 1, requests };
    let packet = Packet::Store(Message { term: 1, body });
    rig.handle(Input::Receive { from: 3, packet });
    let round = rig.sent.iter().rev().find_map(|(_, packet)| match packet {
        Packet::Raft(raft::Message { body: Body::Append { round, .. }, .. }) => Some(*round),
        _ => None,
    });
    let told = |rig: &mut Rig| -> Vec<usize> {
        let verdicts = |body| match body {
            store::Body::Verdicts { verdicts, .. } => Some(verdicts.len()),
            _ => None,
        };
        said(rig).into_iter().filter_map(verdicts).collect()
    };
    assert!(told(&mut rig).is_empty(), "somebody else may lead by now");
    let matched = rig.node.raft().expect("started").log().last().index;
    let result = AppendResult::Accepted { matched };
    let round = round.expect("it asked");
    rig.receive(2, 1, Body::AppendReply { round: round - 1, result });
    assert!(told(&mut rig).is_empty(), "an answer to an earlier question");
    rig.receive(2, 1, Body::AppendReply { round, result });
    assert_eq!(told(&mut rig), [2, 2, 1]);
}

#[test]
fn who_closes_gives_its_session_back() {
    let mut rig = client(|_| ());
    rig.handle(Input::Close(Failure::new("CLOSED", "closed")));
    assert_eq!(said(&mut rig), [store::Body::Close { session: 1 }]);
    let (mut rig, session) = judge(|_| ());
    let close = store::Body::Close { session };
    let packet = Packet::Store(Message { term: 1, body: close });
    rig.handle(Input::Receive { from: 3, packet });
    assert!(rig.node.store().sessions().get(session).is_some(), "not before it is committed");
    agree(&mut rig);
    assert!(rig.node.store().sessions().get(session).is_none());
}

#[test]
fn what_was_given_up_holds_nobody_up() {
    let mut rig = client(|_| ());
    let perform =
        |ticket, timeout| Perform { ticket, method: "nothing".into(), args: "".into(), timeout };
    rig.handle(Input::Perform(vec![perform(1, Some(10)), perform(2, None)]));
    // The message with the first verdict was lost.
    let verdicts = vec![(2, 1, store::Verdict::Nothing)];
    hear(&mut rig, store::Body::Verdicts { session: 1, verdicts });
    assert_eq!((rig.outcome(1), rig.outcome(2)), (None, None), "one after the other");
    rig.wait(10);
    assert_eq!((rig.code(1), rig.outcome(2)), (Some("TIMEOUT"), Some(&Outcome::Nothing)));
}

/// A log of so many actions behind the opening of a session, which nobody knows to be committed.
fn long(actions: u64) -> Saved {
    let open = Rig::command(1, &encode(&Command::Open { nonce: 1, by: Performer::default() }));
    let actions = (1..=actions).map(|seq| Rig::command(seq + 1, &action(seq, "x")));
    let entries = [open].into_iter().chain(actions).collect();
    Saved { hard: HardState { term: 1, vote: None }, snapshot: None, entries }
}

fn roomy(config: &mut store::Config) {
    config.compact_bytes = 1 << 20;
}

/// How many entries are followed of a log whose end is not known to be committed.
const FOLLOWED: u64 = 2 * store::MAX_TAIL as u64;

#[test]
fn of_a_long_log_few_states_are_kept() {
    let actions = 5 * store::MAX_TAIL as u64;
    let mut rig = Rig::new(3, "", long(actions), roomy);
    // The first entry opens the session.
    assert_eq!((rig.state(), **rig.node.store().provisional()), (0, FOLLOWED - 1));
    // A leader commits it, half and half.
    for commit in [actions / 2, actions + 1] {
        let prev = Position::new(actions + 1, 1);
        let wants = Wants::Reply;
        rig.receive(2, 2, Body::Append { prev, commit, round: 0, entries: vec![], wants });
        let followed = (commit - 1 + FOLLOWED).min(actions);
        assert_eq!((rig.state(), **rig.node.store().provisional()), (commit - 1, followed));
        assert!(rig.alive() as u64 <= FOLLOWED + 2, "{}", rig.alive());
    }
    assert_eq!(rig.machine.made.len() as u64, actions, "each is reduced once");
    assert_eq!(rig.machine.committed, (2..=actions + 1).collect::<Vec<_>>(), "each is told once");
    let store = rig.node.store();
    assert!(Rc::ptr_eq(store.committed(), store.provisional()), "one state, one reference");
}

#[test]
fn of_a_long_log_the_end_is_replaced() {
    let actions = FOLLOWED + 500;
    for from in [FOLLOWED / 2, FOLLOWED - 2, FOLLOWED - 1, FOLLOWED, FOLLOWED + 1, actions] {
        let mut rig = Rig::new(3, "", long(actions), roomy);
        let prev = Position::new(from, 1);
        let at = Position::new(from + 1, 2);
        let payload = Payload::Command(action(from, "y").into());
        let (entries, wants) = (vec![Entry { at, payload }], Wants::Reply);
        rig.receive(2, 2, Body::Append { prev, commit: 0, round: 0, entries, wants });
        let followed = from.min(FOLLOWED - 1);
        assert_eq!((rig.state(), **rig.node.store().provisional()), (0, followed));
        let (prev, wants) = (at, Wants::Reply);
        rig.receive(
            2,
            2,
            Body::Append { prev, commit: at.index, round: 0, entries: vec![], wants },
        );
        assert_eq!((rig.state(), **rig.node.store().provisional()), (from, from));
    }
}

#[test]
fn a_leader_that_does_not_know_yet_what_is_in_its_log_takes_nothing() {
    let actions = FOLLOWED + 500;
    let mut rig = Rig::new(3, "", long(actions), roomy);
    rig.wait(600);
    rig.receive(2, 2, Body::PreVoteReply { granted: true });
    rig.receive(2, 2, Body::VoteReply { granted: true });
    assert!(rig.node.raft().expect("started").is_leader());
    // The client of the session asks again for what stands behind, and for one thing more.
    let request = || store::Request { method: Some("add".into()), args: "x".into() };
    let term = rig.node.raft().expect("started").term();
    let body = || store::Body::Perform {
        session: 1,
        ack: 1,
        first: FOLLOWED,
        requests: (FOLLOWED..=actions + 1).map(|_| request()).collect(),
    };
    let ask = |rig: &mut Rig| {
        let packet = Packet::Store(Message { term, body: body() });
        rig.handle(Input::Receive { from: 3, packet });
    };
    ask(&mut rig);
    assert_eq!(rig.node.raft().expect("started").log().last().index, actions + 2, "a no-op");
    let matched = actions + 2;
    let result = AppendResult::Accepted { matched };
    rig.receive(2, term, Body::AppendReply { round: 0, result });
    assert_eq!(rig.state(), actions);
    ask(&mut rig);
    assert_eq!(**rig.node.store().provisional(), actions + 1, "the one thing more");
}

#[test]
fn a_reducer_that_fails_in_a_long_log_is_told_of_once() {
    let mut saved = long(store::MAX_TAIL as u64 + 10);
    for index in [3, store::MAX_TAIL + 5, store::MAX_TAIL + 10] {
        let seq = saved.entries[index].at.index - 1;
        saved.entries[index].payload = Payload::Command(action(seq, "bad").into());
    }
    let last = saved.entries.last().expect("many").at;
    let mut rig = Rig::new(3, "reduce", saved, roomy);
    let good = store::MAX_TAIL as u64 + 7;
    assert_eq!(**rig.node.store().provisional(), good);
    let (commit, wants) = (last.index, Wants::Reply);
    rig.receive(2, 2, Body::Append { prev: last, commit, round: 0, entries: vec![], wants });
    assert_eq!((rig.state(), **rig.node.store().provisional()), (good, good));
    let failure = Fault::ReducerFailed(Failure::new("REDUCER_FAILED", "no"));
    assert_eq!(rig.faults, vec![failure; 3], "each is told once");
}

#[test]
fn a_leader_judges_no_more_than_its_followers_can_keep() {
    let mut rig = leading(roomy);
    let many = 2 * store::MAX_TAIL as u64 + 5;
    let perform =
        |ticket| Perform { ticket, method: "add".into(), args: "x".into(), timeout: None };
    rig.handle(Input::Perform((0..many).map(perform).collect()));
    for so_far in [store::MAX_TAIL as u64, 2 * store::MAX_TAIL as u64, many] {
        assert_eq!(**rig.node.store().provisional(), so_far);
        assert!(rig.alive() <= store::MAX_TAIL + 1, "{}", rig.alive());
        accept(&mut rig);
        assert_eq!((rig.state(), rig.settled.len() as u64), (so_far, so_far));
    }
}
