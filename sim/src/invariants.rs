//! What must hold after every step of a run. The simulator knows what no single process knows:
//! which entries were ever in a log, which are committed, which node led each term, and which votes
//! and acknowledgements were sent. After each step it compares what the step changed with all of
//! this.

use std::collections::{BTreeMap, BTreeSet};

use conflux::raft::{
    AppendResult, Body, Entry, HardState, Index, Member, Members, Message, NodeId, Payload,
    Position, Raft, Term, Time,
};
use conflux::store::{Command, Store};

use crate::disk::Disk;
use crate::history::History;
use crate::machine::{Action, State, mix};

/// The result of a check. The error says what does not hold.
pub type Check = Result<(), String>;

/// An entry that was in some node's log.
#[derive(Debug)]
struct Seen {
    at: Position,
    /// The term of the entry before it.
    before: Term,
    /// The hash of its payload.
    payload: u64,
    /// The hash of the state after it, once a node has computed that state.
    state: Option<u64>,
}

/// An entry that is committed.
#[derive(Debug)]
struct CommittedEntry {
    /// The term in which a leader made it.
    term: Term,
    /// The term in which it was committed.
    committed_in: Term,
}

/// What one node showed when it was last checked.
#[derive(Clone, Debug, Default)]
pub struct Last {
    hard: HardState,
    commit: Index,
    applied: Index,
    end: Position,
    /// The election deadline and the timeout in ms that was drawn for it, and how many times in a
    /// row the same timeout was drawn again.
    election: (Time, Time, u32),
}

/// What is known of one cluster in a run, and the checks of what must hold in it.
#[derive(Debug, Default)]
pub struct Invariants {
    /// By index: the entries that were ever in a log.
    seen: Vec<Vec<Seen>>,
    /// By index, from 1 on: the committed entries.
    committed_entries: Vec<CommittedEntry>,
    /// By term: the leader.
    leaders: Vec<Option<NodeId>>,
    /// By term and voter: the candidate to which the voter has sent its vote.
    votes: Vec<Vec<Option<NodeId>>>,
    /// By term and member: the newest index that the member has acknowledged to the leader.
    acknowledged: Vec<Vec<Index>>,
    /// By member: its durable term and vote.
    durable: Vec<HardState>,
    /// The newest committed configuration.
    members: Members,
    /// Every node that was ever in a committed configuration.
    ever: BTreeSet<NodeId>,
    /// The places of voters and members in the lists above: node ids can be too large for that.
    places: BTreeMap<NodeId, u64>,
}

/// The element at `at`. The list grows until it has one.
fn slot<T: Default>(list: &mut Vec<T>, at: u64) -> &mut T {
    let at = usize::try_from(at).expect("runs are short");
    while list.len() <= at {
        list.push(T::default());
    }
    &mut list[at]
}

impl Invariants {
    /// For a cluster that begins with these members.
    pub fn new(members: Members) -> Self {
        let ever = members.iter().map(|(id, _)| id).collect();
        Self { members, ever, ..Self::default() }
    }

    /// The newest committed configuration.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// Whether this node was a member and has been removed.
    pub fn is_out(&self, id: NodeId) -> bool {
        self.ever.contains(&id) && !self.members.contains(id)
    }

    /// How many entries are committed.
    pub fn committed(&self) -> Index {
        self.committed_entries.len() as Index
    }

    /// How many terms had a leader.
    pub fn elections(&self) -> usize {
        self.leaders.iter().flatten().count()
    }

    fn place(&mut self, id: NodeId) -> u64 {
        let next = self.places.len() as u64;
        *self.places.entry(id).or_insert(next)
    }

    /// Entries are appended to a node's log, after an entry of the term `before`. Log matching
    /// (paper §5.3): two entries with the same index and term are the same, and so is everything
    /// before them.
    pub fn append(&mut self, mut before: Term, entries: &[Entry]) -> Check {
        for entry in entries {
            let payload = match &entry.payload {
                Payload::Noop => 0,
                Payload::Members(members) => {
                    let member = |(id, member): (_, &Member)| mix(id, u64::from(member.voter));
                    members.iter().map(member).fold(2, mix)
                }
                Payload::Command(data) => {
                    let (words, rest) = data.as_slice().as_chunks::<8>();
                    let hash = words.iter().fold(1, |h, w| mix(h, u64::from_le_bytes(*w)));
                    rest.iter().fold(hash, |h, byte| mix(h, u64::from(*byte)))
                }
            };
            let all = slot(&mut self.seen, entry.at.index);
            match all.iter().find(|seen| seen.at == entry.at) {
                None => all.push(Seen { at: entry.at, before, payload, state: None }),
                Some(seen) if seen.payload == payload && seen.before == before => {}
                Some(seen) => {
                    return Err(format!(
                        "log matching: {} differs between two logs: after terms {} and {before}",
                        entry.at, seen.before
                    ));
                }
            }
            before = entry.at.term;
        }
        Ok(())
    }

