//! Numbers worked out by hand or at higher precision for named cases, and what they say about the objective.
//!
//! Scores are f32, so a decimal logit of size 1 is off by up to 6e-8 and everything that follows by about as much: `INPUTS`.

use align_core::number::{NonNegative, Positive};
use align_fusion::matching::Slopes;
use align_fusion::tilt::{Movement, Tilt};
use align_fusion::{
    Bounds, DynamicConfig, Experts, Member, Objective, Row, RowError, Search, Step, Targets, Weighing,
};

/// What f32 inputs leave of digits computed in f64.
const INPUTS: f64 = 3e-7;

const BASE: [f32; 4] = [2.0, 1.0, 0.5, -1.0];
const ANCHOR: [f32; 4] = [1.0, 1.2, 0.0, -0.5];
const EXPERT: [f32; 4] = [0.2, 2.5, 0.0, -0.5];
const OTHER: [f32; 4] = [1.0, 1.2, 1.8, -0.5];

/// Weights and fused probabilities of a row.
fn weigh(weighing: &Weighing, base: &[f32], anchor: &[f32], experts: &[&[f32]]) -> (Step, Vec<f64>) {
    let mut out = vec![0.0; base.len()];
    let step = weighing.weigh(Row { base, anchor, experts }, &mut out).expect("a row without fault");
    (step, out.into_iter().map(|log_prob| f64::from(log_prob).exp()).collect())
}

fn dynamic(search: Search) -> Weighing {
    Weighing::Dynamic(DynamicConfig { search, ..DynamicConfig::default() })
}

fn fixed(weights: &[f64]) -> Weighing {
    Weighing::Static { weights: weights.to_vec() }
}

#[track_caller]
fn close(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "found {found}, expected {expected} ± {tolerance}");
}

#[track_caller]
fn all_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        close(*found, *expected, tolerance);
    }
}

fn slopes(tilt: &Tilt<'_>, alpha: f64) -> Slopes {
    Objective::Both.slopes(&tilt.moments(alpha), tilt.target())
}

#[test]
fn t1_targets_and_the_curve_of_the_loss() {
    let tilt = Tilt::new(&BASE, &ANCHOR, &EXPERT);
    let target = tilt.target();
    close(target.forward, 0.315283953, INPUTS);
    close(target.reverse, 0.394578731, INPUTS);
    for (alpha, f, g, loss) in [
        (0.0, 0.0, 0.0, 0.255096346),
        (0.5, 0.110912233, 0.102384177, 0.127145457),
        (1.0, 0.440015824, 0.429480967, 0.016776206),
        (1.5, 0.825984774, 0.949480314, 0.568731096),
        (2.0, 1.116684023, 1.588556237, 2.067824357),
    ] {
        let moved = tilt.moments(alpha).movement();
        close(moved.forward, f, INPUTS);
        close(moved.reverse, g, INPUTS);
        // L′ is up to 6 here, so that its error is that of f and g times about 6.
        close(Objective::Both.loss(moved, target), loss, 6.0 * INPUTS);
    }
}

#[test]
fn t1_the_base_the_grid_the_refinement_and_weight_1() {
    let grid_fused = [0.250261531, 0.609419276, 0.114721390, 0.025597802];
    for search in [Search::PaperGrid, Search::Grid] {
        let (step, fused) = weigh(&dynamic(search), &BASE, &ANCHOR, &[&EXPERT]);
        close(step.weights[0], 0.9, 1e-12);
        close(step.loss, 0.004560767, INPUTS);
        all_close(&fused, &grid_fused, INPUTS);
    }
    let (step, fused) = weigh(&dynamic(Search::Refined), &BASE, &ANCHOR, &[&EXPERT]);
    close(step.weights[0], 0.901680187, INPUTS);
    close(step.loss, 0.004557453, INPUTS);
    all_close(&fused, &[0.249676588, 0.610143896, 0.114607194, 0.025572322], INPUTS);
    assert!(!step.saturated && !step.skipped && step.expert == Some(0));

    let (_, plain) = weigh(&fixed(&[0.0]), &BASE, &ANCHOR, &[&EXPERT]);
    all_close(&plain, &[0.609460038, 0.224207818, 0.135988916, 0.030343229], INPUTS);
    let (step, fused) = weigh(&fixed(&[1.0]), &BASE, &ANCHOR, &[&EXPERT]);
    all_close(&fused, &[0.216846619, 0.651443246, 0.107682844, 0.024027290], INPUTS);
    close(step.forward, 0.440015824, INPUTS);
    close(step.loss, 0.016776206, INPUTS);
}

