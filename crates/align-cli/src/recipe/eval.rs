//! Comparisons: models side by side on rows nobody trained on.

use std::collections::BTreeMap;

use align_core::number::Positive;
use align_models::SamplingConfig;
use align_reward::Aggregate;
use serde::{Deserialize, Serialize};

use super::parts::{DataConfig, EncodeConfig};

/// Models side by side on prompts nobody trained on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EvalStage {
    /// What is compared, by the name the table shows.
    #[serde(default)]
    pub(crate) arms: toml::Table,
    /// The prompts, or `answers` instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) prompts: Option<DataConfig>,
    /// Demonstrations: prompts with the answers that are right. Adds `exact_match`, whether what is drawn is that answer token by token,
    /// and `nll`, the answer's negative log-likelihood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) answers: Option<DataConfig>,
    /// Whether the models answer. `false` leaves the likelihood of `answers` alone, which may then be dialogues and plain texts too.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub(crate) draw: bool,
    #[serde(default)]
    pub(crate) encode: EncodeConfig,
    /// The reward that was optimised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reward: Option<String>,
    /// How an ensemble's scores become one, instead of as its folder says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) aggregate: Option<Aggregate>,
    /// The reward that was meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gold: Option<String>,
    /// The arm whose answers every arm's are compared with, prompt by prompt, by the gold reward (the proxy where there is none).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) against: Option<String>,
    /// Models the KL is measured to, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) anchors: BTreeMap<String, String>,
    /// How completions are drawn; stop tokens are the model's own if none are given.
    #[serde(default)]
    pub(crate) sampling: SamplingConfig,
    /// Decides the draws, the same for every arm.
    #[serde(default)]
    pub(crate) seed: u64,
    /// Completions shown side by side in the report.
    #[serde(default = "some_samples")]
    pub(crate) show: usize,
    /// Sequences that go through a model at once.
    #[serde(default = "eval_microbatch")]
    pub(crate) microbatch: usize,
    /// Multiplies the standard error for the table's ±.
    #[serde(default = "two_sided")]
    pub(crate) z: Positive,
}

impl EvalStage {
    /// Refuses keys that leave nothing to measure, or that nothing would use.
    pub(crate) fn check(&self) -> Result<(), String> {
        match (&self.prompts, &self.answers) {
            (Some(_), Some(_)) => Err("expected one of `prompts` and `answers`, found both".to_owned()),
            (None, None) => Err("missing field `prompts` (or `answers`)".to_owned()),
            (Some(_), None) if !self.draw => {
                Err("`draw` is false and `prompts` are only drawn for; expected `answers`".to_owned())
            }
            _ if self.draw => Ok(()),
            _ => {
                let judges = [
                    ("reward", self.reward.is_some()),
                    ("gold", self.gold.is_some()),
                    ("against", self.against.is_some()),
                    ("anchors", !self.anchors.is_empty()),
                ];
                match judges.into_iter().find(|(_, given)| *given) {
                    Some((key, _)) => {
                        Err(format!("`{key}` is about answers that are drawn, and `draw` is false"))
                    }
                    None => Ok(()),
                }
            }
        }
    }
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

fn some_samples() -> usize {
    6
}

/// Sequences that go through a model at once where nothing is learnt.
pub(super) fn eval_microbatch() -> usize {
    32
}

fn two_sided() -> Positive {
    Positive::literal(1.96)
}
