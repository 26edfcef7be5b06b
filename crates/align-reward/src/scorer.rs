//! What a ranking loss trains, and what it becomes afterwards.

use align_core::{Completions, Reward};
use align_models::RewardModel;
use burn::module::Module;
use burn::tensor::Tensor;

/// Gives a completion a score that gradients flow through: the trainable side of a [`Reward`].
pub trait Scorer: Send + Sync {
    /// Scores every row at its last token that counts.
    ///
    /// # Shapes
    /// → `[B]`.
    ///
    /// # Gradient
    /// Through the model's parameters.
    fn scores(&self, completions: &Completions) -> Tensor<1>;
}

impl<S: Scorer + ?Sized> Scorer for &S {
    fn scores(&self, completions: &Completions) -> Tensor<1> {
        (**self).scores(completions)
    }
}

impl Scorer for RewardModel {
    /// Before normalisation: what is measured after training must not move while training.
    fn scores(&self, completions: &Completions) -> Tensor<1> {
        self.raw_scores(completions)
    }
}

/// A trained scorer as a judge: it records no gradients and no learner accepts it.
///
/// A [`RewardModel`] is a [`Reward`] itself and needs no judge.
#[derive(Clone, Debug)]
pub struct Judge<S>(S);

impl<S: Module + Scorer> Judge<S> {
    /// Detaches the model from autodiff. Storage is shared until the original moves on.
    pub fn new(model: &S) -> Self {
        Self(model.valid())
    }

    /// The model, for reading.
    pub fn get(&self) -> &S {
        &self.0
    }
}

impl<S: Scorer> Reward for Judge<S> {
    fn score(&self, completions: &Completions) -> Tensor<1> {
        self.0.scores(completions)
    }
}
