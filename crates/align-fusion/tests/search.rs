//! The fast searches against slow ones on thousands of random rows, and what holds for every row.

use align_core::number::NonNegative;
use align_core::{Draws, draws::Purpose};
use align_fusion::matching::Slopes;
use align_fusion::tilt::{Movement, Tilt};
use align_fusion::{DynamicConfig, Experts, Objective, Row, Search, Step, Targets, Weighing};
use proptest::prelude::*;

/// Scores of the large base, the small base and one expert.
struct Case {
    base: Vec<f32>,
    anchor: Vec<f32>,
    expert: Vec<f32>,
}

impl Case {
    fn tilt(&self) -> Tilt<'_> {
        Tilt::new(&self.base, &self.anchor, &self.expert)
    }

    fn weigh(&self, config: DynamicConfig) -> (Step, Vec<f32>) {
        let mut out = vec![0.0; self.base.len()];
        let row = Row { base: &self.base, anchor: &self.anchor, experts: &[&self.expert] };
        let step = Weighing::Dynamic(config).weigh(row, &mut out).expect("finite scores");
        (step, out)
    }
}

/// A row whose kind depends on its index: like trained models, peaked, flat, tied, rounded to integers, one token far above,
/// and rows like (0, 2, 14), (0, 0, 3), (0, 0, −11) whose loss often has two basins.
fn case(draws: &Draws, index: u64) -> Case {
    let uniform = |which: u32| draws.token(Purpose::Synthesize, 0, index, which, 0);
    let normal =
        |list: u64, token: usize| draws.normal(Purpose::Synthesize, 10 * index + list + 1, token as u64);
    let kind = index % 8;
    let size = match kind {
        7 => 3 + (uniform(0) * 3.0) as usize,
        _ => 3 + (uniform(0) * 38.0) as usize,
    };
    let scale = |which: u32, low: f64, high: f64| low * (high / low).powf(uniform(which));
    let (sharp, small, shift) = match kind {
        1 => (scale(1, 4.0, 20.0), scale(2, 0.5, 4.0), scale(3, 0.1, 6.0)),
        2 => (scale(1, 0.01, 0.3), scale(2, 1.0, 5.0), scale(3, 0.5, 4.0)),
        _ => (scale(1, 0.3, 6.0), scale(2, 0.3, 4.0), scale(3, 0.02, 5.0)),
    };
    let row = |list: u64, by: f64| (0..size).map(move |token| by * normal(list, token));
    let [mut base, mut anchor, mut delta]: [Vec<f64>; 3] =
        [row(0, sharp).collect(), row(1, small).collect(), row(2, shift).collect()];
    match kind {
        3 => (0..size).for_each(|i| {
            (base[i], anchor[i], delta[i]) = (base[i / 3], anchor[i / 3], delta[i / 3]);
        }),
        4 => [&mut base, &mut anchor, &mut delta]
            .into_iter()
            .for_each(|scores| scores.iter_mut().for_each(|score| *score = score.round())),
        5 => base[size / 2] += 10.0 + 20.0 * uniform(4),
        6 => delta.iter_mut().skip(1).for_each(|shift| *shift *= 0.01),
        7 => {
            let last = size - 1;
            base[last] += 8.0 + 8.0 * uniform(4);
            anchor[last] += 3.0;
            delta[last] -= 8.0 + 12.0 * uniform(5);
        }
        _ => {}
    }
    let narrow = |scores: &[f64]| scores.iter().map(|&score| score as f32).collect::<Vec<_>>();
    let expert: Vec<f64> = anchor.iter().zip(&delta).map(|(anchor, delta)| anchor + delta).collect();
    Case { base: narrow(&base), anchor: narrow(&anchor), expert: narrow(&expert) }
}

/// By the definitions, sharing nothing with the library.
mod reference {
    use super::{Case, Movement};

    /// With the likeliest token's e⁰ outside the sum: at 1 − 1e-14 a rounding of 1 would be all that KLs of 1e-15 consist of.
    pub(super) fn log_softmax(scores: &[f64]) -> Vec<f64> {
        let top = (0..scores.len()).fold(0, |top, i| if scores[i] > scores[top] { i } else { top });
        let relative = |i: usize| scores[i] - scores[top];
        let rest: f64 = (0..scores.len()).filter(|&i| i != top).map(|i| relative(i).exp()).sum();
        (0..scores.len()).map(|i| relative(i) - rest.ln_1p()).collect()
    }

