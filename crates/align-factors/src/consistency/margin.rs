//! Orders that two models must share: the margin lemma.
//!
//! Shapley values are linear in the model, so `|I_j(f) − I_j(g)| ≤ δ_j` with `δ_j = mean |φ_j(f) − φ_j(g)|`. Where the
//! importances of two factors differ by more than `δ_i + δ_j` in one model, the other orders them likewise. Small gaps may
//! flip: models that are close agree on well-separated factors only, which is why primary and secondary *groups* are stable
//! and full rankings are not.
//!
//! The paper claims a proof that accurate models share relations. This lemma is ours; we have not compared the two.

use serde::Serialize;

use crate::Matrix;

/// What a gap must exceed its margin by, relative to the importances, so that no certificate is owed to rounding.
const ROUNDING: f64 = 1e-12;

/// Importances of two models on the same rows, and how far their attributions are apart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Margins {
    /// `I_j(f) = mean |φ_j(f)|`.
    pub first: Vec<f64>,
    /// `I_j(g)`.
    pub second: Vec<f64>,
    /// `δ_j = mean |φ_j(f) − φ_j(g)|`.
    pub deltas: Vec<f64>,
}

/// A pair whose order both models share, for certain.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CertifiedPair {
    /// The more important factor.
    pub primary: usize,
    /// The less important one.
    pub secondary: usize,
    /// By how much, in the model where it is more.
    pub gap: f64,
    /// `δ_i + δ_j`, which the gap exceeds.
    pub margin: f64,
}

impl Margins {
    /// From the attributions of two models for the same rows against the same baseline, by the same method and, if it
    /// samples, the same permutations.
    ///
    /// # Shapes
    /// `[N, d]` both.
    ///
    /// # Panics
    /// If shapes differ, or there are no rows.
    ///
    /// # Examples
    /// ```
    /// use align_factors::{Margins, Matrix};
    ///
    /// let f = Matrix::from_rows(&[[3.0, -1.0, 0.5], [-3.0, 1.0, 0.5]]);
    /// let g = Matrix::from_rows(&[[2.5, -1.5, 1.0], [-3.5, 0.5, 0.0]]);
    /// let margins = Margins::between(&f, &g);
    /// assert_eq!(margins.deltas, [0.5, 0.5, 0.5]);
    /// assert!(margins.certifies(0, 1) && !margins.certifies(1, 2));
    /// ```
    pub fn between(first: &Matrix, second: &Matrix) -> Self {
        let (shape, other) = ((first.len(), first.width()), (second.len(), second.width()));
        assert_eq!(shape, other, "Margins::between: attributions of the same rows to the same factors");
        assert!(!first.is_empty(), "Margins::between: no rows");
        let width = first.width();
        let mut margins =
            Self { first: vec![0.0; width], second: vec![0.0; width], deltas: vec![0.0; width] };
        for (f, g) in first.rows().zip(second.rows()) {
            for (j, (f, g)) in f.iter().zip(g).enumerate() {
                margins.first[j] += f.abs();
                margins.second[j] += g.abs();
                margins.deltas[j] += (f - g).abs();
            }
        }
        let count = first.len() as f64;
        for sums in [&mut margins.first, &mut margins.second, &mut margins.deltas] {
            sums.iter_mut().for_each(|sum| *sum /= count);
        }
        margins
    }

    /// How many factors.
    pub fn factors(&self) -> usize {
        self.deltas.len()
    }

    /// Whether i is primary to j in both models for certain: the gap exceeds `δ_i + δ_j` in one of them.
    pub fn certifies(&self, i: usize, j: usize) -> bool {
        let scale = self.first[i] + self.first[j] + self.second[i] + self.second[j];
        self.gap(i, j) > self.margin(i, j) + ROUNDING * scale
    }

    /// All certified pairs.
    pub fn certified(&self) -> Vec<CertifiedPair> {
        let pairs = (0..self.factors()).flat_map(|i| (0..self.factors()).map(move |j| (i, j)));
        let certified = pairs.filter(|&(i, j)| self.certifies(i, j)).map(|(primary, secondary)| {
            let (gap, margin) = (self.gap(primary, secondary), self.margin(primary, secondary));
            CertifiedPair { primary, secondary, gap, margin }
        });
        certified.collect()
    }

    /// The larger of `I_i − I_j` in the two models; either certifies.
    fn gap(&self, i: usize, j: usize) -> f64 {
        (self.first[i] - self.first[j]).max(self.second[i] - self.second[j])
    }

    /// `δ_i + δ_j`.
    fn margin(&self, i: usize, j: usize) -> f64 {
        self.deltas[i] + self.deltas[j]
    }
}
