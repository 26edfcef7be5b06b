//! Weights of a soup, checked when they are made.

use serde::{Deserialize, Serialize};

use crate::error::WeightError;

/// How far a sum of weights may be from 1.
const SUM_TOLERANCE: f64 = 1e-6;

/// Weights w_k of a soup Σ_k w_k θ_k: not empty, finite, Σ_k w_k = 1 within 1e-6, and w_k ≥ 0 unless made by
/// [`Weights::extrapolating`].
///
/// Numbers that do not sum to 1 are refused rather than silently rescaled; [`Weights::normalized`] rescales them.
///
/// # Examples
/// ```
/// use align_soup::Weights;
///
/// assert_eq!(Weights::uniform(2)?.as_slice(), [0.5, 0.5]);
/// assert_eq!(Weights::normalized(&[1.0, 3.0])?.as_slice(), [0.25, 0.75]);
/// assert!(Weights::new(&[0.1, 1.0]).is_err());
/// # Ok::<(), align_soup::WeightError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<f64>", into = "Vec<f64>")]
pub struct Weights(Vec<f64>);

impl Weights {
    /// 1/n for each of `n` ingredients.
    ///
    /// # Errors
    /// If `n` is 0.
    pub fn uniform(n: usize) -> Result<Self, WeightError> {
        if n == 0 {
            return Err(WeightError::Empty);
        }
        Ok(Self(vec![1.0 / n as f64; n]))
    }

    /// Takes the weights as they are.
    ///
    /// # Errors
    /// If there are none, one is not finite or negative, or they do not sum to 1 within 1e-6.
    pub fn new(weights: &[f64]) -> Result<Self, WeightError> {
        refuse_negative(weights)?;
        Self::extrapolating(weights)
    }

    /// Divides the weights by their sum.
    ///
    /// # Errors
    /// If there are none, one is not finite or negative, or their sum is 0 or infinite.
    pub fn normalized(weights: &[f64]) -> Result<Self, WeightError> {
        refuse_negative(weights)?;
        let sum: f64 = weights.iter().sum();
        if !(sum > 0.0 && sum.is_finite()) {
            return Err(WeightError::NotNormalizable { sum });
        }
        Ok(Self(weights.iter().map(|weight| weight / sum).collect()))
    }

    /// Allows negative weights: the result leaves the segment (or simplex) between the ingredients.
    ///
    /// # Errors
    /// If there are none, one is not finite, or they do not sum to 1 within 1e-6.
    pub fn extrapolating(weights: &[f64]) -> Result<Self, WeightError> {
        refuse_non_finite(weights)?;
        let sum: f64 = weights.iter().sum();
        if (sum - 1.0).abs() > SUM_TOLERANCE {
            return Err(WeightError::Sum { sum });
        }
        Ok(Self(weights.to_vec()))
    }

    /// The weights, in the order of the ingredients.
    pub fn as_slice(&self) -> &[f64] {
        &self.0
    }

    /// Fails unless there is one weight for each of `ingredients`.
    pub(crate) fn expect_count(&self, ingredients: usize) -> Result<(), WeightError> {
        if self.0.len() != ingredients {
            return Err(WeightError::Count { ingredients, weights: self.0.len() });
        }
        Ok(())
    }
}

fn refuse_non_finite(weights: &[f64]) -> Result<(), WeightError> {
    if weights.is_empty() {
        return Err(WeightError::Empty);
    }
    match weights.iter().position(|weight| !weight.is_finite()) {
        Some(index) => Err(WeightError::NotFinite { index, value: weights[index] }),
        None => Ok(()),
    }
}

fn refuse_negative(weights: &[f64]) -> Result<(), WeightError> {
    refuse_non_finite(weights)?;
    match weights.iter().position(|weight| *weight < 0.0) {
        Some(index) => Err(WeightError::Negative { index, value: weights[index] }),
        None => Ok(()),
    }
}

impl TryFrom<&[f64]> for Weights {
    type Error = WeightError;

    fn try_from(weights: &[f64]) -> Result<Self, WeightError> {
        Self::new(weights)
    }
}

impl<const N: usize> TryFrom<&[f64; N]> for Weights {
    type Error = WeightError;

    fn try_from(weights: &[f64; N]) -> Result<Self, WeightError> {
        Self::new(weights)
    }
}

impl TryFrom<Vec<f64>> for Weights {
    type Error = WeightError;

    fn try_from(weights: Vec<f64>) -> Result<Self, WeightError> {
        Self::new(&weights)
    }
}

impl From<Weights> for Vec<f64> {
    fn from(weights: Weights) -> Self {
        weights.0
    }
}
