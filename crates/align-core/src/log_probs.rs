//! Log-probabilities of tokens from next-token scores.

use burn::tensor::{Bool, DType, Tensor, activation::log_softmax};

use crate::batch::TokenBatch;
use crate::divergence::{Divergence, Kl};
use crate::shape::assert_same_shape;

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
/// Half precision is raised to f32 first.
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
    assert_same_shape("log_probs::from_logits", [[b, r], response.ids.dims()]);
    let rows = log_softmax(full_precision(logits) / temperature, 2);
    let hidden = response.mask.clone().bool_not();
    let log_probs = rows.clone().gather(2, response.ids.clone().unsqueeze_dim(2)).squeeze_dim(2);
    TokenLogProbs {
        log_probs: log_probs.mask_fill(hidden.clone(), 0.0),
        entropies: entropies(rows.without_autodiff()).mask_fill(hidden, 0.0),
    }
}

/// [`from_logits`], `columns` response positions at a time: the temporaries are `[B, columns, V]` and never `[B, R, V]`.
///
/// # Panics
/// If the shapes disagree or `columns` is 0.
pub fn chunked(logits: Tensor<3>, response: &TokenBatch, temperature: f64, columns: usize) -> TokenLogProbs {
    assert!(columns > 0, "log_probs::chunked: expected at least one column at a time, found 0");
    let [b, r, _] = logits.dims();
    assert_same_shape("log_probs::chunked", [[b, r], response.ids.dims()]);
    let parts = (0..r).step_by(columns).map(|start| {
        let end = (start + columns).min(r);
        let part = TokenBatch {
            ids: response.ids.clone().slice([0..b, start..end]),
            mask: response.mask.clone().slice([0..b, start..end]),
        };
        let part = from_logits(logits.clone().slice([0..b, start..end]), &part, temperature);
        (part.log_probs, part.entropies)
    });
    let (log_probs, entropies): (Vec<_>, Vec<_>) = parts.unzip();
    TokenLogProbs { log_probs: Tensor::cat(log_probs, 1), entropies: Tensor::cat(entropies, 1) }
}

/// KL(softmax(p/T) ‖ softmax(q/T)) at every position, over the whole vocabulary.
///
/// # Shapes
/// Scores `[B, R, V]`, `[B, R, V]`, `mask` `[B, R]` → `[B, R]`; 0 where nothing counts.
///
/// # Units
/// Nats per token.
///
/// # Gradient
/// Through both scores; none under a false mask.
///
/// # Panics
/// If the shapes disagree.
pub fn kl_exact(
    logits_p: Tensor<3>,
    logits_q: Tensor<3>,
    mask: &Tensor<2, Bool>,
    temperature: f64,
) -> Tensor<2> {
    let [b, r, v] = logits_p.dims();
    assert_same_shape("log_probs::kl_exact", [logits_p.dims(), logits_q.dims()]);
    assert_same_shape("log_probs::kl_exact", [[b, r], mask.dims()]);
    let rows = |logits| log_softmax(full_precision(logits) / temperature, 2).reshape([b * r, v]);
    let kl = Kl::default().exact(rows(logits_p), rows(logits_q));
    kl.reshape([b, r]).mask_fill(mask.clone().bool_not(), 0.0)
}

/// Entropy of every distribution: `−Σ_v p_v log p_v`.
///
/// # Shapes
/// Normalised log-probabilities `[B, R, V]` → `[B, R]`, in nats. An outcome of log-probability −∞ contributes 0.
pub fn entropies(log_probs: Tensor<3>) -> Tensor<2> {
    let impossible = log_probs.clone().equal_elem(f32::NEG_INFINITY);
    // Filled before the product, so that the gradient is finite as well.
    let log_probs = log_probs.mask_fill(impossible, 0.0);
    (log_probs.clone().exp() * log_probs).sum_dim(2).squeeze_dim::<2>(2).neg()
}

/// Sums over the tokens that count: the log-probability of whole responses.
///
/// # Shapes
/// `[B, R]`, `[B, R]` → `[B]`, in nats per sequence.
///
/// # Panics
/// If the shapes differ.
pub fn sequence_log_probs(log_probs: Tensor<2>, mask: &Tensor<2, Bool>) -> Tensor<1> {
    assert_same_shape("log_probs::sequence_log_probs", [log_probs.dims(), mask.dims()]);
    log_probs.mask_fill(mask.clone().bool_not(), 0.0).sum_dim(1).squeeze_dim(1)
}

/// f32 at least: sums over a vocabulary lose too much in half precision.
pub(crate) fn full_precision(logits: Tensor<3>) -> Tensor<3> {
    match logits.dtype() {
        DType::F16 | DType::BF16 => logits.cast(DType::F32),
        _ => logits,
    }
}
