//! Preference pairs under a linear reward, on the host.

use serde::{Deserialize, Serialize};

use super::examples::{ExampleSet, Examples, Part};
use super::weights::{sigmoid, softplus};
use crate::BilevelError;

/// Pairs described by the difference φ of the features of chosen and rejected answer, under a linear reward.
///
/// The margin of a pair is `r = φ·y`, its loss `ln(1 + e^{−r})`, all in f64.
///
/// # Source
/// Bradley and Terry 1952, <https://doi.org/10.2307/2334029>.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinearPairs {
    width: usize,
    training: Vec<f64>,
    trusted: Vec<f64>,
}

/// How well a reward agrees with pairs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairScores {
    /// The share of pairs with a positive margin.
    pub accuracy: f64,
    /// The mean of `ln(1 + e^{−r})`, nats.
    pub loss: f64,
}

impl LinearPairs {
    /// Feature differences, row by row.
    ///
    /// # Errors
    /// If a set is empty, or not all rows have the same length of at least 1.
    pub fn new(training: &[Vec<f64>], trusted: &[Vec<f64>]) -> Result<Self, BilevelError> {
        if training.is_empty() || trusted.is_empty() {
            let detail = format!("{} training and {} trusted pairs", training.len(), trusted.len());
            return Err(BilevelError::InvalidSplit { detail });
        }
        let width = training[0].len().max(1);
        if let Some(row) = training.iter().chain(trusted).find(|row| row.len() != width) {
            return Err(BilevelError::ShapeMismatch {
                which: "a pair's features",
                expected: width,
                found: row.len(),
            });
        }
        Ok(Self { width, training: training.concat(), trusted: trusted.concat() })
    }

    /// How many features there are.
    pub fn width(&self) -> usize {
        self.width
    }

    /// `φ·y` of each of the rows.
    pub fn margins(&self, y: &[f64], set: ExampleSet, rows: &[usize]) -> Vec<f64> {
        rows.iter().map(|&row| self.margin(y, set, row)).collect()
    }

    /// The accuracy and the mean loss of a reward on other pairs.
    pub fn evaluate(rows: &[Vec<f64>], y: &[f64]) -> PairScores {
        let (mut right, mut loss) = (0.0, 0.0);
        for row in rows {
            let margin: f64 = row.iter().zip(y).map(|(feature, y)| feature * y).sum();
            right += f64::from(u8::from(margin > 0.0));
            loss += softplus(-margin);
        }
        PairScores { accuracy: right / rows.len() as f64, loss: loss / rows.len() as f64 }
    }

    pub(super) fn row(&self, set: ExampleSet, row: usize) -> &[f64] {
        let features = match set {
            ExampleSet::Training => &self.training,
            ExampleSet::Trusted => &self.trusted,
        };
        &features[row * self.width..(row + 1) * self.width]
    }

    pub(super) fn margin(&self, y: &[f64], set: ExampleSet, row: usize) -> f64 {
        self.row(set, row).iter().zip(y).map(|(feature, y)| feature * y).sum()
    }

    /// `gradient += c ∇ᵧ ℓ(y)`, which is `−c σ(−r) φ`.
    fn add_gradient(&self, gradient: &mut [f64], y: &[f64], set: ExampleSet, row: usize, c: f64) {
        let slope = -c * sigmoid(-self.margin(y, set, row));
        for (gradient, feature) in gradient.iter_mut().zip(self.row(set, row)) {
            *gradient += slope * feature;
        }
    }

    /// A bound on the largest eigenvalue of `ΦᵀΦ / (4n)`: the largest row sum of absolute values (Gershgorin), since a
    /// bound must not fall below it, as a power iteration may.
    fn spectral_bound(&self, set: ExampleSet) -> f64 {
        let n = self.count(set);
        let mut gram = vec![0.0; self.width * self.width];
        for row in 0..n {
            let features = self.row(set, row);
            for (i, a) in features.iter().enumerate() {
                for (entry, b) in gram[i * self.width..].iter_mut().zip(features) {
                    *entry += a * b;
                }
            }
        }
        let sums = gram.chunks(self.width).map(|row| row.iter().map(|entry| entry.abs()).sum::<f64>());
        sums.fold(0.0, f64::max) / (4.0 * n as f64)
    }
}

impl Examples for LinearPairs {
    type Y = Vec<f64>;

    fn count(&self, set: ExampleSet) -> usize {
        match set {
            ExampleSet::Training => self.training.len() / self.width,
            ExampleSet::Trusted => self.trusted.len() / self.width,
        }
    }

    fn losses(&self, y: &Vec<f64>, set: ExampleSet, rows: &[usize]) -> Vec<f64> {
        rows.iter().map(|&row| softplus(-self.margin(y, set, row))).collect()
    }

    fn gradient(&self, y: &Vec<f64>, parts: &[Part<'_>]) -> Vec<f64> {
        let mut gradient = vec![0.0; self.width];
        for part in parts {
            for (&row, &c) in part.rows.iter().zip(part.coefficients) {
                self.add_gradient(&mut gradient, y, part.set, row, c);
            }
        }
        gradient
    }

    fn curvature(&self, set: ExampleSet) -> Option<f64> {
        Some(self.spectral_bound(set))
    }

    fn linear_parameters(&self) -> Option<usize> {
        Some(self.width)
    }
}
