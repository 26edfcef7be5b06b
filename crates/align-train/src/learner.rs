//! A model and the optimizer that trains it.

use std::collections::BTreeMap;

use burn::module::Module;

use crate::adamw::Moments;
use crate::error::TrainError;
use crate::gradients::{StepGradients, largest, parameters, update_parameters, zero_tensors};
use crate::metrics::Metrics;
use crate::objective::Objective;
use crate::optimizer::OptimizerConfig;

/// Owns the model under training, its optimizer state and the count of optimizer steps.
#[derive(Clone, Debug)]
pub struct Learner<M> {
    // Taken out only while it is being updated, so that tensors nobody shares are updated in place.
    model: Option<M>,
    pub(crate) config: OptimizerConfig,
    pub(crate) total_steps: u64,
    pub(crate) steps: u64,
    pub(crate) moments: BTreeMap<String, Moments>,
    /// Where the schedules are read, and of how many steps; where nothing is held, at the count of optimizer steps.
    held: Option<(u64, u64)>,
    checked: bool,
}

impl<M: Module> Learner<M> {
    /// Takes over a model. One that does not record gradients yet is moved to the recording device; what is frozen
    /// stays frozen.
    ///
    /// `total_steps` is the number of optimizer steps the schedules are stretched over.
    ///
    /// # Errors
    /// If nothing is trainable, or a trainable parameter stands at two paths.
    pub fn new(model: M, config: OptimizerConfig, total_steps: u64) -> Result<Self, TrainError> {
        let model = recording(model)?;
        Ok(Self {
            model: Some(model),
            config,
            total_steps,
            steps: 0,
            moments: BTreeMap::new(),
            held: None,
            checked: false,
        })
    }

    /// The model, on the recording device.
    ///
    /// A clone shares storage until the next step; `model().valid()` is the model for sampling and scoring.
    pub fn model(&self) -> &M {
        self.model.as_ref().expect("the model is absent only inside `apply`")
    }

    /// The model, for good.
    pub fn into_model(self) -> M {
        self.model.expect("the model is absent only inside `apply`")
    }

    /// Replaces the weights and keeps the optimizer's state, for averages that are handed back into training.
    ///
    /// # Errors
    /// As [`Learner::new`].
    ///
    /// # Panics
    /// If the trainable tensors are not those of the present model.
    pub fn set_model(&mut self, model: M) -> Result<(), TrainError> {
        let model = recording(model)?;
        assert_eq!(parameters(&model)?, parameters(self.model())?, "a learner's model keeps its structure");
        self.model = Some(model);
        Ok(())
    }

    /// Forgets moments and steps and stretches the schedules over `total_steps` from here: a training of its own that begins at the
    /// present weights.
    pub fn begin_again(&mut self, total_steps: u64) {
        self.total_steps = total_steps;
        self.steps = 0;
        self.moments.clear();
    }

    pub(crate) fn skip_first_step_check(&mut self, skip: bool) {
        self.checked = skip;
    }

    /// Reads the schedules at `step` of `total` until the next call, however many optimizer steps that takes: for algorithms
    /// whose rate moves once an iteration.
    ///
    /// Not part of what [`save`](Self::save) writes: whoever holds the schedules does so before each step.
    pub fn hold_schedule(&mut self, step: u64, total: u64) {
        self.held = Some((step, total));
    }

    /// How many optimizer steps were taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The optimizer's configuration.
    pub fn config(&self) -> &OptimizerConfig {
        &self.config
    }

    /// One optimizer step over all microbatches: one forward and one backward for each, one update.
    ///
    /// Reports `loss` (`Σ value / Σ weight`), `count` (`Σ weight`), `grad_norm` (before clipping), `lr`, `lr/<group>`
    /// and the objective's own metrics, averaged by weight.
    ///
    /// # Errors
    /// If the loss or its gradient is not finite, if nothing counts, or if at the first step a trainable tensor gets
    /// no gradient. The model and the optimizer are then those before the step.
    pub fn step<O: Objective<M>>(
        &mut self,
        objective: &O,
        batches: &[O::Batch],
    ) -> Result<Metrics, TrainError> {
        let gradients = self.gradients(objective, batches)?;
        let mut metrics = self.apply(gradients)?;
        objective.finish(&mut metrics);
        Ok(metrics)
    }

    /// The first half of [`step`](Self::step): what the microbatches add up to, undivided.
    ///
    /// # Errors
    /// If the loss is not finite.
    pub fn gradients<O: Objective<M>>(
        &self,
        objective: &O,
        batches: &[O::Batch],
    ) -> Result<StepGradients, TrainError> {
        let model = self.model();
        let mut sum = StepGradients::default();
        for batch in batches {
            let (loss, gradients) = objective.gradients(model, batch);
            let value = loss.to_f64();
            if !value.is_finite() {
                return Err(TrainError::LossNotFinite { step: self.steps, term: loss.culprit(), value });
            }
            sum.loss += value;
            sum.weight += loss.weight;
            sum.metrics.push((loss.weight, loss.metrics));
            sum.accumulate(model, gradients);
        }
        if sum.weight > 0.0 {
            Ok(sum)
        } else {
            Err(TrainError::NothingCounts { step: self.steps, microbatches: batches.len() })
        }
    }

