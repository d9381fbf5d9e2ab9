//! The follower: AppendEntries at the receiver (paper §5.3).

use super::Raft;
use super::entry::Entry;
use super::message::{AppendResult, Body, Wants};
use super::output::Invalid;
use super::types::{Index, MAX_INDEX, NodeId, Position};
use crate::mistakes::{Mistake, made};

impl Raft {
    /// Asks for a write if `round` is new. A reply to a round confirms that this node knows of no
    /// newer leader, so the reply waits for that write: another process may have taken the node
    /// over while this one was frozen, and may have voted in its name. The write fails then.
    pub(super) fn note_round(&mut self, round: u64) {
        if round > self.round_seen {
            self.round_seen = round;
            self.unsaved.round = true;
        }
    }

    /// Handles AppendEntries of the leader, which [`Self::accept_leader`] has accepted.
    pub(super) fn handle_append(
        &mut self,
        from: NodeId,
        prev: Position,
        commit: Index,
        round: u64,
        entries: Vec<Entry>,
        wants: Wants,
    ) -> Result<(), Invalid> {
        self.note_round(round);
        self.check_entries(prev, &entries)?;
        let result = self.append_entries(prev, commit, entries)?;
        let accepted = matches!(result, AppendResult::Accepted { .. });
        if accepted && wants == Wants::Quiesce {
            self.quiesce();
        }
        if !(accepted && wants == Wants::NoReply) {
            self.send_durable(from, Body::AppendReply { round, result });
        }
        Ok(())
    }

    /// Checks that the entries follow `prev` and each other, and that none is of a newer term than
    /// the leader's.
    pub(super) fn check_entries(&self, prev: Position, entries: &[Entry]) -> Result<(), Invalid> {
        let mut last = prev;
        for entry in entries {
            let follows = last.index.checked_add(1) == Some(entry.at.index);
            if !follows || entry.at.term < last.term || entry.at.term > self.hard.term {
                return Err(Invalid::Entries);
            }
            last = entry.at;
        }
        if last.index > MAX_INDEX {
            return Err(Invalid::Entries);
        }
        if prev.term > self.hard.term || (prev.index == 0) != (prev.term == 0) {
            return Err(Invalid::Entries);
        }
        Ok(())
    }

    /// Checks the log, appends the entries that are missing and advances the commit index (paper
    /// figure 2, AppendEntries). `commit` is the leader's commit index.
    pub(super) fn append_entries(
        &mut self,
        mut prev: Position,
        commit: Index,
        mut entries: Vec<Entry>,
    ) -> Result<AppendResult, Invalid> {
        let end = prev.index + entries.len() as Index;
        // Committed entries are equal on both sides, so only those behind them need the log check.
        if prev.index < self.commit {
            entries.retain(|entry| entry.at.index > self.commit);
            if entries.is_empty() {
                return Ok(AppendResult::Accepted { matched: end.min(self.commit) });
            }
            prev = Position::new(self.commit, self.log.term(self.commit).unwrap_or_default());
        }
        if entries.is_empty() && made(Mistake::HeartbeatUnchecked) {
            let matched = prev.index.min(self.log.last().index);
            self.set_commit(commit.min(matched).max(self.commit));
            return Ok(AppendResult::Accepted { matched });
        }
        if !self.log.contains(prev) {
            let hint = self.log.agreement(prev);
            return Ok(AppendResult::Rejected { prev: prev.index, hint });
        }
        // Entries that the log has already stay, and those behind them too: the message may be old,
        // and they may be acknowledged. Only a conflict truncates the log (paper figure 2,
        // AppendEntries, step 3).
        let first_new = match made(Mistake::DuplicateTruncates) {
            false => entries.iter().position(|entry| !self.log.contains(entry.at)),
            true => (!entries.is_empty()).then_some(0),
        };
        if let Some(first_new) = first_new {
            let from = entries[first_new].at.index;
            if from <= self.log.last().index {
                debug_assert!(from > self.commit, "what is committed was left out above");
                if from == 1 && made(Mistake::FirstIndexKept) {
                    self.log.truncate(2);
                    entries.drain(..1);
                } else {
                    self.log.truncate(from);
                }
                self.durable = self.durable.min(from - 1);
            }
            self.unsaved.entries(from);
            entries.drain(..first_new);
            for entry in entries {
                self.log.push(entry);
            }
        }
        // Commit no further than this message has verified: entries behind that may be another
        // leader's.
        let verified = match made(Mistake::CommitClampedToTail) {
            false => end,
            true => self.log.last().index,
        };
        if commit.min(verified) > self.commit {
            self.set_commit(commit.min(verified));
        }
        Ok(AppendResult::Accepted { matched: end })
    }
}
