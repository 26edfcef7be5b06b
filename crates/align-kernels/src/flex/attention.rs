//! Attention in blocks of queries: the scores of one block at a time, never all.
//!
//! A block's scores against every key it may see fit the second-level cache, so that each row's softmax is taken whole and
//! the products run at full speed. Kept for the backward pass: the logarithm of each row's sum of exponentials, `[B, H, T]`.

use std::ops::Range;
use std::sync::Arc;

use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::buffer::{Heads, HeadsMut, Matrix, MatrixMut, Onto, SERIAL, product};
use super::lanes::{exponentiate, largest, tanh, vectorised};
use crate::AttentionOptions;

/// Scores that a block may hold: 1 MiB.
const BLOCK_SCORES: usize = 1 << 18;

/// Which keys each query sees, and how scores are formed.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(super) options: AttentionOptions,
    /// `[B, S]`, true where a key counts.
    pub(super) mask: Option<Arc<[bool]>>,
}

/// The sizes of one attention.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) b: usize,
    pub(super) h: usize,
    pub(super) g: usize,
    pub(super) t: usize,
    pub(super) s: usize,
    pub(super) d: usize,
    pub(super) dv: usize,
}

impl Sizes {
    pub(super) fn new(q: &Heads, k: &Heads, v: &Heads) -> Self {
        let ([b, h, t, d], [_, g, s, _]) = (q.dims, k.dims);
        Self { b, h, g, t, s, d, dv: v.dims[3] }
    }

    /// Queries a block holds.
    pub(super) fn block(&self) -> usize {
        (BLOCK_SCORES / self.s.max(1)).clamp(16, 64).min(self.t.max(1))
    }

    /// Multiplications of one product, all heads together.
    pub(super) fn work(&self) -> usize {
        self.b * self.h * self.t * self.s * self.d
    }
}

impl View {
    /// The keys that query `i` sees before the mask.
    #[inline(always)]
    fn keys(&self, i: usize, sizes: Sizes) -> Range<usize> {
        let last = (i + sizes.s + 1).saturating_sub(sizes.t).min(sizes.s);
        let end = if self.options.causal { last } else { sizes.s };
        let start = self.options.window.map_or(0, |window| last.saturating_sub(window));
        start.min(end)..end
    }

    /// The keys that any of the queries sees, from the first to the last that the mask counts.
    pub(super) fn keys_of_block(&self, row: usize, queries: &Range<usize>, sizes: Sizes) -> Range<usize> {
        let (mut start, mut end) = (sizes.s, 0);
        for keys in queries.clone().map(|i| self.keys(i, sizes)).filter(|keys| !keys.is_empty()) {
            start = start.min(keys.start);
            end = end.max(keys.end);
        }
        if let Some(mask) = self.row_mask(row, sizes) {
            start = (start..end).find(|&j| mask[j]).unwrap_or(end);
            end = (start..end).rfind(|&j| mask[j]).map_or(start, |j| j + 1);
        }
        start.min(end)..end
    }

    /// Splits a row of scores of `keys` into what its query sees and writes `hidden` everywhere else.
    #[inline(always)]
    pub(super) fn hide<'a>(
        &self,
        scores: &'a mut [f32],
        (row, query): (usize, usize),
        keys: &Range<usize>,
        sizes: Sizes,
        hidden: f32,
    ) -> &'a mut [f32] {
        let seen = self.keys(query, sizes);
        let start = seen.start.clamp(keys.start, keys.end) - keys.start;
        let end = (seen.end.clamp(keys.start, keys.end) - keys.start).max(start);
        scores[..start].fill(0.0);
        scores[end..].fill(0.0);
        let scores = &mut scores[start..end];
        if let Some(mask) = self.row_mask(row, sizes) {
            let mask = &mask[keys.start + start..][..scores.len()];
            for j in 0..scores.len() {
                scores[j] = if mask[j] { scores[j] } else { hidden };
            }
        }
        scores
    }

    fn row_mask(&self, row: usize, sizes: Sizes) -> Option<&[bool]> {
        self.mask.as_ref().map(|mask| &mask[row * sizes.s..][..sizes.s])
    }
}

