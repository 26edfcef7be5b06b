//! Scores on a scale of whole numbers, and how good they are.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::FactorsError;

/// The whole numbers from a least to a largest class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Ends", into = "Ends")]
pub struct Grid {
    low: i64,
    high: i64,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ends {
    low: i64,
    high: i64,
}

impl Grid {
    /// The classes `low` to `high`.
    ///
    /// # Panics
    /// If `high` is not above `low`.
    pub fn new(low: i64, high: i64) -> Self {
        assert!(low < high, "Grid::new: expected low < high, found {low}..{high}");
        Self { low, high }
    }

    /// The least class.
    pub fn low(self) -> i64 {
        self.low
    }

    /// The largest class.
    pub fn high(self) -> i64 {
        self.high
    }

    /// How many classes.
    pub fn classes(self) -> usize {
        (self.high - self.low + 1) as usize
    }

    /// The class nearest to a score; half away from zero (Rust's `round`; numpy rounds half to even), and the ends for what lies
    /// beyond them.
    ///
    /// # Examples
    /// ```
    /// let grid = align_factors::Grid::new(1, 5);
    /// assert_eq!([2.5, 3.5, 7.0, -1.0].map(|score| grid.round(score)), [3, 4, 5, 1]);
    /// ```
    pub fn round(self, score: f64) -> i64 {
        // In floating point first: a cast saturates, and takes NaN for 0.
        score.round().clamp(self.low as f64, self.high as f64) as i64
    }

    /// Checks that labels are classes.
    ///
    /// # Errors
    /// [`FactorsError::InvalidLabel`] names the first that is not.
    pub fn check(self, labels: &[f64]) -> Result<(), FactorsError> {
        let is_class =
            |label: f64| label.fract() == 0.0 && (self.low as f64..=self.high as f64).contains(&label);
        match labels.iter().position(|&label| !is_class(label)) {
            Some(row) => {
                Err(FactorsError::InvalidLabel { label: labels[row], low: self.low, high: self.high, row })
            }
            None => Ok(()),
        }
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}..{}", self.low, self.high)
    }
}

impl TryFrom<Ends> for Grid {
    type Error = String;

    fn try_from(Ends { low, high }: Ends) -> Result<Self, String> {
        if low < high {
            Ok(Self { low, high })
        } else {
            Err(format!("expected low < high, found {low}..{high}"))
        }
    }
}

impl From<Grid> for Ends {
    fn from(Grid { low, high }: Grid) -> Self {
        Self { low, high }
    }
}

/// How well scores predict classes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct OrdinalMetrics {
    /// Share of scores that round to their class.
    pub accuracy: f64,
    /// F1 of every class that occurs, as truth or as prediction, averaged without weights.
    pub macro_f1: f64,
    /// Mean absolute error of the scores as they are.
    pub mae: f64,
    /// Mean squared error of the scores as they are.
    pub mse: f64,
}

impl OrdinalMetrics {
    /// Compares scores with labels. Accuracy and F1 are those of the rounded scores, the errors those of the scores themselves.
    ///
    /// # Errors
    /// [`FactorsError::InvalidLabel`] if a label is no class.
    ///
    /// # Panics
    /// If there is no label, not one score for each, or a score is not finite.
    pub fn of(grid: Grid, labels: &[f64], scores: &[f64]) -> Result<Self, FactorsError> {
        assert_eq!(labels.len(), scores.len(), "OrdinalMetrics::of: one score for each label");
        assert!(!labels.is_empty(), "OrdinalMetrics::of: no labels");
        assert!(scores.iter().all(|score| score.is_finite()), "OrdinalMetrics::of: scores must be finite");
        grid.check(labels)?;
        let class = |value: i64| (value - grid.low) as usize;
        let mut counts = vec![Counts::default(); grid.classes()];
        let (mut absolute, mut squared) = (0.0, 0.0);
        for (&label, &score) in labels.iter().zip(scores) {
            let (truth, prediction) = (class(label as i64), class(grid.round(score)));
            counts[truth].truth += 1;
            counts[prediction].predicted += 1;
            counts[truth].both += u64::from(truth == prediction);
            absolute += (score - label).abs();
            squared += (score - label).powi(2);
        }
        // F1 = 2 TP / (2 TP + FP + FN), whose denominator is how often the class is true and how often it is predicted.
        let occurs = |class: &&Counts| class.truth + class.predicted > 0;
        let f1 = |class: &Counts| 2.0 * class.both as f64 / (class.truth + class.predicted) as f64;
        let f1: Vec<f64> = counts.iter().filter(occurs).map(f1).collect();
        let count = labels.len() as f64;
        let hits: u64 = counts.iter().map(|class| class.both).sum();
        Ok(Self {
            accuracy: hits as f64 / count,
            macro_f1: f1.iter().sum::<f64>() / f1.len() as f64,
            mae: absolute / count,
            mse: squared / count,
        })
    }
}

/// How often a class is the label, is predicted, and both at once.
#[derive(Clone, Copy, Default)]
struct Counts {
    truth: u64,
    predicted: u64,
    both: u64,
}
