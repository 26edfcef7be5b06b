//! Kullback–Leibler divergence and its estimators k1, k2, k3.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{Divergence, FDivergence, LossDivergence, clamp_log_ratio, with_gradient_of};
use crate::shape::assert_same_shape;

/// How KL(π‖μ) is estimated from `d = log π(y) − log μ(y)` at a draw `y ∼ π`.
///
/// # Source
/// Schulman 2020, "Approximating KL divergence", <http://joschu.net/blog/kl-approx.html>.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    /// `d`: unbiased, of either sign. The default of TRL's PPO.
    #[default]
    K1,
    /// `d²/2`: biased, small variance.
    K2,
    /// `e^{−d} − 1 + d`: unbiased, never negative.
    K3,
}

/// KL(π‖μ) = `Σ p (log p − log q)`, in nats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kl {
    /// Used by [`Divergence::estimate`].
    pub estimator: KlEstimator,
}

impl Divergence for Kl {
    fn estimate(&self, log_ratio: Tensor<2>) -> Tensor<2> {
        let d = clamp_log_ratio(log_ratio);
        match self.estimator {
            KlEstimator::K1 => d,
            KlEstimator::K2 => k2(d),
            KlEstimator::K3 => k3(d),
        }
    }

    fn exact(&self, log_p: Tensor<2>, log_q: Tensor<2>) -> Tensor<1> {
        exact(log_p, log_q)
    }
}

impl FDivergence for Kl {
    /// `log ρ = d`.
    fn derivative(&self, log_ratio: Tensor<2>) -> Tensor<2> {
        clamp_log_ratio(log_ratio.without_autodiff())
    }
}

/// What of the KL divergence may be differentiated. k1 is missing on purpose: its gradient at draws from π is zero on
/// average, whatever the policies.
///
/// # Source
/// ppo-details 13; checked by enumeration in the tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlLoss {
    /// Value `d²/2`, gradient of KL(π‖μ).
    #[default]
    K2,
    /// Value `e^{−d} − 1 + d`, gradient of KL(**μ‖π**): the form used by GRPO.
    K3,
    /// Value of k3, gradient of k2: an unbiased number to log and the gradient of KL(π‖μ) (verl's "+").
    K3Plus,
}

impl LossDivergence for KlLoss {
    fn surrogate(&self, log_ratio: Tensor<2>) -> Tensor<2> {
        let d = clamp_log_ratio(log_ratio);
        match self {
            Self::K2 => k2(d),
            Self::K3 => k3(d),
            Self::K3Plus => with_gradient_of(k3(d.clone()), k2(d)),
        }
    }
}

fn k2(d: Tensor<2>) -> Tensor<2> {
    d.square() / 2.0
}

fn k3(d: Tensor<2>) -> Tensor<2> {
    d.clone().neg().exp() - 1.0 + d
}

/// `Σ_v p (log p − log q)` for rows of log-probabilities; impossible outcomes of p contribute 0.
pub(super) fn exact(log_p: Tensor<2>, log_q: Tensor<2>) -> Tensor<1> {
    assert_same_shape("Divergence::exact", [log_p.dims(), log_q.dims()]);
    // Filled before the product: −∞ − (−∞) is NaN, and so would be its gradient.
    let impossible = log_p.clone().equal_elem(f32::NEG_INFINITY);
    let log_p = log_p.mask_fill(impossible.clone(), 0.0);
    let log_q = log_q.mask_fill(impossible, 0.0);
    (log_p.clone().exp() * (log_p - log_q)).sum_dim(1).squeeze_dim(1)
}
