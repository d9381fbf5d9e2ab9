//! The words of the protocol: terms, indexes, entries, messages, and what is saved.

use std::fmt;
use std::sync::Arc;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::output::Refused;
use crate::mistakes::{Mistake, made};
use crate::sorted::SortedMap;

/// A term: a logical clock that grows with every election (paper §5.1).
pub type Term = u64;
/// A position in the log. The first entry has index 1; 0 is the empty log.
pub type Index = u64;
/// A member's number, unique within its cluster and never 0.
pub type NodeId = u64;
/// Milliseconds on the caller's monotonic clock.
pub type Time = u64;
/// Numbers the writes that Raft asks for, from 1 on; 0 means "nothing needs to be written".
pub type PersistSeq = u64;

/// Immutable bytes, cheap to clone: one entry is in the log, in flight to every follower and in a
/// write at the same time.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Blob(Arc<[u8]>);

impl Blob {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl Default for Blob {
    fn default() -> Self {
        Self::from("")
    }
}

impl From<&[u8]> for Blob {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl From<&str> for Blob {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().into())
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) if text.len() <= 64 => write!(f, "{text:?}"),
            _ => write!(f, "[{} bytes]", self.0.len()),
        }
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Blob;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(bytes.into())
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

/// Where an entry stands: its index and the term in which a leader made it.
///
/// The order is that of "up to date" (paper §5.4.1): terms first, then indexes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The entry's index.
    pub index: Index,
    /// The entry's term.
    pub term: Term,
}

impl Position {
    /// A position from its two numbers.
    pub fn new(index: Index, term: Term) -> Self {
        Self { index, term }
    }

    /// Whether a log that ends here is at least as up to date as one that ends at `other`
    /// (paper §5.4.1).
    pub fn is_up_to_date_with(self, other: Self) -> bool {
        (self.term, self.index) >= (other.term, other.index)
    }
}

/// What an entry carries.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Payload {
    /// Nothing: the entry with which every leader opens its term (paper §8).
    Noop,
    /// A command for the state machine. Raft does not look inside.
    Command(Blob),
    /// A new configuration. It counts from the moment in which a node has the entry, whether it is
    /// committed or not (dissertation §4.1).
    Members(Members),
}

impl Payload {
    /// The size in bytes that limits count: the command's, and a little for the entry itself.
    pub fn size(&self) -> usize {
        const OVERHEAD: usize = 16;
        match self {
            Self::Noop => OVERHEAD,
            Self::Command(data) => OVERHEAD + data.len(),
            Self::Members(members) => OVERHEAD + members.size(),
        }
    }
}

/// A member of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// It votes, and counts for majorities. Otherwise it is a learner: it only gets the log
    /// (dissertation §4.2.1).
    pub voter: bool,
    /// What people call it. Raft does not look inside.
    pub name: String,
}

/// A configuration: who belongs to the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Members(SortedMap<NodeId, Member>);

impl Members {
    /// Voters with these numbers and no names.
    pub fn voters(ids: impl IntoIterator<Item = NodeId>) -> Self {
        let member = |id| (id, Member { voter: true, name: String::new() });
        Self(ids.into_iter().map(member).collect())
    }

    /// Members as they are.
    pub fn new(members: impl IntoIterator<Item = (NodeId, Member)>) -> Self {
        Self(members.into_iter().collect())
    }

    /// How many members there are, learners included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody is known to be a member: so a node begins that is yet to join.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each member by its number.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.0.iter().map(|(id, member)| (*id, member))
    }

    /// A member.
    pub fn get(&self, id: NodeId) -> Option<&Member> {
        self.0.get(&id)
    }

    /// Whether this node is a member, voter or learner.
    pub fn contains(&self, id: NodeId) -> bool {
        self.0.contains_key(&id)
    }

    /// Whether this node is a voter.
    pub fn is_voter(&self, id: NodeId) -> bool {
        let counts = |member: &Member| member.voter || made(Mistake::LearnerCounted);
        self.0.get(&id).is_some_and(counts)
    }

    /// How many voters there are.
    pub fn count_voters(&self) -> usize {
        self.0.keys().filter(|id| self.is_voter(**id)).count()
    }

    /// How many voters are a majority: ⌊n/2⌋ + 1.
    pub fn quorum(&self) -> usize {
        let voters = self.count_voters();
        if made(Mistake::MajorityOffByOne) { (voters / 2).max(1) } else { voters / 2 + 1 }
    }

    /// The configuration after a change, or why there is none.
    pub(super) fn after(&self, change: &Change) -> Result<Self, Refused> {
        let mut after = self.clone();
        let members = &mut after.0;
        match change {
            Change::Add { id, name } => {
                if *id == 0 || name.len() > MAX_NAME || members.contains_key(id) {
                    return Err(Refused::NoChange);
                }
                members.insert(*id, Member { voter: false, name: name.clone() });
            }
            Change::Promote(id) | Change::Demote(id) => {
                let voter = matches!(change, Change::Promote(_));
                match members.get_mut(id) {
                    Some(member) if member.voter != voter => member.voter = voter,
                    _ => return Err(Refused::NoChange),
                }
            }
            Change::Remove(id) => {
                members.remove(id).ok_or(Refused::NoChange)?;
            }
        }
        if members.values().any(|member| member.voter) {
            Ok(after)
        } else {
            Err(Refused::LastVoter)
        }
    }

    /// About how many bytes it takes.
    fn size(&self) -> usize {
        self.0.values().map(|member| 16 + member.name.len()).sum()
    }
}

