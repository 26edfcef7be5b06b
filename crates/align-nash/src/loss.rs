//! Direct preference losses, as functions of a pair's margin.
//!
//! Every loss here sees a pair through one number, how much more the policy likes the first answer than its anchor does:
//!
//! ```text
//! d = [log π(y₁) − log a(y₁)] − [log π(y₂) − log a(y₂)]          sums over response tokens, nats
//! ```
//!
//! The anchor `a` is the reference policy (DPO, IPO), or INPO's geometric mixture of the reference and the previous policy.
//! Labels may be soft: `p` is the probability that the first answer is the better one. For a loss ℓ of hard labels the soft one
//! is `p ℓ(d) + (1 − p) ℓ(−d)`, its mean over labels drawn with p.

use align_core::number::Finite;
use align_core::shape::assert_same_shape;
use burn::tensor::Tensor;
use burn::tensor::activation::{log_sigmoid, relu};
use serde::{Deserialize, Serialize};

/// Where exponentials of log-ratios are cut off, so that they stay numbers in f32; TRL's value.
const LARGEST_EXPONENT: f64 = 80.0;

/// `p ℓ(d) + (1 − p) ℓ(−d)`: the mean over labels.
fn over_labels(
    margin: Tensor<1>,
    preference: &Tensor<1>,
    hard: impl Fn(Tensor<1>) -> Tensor<1>,
) -> Tensor<1> {
    assert_same_shape("a pair loss", [margin.dims(), preference.dims()]);
    let p = preference.clone().without_autodiff();
    hard(margin.clone()) * p.clone() + hard(margin.neg()) * (p.neg() + 1.0)
}

/// DPO: `−log σ(βd)`; with label smoothing ε (conservative DPO) `−(1 − ε) log σ(βd) − ε log σ(−βd)`.
///
/// # Shapes
/// `margin`, `preference`: `[B]` → `[B]`.
///
/// # Gradient
/// `β (σ(βd) − q)` with `q = p (1 − ε) + (1 − p) ε`, the chance that a smoothed label says the first; none through `preference`.
///
/// # Panics
/// If the shapes differ.
///
/// # Source
/// Rafailov et al. 2023, eq. 7, <https://arxiv.org/abs/2305.18290>; smoothing: Mitchell 2023, "A note on DPO with noisy
/// preferences".
pub fn dpo(margin: Tensor<1>, preference: &Tensor<1>, beta: f64, label_smoothing: f64) -> Tensor<1> {
    let hard = |d: Tensor<1>| {
        let z = d * beta;
        let likely = log_sigmoid(z.clone()).neg() * (1.0 - label_smoothing);
        if label_smoothing == 0.0 { likely } else { likely - log_sigmoid(z.neg()) * label_smoothing }
    };
    over_labels(margin, preference, hard)
}

/// Robust DPO: `[−(1 − ε) log σ(βd) + ε log σ(−βd)] / (1 − 2ε)`, unbiased when labels are flipped at rate ε.
///
/// # Shapes
/// `[B]`, `[B]` → `[B]`.
///
/// # Gradient
/// `β (σ(βd) − (p − ε) / (1 − 2ε))`; for p = 1 that is `−β [(1 − ε) σ(−βd) + ε σ(βd)] / (1 − 2ε)`. It never dies out: the loss
/// of a hard label has no minimum.
///
/// # Panics
/// If the shapes differ.
///
/// # Source
/// Chowdhury et al. 2024, eq. 12, <https://arxiv.org/abs/2403.00409>.
pub fn robust_dpo(margin: Tensor<1>, preference: &Tensor<1>, beta: f64, flip_rate: f64) -> Tensor<1> {
    let hard = |d: Tensor<1>| {
        let z = d * beta;
        let unbiased = log_sigmoid(z.clone()) * (flip_rate - 1.0) + log_sigmoid(z.neg()) * flip_rate;
        unbiased / (1.0 - 2.0 * flip_rate)
    };
    over_labels(margin, preference, hard)
}

/// IPO as a regression: `(d − (p − ½)/β)²`, which is `(d − 1/(2β))²` for a hard label.
///
/// With INPO's anchor and β = η this is INPO's loss (E7, and E9 for soft labels). Up to a constant it is the mean over hard
/// labels drawn with p, at less variance. Sums over tokens, as the papers have it: dividing by lengths changes the minimiser.
///
/// # Shapes
/// `[B]`, `[B]` → `[B]`.
///
/// # Gradient
/// `2 (d − (p − ½)/β)`; none through `preference`.
///
/// # Panics
/// If the shapes differ.
///
/// # Source
/// Azar et al. 2023, eq. 17, <https://arxiv.org/abs/2310.12036>; Zhang et al. 2025, eq. 8, <https://arxiv.org/abs/2407.00617>.
pub fn ipo(margin: Tensor<1>, preference: &Tensor<1>, beta: f64) -> Tensor<1> {
    assert_same_shape("ipo", [margin.dims(), preference.dims()]);
    let target = (preference.clone().without_autodiff() - 0.5) / beta;
    (margin - target).square()
}

/// The hinge loss of SLiC: `max(0, 1 − βd)`.
///
/// # Shapes
/// `[B]`, `[B]` → `[B]`.
///
/// # Gradient
/// `−β` where `βd < 1`, else 0, for p = 1; with soft labels `−pβ [βd < 1] + (1 − p) β [βd > −1]`.
///
/// # Panics
/// If the shapes differ.
///
/// # Source
/// Zhao et al. 2023, <https://arxiv.org/abs/2305.10425>; with a reference as in Liu et al. 2023 (RSO),
/// <https://arxiv.org/abs/2309.06657>.
pub fn hinge(margin: Tensor<1>, preference: &Tensor<1>, beta: f64) -> Tensor<1> {
    over_labels(margin, preference, |d| relu((d * beta).neg() + 1.0))
}

