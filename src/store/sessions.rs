//! Sessions: they make a perform that arrives twice run only once (dissertation §6.3).
//!
//! The session table is part of the replicated state. Every node applies the same commands in the
//! same order, so every node and every snapshot holds the same table.

use serde::{Deserialize, Serialize};

use super::machine::{Failure, Performer};
use crate::mistakes::{Mistake, made};
use crate::raft::{Blob, Index};
use crate::sorted::SortedMap;

/// A session's number: the index of the entry that opened it.
pub type SessionId = Index;
/// A session as messages name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRef {
    /// The session's number.
    pub id: SessionId,
    /// The nonce with which the session was opened. A cluster that was founded anew may give the
    /// same number to the session of another client.
    pub nonce: u64,
}

/// The number of a perform in its session. Performs are numbered from 1, in the order in which they
/// were issued.
pub type Seq = u64;
/// Larger numbers are refused: no client performs so often.
pub(super) const MAX_SEQ: Seq = 1 << 48;

/// The outcome of a perform without an action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The method returned no action.
    Nothing,
    /// The method failed, or Conflux refused the perform.
    Failed(Failure),
    /// The perform had timed out before it was judged: it never ran and never will.
    Skipped,
}

impl Verdict {
    /// About how many bytes the verdict takes in a message.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Nothing | Self::Skipped => 1,
            Self::Failed(failure) => failure.code.len() + failure.message.len(),
        }
    }
}

/// A command of the store in a log entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Opens a session for the client that chose this nonce.
    Open {
        /// A random number that no other client has.
        nonce: u64,
        /// The node of the client.
        by: Performer,
    },
    /// Closes a session.
    Close {
        /// The session to close.
        session: SessionId,
    },
    /// An action that a method returned.
    Action {
        /// The version of the application that judged the perform.
        version: u32,
        /// The session of the perform.
        session: SessionId,
        /// The perform's number in the session.
        seq: Seq,
        /// The client knows the outcome of every perform before this one.
        ack: Seq,
        /// The verdicts of the session's earlier performs that the client may not know yet, in
        /// order. Without them a later leader would judge those performs again, behind this action.
        verdicts: Vec<(Seq, Verdict)>,
        /// The action.
        action: Blob,
    },
    /// The client knows the outcome of every perform of the session before this one. Actions carry
    /// the same; this command is for a client whose outcomes take much space and who performs
    /// nothing more for now.
    Acknowledge {
        /// The session.
        session: SessionId,
        /// The first perform whose outcome is kept.
        ack: Seq,
    },
    /// The first state of the cluster. Every node loads it, whatever its own first state is.
    Found {
        /// The version of the application whose state it is.
        version: u32,
        /// The state, as [`super::Machine::save`] wrote it.
        state: Blob,
    },
    /// Every node of this version computes the hash of its state before this entry and sends it to
    /// the leader.
    Check {
        /// The version of the application whose nodes have the state.
        version: u32,
    },
    /// The hash of the right state before a [`Command::Check`]. A node with another one has
    /// diverged.
    Checked {
        /// The index of the `Check`.
        check: Index,
        /// The hash.
        hash: u64,
    },
    /// The state, which a newer version of the application has made of the state of an older one.
    Upgrade {
        /// The newer version.
        version: u32,
        /// The state, as [`super::Machine::migrate`] returned it.
        state: Blob,
    },
}

impl Command {
    /// How many kinds there are. The first byte of a command is the number of its kind.
    pub(super) const COUNT: u8 = 8;
}

/// The outcome of a perform, which the table keeps until the client has acknowledged it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Recorded {
    /// The perform led to this action.
    Action(Blob),
    /// The perform ended without an action.
    Verdict(Verdict),
}

impl Recorded {
    /// About how many bytes the outcome takes in a snapshot.
    fn size(&self) -> usize {
        16 + match self {
            Self::Action(action) => action.len(),
            Self::Verdict(verdict) => verdict.size(),
        }
    }
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    nonce: u64,
    by: Performer,
    /// The next perform whose outcome is not recorded.
    next: Seq,
    /// The outcomes that the client has not acknowledged.
    results: SortedMap<Seq, Recorded>,
    /// About how many bytes `results` takes.
    #[serde(skip)]
    bytes: usize,
    /// The index of the session's newest entry. When there are too many sessions, the one with the
    /// lowest index is closed.
    active: Index,
}