#[test]
fn t1_single_terms_and_jeffreys_have_their_own_roots() {
    for (objective, root) in [
        (Objective::Forward, 0.835967712),
        (Objective::Reverse, 0.959095339),
        (Objective::Jeffreys, 0.900351271),
    ] {
        let weighing = Weighing::Dynamic(DynamicConfig { objective, ..DynamicConfig::default() });
        let (step, _) = weigh(&weighing, &BASE, &ANCHOR, &[&EXPERT]);
        close(step.weights[0], root, INPUTS);
        assert!(step.loss < 1e-12, "{objective:?} has an exact root, found a loss of {}", step.loss);
    }
}

#[test]
fn t1_moments_and_slopes_at_one_weight() {
    let tilt = Tilt::new(&BASE, &ANCHOR, &EXPERT);
    let at = tilt.moments(0.7);
    // The reference takes v as the difference of logits; ours is measured from that of the likeliest token, −0.8.
    close(at.log_partition - 0.7 * 0.8, 0.069027596, INPUTS);
    close(at.mean - 0.8, 0.415881334, INPUTS);
    close(at.variance, 0.913535921, 2.0 * INPUTS);
    close(at.third, -0.235934129, 4.0 * INPUTS);
    close(at.forward_slope(), 0.639475145, INPUTS);
    close(at.reverse_slope(), 0.611979201, INPUTS);
    let Slopes { first, second } = slopes(&tilt, 0.7);
    close(first, -0.349641384, 2.0 * INPUTS);
    close(second, 1.083397768, 4.0 * INPUTS);
    close(slopes(&tilt, 0.0).second, -1.037125372, 4.0 * INPUTS);
    close(tilt.moments(2.0).forward_curvature(), -0.478910785, 4.0 * INPUTS);
    // s²₀ gives the weight of a small shift, and f ends at −log P(argmax v).
    let guess = (tilt.target().sum() / tilt.moments(0.0).variance).sqrt();
    close(guess, 0.985765728, INPUTS);
    close(tilt.moments(200.0).movement().forward, 1.495181898, INPUTS);
}

#[test]
fn t1_the_greedy_token_changes_at_ten_twenty_firsts() {
    for (alpha, token) in [(0.0, 0), (10.0 / 21.0 - 1e-6, 0), (10.0 / 21.0 + 1e-6, 1), (2.0, 1)] {
        let (_, fused) = weigh(&fixed(&[alpha]), &BASE, &ANCHOR, &[&EXPERT]);
        let best = (0..4).max_by(|&i, &j| fused[i].total_cmp(&fused[j]));
        assert_eq!(best, Some(token), "at {alpha}");
    }
}

#[test]
fn t1_temperature_is_applied_to_the_result() {
    let (_, fused) = weigh(&dynamic(Search::Grid), &BASE, &ANCHOR, &[&EXPERT]);
    let squares: Vec<f64> = fused.iter().map(|p| p * p).collect();
    let sum: f64 = squares.iter().sum();
    let sharp: Vec<f64> = squares.iter().map(|p| p / sum).collect();
    all_close(&sharp, &[0.139851249, 0.829297827, 0.029387792, 0.001463132], INPUTS);
}