/// The longest name of a member, in bytes.
const MAX_NAME: usize = 256;

/// A change of the configuration, of one member at a time: so majorities before and after it always
/// have a member in common (dissertation §4.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// A new member, as a learner.
    Add {
        /// Its number.
        id: NodeId,
        /// Its name.
        name: String,
    },
    /// A learner becomes a voter.
    Promote(NodeId),
    /// A voter becomes a learner.
    Demote(NodeId),
    /// A member is one no more.
    Remove(NodeId),
}

/// One entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// Where it stands.
    pub at: Position,
    /// What it carries.
    pub payload: Payload,
}

/// A snapshot of the state machine: it stands for every entry up to and including `last`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// The last entry that it covers.
    pub last: Position,
    /// The configuration there.
    pub members: Members,
    /// The state machine's bytes. Raft does not look inside.
    pub data: Blob,
}

impl Snapshot {
    /// The bytes in which it travels and is kept.
    pub fn pack(&self) -> Blob {
        postcard::to_allocvec(&(&self.members, &self.data)).expect("memory takes it").into()
    }

    /// The snapshot that ends at `last`, from its bytes. `None` when they are none.
    pub fn unpack(last: Position, bytes: &[u8]) -> Option<Self> {
        let (members, data) = postcard::from_bytes(bytes).ok()?;
        Some(Self { last, members, data })
    }
}

/// What a node must never forget besides its log (paper figure 2, "persistent state").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HardState {
    /// The newest term that the node has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<NodeId>,
}

/// What storage gives back to a node that starts again. The default is a node that never ran.
#[derive(Clone, Debug, Default)]
pub struct Saved {
    /// Term and vote.
    pub hard: HardState,
    /// The newest snapshot, if one was taken.
    pub snapshot: Option<Snapshot>,
    /// The entries behind the snapshot, without a gap.
    pub entries: Vec<Entry>,
}

impl Saved {
    /// The newest configuration; `None` when there is none yet.
    pub fn members(&self) -> Option<&Members> {
        let newest = self.entries.iter().rev().find_map(|entry| match &entry.payload {
            Payload::Members(members) => Some(members),
            Payload::Noop | Payload::Command(_) => None,
        });
        newest.or(self.snapshot.as_ref().map(|snapshot| &snapshot.members))
    }
}

/// The settings of one node.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub id: NodeId,
    /// The configuration with which the log begins. A node that is yet to join a cluster has an empty
    /// one: it waits until a leader speaks to it.
    pub members: Members,
    /// Shortest and longest election timeout, in ms; every attempt draws anew in between.
    pub election_timeout: (Time, Time),
    /// How soon the node stands for election after it was made, in ms; `None` for an election
    /// timeout like any other. In a cluster that has just formed nobody leads, and one node need not
    /// wait to find out.
    pub first_election: Option<Time>,
    /// How long a leader may be silent towards a follower, in ms.
    pub heartbeat_interval: Time,
    /// How long a leader may be silent towards a follower that has everything, in ms; `None` for no
    /// longer than towards any other. Only where something else tells who is dead
    /// ([`super::Input::Gone`]), or nobody minds to find out when there is work.
    pub rest: Option<Time>,
    /// How many bytes of entries, or of one piece, go into one message. An entry larger than this
    /// travels in pieces.
    pub max_message_bytes: usize,
    /// How many messages with entries may be unacknowledged per follower.
    pub max_inflight: usize,
    /// How many bytes of entries may be uncommitted before proposals are refused as `Busy`.
    pub max_uncommitted_bytes: usize,
    /// The largest entry or snapshot that is taken from a peer in pieces, in bytes.
    pub max_transfer_bytes: u64,
}

impl Config {
    /// The defaults for a node in a cluster of `members`.
    pub fn new(id: NodeId, members: Members) -> Self {
        Self {
            id,
            members,
            election_timeout: (300, 500),
            first_election: None,
            heartbeat_interval: 50,
            rest: None,
            max_message_bytes: 256 << 10,
            max_inflight: 64,
            max_uncommitted_bytes: 16 << 20,
            max_transfer_bytes: 1 << 30,
        }
    }
}