    pub(super) fn kl(p: &[f64], q: &[f64]) -> f64 {
        p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum()
    }

    fn movement(from: &[f64], to: &[f64]) -> Movement {
        Movement { forward: kl(to, from), reverse: kl(from, to) }
    }

    /// Where (f − a)² + (g − b)² is least, of equal ones the first; by differences, since f and g of 1e-17 vanish beside a and b.
    pub(super) fn least(movements: &[Movement], target: Movement) -> usize {
        let difference = |one: Movement, other: Movement| {
            (one.forward - other.forward) * (one.forward + other.forward - 2.0 * target.forward)
                + (one.reverse - other.reverse) * (one.reverse + other.reverse - 2.0 * target.reverse)
        };
        let better = |best, k| if difference(movements[k], movements[best]) < 0.0 { k } else { best };
        (0..movements.len()).fold(0, better)
    }

    /// The target, then f and g at each weight.
    pub(super) fn movements(case: &Case, weights: &[f64]) -> (Movement, Vec<Movement>) {
        let wide = |scores: &[f32]| scores.iter().map(|&score| f64::from(score)).collect::<Vec<_>>();
        let [p, q, q_t] = [&case.base, &case.anchor, &case.expert].map(|s| log_softmax(&wide(s)));
        let fused = |alpha: f64| {
            let scores: Vec<f64> = (0..p.len()).map(|i| p[i] + alpha * (q_t[i] - q[i])).collect();
            movement(&p, &log_softmax(&scores))
        };
        (movement(&q, &q_t), weights.iter().map(|&alpha| fused(alpha)).collect())
    }
}

fn published() -> Vec<f64> {
    (0..=20).map(|k| 0.1 * f64::from(k)).collect()
}

#[test]
fn the_power_grid_takes_the_naive_grids_candidate_in_ten_thousand_cases() {
    let draws = Draws::new(5);
    let weights = published();
    let mut multimodal = 0;
    let mut largest = 0.0f64;
    for index in 0..10_000 {
        let case = case(&draws, index);
        let (target, movements) = reference::movements(&case, &weights);
        let losses: Vec<f64> = movements.iter().map(|&moved| Objective::Both.loss(moved, target)).collect();
        let least = reference::least(&movements, target);
        let config = DynamicConfig {
            search: Search::Grid,
            skip_below: NonNegative::literal(0.0),
            ..Default::default()
        };
        let (step, _) = case.weigh(config);
        assert!(
            (step.weights[0] - weights[least]).abs() < 1e-9,
            "case {index}: {} instead of {}",
            step.weights[0],
            weights[least]
        );
        // √L is a distance in nats, and as exact as f, g, a and b are.
        largest = largest.max((step.loss.sqrt() - losses[least].sqrt()).abs());
        let minima = (1..20).filter(|&k| losses[k] < losses[k - 1] && losses[k] < losses[k + 1]);
        multimodal += usize::from(minima.count() > 1);
    }
    println!("{multimodal} of 10 000 with several minima; largest difference of √L {largest:.1e}");
    assert!(multimodal >= 50, "the cases were to contain several basins, found {multimodal}");
    // Divergences of up to some 60, each summed from 40 terms: 1e-14 a rounding, and a few of them.
    assert!(largest < 1e-12, "{largest:e}");
}