#[test]
fn t2_a_base_equal_to_the_small_one_becomes_the_expert() {
    for search in [Search::PaperGrid, Search::Grid, Search::Refined] {
        let (step, fused) = weigh(&dynamic(search), &BASE, &BASE, &[&EXPERT]);
        close(step.weights[0], 1.0, 1e-12);
        assert!(step.loss < 1e-20, "{}", step.loss);
        let (_, expert) = weigh(&fixed(&[0.0]), &EXPERT, &BASE, &[&EXPERT]);
        all_close(&fused, &expert, 1e-7);
    }
    // The reference's expert here is P tilted by T1's shift.
    let shifted = [0.2, 2.5, 0.0, -0.5];
    let (_, fused) = weigh(&dynamic(Search::Refined), &BASE, &BASE, &[&shifted]);
    all_close(&fused, &[0.081370285, 0.811602072, 0.066620355, 0.040407288], INPUTS);
}

#[test]
fn t3_constants_and_normalisation_change_nothing() {
    let plus = |scores: &[f32; 4], constant: f32| scores.map(|score| score + constant);
    let (expected, fused) = weigh(&dynamic(Search::Refined), &BASE, &ANCHOR, &[&EXPERT]);
    let (step, moved) =
        weigh(&dynamic(Search::Refined), &plus(&BASE, 7.3), &plus(&ANCHOR, -2.0), &[&plus(&EXPERT, 11.0)]);
    // Sums of size 13 are rounded to 5e-7 in f32.
    close(step.weights[0], expected.weights[0], 3e-6);
    close(step.weights[0], 0.901680187, 3e-6);
    all_close(&moved, &fused, 2e-6);
    let logs = |scores: &[f32; 4]| {
        let norm = scores.iter().map(|score| score.exp()).sum::<f32>().ln();
        scores.map(|score| score - norm)
    };
    let (step, _) = weigh(&dynamic(Search::Refined), &logs(&BASE), &logs(&ANCHOR), &[&logs(&EXPERT)]);
    close(step.weights[0], 0.901680187, 1e-6);
}

const BASINS: [[f32; 3]; 3] = [[0.0, 2.0, 14.0], [0.0, 0.0, 3.0], [0.0, 0.0, -11.0]];

#[test]
fn t4_of_two_basins_the_deeper_is_taken() {
    let [base, anchor, expert] = BASINS;
    let tilt = Tilt::new(&base, &anchor, &expert);
    close(tilt.target().forward, 2.401650514, 1e-9);
    close(tilt.target().reverse, 10.330434554, 1e-9);
    let loss = |alpha: f64| Objective::Both.loss(tilt.moments(alpha).movement(), tilt.target());
    for (alpha, expected) in [
        (0.8, 99.313192),
        (0.9, 109.522943),
        (1.0, 127.365114),
        (1.2, 116.418540),
        (1.5, 91.111204),
        (1.6, 89.734632),
        (1.7, 92.253112),
    ] {
        // Integer logits are exact in f32; the reference has six decimals.
        close(loss(alpha), expected, 1e-6);
    }
    let (step, _) = weigh(&dynamic(Search::Grid), &base, &anchor, &[&expert]);
    close(step.weights[0], 1.6, 1e-12);
    let (step, _) = weigh(&dynamic(Search::Refined), &base, &anchor, &[&expert]);
    close(step.weights[0], 1.585480766, 1e-9);
    close(step.loss, 89.693572361, 1e-9);
    // Coarse grids whose best candidate lies in the shallow basin, or which have one candidate in each.
    for step in [0.8, 0.5, 0.4] {
        let config = DynamicConfig { step: Positive::literal(step), ..DynamicConfig::default() };
        let (found, _) = weigh(&Weighing::Dynamic(config), &base, &anchor, &[&expert]);
        close(found.weights[0], 1.585480766, 1e-9);
    }
}

#[test]
fn t5_two_tokens() {
    let (base, anchor, expert) = ([1.5, 0.0], [0.2, 0.0], [1.2, 0.0]);
    let (step, fused) = weigh(&dynamic(Search::Grid), &base, &anchor, &[&expert]);
    close(step.target_forward, 0.103381186, INPUTS);
    close(step.target_reverse, 0.115309601, INPUTS);
    close(step.weights[0], 1.5, 1e-12);
    close(step.loss, 0.000500913, INPUTS);
    all_close(&fused, &[0.952574127, 0.047425873], INPUTS);
    let (step, _) = weigh(&dynamic(Search::Refined), &base, &anchor, &[&expert]);
    // The loss bends little here: L″ is about 0.04, so the weight answers to its inputs more than L does.
    close(step.weights[0], 1.530749108, 1e-6);
    close(step.loss, 0.000478478, INPUTS);
    let (_, fused) = weigh(&fixed(&[1.0]), &base, &anchor, &[&expert]);
    all_close(&fused, &[0.924141820, 0.075858180], INPUTS);
}

