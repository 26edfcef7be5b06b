//! What is known of a row before any weight is tried: norms, mean shifts and how far each expert moved.

use pulp::{Simd, WithSimd};

use super::block::{BLOCK, Column, blocks, exp_all, highest, load, load_shift, sum, width};
use super::{Certainty, Movement, Tilt};

/// The tilt towards each expert.
pub(super) fn survey<'a>(base: &'a [f32], anchor: &'a [f32], experts: &[&'a [f32]]) -> Vec<Tilt<'a>> {
    let arch = pulp::Arch::new();
    let peak = |scores: &[f32]| f64::from(arch.dispatch(Peak(scores)));
    let (base_peak, anchor_peak) = (peak(base), peak(anchor));
    let top = first_at(base, base_peak as f32);
    let at_top = |scores: &[f32]| f64::from(scores[top]);
    let leads = experts.iter().map(|&expert| Lead {
        expert,
        peak: peak(expert),
        offset: at_top(expert) - at_top(anchor),
        sums: ExpertSums::default(),
    });
    let mut leads: Vec<_> = leads.collect();
    let pass = Survey { base, base_peak, top, anchor, anchor_peak, leads: &mut leads };
    let Norms { base_rest: rest, anchor: anchor_norm } = arch.dispatch(pass);
    let certainty = Certainty { top, peak: base_peak, rest };
    let tilts = leads.into_iter().map(|Lead { expert, peak, offset, sums }| {
        // log Σ Q e^v, of which the two logarithms of the norms are the small part.
        let log_partition =
            (peak - at_top(expert)) - (anchor_peak - at_top(anchor)) + (sums.norm / anchor_norm).ln();
        Tilt {
            base,
            anchor,
            expert,
            certainty,
            offset,
            mean: sums.under_base * certainty.top_mass(),
            highest: sums.highest,
            // Rounding can leave −1e-17 where the two agree.
            target: Movement {
                forward: (sums.under_expert / sums.norm - log_partition).max(0.0),
                reverse: (log_partition - sums.under_anchor / anchor_norm).max(0.0),
            },
        }
    });
    tilts.collect()
}

/// Where a score first occurs. Whole chunks are compared without a way out in the middle, a register at a time.
fn first_at(scores: &[f32], wanted: f32) -> usize {
    const CHUNK: usize = 256;
    let found = |chunk: &[f32]| chunk.iter().fold(false, |found, &score| found | (score == wanted));
    let chunk = scores.chunks(CHUNK).position(found).expect("the largest score is one of them");
    let within = scores[chunk * CHUNK..].iter().position(|&score| score == wanted);
    chunk * CHUNK + within.expect("it is in this chunk")
}

/// The largest of finite scores.
struct Peak<'a>(&'a [f32]);

impl WithSimd for Peak<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let (whole, rest) = S::as_simd_f32s(self.0);
        let mut highest = simd.splat_f32s(f32::NEG_INFINITY);
        for &scores in whole {
            highest = simd.max_f32s(highest, scores);
        }
        rest.iter().copied().fold(simd.reduce_max_f32s(highest), f32::max)
    }
}

/// Σ e^(score − peak) of the two bases, of the large one without its likeliest token.
struct Norms {
    base_rest: f64,
    anchor: f64,
}

/// An expert, and what is summed of it.
struct Lead<'a> {
    expert: &'a [f32],
    peak: f64,
    offset: f64,
    sums: ExpertSums,
}

/// Sums of e^(score − peak) of the expert, and of its shift under three models.
#[derive(Clone, Copy)]
struct ExpertSums {
    norm: f64,
    under_expert: f64,
    under_anchor: f64,
    under_base: f64,
    highest: f64,
}

impl Default for ExpertSums {
    fn default() -> Self {
        Self { norm: 0.0, under_expert: 0.0, under_anchor: 0.0, under_base: 0.0, highest: f64::NEG_INFINITY }
    }
}

struct Survey<'a, 'b> {
    base: &'a [f32],
    base_peak: f64,
    top: usize,
    anchor: &'a [f32],
    anchor_peak: f64,
    leads: &'b mut [Lead<'a>],
}

impl WithSimd for Survey<'_, '_> {
    type Output = Norms;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Norms {
        let mut norms = Norms { base_rest: 0.0, anchor: 0.0 };
        let [mut base, mut anchor, mut expert, mut shift]: [Column; 4] = [[0.0; BLOCK]; 4];
        for tokens in blocks(self.base.len()) {
            let width = width(tokens.len());
            let (base, anchor) = (&mut base[..width], &mut anchor[..width]);
            let (expert, shift) = (&mut expert[..width], &mut shift[..width]);
            load(&self.base[tokens.clone()], self.base_peak, 0.0, base);
            if tokens.contains(&self.top) {
                base[self.top - tokens.start] = f64::NEG_INFINITY;
            }
            exp_all::<S>(base, 0.0);
            norms.base_rest += sum(simd, base);
            load(&self.anchor[tokens.clone()], self.anchor_peak, 0.0, anchor);
            exp_all::<S>(anchor, 0.0);
            norms.anchor += sum(simd, anchor);
            for lead in self.leads.iter_mut() {
                let scores = &lead.expert[tokens.clone()];
                load(scores, lead.peak, 0.0, expert);
                exp_all::<S>(expert, 0.0);
                load_shift(scores, &self.anchor[tokens.clone()], lead.offset, shift);
                lead.sums.highest = lead.sums.highest.max(highest(simd, shift));
                add_products(simd, [expert, anchor, base], shift, &mut lead.sums);
            }
        }
        norms
    }
}

/// Adds Σ e u under each of three models, and the expert's Σ e.
#[inline(always)]
fn add_products<S: Simd>(simd: S, weights: [&[f64]; 3], shift: &[f64], sums: &mut ExpertSums) {
    let [expert, anchor, base] = weights.map(|column| S::as_simd_f64s(column).0);
    let mut totals = [simd.splat_f64s(0.0); 4];
    for (((&e, &a), &b), &u) in expert.iter().zip(anchor).zip(base).zip(S::as_simd_f64s(shift).0) {
        totals[0] = simd.add_f64s(totals[0], e);
        totals[1] = simd.mul_add_e_f64s(e, u, totals[1]);
        totals[2] = simd.mul_add_e_f64s(a, u, totals[2]);
        totals[3] = simd.mul_add_e_f64s(b, u, totals[3]);
    }
    let [norm, under_expert, under_anchor, under_base] = totals.map(|total| simd.reduce_sum_f64s(total));
    sums.norm += norm;
    sums.under_expert += under_expert;
    sums.under_anchor += under_anchor;
    sums.under_base += under_base;
}
