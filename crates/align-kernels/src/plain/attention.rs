//! Attention with all its probabilities in memory.

use burn::Tensor;
use burn::tensor::{Bool, DType, Device, Int, activation};

use crate::{AttentionOptions, KeyValueCache};

/// See [`attention`](crate::attention).
///
/// Key heads are expanded to the query heads first: Burn's own attention reads past the tensor under autodiff if there are
/// fewer. Hidden scores are filled with a large finite number and hidden probabilities with 0, so that a query that sees
/// nothing gives zeros rather than NaN, and so do its gradients.
pub fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    mask: Option<&Tensor<2, Bool>>,
    options: &AttentionOptions,
) -> Tensor<4> {
    let ([_, h, t, _], [_, _, s, _]) = (q.dims(), k.dims());
    let (k, v) = (expand_heads(k, h), expand_heads(v, h));
    let mut scores = (q * options.scale).matmul(k.swap_dims(2, 3));
    if let Some(cap) = options.softcap {
        scores = (scores / cap).tanh() * cap;
    }
    let lowest = if scores.dtype() == DType::F16 { -6e4 } else { -1e30 };
    let probabilities = match hidden_keys(mask, t, s, options, &scores.device()) {
        Some(hidden) => {
            let hidden = hidden.expand(scores.dims());
            activation::softmax(scores.mask_fill(hidden.clone(), lowest), 3).mask_fill(hidden, 0.0)
        }
        None => activation::softmax(scores, 3),
    };
    probabilities.matmul(v)
}

/// See [`cache_attention`](crate::cache_attention).
pub fn cache_attention(q: Tensor<4>, cache: &KeyValueCache, options: &AttentionOptions) -> Tensor<4> {
    attention(q.without_autodiff(), cache.keys(), cache.values(), cache.mask().as_ref(), options)
}

/// True where query `i` may **not** see key `j` (Burn's sense), `[B or 1, 1, T, S]`; `None` if it may see all.
pub fn hidden_keys(
    mask: Option<&Tensor<2, Bool>>,
    t: usize,
    s: usize,
    options: &AttentionOptions,
    device: &Device,
) -> Option<Tensor<4, Bool>> {
    let device = device.clone().without_autodiff();
    let range = |from: i64, to: i64| Tensor::<1, Int>::arange(from..to, &device);
    let (columns, offset) = (s as i64, s as i64 - t as i64);
    // The last key each query may see, against each key.
    let keys = || range(0, columns).reshape([1, 1, 1, s]).expand([1, 1, t, s]);
    let last = || range(offset, columns).reshape([1, 1, t, 1]).expand([1, 1, t, s]);
    let padded = mask.map(|mask| mask.clone().without_autodiff().bool_not().unsqueeze_dims::<4>(&[1, 1]));
    let future = (options.causal && t > 1).then(|| keys().greater(last()));
    let past =
        options.window.filter(|&window| window < s).map(|window| keys().lower_equal(last() - window as i64));
    let either = |a: Option<Tensor<4, Bool>>, b: Option<Tensor<4, Bool>>| match (a, b) {
        (Some(a), Some(b)) => Some(a.bool_or(b)),
        (a, b) => a.or(b),
    };
    match (either(future, past), padded) {
        (Some(order), Some(padded)) => {
            let b = padded.dims()[0];
            Some(order.expand([b, 1, t, s]).bool_or(padded.expand([b, 1, t, s])))
        }
        (order, padded) => order.or(padded),
    }
}

/// `[B, G, S, D]` → `[B, H, S, D]`, each head `H/G` times in a row.
fn expand_heads(x: Tensor<4>, h: usize) -> Tensor<4> {
    let [b, g, s, d] = x.dims();
    if g == h {
        return x;
    }
    x.reshape([b, g, 1, s, d]).expand([b, g, h / g, s, d]).reshape([b, h, s, d])
}
