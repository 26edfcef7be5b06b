//! Logistic regression, by Newton's method.

use align_core::number::NonNegative;
use serde::{Deserialize, Serialize};

use super::ModelError;
use super::least_squares::{Symmetric, check_finite};
use crate::attribution::{Structure, Terms};
use crate::{Matrix, Scorer};

/// `P(y = 1 | x) = σ(f(x))` with `f(x) = β·x + c`. Its score is the logit f, not the probability: attributions of a probability
/// saturate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logistic {
    /// c.
    pub bias: f64,
    /// β, one for each column.
    pub weights: Vec<f64>,
}

impl Logistic {
    /// Minimises `Σ ln(1 + e^{f(x)}) − y f(x) + (α/2) |β|²` over labels 0 and 1; the constant is not penalised. α = 1 is what
    /// scikit-learn calls C = 1.
    ///
    /// Newton steps, halved while they do not descend, until a step moves no number by more than 1e-9 of it.
    ///
    /// # Errors
    /// If there are no rows or another number of labels, a label is neither 0 nor 1, a number is not finite, or the minimum is
    /// not unique or at infinity (classes that a plane separates, at α = 0).
    pub fn fit(rows: &Matrix, labels: &[f64], ridge: NonNegative) -> Result<Self, ModelError> {
        const MODEL: &str = "logistic regression";
        check_finite(MODEL, rows, labels)?;
        if let Some(row) = labels.iter().position(|&label| label != 0.0 && label != 1.0) {
            return Err(ModelError::NotBinary { model: MODEL, row, label: labels[row] });
        }
        let columns = rows.width();
        let ridge = ridge.get();
        // The constant is the last parameter.
        let mut parameters = vec![0.0; columns + 1];
        let mut extended = vec![1.0; columns + 1];
        let mut loss = penalised_loss(rows, labels, &parameters, ridge);
        for _ in 0..100 {
            let mut hessian = Symmetric::zeros(columns + 1);
            let mut gradient = vec![0.0; columns + 1];
            for (row, label) in rows.rows().zip(labels) {
                extended[..columns].copy_from_slice(row);
                let probability = (1.0 + (-logit(&parameters, row)).exp()).recip();
                hessian.add_outer(&extended, probability * (1.0 - probability));
                gradient.iter_mut().zip(&extended).for_each(|(sum, x)| *sum += (probability - label) * x);
            }
            for index in 0..columns {
                hessian.add_diagonal(index, ridge);
                gradient[index] += ridge * parameters[index];
            }
            let step =
                hessian.solve(gradient).map_err(|column| ModelError::Singular { model: MODEL, column })?;
            // Where a plane separates the classes gradients vanish too, but steps do not.
            let small = |(step, parameter): (&f64, &f64)| step.abs() <= 1e-9 * (1.0 + parameter.abs());
            if step.iter().zip(&parameters).all(small) {
                let bias = parameters.pop().expect("the constant");
                return Ok(Self { bias, weights: parameters });
            }
            let moved = |scale: f64| -> Vec<f64> {
                parameters.iter().zip(&step).map(|(parameter, step)| parameter - scale * step).collect()
            };
            // At the minimum a step changes nothing but rounding; it is taken whole.
            let scale = (0..30).map(|halvings| 0.5_f64.powi(halvings)).find(|&scale| {
                penalised_loss(rows, labels, &moved(scale), ridge) <= loss + 1e-12 * loss.abs()
            });
            parameters = moved(scale.unwrap_or(1.0));
            loss = penalised_loss(rows, labels, &parameters, ridge);
        }
        Err(ModelError::NotConverged { model: MODEL, iterations: 100 })
    }

    /// The logit of one row.
    ///
    /// # Panics
    /// If the row has another number of columns.
    pub fn score(&self, row: &[f64]) -> f64 {
        assert_eq!(row.len(), self.weights.len(), "Logistic::score: one number for each weight");
        self.bias + self.weights.iter().zip(row).map(|(weight, x)| weight * x).sum::<f64>()
    }
}

fn logit(parameters: &[f64], row: &[f64]) -> f64 {
    parameters.iter().zip(row).map(|(weight, x)| weight * x).sum::<f64>() + parameters[row.len()]
}

fn penalised_loss(rows: &Matrix, labels: &[f64], parameters: &[f64], ridge: f64) -> f64 {
    let losses = rows.rows().zip(labels).map(|(row, label)| {
        let f = logit(parameters, row);
        // ln(1 + e^f), finite for every f.
        f.max(0.0) + (-f.abs()).exp().ln_1p() - label * f
    });
    let squares: f64 = parameters[..rows.width()].iter().map(|weight| weight * weight).sum();
    losses.sum::<f64>() + 0.5 * ridge * squares
}

impl Scorer for Logistic {
    fn scores(&self, rows: &Matrix) -> Vec<f64> {
        rows.rows().map(|row| self.score(row)).collect()
    }

    fn structure(&self) -> Structure<'_> {
        Structure::Terms(Terms::linear(&self.weights, self.bias))
    }
}