#[test]
fn t6_a_target_out_of_reach_gives_the_bound_and_says_so() {
    let (base, anchor, expert) = ([9.0, 0.0, 0.0], [0.5, 0.0, 0.0], [-0.5, 1.0, 0.0]);
    for search in [Search::PaperGrid, Search::Grid, Search::Refined] {
        let (step, fused) = weigh(&dynamic(search), &base, &anchor, &[&expert]);
        close(step.target_forward, 0.318295321, 1e-9);
        close(step.target_reverse, 0.347786158, 1e-9);
        assert_eq!(step.weights, [2.0]);
        assert!(step.saturated, "{search:?}");
        close(step.loss, 0.204660664, 1e-9);
        all_close(&fused, &[0.992408247, 0.006686794, 0.000904959], 1e-7);
    }
    let wide = DynamicConfig { upper: NonNegative::literal(20.0), ..DynamicConfig::default() };
    let (step, _) = weigh(&Weighing::Dynamic(wide), &base, &anchor, &[&expert]);
    close(step.weights[0], 3.186846061, 1e-8);
    assert!(!step.saturated);
}

#[test]
fn t7_a_flat_base_is_moved_gently() {
    let (base, anchor, expert) = ([0.0, 0.0, 0.0], [3.0, 0.0, 0.0], [5.0, -1.0, 0.0]);
    let (step, fused) = weigh(&dynamic(Search::Grid), &base, &anchor, &[&expert]);
    close(step.target_forward, 0.065027302, 1e-9);
    close(step.target_reverse, 0.140644032, 1e-9);
    close(step.weights[0], 0.4, 1e-12);
    close(step.loss, 0.003986411, 1e-9);
    all_close(&fused, &[0.571257789, 0.172059540, 0.256682671], 1e-7);
    let (step, _) = weigh(&dynamic(Search::Refined), &base, &anchor, &[&expert]);
    close(step.weights[0], 0.359621734, 1e-8);
    close(step.loss, 0.002850967, 1e-9);
    let (_, fused) = weigh(&fixed(&[1.0]), &base, &anchor, &[&expert]);
    all_close(&fused, &[0.843794734, 0.042010066, 0.114195199], 1e-7);
}

#[test]
fn t8_of_two_experts_the_one_that_meets_the_mean_distance_is_taken() {
    let tilts = Tilt::all(&BASE, &ANCHOR, &[&EXPERT, &OTHER]);
    let targets: Vec<Movement> = tilts.iter().map(Tilt::target).collect();
    all_close(&[targets[0].forward, targets[0].reverse], &[0.315283953, 0.394578731], INPUTS);
    all_close(&[targets[1].forward, targets[1].reverse], &[0.350664365, 0.271682099], INPUTS);
    let mean = Movement::mean(targets.iter().copied());
    all_close(&[mean.forward, mean.reverse], &[0.332974159, 0.333130415], INPUTS);
    for (tilt, alpha, summed, against_mean) in
        [(&tilts[0], 0.9, 0.010313147, 0.001067735), (&tilts[1], 1.0, 0.015244216, 0.003533269)]
    {
        let moved = tilt.moments(alpha).movement();
        let sum: f64 = targets.iter().map(|&target| Objective::Both.loss(moved, target)).sum();
        close(sum, summed, INPUTS);
        close(Objective::Both.loss(moved, mean), against_mean, INPUTS);
        close(sum - 2.0 * against_mean, 0.008177678, INPUTS);
    }
    let (step, _) = weigh(&dynamic(Search::Grid), &BASE, &ANCHOR, &[&EXPERT, &OTHER]);
    assert_eq!(step.expert, Some(0));
    all_close(&step.weights, &[0.9, 0.0], 1e-12);
    close(step.loss, 0.001067735, INPUTS);
}