    /// A node sends a message. The vote, term or acknowledgement in it must be durable.
    pub fn send(&mut self, from: NodeId, to: NodeId, message: &Message, disk: &Disk) -> Check {
        let place = self.place(from);
        match &message.body {
            Body::VoteReply { granted: true } => {
                let votes = slot(&mut self.votes, message.term);
                let before = slot(votes, place).replace(to);
                if before.is_some_and(|before| before != to) {
                    return Err(format!(
                        "n{from} votes for n{to} in term {}, but has voted for n{}",
                        message.term,
                        before.unwrap_or_default()
                    ));
                }
                let hard = disk.hard();
                if hard.term < message.term || hard.term == message.term && hard.vote != Some(to) {
                    return Err(format!("n{from} sends n{to} a vote that is not durable"));
                }
            }
            Body::AppendReply { result: AppendResult::Accepted { matched }, .. } => {
                if *matched > disk.base().index && disk.term(*matched).is_none() {
                    return Err(format!("n{from} acknowledges {matched}, which is not durable"));
                }
                let acknowledged = slot(slot(&mut self.acknowledged, message.term), place);
                *acknowledged = (*acknowledged).max(*matched);
            }
            _ => {}
        }
        if message.term > disk.hard().term
            && !matches!(message.body, Body::PreVote { .. } | Body::PreVoteReply { granted: true })
        {
            return Err(format!("n{from} sends term {}, which is not durable", message.term));
        }
        Ok(())
    }

    /// A write of a member is durable. Its durable term and vote must not go back.
    pub fn persisted(&mut self, member: NodeId, hard: HardState) -> Check {
        let place = self.place(member);
        let before = std::mem::replace(slot(&mut self.durable, place), hard);
        check_hard(member, before, hard)
    }

    /// Checks what a call changed in a node's Raft, before the effects of the call are performed.
    pub fn look_at_raft(
        &mut self,
        last: &mut Last,
        raft: &Raft,
        now: Time,
        history: &mut History,
    ) -> Check {
        look_at_timeout(last, raft, now)?;
        check_hard(raft.id(), last.hard, raft.hard_state())?;
        last.hard = raft.hard_state();
        look_at_members(raft)?;
        if raft.is_leader() {
            self.look_at_leader(raft)?;
        }
        // While its term lasts, a leader relies on what was acknowledged to it.
        let end = raft.log().last().index;
        let place = self.place(raft.id());
        let acknowledged = *slot(slot(&mut self.acknowledged, raft.term()), place);
        if acknowledged > end {
            return Err(format!(
                "n{} has acknowledged {acknowledged} in this term, but its log ends at {end}",
                raft.id()
            ));
        }
        self.look_at_commit(last, raft, history)
    }

    /// Election safety and leader completeness (paper §5.2, §5.4).
    fn look_at_leader(&mut self, raft: &Raft) -> Check {
        let (id, term) = (raft.id(), raft.term());
        let known = slot(&mut self.leaders, term);
        match *known {
            Some(leader) if leader == id => return Ok(()),
            Some(leader) => return Err(format!("n{leader} and n{id} lead term {term}")),
            None => *known = Some(id),
        }
        // A leader may lack entries that were committed in later terms: it has been replaced by
        // then.
        let earlier = self.committed_entries.partition_point(|entry| entry.committed_in < term);
        let Some(newest) = self.committed_entries[..earlier].last() else { return Ok(()) };
        let index = earlier as Index;
        let log = raft.log();
        if index > log.base().index && log.term(index) != Some(newest.term) {
            return Err(format!(
                "leader completeness: n{id} leads term {term} without {}",
                Position::new(index, newest.term)
            ));
        }
        Ok(())
    }

    /// Checks what a node commits: no other entry is committed at the same index, and a leader
    /// commits by counting only entries of its own term.
    pub fn look_at_commit(&mut self, last: &mut Last, raft: &Raft, history: &mut History) -> Check {
        let (id, commit, log) = (raft.id(), raft.commit_index(), raft.log());
        if commit < last.commit {
            return Err(format!("n{id}'s commit index goes back from {} to {commit}", last.commit));
        }
        // A leader commits by counting only entries of its own term (paper §5.4.2).
        if raft.is_leader() && commit > last.commit && log.term(commit) != Some(raft.term()) {
            return Err(format!(
                "n{id} leads term {} and commits {commit} of an older term",
                raft.term()
            ));
        }
        for index in last.commit + 1..=commit {
            let Some(term) = log.term(index) else { continue }; // In a snapshot.
            match self.committed_entries.get(index as usize - 1) {
                Some(committed) if committed.term == term => {}
                Some(committed) => {
                    return Err(format!(
                        "n{id} commits {}, but {} is committed",
                        Position::new(index, term),
                        Position::new(index, committed.term)
                    ));
                }
                None if index != self.committed() + 1 => {
                    return Err(format!(
                        "n{id} commits {index}, but no node has committed the entry before it"
                    ));
                }
                None => {
                    let committed_in = raft.term();
                    self.committed_entries.push(CommittedEntry { term, committed_in });
                    if let Some(Payload::Members(members)) = log.get(index).map(|e| &e.payload) {
                        self.members = members.clone();
                        self.ever.extend(members.iter().map(|(id, _)| id));
                    }
                    if let Some(action) =
                        log.command(index).and_then(|data| action(data.as_slice()))
                    {
                        history.committed(&action, index)?;
                    }
                }
            }
        }
        last.commit = commit;
        let backlog = raft.backlog();
        let config = raft.config();
        if backlog.inflight > config.max_inflight {
            return Err(format!("n{id} has {} messages in flight to one peer", backlog.inflight));
        }
        Ok(())
    }

