//! f-divergences `D_f(π‖μ) = E_μ[f(ρ)] = E_π[f(ρ)/ρ]` with ρ = π/μ = e^d, `f` convex and `f(1) = 0`.
//!
//! Generators are normalised to `f′(1) = 0`, which changes no divergence and makes every single-draw estimate
//! non-negative.
//!
//! # Source
//! Csiszár 1967; Go et al. 2023, table 1, <https://arxiv.org/abs/2302.08215>.

use std::f64::consts::LN_2;

use burn::tensor::{Tensor, activation::softplus};

use super::{Divergence, clamp_log_ratio, kl};
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
        let log_m = ((log_p.clone().exp() + log_q.clone().exp()) / 2.0).log();
        (kl::exact(log_p, log_m.clone()) + kl::exact(log_q, log_m)) / 2.0
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
