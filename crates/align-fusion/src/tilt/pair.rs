//! Two experts at once: the family P e^(α₁v₁ + α₂v₂).

use pulp::{Simd, WithSimd};

use super::block::{BLOCK, Column, blocks, exp_all, highest, load, load_shift, width};
use super::{LARGEST_EXPONENT, LOWEST_PEAK, Movement, Tilt};

/// Two tilts of one base.
pub(crate) struct Pair<'a> {
    tilts: [Tilt<'a>; 2],
}

/// The fused distribution at (α₁, α₂): A, and means and covariances of the two shifts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PairMoments {
    pub(crate) weights: [f64; 2],
    pub(crate) log_partition: f64,
    pub(crate) means_at_zero: [f64; 2],
    pub(crate) means: [f64; 2],
    /// Var v₁, Cov(v₁, v₂), Var v₂.
    pub(crate) covariance: [f64; 3],
}

impl PairMoments {
    /// `f = α·μ − A`, `g = A − α·μ₀`.
    pub(crate) fn movement(&self) -> Movement {
        movement(self.weights, self.means, self.means_at_zero, self.log_partition)
    }

    /// ∇f = Cα.
    pub(crate) fn forward_gradient(&self) -> [f64; 2] {
        let ([one, two], [first, cross, second]) = (self.weights, self.covariance);
        [first * one + cross * two, cross * one + second * two]
    }

    /// ∇g = μ − μ₀.
    pub(crate) fn reverse_gradient(&self) -> [f64; 2] {
        [self.means[0] - self.means_at_zero[0], self.means[1] - self.means_at_zero[1]]
    }
}

fn movement(weights: [f64; 2], means: [f64; 2], at_zero: [f64; 2], log_partition: f64) -> Movement {
    let along = |means: [f64; 2]| weights[0] * means[0] + weights[1] * means[1];
    Movement {
        forward: (along(means) - log_partition).max(0.0),
        reverse: (log_partition - along(at_zero)).max(0.0),
    }
}

