//! √χ²: no mean over draws, but the root of one.
//!
//! `λ √max(χ̂², 10⁻⁴)` with χ̂² the mean of [`chi_squared_estimate`] over a batch of whole responses. The root of a mean over
//! several prompts is not the mean of the prompts' roots; the former is meant.
//!
//! # At the kink
//! At or below [`ROOT_FLOOR`] the value is `λ √floor` and the gradient 0, as in the published implementation: a policy within
//! a hundredth of its reference is not held. Above it the pull has full strength at once, because √χ² is a norm; with λ of at
//! least the deviation of the reward the reference itself is optimal.
//!
//! # Batches in parts
//! χ̂² is measured on the batch that is given, unless it was fixed before ([`SqrtChiSquared::at`],
//! [`fixed_to`](super::LossDivergence::fixed_to)); with χ̂² fixed, a batch in parts gives what the whole one gives.
//!
//! # Source
//! Laidlaw, Singhal, Dragan 2025, eq. 5 and section 5, <https://arxiv.org/abs/2403.03185>, and their released code.

use burn::tensor::Tensor;

use super::chi_squared::released;
use super::derivative::centred;
use super::{
    ChiSquared, ChiSquaredLoss, Divergence, FDivergence, LossDivergence, chi_squared_estimate,
    clamp_log_ratio, with_gradient_of,
};

/// The least χ̂² the root is taken of.
pub const ROOT_FLOOR: f64 = 1e-4;

/// √χ² of whole responses for the **reward**: a response pays `√χ̂² + (ρ − mean ρ)/√χ̂²`.
///
/// The mean payment is √χ̂² and the score function turns it into the gradient of √χ², `E_π[(ρ − 1) ∇log π] / √χ²`.
///
/// # Shapes
/// [`estimate`](Divergence::estimate) takes the whole batch, `[B, 1]`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SqrtChiSquared {
    chi_squared: Option<f64>,
}

impl SqrtChiSquared {
    /// With χ̂² measured elsewhere, on a larger batch or by enumeration.
    pub fn at(chi_squared: f64) -> Self {
        Self { chi_squared: Some(chi_squared) }
    }
}

impl Divergence for SqrtChiSquared {
    fn estimate(&self, log_ratio: Tensor<2>) -> Tensor<2> {
        let measure = || mean(chi_squared_estimate(log_ratio.clone()));
        let root = Root::of(self.chi_squared.unwrap_or_else(measure));
        centred(ChiSquared.derivative(log_ratio)) * root.slope + root.value
    }

    /// `√max(χ², floor)` of each row.
    fn exact(&self, log_p: Tensor<2>, log_q: Tensor<2>) -> Tensor<1> {
        ChiSquared.exact(log_p, log_q).clamp_min(ROOT_FLOOR).sqrt()
    }

    fn whole_responses(&self) -> bool {
        true
    }
}

/// √χ² of whole responses for the **loss**: the root of the batch mean, linearised at χ̂².
///
/// # Gradient
/// Exact: `E_π[(ρ − 1) ∇log π] / √χ̂²`, that of √χ². Released: that of [`ChiSquaredLoss::Released`] over `2√χ̂²`, which is what
/// differentiating the root of the batch mean gives.
///
/// # Shapes
/// `[B, 1]`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SqrtChiSquaredLoss {
    /// Under the root.
    pub estimator: ChiSquaredLoss,
    /// χ̂², if it was measured elsewhere; else that of the batch given.
    pub chi_squared: Option<f64>,
}

impl SqrtChiSquaredLoss {
    /// Value per response and its mean, constants.
    fn measure(&self, log_ratio: Tensor<2>) -> (Tensor<2>, f64) {
        let log_ratio = log_ratio.without_autodiff();
        let each = match self.estimator {
            ChiSquaredLoss::Exact => chi_squared_estimate(log_ratio),
            ChiSquaredLoss::Released => released(log_ratio),
        };
        let mean = self.chi_squared.unwrap_or_else(|| mean(each.clone()));
        (each, mean)
    }
}

impl LossDivergence for SqrtChiSquaredLoss {
    /// Value `√χ̂² + (x − χ̂²)/(2√χ̂²)` for a response with the estimate x, so that the mean over the batch is √χ̂².
    fn surrogate(&self, log_ratio: Tensor<2>) -> Tensor<2> {
        let (each, mean) = self.measure(log_ratio.clone());
        let root = Root::of(mean);
        let value = (each - mean) * root.slope + root.value;
        let pull = match self.estimator {
            ChiSquaredLoss::Exact => {
                ChiSquared.derivative(log_ratio.clone().without_autodiff()) * clamp_log_ratio(log_ratio)
            }
            ChiSquaredLoss::Released => released(log_ratio),
        };
        with_gradient_of(value, pull * root.slope)
    }

    fn whole_responses(&self) -> bool {
        true
    }

    fn fixed_to(&self, log_ratio: Tensor<2>) -> Option<Box<dyn LossDivergence>> {
        match self.chi_squared {
            Some(_) => None,
            None => Some(Box::new(Self { chi_squared: Some(self.measure(log_ratio).1), ..*self })),
        }
    }

    fn log_ratio_limit(&self) -> f64 {
        self.estimator.log_ratio_limit()
    }
}

/// `√max(x, floor)` and its slope at x.
struct Root {
    value: f64,
    slope: f64,
}

impl Root {
    fn of(x: f64) -> Self {
        // A χ̂² that is not a number must be seen: NaN is not at most the floor.
        if x <= ROOT_FLOOR {
            return Self { value: ROOT_FLOOR.sqrt(), slope: 0.0 };
        }
        Self { value: x.sqrt(), slope: 0.5 / x.sqrt() }
    }
}

fn mean(x: Tensor<2>) -> f64 {
    x.without_autodiff().mean().into_scalar()
}
