//! Divergences as recipes name them.

use serde::{Deserialize, Serialize};

use super::{
    ChiSquared, Divergence, JensenShannon, Kl, KlEstimator, KlLoss, LossDivergence, NoDivergence, ReverseKl,
    SquaredHellinger, TotalVariation,
};

/// A divergence whose value is subtracted from the reward.
///
/// ```toml
/// divergence = { kind = "kl", estimator = "k1" }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum DivergenceConfig {
    /// No divergence at all.
    None {},
    /// [`Kl`].
    Kl {
        /// k1 unless stated.
        #[serde(default)]
        estimator: KlEstimator,
    },
    /// [`ReverseKl`].
    ReverseKl {},
    /// [`ChiSquared`].
    ChiSquared {},
    /// [`JensenShannon`].
    JensenShannon {},
    /// [`TotalVariation`].
    TotalVariation {},
    /// [`SquaredHellinger`].
    SquaredHellinger {},
}

impl Default for DivergenceConfig {
    /// KL by k1, as in TRL's PPO.
    fn default() -> Self {
        Self::Kl { estimator: KlEstimator::default() }
    }
}

impl DivergenceConfig {
    /// The divergence named.
    pub fn build(&self) -> Box<dyn Divergence> {
        match *self {
            Self::None {} => Box::new(NoDivergence),
            Self::Kl { estimator } => Box::new(Kl { estimator }),
            Self::ReverseKl {} => Box::new(ReverseKl),
            Self::ChiSquared {} => Box::new(ChiSquared),
            Self::JensenShannon {} => Box::new(JensenShannon),
            Self::TotalVariation {} => Box::new(TotalVariation),
            Self::SquaredHellinger {} => Box::new(SquaredHellinger),
        }
    }
}

/// A divergence that is added to the loss and differentiated.
///
/// ```toml
/// divergence = { kind = "kl", estimator = "k2" }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum LossDivergenceConfig {
    /// [`KlLoss`]; `k1` is not among its estimators.
    Kl {
        /// k2 unless stated.
        #[serde(default)]
        estimator: KlLoss,
    },
    /// [`ChiSquared`], with its exact gradient.
    ChiSquared {},
}

impl Default for LossDivergenceConfig {
    /// KL by k2, whose gradient is that of KL(π‖μ).
    fn default() -> Self {
        Self::Kl { estimator: KlLoss::default() }
    }
}

impl LossDivergenceConfig {
    /// The divergence named.
    pub fn build(&self) -> Box<dyn LossDivergence> {
        match *self {
            Self::Kl { estimator } => Box::new(estimator),
            Self::ChiSquared {} => Box::new(ChiSquared),
        }
    }
}
