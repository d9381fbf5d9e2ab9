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
}

/// The outcome of a perform, which the table keeps until the client has acknowledged it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Recorded {
    /// The perform led to this action.
    Action(Blob),
    /// The perform ended without an action.
    Verdict(Verdict),
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
    /// The index of the session's newest entry. When there are too many sessions, the one with the
    /// lowest index is closed.
    active: Index,
}

impl Session {
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
    pub(super) fn limited(self, limit: usize) -> Self {
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
                if self.open.len() >= self.limit {
                    let quiet = self.open.iter().min_by_key(|(id, s)| (s.active, **id));
                    let quiet = quiet.map(|(id, _)| *id).expect("there are many");
                    self.open.remove(&quiet);
                }
                let results = SortedMap::new();
                self.open.insert(
                    index,
                    Session { nonce: *nonce, by: by.clone(), next: 1, results, active: index },
                );
                true
            }
            Command::Close { session } => self.open.remove(session).is_some(),
            Command::Action { session, seq, ack, verdicts, action, .. } => {
                if made(Mistake::ExpiredSessionRuns) && !self.open.contains_key(session) {
                    let (nonce, results) = (*session, SortedMap::new());
                    self.open.insert(
                        *session,
                        Session {
                            nonce,
                            by: Performer::default(),
                            next: 1,
                            results,
                            active: index,
                        },
                    );
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
                session
                    .results
                    .extend(verdicts.iter().map(|(seq, v)| (*seq, Recorded::Verdict(v.clone()))));
                session.results.insert(*seq, Recorded::Action(action.clone()));
                session.results.remove_before(ack);
                true
            }
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
}
