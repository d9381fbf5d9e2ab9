//! The functions that a fuzzer calls. Whatever bytes they get, nothing may panic, hang or grow
//! without end. `fuzz/` has a target for each function, and the tests run each on thousands of
//! random inputs.

use std::collections::BTreeMap;
use std::rc::Rc;

use conflux::formation::{self, Formation, Member, Plan, Refusal, Set};
use conflux::host::options::{self, Value};
use conflux::host::transport;
use conflux::host::types::Kind;
use conflux::node::{Durability, Input, Node, Packet};
use conflux::raft::{
    self, AppendResult, Blob, Body, Chunked, Config, Entry, HardState, Index, Members, Message,
    Payload, Persist, Position, Saved, Snapshot, Time, Wants,
};
use conflux::storage::{Batch, file, restore};
use conflux::store::{self, Failure, Machine, Perform, Request, Verdict};
use conflux::wire::{self, FrameWriter, Header, relay};
use serde::ser::{Serialize, SerializeTuple as _, Serializer};

/// A target: its name, and the function that takes an input.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 6] = [
    ("frame", frame),
    ("node", node),
    ("forming", forming),
    ("envelope", envelope),
    ("options", options),
    ("storage", storage),
];

/// The bytes of an input, from which values are made. After the last byte come zeros.
#[derive(Clone, Copy, Debug)]
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    fn below(&mut self, end: u8) -> u8 {
        self.byte() % end
    }

    /// A small number, as in a real message, or one that should not occur.
    fn number(&mut self) -> u64 {
        const ODD: [u64; 8] =
            [u64::MAX, u64::MAX - 1, 1 << 63, 1 << 48, (1 << 48) + 1, (1 << 48) - 1, 1 << 32, 255];
        match self.byte() {
            small @ 0..230 => u64::from(small % 12),
            odd => ODD[usize::from(odd) % ODD.len()],
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes.to_vec()
    }

    fn text(&mut self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    fn list<T>(&mut self, most: u8, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most)).map(|_| one(self)).collect()
    }

    fn position(&mut self) -> Position {
        Position::new(self.number(), self.number())
    }
}

/// Bytes that are serialized as they are.
struct Raw<'a>(&'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(self.0.len())?;
        self.0.iter().try_for_each(|byte| tuple.serialize_element(byte))?;
        tuple.end()
    }
}

/// Frames: if a frame can be read, its messages must be the same after they were written and read
/// again. The first byte says whether the rest is the whole frame, or only the content of a frame
/// with a valid header and checksum.
pub fn frame(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let frame = if first % 2 == 0 {
        rest.to_vec()
    } else {
        let mut writer =
            FrameWriter::new(Header { cluster: 1, set: 2, from: 3, to: 4, version: 1 });
        writer.push(&Raw(rest));
        writer.finish().remove(0)
    };
    let Ok((header, messages)) = wire::read::<transport::Message>(&frame) else { return };
    let mut writer = FrameWriter::new(header);
    messages.iter().for_each(|message| writer.push(message));
    let mut again = Vec::new();
    for frame in writer.finish() {
        let (same, more) = wire::read::<transport::Message>(&frame).expect("our own frame");
        assert_eq!(same, header);
        again.extend(more);
    }
    assert_eq!(again, messages);
}

/// Envelopes, which the relay opens: an opened envelope must be the same after it was sealed again.
pub fn envelope(data: &[u8]) {
    if let Ok((to, frame)) = relay::open(data) {
        assert!(!frame.is_empty() && to.is_none_or(|to| !to.is_empty()));
        assert_eq!(relay::seal(to, frame), data);
    }
}

/// A state machine that accepts any bytes.
#[derive(Default)]
struct Anything;

impl Machine for Anything {
    type State = Rc<Vec<u8>>;

    fn judge(&mut self, method: &str, args: &[u8]) -> Result<Option<Blob>, Failure> {
        match method.len() % 3 {
            0 => Err(Failure::new("METHOD_FAILED", method)),
            1 => Ok(None),
            _ => Ok(Some(args.into())),
        }
    }