#[test]
fn t8_jointly_there_are_two_zeros_and_the_gentler_is_taken() {
    let joint = |search| DynamicConfig { experts: Experts::Joint, search, ..DynamicConfig::default() };
    let experts: [&[f32]; 2] = [&EXPERT, &OTHER];
    let (step, _) = weigh(&Weighing::Dynamic(joint(Search::Refined)), &BASE, &ANCHOR, &experts);
    all_close(&step.weights, &[0.882517813, 0.204368762], 2e-6);
    assert!(step.loss < 1e-17 && step.expert.is_none(), "{step:?}");
    // Keep the first expert below 0.8 and the other zero is what is left.
    let bounds = [0.8, 2.0]
        .map(|upper| Bounds { lower: NonNegative::literal(0.0), upper: NonNegative::literal(upper) });
    let below = DynamicConfig { bounds: bounds.to_vec(), ..joint(Search::Refined) };
    let (step, _) = weigh(&Weighing::Dynamic(below), &BASE, &ANCHOR, &experts);
    all_close(&step.weights, &[0.641435272, 0.816508053], 2e-6);
    // Fast and published grid agree; no candidate beats the zero.
    let [fast, slow] = [Search::Grid, Search::PaperGrid]
        .map(|search| weigh(&Weighing::Dynamic(joint(search)), &BASE, &ANCHOR, &experts).0);
    assert_eq!(fast.weights, slow.weights);
    close(fast.loss, slow.loss, 1e-14);
    assert!(fast.loss > step.loss);
}

#[test]
fn jointly_an_expert_that_moves_nothing_gets_no_weight() {
    let joint = DynamicConfig { experts: Experts::Joint, ..DynamicConfig::default() };
    let experts: [&[f32]; 2] = [&ANCHOR, &EXPERT];
    let (step, _) = weigh(&Weighing::Dynamic(joint), &BASE, &ANCHOR, &experts);
    let (alone, _) = weigh(&dynamic(Search::Refined), &BASE, &ANCHOR, &experts);
    assert_eq!(step.weights[0], 0.0);
    // Two ways to one minimum: one stops within 1e-6, the other once no step lowers the loss by more than a rounding.
    close(step.weights[1], alone.weights[1], 1e-6);
}

#[test]
fn t8_two_static_weights() {
    let (step, _) = weigh(&fixed(&[0.6, 0.4]), &BASE, &ANCHOR, &[&EXPERT, &OTHER]);
    close(step.forward, 0.179464043, INPUTS);
    close(step.reverse, 0.181823253, INPUTS);
    // ∇f and ∇g by differences of 1e-4 either way; the reported f and g carry ten digits more than that needs.
    let at = |first: f64, second: f64| {
        let (step, _) = weigh(&fixed(&[first, second]), &BASE, &ANCHOR, &[&EXPERT, &OTHER]);
        [step.forward, step.reverse, 2.0 * step.loss]
    };
    let [[up, down], [right, left]] =
        [[at(0.6001, 0.4), at(0.5999, 0.4)], [at(0.6, 0.4001), at(0.6, 0.3999)]];
    let slope = |above: [f64; 3], below: [f64; 3], part: usize| (above[part] - below[part]) / 2e-4;
    for (part, expected) in [
        [0.447846669, 0.161844667],
        [0.480238353, 0.182860710],
        // Summed over experts the loss is twice that against the mean, and a constant.
        [-0.565649986, -0.210051715],
    ]
    .into_iter()
    .enumerate()
    {
        close(slope(up, down, part), expected[0], 1e-6);
        close(slope(right, left, part), expected[1], 1e-6);
    }
}

