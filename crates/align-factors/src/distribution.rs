//! Importance distributions: how much of a model's reasons each factor is.

use std::ops::Deref;

use align_core::number::Positive;
use serde::{Deserialize, Serialize};

use crate::FactorsError;

/// How far from 1 a written distribution may sum.
const SUM_TOLERANCE: f64 = 1e-6;

/// Below this a mean absolute attribution is rounding.
const NOTHING: f64 = 1e-12;

/// How importances become a distribution.
///
/// Which one the paper uses is not confirmed; the ratio is our default, because it does not change with the scale of the model's
/// output: multiplying every score by 7 leaves it as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", from = "Written")]
pub enum Normalization {
    /// `p_j = I_j / Σ_k I_k`.
    #[default]
    Ratio,
    /// `p = softmax(I / τ)`. It depends on the scale of the scores, and can be met by inflating them.
    Softmax {
        /// τ, in the units of the scores.
        tau: Positive,
    },
}

/// As it is read. Braces: a bare unit variant would accept stray keys.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Written {
    Ratio {},
    Softmax { tau: Positive },
}

impl From<Written> for Normalization {
    fn from(written: Written) -> Self {
        match written {
            Written::Ratio {} => Self::Ratio,
            Written::Softmax { tau } => Self::Softmax { tau },
        }
    }
}

/// A distribution over at least two factors: non-negative, summing to 1.
///
/// # Examples
/// ```
/// use align_factors::{ImportanceDistribution, Normalization};
///
/// let p = ImportanceDistribution::of(&[2.0, 1.25, 0.75], Normalization::Ratio)?;
/// assert_eq!(p.as_slice(), [0.5, 0.3125, 0.1875]);
/// # Ok::<(), align_factors::FactorsError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<f64>", into = "Vec<f64>")]
pub struct ImportanceDistribution(Vec<f64>);

impl ImportanceDistribution {
    /// A written distribution, divided by its sum.
    ///
    /// # Errors
    /// [`FactorsError::NothingToCompare`] with fewer than two factors; [`FactorsError::InvalidDistribution`] if an entry is
    /// negative or NaN, or the sum is not 1 within 1e-6.
    pub fn new(masses: Vec<f64>) -> Result<Self, FactorsError> {
        at_least_two(masses.len())?;
        let sum = checked_sum(&masses)?;
        Ok(Self(masses.into_iter().map(|mass| mass / sum).collect()))
    }

    /// The distribution of a model's importances `I_j = mean |φ_j|`.
    ///
    /// # Errors
    /// [`FactorsError::NothingToCompare`] with fewer than two factors; [`FactorsError::DegenerateExplanation`] if no
    /// importance is above 1e-12; [`FactorsError::InvalidDistribution`] if one is negative or not finite.
    pub fn of(importances: &[f64], normalization: Normalization) -> Result<Self, FactorsError> {
        at_least_two(importances.len())?;
        let sum: f64 = importances.iter().sum();
        if !sum.is_finite() || importances.iter().any(|importance| *importance < 0.0) {
            return Err(FactorsError::InvalidDistribution { sum });
        }
        let largest = importances.iter().copied().fold(0.0, f64::max);
        if largest <= NOTHING {
            return Err(FactorsError::DegenerateExplanation);
        }
        Ok(match normalization {
            Normalization::Ratio => Self(importances.iter().map(|importance| importance / sum).collect()),
            Normalization::Softmax { tau } => {
                Self::from_weights(importances.iter().map(|x| ((x - largest) / tau.get()).exp()).collect())
            }
        })
    }

    /// Non-negative weights with a finite sum above 0, divided by it.
    pub(crate) fn from_weights(weights: Vec<f64>) -> Self {
        let sum: f64 = weights.iter().sum();
        debug_assert!(sum > 0.0 && sum.is_finite(), "weights sum to {sum}");
        Self(weights.into_iter().map(|weight| weight / sum).collect())
    }

    /// Every factor the same.
    ///
    /// # Errors
    /// [`FactorsError::NothingToCompare`] with fewer than two factors.
    pub fn uniform(factors: usize) -> Result<Self, FactorsError> {
        at_least_two(factors)?;
        Ok(Self(vec![1.0 / factors as f64; factors]))
    }

    /// `(1 − e) q + e/d`: no factor is without mass, so that no divergence is infinite.
    ///
    /// # Panics
    /// If e is not in [0, 1].
    pub fn smoothed(&self, e: f64) -> Self {
        assert!((0.0..=1.0).contains(&e), "smoothed: e must be in [0, 1], found {e}");
        let rest = e / self.0.len() as f64;
        Self(self.0.iter().map(|mass| (1.0 - e) * mass + rest).collect())
    }

    /// Masses raised to at least `floor` and normalised again, for the divergences of reports.
    ///
    /// # Panics
    /// If the floor is negative or not finite.
    pub fn floored(&self, floor: f64) -> Self {
        assert!(
            floor >= 0.0 && floor.is_finite(),
            "floored: the floor must be finite and >= 0, found {floor}"
        );
        Self::from_weights(self.0.iter().map(|mass| mass.max(floor)).collect())
    }

    /// The masses in the order of the factors.
    pub fn as_slice(&self) -> &[f64] {
        &self.0
    }
}

/// The sum of masses or weights that are non-negative and sum to 1 within the tolerance.
pub(crate) fn checked_sum(masses: &[f64]) -> Result<f64, FactorsError> {
    let sum: f64 = masses.iter().sum();
    // A NaN among them is one in the sum.
    if sum.is_nan() || (sum - 1.0).abs() > SUM_TOLERANCE || masses.iter().any(|mass| *mass < 0.0) {
        return Err(FactorsError::InvalidDistribution { sum });
    }
    Ok(sum)
}

/// Fails with fewer than two factors.
pub(crate) fn at_least_two(factors: usize) -> Result<(), FactorsError> {
    if factors < 2 { Err(FactorsError::NothingToCompare) } else { Ok(()) }
}

impl Deref for ImportanceDistribution {
    type Target = [f64];

    fn deref(&self) -> &[f64] {
        &self.0
    }
}

impl TryFrom<Vec<f64>> for ImportanceDistribution {
    type Error = FactorsError;

    fn try_from(masses: Vec<f64>) -> Result<Self, FactorsError> {
        Self::new(masses)
    }
}

impl From<ImportanceDistribution> for Vec<f64> {
    fn from(distribution: ImportanceDistribution) -> Self {
        distribution.0
    }
}
