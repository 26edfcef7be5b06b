//! χ² divergence, exactly and as it was published.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::derivative::descend;
use super::{Divergence, FDivergence, LOG_RATIO_LIMIT, LossDivergence, clamp_log_ratio, with_gradient_of};
use crate::shape::assert_same_shape;

/// Where the released estimators leave the exponential for its tangent.
///
/// # Source
/// The code of Laidlaw, Singhal, Dragan 2025, `cassidylaidlaw/llm_optimization`.
pub const RELEASED_LIMIT: f64 = 10.0;

/// χ²(π‖μ) = `Σ p²/q − 1` = E_μ[(ρ − 1)²] = E_π[ρ − 1], with ρ = π/μ.
///
/// Never below `e^{KL} − 1`. A whole sequence's χ² is that of the summed log-ratio, not a sum over tokens: use it at
/// sequence granularity.
///
/// In the reward the score function turns the value `ρ − 1` into **half** the gradient of χ²: β there is worth β/2 in the
/// loss, where the gradient is whole.
///
/// # Source
/// Laidlaw, Singhal, Dragan 2025, section 5 and lemma A.6, <https://arxiv.org/abs/2403.03185>.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChiSquared;

impl Divergence for ChiSquared {
    /// `e^d − 1`: unbiased, of either sign, of heavy right tail.
    fn estimate(&self, log_ratio: Tensor<2>) -> Tensor<2> {
        clamp_log_ratio(log_ratio).exp() - 1.0
    }

    fn exact(&self, log_p: Tensor<2>, log_q: Tensor<2>) -> Tensor<1> {
        assert_same_shape("Divergence::exact", [log_p.dims(), log_q.dims()]);
        let impossible = log_p.clone().equal_elem(f32::NEG_INFINITY);
        let log_q = log_q.mask_fill(impossible.clone(), 0.0);
        let terms = (log_p.mask_fill(impossible.clone(), 0.0) * 2.0 - log_q).exp();
        terms.mask_fill(impossible, 0.0).sum_dim(1).squeeze_dim::<1>(1) - 1.0
    }
}

impl FDivergence for ChiSquared {
    /// `2 (ρ − 1)`.
    fn derivative(&self, log_ratio: Tensor<2>) -> Tensor<2> {
        self.estimate(log_ratio) * 2.0
    }
}

impl LossDivergence for ChiSquared {
    /// Value `e^d − 1`.
    ///
    /// # Gradient
    /// That of χ²(π‖μ) on average over draws from π: `E_π[2 (ρ − 1) ∇log π]`.
    fn surrogate(&self, log_ratio: Tensor<2>) -> Tensor<2> {
        descend(self, log_ratio)
    }
}

/// Which form of χ² is differentiated in a loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChiSquaredLoss {
    /// [`ChiSquared`]: the gradient of χ²(π‖μ).
    #[default]
    Exact,
    /// `e^d + e^{−d} − 2`, differentiated as it stands and continued linearly beyond ±[`RELEASED_LIMIT`], as published.
    ///
    /// Its value is never negative and averages to χ², because `E_π[e^{−d} − 1] = 0`. Its gradient averages to
    /// **½∇χ²(π‖μ) + ∇KL(μ‖π)**: near the reference the same as ∇χ² to first order, far from it half as strong against large
    /// ratios.
    ///
    /// # Source
    /// Laidlaw, Singhal, Dragan 2025, `cassidylaidlaw/llm_optimization`; the gradient by enumeration in the tests.
    Released,
}

impl LossDivergence for ChiSquaredLoss {
    fn surrogate(&self, log_ratio: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Exact => ChiSquared.surrogate(log_ratio),
            Self::Released => released(log_ratio),
        }
    }

    fn log_ratio_limit(&self) -> f64 {
        match self {
            Self::Exact => LOG_RATIO_LIMIT,
            Self::Released => RELEASED_LIMIT,
        }
    }
}

/// `(e^{d/2} − e^{−d/2})² = e^d + e^{−d} − 2`: never negative, and on average over draws from π the value of χ², since the
/// control variate `e^{−d} − 1` averages to 0. What χ² is **measured** by; its spread vanishes with the divergence, which
/// that of `e^d − 1` does not.
///
/// # Shapes
/// `[B, R]` → `[B, R]`; `[B, 1]` for whole responses. Clamped at ±[`LOG_RATIO_LIMIT`].
///
/// # Source
/// Laidlaw, Singhal, Dragan 2025, the appendix on RLHF, <https://arxiv.org/abs/2403.03185>.
pub fn chi_squared_estimate(log_ratio: Tensor<2>) -> Tensor<2> {
    let half = clamp_log_ratio(log_ratio) / 2.0;
    (half.clone().exp() - half.neg().exp()).square()
}

/// `ρ − 1 = e^d − 1`, beyond `d = 10` along its tangent: `e^10 (1 + d − 10) − 1`.
///
/// # Shapes
/// `[B, R]` → `[B, R]`; `[B, 1]` for whole responses.
///
/// # Gradient
/// `e^{min(d, 10)}`.
pub fn continued_excess(log_ratio: Tensor<2>) -> Tensor<2> {
    let constant = log_ratio.clone().without_autodiff();
    let slope = constant.clone().clamp_max(RELEASED_LIMIT).exp();
    let beyond = (constant - RELEASED_LIMIT).clamp_min(0.0);
    let value = slope.clone() * (beyond + 1.0) - 1.0;
    if log_ratio.is_autodiff() { with_gradient_of(value, slope * log_ratio) } else { value }
}

/// Both sides continued: `(ρ − 1) + (1/ρ − 1)`.
pub(super) fn released(log_ratio: Tensor<2>) -> Tensor<2> {
    continued_excess(log_ratio.clone()) + continued_excess(log_ratio.neg())
}
