//! Messages, entries and positions as text, for traces and golden scripts.

use std::fmt::{Display, Formatter, Result};

use super::entry::{Entry, Payload};
use super::membership::Members;
use super::message::{AppendResult, Body, Chunked, Message, Wants};
use super::role::RoleName;
use super::types::Position;

impl Display for RoleName {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Self::Follower => "follower",
            Self::PreCandidate => "pre-candidate",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
        })
    }
}

/// Index, then term: `7@2`.
impl Display for Position {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

/// The position and the payload: `7@2:foo` for a short text, `8@2:[100 bytes]` for any other
/// command, `9@3:-` for a no-op.
impl Display for Entry {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}:", self.at)?;
        let data = match &self.payload {
            Payload::Noop => return f.write_str("-"),
            Payload::Members(members) => return write!(f, "{members}"),
            Payload::Command(data) => data,
        };
        match std::str::from_utf8(data.as_slice()) {
            Ok(text) if text.len() <= 24 && !text.contains(char::is_control) => f.write_str(text),
            _ => write!(f, "[{} bytes]", data.len()),
        }
    }
}

/// The ids of the voters, then those of the learners: `{1 2 3, learners 4}`.
impl Display for Members {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let list = |voter: bool| {
            let members = self.iter().filter(move |(_, member)| member.voter == voter);
            members.map(|(id, _)| id.to_string()).collect::<Vec<_>>().join(" ")
        };
        let (voters, learners) = (list(true), list(false));
        let comma = if learners.is_empty() { "" } else { ", learners " };
        write!(f, "{{{voters}{comma}{learners}}}")
    }
}

/// One line, with the term first: `T2 Append prev=1@1 commit=1 [2@2:foo]`.
impl Display for Message {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let yes = |granted: bool| if granted { "granted" } else { "refused" };
        let round = |round: u64| if round > 0 { format!(" round={round}") } else { String::new() };
        write!(f, "T{} ", self.term)?;
        match &self.body {
            Body::PreVote { last } => write!(f, "PreVote last={last}"),
            Body::PreVoteReply { granted } => write!(f, "PreVoteReply {}", yes(*granted)),
            Body::Vote { last, transfer } => {
                let why = if *transfer { " for a transfer" } else { "" };
                write!(f, "Vote last={last}{why}")
            }
            Body::VoteReply { granted } => write!(f, "VoteReply {}", yes(*granted)),
            Body::Append { prev, commit, round: newest, entries, wants } => {
                write!(f, "Append prev={prev} commit={commit}{} [", round(*newest))?;
                for (nth, entry) in entries.iter().enumerate() {
                    write!(f, "{}{entry}", if nth > 0 { " " } else { "" })?;
                }
                f.write_str(match wants {
                    Wants::Reply => "]",
                    Wants::NoReply => "] quiet",
                    Wants::Quiesce => "] quiesce",
                })
            }
            Body::AppendReply { round: newest, result } => match result {
                AppendResult::Accepted { matched } => {
                    write!(f, "Accepted matched={matched}{}", round(*newest))
                }
                AppendResult::Rejected { prev, hint } => {
                    write!(f, "Rejected prev={prev} hint={hint}{}", round(*newest))
                }
            },
            Body::Chunk { of, total, offset, data, .. } => {
                write!(f, "Chunk of {of} {offset}+{}/{total}", data.len())
            }
            Body::ChunkReply { of, offset, .. } => write!(f, "ChunkReply {of} has {offset}"),
            Body::TimeoutNow => f.write_str("TimeoutNow"),
        }
    }
}

impl Display for Chunked {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Snapshot { last } => write!(f, "snapshot {last}"),
            Self::Entry { prev, at } => write!(f, "entry {at} prev={prev}"),
        }
    }
}
