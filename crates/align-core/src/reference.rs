//! Where a regulariser measures from.

use burn::tensor::Tensor;

use crate::batch::Completions;
use crate::lm::{CausalLm, NextTokens};

/// Log-probabilities to measure a policy against. Every language model is one; so is a cache.
pub trait Reference: Send + Sync {
    /// Log-probabilities of the response tokens under `softmax(logits / temperature)`, as constants.
    ///
    /// # Shapes
    /// → `[B, R]`, 0 under a false mask.
    ///
    /// # Units
    /// Nats per token.
    fn log_probs(&self, completions: &Completions, temperature: f64) -> Tensor<2>;

    /// The whole distributions the response tokens are measured by, if the reference is a model; a cache knows only the tokens.
    fn distributions(&self, _completions: &Completions) -> Option<NextTokens<'_>> {
        None
    }
}

impl<M: CausalLm + ?Sized> Reference for M {
    fn log_probs(&self, completions: &Completions, temperature: f64) -> Tensor<2> {
        self.token_log_probs(completions, temperature).log_probs.without_autodiff()
    }

    fn distributions(&self, completions: &Completions) -> Option<NextTokens<'_>> {
        Some(self.next_tokens(completions))
    }
}

/// Log-probabilities computed once and replayed, for the very completions and temperature they were computed for.
#[derive(Clone, Debug)]
pub struct CachedReference {
    log_probs: Tensor<2>,
    temperature: f64,
}

impl CachedReference {
    /// Asks `reference` once.
    pub fn new(reference: &dyn Reference, completions: &Completions, temperature: f64) -> Self {
        Self { log_probs: reference.log_probs(completions, temperature), temperature }
    }
}

impl Reference for CachedReference {
    /// # Panics
    /// If the shape or the temperature is not the one cached.
    fn log_probs(&self, completions: &Completions, temperature: f64) -> Tensor<2> {
        assert_eq!(self.log_probs.dims(), completions.response.ids.dims(), "cached for other completions");
        assert_eq!(self.temperature, temperature, "cached at another temperature");
        self.log_probs.clone()
    }
}
