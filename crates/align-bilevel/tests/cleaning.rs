//! Cleaning preference data: gradients, the experiment with its controls, modules, bad input.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use align_bilevel::alignment::{
    CleanConfig, Cleaned, Cleaning, CleaningWarning, ExampleSet, Examples, FitConfig, LinearPairs,
    LinearWorld, LinearWorldConfig, Weights, auc, check_split, clean, detection, effective_sample_size,
    filter_by_confidence, fit, flip_share,
};
use align_bilevel::{
    BilevelError, DoubleLoop, Level, Oracle, Point, Problem, Sample, Schedule, Solver, log_log_slope, run,
};
use align_testkit::{assert_all_close, assert_close};
use proptest::prelude::*;

/// Values printed with ten digits.
const PRINTED: f64 = 1e-9;
const RIDGE: f64 = 0.01;

fn cleaning<E: Examples>(examples: E, weights: Weights) -> Cleaning<E> {
    Cleaning::new(examples, weights, RIDGE.try_into().unwrap()).unwrap()
}

fn go(_: &align_bilevel::Step, _: &[f64]) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn the_weight_gradient_is_the_known_one() {
    let rows = [vec![1.0, 0.5], vec![-0.3, 0.8], vec![0.2, -1.1]];
    let pairs = LinearPairs::new(&rows, &[vec![1.0, 1.0]]).unwrap();
    let (x, y, z) = (vec![0.0, 1.0, -2.0], vec![0.4, -0.2], vec![0.9, 0.3]);
    let all = [0, 1, 2];
    let losses = [&y, &z].map(|y| pairs.losses(y, ExampleSet::Training, &all));
    assert_close(&losses[0], [0.5543552445, 0.8429153336, 0.5543552445], PRINTED);
    assert_close(&losses[1], [0.3000584796, 0.7082596763, 0.7709570478], PRINTED);
    let problem = cleaning(pairs, Weights::per_example(3));
    let mut gradient = problem.lower_difference_x(&x, &y, &z, &Sample::full());
    gradient.scale(1.0 / 0.1);
    assert_close(gradient, [0.2119139707, 0.0882496970, -0.0758059998], PRINTED);
    let lower = problem.gradient_y(Level::Lower, &x, &y, &Sample::full());
    assert_close(lower, [-0.0286709283, -0.1298954094], PRINTED);
}

fn differences(at: &[f64], value: impl Fn(&Vec<f64>) -> f64) -> Vec<f64> {
    let step = 1e-5; // truncation about 1e-10, rounding about 1e-11
    let moved = |i: usize, by: f64| {
        let mut at = at.to_vec();
        at[i] += by;
        value(&at)
    };
    (0..at.len()).map(|i| (moved(i, step) - moved(i, -step)) / (2.0 * step)).collect()
}

fn small_world() -> LinearWorld {
    LinearWorldConfig { features: 3, training: 7, trusted: 5, test: 1, ..LinearWorldConfig::default() }.draw()
}

#[test]
fn gradients_of_examples_and_of_sources_agree_with_differences() {
    let world = small_world();
    let sources = Weights::per_source(vec![0, 1, 1, 2, 0, 1, 1]).unwrap();
    for (weights, x) in [
        (Weights::per_example(7), vec![0.0, 1.0, -2.0, 0.5, 3.0, -0.3, 0.8]),
        (sources, vec![0.4, -0.7, 1.1]),
    ] {
        let pairs = LinearPairs::new(&world.training, &world.trusted).unwrap();
        let problem = cleaning(pairs, weights);
        let (y, z) = (vec![0.3, -0.6, 0.9], vec![0.5, 0.1, -0.2]);
        for sample in [Sample::full(), Sample::of(vec![0, 2, 4])] {
            for level in [Level::Upper, Level::Lower] {
                let by_x = differences(&x, |x| problem.value(level, x, &y, &sample));
                assert_all_close(problem.gradient_x(level, &x, &y, &sample), by_x, 1e-8, 1e-8);
                let by_y = differences(&y, |y| problem.value(level, &x, y, &sample));
                assert_all_close(problem.gradient_y(level, &x, &y, &sample), by_y, 1e-8, 1e-8);
            }
            let mut apart = problem.gradient_y(Level::Lower, &x, &y, &sample);
            apart.add_scaled(0.3, &problem.gradient_y(Level::Upper, &x, &y, &sample));
            assert_close(problem.perturbed_gradient_y(0.3, &x, &y, &sample, &sample), apart, 1e-15);
            let at = |y| problem.gradient_x(Level::Lower, &x, y, &sample);
            assert_close(problem.lower_difference_x(&x, &y, &z, &sample), at(&y).minus(&at(&z)), 1e-15);
        }
    }
}