    /// State machine safety: after the same entry, all nodes have the same state, whether the entry
    /// is committed or not. So a provisional state is the committed one plus the log's tail.
    pub fn look_at_state(&mut self, last: &mut Last, raft: &Raft, store: &Store<State>) -> Check {
        let (id, log) = (raft.id(), raft.log());
        let (applied, end) = (store.applied(), log.last());
        if applied < last.applied {
            return Err(format!(
                "n{id}'s applied index goes back from {} to {applied}",
                last.applied
            ));
        }
        if applied > raft.commit_index() {
            return Err(format!("n{id} has applied {applied}, which is not committed"));
        }
        if applied > last.applied {
            last.applied = applied;
            if let Some(term) = log
                .term(applied)
                .filter(|_| store.release() == Some(store.version()) && store.is_fit())
            {
                self.state(id, Position::new(applied, term), store.committed(), "committed")?;
            }
        }
        if end != last.end {
            last.end = end;
            if store.provisional_release() != Some(store.version()) || !store.is_fit() {
                // It shows another state than the cluster's, or knows that its state is wrong.
                return Ok(());
            }
            self.state(id, end, store.provisional(), "provisional")?;
        }
        Ok(())
    }

    fn state(&mut self, id: NodeId, at: Position, state: &State, what: &str) -> Check {
        if let Some((op, before)) = state.wrong() {
            return Err(format!("op {op} runs after op {before} of the same client, at {at}"));
        }
        let all = slot(&mut self.seen, at.index);
        let Some(seen) = all.iter_mut().find(|seen| seen.at == at) else {
            return if at == Position::default() {
                Ok(())
            } else {
                Err(format!("n{id} has {at}, which no node has written"))
            };
        };
        match seen.state {
            None => seen.state = Some(state.hash()),
            Some(hash) if hash == state.hash() => {}
            Some(_) => {
                return Err(format!("n{id}'s {what} state after {at} is not that of other nodes"));
            }
        }
        Ok(())
    }
}

/// The configuration that counts is the newest one in the log. A leader makes a new one only when
/// an entry of its term is committed (dissertation §4.1).
fn look_at_members(raft: &Raft) -> Check {
    let (id, log, (at, members)) = (raft.id(), raft.log(), raft.log().members());
    if at <= log.base().index {
        return Ok(());
    }
    let entry = log.get(at).map(|entry| (entry.at.term, &entry.payload));
    match entry {
        Some((_, Payload::Members(here))) if here == members => {}
        _ => return Err(format!("n{id} uses {members}, which is not in its log at {at}")),
    }
    let own = raft.is_leader() && entry.map(|(term, _)| term) == Some(raft.term());
    if own && log.term(raft.commit_index()) != Some(raft.term()) {
        return Err(format!("n{id} changes the members before an entry of its term is committed"));
    }
    Ok(())
}

/// Split votes do not repeat for ever only because each node draws a new timeout for each attempt
/// (paper §5.2).
fn look_at_timeout(last: &mut Last, raft: &Raft, now: Time) -> Check {
    let deadline = raft.deadline();
    if raft.is_leader() || deadline == last.election.0 {
        return Ok(());
    }
    let drawn = deadline.saturating_sub(now);
    let again = if drawn == last.election.1 { last.election.2 + 1 } else { 0 };
    last.election = (deadline, drawn, again);
    // By chance, a timeout is drawn so often in a row once in a thousand million times.
    if again >= 9 {
        return Err(format!(
            "n{} draws an election timeout of {drawn} ms again and again",
            raft.id()
        ));
    }
    Ok(())
}

fn check_hard(id: NodeId, before: HardState, now: HardState) -> Check {
    if now.term < before.term {
        return Err(format!("n{id} goes back from term {} to {}", before.term, now.term));
    }
    if now.term == before.term && before.vote.is_some() && now.vote != before.vote {
        return Err(format!("n{id} changes its vote in term {}", now.term));
    }
    Ok(())
}

fn action(command: &[u8]) -> Option<Action> {
    match postcard::from_bytes(command) {
        Ok(Command::Action { action, .. }) => postcard::from_bytes(action.as_slice()).ok(),
        _ => None,
    }
}
