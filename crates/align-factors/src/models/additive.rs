//! A sum of functions of one column each.

use align_core::number::Fraction;
use serde::{Deserialize, Serialize};

use super::least_squares::{check_finite, mean};
use super::{Forest, ModelError, Node, Side, Tree};
use crate::attribution::{Curve, Structure, Terms};
use crate::{Matrix, Scorer};

/// Boosted stumps: an additive model `f(x) = base + Σ_j s_j(x_j)` whose shape functions s_j are steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoostedStumps {
    /// The mean label.
    pub base: f64,
    /// How many columns rows have.
    pub columns: usize,
    /// The steps, in the order in which they were fitted.
    pub stumps: Vec<Stump>,
}

/// A step: one value below a threshold, another from it on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stump {
    /// The column.
    pub column: usize,
    /// Where the step is; at the threshold it is already `above`.
    pub threshold: f64,
    /// Left of the threshold.
    pub below: f64,
    /// At the threshold and right of it.
    pub above: f64,
    /// How many training rows were left of it.
    pub cover_below: usize,
    /// And how many were not.
    pub cover_above: usize,
}

/// How stumps are boosted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StumpsConfig {
    /// How many. Default 150.
    pub rounds: usize,
    /// The share of each step that is taken. Default 0.1 (Friedman 2001 advises 0.1 and below).
    pub learning_rate: Fraction,
}

impl Default for StumpsConfig {
    fn default() -> Self {
        Self { rounds: 150, learning_rate: Fraction::literal(0.1) }
    }
}

impl Stump {
    /// The value for one number of its column.
    pub fn value(&self, x: f64) -> f64 {
        if x < self.threshold { self.below } else { self.above }
    }
}

impl BoostedStumps {
    /// Squared error, stagewise: each round takes the step that explains most of the residuals, over all columns and all
    /// midpoints between neighbouring values. The search is exact. Rounds end early where no column has two values.
    ///
    /// # Errors
    /// If there are no rows or another number of labels, or a number is not finite.
    ///
    /// # Source
    /// Friedman 2001, "Greedy function approximation: a gradient boosting machine", algorithm 2 (LS_Boost).
    pub fn fit(rows: &Matrix, labels: &[f64], config: &StumpsConfig) -> Result<Self, ModelError> {
        check_finite("boosted stumps", rows, labels)?;
        let base = mean(labels);
        let mut residuals: Vec<f64> = labels.iter().map(|label| label - base).collect();
        let orders: Vec<Vec<usize>> = (0..rows.width())
            .map(|column| {
                let mut order: Vec<usize> = (0..rows.len()).collect();
                order.sort_by(|&a, &b| rows.row(a)[column].total_cmp(&rows.row(b)[column]));
                order
            })
            .collect();
        let mut stumps = Vec::with_capacity(config.rounds);
        for _ in 0..config.rounds {
            let Some(mut stump) = best_step(rows, &orders, &residuals) else { break };
            stump.below *= config.learning_rate.get();
            stump.above *= config.learning_rate.get();
            let values = rows.column(stump.column).map(|x| stump.value(x));
            residuals.iter_mut().zip(values).for_each(|(residual, value)| *residual -= value);
            stumps.push(stump);
        }
        Ok(Self { base, columns: rows.width(), stumps })
    }

    /// `s_j(x_j)`: the sum of the steps of one column.
    pub fn shape(&self, column: usize, x: f64) -> f64 {
        self.stumps.iter().filter(|stump| stump.column == column).map(|stump| stump.value(x)).sum()
    }

    /// The score of one row.
    ///
    /// # Panics
    /// If the row lacks a column that is looked at.
    pub fn score(&self, row: &[f64]) -> f64 {
        self.stumps.iter().fold(self.base, |sum, stump| sum + stump.value(row[stump.column]))
    }

    /// The same function as trees of depth 1.
    pub fn to_forest(&self) -> Forest {
        let tree = |stump: &Stump| {
            let (below, above) = (stump.cover_below as f64, stump.cover_above as f64);
            let &Stump { column, threshold, .. } = stump;
            // A NaN is not below the threshold.
            let missing = Side::Right;
            let nodes = vec![
                Node::Split { column, threshold, left: 1, right: 2, missing, cover: below + above },
                Node::Leaf { value: stump.below, cover: below },
                Node::Leaf { value: stump.above, cover: above },
            ];
            Tree::new(nodes).expect("a root and two leaves")
        };
        Forest { base: self.base, trees: self.stumps.iter().map(tree).collect() }
    }
}

/// The step that lowers the squared error most: its values are the means of the residuals on both sides. Of equal ones the
/// first.
fn best_step(rows: &Matrix, orders: &[Vec<usize>], residuals: &[f64]) -> Option<Stump> {
    let (count, total) = (residuals.len(), residuals.iter().sum::<f64>());
    let mut best: Option<(f64, Stump)> = None;
    for (column, order) in orders.iter().enumerate() {
        let mut sum = 0.0;
        for (position, pair) in order.windows(2).enumerate() {
            sum += residuals[pair[0]];
            let (x, next) = (rows.row(pair[0])[column], rows.row(pair[1])[column]);
            if x == next {
                continue;
            }
            let (cover_below, cover_above) = (position + 1, count - position - 1);
            let (below, above) = (sum / cover_below as f64, (total - sum) / cover_above as f64);
            let gain = sum * below + (total - sum) * above;
            if best.is_none_or(|(most, _)| gain > most) {
                // The midpoint of two neighbouring floats may round down to the lower one.
                let middle = x + 0.5 * (next - x);
                let threshold = if middle > x { middle } else { next };
                best = Some((gain, Stump { column, threshold, below, above, cover_below, cover_above }));
            }
        }
    }
    best.map(|(_, stump)| stump)
}

impl Scorer for BoostedStumps {
    fn scores(&self, rows: &Matrix) -> Vec<f64> {
        rows.rows().map(|row| self.score(row)).collect()
    }

    fn structure(&self) -> Structure<'_> {
        let curve = |column| Curve::Function(Box::new(move |x| self.shape(column, x)));
        Structure::Terms(Terms {
            constant: self.base,
            curves: (0..self.columns).map(curve).collect(),
            pairs: Vec::new(),
        })
    }
}