#[test]
fn batches_of_every_row_average_to_the_whole() {
    let world = small_world();
    let sources = Weights::per_source(vec![0, 1, 1, 2, 0, 1, 1]).unwrap();
    let problem = cleaning(LinearPairs::new(&world.training, &world.trusted).unwrap(), sources);
    let (x, y) = (vec![0.4, -0.7, 1.1], vec![0.3, -0.6, 0.9]);
    let mut mean = [0.0; 3].to_vec();
    for row in 0..7 {
        mean.add_scaled(1.0 / 7.0, &problem.gradient_x(Level::Lower, &x, &y, &Sample::of(vec![row])));
    }
    assert_close(mean, problem.gradient_x(Level::Lower, &x, &y, &Sample::full()), 1e-15);
}

#[test]
fn sources_start_as_they_are_and_weigh_one_on_average() {
    let weights = Weights::per_source(vec![0, 1, 1, 1]).unwrap();
    assert_close(weights.all(&weights.start()), [1.0; 4], 1e-15);
    let x = [2.0, -1.0];
    assert_close([weights.all(&x).iter().sum::<f64>()], [4.0], 1e-14);
    assert_close(weights.shares(&weights.start()), [0.25, 0.75], 1e-15);
    assert_eq!(weights.largest(), 4.0);
    assert_close(Weights::per_example(2).all(&[0.0, 800.0]), [0.5, 1.0], 0.0);
}

#[test]
fn the_hyper_gradient_tends_to_that_of_the_implicit_formula() {
    let world = LinearWorldConfig::default().draw();
    let pairs = LinearPairs::new(&world.training, &world.trusted).unwrap();
    let x = vec![0.0; 400];
    let exact = implicit_gradient(&world, &x);
    let problem = cleaning(pairs, Weights::per_example(400));
    let z = minimise(&problem, &x, 0.0);
    let sigmas = [0.1, 0.01, 0.001, 0.0001];
    let gradients = sigmas.map(|sigma| {
        let y = minimise(&problem, &x, sigma);
        let mut gradient = problem.lower_difference_x(&x, &y, &z, &Sample::full());
        gradient.scale(1.0 / sigma);
        gradient
    });
    let errors = gradients.clone().map(|gradient| gradient.distance(&exact) / exact.norm());
    let cosine = gradients[0].dot(&exact) / (gradients[0].norm() * exact.norm());
    let points: Vec<(f64, f64)> = sigmas.into_iter().zip(errors).collect();
    let slope = log_log_slope(&points);
    println!("relative errors {errors:?}, slope {slope:.4}, cosine at 0.1 {cosine:.5}");
    assert!((0.9..=1.1).contains(&slope));
    assert!(cosine > 0.99);
    assert!(
        (0.07..0.3).contains(&errors[0]) && errors[3] < 4e-4,
        "the order of 0.145 and 0.00018, of another draw of the world"
    );
}

/// The minimiser of σ f + g, by gradient descent to 1e-13.
fn minimise(problem: &Cleaning<LinearPairs>, x: &Vec<f64>, sigma: f64) -> Vec<f64> {
    let smoothness = problem.smoothness().unwrap();
    let step = 1.0 / smoothness.of_penalised(sigma);
    let full = Sample::full();
    let mut y = vec![0.0; 20];
    for _ in 0..20_000 {
        let gradient = problem.perturbed_gradient_y(sigma, x, &y, &full, &full);
        if gradient.norm() < 1e-13 {
            break;
        }
        y.add_scaled(-step, &gradient);
    }
    y
}