#[test]
fn t9_masking_everywhere_is_leaving_out() {
    let mask = |mut scores: [f32; 4]| {
        scores[3] = f32::NEG_INFINITY;
        scores
    };
    let (step, fused) = weigh(&dynamic(Search::Grid), &mask(BASE), &mask(ANCHOR), &[&mask(EXPERT)]);
    close(step.target_forward, 0.315555516, INPUTS);
    close(step.target_reverse, 0.411854766, INPUTS);
    close(step.weights[0], 0.9, 1e-12);
    close(step.loss, 0.006186026, INPUTS);
    assert_eq!(fused[3], 0.0);
    let (short, left) = weigh(&dynamic(Search::Grid), &BASE[..3], &ANCHOR[..3], &[&EXPERT[..3]]);
    assert_eq!((short, &left[..]), (step.clone(), &fused[..3]));
    // The base alone decides what there is: what it masks is dropped from small models that do not.
    let (only_base, other) = weigh(&dynamic(Search::Grid), &mask(BASE), &ANCHOR, &[&EXPERT]);
    assert_eq!((only_base, other), (step, fused));
}

#[test]
fn t10_an_expert_equal_to_the_small_base_changes_nothing() {
    let (_, plain) = weigh(&fixed(&[0.0]), &BASE, &ANCHOR, &[&ANCHOR]);
    let (skipped, fused) = weigh(&dynamic(Search::Refined), &BASE, &ANCHOR, &[&ANCHOR]);
    assert!(skipped.skipped && skipped.weights == [1.0] && skipped.loss < 1e-30, "{skipped:?}");
    assert_eq!(fused, plain);
    for search in [Search::PaperGrid, Search::Grid] {
        let never = DynamicConfig { search, skip_below: NonNegative::literal(0.0), ..Default::default() };
        let (step, fused) = weigh(&Weighing::Dynamic(never), &BASE, &ANCHOR, &[&ANCHOR]);
        // Every candidate ties: the first.
        assert!(!step.skipped && step.weights == [0.0], "{step:?}");
        assert_eq!(fused, plain);
    }
}

#[test]
fn t11_rows_of_padding_are_sliced_off() {
    let padded = [0.2, 2.5, 0.0, -0.5, 9.9];
    let (_, fused) = weigh(&fixed(&[1.0]), &BASE, &ANCHOR, &[&padded[..4]]);
    all_close(&fused, &[0.216846619, 0.651443246, 0.107682844, 0.024027290], INPUTS);
}

#[test]
fn t12_a_token_of_e_to_the_minus_100_takes_over() {
    let (base, anchor, expert) = ([0.0, -100.0], [0.0, 0.0], [0.0, 60.0]);
    let tilt = Tilt::new(&base, &anchor, &expert);
    // 120 − 100 + log(1 + e⁻²⁰); the errors are those of a few roundings of 120.
    let at = tilt.moments(2.0);
    close(at.log_partition, 20.000000002061, 1e-12);
    close(at.movement().forward, 99.999999751, 1e-9);
    close(at.movement().reverse, 20.000000002, 1e-9);
    for (k, moved) in tilt.grid(0.0, 0.1, 21).into_iter().enumerate() {
        let alone = tilt.moments(0.1 * k as f64).movement();
        close(moved.forward, alone.forward, 1e-12);
        close(moved.reverse, alone.reverse, 1e-12);
    }
}

#[test]
fn a_grid_that_f64_cannot_hold_is_looked_at_weight_by_weight() {
    // At α = 1 the largest term is e^(1·0 − 900) below that of a token with a probability of e^−900.
    let (base, anchor, expert) = ([0.0, -900.0], [0.0, 0.0], [0.0, 1200.0]);
    let tilt = Tilt::new(&base, &anchor, &expert);
    let grid = tilt.grid(0.0, 0.1, 21);
    for (k, moved) in grid.into_iter().enumerate() {
        let alpha = 0.1 * k as f64;
        // Two tokens: A = log(1 + e^(1200α − 900)), and 900 log 2 is far beyond what a sum of e^−900 terms could tell.
        let exponent = 1200.0 * alpha - 900.0;
        let expected = if exponent > 40.0 { exponent } else { exponent.exp().ln_1p() };
        close(moved.reverse, expected, 1e-9 * (1.0 + expected));
        assert!(moved.forward.is_finite());
    }
}

