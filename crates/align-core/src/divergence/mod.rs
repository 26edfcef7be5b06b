//! Divergences between two policies: from single draws, exactly, and as losses.
//!
//! | D(π‖μ) | type | estimate at `y ∼ π`, `d = log π(y) − log μ(y)` |
//! | --- | --- | --- |
//! | KL | [`Kl`] | k1 `d`, k2 `d²/2` (biased), k3 `e^{−d} − 1 + d` |
//! | reverse KL | [`ReverseKl`] | `1 − e^{−d}(1 + d)` |
//! | χ² | [`ChiSquared`] | `e^d − 1` |
//! | √χ² | [`SqrtChiSquared`] | of a whole batch: see there |
//! | α | [`AlphaDivergence`] | see there |
//! | Jensen–Shannon | [`JensenShannon`] | see there |
//! | total variation | [`TotalVariation`] | `|1 − e^{−d}| / 2` |
//! | squared Hellinger | [`SquaredHellinger`] | `(1 − e^{−d/2})² / 2` |
//!
//! # In the reward or in the loss
//! A [`Divergence`] is a *value*: it may be subtracted from a reward, where the score function supplies the gradient.
//! Differentiating such a value at fixed draws is something else: k1 then has zero expected gradient, k3 gives
//! ∇KL(μ‖π). What may be differentiated is a [`LossDivergence`], and k1 is not one.
//!
//! As a loss every divergence but [`KlLoss::K3`] and [`ChiSquaredLoss::Released`] has its own gradient, `E_π[f′(ρ) ∇log π]`.
//! In the reward a value has it for KL by k1 only (χ²: half of it); [`Derivative`] and [`SqrtChiSquared`] have it for whole
//! responses. Over the whole vocabulary and without any sampling error: [`exact`](crate::exact).
//!
//! # Overflow
//! Every `d` is clamped to ±[`LOG_RATIO_LIMIT`] on the way in; [`clamped_fraction`] says how often that mattered. The released
//! estimators of χ² go on linearly beyond ±[`RELEASED_LIMIT`] instead.

mod alpha;
mod chi_squared;
mod config;
mod derivative;
mod f;
mod kl;
mod root;

use std::fmt::Debug;

use burn::tensor::{Bool, Tensor};

use crate::masked;

pub use alpha::AlphaDivergence;
pub use chi_squared::{ChiSquared, ChiSquaredLoss, RELEASED_LIMIT, chi_squared_estimate, continued_excess};
pub use config::{DivergenceConfig, FDivergenceConfig, LossDivergenceConfig};
pub use derivative::{Derivative, FDivergence};
pub use f::{JensenShannon, NoDivergence, ReverseKl, SquaredHellinger, TotalVariation};
pub use kl::{Kl, KlEstimator, KlLoss};
pub use root::{ROOT_FLOOR, SqrtChiSquared, SqrtChiSquaredLoss};

/// The largest log-ratio that is exponentiated: `e^20 ≈ 4.9·10⁸` is far beyond any useful ratio and far below f32's limit.
pub const LOG_RATIO_LIMIT: f64 = 20.0;

/// A divergence D(π‖μ), known by its single-draw estimator and, for tests and small games, exactly.
pub trait Divergence: Debug + Send + Sync {
    /// From `log π − log μ` at tokens drawn from π. A value, not to be differentiated: see [`LossDivergence`].
    ///
    /// # Shapes
    /// `[B, R]` → `[B, R]`; `[B, 1]` for whole sequences.
    ///
    /// # Units
    /// Nats for KL, pure numbers otherwise.
    fn estimate(&self, log_ratio: Tensor<2>) -> Tensor<2>;

    /// From rows of normalised log-probabilities; −∞ is an impossible outcome.
    ///
    /// # Shapes
    /// `[N, V]`, `[N, V]` → `[N]`.
    fn exact(&self, log_p: Tensor<2>, log_q: Tensor<2>) -> Tensor<1>;

    /// Whether [`estimate`](Self::estimate) looks at a batch of whole responses together, so that it means nothing token by
    /// token. False unless overridden.
    fn whole_responses(&self) -> bool {
        false
    }
}