    fn reduce(&mut self, state: &Self::State, action: &[u8]) -> Result<Self::State, Failure> {
        let digest = action.iter().fold(state.len() as u8, |sum, byte| sum.wrapping_add(*byte));
        let kept = state.iter().copied().rev().take(31).chain([digest]);
        if digest == 7 {
            return Err(Failure::new("REDUCER_FAILED", "seven"));
        }
        Ok(Rc::new(kept.collect()))
    }

    fn save(&mut self, state: &Self::State) -> Result<Vec<u8>, Failure> {
        Ok(state.as_ref().clone())
    }

    fn load(&mut self, bytes: &[u8]) -> Result<Self::State, Failure> {
        if bytes.len() > 32 {
            return Err(Failure::new("BAD_SNAPSHOT", "too long"));
        }
        Ok(Rc::new(bytes.to_vec()))
    }

    fn committed(&mut self, _: Index) {}
}

/// The node under attack: number 1 of three.
struct Victim {
    node: Node<Rc<Vec<u8>>>,
    now: Time,
}

impl Victim {
    fn new() -> Self {
        let config = store::Config {
            max_message_bytes: 100,
            compact_bytes: 200,
            max_action_bytes: 1_000,
            max_pending_bytes: 5_000,
            max_sessions: 3,
            ..store::Config::default()
        };
        let node = Node::new(config, Rc::default(), Durability::Volatile, 1);
        Self { node, now: 1_000 }
    }

    fn start(&mut self, saved: Saved) {
        let config = Config {
            max_message_bytes: 100,
            max_inflight: 3,
            max_uncommitted_bytes: 2_000,
            max_transfer_bytes: 10_000,
            ..Config::new(1, Members::voters([1, 2, 3]))
        };
        self.handle(Input::Start { config, saved });
    }

    fn handle(&mut self, input: Input<Rc<Vec<u8>>>) {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let output = self.node.handle(self.now, input);
            for (_, packet) in output.send {
                let mut writer =
                    FrameWriter::new(Header { cluster: 1, set: 2, from: 3, to: 4, version: 1 });
                writer.push(&transport::Message::Node(packet));
                for frame in writer.finish() {
                    assert!(frame.len() <= wire::MAX_FRAME, "a frame of {} bytes", frame.len());
                }
            }
            next = output.call.map(|call| Input::Returned(call.run(&mut Anything)));
        }
        let Some(raft) = self.node.raft() else { return };
        let (log, commit) = (raft.log(), raft.commit_index());
        assert!(log.base().index <= commit && commit <= log.last().index);
        assert!(self.node.store().applied() <= commit);
        assert!(self.node.store().sessions().len() <= 3 || !self.node.store().is_fit());
    }

    fn receive(&mut self, from: u64, term: u64, body: Body) {
        self.handle(Input::Receive { from, packet: Packet::Raft(Message { term, body }) });
    }

    fn wait(&mut self) {
        self.now += 600;
        self.handle(Input::Tick);
    }

    /// Brings the node into a role, with valid messages.
    fn become_role(&mut self, role: u8) {
        if role == 0 {
            return; // Its cluster has not formed.
        }
        self.start(Saved::default());
        let entry = |index| Entry { at: Position::new(index, 1), payload: Payload::Noop };
        match role {
            1 => {}
            2 | 3 => {
                let entries = (1..=4).map(entry).collect();
                let prev = Position::default();
                let body = Body::Append { prev, commit: 2, round: 1, entries, wants: Wants::Reply };
                self.receive(2, 1, body);
                if role == 3 {
                    let of = Chunked::Snapshot { last: Position::new(9, 1) };
                    let data = Blob::from("ab");
                    self.receive(2, 1, Body::Chunk { of, total: 5, offset: 0, round: 1, data });
                }
            }
            4 => self.wait(),
            _ => {
                self.wait();
                self.receive(2, 1, Body::PreVoteReply { granted: true });
                if role > 5 {
                    self.receive(2, 1, Body::VoteReply { granted: true });
                }
                if role > 6 {
                    let perform = |ticket| Perform {
                        ticket,
                        method: "ab".into(),
                        args: "x".into(),
                        timeout: None,
                    };
                    self.handle(Input::Perform((1..=3).map(perform).collect()));
                    let result = AppendResult::Accepted { matched: 2 };
                    self.receive(3, 1, Body::AppendReply { round: 0, result });
                }
            }
        }
    }
}

