//! What can be wrong with factors, knowledge, settings and models.

use thiserror::Error;

/// An error of attributions, knowledge or guided training. Files have errors of their own.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum FactorsError {
    /// Knowledge is not a distribution.
    #[error("InvalidDistribution: knowledge must be non-negative and sum to 1 (sum {sum})")]
    InvalidDistribution {
        /// What it sums to.
        sum: f64,
    },
    /// Knowledge names a factor that the data does not have.
    #[error("UnknownFactor: knowledge names `{name}`; the factors are {known}")]
    UnknownFactor {
        /// The name.
        name: String,
        /// The factors there are.
        known: String,
    },
    /// There are more or fewer entries than factors.
    #[error("ShapeMismatch: {found} knowledge entries for {expected} factors")]
    ShapeMismatch {
        /// Factors.
        expected: usize,
        /// Entries.
        found: usize,
    },
    /// A weight is out of range.
    #[error("InvalidWeight: {name} must be finite and >= 0, got {value}")]
    InvalidWeight {
        /// Which.
        name: &'static str,
        /// What was given.
        value: f64,
    },
    /// A count is out of range.
    #[error("InvalidCount: {name} must be at least {least}, got {found}")]
    InvalidCount {
        /// Which.
        name: &'static str,
        /// The least allowed.
        least: usize,
        /// What was given.
        found: usize,
    },
    /// One factor has nothing to be compared with.
    #[error("NothingToCompare: importance distribution needs at least 2 factors")]
    NothingToCompare,
    /// A model does not depend on its rows.
    #[error("DegenerateExplanation: model output does not depend on any factor on the probe set")]
    DegenerateExplanation,
    /// Groups of columns overlap or leave one out.
    #[error("InvalidGroups: {detail}")]
    InvalidGroups {
        /// The column or factor, and what is wrong.
        detail: String,
    },
    /// A model gave a broken score.
    #[error("NonFinite: model returned {value} for masked input {row}, order position {position}")]
    NonFinite {
        /// The score.
        value: f64,
        /// The row that was masked.
        row: usize,
        /// How many factors were switched on.
        position: usize,
    },
    /// Enumeration is asked for too many factors.
    #[error("TooManyFactors: enumeration takes at most {most} factors, got {found}; sample orders instead")]
    TooManyFactors {
        /// The most that are enumerated.
        most: usize,
        /// How many there are.
        found: usize,
    },
    /// A method of attribution does not fit a model.
    #[error("Unsuitable: {method} needs {needs}")]
    Unsuitable {
        /// The method.
        method: &'static str,
        /// What it needs.
        needs: &'static str,
    },
    /// A tree has no training weight where attributions along its paths need a proportion.
    #[error("Uncovered: no training weight came through the children of node {node} of tree {tree}")]
    Uncovered {
        /// The tree.
        tree: usize,
        /// The node.
        node: usize,
    },
    /// Thresholds of a survey that do not rise.
    #[error("InvalidThresholds: expected each threshold above the one before, got {thresholds:?}")]
    InvalidThresholds {
        /// What was given.
        thresholds: Vec<f64>,
    },
    /// No model of a pool is good enough.
    #[error("EmptyPool: no model within {tolerance} of best validation loss {best}")]
    EmptyPool {
        /// The relative tolerance.
        tolerance: f64,
        /// The best loss.
        best: f64,
    },
    /// A label is not on the scale.
    #[error("InvalidLabel: {label} not in {low}..{high} at row {row}")]
    InvalidLabel {
        /// The label.
        label: f64,
        /// The least class.
        low: i64,
        /// The largest class.
        high: i64,
        /// Where.
        row: usize,
    },
    /// Attributions do not add up.
    #[error("AttributionMismatch: sum of attributions differs from f(x)-f(b) by {difference}")]
    AttributionMismatch {
        /// By how much, relative to the larger of 1 and what they should add up to.
        difference: f64,
    },
    /// A training loss is NaN or infinite.
    #[error("NonFinite: {term} is {value} at step {step}")]
    Loss {
        /// The term.
        term: &'static str,
        /// Its value.
        value: f64,
        /// The step.
        step: u64,
    },
}
