//! Checks: how nodes whose states differ find out.
//!
//! Reducers should be deterministic, but user code may not be: it may read a clock, or one tab may
//! run other code than the rest. So from time to time the leader appends a
//! [`super::Command::Check`]. When a node applies the entry, it computes a hash of its own state and
//! sessions and sends it to the leader. The leader counts the hashes of the voters and appends the
//! one that a majority has ([`super::Command::Checked`]). A node that has another hash has
//! *diverged*: it hands leadership over and asks the leader for a good state ([`super::mend`]).
//! Term, vote, log and commit index are not touched: they are right, and other nodes count on them.
//!
//! Each node keeps its state of a check until the right hash is known. Snapshots are made of these
//! states only, so that no wrong state gets into a snapshot.
//!
//! A leader proposes no action that its own reducer refuses. So a reducer that fails on a committed
//! action is a sign of a divergence: such a node does not judge, and asks for a check at once. The
//! check may find that most nodes have the same state, for example because the reducer fails on all
//! of them since it was edited. Then the node goes on.

use super::message::Hash;
use crate::raft::{Blob, Index, NodeId, Position, Raft, Time};
use crate::sorted::SortedMap;

/// A leader checks the states after at most so many entries. A node that diverges again within so
/// many entries stops.
pub(super) const MAX_UNCHECKED: Index = 1024;

/// Whether the state of a node can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// As far as this node knows.
    Sound,
    /// The reducer failed on a committed action, or an entry is damaged; the newest such entry is
    /// at this index. The first check behind it decides.
    Suspect(Index),
    /// The state is wrong, and a good one is on its way.
    Diverged,
    /// The state is wrong or unknown, and will not be mended.
    Stopped,
}

/// The node's own state at a check.
#[derive(Debug)]
pub(super) struct OwnState {
    pub(super) at: Position,
    /// The hash. `None` when this node has no state of this version, or cannot save it.
    pub(super) hash: Option<u64>,
    /// The state as a snapshot.
    pub(super) data: Blob,
    /// The value of [`Checks::log_bytes`] at the check.
    pub(super) log_bytes: usize,
}

/// What a node knows of checks.
#[derive(Debug)]
pub(super) struct Checks {
    pub(super) health: Health,
    pub(super) own: Option<OwnState>,
    /// When to send the own hash, or to ask for a check, again.
    pub(super) send_at: Time,
    /// On a leader: the hashes that members sent for the check with this index.
    hashes: (Index, SortedMap<NodeId, Option<Hash>>),
    /// On a leader: a member asks for a check.
    pub(super) wanted: bool,
    /// The bytes of the entries that were applied since the last snapshot.
    pub(super) log_bytes: usize,
    /// The bytes of the entries that were applied since the last check.
    pub(super) unchecked_bytes: usize,
    /// The size of the last snapshot in bytes.
    pub(super) snapshot_bytes: usize,
    /// A state that was found right and that is to become the snapshot.
    pub(super) confirmed: Option<(Position, Blob)>,
    /// The index at which the state was mended last.
    pub(super) mended: Option<Index>,
}

impl Checks {
    pub(super) fn new() -> Self {
        Self {
            health: Health::Sound,
            own: None,
            send_at: 0,
            hashes: (0, SortedMap::new()),
            wanted: false,
            log_bytes: 0,
            unchecked_bytes: 0,
            snapshot_bytes: 0,
            confirmed: None,
            mended: None,
        }
    }

    /// An entry of so many bytes was applied.
    pub(super) fn applied(&mut self, bytes: usize) {
        self.log_bytes += bytes;
        self.unchecked_bytes += bytes;
    }

    /// The states of earlier checks do not count any more.
    pub(super) fn forget_states(&mut self) {
        (self.own, self.confirmed) = (None, None);
    }

    /// The term or the leader changed. The new leader needs the hashes again.
    pub(super) fn new_leader(&mut self) {
        (self.hashes, self.wanted, self.send_at) = ((0, SortedMap::new()), false, 0);
    }

    /// A member sent the hash of its state at a check.
    pub(super) fn handle_hash(&mut self, from: NodeId, check: Index, hash: Option<Hash>) {
        if self.hashes.0 < check {
            self.hashes = (check, SortedMap::new());
        }
        // A member that is behind may still send its hash of an earlier check.
        if self.hashes.0 == check {
            self.hashes.1.insert(from, hash);
        }
    }

    /// A member asks for a check. If it has not said anything of the `open` one, it has no state of
    /// that: its state was replaced since.
    pub(super) fn handle_ask(&mut self, from: NodeId, open: Option<Index>) {
        self.wanted = true;
        if let Some(check) = open
            && (self.hashes.0 < check || !self.hashes.1.contains_key(&from))
        {
            self.handle_hash(from, check, None);
        }
    }

