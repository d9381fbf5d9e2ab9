//! Messages and entries in one line of the trace.

use std::fmt;

use conflux::host::transport::Message;
use conflux::node::Packet;
use conflux::raft;

/// A message in one line.
pub(crate) struct Line<'a>(pub(crate) &'a Message);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Message::Node(Packet::Raft(message)) => write!(f, "{message}"),
            Message::Node(Packet::Store(message)) => {
                write!(f, "T{} {:?}", message.term, message.body)
            }
            Message::Elastic(message) => write!(f, "{:?}", message.body),
            Message::Formation(message) => write!(f, "{:?}", message.body),
        }
    }
}

pub(super) struct Entries<'a>(pub(super) &'a [raft::Entry]);

impl fmt::Display for Entries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entry in self.0 {
            write!(f, " {entry}")?;
        }
        Ok(())
    }
}
