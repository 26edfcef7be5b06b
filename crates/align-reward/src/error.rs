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
    /// Scores too close to each other: no sensible gain makes their deviation 1.
    #[error(
        "all {rows} reference completions score {score} or nearly so, expected scores that differ, to bring their deviation to 1"
    )]
    Constant {
        /// How many completions there were.
        rows: usize,
        /// Their mean score.
        score: f64,
    },
    /// Nobody to judge.
    #[error("an ensemble without members, expected at least one")]
    EmptyEnsemble,
    /// Members were given other rows.
    #[error("member {member} scored {found} rows, expected {expected} as of member 0")]
    MemberShape {
        /// Which member.
        member: usize,
        /// How many rows the first member scored.
        expected: usize,
        /// How many this one did.
        found: usize,
    },
    /// A member's score that a minimum or a mean would hide.
    #[error("the score of row {row} by member {member} is {found}, expected a finite number")]
    MemberNotFinite {
        /// Which member.
        member: usize,
        /// Which row.
        row: usize,
        /// What it was.
        found: f64,
    },
    /// There is no best of so many.
    #[error("best of {n}, expected n from 1 to {n_max}, the number of answers to a prompt")]
    BestOfNRange {
        /// The n asked for.
        n: usize,
        /// How many answers there are.
        n_max: usize,
    },
}

/// An error and what is behind it, for whoever takes a text only.
pub(crate) fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
