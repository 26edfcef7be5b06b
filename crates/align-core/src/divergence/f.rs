//! f-divergences `D_f(π‖μ) = E_μ[f(ρ)] = E_π[f(ρ)/ρ]` with ρ = π/μ = e^d, `f` convex and `f(1) = 0`.
//!
//! Generators are normalised to `f′(1) = 0`, which changes no divergence and makes every single-draw estimate
//! non-negative.
//!
//! # Source
//! Csiszár 1967; Go et al. 2023, table 1, <https://arxiv.org/abs/2302.08215>.

use std::f64::consts::LN_2;

use burn::tensor::{Tensor, activation::softplus};

use super::derivative::descend;
use super::{Divergence, FDivergence, LossDivergence, clamp_log_ratio, kl};
use crate::shape::assert_same_shape;

/// Reverse KL: KL(μ‖π) = `Σ q (log q − log p)`, with `f(u) = u − 1 − log u`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReverseKl;

impl Divergence for ReverseKl {
    /// `1 − e^{−d}(1 + d)`.
    fn estimate(&self, log_ratio: Tensor<2>) -> Tensor<2> {
        let d = clamp_log_ratio(log_ratio);
        (d.clone().neg().exp() * (d + 1.0)).neg() + 1.0
    }

    fn exact(&self, log_p: Tensor<2>, log_q: Tensor<2>) -> Tensor<1> {
        kl::exact(log_q, log_p)
    }
}

impl FDivergence for ReverseKl {
    /// `1 − 1/ρ`.
    fn derivative(&self, log_ratio: Tensor<2>) -> Tensor<2> {
        clamp_log_ratio(log_ratio.without_autodiff()).neg().exp().neg() + 1.0
    }
}

impl LossDivergence for ReverseKl {
    /// Value of the estimate.
    ///
    /// # Gradient
    /// That of KL(μ‖π) on average over draws from π; at each draw that of [`KlLoss::K3`](super::KlLoss::K3).
    fn surrogate(&self, log_ratio: Tensor<2>) -> Tensor<2> {
        descend(self, log_ratio)
    }
}

/// Jensen–Shannon: `½ KL(p‖m) + ½ KL(q‖m)` with `m = (p + q)/2`; symmetric, at most log 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JensenShannon;

impl Divergence for JensenShannon {
    /// `½ [d − (1 + e^{−d}) log((1 + e^d)/2)]`.
    fn estimate(&self, log_ratio: Tensor<2>) -> Tensor<2> {
        let d = clamp_log_ratio(log_ratio);
        let mixture = softplus(d.clone(), 1.0) - LN_2;
        (d.clone() - (d.neg().exp() + 1.0) * mixture) / 2.0
    }

    fn exact(&self, log_p: Tensor<2>, log_q: Tensor<2>) -> Tensor<1> {
        assert_same_shape("Divergence::exact", [log_p.dims(), log_q.dims()]);
        // What is impossible under both is filled with 1 everywhere: it costs nothing, and the slope of log 0 never enters.
        let never = |log: &Tensor<2>| log.clone().equal_elem(f32::NEG_INFINITY);
        let both = never(&log_p).bool_and(never(&log_q));
        let (log_p, log_q) = (log_p.mask_fill(both.clone(), 0.0), log_q.mask_fill(both, 0.0));
        let log_m = ((log_p.clone().exp() + log_q.clone().exp()) / 2.0).log();
        (kl::exact(log_p, log_m.clone()) + kl::exact(log_q, log_m)) / 2.0
    }
}

impl FDivergence for JensenShannon {
    /// `½ log(2ρ/(1 + ρ)) = ½ (log 2 − log(1 + e^{−d}))`, at most `½ log 2`.
    fn derivative(&self, log_ratio: Tensor<2>) -> Tensor<2> {
        let d = clamp_log_ratio(log_ratio.without_autodiff());
        (softplus(d.neg(), 1.0) - LN_2) / -2.0
    }
}

impl LossDivergence for JensenShannon {
    /// Value of the estimate.
    ///
    /// # Gradient
    /// That of the Jensen–Shannon divergence on average over draws from π.
    fn surrogate(&self, log_ratio: Tensor<2>) -> Tensor<2> {
        descend(self, log_ratio)
    }
}

/// Total variation: `½ Σ |p − q|`, at most 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TotalVariation;

impl Divergence for TotalVariation {
    /// `½ |1 − e^{−d}|`.
    fn estimate(&self, log_ratio: Tensor<2>) -> Tensor<2> {
        (clamp_log_ratio(log_ratio).neg().exp() - 1.0).abs() / 2.0
    }

    fn exact(&self, log_p: Tensor<2>, log_q: Tensor<2>) -> Tensor<1> {
        assert_same_shape("Divergence::exact", [log_p.dims(), log_q.dims()]);
        (log_p.exp() - log_q.exp()).abs().sum_dim(1).squeeze_dim::<1>(1) / 2.0
    }
}

/// Squared Hellinger distance: `½ Σ (√p − √q)²` = 1 − BC(p, q), at most 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SquaredHellinger;

impl Divergence for SquaredHellinger {
    /// `½ (1 − e^{−d/2})²`.
    fn estimate(&self, log_ratio: Tensor<2>) -> Tensor<2> {
        ((clamp_log_ratio(log_ratio) / -2.0).exp() - 1.0).square() / 2.0
    }

    fn exact(&self, log_p: Tensor<2>, log_q: Tensor<2>) -> Tensor<1> {
        assert_same_shape("Divergence::exact", [log_p.dims(), log_q.dims()]);
        ((log_p / 2.0).exp() - (log_q / 2.0).exp()).square().sum_dim(1).squeeze_dim::<1>(1) / 2.0
    }
}

impl FDivergence for SquaredHellinger {
    /// `½ (1 − ρ^{−½})`.
    fn derivative(&self, log_ratio: Tensor<2>) -> Tensor<2> {
        let d = clamp_log_ratio(log_ratio.without_autodiff());
        ((d / -2.0).exp() - 1.0) / -2.0
    }
}

impl LossDivergence for SquaredHellinger {
    /// Value of the estimate.
    ///
    /// # Gradient
    /// That of the squared Hellinger distance on average over draws from π.
    fn surrogate(&self, log_ratio: Tensor<2>) -> Tensor<2> {
        descend(self, log_ratio)
    }
}

/// No divergence: every policy is at distance 0. For runs without a reference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoDivergence;

impl Divergence for NoDivergence {
    fn estimate(&self, log_ratio: Tensor<2>) -> Tensor<2> {
        log_ratio.zeros_like()
    }

    fn exact(&self, log_p: Tensor<2>, log_q: Tensor<2>) -> Tensor<1> {
        assert_same_shape("Divergence::exact", [log_p.dims(), log_q.dims()]);
        log_p.zeros_like().sum_dim(1).squeeze_dim(1)
    }
}
