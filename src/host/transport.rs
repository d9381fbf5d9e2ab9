//! The frames that a host sends and receives, and their counters and errors.

use serde::{Deserialize, Serialize};

use super::types::{Counters, Notice};
use crate::node::Packet;
use crate::sorted::{SortedMap, SortedSet};
use crate::store::Failure;
use crate::wire::{self, FrameWriter, Header, WireError, hash64};
use crate::{elastic, formation};

/// A message in a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Between nodes that form a fixed cluster.
    Formation(formation::Message),
    /// Between nodes of a cluster.
    Node(Packet),
    /// Between hosts of an elastic cluster.
    Elastic(elastic::Message),
}

/// The receiver and the sender of a frame.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address {
    /// The id to which the channel delivers the frame; `None` for everyone.
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
pub(super) struct Transport {
    name: String,
    cluster: u64,
    version: u32,
    pub(super) counters: Counters,
    /// The codes of the errors that were reported. Each is reported once.
    reported: SortedSet<&'static str>,
    /// The frames that are being filled, by receiver.
    outbox: SortedMap<Address, FrameWriter>,
}

impl Transport {
    /// The transport of a host of the cluster with this name. `version` is the version of the
    /// application, which frames carry.
    pub(super) fn new(name: &str, version: u32) -> Self {
        Self {
            cluster: hash64(&[name.as_bytes()]),
            name: name.into(),
            version,
            counters: Counters::default(),
            reported: SortedSet::new(),
            outbox: SortedMap::new(),
        }
    }

    /// Reads a frame of this cluster. Any other frame is counted, and reported the first time.
    pub(super) fn open(
        &mut self,
        frame: &[u8],
        notices: &mut Vec<Notice>,
    ) -> Option<(Header, Vec<Message>)> {
        self.counters.received += 1;
        let (header, messages) = match wire::read::<Message>(frame) {
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
            self.report_once("OTHER_CLUSTER", message, notices);
            return None;
        }
        Some((header, messages))
    }

    fn bad_frame(&mut self, error: WireError, notices: &mut Vec<Notice>) {
        self.counters.bad_frames += 1;
        match error {
            WireError::Version(_) => {
                let message = format!("{error}: let all tabs load the same release of the page");
                self.report_once("VERSION", message, notices);
            }
            _ => {
                let message = format!(
                    "{error}; it is ignored, and so are later ones, which `status().counters` counts"
                );
                self.report_once("BAD_FRAME", message, notices);
            }
        }
    }

    /// Reports an error, unless its code was reported before.
    pub(super) fn report_once(
        &mut self,
        code: &'static str,
        message: String,
        notices: &mut Vec<Notice>,
    ) {
        if self.reported.insert(code) {
            notices.push(Notice::Error(Failure::new(code, message)));
        }
    }

    /// A member sent an impossible message.
    pub(super) fn invalid(&mut self, who: &str, error: &str, notices: &mut Vec<Notice>) {
        self.counters.invalid_messages += 1;
        let message = format!("{who} sent something impossible: {error}");
        self.report_once("BAD_MESSAGE", message, notices);
    }

    /// Adds a message to the next frame for an address.
    pub(super) fn send(&mut self, address: Address, message: &Message) {
        let header = Header {
            cluster: self.cluster,
            set: address.set,
            from: address.from,
            to: address.to,
            version: self.version,
        };
        self.outbox.get_or_insert_with(address, || FrameWriter::new(header)).push(message);
    }

    /// The frames to send, each to the node with this id, or to everyone.
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
