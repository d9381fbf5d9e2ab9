//! Frames: the unit that nodes send over a channel, the same on every kind of channel.
//!
//! A frame is a preamble of four bytes ([`MAGIC`] and [`VERSION`]), a checksum of four bytes over
//! everything behind it, a [`Header`], and messages up to the end of the frame. Header and messages
//! are in postcard's encoding. Messages of one turn to the same node share a frame. A frame that
//! cannot be read is a [`WireError`]: no frame makes the reader panic or allocate more than the
//! frame's own size.
//!
//! The checksum is needed because Raft tolerates lost messages, but not changed ones: a single
//! wrong bit in a commit index can lose acknowledged entries. Sockets and browsers do not change
//! bits, but a `custom` channel that takes bytes for text does.

pub mod relay;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The first bytes of every frame.
pub const MAGIC: [u8; 3] = *b"Cfx";
/// The version of the format of frames and messages. A node refuses other versions.
pub const VERSION: u8 = 3;
/// The largest frame, in bytes. A relay passes on no larger one.
pub const MAX_FRAME: usize = 1 << 20;
/// A frame is complete once it has this size, in bytes. It is so far below [`MAX_FRAME`] that one
/// more message always fits.
pub const TARGET_FRAME: usize = 256 << 10;

/// The place of the checksum in a frame.
const SUM: std::ops::Range<usize> = 4..8;

/// The sender and the receiver of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The hash of the cluster's name.
    pub cluster: u64,
    /// The cluster in which the sender runs: the hash of its set of members, or an elastic
    /// cluster's incarnation; 0 before the sender belongs to a cluster.
    pub set: u64,
    /// The sender: its nonce, or in an elastic cluster its node's number.
    pub from: u64,
    /// The receiver, in the same way; 0 for everyone.
    pub to: u64,
    /// The release of the application that the sender runs.
    pub version: u32,
}

/// Why a frame cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// It does not begin with [`MAGIC`].
    #[error("this is not a Conflux frame")]
    Foreign,
    /// It was written by another version of Conflux.
    #[error("the frame has version {0}, and this node speaks version {VERSION}")]
    Version(u8),
    /// The checksum does not match, or the bytes cannot be decoded.
    #[error("the frame is malformed")]
    Malformed,
    /// It is larger than [`MAX_FRAME`].
    #[error("the frame is larger than {MAX_FRAME} bytes")]
    TooLarge,
}

/// Writes messages into as many frames as are needed.
#[derive(Debug)]
pub struct FrameWriter {
    header: Header,
    frame: Vec<u8>,
    done: Vec<Vec<u8>>,
}

impl FrameWriter {
    /// A writer of frames with this header.
    pub fn new(header: Header) -> Self {
        Self { header, frame: Vec::new(), done: Vec::new() }
    }

    /// Adds a message.
    pub fn push<M: Serialize>(&mut self, message: &M) {
        if self.frame.is_empty() {
            self.frame.extend_from_slice(&MAGIC);
            self.frame.push(VERSION);
            self.frame.extend_from_slice(&[0; SUM.end - SUM.start]);
            self.frame = postcard::to_extend(&self.header, std::mem::take(&mut self.frame))
                .expect("memory takes any header");
        }
        self.frame = postcard::to_extend(message, std::mem::take(&mut self.frame))
            .expect("memory takes any message");
        if self.frame.len() >= TARGET_FRAME {
            self.seal();
        }
    }

    /// Completes the frame with its checksum.
    fn seal(&mut self) {
        let sum = checksum(&self.frame[SUM.end..]).to_le_bytes();
        self.frame[SUM].copy_from_slice(&sum);
        self.done.push(std::mem::take(&mut self.frame));
    }

    /// All frames, complete.
    #[must_use]
    pub fn finish(mut self) -> Vec<Vec<u8>> {
        if !self.frame.is_empty() {
            self.seal();
        }
        self.done
    }
}

