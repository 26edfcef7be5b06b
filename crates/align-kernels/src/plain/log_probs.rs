//! Log-probabilities through whole logits, in chunks where no gradient is recorded.

use burn::Tensor;
use burn::tensor::{Int, activation};

use crate::{HeadOptions, TokenLogProbs};

/// Logits held at once where nothing is recorded: 4 Mi numbers.
const CHUNK: usize = 1 << 22;

/// See [`token_log_probs`](crate::token_log_probs).
///
/// Under autodiff the logits are recorded whole, as any composition's are; otherwise rows are taken in chunks.
pub fn token_log_probs(
    hidden: Tensor<2>,
    head: Tensor<2>,
    bias: Option<Tensor<1>>,
    targets: Tensor<1, Int>,
    options: &HeadOptions,
) -> TokenLogProbs {
    let ([n, _], [v, _]) = (hidden.dims(), head.dims());
    let recorded = hidden.is_autodiff() || head.is_autodiff();
    let rows = if recorded { n } else { (CHUNK / v).clamp(1, n.max(1)) };
    if n <= rows {
        return chunk(hidden, head, bias, targets, options);
    }
    let (log_probs, entropies) = (0..n)
        .step_by(rows)
        .map(|start| {
            let count = rows.min(n - start);
            let (hidden, targets) =
                (hidden.clone().narrow(0, start, count), targets.clone().narrow(0, start, count));
            let part = chunk(hidden, head.clone(), bias.clone(), targets, options);
            (part.log_probs, part.entropies)
        })
        .unzip();
    TokenLogProbs { log_probs: Tensor::cat(log_probs, 0), entropies: Tensor::cat(entropies, 0) }
}

fn chunk(
    hidden: Tensor<2>,
    head: Tensor<2>,
    bias: Option<Tensor<1>>,
    targets: Tensor<1, Int>,
    options: &HeadOptions,
) -> TokenLogProbs {
    let mut logits = hidden.matmul(head.transpose());
    if let Some(bias) = bias {
        logits = logits + bias.unsqueeze();
    }
    if let Some(cap) = options.softcap {
        logits = (logits / cap).tanh() * cap;
    }
    if options.temperature != 1.0 {
        logits = logits / options.temperature;
    }
    let log_probs = activation::log_softmax(logits, 1);
    let constant = log_probs.clone().without_autodiff();
    let entropies = (constant.clone().exp() * constant).sum_dim(1).neg().squeeze_dim::<1>(1);
    let log_probs = log_probs.gather(1, targets.unsqueeze_dim::<2>(1)).squeeze_dim::<1>(1);
    TokenLogProbs { log_probs, entropies }
}
