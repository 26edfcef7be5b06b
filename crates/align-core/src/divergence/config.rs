//! Divergences as recipes name them.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

use super::{
    AlphaDivergence, ChiSquared, ChiSquaredLoss, Derivative, Divergence, FDivergence, JensenShannon, Kl,
    KlEstimator, KlLoss, LossDivergence, NoDivergence, ReverseKl, SqrtChiSquared, SqrtChiSquaredLoss,
    SquaredHellinger, TotalVariation,
};
use crate::number::Finite;
use crate::regularizer::Site;

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
    /// [`SqrtChiSquared`], of whole responses.
    SqrtChiSquared {},
    /// [`JensenShannon`].
    JensenShannon {},
    /// [`TotalVariation`].
    TotalVariation {},
    /// [`SquaredHellinger`].
    SquaredHellinger {},
    /// [`AlphaDivergence`].
    Alpha {
        /// α.
        alpha: Finite,
    },
    /// [`Derivative`]: the divergence's own gradient, of whole responses.
    Derivative {
        /// Of which divergence.
        of: FDivergenceConfig,
    },
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
            Self::SqrtChiSquared {} => Box::new(SqrtChiSquared::default()),
            Self::JensenShannon {} => Box::new(JensenShannon),
            Self::TotalVariation {} => Box::new(TotalVariation),
            Self::SquaredHellinger {} => Box::new(SquaredHellinger),
            Self::Alpha { alpha } => Box::new(AlphaDivergence { alpha }),
            Self::Derivative { ref of } => Box::new(Derivative(of.build())),
        }
    }
}

/// An f-divergence with a derivative.
///
/// ```toml
/// of = { kind = "alpha", alpha = 0.5 }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum FDivergenceConfig {
    /// [`Kl`].
    Kl {},
    /// [`ReverseKl`].
    ReverseKl {},
    /// [`ChiSquared`].
    ChiSquared {},
    /// [`JensenShannon`].
    JensenShannon {},
    /// [`SquaredHellinger`].
    SquaredHellinger {},
    /// [`AlphaDivergence`].
    Alpha {
        /// α.
        alpha: Finite,
    },
}

impl FDivergenceConfig {
    /// The divergence named.
    pub fn build(&self) -> Box<dyn FDivergence> {
        match *self {
            Self::Kl {} => Box::new(Kl::default()),
            Self::ReverseKl {} => Box::new(ReverseKl),
            Self::ChiSquared {} => Box::new(ChiSquared),
            Self::JensenShannon {} => Box::new(JensenShannon),
            Self::SquaredHellinger {} => Box::new(SquaredHellinger),
            Self::Alpha { alpha } => Box::new(AlphaDivergence { alpha }),
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
    /// [`ReverseKl`].
    ReverseKl {},
    /// [`ChiSquaredLoss`].
    ChiSquared {
        /// The exact gradient unless stated.
        #[serde(default)]
        estimator: ChiSquaredLoss,
    },
    /// [`SqrtChiSquaredLoss`], of whole responses.
    SqrtChiSquared {
        /// The exact gradient unless stated.
        #[serde(default)]
        estimator: ChiSquaredLoss,
    },
    /// [`JensenShannon`].
    JensenShannon {},
    /// [`SquaredHellinger`].
    SquaredHellinger {},
    /// [`AlphaDivergence`].
    Alpha {
        /// α.
        alpha: Finite,
    },
    /// Over the whole vocabulary at every token: [`Site::Exact`].
    Exact {
        /// Of which divergence.
        of: FDivergenceConfig,
        /// Response positions at a time: memory, not results. 64 unless stated.
        #[serde(default = "default_columns")]
        columns: NonZeroUsize,
    },
}

/// 64 positions of a vocabulary of 150 000 in f32 are 37 MiB a row and tensor.
fn default_columns() -> NonZeroUsize {
    NonZeroUsize::new(64).expect("not 0")
}

impl Default for LossDivergenceConfig {
    /// KL by k2, whose gradient is that of KL(π‖μ).
    fn default() -> Self {
        Self::Kl { estimator: KlLoss::default() }
    }
}

impl LossDivergenceConfig {
    /// Where and how the divergence acts: in the loss, from draws or exactly.
    pub fn build(&self) -> Site {
        let sampled: Box<dyn LossDivergence> = match *self {
            Self::Kl { estimator } => Box::new(estimator),
            Self::ReverseKl {} => Box::new(ReverseKl),
            Self::ChiSquared { estimator } => Box::new(estimator),
            Self::SqrtChiSquared { estimator } => {
                Box::new(SqrtChiSquaredLoss { estimator, chi_squared: None })
            }
            Self::JensenShannon {} => Box::new(JensenShannon),
            Self::SquaredHellinger {} => Box::new(SquaredHellinger),
            Self::Alpha { alpha } => Box::new(AlphaDivergence { alpha }),
            Self::Exact { ref of, columns } => return Site::Exact { divergence: of.build(), columns },
        };
        Site::Loss(sampled)
    }
}
