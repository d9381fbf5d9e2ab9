//! Frames in and out, and what is counted and told of them.

use serde::{Deserialize, Serialize};

use super::core::{Counters, Notice};
use crate::node::Packet;
use crate::sorted::{SortedMap, SortedSet};
use crate::store::Failure;
use crate::tenancy;
use crate::wire::{self, FrameWriter, Header, WireError, hash64};

/// A message in a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Letter {
    /// About forming.
    Form(tenancy::Message),
    /// From node to node.
    Node(Packet),
    /// From host to host.
    Host(tenancy::elastic::Message),
}

/// Whom a frame is for, and in whose name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address {
    /// The id to which the channel gives it; `None` for everyone.
    pub(super) id: Option<String>,
    /// The header's `to`.
    pub(super) to: u64,
    /// The header's `from`.
    pub(super) from: u64,
    /// The header's `set`.
    pub(super) set: u64,
}

/// The frames of one host.
#[derive(Debug)]
pub(super) struct Mail {
    name: String,
    cluster: u64,
    version: u32,
    pub(super) counters: Counters,
    /// The codes of errors that were told already: each is told once.
    told: SortedSet<&'static str>,
    outbox: SortedMap<Address, FrameWriter>,
}

impl Mail {
    /// The mail of a host of the cluster with this name.
    pub(super) fn new(name: &str, version: u32) -> Self {
        Self {
            cluster: hash64(&[name.as_bytes()]),
            name: name.into(),
            version,
            counters: Counters::default(),
            told: SortedSet::new(),
            outbox: SortedMap::new(),
        }
    }

    /// Reads a frame of this cluster. What is none is counted, and told the first time.
    pub(super) fn open(
        &mut self,
        frame: &[u8],
        notices: &mut Vec<Notice>,
    ) -> Option<(Header, Vec<Letter>)> {
        self.counters.received += 1;
        let (header, letters) = match wire::read::<Letter>(frame) {
            Ok(read) => read,
            Err(error) => {
                self.bad_frame(error, notices);
                return None;
            }
        };
        if header.cluster != self.cluster {
            self.counters.foreign_frames += 1;
            let message = format!(
                "frames of another cluster arrive on this channel, and are ignored; this one is \
                 called `{}`",
                self.name
            );
            self.tell_once("OTHER_CLUSTER", message, notices);
            return None;
        }
        Some((header, letters))
    }

    fn bad_frame(&mut self, error: WireError, notices: &mut Vec<Notice>) {
        self.counters.bad_frames += 1;
        match error {
            WireError::Version(_) => {
                let message = format!("{error}: let all tabs load the same release of the page");
                self.tell_once("VERSION", message, notices);
            }
            _ => {
                let message = format!(
                    "{error}; it is ignored, and so are later ones, which `status().counters` counts"
                );
                self.tell_once("BAD_FRAME", message, notices);
            }
        }
    }

    /// Tells an error, the first time that it happens.
    pub(super) fn tell_once(
        &mut self,
        code: &'static str,
        message: String,
        notices: &mut Vec<Notice>,
    ) {
        if self.told.insert(code) {
            notices.push(Notice::Error(Failure::new(code, message)));
        }
    }

    /// A member sent something that cannot be.
    pub(super) fn invalid(&mut self, who: &str, error: &str, notices: &mut Vec<Notice>) {
        self.counters.invalid_messages += 1;
        let message = format!("{who} sent something impossible: {error}");
        self.tell_once("BAD_MESSAGE", message, notices);
    }

    /// Puts a letter into the next frame for an address.
    pub(super) fn post(&mut self, address: Address, letter: &Letter) {
        let header = Header {
            cluster: self.cluster,
            set: address.set,
            from: address.from,
            to: address.to,
            version: self.version,
        };
        self.outbox.get_or_insert_with(address, || FrameWriter::new(header)).push(letter);
    }

    /// The frames to send, each to a node's id or to everyone.
    pub(super) fn take_frames(&mut self) -> Vec<(Option<String>, Vec<u8>)> {
        let mut frames = Vec::new();
        for (address, writer) in std::mem::take(&mut self.outbox) {
            for frame in writer.finish() {
                self.counters.sent += 1;
                frames.push((address.id.clone(), frame));
            }
        }
        frames
    }
}