/// `scale·q·kᵀ` of a block of queries and a range of keys, `[queries, keys]`; capped if asked for.
pub(super) fn scores(
    out: &mut [f32],
    view: &View,
    (q, k): (Matrix, Matrix),
    [queries, keys]: [usize; 2],
    d: usize,
) {
    let out = &mut out[..queries * keys];
    // SAFETY: q and k cover the block; `out` is ours and holds queries·keys numbers.
    unsafe {
        product(
            [queries, keys, d],
            MatrixMut::new(out, keys),
            Onto::Fresh,
            view.options.scale as f32,
            q,
            k.transposed(),
            gemm::Parallelism::None,
        );
    }
    if let Some(cap) = view.options.softcap {
        let cap = cap as f32;
        vectorised(
            #[inline(always)]
            || out.iter_mut().for_each(|score| *score = cap * tanh(*score / cap)),
        );
    }
}

/// The output `[B, H, T, Dᵥ]` and each row's log-sum-exp `[B, H, T]`, +∞ for a query that sees nothing.
pub(super) fn attend(q: FlexTensor, k: FlexTensor, v: FlexTensor, view: &View) -> (FlexTensor, Vec<f32>) {
    let (q, k, v) = (Heads::readable(q), Heads::readable(k), Heads::readable(v));
    let (q, k, v) = (Heads::new(&q), Heads::new(&k), Heads::new(&v));
    let sizes = Sizes::new(&q, &k, &v);
    let Sizes { b, h, g, t, s, d, dv } = sizes;
    let mut out = HeadsMut::zeros([b, h, t, dv], q.token_major());
    let writer = out.writer();
    let block = sizes.block();
    let mut log_sums = vec![f32::INFINITY; b * h * t];
    // One task is a block of queries of a head; it owns its rows of the output.
    let run = |scratch: &mut Vec<f32>, head: usize, index: usize, log_sums: &mut [f32]| {
        let (row, head) = (head / h, head % h);
        let queries = index * block..index * block + log_sums.len();
        let keys = view.keys_of_block(row, &queries, sizes);
        let (m, n) = (queries.len(), keys.len());
        if n == 0 {
            return;
        }
        let shared = head * g / h;
        let probabilities = &mut scratch[..m * n];
        let operands = (q.matrix(row, head, queries.start), k.matrix(row, shared, keys.start));
        scores(probabilities, view, operands, [m, n], d);
        let mut scales = [0.0_f32; 64];
        vectorised(
            #[inline(always)]
            || {
                for (i, all) in probabilities.chunks_exact_mut(n).enumerate() {
                    let seen = view.hide(all, (row, queries.start + i), &keys, sizes, f32::NEG_INFINITY);
                    let top = largest(seen);
                    if top == f32::NEG_INFINITY {
                        seen.fill(0.0);
                        continue;
                    }
                    let sum = exponentiate(seen, top);
                    scales[i] = 1.0 / sum;
                    log_sums[i] = top + sum.ln();
                }
            },
        );
        // SAFETY: these rows of the output belong to this task; v covers `keys`.
        unsafe {
            let target = writer.matrix(row, head, queries.start, m);
            let (a, b) = (Matrix::new(probabilities, n), v.matrix(row, shared, keys.start));
            product([m, dv, n], target, Onto::Fresh, 1.0, a, b, gemm::Parallelism::None);
            vectorised(
                #[inline(always)]
                || {
                    for (i, scale) in scales[..m].iter().enumerate() {
                        writer.row(row, head, queries.start + i).iter_mut().for_each(|y| *y *= scale);
                    }
                },
            );
        }
    };
    let scratch = || vec![0.0_f32; block * s];
    if sizes.work() <= SERIAL * 8 {
        let mut scratch = scratch();
        for (head, log_sums) in log_sums.chunks_mut(t.max(1)).enumerate() {
            for (index, log_sums) in log_sums.chunks_mut(block).enumerate() {
                run(&mut scratch, head, index, log_sums);
            }
        }
    } else {
        let tasks = log_sums.par_chunks_mut(t).enumerate().flat_map(|(head, log_sums)| {
            log_sums.par_chunks_mut(block).enumerate().map(move |(index, log_sums)| (head, index, log_sums))
        });
        tasks.for_each_init(scratch, |scratch, (head, index, log_sums)| run(scratch, head, index, log_sums));
    }
    (out.into_tensor(), log_sums)
}
