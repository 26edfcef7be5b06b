//! Rows cut into blocks that stay in the first-level cache, widened to f64.

use std::ops::Range;

use pulp::Simd;

use super::exp::exp;

/// Tokens of a block.
pub(super) const BLOCK: usize = 1024;
/// A multiple of the number of f64 in any vector register. Blocks are filled up to it.
const WIDEST: usize = 16;

/// One f64 for each token of a block.
pub(super) type Column = [f64; BLOCK];

/// The blocks of `tokens` tokens.
pub(super) fn blocks(tokens: usize) -> impl Iterator<Item = Range<usize>> {
    (0..tokens).step_by(BLOCK).map(move |start| start..(start + BLOCK).min(tokens))
}

/// How much of a column a block of `tokens` tokens takes, in whole registers.
#[inline(always)]
pub(super) fn width(tokens: usize) -> usize {
    tokens.next_multiple_of(WIDEST)
}

/// `out ← scores − peak − minus`; −∞ where a column is filled up, so that its exponential is 0.
#[inline(always)]
pub(super) fn load(scores: &[f32], peak: f64, minus: f64, out: &mut [f64]) {
    for (out, &score) in out.iter_mut().zip(scores) {
        // The first difference is exact near the peak, where it counts.
        *out = f64::from(score) - peak - minus;
    }
    out[scores.len()..].fill(f64::NEG_INFINITY);
}

/// `out ← expert − anchor − minus`; the first value again where a column is filled up: it is no new extreme, and finite.
#[inline(always)]
pub(super) fn load_shift(expert: &[f32], anchor: &[f32], minus: f64, out: &mut [f64]) {
    for ((out, &expert), &anchor) in out.iter_mut().zip(expert).zip(anchor) {
        // In f64 the difference of two f32 of like size is exact.
        *out = f64::from(expert) - f64::from(anchor) - minus;
    }
    let first = out[0];
    out[expert.len()..].fill(first);
}

/// `x ← e^(x − minus)`.
#[inline(always)]
pub(super) fn exp_all<S: Simd>(x: &mut [f64], minus: f64) {
    for x in x {
        *x = exp::<S>(*x - minus);
    }
}

/// The largest value.
#[inline(always)]
pub(super) fn highest<S: Simd>(simd: S, values: &[f64]) -> f64 {
    let mut highest = simd.splat_f64s(f64::NEG_INFINITY);
    for &value in S::as_simd_f64s(values).0 {
        highest = simd.max_f64s(highest, value);
    }
    simd.reduce_max_f64s(highest)
}

/// `sum + Σ x`, by registers.
#[inline(always)]
pub(super) fn sum<S: Simd>(simd: S, values: &[f64]) -> f64 {
    let mut sum = simd.splat_f64s(0.0);
    for &value in S::as_simd_f64s(values).0 {
        sum = simd.add_f64s(sum, value);
    }
    simd.reduce_sum_f64s(sum)
}
