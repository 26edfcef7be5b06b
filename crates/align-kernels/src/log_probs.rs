//! Log-probabilities of given tokens straight from hidden states, without ever holding `[N, V]`.

use burn::Tensor;
use burn::tensor::Int;

use crate::plain;

/// What happens between the head's product and the softmax.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadOptions {
    /// Divides the logits, after the cap.
    pub temperature: f64,
    /// `c·tanh(logit/c)`, as Gemma 2 does.
    pub softcap: Option<f64>,
    /// Keep no logits for the backward pass: less memory for one more product with the head.
    pub recompute: bool,
}

impl Default for HeadOptions {
    /// Temperature 1, no cap: the model's own distribution.
    fn default() -> Self {
        Self { temperature: 1.0, softcap: None, recompute: false }
    }
}

/// What [`token_log_probs`] finds for each token.
#[derive(Clone, Debug)]
pub struct TokenLogProbs {
    /// `log p(target)`, `[N]`, nats.
    pub log_probs: Tensor<1>,
    /// Entropy of the whole distribution, `[N]`, nats; constants on the plain device.
    pub entropies: Tensor<1>,
}

/// `log softmax(cap(hidden·headᵀ + bias)/temperature)[target]` and the entropy of each row.
///
/// Computed over chunks of rows. Of what is recorded, up to 64 MiB of logits are kept for the backward pass, which computes the
/// others again; with [`recompute`](HeadOptions::recompute) all of them.
///
/// # Shapes
/// `hidden`: `[N, E]`, `head`: `[V, E]` (as Hugging Face stores it, shared with the embedding if tied), `bias`: `[V]`, `targets`:
/// `[N]`, each in `0..V`. Fill rows that do not count with target 0 and mask the result.
///
/// # Units
/// Nats per token.
///
/// # Gradient
/// Of `log_probs` through `hidden`, `head` and `bias`: `∂/∂logit = 1[target] − p`. The entropies are constants.
///
/// # Panics
/// If the shapes do not fit, `temperature ≤ 0`, or (on Flex) a target is outside the vocabulary.
pub fn token_log_probs(
    hidden: Tensor<2>,
    head: Tensor<2>,
    bias: Option<Tensor<1>>,
    targets: Tensor<1, Int>,
    options: &HeadOptions,
) -> TokenLogProbs {
    let ([n, e], [v, width], [count]) = (hidden.dims(), head.dims(), targets.dims());
    assert!(
        e == width && n == count && bias.as_ref().is_none_or(|bias| bias.dims() == [v]),
        "token_log_probs: hidden {:?}, head {:?}, bias {:?} and targets {:?} do not fit: expected [N, E], [V, E], [V], [N]",
        hidden.dims(),
        head.dims(),
        bias.as_ref().map(|bias| bias.dims()),
        targets.dims()
    );
    assert!(
        options.temperature > 0.0,
        "token_log_probs: temperature is {}, expected more than 0",
        options.temperature
    );
    #[cfg(feature = "flex")]
    if crate::device::is_fused(&hidden) && crate::device::is_fused(&head) {
        return crate::flex::token_log_probs(hidden, head, bias, targets, options);
    }
    plain::token_log_probs(hidden, head, bias, targets, options)
}
