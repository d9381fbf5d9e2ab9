//! Letters and entries in a line of the trace.

use std::fmt;

use conflux::host::core::Letter;
use conflux::node::Packet;
use conflux::raft;

/// A letter in a line.
pub(crate) struct Line<'a>(pub(crate) &'a Letter);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Letter::Node(Packet::Raft(message)) => write!(f, "{message}"),
            Letter::Node(Packet::Store(message)) => {
                write!(f, "T{} {:?}", message.term, message.body)
            }
            Letter::Host(message) => write!(f, "{:?}", message.body),
            Letter::Form(message) => write!(f, "{:?}", message.body),
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
