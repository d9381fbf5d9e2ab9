//! Majorities: their size, what a majority has reached, and the result of an election (paper §5.2,
//! §5.3). This file computes with numbers only and knows nothing of nodes.

use crate::mistakes::{Mistake, made};

/// How many of `voters` are a majority: ⌊n/2⌋ + 1.
pub(super) fn majority(voters: usize) -> usize {
    if made(Mistake::MajorityOffByOne) { (voters / 2).max(1) } else { voters / 2 + 1 }
}

/// The largest number that at least `quorum` of the `numbers` have reached: for match indexes, the
/// index that a quorum has stored. `None` when there are fewer than `quorum` numbers.
pub(super) fn reached(quorum: usize, mut numbers: Vec<u64>) -> Option<u64> {
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    numbers.get(quorum.checked_sub(1)?).copied()
}

/// The result of an election so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VoteResult {
    /// A majority has granted its votes.
    Won,
    /// A majority has refused.
    Lost,
    /// Neither: votes are missing.
    Pending,
}

/// The result so far of an election in which `quorum` votes decide.
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
    fn reached_is_the_largest_number_that_a_majority_has_reached() {
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
    fn a_majority_of_grants_wins_and_a_majority_of_refusals_loses() {
        assert_eq!(vote_result(2, 2, 1), VoteResult::Won);
        assert_eq!(vote_result(2, 1, 2), VoteResult::Lost);
        assert_eq!(vote_result(3, 2, 2), VoteResult::Pending);
        assert_eq!(vote_result(1, 1, 0), VoteResult::Won, "a cluster of one");
    }
}