    /// The right hash, once it is known: the one that a majority of the voters has. If there is
    /// none, the one that most have, once every voter has answered; or a majority, if the check is
    /// `overdue` and a voter has this hash that does not suspect it. Of several that equally many
    /// have, the one that fewer voters suspect; and of those the leader's own.
    pub(super) fn right_hash(&self, check: Index, raft: &Raft, overdue: bool) -> Option<u64> {
        let voters = raft.members().iter().filter(|(_, member)| member.voter);
        let voters: Vec<_> = voters.map(|(id, _)| id).collect();
        let quorum = raft.members().quorum();
        let hashes =
            Some(&self.hashes).filter(|hashes| hashes.0 == check).map(|hashes| &hashes.1)?;
        // By hash: how many voters have it, and how many of them do not suspect it.
        let mut counts: SortedMap<u64, (usize, usize)> = SortedMap::new();
        let answers = voters.iter().filter_map(|voter| hashes.get(voter));
        let answered = answers.clone().count();
        for Hash { hash, suspect } in answers.flatten() {
            let (count, sound) = counts.get_or_insert_with(*hash, || (0, 0));
            (*count, *sound) = (*count + 1, *sound + usize::from(!suspect));
        }
        let own = hashes.get(&raft.id()).copied().flatten().map(|own| own.hash);
        let (hash, (count, sound)) =
            counts.iter().max_by_key(|(hash, counts)| (**counts, Some(**hash) == own))?;
        let is_decided = *count >= quorum
            || answered == voters.len()
            || (overdue && answered >= quorum && *sound > 0);
        is_decided.then_some(*hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Config, Members, Saved};

    /// What node 1 finds right when these voters have answered so, and the check is not overdue or
    /// is.
    fn right(voters: u64, answers: &[(NodeId, Option<u64>)], health: Health) -> [Option<u64>; 2] {
        let config = Config::new(1, Members::voters(1..=voters));
        let raft = Raft::new(config, Saved::default(), 0, 1);
        let mut checks = Checks { health, ..Checks::new() };
        for (from, hash) in answers {
            let suspect = *from == 1 && health != SOUND;
            checks.handle_hash(*from, 7, hash.map(|hash| Hash { hash, suspect }));
        }
        assert_eq!(checks.right_hash(6, &raft, true), None, "another check");
        [false, true].map(|overdue| checks.right_hash(7, &raft, overdue))
    }

    const SOUND: Health = Health::Sound;
    const SUSPECT: Health = Health::Suspect(5);

    #[test]
    fn the_hash_of_a_majority_is_right() {
        assert_eq!(right(1, &[(1, Some(5))], SOUND), [Some(5); 2]);
        assert_eq!(right(3, &[(1, Some(5))], SOUND), [None; 2]);
        assert_eq!(right(3, &[(1, Some(5)), (2, Some(5))], SOUND), [Some(5); 2]);
        assert_eq!(right(3, &[(2, Some(4)), (3, Some(4))], SOUND), [Some(4); 2]);
        assert_eq!(right(4, &[(1, Some(5)), (2, Some(5))], SOUND), [None; 2], "half of them");
        let most = [(1, Some(5)), (2, Some(4)), (3, Some(4)), (4, Some(4))];
        assert_eq!(right(5, &most, SOUND), [Some(4); 2]);
        assert_eq!(right(3, &[(1, Some(5)), (8, Some(5)), (9, Some(5))], SOUND), [None; 2]);
    }

    #[test]
    fn the_hash_that_most_have_is_right_when_all_have_answered_or_the_check_is_overdue() {
        let two_differ = [(1, Some(5)), (2, Some(4))];
        assert_eq!(right(3, &two_differ, SOUND), [None, Some(5)]);
        assert_eq!(right(4, &two_differ, SOUND), [None; 2], "no majority has answered");
        let one_of_five = [(1, Some(5)), (2, Some(4)), (3, Some(4)), (4, None)];
        assert_eq!(right(5, &one_of_five, SOUND), [None, Some(4)]);
        let all = [(1, Some(5)), (2, Some(4)), (3, Some(4)), (4, None), (5, Some(3))];
        assert_eq!(right(5, &all, SOUND), [Some(4); 2]);
    }

    #[test]
    fn of_hashes_that_equally_many_have_the_leaders_own_is_right_unless_it_is_suspect() {
        for (own, other) in [(5, 4), (4, 5)] {
            let two = [(1, Some(own)), (2, Some(other))];
            assert_eq!(right(2, &two, SOUND), [Some(own); 2]);
            for health in [SUSPECT, Health::Diverged] {
                assert_eq!(right(2, &two, health), [Some(other); 2]);
            }
            let four = [(1, Some(own)), (2, Some(other)), (3, Some(other)), (4, Some(own))];
            assert_eq!(right(4, &four, SOUND), [Some(own); 2]);
            assert_eq!(right(4, &four, SUSPECT), [Some(other); 2]);
        }
        // What most have is right even so.
        let most = [(1, Some(5)), (2, Some(4)), (3, Some(5))];
        assert_eq!(right(3, &most, SUSPECT), [Some(5); 2]);
    }

    #[test]
    fn who_has_no_state_of_the_check_abstains() {
        assert_eq!(right(3, &[(1, Some(5)), (2, None)], SOUND), [None, Some(5)]);
        assert_eq!(right(3, &[(1, None), (2, Some(4)), (3, None)], SOUND), [Some(4); 2]);
        assert_eq!(right(3, &[(1, None), (2, None), (3, None)], SOUND), [None; 2]);
    }

    #[test]
    fn a_hash_that_is_only_suspected_is_not_right_because_others_abstain() {
        let abstain = [(1, Some(5)), (2, None), (3, None)];
        assert_eq!(right(5, &abstain, SOUND), [None, Some(5)]);
        assert_eq!(right(5, &abstain, SUSPECT), [None; 2], "the right one may be to come");
        assert_eq!(right(3, &abstain, SUSPECT), [Some(5); 2], "no other one is to come");
    }

    #[test]
    fn the_last_hash_of_a_node_counts_and_those_of_an_earlier_term_do_not() {
        let again = [(1, Some(5)), (2, Some(4)), (2, Some(5))];
        assert_eq!(right(3, &again, SOUND), [Some(5); 2]);
        let raft = Raft::new(Config::new(1, Members::voters(1..=1)), Saved::default(), 0, 1);
        let mut checks = Checks::new();
        checks.handle_hash(1, 7, Some(Hash { hash: 5, suspect: false }));
        checks.handle_ask(2, None);
        checks.new_leader();
        assert_eq!((checks.right_hash(7, &raft, true), checks.wanted), (None, false));
    }
}
