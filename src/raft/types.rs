//! Terms, indexes, positions and bytes: what every other file of this folder is written in.

use std::fmt;
use std::sync::Arc;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

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

/// Terms above this are refused as garbage: at one election a millisecond it takes 8,900 years.
pub(super) const MAX_TERM: Term = 1 << 48;
/// Indexes above this are refused as garbage likewise.
pub(super) const MAX_INDEX: Index = 1 << 48;

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
