//! The settings of training and guidance.
//!
//! All defaults are ours. That arXiv 2402.12398 adds a KL divergence between importance distributions to the loss is stated in
//! its abstract; its direction, normalisation, weight and schedule are not confirmed.

use align_core::number::{NonNegative, Positive, UnitInterval};
use serde::{Deserialize, Serialize};

use super::{ProbeConfig, TaskLoss};
use crate::{Divergence, FactorsError, Normalization};

/// How a network is fitted: Adam on minibatches with a penalty on squared weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FitConfig {
    /// The loss of the task. Default squared error.
    pub loss: TaskLoss,
    /// Optimizer steps. Default 1500.
    pub steps: u64,
    /// Rows of a minibatch, drawn without replacement; all rows if there are fewer. Default 64.
    pub batch: usize,
    /// Adam's rate. Default 5e-3.
    pub learning_rate: Positive,
    /// The penalty `½ l2 Σ W²` on matrices, part of the loss (so that Adam sees it, as in PyTorch's `Adam(weight_decay=l2)`) and
    /// not of what is reported. Default 0.01: surveys have hundreds of rows.
    pub l2: NonNegative,
    /// The largest global norm of the gradient, guidance and penalty included; 0 turns clipping off. Default 1: without it
    /// guidance of weight 0.3 and above was unstable.
    pub max_grad_norm: NonNegative,
    /// When to look at validation rows, if there are any.
    pub early_stopping: EarlyStopping,
    /// Decides minibatches, and the rows and orders of attributions.
    pub seed: u64,
}

impl Default for FitConfig {
    fn default() -> Self {
        Self {
            loss: TaskLoss::default(),
            steps: 1500,
            batch: 64,
            learning_rate: Positive::literal(5e-3),
            l2: NonNegative::literal(0.01),
            max_grad_norm: NonNegative::literal(1.0),
            early_stopping: EarlyStopping::default(),
            seed: 0,
        }
    }
}

impl FitConfig {
    /// Refuses counts of 0.
    ///
    /// # Errors
    /// [`FactorsError::InvalidCount`].
    pub fn check(&self) -> Result<(), FactorsError> {
        let EarlyStopping { every, patience } = self.early_stopping;
        let counts = [
            ("steps", self.steps as usize),
            ("batch", self.batch),
            ("early_stopping.every", every as usize),
            ("early_stopping.patience", patience),
        ];
        match counts.into_iter().find(|&(_, found)| found == 0) {
            Some((name, found)) => Err(FactorsError::InvalidCount { name, least: 1, found }),
            None => Ok(()),
        }
    }
}

/// The network of the lowest validation loss of the task is kept; the divergence has no say.
///
/// In a guided training only what comes after the warm-up is looked at, or the best network might be one that was never
/// guided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EarlyStopping {
    /// Steps between two looks. Default 50.
    pub every: u64,
    /// How many looks in a row may pass without a better network. Default 10.
    pub patience: usize,
}

impl Default for EarlyStopping {
    fn default() -> Self {
        Self { every: 50, patience: 10 }
    }
}

/// How a network is guided: `loss + λ D(q, p)` after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GuideConfig {
    /// λ. Default 1; choose among 0, 0.03, 0.1, 0.3, 1 and 3 by [`fit_grid`](super::fit_grid).
    pub lambda: f64,
    /// D. Default `KL(q‖p)`.
    pub divergence: Divergence,
    /// How importances become p. Default their ratio, which guidance cannot move by scaling the scores.
    pub normalization: Normalization,
    /// The share of steps before guidance sets in. Default 0.2: at the start importances are small, and the gradient of the
    /// divergence, of the order of 1/ΣI, would drown the task's.
    pub warmup: UnitInterval,
    /// e in `q ← (1 − e) q + e/d`. Default 1e-3: no factor is forbidden for good.
    pub knowledge_smoothing: UnitInterval,
    /// s in `|φ| ≈ √(φ² + s²)`, in the units of the scores. Default 1e-3.
    pub smoothing: Positive,
    /// How attributions are estimated.
    pub probe: ProbeConfig,
}

impl Default for GuideConfig {
    fn default() -> Self {
        Self {
            lambda: 1.0,
            divergence: Divergence::default(),
            normalization: Normalization::default(),
            warmup: UnitInterval::literal(0.2),
            knowledge_smoothing: UnitInterval::literal(1e-3),
            smoothing: Positive::literal(1e-3),
            probe: ProbeConfig::default(),
        }
    }
}

impl GuideConfig {
    /// Refuses a weight that is negative or not finite, and counts of 0.
    ///
    /// # Errors
    /// [`FactorsError::InvalidWeight`] or [`FactorsError::InvalidCount`].
    pub fn check(&self) -> Result<(), FactorsError> {
        check_lambda(self.lambda)?;
        self.probe.check()
    }
}

/// Refuses a weight that is negative or not finite.
pub(super) fn check_lambda(lambda: f64) -> Result<(), FactorsError> {
    if lambda >= 0.0 && lambda.is_finite() {
        Ok(())
    } else {
        Err(FactorsError::InvalidWeight { name: "lambda", value: lambda })
    }
}

/// The first guided step of so many.
pub(super) fn first_guided_step(warmup: UnitInterval, steps: u64) -> u64 {
    (warmup.get() * steps as f64).ceil() as u64
}