impl Session {
    /// Outcomes that take more bytes than this are acknowledged by an entry of their own, if no
    /// action does it.
    pub const MAX_BYTES: usize = 64 << 10;

    fn new(nonce: u64, by: Performer, active: Index) -> Self {
        Self { nonce, by, next: 1, results: SortedMap::new(), bytes: 0, active }
    }

    /// The node of the client when it opened the session.
    pub fn by(&self) -> &Performer {
        &self.by
    }

    /// The next perform whose outcome is not recorded.
    pub fn next(&self) -> Seq {
        self.next
    }

    /// Whether the outcome of a perform is recorded, so that it must not run again.
    pub(super) fn has_run(&self, seq: Seq) -> bool {
        if made(Mistake::VerdictJudgedAgain) {
            return self.results.contains_key(&seq);
        }
        seq < self.next && !made(Mistake::RetryAppliedTwice)
    }

    /// Whether a client that acknowledges everything before `ack` frees so much that it is worth
    /// an entry of its own.
    pub(super) fn is_worth_acknowledging(&self, ack: Seq) -> bool {
        self.bytes > Self::MAX_BYTES && self.results.keys().next().is_some_and(|seq| *seq < ack)
    }

    fn record(&mut self, seq: Seq, recorded: Recorded) {
        self.bytes += recorded.size();
        self.results.insert(seq, recorded);
    }

    /// Forgets the outcomes before `ack`.
    fn acknowledge(&mut self, ack: Seq) {
        let known = self.results.iter().take_while(|(seq, _)| **seq < ack);
        self.bytes -= known.map(|(_, recorded)| recorded.size()).sum::<usize>();
        self.results.remove_before(&ack);
    }

    /// The outcomes that the client has not acknowledged.
    pub fn results(&self) -> &SortedMap<Seq, Recorded> {
        &self.results
    }
}

/// The table of all open sessions, as it is behind some entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    open: SortedMap<SessionId, Session>,
    /// How many sessions may be open. It comes from the settings and is not saved; it is the same
    /// on every node of a cluster.
    #[serde(skip)]
    limit: usize,
}

impl Default for Sessions {
    fn default() -> Self {
        Self::with_limit(Self::MAX)
    }
}

impl Sessions {
    /// How many sessions may be open by default.
    pub const MAX: usize = 1024;

    /// A table for so many sessions. Opening one more closes the session whose newest entry is the
    /// oldest.
    pub fn with_limit(limit: usize) -> Self {
        Self { open: SortedMap::new(), limit }
    }

    /// The table, which was read from a snapshot, with a limit.
    pub(super) fn limited(mut self, limit: usize) -> Self {
        for session in self.open.values_mut() {
            session.bytes = session.results.values().map(Recorded::size).sum();
        }
        Self { limit, ..self }
    }

    /// How many sessions are open.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether no session is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// A session by its number.
    pub fn get(&self, id: SessionId) -> Option<&Session> {
        self.open.get(&id)
    }

    /// A session as a message names it. `None` if it is not open; another client's session with
    /// the same number is not it.
    pub fn find(&self, session: SessionRef) -> Option<&Session> {
        let is_same =
            |found: &&Session| found.nonce == session.nonce || made(Mistake::SessionWithoutNonce);
        self.open.get(&session.id).filter(is_same)
    }

    /// The session that is closed when one more is opened: the one whose newest entry is the
    /// oldest. `None` while there is room.
    pub(super) fn next_to_close(&self) -> Option<SessionId> {
        if self.open.len() < self.limit {
            return None;
        }
        self.open.iter().min_by_key(|(id, session)| (session.active, **id)).map(|(id, _)| *id)
    }

    /// The session that was opened with this nonce.
    pub fn with_nonce(&self, nonce: u64) -> Option<SessionId> {
        self.open.iter().find(|(_, session)| session.nonce == nonce).map(|(id, _)| *id)
    }