/// Every message to a node in every role. The first byte is the role. Then come messages, with time
/// and performs in between.
pub fn node(data: &[u8]) {
    let mut source = Source(data);
    let mut victim = Victim::new();
    victim.become_role(source.below(8));
    besiege(&mut victim, &mut source);
}

fn besiege(victim: &mut Victim, source: &mut Source<'_>) {
    let mut ticket = 100;
    while !source.is_over() {
        match source.below(16) {
            0 => {
                victim.now += u64::from(source.byte()) * 4;
                victim.handle(Input::Tick);
            }
            1 => {
                ticket += 1;
                let perform = Perform {
                    ticket,
                    method: source.text(),
                    args: source.bytes().into(),
                    timeout: Some(source.number()),
                };
                victim.handle(Input::Perform(vec![perform]));
            }
            2 => victim.handle(Input::Read { ticket: 1 }),
            3 => victim.handle(Input::Transfer(Some(source.number()))),
            4..12 => {
                let from = source.number();
                let packet = Packet::Raft(raft_message(source));
                victim.handle(Input::Receive { from, packet });
            }
            _ => {
                let from = source.number();
                let packet = Packet::Store(store_message(source));
                victim.handle(Input::Receive { from, packet });
            }
        }
    }
}

fn raft_message(source: &mut Source<'_>) -> Message {
    let entry = |source: &mut Source<'_>| {
        let at = source.position();
        let payload = match source.below(3) {
            0 => Payload::Noop,
            _ => Payload::Command(source.bytes().into()),
        };
        Entry { at, payload }
    };
    let chunked = |source: &mut Source<'_>| match source.below(2) {
        0 => Chunked::Snapshot { last: source.position() },
        _ => Chunked::Entry { prev: source.position(), at: source.position() },
    };
    let term = source.number();
    let body = match source.below(9) {
        0 => Body::PreVote { last: source.position() },
        1 => Body::PreVoteReply { granted: source.below(2) > 0 },
        2 => Body::Vote { last: source.position(), transfer: source.below(2) > 0 },
        3 => Body::VoteReply { granted: source.below(2) > 0 },
        4 => Body::Append {
            prev: source.position(),
            commit: source.number(),
            round: source.number(),
            entries: source.list(5, entry),
            wants: [Wants::Reply, Wants::NoReply, Wants::Quiesce][source.below(3) as usize],
        },
        5 => {
            let result = match source.below(2) {
                0 => AppendResult::Accepted { matched: source.number() },
                _ => AppendResult::Rejected { prev: source.number(), hint: source.position() },
            };
            Body::AppendReply { round: source.number(), result }
        }
        6 => Body::Chunk {
            of: chunked(source),
            total: source.number(),
            offset: source.number(),
            round: source.number(),
            data: source.bytes().into(),
        },
        7 => Body::ChunkReply {
            of: chunked(source),
            offset: source.number(),
            round: source.number(),
        },
        _ => Body::TimeoutNow,
    };
    Message { term, body }
}

fn store_message(source: &mut Source<'_>) -> store::Message {
    let request = |source: &mut Source<'_>| Request {
        method: (source.below(4) > 0).then(|| source.text()),
        args: source.bytes().into(),
    };
    let verdict = |source: &mut Source<'_>| {
        let verdict = match source.below(3) {
            0 => Verdict::Nothing,
            1 => Verdict::Failed(Failure::new("CODE", source.text())),
            _ => Verdict::Skipped,
        };
        (source.number(), source.number(), verdict)
    };
    let term = source.number();
    let session =
        |source: &mut Source<'_>| store::SessionRef { id: source.number(), nonce: source.number() };
    let at = |source: &mut Source<'_>| Position::new(source.number(), source.number());
    let body = match source.below(14) {
        0 => store::Body::Open { nonce: source.number() },
        1 => store::Body::Close { session: session(source) },
        2 => store::Body::Perform {
            session: session(source),
            ack: source.number(),
            first: source.number(),
            requests: source.list(5, request),
        },
        3 => store::Body::Chunk {
            session: session(source),
            ack: source.number(),
            seq: source.number(),
            method: source.text(),
            total: source.number(),
            offset: source.number(),
            data: source.bytes().into(),
        },
        4 => store::Body::Received {
            session: session(source),
            next: source.number(),
            offset: source.number(),
        },
        5 => store::Body::Verdicts { session: session(source), verdicts: source.list(4, verdict) },
        6 => store::Body::Read { id: source.number() },
        7 => store::Body::ReadAt { id: source.number(), index: source.number() },
        8 => store::Body::Hash {
            check: source.number(),
            hash: Some(store::Hash { hash: source.number(), suspect: source.below(2) > 0 }),
        },
        9 => store::Body::Check,
        10 => store::Body::Fetch {
            at: Some(at(source)),
            offset: source.number(),
            snapshot: source.below(2) > 0,
        },
        11 => store::Body::Offer { version: u32::from(source.byte()) },
        12 => store::Body::Seek,
        _ => store::Body::State {
            at: at(source),
            total: source.number(),
            offset: source.number(),
            data: source.bytes().into(),
        },
    };
    store::Message { term, body }
}

