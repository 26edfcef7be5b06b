//! SuperHF: filter answers by a reward, fine-tune on the best.

use align_models::LoraConfig;
use align_reward::Aggregate;
use align_superhf::SuperHfConfig;
use serde::{Deserialize, Serialize};

use super::average::AverageConfig;
use super::parts::{DataConfig, EncodeConfig};

/// SuperHF.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SuperHfStage {
    /// Where the policy starts.
    pub(crate) policy: String,
    /// What the policy is held to; the start if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) prior: Option<String>,
    /// The reward model or ensemble that chooses.
    pub(crate) reward: String,
    /// How an ensemble's scores become one, instead of as its folder says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) aggregate: Option<Aggregate>,
    /// A second reward model, for the report only; best trained on other data than the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) validation: Option<String>,
    /// A judge that is logged and never trained on: a reward model, or a world's gold reward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gold: Option<String>,
    /// Decides everything that is drawn; `superhf.seed` is not used beside it.
    #[serde(default)]
    pub(crate) seed: u64,
    /// The prompts.
    pub(crate) prompts: DataConfig,
    #[serde(default)]
    pub(crate) encode: EncodeConfig,
    /// Save after every so many groups; 0 only at the end and when interrupted.
    #[serde(default)]
    pub(crate) checkpoint_every: u64,
    /// Keep an average of the policy's weights too, written beside the model as `average`. A step is a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) average: Option<AverageConfig>,
    /// Every number of SuperHF.
    #[serde(default)]
    pub(crate) superhf: SuperHfConfig,
    /// Train low-rank adapters instead of all weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lora: Option<LoraConfig>,
}
