//! Compaction, InstallSnapshot (paper §7), and the chunks in which a snapshot or a large entry
//! travels.

use super::Raft;
use super::entry::{Entry, Payload, Snapshot};
use super::message::{AppendResult, Body, Chunked};
use super::output::{Committed, Invalid};
use super::progress::{OutgoingChunks, ProgressState};
use super::role::{IncomingChunks, Role};
use super::types::{Blob, MAX_INDEX, NodeId, Position};
use crate::mistakes::{Mistake, made};

impl Raft {
    /// Replaces the entries up to `last` by a snapshot with the state machine's bytes `data`.
    pub(super) fn compact(&mut self, last: Position, data: Blob) {
        // The log may be compacted further already, by a snapshot from the leader.
        if last.index <= self.log.base().index || last.index > self.commit {
            return;
        }
        debug_assert!(self.log.contains(last), "a snapshot of this node's own state");
        self.log.compact(last, data);
        self.unsaved.snapshot = true;
    }

    /// Starts to send the newest snapshot to a peer in chunks: InstallSnapshot (paper §7).
    pub(super) fn send_snapshot(&mut self, id: NodeId) {
        let snapshot = self.log.snapshot().expect("what is compacted is in a snapshot");
        let (of, data) = (Chunked::Snapshot { last: snapshot.last }, snapshot.pack());
        let Some((peer, _)) = self.peer(id) else { return };
        peer.state = ProgressState::Chunks(OutgoingChunks { of, data, offset: 0, sent: None });
        self.send_chunk(id);
    }

    /// Sends the next chunk of the item on its way to a peer.
    pub(super) fn send_chunk(&mut self, id: NodeId) {
        let (now, max) = (self.now, self.config.max_message_bytes);
        let Some((peer, round)) = self.peer(id) else { return };
        peer.sent = Some(now);
        peer.wake(now);
        peer.round_sent = round;
        let ProgressState::Chunks(chunks) = &mut peer.state else { return };
        chunks.sent = Some(now);
        let bytes = chunks.data.as_slice();
        let end = (chunks.offset + max).min(bytes.len());
        let body = Body::Chunk {
            of: chunks.of,
            total: bytes.len() as u64,
            offset: chunks.offset as u64,
            round,
            data: Blob::from(&bytes[chunks.offset..end]),
        };
        self.send(id, body);
    }

    pub(super) fn handle_chunk_reply(
        &mut self,
        from: NodeId,
        of: Chunked,
        offset: u64,
        round: u64,
    ) -> Result<(), Invalid> {
        let Some(peer) = self.record_reply(from, round)? else { return Ok(()) };
        peer.chunk_replied(of, offset)?;
        self.release_reads();
        Ok(())
    }

    /// Takes a chunk from the leader. The item is installed or appended once all of it has arrived.
    pub(super) fn handle_chunk(
        &mut self,
        from: NodeId,
        of: Chunked,
        total: u64,
        offset: u64,
        round: u64,
        data: &Blob,
    ) -> Result<(), Invalid> {
        self.note_round(round);
        let length = data.len() as u64;
        let end = offset.checked_add(length).ok_or(Invalid::Chunk)?;
        if end > total || total > self.config.max_transfer_bytes || (length == 0 && total > 0) {
            return Err(Invalid::Chunk);
        }
        if let Some(result) = self.reply_if_not_needed(of)? {
            self.send_durable(from, Body::AppendReply { round, result });
            return Ok(());
        }
        let Role::Follower(follower) = &mut self.role else {
            unreachable!("`accept_leader` was called")
        };
        let mut incoming = match follower.incoming.take() {
            Some(incoming) if incoming.of == of && incoming.total == total => incoming,
            _ => IncomingChunks { of, total, data: Vec::new() },
        };
        if offset == incoming.data.len() as u64 {
            incoming.data.extend_from_slice(data.as_slice());
        }
        let have = incoming.data.len() as u64;
        if have < total {
            follower.incoming = Some(incoming);
            self.send_durable(from, Body::ChunkReply { of, offset: have, round });
            return Ok(());
        }
        let data = Blob::from(incoming.data);
        let result = match of {
            Chunked::Snapshot { last } => {
                let snapshot = Snapshot::unpack(last, data.as_slice()).ok_or(Invalid::Snapshot)?;
                self.install(snapshot)
            }
            Chunked::Entry { prev, at } => {
                let entry = Entry { at, payload: Payload::Command(data) };
                self.append_entries(prev, self.commit, vec![entry])?
            }
        };
        self.send_durable(from, Body::AppendReply { round, result });
        Ok(())
    }

    /// The reply to a chunk of an item that is not needed: this log has it already, or the log
    /// check rejects the entry. `None` when the chunk is needed.
    fn reply_if_not_needed(&mut self, of: Chunked) -> Result<Option<AppendResult>, Invalid> {
        match of {
            Chunked::Snapshot { last } => {
                let possible = (1..=MAX_INDEX).contains(&last.index)
                    && (1..=self.hard.term).contains(&last.term);
                if !possible {
                    return Err(Invalid::Entries);
                }
                let overwrite = last.index > self.commit && made(Mistake::SnapshotOverNewerLog);
                if last.index > self.commit && self.log.contains(last) && !overwrite {
                    // The log has all entries that the snapshot covers, and perhaps more.
                    self.set_commit(last.index);
                }
                let have = last.index <= self.commit && !overwrite;
                Ok(have.then_some(AppendResult::Accepted { matched: last.index }))
            }
            Chunked::Entry { prev, at } => {
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

    /// Replaces the log and the state by a snapshot, which is newer than the commit index.
    fn install(&mut self, snapshot: Snapshot) -> AppendResult {
        debug_assert!(
            snapshot.last.index > self.commit,
            "`reply_if_not_needed` sorted the others out"
        );
        self.replace_log(snapshot)
    }

    /// What [`Mistake::MendResetsLog`] does: like [`Self::install`], at or below the commit index,
    /// too.
    #[cfg(feature = "mistakes")]
    pub(super) fn reset(&mut self, last: Position, data: Blob) {
        let members = self.log.members_at(last.index).1.clone();
        self.commit = last.index;
        self.replace_log(Snapshot { last, members, data });
    }

    fn replace_log(&mut self, snapshot: Snapshot) -> AppendResult {
        let last = snapshot.last;
        self.log.reset(snapshot.clone());
        self.durable = 0;
        self.unsaved.entries_from = None;
        self.unsaved.snapshot = true;
        self.unsaved.reset = true;
        self.set_commit(last.index);
        self.reported = last.index;
        self.out.committed.push(Committed::Snapshot(snapshot));
        AppendResult::Accepted { matched: last.index }
    }
}