    /// Applies the command of the entry at `index`. Returns whether the command has an effect: an
    /// action of a session that is not open, or of a perform that has an outcome already, must not
    /// be reduced.
    pub fn apply(&mut self, index: Index, command: &Command) -> bool {
        match command {
            Command::Open { nonce, by } => {
                if self.with_nonce(*nonce).is_some() {
                    return false;
                }
                if let Some(quiet) = self.next_to_close() {
                    self.open.remove(&quiet);
                }
                self.open.insert(index, Session::new(*nonce, by.clone(), index));
                true
            }
            Command::Close { session } => self.open.remove(session).is_some(),
            Command::Action { session, seq, ack, verdicts, action, .. } => {
                if made(Mistake::ExpiredSessionRuns) && !self.open.contains_key(session) {
                    let forgotten = Session::new(*session, Performer::default(), index);
                    self.open.insert(*session, forgotten);
                }
                let Some(session) = self.open.get_mut(session) else { return false };
                if session.has_run(*seq) || *seq > MAX_SEQ {
                    return false;
                }
                // A correct leader writes them in this order; each is added behind the last.
                let seqs = verdicts.iter().map(|(seq, _)| *seq);
                if !seqs.chain([*seq]).is_sorted_by(|a, b| a < b) {
                    return false;
                }
                session.active = index;
                session.next = session.next.max(seq + 1);
                for (seq, verdict) in verdicts {
                    session.record(*seq, Recorded::Verdict(verdict.clone()));
                }
                session.record(*seq, Recorded::Action(action.clone()));
                session.acknowledge(*ack);
                true
            }
            Command::Acknowledge { session, ack } => {
                let Some(session) = self.open.get_mut(session) else { return false };
                let first = session.results.keys().next();
                let is_new = *ack <= session.next && first.is_some_and(|seq| seq < ack);
                if is_new {
                    session.active = index;
                    session.acknowledge(*ack);
                }
                is_new
            }
            Command::Found { .. }
            | Command::Check { .. }
            | Command::Checked { .. }
            | Command::Upgrade { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(nonce: u64) -> Command {
        Command::Open { nonce, by: Performer::default() }
    }

    fn action(session: SessionId, seq: Seq, ack: Seq) -> Command {
        let verdicts = vec![(seq - 1, Verdict::Nothing)];
        Command::Action { version: 1, session, seq, ack, verdicts, action: "x".into() }
    }

    #[test]
    fn a_perform_has_an_effect_once_and_only_in_an_open_session() {
        let mut sessions = Sessions::default();
        assert!(!sessions.apply(1, &action(7, 2, 1)), "no such session");
        assert!(sessions.apply(7, &open(70)));
        assert!(!sessions.apply(8, &open(70)), "asked for twice");
        assert!(sessions.apply(9, &action(7, 2, 1)));
        assert!(!sessions.apply(10, &action(7, 2, 1)), "sent twice");
        assert!(!sessions.apply(11, &action(7, MAX_SEQ + 1, 1)), "nobody gets there");
        assert!(sessions.clone().apply(11, &action(7, MAX_SEQ, 1)), "the last one");
        assert_eq!((sessions.len(), sessions.is_empty()), (1, false));
        assert!(sessions.apply(12, &Command::Close { session: 7 }));
        assert!(!sessions.apply(13, &action(7, 4, 1)), "closed");
        assert!(!sessions.apply(14, &Command::Close { session: 7 }));
        assert_eq!((sessions.len(), sessions.is_empty()), (0, true));
    }

    #[test]
    fn an_action_whose_verdicts_are_out_of_order_has_no_effect() {
        let mut sessions = Sessions::default();
        sessions.apply(1, &open(10));
        let carrying = |seqs: &[Seq]| {
            let verdicts = seqs.iter().map(|seq| (*seq, Verdict::Nothing)).collect();
            Command::Action { version: 1, session: 1, seq: 5, ack: 1, verdicts, action: "x".into() }
        };
        for seqs in [&[2, 1][..], &[2, 2], &[5], &[6]] {
            assert!(!sessions.apply(2, &carrying(seqs)), "{seqs:?}");
        }
        assert!(sessions.apply(2, &carrying(&[1, 3])));
    }

    #[test]
    fn outcomes_are_kept_until_they_are_acknowledged() {
        let mut sessions = Sessions::default();
        sessions.apply(1, &open(10));
        sessions.apply(2, &action(1, 2, 1));
        let kept = |sessions: &Sessions| -> Vec<Seq> {
            sessions.get(1).expect("open").results().keys().copied().collect()
        };
        assert_eq!((kept(&sessions), sessions.get(1).expect("open").next()), (vec![1, 2], 3));
        sessions.apply(3, &action(1, 4, 2));
        assert_eq!(kept(&sessions), [2, 3, 4]);
        sessions.apply(4, &action(1, 6, 6));
        assert_eq!(kept(&sessions), [6]);
    }

    #[test]
    fn opening_one_session_too_many_closes_the_least_recently_active() {
        let mut sessions = Sessions::default();
        for index in 1..=Sessions::MAX as Index {
            sessions.apply(index, &open(index));
        }
        sessions.apply(5_000, &action(1, 2, 1));
        sessions.apply(5_001, &open(99_999));
        assert!(sessions.get(1).is_some() && sessions.get(2).is_none());
        assert_eq!(sessions.with_nonce(99_999), Some(5_001));
    }

    #[test]
    fn results_are_worth_an_acknowledgement_when_they_take_more_than_the_limit() {
        let session = |bytes| {
            let mut sessions = Sessions::default();
            sessions.apply(1, &open(10));
            // A result takes 16 bytes more than its action.
            let action = Blob::from(vec![0; bytes - 16]);
            let (session, verdicts) = (1, Vec::new());
            let action = Command::Action { version: 1, session, seq: 1, ack: 1, verdicts, action };
            assert!(sessions.apply(2, &action));
            sessions
        };
        let is_worth =
            |sessions: &Sessions, ack| sessions.get(1).expect("open").is_worth_acknowledging(ack);
        assert!(!is_worth(&session(Session::MAX_BYTES), 2), "exactly the limit");
        let mut large = session(Session::MAX_BYTES + 1);
        assert!(is_worth(&large, 2));
        assert!(!is_worth(&large, 1), "the client does not know the result");
        // A table from a snapshot knows as well how large its results are.
        let bytes = postcard::to_allocvec(&large).expect("bytes");
        let loaded: Sessions = postcard::from_bytes(&bytes).expect("a table");
        assert_eq!(loaded.limited(Sessions::MAX), large);
        for ack in [0, 1, 3, u64::MAX] {
            assert!(!large.apply(3, &Command::Acknowledge { session: 1, ack }), "{ack}");
        }
        assert!(!large.apply(3, &Command::Acknowledge { session: 2, ack: 2 }), "no such session");
        assert!(large.apply(3, &Command::Acknowledge { session: 1, ack: 2 }));
        assert!(!large.apply(4, &Command::Acknowledge { session: 1, ack: 2 }), "it is known");
        let session = large.get(1).expect("open");
        assert_eq!((session.bytes, session.results.len(), session.active), (0, 0, 3));
    }

    #[test]
    fn a_session_is_found_only_by_its_number_and_its_nonce() {
        let mut sessions = Sessions::default();
        sessions.apply(1, &open(10));
        sessions.apply(2, &open(20));
        let find = |id, nonce| sessions.find(SessionRef { id, nonce }).map(|found| found.nonce);
        assert_eq!((find(1, 10), find(2, 20)), (Some(10), Some(20)));
        assert_eq!((find(1, 20), find(2, 10), find(3, 10)), (None, None, None));
    }

    #[test]
    fn the_session_that_makes_way_is_the_least_recently_active_one_when_there_is_no_room() {
        let mut sessions = Sessions::with_limit(2);
        assert_eq!(sessions.next_to_close(), None);
        sessions.apply(1, &open(10));
        assert_eq!(sessions.next_to_close(), None, "one place is free");
        sessions.apply(2, &open(20));
        assert_eq!(sessions.next_to_close(), Some(1));
        sessions.apply(3, &action(1, 2, 1));
        assert_eq!(sessions.next_to_close(), Some(2));
    }
}
