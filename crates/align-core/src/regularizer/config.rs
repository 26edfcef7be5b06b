//! Regularisers as recipes name them.

use serde::{Deserialize, Serialize};

use super::{Coefficient, Granularity, Regularizer, Site};
use crate::divergence::{DivergenceConfig, LossDivergenceConfig};

/// A regulariser as recipes name it.
///
/// ```toml
/// [regularizer]
/// site = "reward"
/// divergence = { kind = "kl", estimator = "k1" }
/// coefficient = { kind = "fixed", beta = 0.05 }
/// granularity = "token"
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "site", rename_all = "snake_case", deny_unknown_fields)]
pub enum RegularizerConfig {
    /// Subtracted from the reward.
    Reward {
        /// Which divergence.
        #[serde(default)]
        divergence: DivergenceConfig,
        /// β.
        #[serde(default)]
        coefficient: Coefficient,
        /// Per token or per response.
        #[serde(default)]
        granularity: Granularity,
    },
    /// Added to the loss.
    Loss {
        /// Which divergence.
        #[serde(default)]
        divergence: LossDivergenceConfig,
        /// β.
        #[serde(default)]
        coefficient: Coefficient,
        /// Per token or per response.
        #[serde(default)]
        granularity: Granularity,
    },
}

impl Default for RegularizerConfig {
    /// 0.05 · k1 per token in the reward, as in TRL's PPO.
    fn default() -> Self {
        Self::Reward {
            divergence: DivergenceConfig::default(),
            coefficient: Coefficient::default(),
            granularity: Granularity::default(),
        }
    }
}

impl RegularizerConfig {
    /// β as described.
    pub fn coefficient(&self) -> &Coefficient {
        let (Self::Reward { coefficient, .. } | Self::Loss { coefficient, .. }) = self;
        coefficient
    }

    /// The regulariser described.
    pub fn build(&self) -> Regularizer {
        match self {
            Self::Reward { divergence, coefficient, granularity } => Regularizer {
                site: Site::Reward(divergence.build()),
                coefficient: coefficient.clone(),
                granularity: *granularity,
            },
            Self::Loss { divergence, coefficient, granularity } => Regularizer {
                site: divergence.build(),
                coefficient: coefficient.clone(),
                granularity: *granularity,
            },
        }
    }
}