#[test]
fn a_base_that_is_certain_beyond_f64_still_gets_the_largest_weight() {
    // P of the first token is 1 − e^−60, and the loss is a² + b² to the last bit at every weight.
    let (base, anchor, expert) = ([60.0, 0.0, 0.0], [0.5, 0.0, 0.0], [-0.5, 1.0, 0.0]);
    for search in [Search::PaperGrid, Search::Grid, Search::Refined] {
        let (step, _) = weigh(&dynamic(search), &base, &anchor, &[&expert]);
        assert!(step.weights == [2.0] && step.saturated, "{search:?}: {step:?}");
        // Two other tokens, v = 2 and 1 beside the first: f = Σ e^−60 (e^(2v)·(2v − 1) + 1), terms of e^−120 left out.
        let expected: f64 =
            [2.0f64, 1.0].iter().map(|v| (-60f64).exp() * ((2.0 * v).exp() * (2.0 * v - 1.0) + 1.0)).sum();
        close(step.forward, expected, 1e-12 * expected);
    }
}

#[test]
fn n1_zero_is_a_local_maximum_so_the_loss_is_not_convex() {
    for [base, anchor, expert] in [
        [&BASE[..], &ANCHOR, &EXPERT],
        [&BASE[..], &ANCHOR, &OTHER],
        [&BASINS[0][..], &BASINS[1], &BASINS[2]],
    ] {
        let tilt = Tilt::new(base, anchor, expert);
        let at_zero = slopes(&tilt, 0.0);
        close(at_zero.first, 0.0, 1e-12);
        let expected = -2.0 * tilt.target().sum() * tilt.moments(0.0).variance;
        close(at_zero.second, expected, 1e-12 * expected.abs());
        assert!(at_zero.second < 0.0);
    }
}

#[test]
fn n2_both_divergences_grow_and_only_the_reverse_one_is_convex() {
    let tilt = Tilt::new(&BASE, &ANCHOR, &EXPERT);
    let grid = tilt.grid(0.0, 0.05, 101);
    for triple in grid.windows(3) {
        assert!(triple[1].forward > triple[0].forward && triple[1].reverse > triple[0].reverse);
        assert!(triple[0].reverse + triple[2].reverse > 2.0 * triple[1].reverse);
    }
    assert!(grid.windows(3).any(|t| t[0].forward + t[2].forward < 2.0 * t[1].forward));
}

#[test]
fn n3_the_minimum_lies_between_the_roots_of_the_two_terms() {
    let weight = |objective| {
        let config = DynamicConfig { objective, ..DynamicConfig::default() };
        weigh(&Weighing::Dynamic(config), &BASE, &ANCHOR, &[&EXPERT]).0.weights[0]
    };
    let (forward, reverse) = (weight(Objective::Forward), weight(Objective::Reverse));
    let both = weight(Objective::Both);
    assert!(forward < both && both < reverse, "{forward} {both} {reverse}");
}

#[test]
fn n4_two_minima_with_a_barrier_refute_unimodality() {
    let [base, anchor, expert] = BASINS;
    let tilt = Tilt::new(&base, &anchor, &expert);
    for (alpha, loss, minimum) in
        [(0.811568, 99.159661, true), (1.044169, 129.303795, false), (1.585481, 89.693572, true)]
    {
        let at = slopes(&tilt, alpha);
        // Six decimals of α, times a curvature of up to 4000.
        close(at.first, 0.0, 5e-7 * at.second.abs() + 1e-9);
        assert_eq!(at.second > 0.0, minimum, "at {alpha}");
        close(Objective::Both.loss(tilt.moments(alpha).movement(), tilt.target()), loss, 1e-5);
    }
}

