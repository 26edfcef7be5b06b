//! Low-rank adapters in recipes: `[lora]` checked, and dropout keyed by seed and step.

use std::borrow::Cow;
use std::cell::Cell;

use align_core::Draws;
use align_models::{LoraConfig, Transformer};
use align_train::{Loss, Metrics, Objective};
use anyhow::{Result, bail};
use burn::optim::GradientsParams;

/// Refuses tables that describe no adapter. `dropout` says whether the stage can drop inputs.
pub(super) fn check(config: &LoraConfig, dropout: bool) -> Result<()> {
    if config.rank == 0 {
        bail!("`lora.rank` is 0, expected at least 1");
    }
    if !(config.alpha.is_finite() && config.alpha > 0.0) {
        bail!("`lora.alpha` is {}, expected a positive number", config.alpha);
    }
    if config.targets.is_empty() {
        bail!("`lora.targets` is empty, expected at least one projection, such as \"query\"");
    }
    if !(0.0..1.0).contains(&config.dropout) {
        bail!("`lora.dropout` is {}, expected at least 0 and below 1", config.dropout);
    }
    if config.dropout > 0.0 && !dropout {
        bail!(
            "`lora.dropout` is {}, expected 0: only `sft` drops inputs of its adapters, the other stages compare \
             scores of one model with itself",
            config.dropout
        );
    }
    Ok(())
}

/// An objective whose model draws fresh dropout masks at every forward pass, the same ones when a step is repeated.
pub(super) struct Dropping<'a, O> {
    objective: O,
    draws: Draws,
    /// The step, and how many microbatches of it are behind us.
    place: &'a Cell<(u64, u64)>,
}

impl<'a, O> Dropping<'a, O> {
    /// `place` is set to `(step, 0)` by whoever provides the step's batches.
    pub(super) fn new(objective: O, draws: Draws, place: &'a Cell<(u64, u64)>) -> Self {
        Self { objective, draws, place }
    }
}

impl<O> Dropping<'_, O> {
    /// The model with the masks of this microbatch.
    fn masked<'m>(&self, model: &'m Transformer) -> Cow<'m, Transformer> {
        if !model.has_adapters() {
            return Cow::Borrowed(model);
        }
        let (step, microbatch) = self.place.get();
        self.place.set((step, microbatch + 1));
        Cow::Owned(model.clone().with_dropout(&self.draws.child(microbatch), step))
    }
}

impl<O: Objective<Transformer>> Objective<Transformer> for Dropping<'_, O> {
    type Batch = O::Batch;

    fn loss(&self, model: &Transformer, batch: &O::Batch) -> Loss {
        self.objective.loss(&self.masked(model), batch)
    }

    fn gradients(&self, model: &Transformer, batch: &O::Batch) -> (Loss, GradientsParams) {
        self.objective.gradients(&self.masked(model), batch)
    }

    fn finish(&self, metrics: &mut Metrics) {
        self.objective.finish(metrics);
    }
}