#[test]
fn the_refinement_misses_no_minimum_of_three_thousand() {
    let draws = Draws::new(6);
    let scan: Vec<f64> = (0..=4000).map(|k| 2.0 * f64::from(k) / 4000.0).collect();
    let mut several = 0;
    for index in 0..3000 {
        let case = case(&draws, index);
        let tilt = case.tilt();
        let losses: Vec<f64> = tilt
            .grid(0.0, 2.0 / 4000.0, 4001)
            .into_iter()
            .map(|moved| Objective::Both.loss(moved, tilt.target()))
            .collect();
        let least = (0..=4000).fold(0, |best, k| if losses[k] < losses[best] { k } else { best });
        let (step, _) =
            case.weigh(DynamicConfig { skip_below: NonNegative::literal(0.0), ..Default::default() });
        // The scan is another evaluation of the same sums: 4000 products deep, each rounded.
        assert!(
            step.loss <= losses[least] * (1.0 + 1e-9) + 1e-14,
            "case {index}: {:e} at {} above {:e} at {}",
            step.loss,
            step.weights[0],
            losses[least],
            scan[least]
        );
        let minima = (1..4000).filter(|&k| losses[k] < losses[k - 1] && losses[k] < losses[k + 1]);
        several += usize::from(minima.count() > 1);
    }
    println!("{several} of 3000 with several minima");
    assert!(several >= 10, "the cases were to contain several basins, found {several}");
}

#[test]
fn the_published_grid_and_the_power_grid_agree_over_a_thousand_larger_vocabularies() {
    // Blocks of 1024: one, several, and a last one that fills no register.
    let draws = Draws::new(7);
    let mut largest = 0.0f64;
    for index in 0..1000 {
        let size = [997, 1024, 2051][index % 3];
        let row = |list: u64, by: f64| -> Vec<f32> {
            let list = 3 * index as u64 + list;
            (0..size).map(|token| (by * draws.normal(Purpose::Evaluate, list, token)) as f32).collect()
        };
        let (base, anchor, shift) = (row(0, 3.0), row(1, 2.0), row(2, 1.0));
        let expert = anchor.iter().zip(&shift).map(|(anchor, shift)| anchor + shift).collect();
        let case = Case { base, anchor, expert };
        let [fast, slow] = [Search::Grid, Search::PaperGrid]
            .map(|search| case.weigh(DynamicConfig { search, ..Default::default() }).0);
        assert_eq!(fast.weights, slow.weights, "row {index}");
        largest = largest.max((fast.loss - slow.loss).abs() / slow.loss);
    }
    println!("largest relative difference of a loss: {largest:.1e}");
    // L is a difference of sums, squared: where it is 1e-4 of (a + b)², a rounding of f counts a hundred times.
    assert!(largest < 1e-9, "{largest:e}");
}

#[test]
fn slopes_and_curvatures_agree_with_finite_differences() {
    let draws = Draws::new(8);
    for index in 0..200 {
        let case = case(&draws, 8 * index);
        let tilt = case.tilt();
        for alpha in [0.05, 0.7, 1.3] {
            let h = 1e-4;
            let [below, at, above] = [alpha - h, alpha, alpha + h].map(|alpha| tilt.moments(alpha));
            let scale = 1.0 + at.variance * (1.0 + at.variance + at.third.abs());
            // A central difference is off by h²/6 of a third derivative, and by 1e-16/h of rounding.
            let near = |slope: f64, above: f64, below: f64, what: &str| {
                let found = (above - below) / (2.0 * h);
                assert!(
                    (slope - found).abs() < 1e-6 * scale,
                    "{what} in case {index} at {alpha}: {slope} {found}"
                );
            };
            near(at.mean, above.log_partition, below.log_partition, "A′");
            near(at.variance, above.mean, below.mean, "μ′");
            near(at.third, above.variance, below.variance, "s²′");
            near(at.forward_slope(), above.movement().forward, below.movement().forward, "f′");
            near(at.reverse_slope(), above.movement().reverse, below.movement().reverse, "g′");
            near(at.forward_curvature(), above.forward_slope(), below.forward_slope(), "f″");
            near(at.reverse_curvature(), above.reverse_slope(), below.reverse_slope(), "g″");
            for objective in [Objective::Both, Objective::Forward, Objective::Reverse, Objective::Jeffreys] {
                let target = tilt.target();
                let Slopes { first, second } = objective.slopes(&at, target);
                let loss = |at: &align_fusion::tilt::Moments| objective.loss(at.movement(), target);
                let scale = scale * (1.0 + target.sum() + at.movement().sum());
                let found = (loss(&above) - loss(&below)) / (2.0 * h);
                assert!((first - found).abs() < 1e-6 * scale, "L′ of {objective:?}: {first} {found}");
                let slope = |at| objective.slopes(at, target).first;
                let found = (slope(&above) - slope(&below)) / (2.0 * h);
                assert!((second - found).abs() < 1e-5 * scale, "L″ of {objective:?}: {second} {found}");
            }
        }
    }
}

