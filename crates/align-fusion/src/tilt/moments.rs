//! One weight looked at closely: log-normaliser and three moments of the shift in one pass.

use pulp::{Simd, WithSimd};

use super::block::{BLOCK, Column, blocks, exp_all, highest, load, load_shift, width};
use super::{LOWEST_PEAK, Movement, Tilt};

/// The fused distribution P̃_α ∝ P e^(αv) seen from the shift: A(α) = log Σ P e^(αv) and moments of v under P̃_α.
///
/// With them `f = KL(P̃‖P) = αμ − A`, `g = KL(P‖P̃) = A − αμ₀`, and their slopes in α.
///
/// # Units
/// Nats; v is measured from its value at P's likeliest token, so that a constant added to any model's scores changes nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// α.
    pub alpha: f64,
    /// A(α).
    pub log_partition: f64,
    /// μ₀: mean of v under P.
    pub mean_at_zero: f64,
    /// μ: mean of v under P̃_α.
    pub mean: f64,
    /// s²: its variance.
    pub variance: f64,
    /// k₃: its third central moment.
    pub third: f64,
}

impl Moments {
    /// `f = αμ − A` and `g = A − αμ₀`: how far P̃_α is from P, both ways.
    pub fn movement(&self) -> Movement {
        Movement {
            forward: (self.alpha * self.mean - self.log_partition).max(0.0),
            reverse: (self.log_partition - self.alpha * self.mean_at_zero).max(0.0),
        }
    }

    /// `f′ = αs²`.
    pub fn forward_slope(&self) -> f64 {
        self.alpha * self.variance
    }

    /// `g′ = μ − μ₀`.
    pub fn reverse_slope(&self) -> f64 {
        self.mean - self.mean_at_zero
    }

    /// `f″ = s² + αk₃`: of either sign, so that f is not convex.
    pub fn forward_curvature(&self) -> f64 {
        self.variance + self.alpha * self.third
    }

    /// `g″ = s²`: g is convex.
    pub fn reverse_curvature(&self) -> f64 {
        self.variance
    }
}

/// A combination Σ_t d_t v_t of shifts over one base.
pub(crate) struct Direction<'a> {
    /// The experts' tilts.
    pub(crate) tilts: &'a [Tilt<'a>],
    /// d, one for each.
    pub(crate) weights: &'a [f64],
}

impl Direction<'_> {
    /// Moments at α; exact wherever `about` is, most precise if it is near the mean.
    pub(crate) fn moments(&self, alpha: f64, about: f64) -> Moments {
        let sums = pulp::Arch::new().dispatch(MomentPass { direction: self, alpha, about });
        let certainty = self.tilts[0].certainty;
        let (log_partition, total) = certainty.partition(sums.total, sums.peak);
        // P's likeliest token, whose v is 0, joins the sums here.
        let top = certainty.top_mass() * (-sums.peak).exp();
        let power = |k: i32| (sums.powers[k as usize - 1] + top * (-about).powi(k)) / total;
        let [first, second, third] = [power(1), power(2), power(3)];
        let variance = (second - first * first).max(0.0);
        Moments {
            alpha,
            log_partition,
            mean_at_zero: self.tilts.iter().zip(self.weights).map(|(tilt, weight)| weight * tilt.mean).sum(),
            mean: about + first,
            variance,
            third: third - 3.0 * first * second + 2.0 * first.powi(3),
        }
    }

    /// `x ← log P` without P's likeliest token, `u ← Σ_t d_t v_t`.
    #[inline(always)]
    fn fill(&self, tokens: std::ops::Range<usize>, x: &mut [f64], u: &mut [f64], scratch: &mut [f64]) {
        let Tilt { base, certainty, .. } = &self.tilts[0];
        load(&base[tokens.clone()], certainty.peak, certainty.log_norm(), x);
        certainty.exclude_top(&tokens, x);
        u.fill(0.0);
        for (tilt, &weight) in self.tilts.iter().zip(self.weights) {
            load_shift(&tilt.expert[tokens.clone()], &tilt.anchor[tokens.clone()], tilt.offset, scratch);
            for (u, v) in u.iter_mut().zip(scratch.iter()) {
                *u += weight * v;
            }
        }
    }
}

/// Σ e^(x − peak), and Σ e^(x − peak) uᵏ for k = 1, 2, 3, over all but P's likeliest token.
struct MomentSums {
    peak: f64,
    total: f64,
    powers: [f64; 3],
}

struct MomentPass<'a, 'b> {
    direction: &'b Direction<'a>,
    alpha: f64,
    about: f64,
}

impl WithSimd for MomentPass<'_, '_> {
    type Output = MomentSums;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> MomentSums {
        let Self { direction, alpha, about } = self;
        let mut sums = MomentSums { peak: LOWEST_PEAK, total: 0.0, powers: [0.0; 3] };
        let [mut x, mut u, mut scratch]: [Column; 3] = [[0.0; BLOCK]; 3];
        for tokens in blocks(direction.tilts[0].base.len()) {
            let width = width(tokens.len());
            let (x, u) = (&mut x[..width], &mut u[..width]);
            direction.fill(tokens, x, u, &mut scratch[..width]);
            for (x, u) in x.iter_mut().zip(u.iter_mut()) {
                *x += alpha * *u;
                *u -= about;
            }
            // Sums are kept relative to the largest exponent so far: nothing overflows, and what underflows is negligible.
            let peak = sums.peak.max(highest(simd, x));
            let rescale = (sums.peak - peak).exp();
            exp_all::<S>(x, peak);
            let block = powers(simd, x, u);
            sums.peak = peak;
            sums.total = sums.total * rescale + block[0];
            for (power, block) in sums.powers.iter_mut().zip(&block[1..]) {
                *power = *power * rescale + block;
            }
        }
        sums
    }
}

/// Σ e uᵏ for k = 0 … 3.
#[inline(always)]
fn powers<S: Simd>(simd: S, e: &[f64], u: &[f64]) -> [f64; 4] {
    let mut totals = [simd.splat_f64s(0.0); 4];
    for (&e, &u) in S::as_simd_f64s(e).0.iter().zip(S::as_simd_f64s(u).0) {
        let first = simd.mul_f64s(e, u);
        let second = simd.mul_f64s(first, u);
        totals[0] = simd.add_f64s(totals[0], e);
        totals[1] = simd.add_f64s(totals[1], first);
        totals[2] = simd.add_f64s(totals[2], second);
        totals[3] = simd.mul_add_e_f64s(second, u, totals[3]);
    }
    totals.map(|total| simd.reduce_sum_f64s(total))
}
