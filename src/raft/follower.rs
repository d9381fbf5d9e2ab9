//! Following: the log check of AppendEntries and what it appends (paper §5.3).

use super::Raft;
use super::entry::Entry;
use super::message::{AppendResult, Body, Wants};
use super::output::Invalid;
use super::types::{Index, MAX_INDEX, NodeId, Position};
use crate::mistakes::{Mistake, made};

impl Raft {
    /// To answer a round is to confirm that nobody else leads, as far as this node knows. It does so
    /// only when a write has shown since that storage is still its own: perhaps somebody else has
    /// taken it over while this process stood still, and votes in its name.
    pub(super) fn note_round(&mut self, round: u64) {
        if round > self.round_seen {
            self.round_seen = round;
            self.unsaved.round = true;
        }
    }

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

    /// A leader's entries follow each other and `prev`, and none is newer than the leader.
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

    /// The log check and what follows from it. `commit` is the leader's.
    pub(super) fn append_entries(
        &mut self,
        mut prev: Position,
        commit: Index,
        mut entries: Vec<Entry>,
    ) -> Result<AppendResult, Invalid> {
        let end = prev.index + entries.len() as Index;
        // Committed entries equal the leader's, whatever else the message says.
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
        // Entries that are here already stay: the message may be old, and what follows them
        // acknowledged. Only a real conflict cuts the log (paper figure 2, step 3).
        let fresh = match made(Mistake::DuplicateTruncates) {
            false => entries.iter().position(|entry| !self.log.contains(entry.at)),
            true => (!entries.is_empty()).then_some(0),
        };
        if let Some(fresh) = fresh {
            let from = entries[fresh].at.index;
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
            entries.drain(..fresh);
            for entry in entries {
                self.log.push(entry);
            }
        }
        // Never past what this message has verified: a tail behind it may be another leader's.
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
