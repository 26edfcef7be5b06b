//! The α-divergences: one family from reverse KL over Hellinger and KL to χ².

use burn::tensor::{Bool, Tensor};

use super::derivative::descend;
use super::{Divergence, FDivergence, LossDivergence, clamp_log_ratio, kl};
use crate::number::Finite;
use crate::shape::assert_same_shape;

/// `D_α(π‖μ) = (Σ p^α q^{1−α} − 1) / (α (α − 1))`, with `f(u) = (u^α − 1 − α (u − 1)) / (α (α − 1))`.
///
/// | α | |
/// | --- | --- |
/// | → 0 | KL(μ‖π), [`ReverseKl`](super::ReverseKl) |
/// | ½ | four times [`SquaredHellinger`](super::SquaredHellinger) |
/// | → 1 | KL(π‖μ), [`Kl`](super::Kl) |
/// | 2 | half of [`ChiSquared`](super::ChiSquared) |
///
/// All have `f″(1) = 1`: near the reference they agree to second order. Amari's own index is `2α − 1`; Rényi's divergence of
/// order α is `log(1 + α (α − 1) D_α) / (α − 1)`. Larger α punishes what the reference would not say, smaller α what the
/// policy no longer says.
///
/// The ends 0 and 1 are the limits themselves. Within a thousandth of 0 the estimate loses digits to cancellation in f32; the
/// gradient does not. Beyond |α − 1| of 4 a log-ratio near the clamp overflows f32, and what is infinite stays infinite.
///
/// # Source
/// Cressie and Read 1984; Amari 2009, "α-divergence is unique", IEEE Transactions on Information Theory 55(11). Go et al.
/// 2023, table 1, <https://arxiv.org/abs/2302.08215>, call `1 − α` what is α here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AlphaDivergence {
    /// α, any finite number.
    pub alpha: Finite,
}

impl Divergence for AlphaDivergence {
    /// `f(ρ)/ρ = d (φ((α − 1) d) − φ(−d)) / α` with `φ(x) = (e^x − 1)/x`; never negative.
    fn estimate(&self, log_ratio: Tensor<2>) -> Tensor<2> {
        let d = clamp_log_ratio(log_ratio);
        match self.alpha.get() {
            0.0 => super::ReverseKl.estimate(d),
            alpha => {
                let difference = growth(d.clone() * (alpha - 1.0)) - growth(d.clone().neg());
                d * difference / alpha
            }
        }
    }

    fn exact(&self, log_p: Tensor<2>, log_q: Tensor<2>) -> Tensor<1> {
        assert_same_shape("Divergence::exact", [log_p.dims(), log_q.dims()]);
        let alpha = self.alpha.get();
        if alpha == 0.0 {
            return kl::exact(log_q, log_p);
        }
        if alpha == 1.0 {
            return kl::exact(log_p, log_q);
        }
        // Terms with a positive power of 0. Filled on the way in, so that ∞ − ∞ enters neither the value nor the gradient.
        let never = |log: &Tensor<2>| -> Tensor<2, Bool> { log.clone().equal_elem(f32::NEG_INFINITY) };
        let nothing = match alpha {
            alpha if alpha > 1.0 => never(&log_p),
            alpha if alpha < 0.0 => never(&log_q),
            _ => never(&log_p).bool_or(never(&log_q)),
        };
        let fill = |log: Tensor<2>| log.mask_fill(nothing.clone(), 0.0);
        let terms = (fill(log_p) * alpha + fill(log_q) * (1.0 - alpha)).exp().mask_fill(nothing.clone(), 0.0);
        (terms.sum_dim(1).squeeze_dim::<1>(1) - 1.0) / (alpha * (alpha - 1.0))
    }
}

impl FDivergence for AlphaDivergence {
    /// `(ρ^{α−1} − 1) / (α − 1) = d φ((α − 1) d)`.
    fn derivative(&self, log_ratio: Tensor<2>) -> Tensor<2> {
        let d = clamp_log_ratio(log_ratio.without_autodiff());
        d.clone() * growth(d * (self.alpha.get() - 1.0))
    }
}

impl LossDivergence for AlphaDivergence {
    /// Value of the estimate.
    ///
    /// # Gradient
    /// That of D_α(π‖μ) on average over draws from π.
    fn surrogate(&self, log_ratio: Tensor<2>) -> Tensor<2> {
        descend(self, log_ratio)
    }
}

/// `(e^x − 1)/x`, 1 at 0, without cancellation: by its series where |x| < 0.1.
fn growth(x: Tensor<2>) -> Tensor<2> {
    // Σ x^n/(n + 1)! to n = 7 by Horner's rule; the first term left out is below 3e-14.
    let series = (2..=8).rev().fold(x.ones_like(), |sum, n| sum * x.clone() / f64::from(n) + 1.0);
    let small = x.clone().abs().lower_elem(0.1);
    ((x.clone().exp() - 1.0) / x).mask_where(small, series)
}
