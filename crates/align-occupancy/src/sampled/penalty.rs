//! From log ρ to what a step pays.

use serde::{Deserialize, Serialize};

use crate::error::OccupancyError;
use crate::estimates::trimmed_mean;

/// What a step pays for its novelty: the gradient of a divergence with respect to the occupancy, at its cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Penalty {
    /// d: the gradient of KL(μ‖ν), up to a constant.
    Kl,
    /// e^d − 1: *half* the gradient of χ². With weight λ, what is maximised is `J − (λ/2)·χ²`.
    ChiSquared,
    /// (e^d − 1)/√χ̂²: the gradient of √χ², and its mean under the policy is √χ² itself.
    ///
    /// Without the −1 the gradient is the same, as a constant reward moves nothing; the mean then is `√χ² + 1/√χ²`.
    SqrtChiSquared,
    /// sign d: the gradient of ‖μ − ν‖₁.
    TotalVariation,
}

impl Penalty {
    /// λ times the penalty of a step with log ratio `d`.
    ///
    /// [`SqrtChiSquared`](Self::SqrtChiSquared) without a positive χ̂² is that of χ² for want of a root.
    ///
    /// # Units
    /// Those of λ.
    ///
    /// # Examples
    /// ```
    /// use align_occupancy::sampled::Penalty;
    ///
    /// // A cell visited twice as often as by the reference, at √χ² = ½: (2 − 1)/½.
    /// assert_eq!(Penalty::SqrtChiSquared.of(2f64.ln(), 1.0, 0.25), 2.0);
    /// ```
    pub fn of(self, d: f64, lambda: f64, chi_squared: f64) -> f64 {
        match self {
            Self::Kl => lambda * d,
            Self::ChiSquared => lambda * d.exp_m1(),
            Self::SqrtChiSquared if chi_squared > 0.0 => lambda / chi_squared.sqrt() * d.exp_m1(),
            Self::SqrtChiSquared => lambda * d.exp_m1(),
            Self::TotalVariation if d == 0.0 => 0.0,
            Self::TotalVariation => lambda * d.signum(),
        }
    }
}

/// χ̂² = mean(e^d − 1) over the policy's steps, without the `share` largest and smallest.
///
/// Not positive where trimming takes away what little there was: there is no root to divide by then.
///
/// # Errors
/// Without steps, or if a log ratio is not a number.
///
/// # Source
/// The released code of Laidlaw, Singhal, Dragan 2025, whose slice is empty below 100 steps; here nothing is trimmed then.
pub fn trimmed_chi_squared(log_ratios: &[f64], share: f64) -> Result<f64, OccupancyError> {
    let terms: Vec<f64> = log_ratios.iter().map(|d| d.exp_m1()).collect();
    trimmed_mean(&terms, share)
}
