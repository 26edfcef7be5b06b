//! Exact expectations over every response a small model can give.

use align_core::divergence::Divergence;
use align_core::log_probs::sequence_log_probs;
use align_core::{CausalLm, Completions, Reward};
use burn::tensor::{Device, Tensor};

/// Every response to one prompt, as one batch: V, V², … rows, so keep V and the length small.
#[derive(Clone, Debug)]
pub struct Enumeration {
    /// One row for each response.
    pub completions: Completions,
}

impl Enumeration {
    /// All responses of exactly `length` tokens, or shorter ones that end in `eos`.
    ///
    /// # Panics
    /// If `length` or `vocab_size` is 0.
    pub fn new(vocab_size: usize, prompt: &[u32], length: usize, eos: Option<u32>, device: &Device) -> Self {
        assert!(vocab_size > 0 && length > 0, "nothing to enumerate");
        let mut finished = Vec::new();
        let mut open = vec![Vec::new()];
        for position in 1..=length {
            let extended = open.iter().flat_map(|response: &Vec<u32>| {
                (0..vocab_size as u32).map(move |token| [response.as_slice(), &[token]].concat())
            });
            let (ended, continued): (Vec<_>, Vec<_>) =
                extended.partition(|response| position == length || response.last().copied() == eos);
            finished.extend(ended);
            open = continued;
        }
        let prompts = vec![prompt.to_vec(); finished.len()];
        Self { completions: Completions::from_rows(&prompts, &finished, device) }
    }

    /// log π of every response, at temperature 1.
    ///
    /// # Shapes
    /// → `[rows]`.
    ///
    /// # Gradient
    /// Through the model.
    pub fn log_probs<M: CausalLm + ?Sized>(&self, model: &M) -> Tensor<1> {
        let tokens = model.token_log_probs(&self.completions, 1.0).log_probs;
        sequence_log_probs(tokens, &self.completions.response.mask)
    }

    /// `E_π[r] = Σ_y π(y) r(y)`.
    ///
    /// # Shapes
    /// → `[1]`.
    ///
    /// # Gradient
    /// Through the model: the exact policy gradient.
    pub fn expected_reward<M: CausalLm + ?Sized>(&self, model: &M, reward: &dyn Reward) -> Tensor<1> {
        let log_probs = self.log_probs(model);
        let scores = reward.score(&self.completions).cast(log_probs.dtype());
        (log_probs.exp() * scores).sum()
    }

    /// D(π‖μ) over whole responses.
    ///
    /// # Shapes
    /// → `[1]`.
    ///
    /// # Gradient
    /// Through both models, if they record.
    pub fn divergence<P, Q>(&self, divergence: &dyn Divergence, policy: &P, reference: &Q) -> Tensor<1>
    where
        P: CausalLm + ?Sized,
        Q: CausalLm + ?Sized,
    {
        divergence.exact(self.log_probs(policy).unsqueeze_dim(0), self.log_probs(reference).unsqueeze_dim(0))
    }

    /// How many responses there are.
    pub fn len(&self) -> usize {
        self.completions.batch_size()
    }

    /// Never: there is always at least one response.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
