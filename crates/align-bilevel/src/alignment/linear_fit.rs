//! The best linear reward for weighted pairs, by Newton's method.

use super::examples::{ExampleSet, Examples, Part};
use super::linear_pairs::LinearPairs;
use super::weights::sigmoid;
use crate::{BilevelError, Point};

/// Newton steps at most; a damped one halves the gradient at the least, an undamped one squares it.
const STEPS: u64 = 100;

impl LinearPairs {
    /// The reward that minimises `(1/n) Σ sᵢ ℓᵢ(y) + (C/2)|y|²` for given weights: what cleaned data are for.
    ///
    /// By damped Newton steps, to a gradient of 1e-12 or to where rounding ends the descent. One step costs O(n d² + d³).
    ///
    /// # Errors
    /// [`BilevelError::UnboundedLowerLevel`] if `ridge`, C, is not positive, since separable pairs have no best reward then;
    /// if the weights are not as many as the pairs; if the features are not finite.
    pub fn fit(&self, set: ExampleSet, weights: &[f64], ridge: f64) -> Result<Vec<f64>, BilevelError> {
        if ridge.is_nan() || ridge <= 0.0 {
            return Err(BilevelError::UnboundedLowerLevel { detail: format!("ridge C = {ridge}") });
        }
        let n = self.count(set);
        if weights.len() != n {
            return Err(BilevelError::ShapeMismatch { which: "weights", expected: n, found: weights.len() });
        }
        let rows: Vec<usize> = (0..n).collect();
        let coefficients: Vec<f64> = weights.iter().map(|weight| weight / n as f64).collect();
        let value = |y: &Vec<f64>| coefficients.dot(&self.losses(y, set, &rows)) + ridge / 2.0 * y.dot(y);
        let slope = |y: &Vec<f64>| {
            let part = Part { set, rows: &rows, coefficients: &coefficients };
            self.gradient(y, &[part]).plus(ridge, y)
        };
        let mut y = vec![0.0; self.width()];
        for step in 0..STEPS {
            let gradient = slope(&y);
            if !gradient.is_finite() {
                return Err(BilevelError::NonFinite {
                    which: "the gradient of a fit",
                    outer: 0,
                    inner: step,
                });
            }
            if gradient.norm() <= 1e-12 {
                break;
            }
            let direction = solve(self.curvature_at(&y, set, &coefficients, ridge), &gradient);
            let (now, decrease) = (value(&y), gradient.dot(&direction));
            let lengths = std::iter::successors(Some(1.0), |length| Some(length / 2.0)).take(30);
            let moved = lengths
                .map(|length| (length, y.plus(-length, &direction)))
                .find(|(length, moved)| value(moved) <= now - 1e-4 * length * decrease);
            match moved {
                Some((_, moved)) => y = moved,
                // Nothing is lower: the objective has no digits left to descend by.
                None => break,
            }
        }
        Ok(y)
    }

    /// `C I + Σ cᵢ σ(r) σ(−r) φφᵀ`, row by row.
    fn curvature_at(&self, y: &[f64], set: ExampleSet, coefficients: &[f64], ridge: f64) -> Vec<f64> {
        let d = self.width();
        let mut curvature = vec![0.0; d * d];
        (0..d).for_each(|i| curvature[i * d + i] = ridge);
        for (row, c) in coefficients.iter().enumerate() {
            let (features, margin) = (self.row(set, row), self.margin(y, set, row));
            let weight = c * sigmoid(margin) * sigmoid(-margin);
            for (i, a) in features.iter().enumerate() {
                for (entry, b) in curvature[i * d..].iter_mut().zip(&features[..=i]) {
                    *entry += weight * a * b;
                }
            }
        }
        curvature
    }
}

/// `A⁻¹ b` for a positive definite A, of which the lower triangle is read, by Cholesky's decomposition.
fn solve(mut a: Vec<f64>, b: &[f64]) -> Vec<f64> {
    let d = b.len();
    for i in 0..d {
        for j in 0..=i {
            let known: f64 = (0..j).map(|k| a[i * d + k] * a[j * d + k]).sum();
            let rest = a[i * d + j] - known;
            a[i * d + j] = if i == j { rest.sqrt() } else { rest / a[j * d + j] };
        }
    }
    let mut v = b.to_vec();
    for i in 0..d {
        let known: f64 = (0..i).map(|k| a[i * d + k] * v[k]).sum();
        v[i] = (v[i] - known) / a[i * d + i];
    }
    for i in (0..d).rev() {
        let known: f64 = (i + 1..d).map(|k| a[k * d + i] * v[k]).sum();
        v[i] = (v[i] - known) / a[i * d + i];
    }
    v
}
