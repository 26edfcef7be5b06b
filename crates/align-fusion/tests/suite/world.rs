//! Small models, ragged rows, and ways to put them together.

use align_core::{CausalLm, Completions, Draws, TokenBatch};
use align_fusion::{Expert, Fusion, Weighing};
use align_models::{Transformer, TransformerConfig};
use align_testkit::device;
use burn::tensor::{Tensor, activation::log_softmax};

pub(crate) const V: usize = 23;

/// Weights so large that next-token distributions differ as those of trained models do.
pub(crate) fn transformer(seed: u64, hidden: usize) -> Transformer {
    let mut config = TransformerConfig::llama(V, hidden, 2, 2);
    config.initializer_range = 0.35;
    config.tied = false;
    config.context_length = 32;
    Transformer::init(&config, &Draws::new(seed), &device())
}

/// A large base, a small base, and two experts.
pub(crate) struct Members {
    pub(crate) base: Transformer,
    pub(crate) anchor: Transformer,
    pub(crate) experts: [Transformer; 2],
}

pub(crate) fn members() -> Members {
    Members {
        base: transformer(1, 24),
        anchor: transformer(2, 12),
        experts: [transformer(3, 12), transformer(4, 12)],
    }
}

impl Members {
    pub(crate) fn one(&self, weighing: Weighing) -> Fusion<'_> {
        let experts = vec![Expert::new("first", Box::new(&self.experts[0]))];
        Fusion::new(Box::new(&self.base), Box::new(&self.anchor), experts, weighing).expect("they fit")
    }

    pub(crate) fn two(&self, weighing: Weighing) -> Fusion<'_> {
        let [first, second] = &self.experts;
        let experts = vec![Expert::new("first", Box::new(first)), Expert::new("second", Box::new(second))];
        Fusion::new(Box::new(&self.base), Box::new(&self.anchor), experts, weighing).expect("they fit")
    }
}

pub(crate) fn fixed(weights: &[f64]) -> Weighing {
    Weighing::Static { weights: weights.to_vec() }
}

/// The weighings that laws are checked for, by the number of experts.
pub(crate) fn weighings(experts: usize) -> Vec<Weighing> {
    let weights = [0.8, -0.3];
    vec![fixed(&weights[..experts]), Weighing::Dynamic(Default::default())]
}

pub(crate) fn prompts() -> Vec<Vec<u32>> {
    vec![vec![3, 1, 4, 1, 5], vec![9], vec![2, 6, 5]]
}

pub(crate) fn responses() -> Vec<Vec<u32>> {
    vec![vec![7, 7], vec![8, 22, 0, 11], vec![10]]
}

pub(crate) fn completions() -> Completions {
    Completions::from_rows(&prompts(), &responses(), &device())
}

pub(crate) fn batch(rows: &[Vec<u32>]) -> TokenBatch {
    TokenBatch::left_padded(rows, &device())
}

pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.without_autodiff().to_data().iter::<f32>().collect()
}

/// Log-probabilities after a whole row, computed alone and without a cache.
pub(crate) fn after(model: &dyn CausalLm, row: &[u32]) -> Vec<f32> {
    let logits = model.logits(&batch(&[row.to_vec()]));
    values(log_softmax(logits.narrow(1, row.len() - 1, 1), 2))
}

/// Log-probabilities that precede the response tokens that count, row by row, each computed alone.
pub(crate) fn before_responses(
    model: &dyn CausalLm,
    prompts: &[Vec<u32>],
    responses: &[Vec<u32>],
) -> Vec<Vec<f32>> {
    let mut found = Vec::new();
    for (prompt, response) in prompts.iter().zip(responses) {
        for read in 0..response.len() {
            found.push(after(model, &[&prompt[..], &response[..read]].concat()));
        }
    }
    found
}

/// What [`CausalLm::next_tokens`] says about the response tokens that count, normalised, `columns` at a time.
pub(crate) fn next_log_probs(
    model: &dyn CausalLm,
    completions: &Completions,
    columns: usize,
) -> Vec<Vec<f32>> {
    let next = model.next_tokens(completions);
    let width = completions.response.width();
    let parts: Vec<Tensor<3>> = (0..width)
        .step_by(columns)
        .map(|start| log_softmax(next.scores(start..(start + columns).min(width)), 2))
        .collect();
    let all = Tensor::cat(parts, 1);
    let lengths = completions.response.lengths();
    let mut found = Vec::new();
    for (row, length) in lengths.into_iter().enumerate() {
        for column in 0..length {
            found.push(values(all.clone().narrow(0, row, 1).narrow(1, column, 1)));
        }
    }
    found
}