/// A message between two nodes. A peer is input: nothing in a message is taken for granted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// The sender's term; for [`Body::PreVote`] and its grant the term it would stand for.
    pub term: Term,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Body {
    /// "Would you vote for me?" Changes nothing at the receiver (dissertation §9.6).
    PreVote {
        /// The end of the sender's log.
        last: Position,
    },
    /// The answer to [`Body::PreVote`].
    PreVoteReply {
        /// Whether the vote would be given.
        granted: bool,
    },
    /// RequestVote (paper §5.2).
    Vote {
        /// The end of the candidate's log.
        last: Position,
        /// The leader asked for this election, so its voice does not count against it
        /// (dissertation §4.2.3).
        transfer: bool,
    },
    /// The answer to [`Body::Vote`].
    VoteReply {
        /// Whether the vote was given.
        granted: bool,
    },
    /// AppendEntries, also the heartbeat: the log check is the same with and without entries
    /// (paper §5.3).
    Append {
        /// The entry right before `entries`.
        prev: Position,
        /// The leader's commit index.
        commit: Index,
        /// The leader's newest round of confirmations, echoed in the reply (dissertation §6.4).
        round: u64,
        /// New entries, without a gap; empty in a heartbeat.
        entries: Vec<Entry>,
        /// What the leader wants to hear.
        wants: Wants,
    },
    /// The answer to [`Body::Append`].
    AppendReply {
        /// The round of the message that is answered.
        round: u64,
        /// Whether the log check passed.
        result: AppendResult,
    },
    /// A piece of something larger than a message: InstallSnapshot (paper §7), or one large entry.
    Piece {
        /// What it is a piece of.
        of: Whole,
        /// The whole's length in bytes.
        total: u64,
        /// Where the piece begins.
        offset: u64,
        /// The leader's newest round of confirmations.
        round: u64,
        /// The bytes.
        data: Blob,
    },
    /// The answer to [`Body::Piece`].
    PieceReply {
        /// What it was a piece of.
        of: Whole,
        /// How many bytes the follower has, from the start and without a gap.
        offset: u64,
        /// The round of the message that is answered.
        round: u64,
    },
    /// "Stand for election now": leadership transfer (dissertation §3.10).
    TimeoutNow,
}

/// What the sender of a [`Body::Append`] wants to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Wants {
    /// An answer.
    Answer,
    /// Nothing: the message only tells a newer commit index, and who accepts it need not say so.
    Nothing,
    /// An answer; and then nothing is left to say, so that the leader falls silent for a while
    /// ([`Config::rest`]).
    Rest,
}

/// What a [`Body::Piece`] is a piece of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Whole {
    /// The snapshot that ends at `last`.
    Snapshot {
        /// The last entry that the snapshot covers.
        last: Position,
    },
    /// The command of the entry at `at`, which follows `prev`.
    Entry {
        /// The entry right before.
        prev: Position,
        /// The entry itself.
        at: Position,
    },
}

/// The outcome of AppendEntries' log check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AppendResult {
    /// The follower's log equals the leader's up to and including `matched`.
    Accepted {
        /// The last index known to be equal.
        matched: Index,
    },
    /// The follower has no entry at the message's `prev`.
    Rejected {
        /// The index of the message's `prev`.
        prev: Index,
        /// The newest entry of the follower that could still be the leader's: index and term let
        /// the leader skip a whole term at once (paper §5.3, end).
        hint: Position,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_its_bytes() {
        let blob = Blob::from("abc");
        assert_eq!((blob.len(), blob.is_empty(), Blob::from("").is_empty()), (3, false, true));
        let bytes = postcard::to_allocvec(&blob).expect("bytes");
        assert_eq!(bytes, *b"\x03abc");
        assert_eq!(postcard::from_bytes::<Blob>(&bytes), Ok(blob.clone()));
        assert_eq!(format!("{blob:?}"), "\"abc\"");
        assert_eq!(format!("{:?}", Blob::from(vec![b'x'; 64])), format!("{:?}", "x".repeat(64)));
        assert_eq!(format!("{:?}", Blob::from(vec![b'x'; 65])), "[65 bytes]");
        assert_eq!(format!("{:?}", Blob::from(vec![0xff; 2])), "[2 bytes]");
    }

    #[test]
    fn the_newer_term_is_more_up_to_date_and_then_the_longer_log() {
        let at = |index, term| Position::new(index, term);
        assert!(at(1, 2).is_up_to_date_with(at(9, 1)));
        assert!(!at(9, 1).is_up_to_date_with(at(1, 2)));
        assert!(at(3, 2).is_up_to_date_with(at(3, 2)) && !at(2, 2).is_up_to_date_with(at(3, 2)));
    }
}