impl<'a> Pair<'a> {
    /// # Panics
    /// Unless there are two tilts.
    pub(crate) fn new(tilts: &[Tilt<'a>]) -> Self {
        let &[first, second] = tilts else { panic!("a pair has two tilts, found {}", tilts.len()) };
        Self { tilts: [first, second] }
    }

    /// Everything at one pair of weights.
    pub(crate) fn moments(&self, weights: [f64; 2]) -> PairMoments {
        let sums = pulp::Arch::new().dispatch(PairPass { pair: self, weights });
        let (log_partition, total) = self.tilts[0].certainty.partition(sums.total, sums.peak);
        let [first, second, one_one, one_two, two_two] = sums.products.map(|product| product / total);
        PairMoments {
            weights,
            log_partition,
            means_at_zero: self.means_at_zero(),
            means: [first, second],
            covariance: [
                (one_one - first * first).max(0.0),
                one_two - first * second,
                (two_two - second * second).max(0.0),
            ],
        }
    }

    /// f and g on the grid `lower_t + step_t·k_t`; the second expert's weight runs faster.
    pub(crate) fn grid(&self, lower: [f64; 2], step: [f64; 2], counts: [usize; 2]) -> Vec<Movement> {
        let mut sums = vec![[0.0; 3]; counts[0] * counts[1]];
        pulp::Arch::new().dispatch(PairGrid { pair: self, lower, step, row: counts[1], sums: &mut sums });
        let movement = |(index, sums): (usize, &[f64; 3])| {
            let weights = [
                lower[0] + step[0] * (index / counts[1]) as f64,
                lower[1] + step[1] * (index % counts[1]) as f64,
            ];
            let scale = weights[0] * self.tilts[0].highest + weights[1] * self.tilts[1].highest;
            if scale > LARGEST_EXPONENT {
                return self.moments(weights).movement();
            }
            let [sum, first, second] = *sums;
            let (log_partition, total) = self.tilts[0].certainty.partition(sum, scale);
            movement(weights, [first / total, second / total], self.means_at_zero(), log_partition)
        };
        sums.iter().enumerate().map(movement).collect()
    }

    fn means_at_zero(&self) -> [f64; 2] {
        self.tilts.map(|tilt| tilt.mean)
    }

    /// `x ← log P` without P's likeliest token, `u_t ← v_t`.
    #[inline(always)]
    fn fill(&self, tokens: std::ops::Range<usize>, x: &mut [f64], u: [&mut [f64]; 2]) {
        let Tilt { base, certainty, .. } = &self.tilts[0];
        load(&base[tokens.clone()], certainty.peak, certainty.log_norm(), x);
        certainty.exclude_top(&tokens, x);
        for (tilt, u) in self.tilts.iter().zip(u) {
            load_shift(&tilt.expert[tokens.clone()], &tilt.anchor[tokens.clone()], tilt.offset, u);
        }
    }
}

/// Sums of e, and of e times u₁, u₂, u₁², u₁u₂, u₂², relative to `peak`; P's likeliest token adds to the first alone.
struct PairSums {
    peak: f64,
    total: f64,
    products: [f64; 5],
}

struct PairPass<'a, 'b> {
    pair: &'b Pair<'a>,
    weights: [f64; 2],
}

impl WithSimd for PairPass<'_, '_> {
    type Output = PairSums;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> PairSums {
        let mut sums = PairSums { peak: LOWEST_PEAK, total: 0.0, products: [0.0; 5] };
        let [mut x, mut first, mut second]: [Column; 3] = [[0.0; BLOCK]; 3];
        for tokens in blocks(self.pair.tilts[0].base.len()) {
            let width = width(tokens.len());
            let (x, first, second) = (&mut x[..width], &mut first[..width], &mut second[..width]);
            self.pair.fill(tokens, x, [first, second]);
            for ((x, &one), &two) in x.iter_mut().zip(first.iter()).zip(second.iter()) {
                *x += self.weights[0] * one + self.weights[1] * two;
            }
            let peak = sums.peak.max(highest(simd, x));
            let rescale = (sums.peak - peak).exp();
            exp_all::<S>(x, peak);
            let mut totals = [simd.splat_f64s(0.0); 6];
            let columns = S::as_simd_f64s(first).0.iter().zip(S::as_simd_f64s(second).0);
            for (&e, (&one, &two)) in S::as_simd_f64s(x).0.iter().zip(columns) {
                let (e_one, e_two) = (simd.mul_f64s(e, one), simd.mul_f64s(e, two));
                totals[0] = simd.add_f64s(totals[0], e);
                totals[1] = simd.add_f64s(totals[1], e_one);
                totals[2] = simd.add_f64s(totals[2], e_two);
                totals[3] = simd.mul_add_e_f64s(e_one, one, totals[3]);
                totals[4] = simd.mul_add_e_f64s(e_one, two, totals[4]);
                totals[5] = simd.mul_add_e_f64s(e_two, two, totals[5]);
            }
            let [total, products @ ..] = totals.map(|total| simd.reduce_sum_f64s(total));
            sums.peak = peak;
            sums.total = sums.total * rescale + total;
            for (sum, product) in sums.products.iter_mut().zip(products) {
                *sum = *sum * rescale + product;
            }
        }
        sums
    }
}

struct PairGrid<'a, 'b> {
    pair: &'b Pair<'a>,
    lower: [f64; 2],
    step: [f64; 2],
    row: usize,
    /// Σ q, Σ q v₁, Σ q v₂ for each pair of weights.
    sums: &'b mut [[f64; 3]],
}

impl WithSimd for PairGrid<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { pair, lower, step, row, sums } = self;
        let [mut start, mut q, mut first, mut second, mut across, mut along]: [Column; 6] = [[0.0; BLOCK]; 6];
        for tokens in blocks(pair.tilts[0].base.len()) {
            let width = width(tokens.len());
            let (start, q) = (&mut start[..width], &mut q[..width]);
            let (first, second) = (&mut first[..width], &mut second[..width]);
            let (across, along) = (&mut across[..width], &mut along[..width]);
            pair.fill(tokens, start, [first, second]);
            for i in 0..width {
                let below = [first[i] - pair.tilts[0].highest, second[i] - pair.tilts[1].highest];
                start[i] += lower[0] * below[0] + lower[1] * below[1];
                across[i] = step[0] * below[0];
                along[i] = step[1] * below[1];
            }
            for column in [&mut *start, across, along] {
                exp_all::<S>(column, 0.0);
            }
            for sums in sums.chunks_mut(row) {
                q.copy_from_slice(start);
                for sums in sums {
                    step_along(simd, q, along, [first, second], sums);
                }
                for (start, across) in start.iter_mut().zip(across.iter()) {
                    *start *= across;
                }
            }
        }
    }
}

/// Adds the block's sums at one pair of weights, then `q ← q w`.
#[inline(always)]
fn step_along<S: Simd>(simd: S, q: &mut [f64], w: &[f64], v: [&[f64]; 2], sums: &mut [f64; 3]) {
    let mut totals = [simd.splat_f64s(0.0); 3];
    let [first, second] = v.map(|column| S::as_simd_f64s(column).0);
    let columns = S::as_simd_f64s(w).0.iter().zip(first.iter().zip(second));
    for (q, (&w, (&one, &two))) in S::as_mut_simd_f64s(q).0.iter_mut().zip(columns) {
        totals[0] = simd.add_f64s(totals[0], *q);
        totals[1] = simd.mul_add_e_f64s(*q, one, totals[1]);
        totals[2] = simd.mul_add_e_f64s(*q, two, totals[2]);
        *q = simd.mul_f64s(*q, w);
    }
    for (sum, total) in sums.iter_mut().zip(totals) {
        *sum += simd.reduce_sum_f64s(total);
    }
}
