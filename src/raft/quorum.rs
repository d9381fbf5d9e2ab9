//! Majorities: how many voters are one, what a majority has reached, and how an election stands (paper
//! §5.2, §5.3). Numbers only: this file knows nothing of nodes.

use crate::mistakes::{Mistake, made};

/// How many of `voters` are a majority: ⌊n/2⌋ + 1.
pub(super) fn majority(voters: usize) -> usize {
    if made(Mistake::MajorityOffByOne) { (voters / 2).max(1) } else { voters / 2 + 1 }
}

/// The largest number that `quorum` of these have reached: of match indexes the one that can be
/// committed. `None` when there are fewer than `quorum`.
pub(super) fn reached(quorum: usize, mut numbers: Vec<u64>) -> Option<u64> {
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    numbers.get(quorum.checked_sub(1)?).copied()
}

/// How an election stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VoteResult {
    /// A majority has granted its vote.
    Won,
    /// A majority has refused.
    Lost,
    /// Votes are missing that decide.
    Pending,
}

/// How an election stands in which `quorum` votes decide.
pub(super) fn vote_result(quorum: usize, granted: usize, refused: usize) -> VoteResult {
    if granted >= quorum {
        VoteResult::Won
    } else if refused >= quorum {
        VoteResult::Lost
    } else {
        VoteResult::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_is_more_than_half() {
        let majorities: Vec<_> = (1..=7).map(majority).collect();
        assert_eq!(majorities, [1, 2, 2, 3, 3, 4, 4]);
    }

    #[test]
    fn a_majority_has_reached_the_smallest_of_its_largest_numbers() {
        let commit = |indexes: &[u64]| reached(majority(indexes.len()), indexes.to_vec());
        assert_eq!(commit(&[7]), Some(7));
        assert_eq!(commit(&[3, 9]), Some(3));
        assert_eq!(commit(&[0, 9, 5]), Some(5));
        assert_eq!(commit(&[4, 4, 9, 9]), Some(4));
        assert_eq!(commit(&[1, 2, 3, 4, 5]), Some(3));
        assert_eq!(reached(2, vec![8]), None, "one of two is no majority");
        assert_eq!(reached(0, vec![8]), None);
    }

    #[test]
    fn an_election_is_decided_by_a_majority_either_way() {
        assert_eq!(vote_result(2, 2, 1), VoteResult::Won);
        assert_eq!(vote_result(2, 1, 2), VoteResult::Lost);
        assert_eq!(vote_result(3, 2, 2), VoteResult::Pending);
        assert_eq!(vote_result(1, 1, 0), VoteResult::Won, "a cluster of one");
    }
}
