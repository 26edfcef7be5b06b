//! What a factor is set to while it is masked.

use std::borrow::Cow;

use align_core::draws::{Draws, Purpose};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::Matrix;

/// What masked factors are set to: one row `b`, or each row of a background in turn, over which scores are averaged.
///
/// Either way masked columns are replaced whatever the columns that stay are: the attributions are *interventional*. Where
/// factors are correlated that differs from conditioning on what stays. For `f = x₁`, unit normals with correlation 0.6 and
/// `x = (1, 2)`, interventional attributions are (1, 0) and conditional ones (0.4, 0.6): ours say what the model uses, and
/// give nothing to a factor that it does not look at.
#[derive(Clone, Debug, PartialEq)]
pub enum Baseline {
    /// One row.
    Row(Vec<f64>),
    /// Several rows.
    Background(Matrix),
}

/// How a baseline is made from training rows.
///
/// The mean is the default: it costs one row, and centres attributions for linear models. For trees and one-hot groups, whose
/// mean is no row that could occur, a background is the better choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum BaselineConfig {
    /// The mean of every column.
    Mean {},
    /// The median of every column, which outliers do not move.
    Median {},
    /// Rows drawn without replacement.
    Background {
        /// How many, or all there are if those are fewer. The cost of attributions by masking grows with it.
        #[serde(default = "background_rows")]
        rows: usize,
        /// Decides which.
        #[serde(default)]
        seed: u64,
    },
}

fn background_rows() -> usize {
    32
}

impl Default for BaselineConfig {
    fn default() -> Self {
        Self::Mean {}
    }
}

impl BaselineConfig {
    /// The baseline of these rows.
    ///
    /// # Panics
    /// If there are no rows.
    pub fn of(&self, rows: &Matrix) -> Baseline {
        match *self {
            Self::Mean {} => Baseline::mean(rows),
            Self::Median {} => Baseline::median(rows),
            Self::Background { rows: count, seed } => Baseline::background(rows, count, seed),
        }
    }
}

impl Baseline {
    /// The mean of every column over the rows where it is present; NaN where it never is.
    ///
    /// # Panics
    /// If there are no rows.
    pub fn mean(rows: &Matrix) -> Self {
        Self::Row(per_column(rows, |present| present.iter().sum::<f64>() / present.len() as f64))
    }

    /// The median of every column over the rows where it is present; NaN where it never is. Of an even number of values, the
    /// mean of the two in the middle.
    ///
    /// # Panics
    /// If there are no rows.
    pub fn median(rows: &Matrix) -> Self {
        Self::Row(per_column(rows, |present| {
            present.sort_by(f64::total_cmp);
            let count = present.len();
            match count {
                0 => f64::NAN,
                _ => present[(count - 1) / 2].midpoint(present[count / 2]),
            }
        }))
    }

    /// At most `count` rows, drawn without replacement.
    ///
    /// # Examples
    /// ```
    /// use align_factors::{Matrix, attribution::Baseline};
    ///
    /// let rows = Matrix::from_rows(&[[1.0], [2.0], [3.0]]);
    /// assert_eq!(Baseline::background(&rows, 2, 7).rows().len(), 2);
    /// assert_eq!(Baseline::background(&rows, 32, 7).rows().len(), 3);
    /// ```
    pub fn background(rows: &Matrix, count: usize, seed: u64) -> Self {
        let mut order: Vec<usize> = (0..rows.len()).collect();
        let mut generator = Draws::new(seed).generator(Purpose::Evaluate, 0);
        let (drawn, _) = order.partial_shuffle(&mut generator, count);
        drawn.sort_unstable();
        Self::Background(rows.select(drawn))
    }

    /// The rows over which scores are averaged: one, or the background.
    pub fn rows(&self) -> Cow<'_, Matrix> {
        match self {
            Self::Row(row) => Cow::Owned(Matrix::new(row.clone(), row.len())),
            Self::Background(rows) => Cow::Borrowed(rows),
        }
    }
}

/// A number for every column from the values that are present in it.
fn per_column(rows: &Matrix, number: impl Fn(&mut [f64]) -> f64) -> Vec<f64> {
    assert!(!rows.is_empty(), "Baseline: no rows");
    let column = |index| {
        let mut present: Vec<f64> = rows.column(index).filter(|value| !value.is_nan()).collect();
        number(&mut present)
    };
    (0..rows.width()).map(column).collect()
}
