//! Stages that learn from preferences without a reward between: direct losses, and self-play on an oracle.

use align_core::number::{NonNegative, Positive, Probability};
use align_models::LoraConfig;
use align_nash::self_play::SelfPlayConfig;
use align_nash::{KtoConfig, PairLoss};
use align_reward::{Aggregate, RemoteJudgeConfig};
use align_train::OptimizerConfig;
use serde::{Deserialize, Serialize};

use super::average::AverageConfig;
use super::parts::{DataConfig, EncodeConfig, TrainingConfig};

/// DPO and its relatives, from a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DpoStage {
    /// Where the policy starts.
    pub(crate) model: String,
    /// What log-ratios are measured from; the start if not given. Its log-probabilities are computed once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reference: Option<String>,
    /// The order of the data.
    #[serde(default)]
    pub(crate) seed: u64,
    /// Preference pairs; with `[kto]` rated answers (`prompt`, `completion`, `label`).
    pub(crate) data: DataConfig,
    /// Which loss.
    #[serde(default)]
    pub(crate) loss: PairLoss,
    /// KTO on rated answers, instead of `loss` on pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kto: Option<KtoConfig>,
    /// Weight of the negative log-likelihood of the chosen answer, per token, beside the loss.
    #[serde(default = "no_weight")]
    pub(crate) sft_coef: NonNegative,
    #[serde(default)]
    pub(crate) encode: EncodeConfig,
    #[serde(default)]
    pub(crate) training: TrainingConfig,
    #[serde(default = "dpo_optimizer")]
    pub(crate) optimizer: OptimizerConfig,
    /// Train low-rank adapters instead of all weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lora: Option<LoraConfig>,
}

fn no_weight() -> NonNegative {
    NonNegative::literal(0.0)
}

/// TRL's rate for DPO.
fn dpo_optimizer() -> OptimizerConfig {
    OptimizerConfig { learning_rate: Positive::literal(1e-6), ..OptimizerConfig::default() }
}

/// Self-play on a preference oracle: INPO, SPPO, Nash-MD, online DPO, XPO.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SelfPlayStage {
    /// Where the policy starts.
    pub(crate) policy: String,
    /// What the game is regularised towards; the start if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reference: Option<String>,
    /// Decides everything that is drawn; `self_play.seed` is not used beside it.
    #[serde(default)]
    pub(crate) seed: u64,
    /// Which of two answers is better.
    pub(crate) oracle: OracleConfig,
    /// The share of the oracle's answers that is turned round, in labels and in win rates; a control. The exact gap has none of it.
    #[serde(default = "no_noise")]
    pub(crate) label_noise: Probability,
    /// Keep the oracle's answers in a file of the stage's folder, so that nothing is asked twice; if not given, of a server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) record_oracle: Option<bool>,
    /// The prompts; what is held out of them serves for win rates.
    pub(crate) prompts: DataConfig,
    #[serde(default)]
    pub(crate) encode: EncodeConfig,
    /// Log the exact duality gap over all answers; for games small enough to enumerate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) exact_gap: Option<ExactGap>,
    /// Save after every so many optimiser steps; 0 only at the end and when interrupted.
    #[serde(default)]
    pub(crate) checkpoint_every: u64,
    /// Keep an average of the policy's weights too, written beside the model as `average`. A step is an optimiser step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) average: Option<AverageConfig>,
    /// Every number of self-play.
    #[serde(default)]
    pub(crate) self_play: SelfPlayConfig,
    /// Train low-rank adapters instead of all weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lora: Option<LoraConfig>,
}

fn no_noise() -> Probability {
    Probability::literal(0.0)
}

/// How the exact duality gap is computed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExactGap {
    /// τ of the game; INPO's own if not given, and needed by other methods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tau: Option<NonNegative>,
    /// The most answers a prompt may have.
    #[serde(default = "some_answers")]
    pub(crate) most: usize,
}

fn some_answers() -> usize {
    1024
}

/// A preference oracle.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum OracleConfig {
    /// A reward model, an ensemble or a reward server, read as Bradley and Terry do.
    Reward {
        /// The folder, stage or address.
        model: String,
        /// How an ensemble's scores become one, instead of as its folder says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        aggregate: Option<Aggregate>,
    },
    /// A pairwise preference model: `align reward` with `pairwise = true`.
    Pairwise {
        /// The folder or stage.
        model: String,
    },
    /// A generated world's own preferences.
    World {
        /// The world's stage or folder.
        world: String,
    },
    /// Several criteria by weight.
    Mixture {
        /// The criteria.
        parts: Vec<Criterion>,
    },
    /// A judge over HTTP, asked in OpenAI's form.
    Http(Box<RemoteJudgeConfig>),
    /// A file of recorded answers, and nobody to ask for others.
    Recorded {
        /// JSON Lines: `prompt`, `first`, `second` (token ids), `preference`.
        path: String,
    },
}

/// A part of a mixture.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Criterion {
    /// Its weight; weights are divided by their sum.
    pub(crate) weight: Positive,
    /// The criterion.
    pub(crate) oracle: OracleConfig,
}
