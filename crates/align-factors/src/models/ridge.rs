//! Least squares with a penalty, in closed form.

use align_core::number::NonNegative;
use serde::{Deserialize, Serialize};

use super::ModelError;
use super::least_squares::{Symmetric, check_finite, mean};
use crate::attribution::{Structure, Terms};
use crate::{Matrix, Scorer};

/// `f(x) = c + β·x + Σ w_ij x_i x_j`: ridge regression, with pair terms or without.
///
/// # Examples
/// ```
/// use align_factors::{Matrix, Ridge, RidgeConfig, RidgeTerms, Scorer};
///
/// let rows = Matrix::from_rows(&[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]);
/// let config = RidgeConfig { terms: RidgeTerms::Pairs, ridge: 1e-9.try_into()? };
/// let model = Ridge::fit(&rows, &[1.0, 3.0, 0.0, 7.0], &config)?;   // 1 + 2 x₀ − x₁ + 5 x₀x₁
/// assert!((model.pairs[0].weight - 5.0).abs() < 1e-6);
/// assert!((model.scores(&rows)[3] - 7.0).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ridge {
    /// c.
    pub bias: f64,
    /// β, one for each column.
    pub weights: Vec<f64>,
    /// The pair terms.
    pub pairs: Vec<PairTerm>,
}

/// `w x_i x_j` with i < j.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairTerm {
    /// i.
    pub first: usize,
    /// j.
    pub second: usize,
    /// w.
    pub weight: f64,
}

/// What a [`Ridge`] is made of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RidgeConfig {
    /// The terms. Default linear.
    pub terms: RidgeTerms,
    /// α in `Σ (y − f(x))² + α (|β|² + |w|²)`. Default 1, that of scikit-learn's `Ridge`; pairs want more.
    pub ridge: NonNegative,
}

impl Default for RidgeConfig {
    fn default() -> Self {
        Self { terms: RidgeTerms::Linear, ridge: NonNegative::literal(1.0) }
    }
}

/// The terms of a [`Ridge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RidgeTerms {
    /// Every column.
    Linear,
    /// Every column and every product of two different ones.
    Pairs,
}

impl RidgeConfig {
    /// With pair terms and α = 10: of 12 factors there are 66 pairs, few of which matter.
    pub fn pairs() -> Self {
        Self { terms: RidgeTerms::Pairs, ridge: NonNegative::literal(10.0) }
    }
}

impl Ridge {
    /// Minimises `Σ (y − f(x))² + α (|β|² + |w|²)`; the constant is not penalised.
    ///
    /// # Errors
    /// If there are no rows or another number of labels, a number is not finite, or the minimum is not unique.
    pub fn fit(rows: &Matrix, labels: &[f64], config: &RidgeConfig) -> Result<Self, ModelError> {
        check_finite("ridge", rows, labels)?;
        let columns = rows.width();
        let pairs: Vec<(usize, usize)> = match config.terms {
            RidgeTerms::Linear => Vec::new(),
            RidgeTerms::Pairs => (0..columns).flat_map(|i| (i + 1..columns).map(move |j| (i, j))).collect(),
        };
        let size = columns + pairs.len();
        let mut terms = Vec::with_capacity(rows.len() * size);
        for row in rows.rows() {
            terms.extend_from_slice(row);
            terms.extend(pairs.iter().map(|&(i, j)| row[i] * row[j]));
        }
        let terms = Matrix::new(terms, size);

        // Centred terms and labels take the constant out of the system.
        let (center, level) = (terms.column_means(), mean(labels));
        let mut gram = Symmetric::zeros(size);
        let mut products = vec![0.0; size];
        let mut centred = vec![0.0; size];
        for (row, label) in terms.rows().zip(labels) {
            centred.iter_mut().zip(row).zip(&center).for_each(|((out, x), mean)| *out = x - mean);
            gram.add_outer(&centred, 1.0);
            products.iter_mut().zip(&centred).for_each(|(sum, x)| *sum += x * (label - level));
        }
        (0..size).for_each(|index| gram.add_diagonal(index, config.ridge.get()));
        let mut weights =
            gram.solve(products).map_err(|column| ModelError::Singular { model: "ridge", column })?;
        let bias = level - weights.iter().zip(&center).map(|(weight, mean)| weight * mean).sum::<f64>();
        let pair_weights = weights.split_off(columns);
        let pairs = pairs
            .into_iter()
            .zip(pair_weights)
            .map(|((first, second), weight)| PairTerm { first, second, weight })
            .collect();
        Ok(Self { bias, weights, pairs })
    }

    /// The score of one row.
    ///
    /// # Panics
    /// If the row is too short.
    pub fn score(&self, row: &[f64]) -> f64 {
        assert_eq!(row.len(), self.weights.len(), "Ridge::score: one number for each weight");
        let linear: f64 = self.weights.iter().zip(row).map(|(weight, x)| weight * x).sum();
        let pairs: f64 = self.pairs.iter().map(|pair| pair.weight * row[pair.first] * row[pair.second]).sum();
        self.bias + linear + pairs
    }
}

impl Scorer for Ridge {
    fn scores(&self, rows: &Matrix) -> Vec<f64> {
        rows.rows().map(|row| self.score(row)).collect()
    }

    fn structure(&self) -> Structure<'_> {
        Structure::Terms(Terms { pairs: self.pairs.clone(), ..Terms::linear(&self.weights, self.bias) })
    }
}