/// `−∂ₓ∂ᵧg · H⁻¹ ∇ᵧf` at the lower solution, with the Hessian written out and Gaussian elimination.
fn implicit_gradient(world: &LinearWorld, x: &Vec<f64>) -> Vec<f64> {
    let pairs = LinearPairs::new(&world.training, &world.trusted).unwrap();
    let problem = cleaning(pairs, Weights::per_example(x.len()));
    let z = minimise(&problem, x, 0.0);
    let sigmoid = |r: f64| 1.0 / (1.0 + (-r).exp());
    let (n, d) = (x.len(), z.len());
    let mut system = vec![vec![0.0; d + 1]; d];
    for (i, row) in system.iter_mut().enumerate() {
        row[i] = RIDGE;
        row[d] = problem.gradient_y(Level::Upper, x, &z, &Sample::full())[i];
    }
    for (w, phi) in x.iter().zip(&world.training) {
        let p = sigmoid(phi.dot(&z));
        let weight = sigmoid(*w) * p * (1.0 - p) / n as f64;
        for i in 0..d {
            for j in 0..d {
                system[i][j] += weight * phi[i] * phi[j];
            }
        }
    }
    let v = solve(system);
    let row = |(w, phi): (&f64, &Vec<f64>)| {
        let s = sigmoid(*w);
        // ∂ᵧ of s′ ℓ/n is −s′ σ(−r) φ/n.
        s * (1.0 - s) / n as f64 * sigmoid(-phi.dot(&z)) * phi.dot(&v)
    };
    x.iter().zip(&world.training).map(row).collect()
}

/// Gaussian elimination of `[A | b]` for a positive definite A.
fn solve(mut system: Vec<Vec<f64>>) -> Vec<f64> {
    let d = system.len();
    for pivot in 0..d {
        let (done, below) = system.split_at_mut(pivot + 1);
        for row in below {
            let factor = row[pivot] / done[pivot][pivot];
            row.iter_mut().zip(&done[pivot]).for_each(|(entry, above)| *entry -= factor * above);
        }
    }
    let mut v = vec![0.0; d];
    for row in (0..d).rev() {
        let known: f64 = (row + 1..d).map(|column| system[row][column] * v[column]).sum();
        v[row] = (system[row][d] - known) / system[row][row];
    }
    v
}

/// The setting of the experiment: σ 0.1 throughout, ten full inner steps of 1, forty outer steps of 0.75 n.
fn experiment() -> CleanConfig {
    CleanConfig {
        sigma: Schedule::constant(0.1),
        inner_step: Some(1.0.try_into().unwrap()),
        ..CleanConfig::default()
    }
}

fn problem_of(world: &LinearWorld) -> Cleaning<LinearPairs> {
    let pairs = LinearPairs::new(&world.training, &world.trusted).unwrap();
    let count = pairs.count(ExampleSet::Training);
    cleaning(pairs, Weights::per_example(count))
}

fn cleaned(world: &LinearWorld) -> Cleaned<Vec<f64>> {
    clean(&problem_of(world), vec![0.0; world.theta.len()], &experiment(), go).unwrap()
}

/// Accuracy and NLL on the test pairs after a fit.
fn refit(world: &LinearWorld, set: ExampleSet, weights: &[f64]) -> [f64; 2] {
    let pairs = LinearPairs::new(&world.training, &world.trusted).unwrap();
    let scores = LinearPairs::evaluate(&world.test, &pairs.fit(set, weights, RIDGE).unwrap());
    [scores.accuracy, scores.loss]
}

const SEEDS: u64 = 10;

fn worlds(config: LinearWorldConfig) -> impl Iterator<Item = LinearWorld> {
    (0..SEEDS).map(move |seed| LinearWorldConfig { seed, ..config.clone() }.draw())
}

