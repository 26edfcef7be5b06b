//! Plain training on weighted examples: what cleaning is compared with, and what comes after it.

use std::num::NonZeroUsize;

use align_core::number::Positive;
use serde::{Deserialize, Serialize};

use super::examples::{ExampleSet, Examples, Part};
use crate::{Batches, BilevelError, Point, Stream};

/// Gradient descent on `(1/n) Σ sᵢ ℓᵢ(y) + (C/2)|y|²`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FitConfig {
    /// C. As small as keeps the minimiser bounded.
    pub ridge: Positive,
    /// The step size.
    pub step: Positive,
    /// How many steps.
    pub steps: u64,
    /// Examples in a step; all if absent.
    pub batch: Option<NonZeroUsize>,
    /// Of the batches.
    pub seed: u64,
}

impl Default for FitConfig {
    fn default() -> Self {
        Self {
            ridge: Positive::literal(0.01),
            step: Positive::literal(1.0),
            steps: 400,
            batch: None,
            seed: 0,
        }
    }
}

/// Trains on one set, each example with its weight. With equal weights on the trusted set it gives the baseline that
/// cleaning has to beat.
///
/// # Errors
/// If the weights are not as many as the examples, the batch is larger, or a gradient is not finite.
pub fn fit<E: Examples>(
    examples: &E,
    set: ExampleSet,
    weights: &[f64],
    start: E::Y,
    config: &FitConfig,
) -> Result<E::Y, BilevelError> {
    let n = examples.count(set);
    if weights.len() != n {
        return Err(BilevelError::ShapeMismatch { which: "weights", expected: n, found: weights.len() });
    }
    let size = config.batch.map_or(n, NonZeroUsize::get);
    if size > n {
        return Err(BilevelError::InvalidCount { name: "batch", least: 1, most: n, found: size });
    }
    let all: Vec<usize> = (0..n).collect();
    let batches = Batches::new(config.seed, config.batch);
    let mut y = start;
    for step in 0..config.steps {
        let rows = batches.draw(Stream::InnerLower, step, 0, n).rows;
        let rows = rows.as_deref().unwrap_or(&all);
        let coefficients: Vec<f64> = rows.iter().map(|&row| weights[row] / size as f64).collect();
        let mut gradient = examples.gradient(&y, &[Part { set, rows, coefficients: &coefficients }]);
        gradient.add_scaled(config.ridge.get(), &y);
        if !gradient.is_finite() {
            return Err(BilevelError::NonFinite { which: "the gradient of a fit", outer: 0, inner: step });
        }
        y.add_scaled(-config.step.get(), &gradient);
    }
    Ok(y)
}