#[test]
fn the_joint_grids_agree_and_the_refinement_is_never_worse() {
    let draws = Draws::new(9);
    for index in 0..60 {
        let (one, two) = (case(&draws, 8 * index), case(&draws, 8 * (index + 1000)));
        let size = one.base.len().min(two.base.len());
        let second: Vec<f32> = (0..size).map(|i| one.anchor[i] + two.expert[i] - two.anchor[i]).collect();
        let row = Row {
            base: &one.base[..size],
            anchor: &one.anchor[..size],
            experts: &[&one.expert[..size], &second],
        };
        let mut out = vec![0.0; size];
        let [slow, fast, refined] = [Search::PaperGrid, Search::Grid, Search::Refined].map(|search| {
            let config = DynamicConfig { experts: Experts::Joint, search, ..Default::default() };
            Weighing::Dynamic(config).weigh(row, &mut out).expect("finite scores")
        });
        assert_eq!(slow.weights, fast.weights, "row {index}");
        assert!(refined.loss <= fast.loss * (1.0 + 1e-12) + 1e-20, "row {index}: {refined:?} {fast:?}");
        // Two weights can do at least what one can.
        let alone = Weighing::default().weigh(row, &mut out).expect("finite scores");
        let slack = 1e-6 * alone.target_forward.powi(2).max(alone.target_reverse.powi(2));
        assert!(refined.loss <= alone.loss + slack, "row {index}: {refined:?} {alone:?}");
    }
}

/// Scores of four models over one vocabulary, of f32s with few bits so that sums with constants are exact.
fn scores() -> impl Strategy<Value = [Vec<f32>; 4]> {
    (2usize..30).prop_flat_map(|size| {
        let row = || prop::collection::vec((-512i32..512).prop_map(|bits| bits as f32 / 64.0), size);
        [row(), row(), row(), row()]
    })
}

fn weigh(config: &DynamicConfig, [base, anchor, first, second]: &[Vec<f32>; 4]) -> (Step, Vec<f32>) {
    let mut out = vec![0.0; base.len()];
    let row = Row { base, anchor, experts: &[first, second] };
    let step = Weighing::Dynamic(config.clone()).weigh(row, &mut out).expect("finite scores");
    (step, out)
}

