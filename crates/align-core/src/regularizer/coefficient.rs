//! β: fixed, steered towards a divergence, or in units of the reward's deviation.

use serde::{Deserialize, Serialize};

use crate::number::{NonNegative, Positive};

/// β, the weight of a regulariser. Its state is part of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Coefficient {
    /// The same throughout.
    Fixed {
        /// β.
        beta: NonNegative,
    },
    /// Steered towards a target divergence.
    Adaptive {
        /// The current β; in a recipe, the first.
        beta: Positive,
        /// The divergence aimed at, in nats per response.
        target: Positive,
        /// How many responses a correction takes.
        horizon: Positive,
    },
    /// In standard deviations of the base policy's reward. The theory of correlated proxies gives `√(1 − r²)` of them for √χ²,
    /// with r the correlation of proxy and gold reward; from one deviation on the reference itself is optimal.
    RewardStd {
        /// β, in deviations.
        beta: NonNegative,
        /// The deviation; measured on the first rollout if not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deviation: Option<Positive>,
    },
}

impl Default for Coefficient {
    /// Fixed at 0.05, TRL's `kl_coef`.
    fn default() -> Self {
        Self::Fixed { beta: NonNegative::literal(0.05) }
    }
}

impl Coefficient {
    /// The current β, in units of the reward. A deviation that is not known yet counts as 1.
    pub fn beta(&self) -> f64 {
        match self {
            Self::Fixed { beta } => beta.get(),
            Self::Adaptive { beta, .. } => beta.get(),
            Self::RewardStd { beta, deviation } => beta.get() * deviation.map_or(1.0, Positive::get),
        }
    }

    /// Takes in the standard deviation of the base policy's reward where β counts in it and does not know it.
    ///
    /// # Errors
    /// [`ConstantReward`] if it is needed and not more than 10⁻¹² (nor infinite or NaN).
    pub fn measure(&mut self, found: f64) -> Result<(), ConstantReward> {
        if let Self::RewardStd { deviation: deviation @ None, .. } = self {
            *deviation = Positive::try_from(found).ok().filter(|found| found.get() > LEAST_DEVIATION);
            return if deviation.is_some() { Ok(()) } else { Err(ConstantReward { deviation: found }) };
        }
        Ok(())
    }

    /// Moves an adaptive β after `responses` responses whose mean summed divergence was `observed`:
    /// `β ← β (1 + clip(observed/target − 1, −0.2, 0.2) · responses/horizon)`.
    ///
    /// # Panics
    /// If `observed` is not finite, or if β leaves the positive numbers because `responses` exceeds five horizons.
    ///
    /// # Source
    /// Ziegler et al. 2019, section 2.2, <https://arxiv.org/abs/1909.08593>.
    pub fn update(&mut self, observed: f64, responses: usize) {
        if let Self::Adaptive { beta, target, horizon } = self {
            assert!(observed.is_finite(), "expected a finite divergence, found {observed}");
            let error = (observed / target.get() - 1.0).clamp(-0.2, 0.2);
            let factor = 1.0 + error * responses as f64 / horizon.get();
            *beta = Positive::try_from(beta.get() * factor).expect("fewer responses than five horizons");
        }
    }

    /// Refuses an adaptive target that the run starts beyond: β would only ever rise.
    ///
    /// # Errors
    /// [`AdaptiveTarget`] if the target does not exceed `initial`, the divergence before the first update.
    pub fn check_start(&self, initial: f64) -> Result<(), AdaptiveTarget> {
        match self {
            Self::Adaptive { target, .. } if target.get() <= initial => {
                Err(AdaptiveTarget { target: target.get(), initial })
            }
            _ => Ok(()),
        }
    }
}

/// A reward whose standard deviation is not above this is constant.
pub const LEAST_DEVIATION: f64 = 1e-12;

/// β counts in standard deviations of a reward that has none.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error(
    "the base policy's scores have standard deviation {deviation}, expected more than 1e-12: `coefficient` of kind \
     reward_std counts in it; give `deviation`, or a coefficient of kind fixed"
)]
pub struct ConstantReward {
    /// What was measured.
    pub deviation: f64,
}

/// An adaptive coefficient aims at a divergence below the one the run starts with.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error(
    "expected an adaptive target above {initial} nats per response, the divergence before the first update, found {target}"
)]
pub struct AdaptiveTarget {
    /// The target, in nats per response.
    pub target: f64,
    /// The divergence between the initial policy and the reference.
    pub initial: f64,
}
