//! Learning from labelled batches: supervised fine-tuning, reward models.

use std::path::Path;

use align_core::Persist;
use burn::module::Module;

use crate::error::TrainError;
use crate::learner::Learner;
use crate::metrics::Metrics;
use crate::objective::Objective;
use crate::run::Algorithm;

/// Where the microbatches of a step come from.
pub trait Batches {
    /// One microbatch.
    type Batch;

    /// The microbatches of optimizer step `step`, counted from 0.
    ///
    /// Best a pure function of the step; a source with a cursor saves it.
    ///
    /// # Errors
    /// If the data cannot be read, wrapped by [`TrainError::algorithm`].
    fn batches(&mut self, step: u64) -> Result<Vec<Self::Batch>, TrainError>;

    /// Writes the cursor, if there is one, into an existing folder.
    ///
    /// # Errors
    /// If a file cannot be written.
    fn save(&self, _folder: &Path) -> Result<(), TrainError> {
        Ok(())
    }

    /// Takes over what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// If a file is missing or damaged.
    fn restore(&mut self, _folder: &Path) -> Result<(), TrainError> {
        Ok(())
    }
}

/// A source by closure, for what is a pure function of the step.
pub struct BatchesFn<F>(pub F);

impl<B, F: FnMut(u64) -> Result<Vec<B>, TrainError>> Batches for BatchesFn<F> {
    type Batch = B;
    fn batches(&mut self, step: u64) -> Result<Vec<B>, TrainError> {
        (self.0)(step)
    }
}

/// Held-out batches, looked at every so many steps.
#[derive(Clone, Debug)]
pub struct Evaluation<B> {
    /// Evaluate after every so many steps; 0 never does.
    pub every: u64,
    /// The held-out batches.
    pub batches: Vec<B>,
}

/// One optimizer step an iteration on batches from `D`, for the objective `O`.
pub struct Supervised<M, O: Objective<M>, D> {
    learner: Learner<M>,
    objective: O,
    data: D,
    evaluation: Option<Evaluation<O::Batch>>,
}

impl<M: Module, O: Objective<M>, D: Batches<Batch = O::Batch>> Supervised<M, O, D> {
    /// Trains what the learner holds.
    pub fn new(learner: Learner<M>, objective: O, data: D) -> Self {
        Self { learner, objective, data, evaluation: None }
    }

    /// With held-out batches.
    #[must_use]
    pub fn with_evaluation(mut self, evaluation: Evaluation<O::Batch>) -> Self {
        self.evaluation = Some(evaluation);
        self
    }

    /// The learner.
    pub fn learner(&self) -> &Learner<M> {
        &self.learner
    }

    /// The model, for good.
    pub fn into_model(self) -> M {
        self.learner.into_model()
    }
}

/// The objective's metrics and `loss` on batches, without gradients and without dropout.
///
/// # Errors
/// If nothing counts in any of the batches.
pub fn evaluate<M: Module, O: Objective<M>>(
    model: &M,
    objective: &O,
    batches: &[O::Batch],
) -> Result<Metrics, TrainError> {
    let model = model.valid();
    let (mut sum, mut weight, mut parts) = (0.0, 0.0, Vec::new());
    for batch in batches {
        let loss = objective.loss(&model, batch);
        sum += loss.to_f64();
        weight += loss.weight;
        parts.push((loss.weight, loss.metrics));
    }
    if weight <= 0.0 {
        return Err(TrainError::NothingToEvaluate { batches: batches.len() });
    }
    let mut metrics = Metrics::mean(&parts).with("loss", sum / weight).with("count", weight);
    objective.finish(&mut metrics);
    Ok(metrics)
}

impl<M, O, D> Algorithm for Supervised<M, O, D>
where
    M: Module + Persist,
    O: Objective<M>,
    D: Batches<Batch = O::Batch>,
{
    fn iterate(&mut self, step: u64) -> Result<Metrics, TrainError> {
        let batches = self.data.batches(step)?;
        let mut metrics = self.learner.step(&self.objective, &batches)?;
        if let Some(evaluation) = &self.evaluation
            && evaluation.every > 0
            && (step + 1).is_multiple_of(evaluation.every)
        {
            let held_out = evaluate(self.learner.model(), &self.objective, &evaluation.batches)?;
            metrics.merge(held_out.prefixed("eval/"));
        }
        Ok(metrics)
    }

    fn save(&self, folder: &Path) -> Result<(), TrainError> {
        self.learner.save(folder)?;
        self.data.save(folder)
    }

    fn restore(&mut self, folder: &Path) -> Result<(), TrainError> {
        self.learner.restore(folder)?;
        self.data.restore(folder)
    }
}
