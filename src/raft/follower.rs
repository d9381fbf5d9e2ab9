//! Receiving entries and snapshots (paper §5.3, §7).

use super::output::{Committed, Invalid};
use super::role::{Incoming, Role};
use super::types::{
    AppendResult, Blob, Body, Entry, Index, NodeId, Payload, Position, Snapshot, Wants, Whole,
};
use super::{MAX_INDEX, Raft};
use crate::mistakes::{Mistake, made};

/// The fields of [`Body::Append`].
pub(super) struct Append {
    pub(super) prev: Position,
    pub(super) commit: Index,
    pub(super) round: u64,
    pub(super) entries: Vec<Entry>,
    pub(super) wants: Wants,
}

/// The fields of [`Body::Piece`].
pub(super) struct Piece {
    pub(super) of: Whole,
    pub(super) total: u64,
    pub(super) offset: u64,
    pub(super) round: u64,
    pub(super) data: Blob,
}

impl Raft {
    /// To answer a round is to confirm that nobody else leads, as far as this node knows. It does so
    /// only when a write has shown since that storage is still its own: perhaps somebody else has
    /// taken it over while this process stood still, and votes in its name.
    fn see_round(&mut self, round: u64) {
        if round > self.round_seen {
            self.round_seen = round;
            self.dirty_round = true;
        }
    }

    pub(super) fn handle_append(&mut self, from: NodeId, append: Append) -> Result<(), Invalid> {
        let Append { prev, commit, round, entries, wants } = append;
        self.see_round(round);
        self.check_entries(prev, &entries)?;
        let result = self.append_entries(prev, commit, entries)?;
        let accepted = matches!(result, AppendResult::Accepted { .. });
        if accepted && wants == Wants::Rest {
            self.rest();
        }
        if !(accepted && wants == Wants::Nothing) {
            self.send_durable(from, Body::AppendReply { round, result });
        }
        Ok(())
    }

    /// A leader's entries follow each other and `prev`, and none is newer than the leader.
    fn check_entries(&self, prev: Position, entries: &[Entry]) -> Result<(), Invalid> {
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
    fn append_entries(
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
            self.mark_dirty(from);
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

    pub(super) fn handle_piece(&mut self, from: NodeId, piece: Piece) -> Result<(), Invalid> {
        let Piece { of, total, offset, round, .. } = piece;
        self.see_round(round);
        let length = piece.data.len() as u64;
        let end = offset.checked_add(length).ok_or(Invalid::Piece)?;
        if end > total || total > self.config.max_transfer_bytes || (length == 0 && total > 0) {
            return Err(Invalid::Piece);
        }
        if let Some(result) = self.answer_without_piece(of)? {
            self.send_durable(from, Body::AppendReply { round, result });
            return Ok(());
        }
        let Role::Follower(follower) = &mut self.role else { unreachable!("`follow` was called") };
        let mut incoming = match follower.incoming.take() {
            Some(incoming) if incoming.of == of && incoming.total == total => incoming,
            _ => Incoming { of, total, data: Vec::new() },
        };
        if offset == incoming.data.len() as u64 {
            incoming.data.extend_from_slice(piece.data.as_slice());
        }
        let have = incoming.data.len() as u64;
        if have < total {
            follower.incoming = Some(incoming);
            self.send_durable(from, Body::PieceReply { of, offset: have, round });
            return Ok(());
        }
        let data = Blob::from(incoming.data);
        let result = match of {
            Whole::Snapshot { last } => {
                let snapshot = Snapshot::unpack(last, data.as_slice()).ok_or(Invalid::Snapshot)?;
                self.install(snapshot)
            }
            Whole::Entry { prev, at } => {
                let entry = Entry { at, payload: Payload::Command(data) };
                self.append_entries(prev, self.commit, vec![entry])?
            }
        };
        self.send_durable(from, Body::AppendReply { round, result });
        Ok(())
    }

    /// The answer to a piece of something that is here already, or that does not fit this log.
    fn answer_without_piece(&mut self, of: Whole) -> Result<Option<AppendResult>, Invalid> {
        match of {
            Whole::Snapshot { last } => {
                let possible = (1..=MAX_INDEX).contains(&last.index)
                    && (1..=self.hard.term).contains(&last.term);
                if !possible {
                    return Err(Invalid::Entries);
                }
                let over = last.index > self.commit && made(Mistake::SnapshotOverNewerLog);
                if last.index > self.commit && self.log.contains(last) && !over {
                    // The entries themselves are here: they say the same and more.
                    self.set_commit(last.index);
                }
                let have = last.index <= self.commit && !over;
                Ok(have.then_some(AppendResult::Accepted { matched: last.index }))
            }
            Whole::Entry { prev, at } => {
                let entry = Entry { at, payload: Payload::Noop };
                self.check_entries(prev, std::slice::from_ref(&entry))?;
                if at.index <= self.commit || self.log.contains(at) {
                    Ok(Some(AppendResult::Accepted { matched: at.index }))
                } else if !self.log.contains(prev) {
                    let hint = self.log.agreement(prev);
                    Ok(Some(AppendResult::Rejected { prev: prev.index, hint }))
                } else {
                    Ok(None)
                }
            }
        }
    }

    /// Replaces log and state by a snapshot that is newer than both.
    fn install(&mut self, snapshot: Snapshot) -> AppendResult {
        let last = snapshot.last;
        debug_assert!(last.index > self.commit, "`answer_without_piece` sorted the others out");
        self.log.reset(snapshot.clone());
        self.durable = 0;
        self.dirty_from = None;
        self.dirty_snapshot = true;
        self.dirty_reset = true;
        self.set_commit(last.index);
        self.reported = last.index;
        self.out.committed.push(Committed::Snapshot(snapshot));
        AppendResult::Accepted { matched: last.index }
    }
}
