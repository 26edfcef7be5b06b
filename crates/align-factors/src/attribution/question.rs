//! What methods by masking share: the question, and scores of masked rows in batches.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::attribution::{AttributionWarning, Attributions, Baseline, Method};
use crate::{Factors, FactorsError, Matrix, Scorer};

/// How many masked rows a scorer is given at once: enough for the matrix products of a network, and a few megabytes.
pub(super) const BATCH: usize = 4096;

/// Rows to be explained against a baseline.
pub(super) struct Question<'a> {
    pub(super) rows: &'a Matrix,
    pub(super) factors: &'a Factors,
    pub(super) background: Cow<'a, Matrix>,
}

impl<'a> Question<'a> {
    pub(super) fn new(
        rows: &'a Matrix,
        factors: &'a Factors,
        baseline: &'a Baseline,
    ) -> Result<Self, FactorsError> {
        let background = baseline.rows();
        for (name, rows) in [("rows", rows), ("background rows", &background)] {
            at_least_one(name, rows.len())?;
            assert_eq!(
                rows.width(),
                factors.width(),
                "attributions: columns of the {name} and of the factors"
            );
        }
        Ok(Self { rows, factors, background })
    }

    /// Scores of the rows and their mean over the background, every one of them finite.
    pub(super) fn scores<S: Scorer + ?Sized>(&self, scorer: &S) -> Result<(Vec<f64>, f64), FactorsError> {
        let scores = finite(scorer, self.rows, |row| (row, self.factors.len()))?;
        let base = finite(scorer, &self.background, |row| (row, 0))?;
        Ok((scores, base.iter().sum::<f64>() / base.len() as f64))
    }

    /// The attributions, with the warnings that the question calls for.
    pub(super) fn answer(
        self,
        method: Method,
        values: Matrix,
        (scores, base): (Vec<f64>, f64),
    ) -> Attributions {
        let same = |column: usize| {
            let first = self.rows.row(0)[column];
            let equal = |value: f64| value == first || (value.is_nan() && first.is_nan());
            self.rows.column(column).chain(self.background.column(column)).all(equal)
        };
        let never =
            |&(index, _): &(usize, &str)| self.factors.columns_of(index).iter().all(|&column| same(column));
        let warn = |(_, name): (usize, &str)| AttributionWarning::NeverDiffers { factor: name.to_owned() };
        let warnings = self.factors.names().enumerate().filter(never).map(warn).collect();
        Attributions { method, values, base, scores, warnings }
    }

    /// φ of every row: the mean over the background of what the coalitions make of it, in batches that run in parallel. The
    /// result does not depend on the number of threads.
    pub(super) fn mean_over_background<S: Scorer + ?Sized>(
        &self,
        scorer: &S,
        coalitions: &impl Coalitions,
    ) -> Result<Matrix, FactorsError> {
        let (d, others) = (self.factors.len(), self.background.len());
        // A pair is a row with a row of the background; a batch holds pairs that follow each other.
        let pairs = self.rows.len() * others;
        let per_batch = (BATCH / coalitions.count()).max(1);
        let batch = |first: usize| -> Result<(usize, Vec<f64>), FactorsError> {
            let batch = first..(first + per_batch).min(pairs);
            let mut masked = Vec::with_capacity(batch.len() * coalitions.count() * self.rows.width());
            for pair in batch.clone() {
                let (row, other) = (pair / others, pair % others);
                coalitions.write(row, self.rows.row(row), self.background.row(other), &mut masked);
            }
            let locate = |index| {
                (
                    (first + index / coalitions.count()) / others,
                    coalitions.switched_on(index % coalitions.count()),
                )
            };
            let scores = finite(scorer, &Matrix::new(masked, self.rows.width()), locate)?;
            let first_row = first / others;
            let mut sums = vec![0.0; ((batch.end - 1) / others - first_row + 1) * d];
            for (pair, scores) in batch.zip(scores.chunks_exact(coalitions.count())) {
                let row = pair / others;
                coalitions.attribute(row, scores, &mut sums[(row - first_row) * d..][..d]);
            }
            Ok((first_row, sums))
        };
        let batches: Vec<_> =
            (0..pairs.div_ceil(per_batch)).into_par_iter().map(|i| batch(i * per_batch)).collect();
        let mut phi = vec![0.0; self.rows.len() * d];
        for batch in batches {
            let (first_row, sums) = batch?;
            phi[first_row * d..].iter_mut().zip(&sums).for_each(|(phi, sum)| *phi += sum / others as f64);
        }
        Ok(Matrix::new(phi, d))
    }
}

/// Which masked rows a method asks for, and what it makes of their scores.
pub(super) trait Coalitions: Sync {
    /// Masked rows for one row `x` and one baseline row `b`.
    fn count(&self) -> usize;

    /// Appends them.
    fn write(&self, row: usize, x: &[f64], b: &[f64], masked: &mut Vec<f64>);

    /// How many factors masked row `index` has from x.
    fn switched_on(&self, index: usize) -> usize;

    /// Adds the attributions that follow from the scores to φ.
    fn attribute(&self, row: usize, scores: &[f64], phi: &mut [f64]);
}

/// A score for every row, every one of them finite. `locate` tells the row and the number of factors switched on of a masked
/// row.
pub(super) fn finite<S: Scorer + ?Sized>(
    scorer: &S,
    rows: &Matrix,
    locate: impl Fn(usize) -> (usize, usize),
) -> Result<Vec<f64>, FactorsError> {
    let scores = scorer.scores(rows);
    assert_eq!(scores.len(), rows.len(), "Scorer::scores: a score for every row");
    match scores.iter().position(|score| !score.is_finite()) {
        None => Ok(scores),
        Some(index) => {
            let (row, position) = locate(index);
            Err(FactorsError::NonFinite { value: scores[index], row, position })
        }
    }
}

/// Refuses a count of zero.
pub(super) fn at_least_one(name: &'static str, found: usize) -> Result<(), FactorsError> {
    if found == 0 {
        return Err(FactorsError::InvalidCount { name, least: 1, found });
    }
    Ok(())
}