#[test]
fn n5_a_negative_weight_fits_about_as_well_and_cannot_be_asked_for() {
    let tilt = Tilt::new(&BASE, &ANCHOR, &EXPERT);
    let loss = Objective::Both.loss(tilt.moments(-1.34).movement(), tilt.target());
    // The reference has two digits.
    close(loss, 0.0064, 5e-5);
    assert!(NonNegative::try_from(-1.34).is_err());
    assert!(serde_json::from_str::<Weighing>(r#"{ "kind": "dynamic", "lower": -1.34 }"#).is_err());
}

#[test]
fn n6_a_surer_base_is_moved_by_a_larger_weight() {
    // T5's expert, on a base that is flatter than the small one, equal to it, and surer.
    let weight =
        |score| weigh(&dynamic(Search::Refined), &[score, 0.0], &[0.2, 0.0], &[&[1.2, 0.0]]).0.weights[0];
    let weights = [0.0, 0.2, 1.0, 1.5, 2.0].map(weight);
    assert!(weights.is_sorted() && weights[0] < 1.0 && weights[2] > 1.0, "{weights:?}");
    // The ratio of the standard deviations of v under the two bases, which small shifts are weighed by.
    let deviation = |base: [f32; 4]| Tilt::new(&base, &ANCHOR, &EXPERT).moments(0.0).variance.sqrt();
    close(deviation(ANCHOR) / deviation(BASE), 1.099455370, INPUTS);
    let small: [f32; 4] = std::array::from_fn(|i| ANCHOR[i] + 0.01 * (EXPERT[i] - ANCHOR[i]));
    let (step, _) = weigh(&dynamic(Search::Refined), &BASE, &ANCHOR, &[&small]);
    // The next term is of the order of the shift, a hundredth.
    close(step.weights[0], 1.099455370, 0.01);
}

#[test]
fn own_targets_match_each_expert_to_itself() {
    let own = DynamicConfig { targets: Targets::Own, ..DynamicConfig::default() };
    // A base equal to the small one makes each expert's own distance exact at 1.
    let (step, _) = weigh(&Weighing::Dynamic(own.clone()), &ANCHOR, &ANCHOR, &[&EXPERT, &OTHER]);
    close(step.loss, 0.0, 1e-20);
    close(step.weights.iter().sum::<f64>(), 1.0, 1e-6);
    // An expert that did not move is no candidate, though a weight of 0 would match it.
    let (step, _) = weigh(&Weighing::Dynamic(own), &BASE, &ANCHOR, &[&ANCHOR, &EXPERT]);
    assert_eq!(step.expert, Some(1));
    close(step.weights[1], 0.901680187, INPUTS);
    let mean = dynamic(Search::Refined);
    let (step, _) = weigh(&mean, &BASE, &ANCHOR, &[&ANCHOR, &EXPERT]);
    close(step.target_forward, 0.5 * 0.315283953, INPUTS);
}

#[test]
fn faults_are_named() {
    let inf = f32::NEG_INFINITY;
    let error = |base: &[f32], anchor: &[f32], expert: &[f32]| {
        let mut out = vec![0.0; base.len()];
        Weighing::default().weigh(Row { base, anchor, experts: &[expert] }, &mut out).unwrap_err()
    };
    let masked = RowError::MaskedOnlyInExpert { expert: 0, token: 1, log_prob: -(2f64.ln()) };
    assert_eq!(error(&[0.0, 0.0], &[0.0, 0.0], &[0.0, inf]), masked);
    assert_eq!(error(&[0.0, 0.0], &[0.0, inf], &[0.0, 0.0]), RowError::MaskedOnlyInAnchor { token: 1 });
    assert_eq!(error(&[inf, inf], &[0.0, 0.0], &[0.0, 0.0]), RowError::AllMasked { member: Member::Base });
    assert_eq!(
        error(&[0.0, 0.0], &[0.0, 0.0], &[inf, inf]),
        RowError::AllMasked { member: Member::Expert(0) }
    );
    let found = error(&[0.0, 0.0], &[0.0, f32::INFINITY], &[0.0, 0.0]);
    assert_eq!(found, RowError::NotFinite { member: Member::Anchor, token: 1, found: f32::INFINITY });
    // NaN equals nothing, so the message is compared; it comes before any mask.
    let found = error(&[inf, 0.0, f32::NAN], &[0.0, inf, 0.0], &[0.0, 0.0, 0.0]);
    assert!(found.to_string().starts_with("the large base scores token 2 with NaN"), "{found}");
}