/// SimPO: `−log σ(β d̄ − γ)` with `d̄` the difference of mean token log-probabilities, without a reference.
///
/// # Shapes
/// `mean_margin`: `[B]`, `log π(y₁)/|y₁| − log π(y₂)/|y₂|`; → `[B]`.
///
/// # Gradient
/// `−β σ(γ − β d̄)` for p = 1; with soft labels `−pβ σ(γ − β d̄) + (1 − p) β σ(γ + β d̄)`.
///
/// # Panics
/// If the shapes differ.
///
/// # Source
/// Meng et al. 2024, eq. 6, <https://arxiv.org/abs/2405.14734>.
pub fn simpo(mean_margin: Tensor<1>, preference: &Tensor<1>, beta: f64, gamma: f64) -> Tensor<1> {
    over_labels(mean_margin, preference, |d| log_sigmoid(d * beta - gamma).neg())
}

/// SPPO: each answer's log-ratio is drawn to its win rate, `(log π(y)/a(y) − (P(y ≻ π_t) − ½)/β)²`.
///
/// The loss of a pair is the sum over its two answers. With win rates 1 and 0 this is the hard form that TRL calls `sppo_hard`.
///
/// # Shapes
/// `log_ratios`, `win_rates`: `[N]` → `[N]`.
///
/// # Gradient
/// `2 (log π/a − (w − ½)/β)` through `log_ratios`; none through `win_rates`.
///
/// # Panics
/// If the shapes differ.
///
/// # Source
/// Wu et al. 2024, eq. 4.7 and algorithm 1, <https://arxiv.org/abs/2405.00675>.
pub fn sppo(log_ratios: Tensor<1>, win_rates: &Tensor<1>, beta: f64) -> Tensor<1> {
    assert_same_shape("sppo", [log_ratios.dims(), win_rates.dims()]);
    (log_ratios - (win_rates.clone().without_autodiff() - 0.5) / beta).square()
}

/// KTO of one answer: `λ (1 − σ(β (r − z₀)))` if it is desirable, `λ (1 − σ(β (z₀ − r)))` if not, with `r` its log-ratio.
///
/// # Shapes
/// `log_ratios`, `desirable` (1 or 0): `[N]` → `[N]`. `reference_point` is z₀ in nats, a constant: see
/// [`KtoObjective`](crate::KtoObjective).
///
/// # Gradient
/// `∓ λβ σ(u)(1 − σ(u))` with `u = ±β(r − z₀)`: upper signs if desirable. Largest where `r = z₀`, and it dies out on both sides.
///
/// # Panics
/// If the shapes differ.
///
/// # Source
/// Ethayarajh et al. 2024, eq. 8, <https://arxiv.org/abs/2402.01306>.
pub fn kto(
    log_ratios: Tensor<1>,
    desirable: &Tensor<1>,
    reference_point: f64,
    beta: f64,
    weights: KtoWeights,
) -> Tensor<1> {
    assert_same_shape("kto", [log_ratios.dims(), desirable.dims()]);
    let desirable = desirable.clone().without_autodiff();
    let sign = desirable.clone() * 2.0 - 1.0;
    let weight = desirable.clone() * weights.desirable + (desirable.neg() + 1.0) * weights.undesirable;
    // 1 − σ(u) = σ(−u)
    let gain = (log_ratios - reference_point) * sign * beta;
    burn::tensor::activation::sigmoid(gain.neg()) * weight
}

/// λ of desirable and undesirable answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KtoWeights {
    /// λ_D.
    pub desirable: f64,
    /// λ_U.
    pub undesirable: f64,
}

/// Which divergence to the reference the optimal policy of DPO minimises: `d` is made of `f'(π/π_ref)` instead of its logarithm.
///
/// # Source
/// Wang et al. 2023, table 1, <https://arxiv.org/abs/2309.16240>; the names are TRL's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FDivergence {
    /// `f'(u) = log u` (+ a constant that cancels): plain DPO.
    #[default]
    #[serde(alias = "kl")]
    ReverseKl,
    /// `f'(u) = 1 − 1/u`.
    ForwardKl,
    /// `f'(u) = log(2u/(1 + u))`.
    JsDivergence,
    /// `f'(u) = (u^(α−1) − 1)/(α − 1)`; its limit at α = 1 is the reverse KL, and that is what 1 means.
    AlphaDivergence {
        /// α: 0 is the forward KL.
        alpha: Finite,
    },
}

impl FDivergence {
    /// `f'(u)` from `log u`.
    ///
    /// Exponents are cut off at 80, where f32 ends: beyond that a score is constant and has no gradient.
    ///
    /// # Shapes
    /// `[N]` → `[N]`.
    ///
    /// # Gradient
    /// By `log u` it is `u f''(u)`: 1, `1/u`, `1/(1 + u)`, `u^(α−1)`.
    pub fn score(&self, log_ratio: Tensor<1>) -> Tensor<1> {
        let exp = |exponent: Tensor<1>| exponent.clamp_max(LARGEST_EXPONENT).exp();
        match *self {
            Self::ReverseKl => log_ratio,
            Self::ForwardKl => exp(log_ratio.neg()).neg() + 1.0,
            Self::JsDivergence => log_sigmoid(log_ratio) + std::f64::consts::LN_2,
            Self::AlphaDivergence { alpha } if (alpha.get() - 1.0).abs() < 1e-6 => log_ratio,
            Self::AlphaDivergence { alpha } => {
                let power = alpha.get() - 1.0;
                (exp(log_ratio * power) - 1.0) / power
            }
        }
    }
}
