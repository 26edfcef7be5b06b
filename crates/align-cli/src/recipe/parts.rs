//! The tables that stages share: data, training, optimiser, adapters.

use align_core::number::{Positive, UnitInterval};
use align_data::encode::{EncodeOptions, Overlong, PlainPrompts};
use align_train::Best;
use serde::{Deserialize, Serialize};

use super::average::AverageConfig;

/// Rows from a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataConfig {
    /// A file (JSON Lines, JSON, Parquet, each perhaps compressed), `@stage/file`, or `org/name` on the hub.
    pub(crate) path: String,
    /// Read at most this many rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_rows: Option<usize>,
    /// The share of prompts (with all their rows) that is held out for evaluation.
    #[serde(default = "no_share")]
    pub(crate) held_out: UnitInterval,
    /// Decides which prompts those are.
    #[serde(default)]
    pub(crate) split_seed: u64,
    /// Which side of that split is read.
    #[serde(default)]
    pub(crate) split: Side,
    /// Pass over broken rows, counting them, instead of stopping at the first.
    #[serde(default)]
    pub(crate) skip_bad_rows: bool,
}

/// A side of the split between training and evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    /// What is not held out; the held-out side serves as the evaluation of this stage.
    #[default]
    Train,
    /// What is held out; the other side serves as the evaluation of a training.
    HeldOut,
}

fn no_share() -> UnitInterval {
    UnitInterval::literal(0.0)
}

/// How rows become token ids.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EncodeConfig {
    /// At most this many tokens of prompt and response; the model's context if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_length: Option<usize>,
    /// At most this many tokens of the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_prompt_length: Option<usize>,
    /// What happens to longer rows.
    pub(crate) overlong: OverlongConfig,
    /// What happens to prompts that are text when the model has a chat template.
    pub(crate) plain_prompts: PlainPromptsConfig,
}

/// What happens to rows that are too long.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OverlongConfig {
    /// The row is an error.
    #[default]
    Error,
    /// The row is passed over and counted.
    Drop,
    /// The end of the response is cut off.
    CutResponse,
}

/// What happens to prompts that are text.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PlainPromptsConfig {
    /// They become the user's turn.
    #[default]
    UserTurn,
    /// They are tokenised as they stand.
    AsText,
}

impl EncodeConfig {
    /// For a model with this context.
    pub(crate) fn options(&self, context: Option<usize>) -> EncodeOptions {
        EncodeOptions {
            max_length: self.max_length.or(context),
            max_prompt_length: self.max_prompt_length,
            overlong: match self.overlong {
                OverlongConfig::Error => Overlong::Error,
                OverlongConfig::Drop => Overlong::Drop,
                OverlongConfig::CutResponse => Overlong::CutResponse,
            },
            plain_prompts: match self.plain_prompts {
                PlainPromptsConfig::UserTurn => PlainPrompts::UserTurn,
                PlainPromptsConfig::AsText => PlainPrompts::AsText,
            },
        }
    }
}

/// How long and in which pieces.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TrainingConfig {
    /// Passes over the data.
    pub(crate) epochs: Positive,
    /// Optimiser steps, instead of `epochs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_steps: Option<u64>,
    /// Sequences (or pairs) of one optimiser step.
    #[serde(deserialize_with = "at_least_one")]
    pub(crate) minibatch: usize,
    /// Sequences (or pairs) that go through the model at once; changes memory, not results.
    pub(crate) microbatch: usize,
    /// Evaluate on the held-out side after every so many steps; 0 only at the end.
    pub(crate) evaluate_every: u64,
    /// Save after every so many steps; 0 only at the end and when interrupted.
    pub(crate) checkpoint_every: u64,
    /// How many of the newest checkpoints stay.
    pub(crate) keep: usize,
    /// Keep the best ones by a metric as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) best: Option<Best>,
    /// Keep an average of the weights too, written beside the model as `average`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) average: Option<AverageConfig>,
}

/// A count of which 0 makes no sense.
pub(super) fn at_least_one<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    match usize::deserialize(deserializer)? {
        0 => Err(serde::de::Error::custom("expected at least 1, found 0")),
        count => Ok(count),
    }
}

impl Default for TrainingConfig {
    fn default() -> Self {
        Self {
            epochs: Positive::literal(1.0),
            max_steps: None,
            minibatch: 32,
            microbatch: 8,
            evaluate_every: 0,
            checkpoint_every: 0,
            keep: 1,
            best: None,
            average: None,
        }
    }
}

impl TrainingConfig {
    /// Optimiser steps over so many rows.
    pub(crate) fn steps(&self, rows: usize) -> u64 {
        self.max_steps.unwrap_or_else(|| {
            (self.epochs.get() * rows as f64 / self.minibatch as f64).ceil().max(1.0) as u64
        })
    }
}

/// A path inside a run.
pub(crate) fn stage_reference(text: &str) -> Option<&str> {
    text.strip_prefix('@')
}

/// Where a stage's model lies inside its folder.
pub(crate) const MODEL: &str = "model";

/// Where the average of its weights along the training lies, if one was kept; other stages name it `@stage/average`.
pub(crate) const AVERAGE: &str = "average";

/// Where its adapters lie, in PEFT's form, if it trained any; the model has them merged.
pub(crate) const ADAPTER: &str = "adapter";

/// The resolved recipe in the folder of a run or of a stage.
pub(crate) const RECIPE: &str = "recipe.toml";
