//! Frames and stored records that an earlier build has written: this build reads them, and writes
//! the same bytes. Names of types and variants are not part of a format; their order is.
//!
//! The pages in `tests/formats/3` were written by the build in which `wire::VERSION` became 3 and
//! records began with 0xC3, those in `tests/formats/2` by one whose records began with 0xC2. A
//! change that breaks a page needs a new number, and new pages beside these.
//! `UPDATE_FORMATS=1 cargo test --test formats` writes the pages of the newest format.
#![allow(missing_docs)]

use conflux::elastic;
use conflux::formation::{self, Refusal};
use conflux::host::transport::Message;
use conflux::node::Packet;
use conflux::raft::{self, Entry, HardState, Members, Payload, Persist, Position, Saved, Snapshot};
use conflux::storage::{Batch, file, restore};
use conflux::store::{self, Command, Failure, Request, Verdict};
use conflux::wire::{self, FrameWriter, Header};

fn at(index: u64, term: u64) -> Position {
    Position::new(index, term)
}

/// One message of every kind.
fn messages() -> Vec<Message> {
    let entry = |index, payload| Entry { at: at(index, 3), payload };
    let member = |voter, name: &str| raft::Member { voter, name: name.into() };
    let members = Members::new([(1, member(true, "a")), (7, member(false, ""))]);
    let entries = vec![
        entry(4, Payload::Noop),
        entry(5, Payload::Command("command".into())),
        entry(6, Payload::Members(members)),
    ];
    let (snapshot, large) = (
        raft::Chunked::Snapshot { last: at(9, 2) },
        raft::Chunked::Entry { prev: at(9, 2), at: at(10, 2) },
    );
    let append =
        |entries, wants| raft::Body::Append { prev: at(3, 2), commit: 2, round: 8, entries, wants };
    let accepted = raft::AppendResult::Accepted { matched: 6 };
    let rejected = raft::AppendResult::Rejected { prev: 3, hint: at(2, 1) };
    let raft = vec![
        raft::Body::PreVote { last: at(3, 2) },
        raft::Body::PreVoteReply { granted: true },
        raft::Body::Vote { last: at(3, 2), transfer: true },
        raft::Body::VoteReply { granted: false },
        append(entries, raft::Wants::Reply),
        append(Vec::new(), raft::Wants::NoReply),
        append(Vec::new(), raft::Wants::Quiesce),
        raft::Body::AppendReply { round: 8, result: accepted },
        raft::Body::AppendReply { round: 0, result: rejected },
        raft::Body::Chunk { of: snapshot, total: 300, offset: 100, round: 8, data: "piece".into() },
        raft::Body::Chunk { of: large, total: 300, offset: 100, round: 8, data: "piece".into() },
        raft::Body::ChunkReply { of: snapshot, offset: 105, round: 8 },
        raft::Body::TimeoutNow,
    ];
    let request =
        |method: Option<&str>| Request { method: method.map(Into::into), args: "[1]".into() };
    let session = store::SessionRef { id: 12, nonce: 77 };
    let failed = Verdict::Failed(Failure { code: "NO".into(), message: "no".into() });
    let store = vec![
        store::Body::Open { nonce: 77 },
        store::Body::Close { session },
        store::Body::Perform {
            session,
            ack: 2,
            first: 3,
            requests: vec![request(Some("add")), request(None)],
        },
        store::Body::Chunk {
            session,
            ack: 2,
            seq: 3,
            method: "add".into(),
            total: 90,
            offset: 30,
            data: "x".into(),
        },
        store::Body::Received { session, next: 4, offset: 31 },
        store::Body::Verdicts {
            session,
            verdicts: vec![(3, 20, Verdict::Nothing), (4, 20, failed), (5, 21, Verdict::Skipped)],
        },
        store::Body::Read { id: 5 },
        store::Body::ReadAt { id: 5, index: 20 },
        store::Body::Hash { check: 9, hash: Some(store::Hash { hash: 10, suspect: true }) },
        store::Body::Hash { check: 9, hash: None },
        store::Body::Check,
        store::Body::Fetch { at: None, offset: 0, snapshot: true },
        store::Body::Fetch { at: Some(at(9, 2)), offset: 30, snapshot: false },
        store::Body::State { at: at(9, 2), total: 31, offset: 30, data: "x".into() },
        store::Body::Offer { version: 2 },
        store::Body::Seek,
    ];
    let me = |id: &str, nonce| formation::Member { id: id.into(), nonce };
    let set = formation::Set::new(vec![me("a", 1), me("b", 2)]).expect("a set");
    let refuse = |why| formation::Body::Refuse { why, members: vec!["a".into(), "b".into()] };
    let forming = vec![
        formation::Body::Hello { size: 2, bound: Some(5), ask: true },
        formation::Body::Propose { set: set.clone() },
        formation::Body::Formed { set: set.clone() },
        formation::Body::Readmit { set },
        formation::Body::Goodbye,
        refuse(Refusal::Full),
        refuse(Refusal::Amnesia),
        refuse(Refusal::NotAMember),
        refuse(Refusal::OtherSet),
        refuse(Refusal::DuplicateId),
        refuse(Refusal::Replaced),
    ];
    let hosts = vec![
        elastic::Body::Hello {
            own: Some(4),
            nodes: vec![4, 5],
            visible: true,
            ask: false,
            version: 1,
        },
        elastic::Body::Acquired { node: 5 },
        elastic::Body::Deleted { node: 5 },
        elastic::Body::Goodbye,
        elastic::Body::Destroyed,
    ];
    let raft = raft.into_iter().map(|body| Packet::Raft(raft::Message { term: 3, body }));
    let store = store.into_iter().map(|body| Packet::Store(store::Message { term: 3, body }));
    let forming = forming.into_iter().map(|body| formation::Message { from: me("a", 1), body });
    let hosts = (1..).zip(hosts).map(|(count, body)| elastic::Message { host: 9, count, body });
    (raft.chain(store).map(Message::Node))
        .chain(forming.map(Message::Formation))
        .chain(hosts.map(Message::Elastic))
        .collect()
}

