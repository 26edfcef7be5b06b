//! χ² divergence.

use burn::tensor::Tensor;

use super::{Divergence, LossDivergence, clamp_log_ratio, with_gradient_of};
use crate::shape::assert_same_shape;

/// χ²(π‖μ) = `Σ p²/q − 1` = E_μ[(ρ − 1)²] = E_π[ρ − 1], with ρ = π/μ.
///
/// Never below `e^{KL} − 1`. A whole sequence's χ² is that of the summed log-ratio, not a sum over tokens: use it at
/// sequence granularity.
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

impl LossDivergence for ChiSquared {
    /// Value `e^d − 1`.
    ///
    /// # Gradient
    /// That of χ²(π‖μ) on average over draws from π: `∇E_π[ρ − 1] = E_π[2ρ ∇log π]`, since `E_π[∇log π] = 0`.
    fn surrogate(&self, log_ratio: Tensor<2>) -> Tensor<2> {
        let d = clamp_log_ratio(log_ratio);
        let ratio = d.clone().detach().exp();
        with_gradient_of(ratio.clone() - 1.0, ratio * 2.0 * d)
    }
}