/// A divergence that can stand in a differentiated loss.
pub trait LossDivergence: Debug + Send + Sync {
    /// A quantity whose gradient, averaged over draws from π, pulls π towards μ.
    ///
    /// # Shapes
    /// `[B, R]` → `[B, R]`; `[B, 1]` for whole sequences.
    ///
    /// # Gradient
    /// Through `log_ratio`; which divergence it descends is stated by each implementation.
    fn surrogate(&self, log_ratio: Tensor<2>) -> Tensor<2>;

    /// As [`Divergence::whole_responses`].
    fn whole_responses(&self) -> bool {
        false
    }

    /// The same divergence with everything it takes from the whole batch fixed as constants, for a batch that comes in parts.
    /// None, unless overridden: every draw stands for itself.
    ///
    /// # Shapes
    /// Whole responses, `[B, 1]`.
    fn fixed_to(&self, _log_ratio: Tensor<2>) -> Option<Box<dyn LossDivergence>> {
        None
    }

    /// Beyond which |log-ratio| it is no longer what its name says: clamped, or continued by a line.
    fn log_ratio_limit(&self) -> f64 {
        LOG_RATIO_LIMIT
    }
}

impl<D: Divergence + ?Sized> Divergence for Box<D> {
    fn estimate(&self, log_ratio: Tensor<2>) -> Tensor<2> {
        (**self).estimate(log_ratio)
    }
    fn exact(&self, log_p: Tensor<2>, log_q: Tensor<2>) -> Tensor<1> {
        (**self).exact(log_p, log_q)
    }
    fn whole_responses(&self) -> bool {
        (**self).whole_responses()
    }
}

impl<D: LossDivergence + ?Sized> LossDivergence for Box<D> {
    fn surrogate(&self, log_ratio: Tensor<2>) -> Tensor<2> {
        (**self).surrogate(log_ratio)
    }
    fn whole_responses(&self) -> bool {
        (**self).whole_responses()
    }
    fn fixed_to(&self, log_ratio: Tensor<2>) -> Option<Box<dyn LossDivergence>> {
        (**self).fixed_to(log_ratio)
    }
    fn log_ratio_limit(&self) -> f64 {
        (**self).log_ratio_limit()
    }
}

/// Clamps a log-ratio to ±[`LOG_RATIO_LIMIT`].
///
/// # Gradient
/// That of the identity, also beyond the limit: a policy that went too far must still feel the pull back.
pub fn clamp_log_ratio<const D: usize>(log_ratio: Tensor<D>) -> Tensor<D> {
    let clamped = log_ratio.clone().clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT);
    if log_ratio.is_autodiff() { with_gradient_of(clamped, log_ratio) } else { clamped }
}

/// The share of counting positions whose log-ratio lies beyond ±[`LOG_RATIO_LIMIT`] or is not a number.
///
/// # Shapes
/// `[B, R]`, `[B, R]` → a number in [0, 1]; 0 if nothing counts.
///
/// # Panics
/// If the shapes differ.
pub fn clamped_fraction(log_ratio: &Tensor<2>, mask: &Tensor<2, Bool>) -> f64 {
    fraction_beyond(log_ratio, mask, LOG_RATIO_LIMIT)
}

/// [`clamped_fraction`] for another limit.
pub(crate) fn fraction_beyond(log_ratio: &Tensor<2>, mask: &Tensor<2, Bool>, limit: f64) -> f64 {
    let log_ratio = log_ratio.clone().without_autodiff();
    // Written as "not inside", so that NaN counts.
    let outside = log_ratio.abs().lower_equal_elem(limit).bool_not().float();
    let fraction: f64 = masked::mean(outside, mask).into_scalar();
    if fraction.is_nan() { 0.0 } else { fraction }
}

/// The numbers of `value`, the gradient of `gradient`: `value − stop(gradient) + gradient`, without its rounding.
fn with_gradient_of<const D: usize>(value: Tensor<D>, gradient: Tensor<D>) -> Tensor<D> {
    // `gradient − stop(gradient)` is exactly 0, except that ∞ − ∞ is not.
    let zero = gradient.clone() - gradient.clone().detach();
    let undefined = zero.clone().detach().is_nan();
    value.detach() + zero.mask_fill(undefined, 0.0)
}
