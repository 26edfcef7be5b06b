//! What can go wrong in a SuperHF run, apart from the optimiser's own troubles.

use align_core::PersistError;
use align_models::GenerateError;
use align_train::TrainError;

use crate::config::ConfigError;

/// Which of the judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judge {
    /// R_train: the one that is selected by.
    Reward,
    /// R_val: reported now and then.
    Validation,
    /// The gold judge: reported.
    Gold,
}

impl std::fmt::Display for Judge {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Reward => "reward",
            Self::Validation => "validation reward",
            Self::Gold => "gold reward",
        })
    }
}

/// Why a SuperHF run cannot start or go on. Nothing that was saved is lost.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SuperHfError {
    /// Settings that contradict each other or the parts.
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
    /// A judge gave something that is no number.
    #[error(
        "the {judge} of prompt {prompt_index}, completion {completion_index}, is {found}, expected a finite number"
    )]
    NonFiniteScore {
        /// Whose score.
        judge: Judge,
        /// Which prompt: its place in the pool; for [`Filter::choose`](crate::Filter::choose), in the list given.
        prompt_index: usize,
        /// Which of its samples.
        completion_index: usize,
        /// What it was.
        found: f64,
    },
    /// A judge gave another number of scores than there are completions.
    #[error("the {judge} gave {found} scores, expected {expected}, one for each completion")]
    ScoreCount {
        /// Whose scores.
        judge: Judge,
        /// How many completions there are.
        expected: usize,
        /// How many scores came.
        found: usize,
    },
    /// A judge gave no scores and said why.
    #[error("the {judge} gave no scores: {reason}")]
    JudgeFailed {
        /// Which one.
        judge: Judge,
        /// What it said.
        reason: String,
    },
    /// Too many prompts of a group got nothing but empty completions.
    #[error(
        "{skipped} of {prompts} prompts got no completion that is not empty, prompt {prompt_index} first, expected at most a \
         share of {limit} (`max_skipped_fraction`): does the policy stop at once, or does `trim` cut every answer to nothing?"
    )]
    NoValidCompletion {
        /// The first of them: its place in the pool.
        prompt_index: usize,
        /// How many there are.
        skipped: usize,
        /// Prompts of the group.
        prompts: usize,
        /// The largest share that was allowed.
        limit: f64,
    },
    /// A prior that knows only single tokens, or none at all.
    #[error(
        "the prior gives no distributions, expected a model: the KL is taken over the whole vocabulary; \
         set `prior` to none to train without one"
    )]
    PriorWithoutScores,
    /// Prior and policy have two vocabularies.
    #[error("the prior scores {found} tokens, expected the policy's {expected}")]
    VocabMismatch {
        /// Of the policy.
        expected: usize,
        /// Of the prior.
        found: usize,
    },
    /// Before the first step the policy is already away from the prior.
    #[error(
        "the KL between prior and policy is {found} nats per token before the first step, expected 0 within {tolerance}: the \
         prior is not the model that training starts from; adapters switched off give the model below them, not an \
         instruction-tuned start; set `prior` to other if another model is meant"
    )]
    PriorIsNotStart {
        /// Mean over tokens.
        found: f64,
        /// How far from 0 it may be.
        tolerance: f64,
    },
    /// A setting that counts characters, and no way to turn tokens into text.
    #[error(
        "`{setting}` counts characters and found no tokenizer, expected one: hand it over by `with_detokenizer`"
    )]
    NoText {
        /// The setting.
        setting: &'static str,
    },
    /// Reports without a judge to make them.
    #[error("`validation_interval` is {interval} and found no validation judge, expected one; 0 asks none")]
    ValidationMissing {
        /// What it was.
        interval: u64,
    },
}

impl From<SuperHfError> for TrainError {
    fn from(error: SuperHfError) -> Self {
        match error {
            SuperHfError::Train(error) => error,
            error => Self::algorithm(error),
        }
    }
}

/// Something to look at that does not end the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// As many are kept as are sampled.
    NoSelection {
        /// K = N.
        samples: usize,
    },
    /// One sample a prompt.
    SelfTraining,
    /// A validation judge that is never asked.
    ValidationNeverAsked,
    /// Turn markers are text, and there is none.
    TurnsNotLookedFor,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoSelection { samples } => write!(
                formatter,
                "`top_k` is {samples} of `superbatch_size` {samples}: all samples are kept and the reward decides nothing"
            ),
            Self::SelfTraining => formatter.write_str(
                "`superbatch_size` is 1: the policy learns what it says, and the reward decides nothing",
            ),
            Self::ValidationNeverAsked => formatter.write_str(
                "found a validation judge and `validation_interval` is 0: it takes memory and is never asked",
            ),
            Self::TurnsNotLookedFor => formatter.write_str(
                "there is no tokenizer to give text: simulated next turns (`trim`) are not looked for",
            ),
        }
    }
}
