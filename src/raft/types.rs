//! Terms, indexes, positions and bytes: the types that every other file of this folder uses.

use std::fmt;
use std::sync::Arc;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A term: a logical clock that grows with every election (paper §5.1).
pub type Term = u64;
/// An index into the log. The first entry has index 1; 0 is the end of an empty log.
pub type Index = u64;
/// A member's id, unique within its cluster and never 0.
pub type NodeId = u64;
/// A time on the caller's monotonic clock, or a duration, in ms.
pub type Time = u64;
/// The number of a write that Raft asks for, from 1 on; 0 stands for no write.
pub type PersistSeq = u64;

/// The largest term that is accepted from a peer or from storage. A cluster that held an election every millisecond
/// would need 8,900 years to reach it.
pub const MAX_TERM: Term = 1 << 48;
/// The largest index that is accepted from a peer or from storage.
pub const MAX_INDEX: Index = 1 << 48;

/// Immutable bytes, cheap to clone: the same entry can be in the log, in flight to every follower
/// and in a write at once.
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

/// The position of an entry: its index, and the term of the leader that appended it. Two logs that
/// contain the same position are equal up to it (the Log Matching property, paper §5.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The entry's index.
    pub index: Index,
    /// The entry's term.
    pub term: Term,
}

impl Position {
    /// A position from its index and its term.
    pub fn new(index: Index, term: Term) -> Self {
        Self { index, term }
    }

    /// Whether a log that ends here is at least as up to date as one that ends at `other`: terms
    /// are compared first, then indexes (paper §5.4.1).
    pub fn is_up_to_date_with(self, other: Self) -> bool {
        (self.term, self.index) >= (other.term, other.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_encoded_as_its_bytes_and_printed_as_text_up_to_64_bytes() {
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
    fn a_newer_last_term_is_more_up_to_date_and_with_equal_terms_a_longer_log() {
        let at = |index, term| Position::new(index, term);
        assert!(at(1, 2).is_up_to_date_with(at(9, 1)));
        assert!(!at(9, 1).is_up_to_date_with(at(1, 2)));
        assert!(at(3, 2).is_up_to_date_with(at(3, 2)) && !at(2, 2).is_up_to_date_with(at(3, 2)));
    }
}
