//! Many weights in one walk over the vocabulary.

use pulp::{Simd, WithSimd};

use super::Tilt;
use super::block::{BLOCK, Column, blocks, exp_all, load, load_shift, width};

/// Weights whose sums are made at once. Their eight accumulators, with q, w and v, fit the sixteen registers of AVX2.
const GROUP: usize = 4;

/// Σ q and Σ q v at one weight over all but P's likeliest token, where `q = P e^(α(v − highest))` cannot overflow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GridSums {
    pub(super) total: f64,
    pub(super) shifted: f64,
}

/// Adds the sums at `lower + step·k` for k = 0, 1, ….
pub(super) fn add(tilt: &Tilt<'_>, lower: f64, step: f64, sums: &mut [GridSums]) {
    pulp::Arch::new().dispatch(PowerGrid { tilt, lower, step, sums });
}

struct PowerGrid<'a, 'b> {
    tilt: &'b Tilt<'a>,
    lower: f64,
    step: f64,
    sums: &'b mut [GridSums],
}

impl WithSimd for PowerGrid<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { tilt, lower, step, sums } = self;
        let log_norm = tilt.certainty.log_norm();
        let [mut q, mut w, mut v]: [Column; 3] = [[0.0; BLOCK]; 3];
        for tokens in blocks(tilt.base.len()) {
            let width = width(tokens.len());
            let (q, w, v) = (&mut q[..width], &mut w[..width], &mut v[..width]);
            load(&tilt.base[tokens.clone()], tilt.certainty.peak, log_norm, q);
            tilt.certainty.exclude_top(&tokens, q);
            load_shift(&tilt.expert[tokens.clone()], &tilt.anchor[tokens], tilt.offset, v);
            for ((q, w), &v) in q.iter_mut().zip(w.iter_mut()).zip(v.iter()) {
                let below = v - tilt.highest;
                *q += lower * below;
                *w = step * below;
            }
            exp_all::<S>(q, 0.0);
            exp_all::<S>(w, 0.0);
            walk(simd, q, w, v, sums);
        }
    }
}

/// Adds the block's sums at each weight; `q ← q w` from one weight to the next.
#[inline(always)]
fn walk<S: Simd>(simd: S, q: &mut [f64], w: &[f64], v: &[f64], sums: &mut [GridSums]) {
    let (groups, rest) = sums.as_chunks_mut::<GROUP>();
    for group in groups {
        advance(simd, q, w, v, group);
    }
    for one in rest.as_chunks_mut::<1>().0 {
        advance(simd, q, w, v, one);
    }
}

/// [`walk`] over `N` weights: each token is read once, its powers stay in registers.
#[inline(always)]
fn advance<S: Simd, const N: usize>(simd: S, q: &mut [f64], w: &[f64], v: &[f64], sums: &mut [GridSums; N]) {
    let mut totals = [simd.splat_f64s(0.0); N];
    let mut shifted = totals;
    let (w, v) = (S::as_simd_f64s(w).0, S::as_simd_f64s(v).0);
    for ((q, &w), &v) in S::as_mut_simd_f64s(q).0.iter_mut().zip(w).zip(v) {
        let mut power = *q;
        for (total, shifted) in totals.iter_mut().zip(&mut shifted) {
            *total = simd.add_f64s(*total, power);
            *shifted = simd.mul_add_e_f64s(power, v, *shifted);
            power = simd.mul_f64s(power, w);
        }
        *q = power;
    }
    for ((sums, total), shifted) in sums.iter_mut().zip(totals).zip(shifted) {
        sums.total += simd.reduce_sum_f64s(total);
        sums.shifted += simd.reduce_sum_f64s(shifted);
    }
}