fn flipped(share: f64) -> LinearWorldConfig {
    LinearWorldConfig { flipped: share.try_into().unwrap(), ..LinearWorldConfig::default() }
}

fn mean<const N: usize>(rows: &[[f64; N]]) -> [f64; N] {
    std::array::from_fn(|column| rows.iter().map(|row| row[column]).sum::<f64>() / rows.len() as f64)
}

#[test]
fn with_a_quarter_of_the_labels_flipped_cleaning_beats_every_baseline_that_does_not_know_them() {
    let mut rows = Vec::new();
    let mut detections = Vec::new();
    for world in worlds(flipped(0.25)) {
        let found = cleaned(&world);
        let pairs = LinearPairs::new(&world.training, &world.trusted).unwrap();
        let start = vec![0.0; 20];
        let fits = FitConfig { ridge: RIDGE.try_into().unwrap(), ..FitConfig::default() };
        let filtered = filter_by_confidence(&pairs, 0.25.try_into().unwrap(), start, &fits).unwrap();
        let truth: Vec<f64> = world.flips.mask.iter().map(|&flip| f64::from(u8::from(!flip))).collect();
        let pooled = {
            let both = [world.training.clone(), world.trusted.clone()].concat();
            let pairs = LinearPairs::new(&both, &world.trusted).unwrap();
            let y = pairs.fit(ExampleSet::Training, &vec![1.0; both.len()], RIDGE).unwrap();
            LinearPairs::evaluate(&world.test, &y)
        };
        rows.push(
            [
                refit(&world, ExampleSet::Training, &[1.0; 400]),
                refit(&world, ExampleSet::Trusted, &[1.0; 200]),
                [pooled.accuracy, pooled.loss],
                refit(&world, ExampleSet::Training, &filtered.weights()),
                refit(&world, ExampleSet::Training, &found.weights),
                refit(&world, ExampleSet::Training, &truth),
            ]
            .concat(),
        );
        let area = auc(&found.weights, &world.flips.mask).unwrap();
        detections.push([area, detection(&found.weights, &world.flips.mask, 0.5).f1]);
        assert!(found.warnings.is_empty(), "{:?}", found.warnings);
        assert_eq!(found.calls.total(), 3 * 10 * (10 + 39) + 3 * 40, "a warm-up of 100 steps, then 10 each");
    }
    let rows: Vec<[f64; 12]> = rows.into_iter().map(|row| row.try_into().unwrap()).collect();
    let means = mean(&rows);
    for (name, row) in
        ["all", "trusted", "pooled", "confidence", "cleaned", "oracle"].iter().zip(means.chunks(2))
    {
        println!("{name:>10}: accuracy {:.4}, NLL {:.4}", row[0], row[1]);
    }
    let [area, f1] = mean(&detections);
    let worst = detections.iter().map(|row| row[0]).fold(1.0, f64::min);
    println!("AUC {area:.4} (least {worst:.4}), F1 {f1:.4}");
    let [all, all_nll, _, trusted_nll, .., ours, ours_nll, oracle, oracle_nll] = means;
    assert!(ours - all >= 0.025, "accuracy {all} to {ours}");
    assert!(
        ours_nll <= 0.85 * all_nll && ours_nll <= trusted_nll,
        "NLL {all_nll}, {trusted_nll}, {ours_nll}"
    );
    assert!(area >= 0.78 && f1 >= 0.78, "AUC {area}, F1 {f1}");
    assert!(oracle >= ours && oracle_nll <= ours_nll, "knowing the flips is better still");
    assert!(ours_nll < means[7], "better than filtering by confidence");
}