/// Every message to a node of a cluster that is forming or has formed.
pub fn forming(data: &[u8]) {
    let mut source = Source(data);
    let plan = match source.below(2) {
        0 => Plan::Size(usize::from(source.below(3)) + 1),
        _ => Plan::Ids(["a", "b"].map(String::from).into_iter().collect()),
    };
    let mut node = Formation::new("a".into(), plan, 0, 1);
    let mut now = 0;
    while !source.is_over() {
        // A node that waits to be taken in may still be refused.
        let before = node.set().filter(|_| !node.is_joining()).cloned();
        let output = match source.below(8) {
            0 => {
                now += u64::from(source.byte()) * 50;
                node.handle_tick(now)
            }
            1 => node.handle_other_set(source.number()),
            _ => {
                let message = forming_message(&mut source, &node);
                node.handle_message(now, message)
            }
        };
        assert!(before.is_none() || node.set() == before.as_ref(), "a set that formed stays");
        let belongs = |set: &Set| set.members().contains(node.me()) || node.is_joining();
        assert!(node.set().is_none_or(belongs));
        drop(output);
    }
}

fn forming_message(source: &mut Source<'_>, node: &Formation) -> formation::Message {
    let member = |source: &mut Source<'_>| match source.below(8) {
        0 => node.me().clone(),
        1 => Member { id: source.text(), nonce: source.number() },
        n => Member { id: char::from(b'a' + n % 4).into(), nonce: source.number() },
    };
    // `Set::new` refuses what no honest node could build. Serde does not, and a peer's set comes
    // through serde.
    let set = |source: &mut Source<'_>| {
        let members = source.list(4, member);
        let bytes = postcard::to_allocvec(&members).expect("it fits in memory");
        postcard::from_bytes::<Set>(&bytes).expect("a set is a list of members")
    };
    let from = member(source);
    let bound = |source: &mut Source<'_>| (source.below(2) > 0).then(|| source.number());
    let body = match source.below(7) {
        0 | 1 => formation::Body::Hello {
            size: source.number(),
            bound: bound(source),
            ask: source.below(2) > 0,
        },
        2 => formation::Body::Propose { set: set(source) },
        3 => formation::Body::Formed { set: set(source) },
        4 => formation::Body::Goodbye,
        5 => formation::Body::Readmit { set: set(source) },
        _ => formation::Body::Refuse {
            why: Refusal::OtherSet,
            members: source.list(3, Source::text),
        },
    };
    formation::Message { from, body }
}

/// The parser of options: it must accept or refuse any value.
pub fn options(data: &[u8]) {
    let mut source = Source(data);
    let value = value(&mut source, 3);
    match options::parse(&value) {
        Ok(options) => {
            let settings = &options.settings;
            match &settings.kind {
                Kind::Fixed { id, plan } => assert!(plan.size() > 0 && !id.is_empty()),
                Kind::Elastic { max_voters } => {
                    assert!(*max_voters > 0 && !settings.cluster.is_empty());
                }
            }
            let ((min, max), beat) = (settings.election_timeout, settings.heartbeat_interval);
            assert!(beat < min && min <= max);
        }
        Err(failure) => assert!(!failure.code.is_empty() && !failure.message.is_empty()),
    }
}

