//! What can go wrong with rewards.

/// Why scores could not be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RewardError {
    /// A score that would be averaged away or poison what follows.
    #[error("the score of row {row} is {found}, expected a finite number")]
    NotFinite {
        /// Which completion, counted over all batches.
        row: usize,
        /// What it was.
        found: f64,
    },
    /// Nothing to compare.
    #[error("no preference pairs, expected at least one")]
    NoPairs,
    /// Nothing to measure from.
    #[error("no reference completions, expected at least one to measure the mean reward of")]
    NoReference,
    /// All scores equal: no gain makes their deviation 1.
    #[error(
        "all {rows} reference completions score {score}, expected scores that differ, to bring their deviation to 1"
    )]
    Constant {
        /// How many completions there were.
        rows: usize,
        /// The score of all of them.
        score: f64,
    },
}