proptest! {
    #[test]
    fn fused_probabilities_sum_to_one_and_the_report_tells_how_far_they_moved(scores in scores()) {
        for targets in [Targets::Mean, Targets::Own] {
            let (step, fused) = weigh(&DynamicConfig { targets, ..Default::default() }, &scores);
            let fused: Vec<f64> = fused.into_iter().map(f64::from).collect();
            let sum: f64 = fused.iter().map(|log_prob| log_prob.exp()).sum();
            // Log-probabilities of size 30 are rounded to 2e-6 in f32, and likely ones to 6e-8.
            prop_assert!((sum - 1.0).abs() < 1e-6, "{sum}");
            let wide: Vec<f64> = scores[0].iter().map(|&score| f64::from(score)).collect();
            let p = reference::log_softmax(&wide);
            prop_assert!((reference::kl(&fused, &p) - step.forward).abs() < 1e-5 * (1.0 + step.forward));
            prop_assert!((reference::kl(&p, &fused) - step.reverse).abs() < 1e-5 * (1.0 + step.reverse));
        }
    }

    #[test]
    fn constants_on_any_model_change_nothing(
        scores in scores(),
        constants in [-8i32..8, -8..8, -8..8, -8..8],
    ) {
        let mut moved = scores.clone();
        for (scores, &constant) in moved.iter_mut().zip(&constants) {
            scores.iter_mut().for_each(|score| *score += constant as f32);
        }
        let config = DynamicConfig { search: Search::Grid, ..Default::default() };
        let [(before, fused), (after, other)] = [scores, moved].map(|scores| weigh(&config, &scores));
        prop_assert_eq!(before.weights, after.weights);
        for (one, other) in fused.iter().zip(&other) {
            // One rounding of a log-probability of up to 50.
            prop_assert!((one - other).abs() <= 4e-6);
        }
    }

    #[test]
    fn the_order_of_tokens_changes_nothing(scores in scores(), seed in 0u64..1000) {
        let size = scores[0].len();
        let key = |token: usize| Draws::new(seed).token(Purpose::Shuffle, 0, token as u64, 0, 0);
        let mut order: Vec<usize> = (0..size).collect();
        order.sort_by(|&i, &j| key(i).total_cmp(&key(j)));
        let permute = |scores: Vec<f32>| order.iter().map(|&token| scores[token]).collect::<Vec<_>>();
        let permuted = scores.clone().map(permute);
        let config = DynamicConfig { search: Search::Grid, ..Default::default() };
        let [(before, fused), (after, other)] = [scores, permuted].map(|scores| weigh(&config, &scores));
        prop_assert_eq!(before.weights, after.weights);
        for (place, &token) in order.iter().enumerate() {
            prop_assert!((fused[token] - other[place]).abs() <= 4e-6);
        }
    }

    #[test]
    fn experts_equal_to_the_small_base_leave_the_large_one(scores in scores(), search in 0..3) {
        let search = [Search::PaperGrid, Search::Grid, Search::Refined][search as usize];
        let [base, anchor, ..] = scores;
        let config = DynamicConfig { search, ..Default::default() };
        let (step, fused) = weigh(&config, &[base.clone(), anchor.clone(), anchor.clone(), anchor]);
        prop_assert!(step.skipped);
        let wide: Vec<f64> = base.iter().map(|&score| f64::from(score)).collect();
        for (log_prob, expected) in fused.iter().zip(reference::log_softmax(&wide)) {
            prop_assert!((f64::from(*log_prob) - expected).abs() < 4e-6);
        }
    }

    #[test]
    fn the_summed_loss_is_that_of_the_mean_targets_and_a_constant(scores in scores(), alpha in 0.0..2.0) {
        let [base, anchor, first, second] = &scores;
        let tilts = Tilt::all(base, anchor, &[first, second]);
        let targets = || tilts.iter().map(Tilt::target);
        let mean = Movement::mean(targets());
        let spread: f64 = targets().map(|target| Objective::Both.loss(target, mean)).sum();
        for tilt in &tilts {
            let moved = tilt.moments(alpha).movement();
            let summed: f64 = targets().map(|target| Objective::Both.loss(moved, target)).sum();
            let by_mean = 2.0 * Objective::Both.loss(moved, mean) + spread;
            // Squares of distances: roundings of the largest of them.
            prop_assert!((summed - by_mean).abs() <= 1e-13 * (1.0 + summed));
        }
    }

    #[test]
    fn of_several_experts_the_one_with_the_least_loss_alone_is_applied(scores in scores()) {
        let [base, anchor, first, second] = &scores;
        let config = DynamicConfig { skip_below: NonNegative::literal(0.0), ..Default::default() };
        let (step, _) = weigh(&config, &scores);
        let chosen = step.expert.expect("one at a time");
        prop_assert_eq!(step.weights[1 - chosen], 0.0);
        // Neither expert comes nearer to the mean target at any candidate. Between two of them there can be a basin that
        // neither shows: on a finer grid this is no law.
        let target = Movement { forward: step.target_forward, reverse: step.target_reverse };
        for expert in [first, second] {
            for moved in Tilt::new(base, anchor, expert).grid(0.0, 0.1, 21) {
                let loss = Objective::Both.loss(moved, target);
                prop_assert!(step.loss <= loss * (1.0 + 1e-9) + 1e-14, "{} {}", step.loss, loss);
            }
        }
    }

    #[test]
    fn bounds_of_an_expert_hold(scores in scores(), lower in 0.1..0.9, length in 0.0..0.9) {
        let bounds = align_fusion::Bounds {
            lower: NonNegative::try_from(lower).unwrap(),
            upper: NonNegative::try_from(lower + length).unwrap(),
        };
        for search in [Search::PaperGrid, Search::Grid, Search::Refined] {
            let config = DynamicConfig { search, bounds: vec![bounds; 2], ..Default::default() };
            let (step, _) = weigh(&config, &scores);
            let weight = step.weights[step.expert.expect("one at a time")];
            prop_assert!(weight >= bounds.lower.get() && weight <= bounds.upper.get());
        }
    }
}