fn value(source: &mut Source<'_>, depth: u8) -> Value {
    const KEYS: [&str; 16] = [
        "id",
        "clusterSize",
        "members",
        "channel",
        "name",
        "url",
        "room",
        "methods",
        "reduce",
        "electionTimeout",
        "min",
        "max",
        "heartbeatInterval",
        "cluster",
        "storage",
        "maxActionBytes",
    ];
    const TEXTS: [&str; 8] =
        ["a", "memory", "broadcast", "websocket", "custom", "ws://x/", "", "wss://x/y?z"];
    const NUMBERS: [f64; 12] =
        [0.0, 1.0, 3.0, 50.0, 300.0, 500.0, -1.0, 0.5, 1e300, f64::NAN, f64::INFINITY, 1e9];
    match source.below(if depth > 0 { 9 } else { 5 }) {
        0 => Value::Nothing,
        1 => Value::Bool(source.below(2) > 0),
        2 => Value::Number(NUMBERS[usize::from(source.below(12))]),
        3 => Value::Text(TEXTS[usize::from(source.below(8))].into()),
        4 => Value::Text(source.text()),
        5 => Value::List(source.list(5, |source| value(source, depth - 1))),
        _ => {
            let mut object = BTreeMap::new();
            for _ in 0..source.below(17) {
                let key = KEYS[usize::from(source.below(16))];
                object.insert(key.to_string(), value(source, depth - 1));
            }
            Value::Object(object.into_iter().collect())
        }
    }
}

/// What storage has of a node, in a browser or in a file: it is refused, or a node starts with it
/// and goes on as any other. The first byte says which values are bytes that nobody wrote.
pub fn storage(data: &[u8]) {
    let mut source = Source(data);
    let kind = source.byte();
    let writes = source.list(4, persist);
    let saved = if kind & 1 == 0 {
        let batches: Vec<_> = writes.iter().map(Batch::new).collect();
        let newest = |value: fn(&Batch) -> &Option<Vec<u8>>, raw: Option<Vec<u8>>| {
            raw.or_else(|| batches.iter().rev().find_map(|batch| value(batch).clone()))
        };
        let raw = |source: &mut Source<'_>, bit: u8| (kind & bit != 0).then(|| source.bytes());
        let hard = newest(|batch| &batch.hard, raw(&mut source, 2));
        let snapshot = newest(|batch| &batch.snapshot, raw(&mut source, 4));
        let more = raw(&mut source, 8);
        let values = batches.iter().filter_map(|batch| batch.entries.as_deref());
        restore(hard.as_deref(), snapshot.as_deref(), values.chain(more.as_deref())).ok()
    } else {
        let owner = |nth| (nth == 0).then(|| vec![1]);
        let records = (0..).zip(&writes);
        let mut file: Vec<u8> =
            records.flat_map(|(nth, write)| file::record(nth, nth, owner(nth), write)).collect();
        if kind & 2 != 0 {
            file.extend(source.bytes());
        }
        file::read(&file).ok().map(|contents| contents.saved)
    };
    let Some(saved) = saved else { return };
    let mut victim = Victim::new();
    victim.start(saved);
    victim.wait();
    besiege(&mut victim, &mut source);
}

/// A write, mostly one that follows from those before it.
fn persist(source: &mut Source<'_>) -> Persist {
    let members = |source: &mut Source<'_>| {
        let member = |source: &mut Source<'_>| {
            (source.number(), raft::Member { voter: source.below(3) > 0, name: source.text() })
        };
        match source.below(4) {
            0 => Members::new(source.list(4, member)),
            n => Members::voters(1..=u64::from(n)),
        }
    };
    let mut at = match source.below(4) {
        0 => source.position(),
        _ => Position::default(),
    };
    let hard = HardState { term: source.number(), vote: Some(source.number()) };
    let snapshot = (source.below(4) == 0).then(|| Snapshot {
        last: at,
        members: members(source),
        data: source.bytes().into(),
    });
    let entry = |source: &mut Source<'_>| {
        at = match source.below(20) {
            0 => source.position(),
            n => Position::new(at.index.wrapping_add(1), at.term.max(u64::from(n % 3))),
        };
        let payload = match source.below(4) {
            0 => Payload::Noop,
            1 => Payload::Members(members(source)),
            _ => Payload::Command(source.bytes().into()),
        };
        Entry { at, payload }
    };
    let entries = source.list(6, entry);
    let hard = (source.below(4) > 0).then_some(hard);
    Persist { seq: 0, hard, snapshot, reset: false, entries }
}
