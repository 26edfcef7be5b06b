//! Points on the segment between two models.

use burn::module::Module;

use crate::average::average;
use crate::error::{SoupError, WeightError};
use crate::weights::Weights;

/// α·a + (1−α)·b: `alpha` is the weight of the *first* model, as in SALSA's θ_soup(α).
///
/// α = 1 gives the first model and α = 0 the second, bit for bit.
///
/// # Errors
/// If α is outside [0, 1] or NaN, and as [`average`]. Beyond the segment: [`average`] with [`Weights::extrapolating`].
pub fn lerp<M: Module>(a: &M, b: &M, alpha: f64) -> Result<M, SoupError> {
    if !(0.0..=1.0).contains(&alpha) {
        return Err(WeightError::Alpha { alpha }.into());
    }
    average(&[a.clone(), b.clone()], Weights::new(&[alpha, 1.0 - alpha])?)
}
