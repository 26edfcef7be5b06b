//! Attention of one new token over the cache, read where it lies.

use burn::Tensor;
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::buffer::{Heads, Rows, SERIAL, tensor};
use super::few_rows::dots;
use super::lanes::{exponentiate, largest, tanh};
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
    let attend = |row: usize, head: usize, y: &mut [f32]| {
        let start = cache.starts()[row].max(window).min(end);
        let head = OneQuery {
            q: q.row(row, head, 0),
            keys: k.rows_from(row, head * g / h, start),
            values: v.rows_from(row, head * g / h, start),
            count: end - start,
            options,
            y,
        };
        Arch::new().dispatch(head);
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

/// One query of one head over the keys it sees.
struct OneQuery<'a> {
    q: &'a [f32],
    keys: Rows<'a>,
    values: Rows<'a>,
    count: usize,
    options: &'a AttentionOptions,
    y: &'a mut [f32],
}

impl WithSimd for OneQuery<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { q, keys, values, count, options, y } = self;
        let scale = options.scale as f32;
        let mut scores = vec![0.0_f32; count];
        let mut groups = scores.chunks_exact_mut(4);
        let mut i = 0;
        for scores in &mut groups {
            let k = [keys.row(i), keys.row(i + 1), keys.row(i + 2), keys.row(i + 3)];
            let found = dots(simd, [q], k)[0];
            for j in 0..4 {
                scores[j] = scale * found[j];
            }
            i += 4;
        }
        for score in groups.into_remainder() {
            *score = scale * dots(simd, [q], [keys.row(i)])[0][0];
            i += 1;
        }
        if let Some(cap) = options.softcap {
            let cap = cap as f32;
            scores.iter_mut().for_each(|score| *score = cap * tanh(*score / cap));
        }
        let top = largest(&scores);
        let inverse = 1.0 / exponentiate(&mut scores, top);
        scores.iter_mut().for_each(|score| *score *= inverse);
        let mut done = 0;
        done = weigh::<S, 4>(simd, &scores, values, y, done);
        done = weigh::<S, 1>(simd, &scores, values, y, done);
        for (j, y) in y.iter_mut().enumerate().skip(done) {
            *y = scores.iter().enumerate().fold(0.0, |sum, (i, p)| p.mul_add(values.row(i)[j], sum));
        }
    }
}

/// Writes `Σ pᵢ·vᵢ` into columns `from..` of `y`, as many as fill `N` vectors again and again, and says where it stopped.
#[inline(always)]
fn weigh<S: Simd, const N: usize>(simd: S, p: &[f32], v: Rows, y: &mut [f32], from: usize) -> usize {
    let width = N * S::F32_LANES;
    let mut start = from;
    while start + width <= y.len() {
        let mut sums = [simd.splat_f32s(0.0); N];
        for (i, &p) in p.iter().enumerate() {
            let (row, p) = (S::as_simd_f32s(&v.row(i)[start..start + width]).0, simd.splat_f32s(p));
            for n in 0..N {
                sums[n] = simd.mul_add_e_f32s(p, row[n], sums[n]);
            }
        }
        S::as_mut_simd_f32s(&mut y[start..start + width]).0.copy_from_slice(&sums);
        start += width;
    }
    start
}