    /// The second half of [`step`](Self::step): normalises, checks, clips and updates.
    ///
    /// Replicas [merge](StepGradients::merge) what they got from [`gradients`](Self::gradients) and apply the sum.
    ///
    /// # Errors
    /// If the gradient is not finite, or if at the first step a trainable tensor gets none.
    pub fn apply(&mut self, gradients: StepGradients) -> Result<Metrics, TrainError> {
        let norms = gradients.norms();
        let not_finite: Vec<String> =
            norms.iter().filter(|(_, norm)| !norm.is_finite()).map(|(path, _)| path.clone()).collect();
        if !not_finite.is_empty() {
            return Err(TrainError::GradientNotFinite { step: self.steps, tensors: not_finite });
        }
        if !self.checked {
            self.check_first_step(&gradients)?;
            self.checked = true;
        }

        let norm = norms.iter().map(|(_, norm)| norm * norm).sum::<f64>().sqrt() / gradients.weight;
        let mut metrics = Metrics::mean(&gradients.metrics);
        metrics.set("loss", gradients.loss / gradients.weight);
        metrics.set("count", gradients.weight);
        metrics.set("grad_norm", norm);
        let (step, total) = self.held.unwrap_or((self.steps, self.total_steps));
        metrics.set("lr", self.config.learning_rate_at(step, total));
        for group in &self.config.groups {
            let rate = self.config.group_learning_rate_at(group, step, total);
            metrics.set(format!("lr/{}", group.name), rate);
        }

        let scale = clip_factor(norm, self.config.max_grad_norm.get()) / gradients.weight;
        let model = self.model.take().expect("the model is absent only inside `apply`");
        let (config, moments) = (&self.config, &mut self.moments);
        let model = update_parameters(model, gradients.sums, |path, rank, parameter, gradient| {
            let rule = config.rule(path, rank, step, total);
            let (updated, new) = rule.update(parameter, gradient, scale, moments.remove(path));
            moments.insert(path.to_owned(), new);
            updated
        });
        self.model = Some(model);
        self.steps += 1;
        Ok(metrics)
    }

    /// Every trainable tensor must get a non-zero gradient at the first step after construction.
    ///
    /// Exempt are LoRA's A where its B is still zero (the gradient of A is then `Bᵀ·…` = 0 exactly) and what
    /// `allow_zero_gradient` lists.
    fn check_first_step(&self, gradients: &StepGradients) -> Result<(), TrainError> {
        let trainable: Vec<String> = parameters(self.model())?
            .into_iter()
            .filter(|parameter| parameter.trainable)
            .map(|parameter| parameter.path)
            .collect();
        let mut missing: Vec<String> = trainable
            .iter()
            .filter(|path| gradients.sums.get(*path).is_none_or(|gradient| largest(gradient.clone()) == 0.0))
            .filter(|path| !self.config.allow_zero_gradient.iter().any(|part| path.contains(part.as_str())))
            .cloned()
            .collect();
        if missing.iter().any(|path| lora_partner(path).is_some()) {
            let zeros = zero_tensors(self.model());
            missing.retain(|path| lora_partner(path).is_none_or(|partner| !zeros.contains(&partner)));
        }
        if missing.is_empty() {
            return Ok(());
        }
        Err(TrainError::NotTrained { step: self.steps, tensors: missing, trainable: trainable.len() })
    }
}

/// The path of LoRA's B for the path of its A: `….adapter.a` → `….adapter.b`, `….lora_A.weight` → `….lora_B.weight`.
fn lora_partner(path: &str) -> Option<String> {
    [("adapter.a", "adapter.b"), ("lora.a", "lora.b"), ("lora_a", "lora_b"), ("lora_A", "lora_B")]
        .into_iter()
        .find(|(a, _)| path.contains(a))
        .map(|(a, b)| path.replace(a, b))
}

/// What shortens a gradient of this norm to `max`: `min(1, max / (norm + 1e-6))`, as PyTorch's `clip_grad_norm_`.
fn clip_factor(norm: f64, max: f64) -> f64 {
    if max > 0.0 { (max / (norm + 1e-6)).min(1.0) } else { 1.0 }
}

/// The model on the recording device, with something to train.
fn recording<M: Module>(model: M) -> Result<M, TrainError> {
    let before = parameters(&model)?;
    if before.iter().any(|parameter| parameter.trainable) {
        return Ok(model);
    }
    let model = model.train();
    let tensors = before.len();
    if parameters(&model)?.iter().any(|parameter| parameter.trainable) {
        Ok(model)
    } else {
        Err(TrainError::NothingToTrain { tensors })
    }
}
