//! Low-rank adapters in recipes: `[lora]` checked, and dropout keyed by seed and step.

use std::borrow::Cow;
use std::cell::Cell;
use std::path::Path;

use align_core::Draws;
use align_models::{LoraConfig, RewardModel, Transformer};
use align_train::{Batches, Loss, Metrics, Objective, TrainError};
use anyhow::bail;
use burn::module::Module;
use burn::optim::GradientsParams;

/// Refuses tables that describe no adapter.
pub(super) fn check(config: &LoraConfig) -> anyhow::Result<()> {
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
    Ok(())
}

/// [`check`] for stages in which one model is compared with itself: dropout would make its ratio to itself differ from 1.
pub(super) fn check_without_dropout(config: &LoraConfig) -> anyhow::Result<()> {
    check(config)?;
    if config.dropout > 0.0 {
        bail!(
            "`lora.dropout` is {}, expected 0: a policy's probabilities are compared with others, and dropped inputs would \
             change them",
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

/// A model whose adapters may drop inputs.
pub(super) trait Adapted: Module {
    fn has_adapters(&self) -> bool;
    fn with_dropout(self, draws: &Draws, step: u64) -> Self;
    fn merged(&self) -> Self;

    /// The model off the record, adapters folded into its weights.
    fn dense(&self) -> Self {
        let plain = self.valid();
        if plain.has_adapters() { plain.merged() } else { plain }
    }
}

impl Adapted for Transformer {
    fn has_adapters(&self) -> bool {
        self.has_adapters()
    }

    fn merged(&self) -> Self {
        self.merged()
    }

    fn with_dropout(self, draws: &Draws, step: u64) -> Self {
        self.with_dropout(draws, step)
    }
}

impl Adapted for RewardModel {
    fn has_adapters(&self) -> bool {
        self.backbone().has_adapters()
    }

    fn merged(&self) -> Self {
        self.merged()
    }

    fn with_dropout(self, draws: &Draws, step: u64) -> Self {
        self.with_dropout(draws, step)
    }
}

impl<O> Dropping<'_, O> {
    /// The model with the masks of this microbatch.
    fn masked<'m, M: Adapted>(&self, model: &'m M) -> Cow<'m, M> {
        if !model.has_adapters() {
            return Cow::Borrowed(model);
        }
        let (step, microbatch) = self.place.get();
        self.place.set((step, microbatch + 1));
        Cow::Owned(model.clone().with_dropout(&self.draws.child(microbatch), step))
    }
}

impl<M: Adapted, O: Objective<M>> Objective<M> for Dropping<'_, O> {
    type Batch = O::Batch;

    fn loss(&self, model: &M, batch: &O::Batch) -> Loss {
        self.objective.loss(&self.masked(model), batch)
    }

    fn gradients(&self, model: &M, batch: &O::Batch) -> (Loss, GradientsParams) {
        self.objective.gradients(&self.masked(model), batch)
    }

    fn finish(&self, metrics: &mut Metrics) {
        self.objective.finish(metrics);
    }
}

/// Batches that tell [`Dropping`] which step they are for.
pub(super) struct AtSteps<'a, B> {
    pub(super) batches: Box<dyn Batches<Batch = B> + 'a>,
    pub(super) place: &'a Cell<(u64, u64)>,
}

impl<B> Batches for AtSteps<'_, B> {
    type Batch = B;

    fn batches(&mut self, step: u64) -> Result<Vec<B>, TrainError> {
        self.place.set((step, 0));
        self.batches.batches(step)
    }

    fn save(&self, folder: &Path) -> Result<(), TrainError> {
        self.batches.save(folder)
    }

    fn restore(&mut self, folder: &Path) -> Result<(), TrainError> {
        self.batches.restore(folder)
    }
}
