//! Sessions: how a perform that is sent twice runs once (dissertation §6.3).
//!
//! The table is part of the replicated state. Every node applies the same commands in the same
//! order, so every node, and every snapshot, holds the same table.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::machine::Failure;
use crate::raft::{Blob, Index};

/// A session's number: the index of the entry that opened it.
pub type SessionId = Index;
/// Numbers the performs of a session, from 1 on, in the order in which they were issued.
pub type Seq = u64;
/// Numbers above this are taken for garbage: nobody performs so often.
pub(super) const MAX_SEQ: Seq = 1 << 48;

/// How a perform ended that appended nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The method had nothing to do.
    Nothing,
    /// The method, or Conflux, refused.
    Failed(Failure),
    /// The client had given it up before it was judged: it never ran and never will.
    Skipped,
}

impl Verdict {
    /// About how many bytes it takes.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Nothing | Self::Skipped => 1,
            Self::Failed(failure) => failure.code.len() + failure.message.len(),
        }
    }
}

/// What a log entry says to the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Opens a session for the client that chose this nonce.
    Open {
        /// A random number that only that client knows.
        nonce: u64,
    },
    /// Closes a session.
    Close {
        /// Which.
        session: SessionId,
    },
    /// A judged action.
    Action {
        /// Whose.
        session: SessionId,
        /// The perform's number in the session.
        seq: Seq,
        /// The client knows the outcome of everything before this.
        ack: Seq,
        /// The session's verdicts before this action that the client may not know yet. They are
        /// part of the order: a later leader must not judge those performs again behind the
        /// action.
        verdicts: Vec<(Seq, Verdict)>,
        /// The action.
        action: Blob,
    },
}

/// How a perform ended, as the table keeps it until the client has acknowledged it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Recorded {
    /// With this action.
    Action(Blob),
    /// Without one.
    Verdict(Verdict),
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    nonce: u64,
    /// The next perform whose outcome is not recorded.
    next: Seq,
    /// Outcomes that the client has not acknowledged.
    results: BTreeMap<Seq, Recorded>,
    /// The newest entry of the session: the session that was quiet for longest goes first.
    active: Index,
}

impl Session {
    /// The next perform whose outcome is not recorded.
    pub fn next(&self) -> Seq {
        self.next
    }

    /// Outcomes that the client has not acknowledged.
    pub fn results(&self) -> &BTreeMap<Seq, Recorded> {
        &self.results
    }
}

/// All sessions, in the state after some entry of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions(BTreeMap<SessionId, Session>);

impl Sessions {
    /// How many sessions there may be; opening one more closes the one that was quiet for longest.
    pub const MAX: usize = 1024;

    /// A session by its number.
    pub fn get(&self, id: SessionId) -> Option<&Session> {
        self.0.get(&id)
    }

    /// The session that was opened with this nonce.
    pub fn with_nonce(&self, nonce: u64) -> Option<SessionId> {
        self.0.iter().find(|(_, session)| session.nonce == nonce).map(|(id, _)| *id)
    }

    /// Applies the command of the entry at `index`. Says whether it counts: an action of an
    /// unknown session, or one whose perform has an outcome already, must not be reduced.
    pub fn apply(&mut self, index: Index, command: &Command) -> bool {
        match command {
            Command::Open { nonce } => {
                if self.with_nonce(*nonce).is_some() {
                    return false;
                }
                if self.0.len() >= Self::MAX {
                    let quiet = self.0.iter().min_by_key(|(id, s)| (s.active, **id));
                    let quiet = quiet.map(|(id, _)| *id).expect("there are many");
                    self.0.remove(&quiet);
                }
                let results = BTreeMap::new();
                self.0.insert(index, Session { nonce: *nonce, next: 1, results, active: index });
                true
            }
            Command::Close { session } => self.0.remove(session).is_some(),
            Command::Action { session, seq, ack, verdicts, action } => {
                let Some(session) = self.0.get_mut(session) else { return false };
                if *seq < session.next || *seq > MAX_SEQ {
                    return false;
                }
                session.active = index;
                session.next = seq + 1;
                session
                    .results
                    .extend(verdicts.iter().map(|(seq, v)| (*seq, Recorded::Verdict(v.clone()))));
                session.results.insert(*seq, Recorded::Action(action.clone()));
                session.results = session.results.split_off(ack);
                true
            }
        }
    }
}