#[test]
fn every_number_of_the_search_changes_something() {
    let case = case(&Draws::new(5), 0);
    let default = case.weigh(DynamicConfig::default()).0;
    let changed = |json: &str| {
        let config: DynamicConfig = serde_json::from_str(json).expect("a valid configuration");
        case.weigh(config).0
    };
    for json in [
        r#"{ "lower": 1.9 }"#,
        r#"{ "upper": 0.1 }"#,
        r#"{ "search": "grid" }"#,
        r#"{ "objective": "forward" }"#,
        r#"{ "objective": "reverse" }"#,
        r#"{ "objective": "jeffreys" }"#,
        r#"{ "skip_below": 1000 }"#,
        r#"{ "bounds": [{ "lower": 0, "upper": 0.1 }] }"#,
    ] {
        assert_ne!(changed(json), default, "{json}");
    }
    assert_ne!(changed(r#"{ "search": "grid", "step": 0.3 }"#), changed(r#"{ "search": "grid" }"#));
    for json in [
        r#"{ "lower": -0.1 }"#,
        r#"{ "upper": -1 }"#,
        r#"{ "step": 0 }"#,
        r#"{ "skip_below": -1 }"#,
        r#"{ "search": "best" }"#,
        r#"{ "stepp": 0.1 }"#,
        r#"{ "bounds": [{ "lower": 0 }] }"#,
    ] {
        assert!(serde_json::from_str::<DynamicConfig>(json).is_err(), "{json}");
    }
}

#[test]
fn weighings_that_do_not_fit_are_refused() {
    let refused = |json: &str, experts: usize| {
        let weighing: Weighing = serde_json::from_str(json).expect("a valid weighing");
        weighing.check(experts).expect_err(json).to_string()
    };
    for (json, experts, words) in [
        (r#"{ "kind": "dynamic" }"#, 0, "at least one expert"),
        (r#"{ "kind": "static", "weights": [1] }"#, 2, "each of 2 experts, found 1"),
        (r#"{ "kind": "dynamic", "lower": 1, "upper": 0.5 }"#, 1, "between 1 and 0.5"),
        (r#"{ "kind": "dynamic", "bounds": [{ "lower": 0, "upper": 1 }] }"#, 2, "each of 2 experts, found 1"),
        (r#"{ "kind": "dynamic", "step": 1e-7 }"#, 1, "20000001 candidates"),
        (r#"{ "kind": "dynamic", "step": 1e-3, "experts": "joint" }"#, 2, "4004001 candidates"),
        (r#"{ "kind": "dynamic", "experts": "joint" }"#, 3, "two experts, found 3"),
        (r#"{ "kind": "dynamic", "experts": "joint", "targets": "own" }"#, 2, "one_at_a_time"),
        (r#"{ "kind": "dynamic", "experts": "joint", "objective": "forward" }"#, 2, "both"),
    ] {
        let message = refused(json, experts);
        assert!(message.contains(words), "{message}");
    }
    let not_finite = Weighing::Static { weights: vec![1.0, f64::NAN] };
    assert!(not_finite.check(2).unwrap_err().to_string().contains("expert 1 is NaN"));
    assert!(
        serde_json::from_str::<Weighing>(r#"{ "kind": "static", "weights": [1], "search": "grid" }"#)
            .is_err()
    );
    assert!(serde_json::from_str::<Weighing>(r#"{ "kind": "dynamic", "weights": [1] }"#).is_err());
}

#[test]
fn a_weighing_survives_a_round_trip() {
    for weighing in [Weighing::default(), Weighing::Static { weights: vec![1.0, -0.5] }] {
        let json = serde_json::to_string(&weighing).expect("serialised");
        assert_eq!(serde_json::from_str::<Weighing>(&json).expect("read"), weighing, "{json}");
    }
}