/// Reads a frame.
///
/// # Errors
/// When the bytes are not a frame of this version. Nothing of such a frame may be used.
pub fn read<M: DeserializeOwned>(frame: &[u8]) -> Result<(Header, Vec<M>), WireError> {
    if frame.len() > MAX_FRAME {
        return Err(WireError::TooLarge);
    }
    let (magic, rest) = frame.split_at_checked(MAGIC.len()).ok_or(WireError::Foreign)?;
    if magic != MAGIC {
        return Err(WireError::Foreign);
    }
    let (version, rest) = rest.split_first().ok_or(WireError::Malformed)?;
    if *version != VERSION {
        return Err(WireError::Version(*version));
    }
    let (sum, rest) = rest.split_first_chunk().ok_or(WireError::Malformed)?;
    if u32::from_le_bytes(*sum) != checksum(rest) {
        return Err(WireError::Malformed);
    }
    let malformed = |_| WireError::Malformed;
    let (header, mut rest) = postcard::take_from_bytes::<Header>(rest).map_err(malformed)?;
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let (message, behind) = postcard::take_from_bytes::<M>(rest).map_err(malformed)?;
        messages.push(message);
        rest = behind;
    }
    Ok((header, messages))
}

/// A checksum of 32 bits, computed from eight bytes at a time. Each step is a bijection of the sum
/// so far. Therefore two contents that differ in one word of eight bytes never have the same sum of
/// 64 bits, and they have the same upper 32 bits, which are returned, with a probability of 1 in
/// 2³².
fn checksum(bytes: &[u8]) -> u32 {
    let mut sum = bytes.len() as u64;
    let mut mix = |word| {
        sum = (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        sum ^= sum >> 32;
    };
    let (words, rest) = bytes.as_chunks();
    words.iter().copied().for_each(&mut mix);
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(last);
    (sum >> 32) as u32
}

/// A 64-bit hash (FNV-1a), the same on every machine. It does not withstand an attacker who chooses
/// the input.
pub fn hash64(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        // The length comes first, so that different lists of parts have different bytes.
        for byte in (part.len() as u64).to_le_bytes().iter().chain(*part) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header { cluster: 7, set: 8, from: 9, to: 10, version: 1 };

    fn frame(messages: &[String]) -> Vec<u8> {
        let mut writer = FrameWriter::new(HEADER);
        messages.iter().for_each(|message| writer.push(message));
        let frames = writer.finish();
        assert_eq!(frames.len(), 1);
        frames.into_iter().next().expect("one frame")
    }

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let messages = vec!["one".to_string(), String::new(), "three".to_string()];
        let read = read::<String>(&frame(&messages)).expect("a good frame");
        assert_eq!(read, (HEADER, messages));
    }

    #[test]
    fn many_messages_make_several_frames_each_within_the_limit() {
        let mut writer = FrameWriter::new(HEADER);
        let message = "x".repeat(100_000);
        for _ in 0..20 {
            writer.push(&message);
        }
        let frames = writer.finish();
        assert!(frames.len() > 1 && frames.iter().all(|frame| frame.len() < MAX_FRAME));
        let all: usize = frames.iter().map(|f| read::<String>(f).expect("good").1.len()).sum();
        assert_eq!(all, 20);
    }

    #[test]
    fn bytes_that_are_not_a_frame_give_an_error_that_says_why() {
        let good = frame(&["hello".into()]);
        assert_eq!(read::<String>(b""), Err(WireError::Foreign));
        assert_eq!(read::<String>(b"GET / HTTP/1.1"), Err(WireError::Foreign));
        let mut other = good.clone();
        other[3] = 9;
        assert_eq!(read::<String>(&other), Err(WireError::Version(9)));
        for end in 4..good.len() {
            assert_eq!(read::<String>(&good[..end]), Err(WireError::Malformed), "cut at {end}");
        }
        for bit in 32..good.len() * 8 {
            let mut turned = good.clone();
            turned[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read::<String>(&turned), Err(WireError::Malformed), "bit {bit}");
        }
        assert_eq!(read::<String>(&vec![0; MAX_FRAME + 1]), Err(WireError::TooLarge));
    }

    #[test]
    fn a_length_beyond_the_frame_allocates_nothing() {
        let mut writer = FrameWriter::new(HEADER);
        writer.push(&u64::MAX); // Read as a string, this is the length.
        let bad = writer.finish().remove(0);
        assert_eq!(read::<String>(&bad), Err(WireError::Malformed));
        assert_eq!(read::<Vec<u64>>(&bad), Err(WireError::Malformed));
    }
}
