//! Symmetric positive definite systems, and the checks that fits on the host share.

use super::ModelError;
use crate::Matrix;

/// The lower half of a symmetric matrix, being factorised as `A = L·Lᵀ`.
pub(super) struct Symmetric {
    values: Vec<f64>,
    size: usize,
}

impl Symmetric {
    pub(super) fn zeros(size: usize) -> Self {
        Self { values: vec![0.0; size * size], size }
    }

    /// Adds `weight · x xᵀ`.
    pub(super) fn add_outer(&mut self, x: &[f64], weight: f64) {
        for (i, &xi) in x.iter().enumerate() {
            let row = &mut self.values[i * self.size..=i * self.size + i];
            row.iter_mut().zip(x).for_each(|(sum, &xj)| *sum += weight * xi * xj);
        }
    }

    /// Adds to one entry of the diagonal.
    pub(super) fn add_diagonal(&mut self, index: usize, value: f64) {
        self.values[index * self.size + index] += value;
    }

    /// x with `A·x = b`, by Cholesky's factorisation; the column at which it breaks down where A is not positive definite.
    pub(super) fn solve(mut self, mut b: Vec<f64>) -> Result<Vec<f64>, usize> {
        let n = self.size;
        // Pivots below this share of their diagonal entry are rounding of zero.
        const RANK: f64 = 1e-12;
        for i in 0..n {
            let (before, rest) = self.values.split_at_mut(i * n);
            let row = &mut rest[..n];
            let diagonal = row[i];
            for j in 0..i {
                let other = &before[j * n..j * n + n];
                let dot: f64 = row[..j].iter().zip(&other[..j]).map(|(a, b)| a * b).sum();
                row[j] = (row[j] - dot) / other[j];
            }
            let pivot = diagonal - row[..i].iter().map(|a| a * a).sum::<f64>();
            if pivot.is_nan() || pivot <= RANK * diagonal.abs() {
                return Err(i);
            }
            row[i] = pivot.sqrt();
            let dot: f64 = row[..i].iter().zip(&b).map(|(a, b)| a * b).sum();
            b[i] = (b[i] - dot) / row[i];
        }
        for i in (0..n).rev() {
            b[i] /= self.values[i * n + i];
            for j in 0..i {
                b[j] -= self.values[i * n + j] * b[i];
            }
        }
        Ok(b)
    }
}

/// Refuses nothing to fit, another number of labels than of rows, and numbers that are not finite.
pub(crate) fn check_finite(model: &'static str, rows: &Matrix, labels: &[f64]) -> Result<(), ModelError> {
    check_labels(model, rows, labels)?;
    for (row, values) in rows.rows().enumerate() {
        if let Some((column, &value)) = values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
            return Err(ModelError::NotFinite { model, what: format!("column {column}"), row, value });
        }
    }
    Ok(())
}

/// As [`check_finite`], where rows may have missing values.
pub(super) fn check_labels(model: &'static str, rows: &Matrix, labels: &[f64]) -> Result<(), ModelError> {
    if rows.is_empty() || rows.len() != labels.len() {
        return Err(ModelError::Rows { model, rows: rows.len(), labels: labels.len() });
    }
    match labels.iter().position(|label| !label.is_finite()) {
        Some(row) => Err(ModelError::NotFinite { model, what: "the label".into(), row, value: labels[row] }),
        None => Ok(()),
    }
}

/// The mean of numbers.
pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