#[test]
fn clean_data_lose_little_and_other_rates_of_corruption_gain() {
    // Shares of flips with the NLL before and after, as an independent implementation found them.
    for (share, before, after) in [(0.0, 0.380, 0.396), (0.1, 0.426, 0.400), (0.4, 0.644, 0.406)] {
        let losses: Vec<[f64; 2]> = worlds(flipped(share))
            .map(|world| {
                let unweighted = refit(&world, ExampleSet::Training, &[1.0; 400])[1];
                [unweighted, refit(&world, ExampleSet::Training, &cleaned(&world).weights)[1]]
            })
            .collect();
        let means = mean(&losses);
        println!("{share} flipped: NLL {:.4} to {:.4}", means[0], means[1]);
        // Ten other draws of the world: a standard error of about 0.01 each.
        assert_close(means, [before, after], 0.03);
        match share {
            0.0 => assert!(means[1] - means[0] <= 0.03, "{means:?}"),
            _ => assert!(means[1] < means[0] - 0.01, "{means:?}"),
        }
    }
}

#[test]
fn trusted_labels_at_random_make_the_weights_worthless() {
    let results: Vec<[f64; 2]> = worlds(flipped(0.25))
        .enumerate()
        .map(|(seed, mut world)| {
            flip_share(200, 0.5.try_into().unwrap(), 1000 + seed as u64).apply(&mut world.trusted);
            let weights = cleaned(&world).weights;
            [refit(&world, ExampleSet::Training, &weights)[0], auc(&weights, &world.flips.mask).unwrap()]
        })
        .collect();
    let [accuracy, area] = mean(&results);
    println!("random trusted labels: accuracy {accuracy:.4}, AUC {area:.4}");
    assert!((accuracy - 0.5).abs() <= 0.05);
    assert!(area < 0.4);
}

/// The same problem with the outer step in the wrong direction.
struct Backwards(Cleaning<LinearPairs>);

impl Problem for Backwards {
    type X = Vec<f64>;
    type Y = Vec<f64>;

    fn value(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, sample: &Sample) -> f64 {
        self.0.value(level, x, y, sample)
    }
    fn gradient_x(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, sample: &Sample) -> Vec<f64> {
        self.0.gradient_x(level, x, y, sample).into_iter().map(|g| -g).collect()
    }
    fn gradient_y(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, sample: &Sample) -> Vec<f64> {
        self.0.gradient_y(level, x, y, sample)
    }
}

#[test]
fn an_outer_step_of_the_wrong_sign_finds_the_wrong_pairs() {
    let areas: Vec<[f64; 1]> = worlds(flipped(0.25))
        .map(|world| {
            let problem = problem_of(&world);
            let settings = experiment().solver(&problem);
            let problem = Backwards(problem);
            let mut solver =
                DoubleLoop::new(settings, &problem, vec![0.0; 400], vec![0.0; 20], vec![0.0; 20]).unwrap();
            run(&mut solver, &Oracle::new(&problem), 40, |_, _, _| ControlFlow::Continue(())).unwrap();
            [auc(Solver::<Backwards>::x(&solver), &world.flips.mask).unwrap()]
        })
        .collect();
    println!("wrong sign: AUC {:.4}", mean(&areas)[0]);
    assert!(mean(&areas)[0] < 0.4);
}

