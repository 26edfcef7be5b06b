//! Attention of one new token over the cache, read where it lies.

use burn::Tensor;
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;

use rayon::prelude::*;

use super::buffer::{Heads, SERIAL, tensor};
use super::lanes::{dot, exponentiate, largest, tanh, vectorised};
use crate::{AttentionOptions, KeyValueCache};

/// See [`cache_attention`](crate::cache_attention); `q` holds one query a row and head.
pub(crate) fn cache_attention(q: Tensor<4>, cache: &KeyValueCache, options: &AttentionOptions) -> Tensor<4> {
    let primitive = |tensor: &Tensor<4>| -> FlexTensor {
        tensor.clone().try_into_primitive::<Flex>().expect("the caller checked the device")
    };
    let (keys, values) = cache.buffers();
    let (q, k, v) = (Heads::readable(primitive(&q)), primitive(keys), primitive(values));
    let (q, k, v) = (Heads::new(&q), Heads::new(&k), Heads::new(&v));
    let ([b, h, _, d], [rows, g, _, dk], dv) = (q.dims, k.dims, v.dims[3]);
    assert!(
        b == rows && d == dk && h % g == 0,
        "cache_attention: q has shape {:?}, the cache's keys {:?}; expected equal rows and widths and G dividing H",
        q.dims,
        k.dims
    );
    let end = cache.end();
    let window = options.window.map_or(0, |window| end.saturating_sub(window));
    let scale = options.scale as f32;
    let attend = |row: usize, head: usize, y: &mut [f32]| {
        let shared = head * g / h;
        let start = cache.starts()[row].max(window).min(end);
        let q = q.row(row, head, 0);
        let mut scores: Vec<f32> = Vec::with_capacity(end - start);
        vectorised(
            #[inline(always)]
            || {
                y.fill(0.0);
                for column in start..end {
                    scores.push(scale * dot(q, k.row(row, shared, column)));
                }
                if let Some(cap) = options.softcap {
                    let cap = cap as f32;
                    scores.iter_mut().for_each(|score| *score = cap * tanh(*score / cap));
                }
                let top = largest(&scores);
                let inverse = 1.0 / exponentiate(&mut scores, top);
                for (column, p) in (start..end).zip(&scores) {
                    let (p, v) = (p * inverse, v.row(row, shared, column));
                    for j in 0..dv {
                        y[j] = p.mul_add(v[j], y[j]);
                    }
                }
            },
        );
    };
    let mut out = vec![0.0_f32; b * h * dv];
    if b * h * end * d <= 8 * SERIAL {
        out.chunks_exact_mut(dv).enumerate().for_each(|(i, y)| attend(i / h, i % h, y));
    } else {
        // A key head's queries go together, so that its keys are read once.
        out.par_chunks_exact_mut(h / g * dv).enumerate().for_each(|(i, group)| {
            for (j, y) in group.chunks_exact_mut(dv).enumerate() {
                let index = i * (h / g) + j;
                attend(index / h, index % h, y);
            }
        });
    }
    Tensor::from_primitive::<Flex>(tensor(out, [b, h, 1, dv]))
}
