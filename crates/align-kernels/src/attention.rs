//! Attention over whole sequences and over a cache.

use burn::Tensor;
use burn::tensor::Bool;

use crate::{KeyValueCache, plain};

/// What attention does besides `softmax(q·kᵀ)·v`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionOptions {
    /// Multiplies the scores; `1/√D` unless the model says otherwise.
    pub scale: f64,
    /// Whether query `i` sees keys up to `i + S − T` only (the last query sees all keys) or every key.
    pub causal: bool,
    /// `c·tanh(score/c)` after scaling, as Gemma 2 does.
    pub softcap: Option<f64>,
    /// Query `i` sees keys after `i + S − T − window` only: the last `window` of what it would see.
    pub window: Option<usize>,
}

impl AttentionOptions {
    /// Causal attention over heads of width `head_dim`, scaled by `1/√head_dim`, without cap or window.
    pub fn causal(head_dim: usize) -> Self {
        Self { scale: 1.0 / (head_dim as f64).sqrt(), causal: true, softcap: None, window: None }
    }
}

/// `softmax(cap(scale·q·kᵀ) over the visible keys)·v`, for each head.
///
/// A key is visible if `mask` counts it and causality and the window allow it. A query that sees no key gives zeros and has
/// zero gradients. With fewer key heads than query heads, query head `h` reads key head `h·G/H` (GQA).
///
/// # Shapes
/// `q`: `[B, H, T, D]`, `k`: `[B, G, S, D]`, `v`: `[B, G, S, Dᵥ]`, `mask`: `[B, S]`, true where a key counts. Returns
/// `[B, H, T, Dᵥ]`.
///
/// # Gradient
/// Through `q`, `k` and `v`. The fused kernel computes the probabilities again in the backward pass; `[B, H, T, S]` is
/// never stored.
///
/// # Panics
/// If the shapes do not fit, or `T > S` with `causal`.
///
/// # Source
/// Vaswani et al. 2017, eq. 1, <https://arxiv.org/abs/1706.03762>; heads shared as in Ainslie et al. 2023,
/// <https://arxiv.org/abs/2305.13245>.
pub fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    mask: Option<&Tensor<2, Bool>>,
    options: &AttentionOptions,
) -> Tensor<4> {
    assert_shapes(&q, &k, &v, mask, options);
    #[cfg(feature = "flex")]
    if [&q, &k, &v].into_iter().all(crate::device::is_fused) {
        return crate::flex::attention(q, k, v, mask, options);
    }
    plain::attention(q, k, v, mask, options)
}

/// [`attention`] of new queries over a cache that already holds their keys ([`KeyValueCache::append`] first). For inference.
///
/// # Shapes
/// `q`: `[B, H, S, D]`, whose last query sees every key of its row. Returns `[B, H, S, Dᵥ]`.
///
/// # Gradient
/// None: the result is a constant.
///
/// # Panics
/// If the cache is empty or its rows and heads do not fit `q`.
pub fn cache_attention(q: Tensor<4>, cache: &KeyValueCache, options: &AttentionOptions) -> Tensor<4> {
    let q = q.without_autodiff();
    #[cfg(feature = "flex")]
    if q.dims()[2] == 1 && crate::device::is_fused(&q) && crate::device::is_fused(&cache.buffers().0) {
        return crate::flex::cache_attention(q, cache, options);
    }
    let mask = cache.mask();
    attention(q, cache.keys(), cache.values(), mask.as_ref(), options)
}

fn assert_shapes(
    q: &Tensor<4>,
    k: &Tensor<4>,
    v: &Tensor<4>,
    mask: Option<&Tensor<2, Bool>>,
    options: &AttentionOptions,
) {
    let ([b, h, t, d], [bk, g, s, dk], [bv, gv, sv, _]) = (q.dims(), k.dims(), v.dims());
    assert!(
        b == bk && b == bv && g == gv && s == sv && d == dk && g > 0 && h % g == 0,
        "attention: q {:?}, k {:?} and v {:?} do not fit: expected [B, H, T, D], [B, G, S, D], [B, G, S, Dv] with G dividing H",
        q.dims(),
        k.dims(),
        v.dims()
    );
    assert!(!options.causal || t <= s, "attention: {t} causal queries but only {s} keys");
    if let Some(mask) = mask {
        assert_eq!(mask.dims(), [b, s], "attention: the mask must be [B, S]");
    }
}