#[test]
fn the_defaults_clean_too_and_each_setting_matters() {
    let world = LinearWorldConfig::default().draw();
    let problem = problem_of(&world);
    let base = CleanConfig::default();
    let weights = |config: &CleanConfig| clean(&problem, vec![0.0; 20], config, go).unwrap().weights;
    let found = weights(&base);
    let area = auc(&found, &world.flips.mask).unwrap();
    println!("defaults: AUC {area:.4}");
    assert!(area > 0.78);
    assert_eq!(found, weights(&base), "the same seed, the same run");
    let batch = std::num::NonZeroUsize::new(64);
    for other in [
        experiment(),
        CleanConfig { outer_steps: 20, ..base.clone() },
        CleanConfig { outer_step: 0.5.try_into().unwrap(), ..base.clone() },
        CleanConfig { inner_steps: 5.try_into().unwrap(), ..base.clone() },
        CleanConfig { inner_step: Some(0.3.try_into().unwrap()), ..base.clone() },
        CleanConfig { rho: Some(1.0.try_into().unwrap()), ..base.clone() },
        CleanConfig { batch, ..base.clone() },
        CleanConfig { outer_batch: batch, ..base.clone() },
    ] {
        assert_ne!(weights(&other), found, "{other:?}");
    }
    let batched = |seed| weights(&CleanConfig { batch, seed, ..base.clone() });
    assert_ne!(batched(0), batched(1));
    let json = serde_json::to_string(&base).unwrap();
    assert_eq!(serde_json::from_str::<CleanConfig>(&json).unwrap(), base);
    assert!(serde_json::from_str::<CleanConfig>(r#"{"outer_stesp": 3}"#).is_err());
}

#[test]
fn a_run_may_be_watched_and_ended() {
    let world = LinearWorldConfig::default().draw();
    let problem = problem_of(&world);
    let mut seen = Vec::new();
    let found = clean(&problem, vec![0.0; 20], &experiment(), |step, logits| {
        seen.push((step.iteration, logits[0]));
        if step.iteration == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap();
    assert_eq!(seen.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(found.logits[0], seen[4].1);
    assert_eq!(found.last.iteration, 4);
}

#[test]
fn a_corrupted_source_loses_its_share() {
    let mut world =
        LinearWorldConfig { flipped: 0.0.try_into().unwrap(), ..LinearWorldConfig::default() }.draw();
    // The second of three sources labels at random.
    let source: Vec<usize> = (0..400).map(|row| row % 3).collect();
    let noise = flip_share(400, 0.5.try_into().unwrap(), 5);
    for (row, x) in world.training.iter_mut().enumerate().filter(|(row, _)| source[*row] == 1) {
        if noise.mask[row] {
            x.iter_mut().for_each(|x| *x = -*x);
        }
    }
    let pairs = LinearPairs::new(&world.training, &world.trusted).unwrap();
    let problem = cleaning(pairs, Weights::per_source(source).unwrap());
    let found = clean(&problem, vec![0.0; 20], &CleanConfig::default(), go).unwrap();
    println!("shares of the sources {:?}", found.shares);
    assert!(found.shares[1] < 0.1, "{:?}", found.shares);
    assert_close([found.shares.iter().sum::<f64>()], [1.0], 1e-14);
}

#[test]
fn a_small_trusted_set_is_warned_of() {
    let world = LinearWorldConfig { trusted: 50, ..LinearWorldConfig::default() }.draw();
    let found = cleaned(&world);
    let warning = CleaningWarning::FewTrusted { trusted: 50, parameters: 20 };
    assert_eq!(found.warnings, std::slice::from_ref(&warning));
    assert!(warning.to_string().contains("50 trusted examples for 20 parameters"));
    // A step beyond what the curvature allows.
    let config = CleanConfig { inner_step: Some(5.0.try_into().unwrap()), outer_steps: 1, ..experiment() };
    let world = LinearWorldConfig::default().draw();
    let found = clean(&problem_of(&world), vec![0.0; 20], &config, go).unwrap();
    assert!(matches!(found.warnings[..], [CleaningWarning::Solver { .. }]), "{:?}", found.warnings);
}

#[test]
fn weights_that_leave_nearly_nothing_are_warned_of() {
    // One pair agrees with the trusted one and forty contradict it.
    let training: Vec<Vec<f64>> = (0..41).map(|row| vec![if row == 0 { 1.0 } else { -1.0 }]).collect();
    let pairs = LinearPairs::new(&training, &vec![vec![1.0]; 5]).unwrap();
    let config =
        CleanConfig { outer_steps: 400, outer_step: 5.0.try_into().unwrap(), ..CleanConfig::default() };
    let found = clean(&cleaning(pairs, Weights::per_example(41)), vec![0.0], &config, go).unwrap();
    let effective = found.effective_sample_size;
    assert!(effective < 0.05 * 41.0, "{effective}");
    assert_eq!(found.warnings, [CleaningWarning::FewEffective { effective, examples: 41 }]);
}

#[test]
fn bad_input_is_refused_with_its_numbers() {
    let world = small_world();
    let pairs = || LinearPairs::new(&world.training, &world.trusted).unwrap();
    let error = Cleaning::new(pairs(), Weights::per_example(7), 0.0.try_into().unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "UnboundedLowerLevel: ridge C = 0: set C > 0 or bound Y");
    assert_eq!(
        Cleaning::new(pairs(), Weights::per_example(6), RIDGE.try_into().unwrap()).unwrap_err(),
        BilevelError::ShapeMismatch { which: "the weighted examples", expected: 7, found: 6 }
    );
    let invalid = |error: BilevelError| match error {
        BilevelError::InvalidSplit { detail } => detail,
        other => panic!("{other}"),
    };
    assert_eq!(
        invalid(LinearPairs::new(&world.training, &[]).unwrap_err()),
        "7 training and 0 trusted pairs"
    );
    assert_eq!(invalid(Weights::per_source(vec![0, 2]).unwrap_err()), "source 1 of 3 has no example");
    assert_eq!(invalid(check_split::<u32>(&[1], &[]).unwrap_err()), "1 training and 0 trusted examples");
    assert_eq!(
        invalid(check_split(&["a", "b", "c"], &["d", "b", "a"]).unwrap_err()),
        "2 of 3 trusted examples are trained on, the first are [\"b\", \"a\"]"
    );
    assert!(check_split(&[1, 2], &[3]).is_ok());
    let ragged = LinearPairs::new(&[vec![1.0, 2.0], vec![1.0]], &[vec![1.0, 2.0]]).unwrap_err();
    assert_eq!(ragged, BilevelError::ShapeMismatch { which: "a pair's features", expected: 2, found: 1 });
    for ridge in [0.0, f64::NAN] {
        let error = pairs().fit(ExampleSet::Training, &[1.0; 7], ridge).unwrap_err();
        assert!(matches!(error, BilevelError::UnboundedLowerLevel { .. }), "{error}");
    }
    let short = pairs().fit(ExampleSet::Trusted, &[1.0; 7], RIDGE).unwrap_err();
    assert_eq!(short, BilevelError::ShapeMismatch { which: "weights", expected: 5, found: 7 });
    let broken = LinearPairs::new(&[vec![f64::INFINITY]], &[vec![1.0]]).unwrap();
    let error = broken.fit(ExampleSet::Training, &[1.0], RIDGE).unwrap_err();
    assert!(matches!(error, BilevelError::NonFinite { .. }), "{error}");
    let problem = cleaning(pairs(), Weights::per_example(7));
    let config = CleanConfig { batch: std::num::NonZeroUsize::new(8), ..CleanConfig::default() };
    let error = clean(&problem, vec![0.0; 3], &config, go).unwrap_err();
    assert!(matches!(error, BilevelError::InvalidCount { most: 7, found: 8, .. }), "{error}");
    let fits = FitConfig { batch: std::num::NonZeroUsize::new(8), ..FitConfig::default() };
    let error = fit(&pairs(), ExampleSet::Training, &[1.0; 7], vec![0.0; 3], &fits).unwrap_err();
    assert!(matches!(error, BilevelError::InvalidCount { most: 7, found: 8, .. }), "{error}");
    let rows = [vec![f64::NAN, 0.0, 0.0]];
    let broken = cleaning(LinearPairs::new(&rows, &world.trusted).unwrap(), Weights::per_example(1));
    let error = clean(&broken, vec![0.0; 3], &CleanConfig::default(), go).unwrap_err();
    assert!(matches!(error, BilevelError::NonFinite { outer: 0, inner: 0, .. }), "{error}");
}

#[test]
fn a_fit_is_stationary_wherever_its_weights_put_it() {
    let world = LinearWorldConfig::default().draw();
    let pairs = LinearPairs::new(&world.training, &world.trusted).unwrap();
    for (x, ridge) in [(0.0, 0.01), (-8.0, 0.01), (30.0, 1e-6)] {
        let problem =
            Cleaning::new(pairs.clone(), Weights::per_example(400), ridge.try_into().unwrap()).unwrap();
        let logits = vec![x; 400];
        let y = pairs.fit(ExampleSet::Training, &problem.weights().all(&logits), ridge).unwrap();
        let gradient = problem.gradient_y(Level::Lower, &logits, &y, &Sample::full());
        assert!(gradient.norm() < 1e-10, "{} at x = {x}, C = {ridge}", gradient.norm());
    }
    // Separable pairs: the minimiser is far out, where the first Newton steps overshoot.
    let pairs = LinearPairs::new(&[vec![1.0], vec![20.0]], &[vec![1.0]]).unwrap();
    let y = pairs.fit(ExampleSet::Training, &[1.0, 1.0], 1e-9).unwrap();
    let slope = 1e-9 * y[0] - 0.5 / (1.0 + y[0].exp()) - 10.0 / (1.0 + (20.0 * y[0]).exp());
    assert!(y[0] > 10.0 && slope.abs() < 1e-12, "{y:?}, {slope}");
}

#[test]
fn a_share_of_flips_is_exact_and_drawn_once() {
    for (count, share, expected) in [(400, 0.25, 100), (10, 0.0, 0), (10, 1.0, 10), (7, 0.5, 4)] {
        let flips = flip_share(count, share.try_into().unwrap(), 3);
        assert_eq!(flips.mask.iter().filter(|&&flip| flip).count(), expected);
        assert_eq!(flips, flip_share(count, share.try_into().unwrap(), 3));
    }
    let half = |seed| flip_share(400, 0.5.try_into().unwrap(), seed);
    assert_ne!(half(3), half(4));
    let mut rows = vec![vec![1.0, -2.0]; 400];
    half(3).apply(&mut rows);
    half(3).apply(&mut rows);
    assert_eq!(rows, vec![vec![1.0, -2.0]; 400], "flipped twice is as before");
}

#[test]
fn detection_counts_what_it_says() {
    // Kept: rows 0, 1, 2; clean: rows 0, 1, 3.
    let found = detection(&[0.9, 0.8, 0.7, 0.1], &[false, false, true, false], 0.5);
    assert_close([found.precision, found.recall, found.f1], [2.0 / 3.0; 3], 1e-15);
    let nothing = detection(&[0.1], &[true], 0.5);
    assert_eq!([nothing.precision, nothing.recall, nothing.f1], [0.0; 3]);
    assert_eq!(effective_sample_size(&[1.0, 1.0, 0.0, 0.0]), 2.0);
    assert_eq!(effective_sample_size(&[0.0]), 0.0);
    assert_eq!(auc(&[1.0, 2.0], &[true, true]), None);
}

proptest! {
    /// The area by ranks equals the count over all pairs, and does not see monotone changes of the scores.
    #[test]
    fn auc_is_the_share_of_pairs_in_order(rows in proptest::collection::vec((0u8..6, any::<bool>()), 2..30)) {
        let scores: Vec<f64> = rows.iter().map(|(score, _)| f64::from(*score)).collect();
        let corrupted: Vec<bool> = rows.iter().map(|(_, corrupted)| *corrupted).collect();
        let (mut won, mut pairs) = (0.0, 0.0);
        for good in 0..rows.len() {
            for bad in 0..rows.len() {
                if !corrupted[good] && corrupted[bad] {
                    pairs += 1.0;
                    won += match scores[good].total_cmp(&scores[bad]) {
                        Ordering::Greater => 1.0,
                        Ordering::Equal => 0.5,
                        Ordering::Less => 0.0,
                    };
                }
            }
        }
        let found = auc(&scores, &corrupted);
        prop_assert_eq!(found, (pairs > 0.0).then(|| won / pairs));
        let exponential: Vec<f64> = scores.iter().map(|score| score.exp()).collect();
        prop_assert_eq!(auc(&exponential, &corrupted), found);
        let reversed: Vec<bool> = corrupted.iter().map(|corrupted| !corrupted).collect();
        if let (Some(one), Some(other)) = (found, auc(&scores, &reversed)) {
            prop_assert!((one + other - 1.0).abs() < 1e-12);
        }
    }
}
