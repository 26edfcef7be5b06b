//! What can go wrong while a policy plays against itself, and what is only said.

use align_core::{OracleError, PersistError};
use align_models::GenerateError;
use align_train::TrainError;

use crate::batch::AnchorNotFinite;

/// Why a self-play run stopped, or did not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelfPlayError {
    /// The exponent `1 − τ/η` of the previous policy would be negative.
    #[error(
        "`tau` is {tau} and `eta` is {eta}, expected 0 <= tau <= eta: otherwise the exponent 1 − tau/eta is negative"
    )]
    TauAboveEta {
        /// τ.
        tau: f64,
        /// η.
        eta: f64,
    },
    /// `η_t = τ(t + 2)/2` is 0 without τ.
    #[error("`schedule` is \"decreasing\", expected `tau` above 0 with it, found 0")]
    ScheduleWithoutTau,
    /// A number of answers that the pairing cannot use.
    #[error("`num_generations` is {found}, expected {expected}")]
    Generations {
        /// K.
        found: usize,
        /// What would do.
        expected: &'static str,
    },
    /// A tournament where answers have to be compared with all others, or with another model's.
    #[error("`pairing` is \"tournament\", and {method} has no use for one: expected \"independent\"")]
    NoTournament {
        /// The method.
        method: &'static str,
    },
    /// A count that has to be positive.
    #[error("`{name}` is 0, expected at least 1")]
    Zero {
        /// The setting.
        name: &'static str,
    },
    /// Nothing to answer.
    #[error("no prompts, expected at least one")]
    NoPrompts,
    /// Policy and reference do not speak the same tokens.
    #[error("the reference has a vocabulary of {found} tokens, expected the policy's {expected}")]
    OtherVocabulary {
        /// The policy's.
        expected: usize,
        /// The reference's.
        found: usize,
    },
    /// Nothing can be learnt from the answers of an iteration.
    #[error(
        "iteration {iteration}: of {drawn} pairs none is left: {identical} are the same answer twice, {truncated} are cut off, {undecided} have no strict winner"
    )]
    NoUsablePairs {
        /// Counted from 1.
        iteration: usize,
        /// How many there were.
        drawn: usize,
        /// Twice the same.
        identical: usize,
        /// Dropped because an answer was cut off.
        truncated: usize,
        /// Dropped because the tournament's winner does not beat its loser.
        undecided: usize,
    },
    /// The policy that is trained does not give its own answers the probability it drew them with.
    #[error(
        "iteration {iteration}: before its first step the policy's mean log-probability of its own answers is {found}, expected {expected} as when they were collected: tokens, masks or dropout differ"
    )]
    NotItself {
        /// Counted from 1.
        iteration: usize,
        /// In training.
        found: f64,
        /// When collected.
        expected: f64,
    },
    /// An anchor that is no number.
    #[error(transparent)]
    Anchor(#[from] AnchorNotFinite),
    /// The oracle failed; what it answered before is kept by whoever records it.
    #[error("the oracle failed in iteration {iteration}")]
    Oracle {
        /// Counted from 1.
        iteration: usize,
        /// Why.
        #[source]
        source: OracleError,
    },
    /// Nothing could be generated.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// An optimiser step failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A checkpoint cannot be written or read.
    #[error(transparent)]
    Persist(#[from] PersistError),
}

impl From<SelfPlayError> for TrainError {
    fn from(error: SelfPlayError) -> Self {
        match error {
            SelfPlayError::Train(error) => error,
            SelfPlayError::Persist(error) => Self::Persist(error),
            other => Self::algorithm(other),
        }
    }
}

/// What a user should know before or while a run goes on.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Warning {
    /// η may be too small for the game: iterates would orbit.
    MayOrbit {
        /// η.
        eta: f64,
        /// τ.
        tau: f64,
        /// What is safe in every game.
        safe: f64,
    },
    /// Without τ nothing bounds the policy.
    Unregularized,
    /// Pairs by tournament are not independent.
    Tournament,
    /// What is drawn is not what is trained.
    Filtered {
        /// The temperature.
        temperature: f64,
        /// The mass that is kept.
        top_p: f64,
    },
    /// Gradients of the unscaled loss are far above the clip.
    AlwaysClipped {
        /// The first step's gradient in units of that of log π.
        slope: f64,
        /// `max_grad_norm`.
        limit: f64,
    },
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::MayOrbit { eta, tau, safe } => write!(
                f,
                "eta {eta} is below (tau² + ¼)/(2 tau) = {safe:.3} for tau {tau:.4}: in a strongly cyclic game the policies would circle \
                 instead of settling; with preferences that nearly are an order that does not happen"
            ),
            Self::Unregularized => {
                write!(
                    f,
                    "tau is 0: nothing holds the policy to its reference, and in a cyclic game it diverges"
                )
            }
            Self::Tournament => write!(
                f,
                "best and worst of a tournament are not independent answers: in a cyclic game the policy settles elsewhere than at \
                 the equilibrium"
            ),
            Self::Filtered { temperature, top_p } => write!(
                f,
                "answers are drawn at temperature {temperature} and top_p {top_p}, expected 1 and 1: pairs then come from another \
                 policy than the one that is trained, and the minimum moves"
            ),
            Self::AlwaysClipped { slope, limit } => write!(
                f,
                "the loss begins with slope {slope:.0} and `max_grad_norm` is {limit}: every step will be clipped; `loss_scaling = true` \
                 has the same minimum and slopes of order one"
            ),
        }
    }
}
