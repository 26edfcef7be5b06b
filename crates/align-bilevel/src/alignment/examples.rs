//! Examples to train on, and trusted ones, each with a loss.

use std::collections::BTreeSet;
use std::fmt::Debug;

use crate::{BilevelError, Point};

/// The two sets of examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExampleSet {
    /// Those whose weights are tuned.
    Training,
    /// Those that the weights are tuned for.
    Trusted,
}

/// Some examples of one set, each with its coefficient in a sum of losses.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// Of which set.
    pub set: ExampleSet,
    /// Which examples.
    pub rows: &'a [usize],
    /// As many coefficients.
    pub coefficients: &'a [f64],
}

/// A model's losses on the examples of two sets, and the gradients of weighted sums of them.
///
/// This is all that [`Cleaning`](super::Cleaning) knows of a model. [`LinearPairs`](super::LinearPairs) and
/// [`ModulePairs`](super::ModulePairs) are preference pairs; a fine-tuning loss per document is another.
pub trait Examples: Sync {
    /// The model's parameters.
    type Y: Point;

    /// How many examples a set has.
    fn count(&self, set: ExampleSet) -> usize;

    /// `ℓᵢ(y)` for each of the rows. One forward pass.
    fn losses(&self, y: &Self::Y, set: ExampleSet, rows: &[usize]) -> Vec<f64>;

    /// `∇ᵧ Σ cᵢ ℓᵢ(y)` over the rows of all parts. One forward and one backward pass.
    fn gradient(&self, y: &Self::Y, parts: &[Part<'_>]) -> Self::Y;

    /// A bound on the curvature in y of the mean loss over a set, where one is known.
    fn curvature(&self, _set: ExampleSet) -> Option<f64> {
        None
    }

    /// How many numbers a linear model fits, if the model is one: by this the size of the trusted set is judged.
    fn linear_parameters(&self) -> Option<usize> {
        None
    }
}

/// Checks that a trusted set can judge a training set: it has examples, and none that is trained on.
///
/// # Errors
/// [`BilevelError::InvalidSplit`] with the counts and the first ids concerned.
pub fn check_split<I: Ord + Debug>(training: &[I], trusted: &[I]) -> Result<(), BilevelError> {
    if trusted.is_empty() || training.is_empty() {
        let detail = format!("{} training and {} trusted examples", training.len(), trusted.len());
        return Err(BilevelError::InvalidSplit { detail });
    }
    let known: BTreeSet<&I> = training.iter().collect();
    let shared: Vec<&I> = trusted.iter().filter(|id| known.contains(id)).collect();
    if shared.is_empty() {
        return Ok(());
    }
    let first = &shared[..shared.len().min(3)];
    let (shared, trusted) = (shared.len(), trusted.len());
    let detail = format!("{shared} of {trusted} trusted examples are trained on, the first are {first:?}");
    Err(BilevelError::InvalidSplit { detail })
}
