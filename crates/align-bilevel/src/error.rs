//! What can be wrong with a problem, a setting or a run.

use thiserror::Error;

/// An error of a bilevel problem or solver.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum BilevelError {
    /// σ is out of range.
    #[error("InvalidPenalty: sigma must be finite and > {floor}, got {value}")]
    InvalidPenalty {
        /// The least that the numbers allow: 0, or where cancellation begins.
        floor: f64,
        /// What was given.
        value: f64,
    },
    /// `g − σf` has no minimiser left, as a central difference needs.
    #[error(
        "InvalidPenalty: g - sigma f lost strong convexity at sigma {sigma} (min eigenvalue estimate {curvature})"
    )]
    LostConvexity {
        /// The penalty.
        sigma: f64,
        /// The least curvature seen.
        curvature: f64,
    },
    /// A step size is out of range.
    #[error("InvalidStep: {name} must be finite and > 0, got {value}")]
    InvalidStep {
        /// Which.
        name: &'static str,
        /// What was given.
        value: f64,
    },
    /// A weight is out of range.
    #[error("InvalidWeight: {name} must be in (0, 1], got {value}")]
    InvalidWeight {
        /// Which.
        name: &'static str,
        /// What was given.
        value: f64,
    },
    /// A count is zero, or larger than what there is.
    #[error("InvalidCount: {name} must be from {least} to {most}, got {found}")]
    InvalidCount {
        /// Which.
        name: &'static str,
        /// The least allowed.
        least: usize,
        /// The most allowed.
        most: usize,
        /// What was given.
        found: usize,
    },
    /// A set has no point.
    #[error("EmptySet: {set} has no feasible point ({detail})")]
    EmptySet {
        /// Which kind of set.
        set: &'static str,
        /// The bounds that contradict each other, with their values.
        detail: String,
    },
    /// A start lies outside its set.
    #[error("Infeasible: the start {which} is {distance} away from its set")]
    Infeasible {
        /// `x`, `y` or `z`.
        which: &'static str,
        /// To the nearest point of the set.
        distance: f64,
    },
    /// A gradient, or a point, has the wrong length.
    #[error("ShapeMismatch: expected {expected}, got {found} for {which}")]
    ShapeMismatch {
        /// Of what.
        which: &'static str,
        /// The variable's length.
        expected: usize,
        /// What came.
        found: usize,
    },
    /// A loss or gradient is NaN or infinite.
    #[error("NonFinite: {which} at outer {outer}, inner {inner}")]
    NonFinite {
        /// Which.
        which: &'static str,
        /// The outer step.
        outer: u64,
        /// The inner step.
        inner: u64,
    },
    /// The outer gradient grows without bound.
    #[error(
        "Diverged: |D|/sigma grew from {from} to {to} at outer {outer}; reduce the outer step or raise inner steps"
    )]
    Diverged {
        /// Its norm at first.
        from: f64,
        /// Its norm now.
        to: f64,
        /// The outer step.
        outer: u64,
    },
    /// A trusted set that is empty or not apart from the training set.
    #[error("InvalidSplit: {detail}")]
    InvalidSplit {
        /// What is wrong, with the numbers and the first ids concerned.
        detail: String,
    },
    /// Probabilities that are none.
    #[error("InvalidDistribution: {which} must be probabilities that sum to 1, found {detail}")]
    InvalidDistribution {
        /// Of what.
        which: &'static str,
        /// What is wrong, with the number.
        detail: String,
    },
    /// The lower level has no minimiser.
    #[error("UnboundedLowerLevel: {detail}: set C > 0 or bound Y")]
    UnboundedLowerLevel {
        /// What was seen.
        detail: String,
    },
    /// The Hessian of g in y cannot be inverted, as an implicit hyper-gradient needs.
    #[error(
        "SingularHessian: at outer {outer} the lower level has curvature {curvature} along a direction and {largest} along others"
    )]
    SingularHessian {
        /// The least seen.
        curvature: f64,
        /// The most seen.
        largest: f64,
        /// The outer step.
        outer: u64,
    },
    /// A Neumann series grows instead of ending.
    #[error(
        "SeriesDiverged: the Neumann series went from {from} to {to} at outer {outer}; its step must be below 2 / curvature"
    )]
    SeriesDiverged {
        /// The first term's norm.
        from: f64,
        /// The last one's.
        to: f64,
        /// The outer step.
        outer: u64,
    },
    /// A penalty multiplier is too small for the lower level's curvature.
    #[error("InvalidMultiplier: lambda must begin at {least} or more, got {value}")]
    InvalidMultiplier {
        /// 2 l/μ.
        least: f64,
        /// What was given.
        value: f64,
    },
}