/// One command of every kind of the format before, as an entry carries it.
fn earlier_commands() -> Vec<Command> {
    let by = store::Performer { id: 1, name: "a".into() };
    let verdicts = vec![(1, Verdict::Nothing), (2, Verdict::Skipped)];
    let (session, seq, ack, action) = (2, 3, 1, "{}".into());
    vec![
        Command::Open { nonce: 77, by },
        Command::Action { version: 1, session, seq, ack, verdicts, action },
        Command::Close { session: 1 },
    ]
}

/// One command of every kind.
fn commands() -> Vec<Command> {
    let mut commands = earlier_commands();
    commands.extend([
        Command::Acknowledge { session: 2, ack: 3 },
        Command::Found { version: 1, state: "{}".into() },
        Command::Check { version: 1 },
        Command::Checked { check: 9, hash: 77 },
        Command::Upgrade { version: 2, state: "{}".into() },
    ]);
    commands
}

/// What a node has stored: a snapshot with sessions, and entries behind it.
fn saved(commands: Vec<Command>) -> Saved {
    let mut sessions = store::Sessions::default();
    for (index, command) in (2..).zip(&commands[..2]) {
        assert!(sessions.apply(index, command));
    }
    let data = store::encode_snapshot(1, &sessions, b"{\"state\":1}");
    let snapshot = Snapshot { last: at(3, 2), members: Members::voters([1, 2, 3]), data };
    let command =
        |command: &Command| Payload::Command(postcard::to_allocvec(command).expect("bytes").into());
    let entries = (4..).zip(commands);
    let entries = entries.map(|(index, c)| Entry { at: at(index, 2), payload: command(&c) });
    let hard = HardState { term: 4, vote: Some(2) };
    Saved { hard, snapshot: Some(snapshot), entries: entries.collect() }
}

/// A frame of every message, and what a node has stored in a browser and in a file.
fn written() -> Vec<(&'static str, Vec<u8>)> {
    let header = Header { cluster: 1, set: 2, from: 3, to: 4, version: 1 };
    let mut writer = FrameWriter::new(header);
    messages().iter().for_each(|message| writer.push(message));
    let saved = saved(commands());
    let batch = Batch::of(&saved);
    let more = Persist {
        seq: 8,
        hard: None,
        snapshot: None,
        reset: false,
        entries: saved.entries.clone(),
    };
    let mut log = file::record(7, 7, Some(b"owner".to_vec()), &Persist::begin(7, &saved));
    log.extend(file::record(8, 7, None, &more));
    vec![
        ("frame", writer.finish().remove(0)),
        ("hard", batch.hard.expect("a term")),
        ("snapshot", batch.snapshot.expect("a snapshot")),
        ("entries", batch.entries.expect("entries")),
        ("file", log),
    ]
}

/// What a build has written.
fn page(name: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(format!("tests/formats/{name}.hex")).expect("a page");
    let digits: Vec<_> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

#[test]
fn the_same_things_are_written_as_the_same_bytes() {
    for (name, bytes) in written() {
        let name = format!("3/{name}");
        if std::env::var_os("UPDATE_FORMATS").is_some() {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            std::fs::write(format!("tests/formats/{name}.hex"), digits + "\n").expect("written");
        }
        assert_eq!(bytes, page(&name), "{name}");
    }
}

#[test]
fn a_frame_is_read_message_by_message() {
    let (header, read) = wire::read::<Message>(&page("3/frame")).expect("a frame");
    assert_eq!(header, Header { cluster: 1, set: 2, from: 3, to: 4, version: 1 });
    let messages = messages();
    assert_eq!(read.len(), messages.len());
    for (read, message) in read.iter().zip(&messages) {
        assert_eq!(read, message);
    }
}

#[test]
fn what_an_earlier_build_has_stored_is_restored() {
    for (format, saved) in [(3, saved(commands())), (2, saved(earlier_commands()))] {
        let same = |restored: &Saved| {
            assert_eq!((restored.hard, &restored.snapshot), (saved.hard, &saved.snapshot));
            assert_eq!(restored.entries, saved.entries);
        };
        let [hard, snapshot, entries, file] =
            ["hard", "snapshot", "entries", "file"].map(|name| page(&format!("{format}/{name}")));
        let restored = restore(Some(&hard), Some(&snapshot), [entries.as_slice()]);
        same(&restored.expect("a browser's record"));
        let contents = file::read(&file).expect("a file");
        assert_eq!((contents.owner.as_slice(), contents.end), (&b"owner"[..], file.len()));
        same(&contents.saved);
    }
}
