//! What can go wrong in a PPO run, apart from the optimiser's own troubles.

use align_core::PersistError;
use align_core::regularizer::{AdaptiveTarget, ConstantReward};
use align_models::GenerateError;
use align_train::TrainError;

use crate::config::ConfigError;
use crate::occupancy::NoCorrelation;

/// How a policy degenerated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Degeneration {
    /// Responses became short while the score fell: stopping early is an easy way to pay less divergence.
    EarlyStop {
        /// Mean length now.
        length: f64,
        /// Mean length of the first rollout.
        first_length: f64,
        /// Mean score now.
        score: f64,
        /// Mean score of the first rollout.
        first_score: f64,
    },
    /// The members of the reward's ensemble no longer agree: the policy is where their training data is not.
    Disagreement {
        /// The variance between members, a mean over responses.
        variance: f64,
        /// The most that was allowed.
        limit: f64,
    },
}

/// What an ensemble reports its variance as.
pub(crate) const DISAGREEMENT: &str = "ensemble/variance";

impl std::fmt::Display for Degeneration {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::EarlyStop { length, first_length, score, first_score } => write!(
                formatter,
                "responses shrank from {first_length:.1} to {length:.1} tokens while the score fell from \
                 {first_score:.4} to {score:.4}: the policy stops early to pay less divergence; lower `kl_coef`, or \
                 start nearer the reference"
            ),
            Self::Disagreement { variance, limit } => write!(
                formatter,
                "the reward's members disagree by a variance of {variance:.4}, `max_disagreement` is {limit}: the policy is \
                 where they have seen no data; take an earlier checkpoint, raise `kl_coef`, or use a more cautious `aggregate`"
            ),
        }
    }
}

/// Why a PPO run cannot start or go on. Nothing that was saved is lost.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PpoError {
    /// Settings that contradict each other.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An optimiser step failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// Nothing could be generated.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// Saving or restoring failed.
    #[error(transparent)]
    Persist(#[from] PersistError),
    /// There is nothing to answer.
    #[error("found no prompts, expected at least one")]
    NoPrompts,
    /// `gae` without a critic.
    #[error(
        "`advantage_estimator` is gae and found no critic, expected one; the other estimators do without"
    )]
    CriticMissing,
    /// A critic nobody asks.
    #[error(
        "found a critic and `advantage_estimator` is not gae, expected no critic: it would be trained for nothing"
    )]
    CriticUnused,
    /// A judge gave something that is no number.
    #[error("the reward of row {row} is {found}, expected a finite number")]
    NonFiniteReward {
        /// Which row of the rollout.
        row: usize,
        /// What it was.
        found: f64,
    },
    /// A judge gave another number of scores than there are responses.
    #[error("the reward gave {found} scores, expected {expected}, one for each response")]
    ScoreCount {
        /// How many responses there are.
        expected: usize,
        /// How many scores came.
        found: usize,
    },
    /// The judge gave no scores and said why.
    #[error("the judge gave no scores: {reason}")]
    JudgeFailed {
        /// What it said.
        reason: String,
    },
    /// A limit on something the judge does not report.
    #[error(
        "`max_disagreement` needs an ensemble, expected a judge that reports `{DISAGREEMENT}`, found one that does not"
    )]
    NoDisagreement,
    /// The very first update already sees another policy than the one that drew the rollout.
    #[error(
        "the mean ratio of the first minibatch is {found} and its log is {spread} off 0 (root mean square), expected 1 and 0 \
         within {tolerance}: the policy that learns is not the one that the old log-probabilities are of; likely causes: \
         dropout active while training, a numeric type too coarse, log-probabilities that depend on padding"
    )]
    RatioNotOne {
        /// The mean ratio.
        found: f64,
        /// Root mean square of its logarithm.
        spread: f64,
        /// How far from 1 it may be.
        tolerance: f64,
    },
    /// The fixed reference gives other numbers than at the start.
    #[error(
        "the fixed reference gives the log-probability {found} where it gave {expected} at the start, expected it not to \
         move: does it share weights with the policy?"
    )]
    ReferenceMoved {
        /// At the start.
        expected: f32,
        /// Now.
        found: f32,
    },
    /// Adaptive β aims below the divergence it starts with.
    #[error(transparent)]
    AdaptiveTarget(#[from] AdaptiveTarget),
    /// β counts in deviations of a reward that has none.
    #[error(transparent)]
    ConstantReward(#[from] ConstantReward),
    /// A divergence over the whole vocabulary, and a reference that knows only single tokens.
    #[error(
        "the regulariser is exact over the vocabulary and the reference gives log-probabilities of single tokens, expected a \
         reference that is a model"
    )]
    ReferenceWithoutScores,
    /// A divergence over the whole vocabulary, and two vocabularies.
    #[error(
        "the regulariser is exact over the vocabulary and the reference scores {found} tokens, expected the policy's {expected}"
    )]
    OtherVocabulary {
        /// Of the policy.
        expected: usize,
        /// Of the reference.
        found: usize,
    },
    /// The policy degenerated.
    #[error("degenerate policy: {kind}")]
    DegeneratePolicy {
        /// How.
        kind: Degeneration,
    },
    /// What was saved belongs to another run.
    #[error("the checkpoint {what}, expected one that does not: it belongs to another set-up")]
    OtherSetUp {
        /// How it differs.
        what: &'static str,
    },
}

impl From<PpoError> for TrainError {
    fn from(error: PpoError) -> Self {
        match error {
            PpoError::Train(error) => error,
            error => Self::algorithm(error),
        }
    }
}

/// Something to look at that does not end the run.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Warning {
    /// The sampled KL of a whole rollout is negative.
    NegativeKl {
        /// Its mean, nats per response.
        mean: f64,
    },
    /// Scores and gold scores have no correlation to report, or none that gives a λ*.
    Uncorrelated {
        /// Why.
        cause: NoCorrelation,
    },
}

impl std::fmt::Display for Warning {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NegativeKl { mean } => write!(
                formatter,
                "the mean KL to the reference is {mean:.4} nats per response, expected at least 0 up to noise: the \
                 log-probabilities and the sampling distribution disagree; likely causes: different temperatures, top-k or \
                 top-p, suppressed stop tokens, padding or positions"
            ),
            Self::Uncorrelated { cause: cause @ NoCorrelation::NotPositive { .. } } => {
                write!(formatter, "`occupancy/lambda_star` is not reported: {cause}")
            }
            Self::Uncorrelated { cause } => {
                write!(formatter, "`occupancy/correlation` is not reported: {cause}")
            }
        }
    }
}
