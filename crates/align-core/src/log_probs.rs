//! Log-probabilities of tokens from next-token scores.

use burn::tensor::{Bool, Tensor, activation::log_softmax};

use crate::batch::TokenBatch;

/// Log-probabilities of tokens and the entropies of the distributions they were taken from.
#[derive(Clone, Debug)]
pub struct TokenLogProbs {
    /// Nats, `[B, R]`; 0 where nothing counts.
    pub log_probs: Tensor<2>,
    /// Nats, `[B, R]`, constants; 0 where nothing counts.
    pub entropies: Tensor<2>,
}

/// Reads off the log-probabilities of `response` from the scores that precede each of its tokens.
///
/// # Shapes
/// `logits` `[B, R, V]` (row `t` precedes token `t`), `response` `[B, R]` → `[B, R]` each.
///
/// # Gradient
/// `∂ log p_y / ∂ z = (1_y − softmax(z / T)) / T` through `log_probs`; none through `entropies`, none under a false mask.
///
/// # Panics
/// If the shapes disagree.
pub fn from_logits(logits: Tensor<3>, response: &TokenBatch, temperature: f64) -> TokenLogProbs {
    let [b, r, _] = logits.dims();
    assert_eq!([b, r], response.ids.dims(), "one row of scores for each response token");
    let rows = log_softmax(logits / temperature, 2);
    let hidden = response.mask.clone().bool_not();
    let log_probs = rows.clone().gather(2, response.ids.clone().unsqueeze_dim(2)).squeeze_dim(2);
    TokenLogProbs {
        log_probs: log_probs.mask_fill(hidden.clone(), 0.0),
        entropies: entropies(rows.without_autodiff()).mask_fill(hidden, 0.0),
    }
}

/// Entropy of every distribution: `−Σ_v p_v log p_v`.
///
/// # Shapes
/// Normalised log-probabilities `[B, R, V]` → `[B, R]`, in nats. An outcome of log-probability −∞ contributes 0.
pub fn entropies(log_probs: Tensor<3>) -> Tensor<2> {
    let impossible = log_probs.clone().equal_elem(f32::NEG_INFINITY);
    let terms = log_probs.clone().exp() * log_probs;
    terms.mask_fill(impossible, 0.0).sum_dim(2).squeeze_dim::<2>(2).neg()
}

/// Sums over the tokens that count: the log-probability of whole responses.
///
/// # Shapes
/// `[B, R]`, `[B, R]` → `[B]`, in nats per sequence.
pub fn sequence_log_probs(log_probs: Tensor<2>, mask: &Tensor<2, Bool>) -> Tensor<1> {
    log_probs.mask_fill(mask.clone().bool_not(), 0.0).sum_dim(1).squeeze_dim(1)
}
