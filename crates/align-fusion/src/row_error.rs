//! What can be wrong with the scores of one row, and with weights that are to fuse them.

use std::fmt;

/// Whose scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// The large base.
    Base,
    /// The small base.
    Anchor,
    /// The expert of this index, counted from 0.
    Expert(usize),
}

impl fmt::Display for Member {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base => formatter.write_str("the large base"),
            Self::Anchor => formatter.write_str("the small base"),
            Self::Expert(index) => write!(formatter, "expert {index}"),
        }
    }
}

/// Scores of one row that cannot be fused.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RowError {
    /// A score is NaN or +∞.
    #[error("{member} scores token {token} with {found}; expected a finite score, or −∞ for a masked token")]
    NotFinite {
        /// Whose score.
        member: Member,
        /// Which token.
        token: usize,
        /// The score.
        found: f32,
    },
    /// Every score is −∞.
    #[error("{member} masks every token: there is nothing to choose from")]
    AllMasked {
        /// Whose scores.
        member: Member,
    },
    /// An expert forbids a token that the large base allows, so that KL(P ‖ P̃) is infinite for every weight above 0.
    #[error(
        "expert {expert} masks token {token}, which the large base gives a log-probability of {log_prob}: mask it in all models"
    )]
    MaskedOnlyInExpert {
        /// Which expert.
        expert: usize,
        /// Which token.
        token: usize,
        /// The large base's log-probability of it.
        log_prob: f64,
    },
    /// The small base forbids a token that the large base allows, so that no expert's shift is finite there.
    #[error(
        "the small base masks token {token}, which the large base does not: the shift there is not finite"
    )]
    MaskedOnlyInAnchor {
        /// Which token.
        token: usize,
    },
}

/// Weights, or a search for weights, that do not fit their experts.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WeighingError {
    /// There is nobody to weigh.
    #[error("expected at least one expert, found none")]
    NoExperts,
    /// Not one weight for each expert.
    #[error("expected one weight for each of {experts} experts, found {weights}")]
    Weights {
        /// Experts of the fusion.
        experts: usize,
        /// Weights given.
        weights: usize,
    },
    /// A weight is NaN or infinite.
    #[error("the weight of expert {expert} is {found}; expected a finite number")]
    NotFinite {
        /// Whose weight.
        expert: usize,
        /// The weight.
        found: f64,
    },
    /// Neither no bounds nor one pair for each expert.
    #[error("expected no bounds of their own or one pair for each of {experts} experts, found {bounds}")]
    Bounds {
        /// Experts of the fusion.
        experts: usize,
        /// Pairs given.
        bounds: usize,
    },
    /// The range of weights is empty.
    #[error("the weights of expert {expert} are searched between {lower} and {upper}: the range is empty")]
    EmptyRange {
        /// Whose range.
        expert: usize,
        /// Its lower end.
        lower: f64,
        /// Its upper end.
        upper: f64,
    },
    /// The grid is too fine to be walked at every token.
    #[error(
        "the grid has {found} candidates; expected at most {most}: take a larger step or a shorter range"
    )]
    TooManyCandidates {
        /// Candidates of the grid.
        found: f64,
        /// The most that are allowed.
        most: usize,
    },
    /// The joint search knows two experts.
    #[error("the joint search weighs two experts, found {experts}: search one at a time")]
    JointNeedsTwo {
        /// Experts of the fusion.
        experts: usize,
    },
    /// Experts that are searched jointly share one movement and cannot each be matched to their own.
    #[error(
        "the joint search matches the mean movement: `targets = \"own\"` needs `experts = \"one_at_a_time\"`"
    )]
    JointNeedsMean,
    /// One equation for two weights has a continuum of solutions.
    #[error("the joint search matches both distances: expected `objective = \"both\"`")]
    JointNeedsBoth,
}
