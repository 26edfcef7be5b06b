//! What holds of the two algorithms on any problem: counts, resuming, knobs, and where they end.

use std::ops::ControlFlow;

use align_bilevel::problems::{Bilinear, ClosedForm, FiniteSum, Noisy, PlToy, Quadratic, Tied, TiedUniform};
use align_bilevel::{
    Constrained, Count, Difference, DoubleLoop, DoubleLoopConfig, ErrorBoundConfig, Iterate, LevelBatches,
    Oracle, Point, Problem, Schedule, Set, Sharing, SingleLoop, SingleLoopConfig, Smoothness, Solver,
    StepScale, Warning, error_bound, log_log_slope, run, stationarity,
};
use align_core::draws::{Draws, Purpose};
use align_testkit::assert_close;
use serde::{Serialize, de::DeserializeOwned};
use std::num::NonZeroUsize;

type Double = DoubleLoop<Vec<f64>, Vec<f64>>;
type Single = SingleLoop<Vec<f64>, Vec<f64>>;

fn steps<P: Problem, S: Solver<P>>(solver: &mut S, oracle: &Oracle<'_, P>, to: u64) {
    run(solver, oracle, to, |_, _, _| ControlFlow::Continue(())).unwrap();
}

/// Thirty terms below and eleven above that disagree.
fn sampled() -> FiniteSum {
    let number = |list, index| Draws::new(2).normal(Purpose::Synthesize, list, index);
    let curvatures = (0..30).map(|i| 1.0 + 0.1 * f64::from(i % 5)).collect();
    let slopes = (0..30).map(|i| 2.0 + 0.5 * number(0, i)).collect();
    FiniteSum::new(curvatures, slopes, (0..11).map(|j| 1.0 + number(1, j)).collect()).unwrap()
}

fn portable(config: DoubleLoopConfig) -> Double {
    DoubleLoop::new(config, &Quadratic::portable(), vec![1.0; 5], vec![0.0; 10], vec![0.0; 10]).unwrap()
}

/// Saved after ten of twenty steps and read again, a solver ends where the uninterrupted run does, to the last bit.
fn resumes<P: Problem, S: Solver<P> + Clone + Serialize + DeserializeOwned>(problem: &P, start: S) {
    let oracle = Oracle::new(problem);
    let mut whole = start.clone();
    steps(&mut whole, &oracle, 20);

    let before = Oracle::new(problem);
    let mut half = start;
    steps(&mut half, &before, 10);
    let saved = serde_json::to_string(&(half, before.calls())).unwrap();
    let (mut rest, calls): (S, _) = serde_json::from_str(&saved).unwrap();
    let after = Oracle::resumed(problem, calls);
    steps(&mut rest, &after, 20);

    assert_eq!(serde_json::to_string(&rest).unwrap(), serde_json::to_string(&whole).unwrap());
    assert_eq!(after.calls(), oracle.calls());
}

#[test]
fn a_saved_solver_goes_on_to_the_last_bit() {
    let exact = DoubleLoopConfig { outer_steps: 20, ..Default::default() };
    resumes(&Quadratic::portable(), portable(exact.clone()));

    let problem = Noisy::new(Quadratic::portable(), 0.1, NonZeroUsize::MIN, 4);
    let noisy = DoubleLoopConfig { beta: Schedule::constant(0.7), answer: Iterate::Random, ..exact };
    resumes(&problem, portable(noisy));
    let config = SingleLoopConfig { outer_steps: 20, seed: 3, ..Default::default() };
    let start =
        SingleLoop::new(config.clone(), &problem, vec![1.0; 5], vec![0.0; 10], vec![0.1; 10]).unwrap();
    resumes(&problem, start);

    let problem = sampled();
    let batch = LevelBatches::both(Count::constant(4));
    let config = SingleLoopConfig { batch, ..config };
    resumes(&problem, SingleLoop::new(config, &problem, vec![0.3], vec![0.0], vec![0.0]).unwrap());
    let config = DoubleLoopConfig {
        outer_steps: 20,
        inner_batch: batch,
        outer_batch: LevelBatches::both(Count::constant(8)),
        sharing: Sharing::Independent,
        inner_tolerance: Some(0.3),
        ..Default::default()
    };
    resumes(&problem, DoubleLoop::new(config, &problem, vec![0.3], vec![0.0], vec![0.0]).unwrap());
}

#[test]
fn calls_of_the_double_loop_follow_their_formula() {
    let problem = sampled();
    let inner_batch = LevelBatches { upper: Some(Count::constant(2)), lower: Some(Count::constant(3)) };
    let outer_batch = LevelBatches { upper: None, lower: Some(Count::constant(5)) };
    for (difference, sharing) in [
        (Difference::Forward, Sharing::Shared),
        (Difference::Forward, Sharing::Independent),
        (Difference::Central, Sharing::Shared),
    ] {
        let config = DoubleLoopConfig {
            difference,
            sharing,
            inner_batch,
            outer_batch,
            inner_steps: Count::constant(6),
            warm_up: 4,
            sigma: Schedule::constant(0.1),
            ..Default::default()
        };
        let mut solver = DoubleLoop::new(config, &problem, vec![0.3], vec![0.0], vec![0.0]).unwrap();
        let oracle = Oracle::new(&problem);
        steps(&mut solver, &oracle, 7);
        let (inner, outer) = (4 * 6 + 6 * 6, 7);
        let upper = if difference == Difference::Central { 2 } else { 1 };
        let calls = oracle.calls();
        assert_eq!((calls.upper_y, calls.lower_y), (upper * inner, 2 * inner));
        assert_eq!((calls.upper_x, calls.lower_x), (upper * outer, 2 * outer));
        assert_eq!(calls.values, 0);
        // All eleven upper terms in outer steps.
        assert_eq!(calls.terms, inner * (2 * upper + 3 * 2) + outer * (11 * upper + 5 * 2));
    }
}

#[test]
fn calls_of_the_single_loop_follow_theirs() {
    let problem = sampled();
    let counted = |eta| {
        let config =
            SingleLoopConfig { eta, batch: LevelBatches::both(Count::constant(4)), ..Default::default() };
        let mut solver = SingleLoop::new(config, &problem, vec![0.3], vec![0.0], vec![0.0]).unwrap();
        let oracle = Oracle::new(&problem);
        steps(&mut solver, &oracle, 9);
        assert_eq!(oracle.calls().terms, 4 * oracle.calls().total());
        oracle.calls().total()
    };
    assert_eq!(counted(Schedule::constant(0.5)), 6 + 8 * 12);
    assert_eq!(counted(Schedule::constant(1.0)), 9 * 6);
}

#[test]
fn counts_and_batches_may_grow() {
    let grown = Count::Power { value: 3, exponent: 0.5, offset: 4.0 };
    assert_eq!([0, 1, 12, 96].map(|k| grown.at(k, 0.1)), [3, 4, 6, 15]); // 3 √(1 + k/4), rounded up
    assert_eq!(Count::OverSigma { value: 2 }.at(0, 0.3), 7);

    let problem = sampled();
    let config = DoubleLoopConfig {
        sigma: Schedule::constant(0.25),
        inner_steps: Count::OverSigma { value: 2 },
        warm_up: 1,
        inner_batch: LevelBatches { upper: None, lower: Some(Count::constant(1)) },
        // Of eleven and thirty terms there are never more.
        outer_batch: LevelBatches::both(Count::Power { value: 10, exponent: 1.0, offset: 1.0 }),
        ..Default::default()
    };
    let mut solver = DoubleLoop::new(config, &problem, vec![0.3], vec![0.0], vec![0.0]).unwrap();
    let oracle = Oracle::new(&problem);
    steps(&mut solver, &oracle, 4);
    let inner = 4 * 8;
    assert_eq!(oracle.calls().lower_y, 2 * inner);
    let outer = [10 + 2 * 10, 11 + 2 * 20, 11 + 2 * 30, 11 + 2 * 30];
    assert_eq!(oracle.calls().terms, inner * (11 + 2) + outer.iter().sum::<u64>());
}

#[test]
fn every_knob_of_the_double_loop_turns_something() {
    let problem = sampled();
    let outcome = |config: DoubleLoopConfig| {
        let mut solver = DoubleLoop::new(config, &problem, vec![0.3], vec![0.0], vec![0.1]).unwrap();
        let oracle = Oracle::new(&problem);
        steps(&mut solver, &oracle, 12);
        (solver.answer().clone(), oracle.calls())
    };
    let base = DoubleLoopConfig {
        outer_steps: 12,
        inner_batch: LevelBatches::both(Count::constant(4)),
        outer_batch: LevelBatches::both(Count::constant(4)),
        ..Default::default()
    };
    let first = outcome(base.clone());
    assert_eq!(outcome(base.clone()), first, "a seed gives one run");
    let changed = |change: fn(&mut DoubleLoopConfig)| {
        let mut config = base.clone();
        change(&mut config);
        config
    };
    for config in [
        changed(|c| c.outer_steps = 40),
        changed(|c| c.sigma = Schedule::constant(0.1)),
        changed(|c| c.difference = Difference::Central),
        changed(|c| c.rho = 0.5),
        changed(|c| c.inner_steps = Count::constant(9)),
        changed(|c| c.warm_up = 1),
        changed(|c| c.inner_tolerance = Some(1.0)),
        changed(|c| c.gamma = Schedule::constant(0.05)),
        changed(|c| c.beta = Schedule::constant(0.5)),
        changed(|c| c.alpha = Schedule::constant(0.05)),
        changed(|c| c.step_scale = StepScale::OnDifference),
        changed(|c| c.inner_batch.upper = None),
        changed(|c| c.inner_batch.lower = Some(Count::constant(5))),
        changed(|c| c.outer_batch.lower = None),
        changed(|c| c.sharing = Sharing::Independent),
        changed(|c| c.answer = Iterate::Random),
        changed(|c| c.seed = 1),
    ] {
        assert_ne!(outcome(config.clone()), first, "{config:?}");
    }
    // f has no gradient in x here, so its outer sample changes the terms counted and nothing else.
    let upper = outcome(changed(|c| c.outer_batch.upper = None));
    assert_eq!(upper.0, first.0);
    assert_ne!(upper.1.terms, first.1.terms);
}

#[test]
fn every_knob_of_the_single_loop_turns_something() {
    let problem = sampled();
    let outcome = |config: SingleLoopConfig| {
        let mut solver = SingleLoop::new(config, &problem, vec![0.3], vec![0.0], vec![0.1]).unwrap();
        steps(&mut solver, &Oracle::new(&problem), 12);
        Solver::<FiniteSum>::x(&solver).clone()
    };
    let base = SingleLoopConfig {
        outer_steps: 12,
        sigma: Schedule::Geometric { first: 1.0, last: 0.3, share: 0.5 },
        batch: LevelBatches::both(Count::constant(4)),
        ..Default::default()
    };
    let first = outcome(base.clone());
    let changed = |change: fn(&mut SingleLoopConfig)| {
        let mut config = base.clone();
        change(&mut config);
        config
    };
    for config in [
        changed(|c| c.outer_steps = 40),
        changed(|c| c.sigma = Schedule::constant(1.0)),
        changed(|c| c.rho = 0.5),
        changed(|c| c.gamma = Schedule::constant(0.05)),
        changed(|c| c.beta = Schedule::constant(0.5)),
        changed(|c| c.alpha = Schedule::constant(0.01)),
        changed(|c| c.step_scale = StepScale::OnHyperGradient),
        changed(|c| c.eta = Schedule::constant(1.0)),
        changed(|c| c.batch.upper = None),
        changed(|c| c.batch.lower = None),
        changed(|c| c.seed = 1),
    ] {
        assert_ne!(outcome(config.clone()), first, "{config:?}");
    }
}

#[test]
fn a_random_iterate_is_any_of_them_with_equal_chance() {
    let problem = Quadratic::scalar();
    let mut counts = [0u32; 4];
    for seed in 0..4000 {
        let config = DoubleLoopConfig {
            outer_steps: 4,
            inner_steps: Count::constant(1),
            answer: Iterate::Random,
            seed,
            ..Default::default()
        };
        let mut solver = DoubleLoop::new(config, &problem, vec![0.0], vec![0.0], vec![0.0]).unwrap();
        let mut left = Vec::new();
        let oracle = Oracle::new(&problem);
        for _ in 0..4 {
            left.push(Solver::<Quadratic>::x(&solver).clone());
            solver.step(&oracle).unwrap();
        }
        let chosen = left.iter().position(|x| x == solver.answer()).expect("one that was left behind");
        counts[chosen] += 1;
    }
    // Five standard errors of a quarter over 4000 seeds.
    assert!(counts.iter().all(|&count| (f64::from(count) / 4000.0 - 0.25).abs() < 0.0343), "{counts:?}");
}

#[test]
fn the_inner_loop_stops_at_its_tolerance_and_not_before() {
    let config = DoubleLoopConfig {
        outer_steps: 50,
        sigma: Schedule::constant(0.05),
        inner_steps: Count::constant(500),
        gamma: Schedule::constant(0.5),
        ..Default::default()
    };
    let problem = Quadratic::portable();
    let spent = |inner_tolerance| {
        let mut solver = portable(DoubleLoopConfig { inner_tolerance, ..config.clone() });
        let oracle = Oracle::new(&problem);
        for _ in 0..50 {
            let residual = solver.step(&oracle).unwrap().residual.unwrap();
            assert!(residual <= 0.05 * inner_tolerance.unwrap_or(1e-6), "{residual}");
        }
        oracle.calls().total()
    };
    let (none, tight, loose) = (spent(None), spent(Some(1e-6)), spent(Some(1e-2)));
    assert_eq!(none, 3 * (500 * 10 + 49 * 500) + 3 * 50);
    assert!(loose * 2 < tight && tight * 2 < none, "{loose} {tight} {none}");
}

#[test]
fn a_central_difference_ends_a_bias_of_second_order_away() {
    let problem = Quadratic::vector();
    let end = |difference, sigma| {
        let config = DoubleLoopConfig {
            sigma: Schedule::constant(sigma),
            difference,
            gamma: Schedule::constant(0.3),
            alpha: Schedule::constant(0.3),
            ..Default::default()
        };
        let zeros = vec![0.0; 2];
        let mut solver = DoubleLoop::new(config, &problem, zeros.clone(), zeros.clone(), zeros).unwrap();
        steps(&mut solver, &Oracle::new(&problem), 400);
        (sigma, problem.hyper_gradient(solver.answer()).norm())
    };
    let slope = |difference| log_log_slope(&[0.1, 0.05, 0.025, 0.0125].map(|sigma| end(difference, sigma)));
    let (forward, central) = (slope(Difference::Forward), slope(Difference::Central));
    assert!((0.9..=1.1).contains(&forward) && (1.9..=2.1).contains(&central), "{forward} {central}");
}

#[test]
fn constraints_hold_at_every_step_and_the_end_is_stationary_within_them() {
    let problem = Constrained {
        problem: Quadratic::portable(),
        x: Set::simplex(5, 1.0).unwrap(),
        y: Set::ball(vec![0.0; 10], 0.5).unwrap(),
    };
    let config = DoubleLoopConfig { outer_steps: 600, gamma: Schedule::constant(0.5), ..Default::default() };
    let start = vec![0.2; 5];
    let mut solver = DoubleLoop::new(config, &problem, start, vec![0.0; 10], vec![0.0; 10]).unwrap();
    let oracle = Oracle::new(&problem);
    for _ in 0..600 {
        solver.step(&oracle).unwrap();
        let now: &dyn Solver<Constrained<Quadratic>> = &solver;
        assert!(problem.x.contains(now.x(), 1e-12) && problem.y.contains(now.y(), 1e-12));
        assert!(problem.y.contains(solver.perturbed(), 1e-12));
    }
    // D/σ at the end, from the solver's own two points.
    let x = solver.answer().clone();
    let penalty = align_bilevel::Penalty::forward(solver.sigma());
    let z = Solver::<Constrained<Quadratic>>::y(&solver);
    let samples = align_bilevel::Samples::full();
    let mut gradient = penalty.difference_x(&oracle, &x, solver.perturbed(), z, &samples).unwrap();
    gradient.scale(1.0 / penalty.sigma);
    let measure = stationarity(&x, &gradient, 0.1, |x| problem.x.project(x));
    assert!(measure < 1e-6 && gradient.norm() > 1e-2, "{measure} of {}", gradient.norm());
}

#[test]
fn from_any_start_a_nonconvex_problem_ends_at_one_of_its_three_solutions() {
    let problem = PlToy;
    let draws = Draws::new(9);
    for run_index in 0..40 {
        let uniform = |which| draws.token(Purpose::Synthesize, 0, run_index, which, 0);
        let (x, y) = (vec![3.0 * uniform(0)], vec![-5.0 + 13.5 * uniform(1)]);
        let config = DoubleLoopConfig {
            outer_steps: 1500,
            sigma: Schedule::constant(0.1),
            inner_steps: Count::constant(20),
            gamma: Schedule::constant(0.05),
            alpha: Schedule::constant(0.02),
            ..Default::default()
        };
        let mut solver = DoubleLoop::new(config, &problem, x.clone(), y.clone(), y.clone()).unwrap();
        steps(&mut solver, &Oracle::new(&problem), 1500);
        let end = solver.answer()[0];
        let nearest = [0.366972, 1.188493, 2.823998].map(|x: f64| (x - end).abs());
        assert!(nearest.iter().any(|distance| *distance < 1e-3), "from {x:?}, {y:?} to {end}");
    }
}

#[test]
fn a_singular_lower_level_is_followed_wherever_it_leads() {
    let problem = TiedUniform;
    let config = DoubleLoopConfig { gamma: Schedule::constant(0.2), ..Default::default() };
    let mut solver = DoubleLoop::new(config, &problem, vec![2.5], vec![3.0, -1.0], vec![-2.0, 1.0]).unwrap();
    steps(&mut solver, &Oracle::new(&problem), 400);
    assert_close(solver.answer(), [1.0], 1e-6);
}

#[test]
fn the_error_bound_is_that_of_the_least_curvature() {
    let measured = |problem: &dyn Fn(f64) -> f64, sigmas: &[f64], expected: &[f64]| {
        for (sigma, expected) in sigmas.iter().zip(expected) {
            let found = problem(*sigma);
            assert!((found / expected - 1.0).abs() < 0.05, "σ = {sigma}: {found}, expected {expected}");
        }
    };
    let config = ErrorBoundConfig::default();
    let constant = |sigma: f64, a: f64| (a + sigma) / (1.0 + a + sigma);
    let quadratic = Quadratic::vector();
    let least = (3.0 - 2f64.sqrt()) / 2.0;
    measured(
        &|sigma| {
            let y = quadratic.solution(&[0.7, -0.4]);
            error_bound(&Oracle::new(&quadratic), &vec![0.7, -0.4], &y, sigma, &config).unwrap().constant
        },
        &[0.0, 0.1, 0.5],
        &[constant(0.0, least), constant(0.1, least), constant(0.5, least)],
    );
    // Where f breaks ties the constant is of the order of σ.
    measured(
        &|sigma| {
            let oracle = Oracle::new(&Tied);
            error_bound(&oracle, &vec![2.5], &vec![2.0, 0.5], sigma, &config).unwrap().constant
        },
        &[0.1, 0.01, 0.001],
        &[0.1295, 0.0148, 0.0015],
    );
    // Where it does not, the flat direction is a line of solutions, and does not count: 2(1 + σ) is the only curvature.
    measured(
        &|sigma| {
            let oracle = Oracle::new(&TiedUniform);
            error_bound(&oracle, &vec![2.5], &vec![2.0, 0.5], sigma, &config).unwrap().constant
        },
        &[0.1, 0.001],
        &[2.2 / 3.2, 2.002 / 3.002],
    );
}

#[test]
fn a_weak_error_bound_is_a_warning() {
    let config = ErrorBoundConfig { radius: 0.5, ..Default::default() };
    let probe = |x: f64| {
        let bound = error_bound(&Oracle::new(&Bilinear), &vec![x], &vec![0.0], 0.0, &config).unwrap();
        bound.warning()
    };
    // Near the jump g = xy is almost flat, while its only minimiser is at the end of the interval.
    let warning = probe(1e-4).expect("a warning");
    assert!(matches!(warning, Warning::WeakErrorBound { constant } if constant < 1e-3), "{warning}");
    assert!(warning.to_string().starts_with("WeakErrorBound: the residual is only "));
    assert_eq!(probe(0.5), None);
}

#[test]
fn settings_fit_a_known_smoothness() {
    let smoothness = Smoothness { upper: 1.0, lower: 4.0 };
    let config = DoubleLoopConfig::default().with_smoothness(smoothness);
    // σ is 1 at first: l = 5, ρ = 1/10, γ = 1/(5 + 10).
    assert_close([config.rho, config.gamma.at(0, 1)], [0.1, 1.0 / 15.0], 1e-15);
    assert_eq!(config.warnings(smoothness), []);
    assert_eq!(DoubleLoopConfig::default().warnings(smoothness), []);

    let long = DoubleLoopConfig { gamma: Schedule::constant(0.18), ..Default::default() };
    let [Warning::StepTooLarge { outer: 0, gamma, bound }] = long.warnings(smoothness)[..] else {
        panic!("{:?}", long.warnings(smoothness));
    };
    assert_close([gamma, bound], [0.18, 1.0 / 6.0], 1e-15);
    let text = long.warnings(smoothness)[0].to_string();
    assert!(
        text.starts_with("StepTooLarge: gamma is 0.18 at outer 0, above 1/(sigma l_f + l_g + 1/rho) = 0.16")
    );

    // γ grows past the bound in the middle of the run: 1/6 at σ = 1.
    let growing = SingleLoopConfig {
        sigma: Schedule::constant(1.0),
        gamma: Schedule::Power { first: 0.1, exponent: 1.0, offset: 10.0 },
        ..Default::default()
    };
    assert!(matches!(growing.warnings(smoothness)[..], [Warning::StepTooLarge { outer: 7, .. }]));
}

#[test]
fn recipes_round_trip_and_defaults_are_what_is_documented() {
    let config = DoubleLoopConfig {
        inner_steps: Count::OverSigma { value: 3 },
        inner_tolerance: Some(1e-3),
        inner_batch: LevelBatches::both(Count::constant(64)),
        ..Default::default()
    };
    let text = toml::to_string(&config).unwrap();
    assert_eq!(toml::from_str::<DoubleLoopConfig>(&text).unwrap(), config);
    let config = SingleLoopConfig::default();
    assert_eq!(toml::from_str::<SingleLoopConfig>(&toml::to_string(&config).unwrap()).unwrap(), config);

    let read: DoubleLoopConfig = toml::from_str("sigma = { kind = 'constant', value = 0.2 }").unwrap();
    assert_eq!(read, DoubleLoopConfig { sigma: Schedule::constant(0.2), ..Default::default() });
    // σ: from 1 to 0.05 over 30 % of the run.
    let DoubleLoopConfig { sigma, outer_steps, .. } = DoubleLoopConfig::default();
    assert_eq!([0, 300, 999].map(|k| sigma.at(k, outer_steps)), [1.0, 0.05, 0.05]);
}

#[test]
fn the_single_loop_ends_near_a_stationary_point_too() {
    let problem = Quadratic::portable();
    let config = SingleLoopConfig {
        outer_steps: 4000,
        rho: 10.0,
        gamma: Schedule::constant(0.5),
        beta: Schedule::constant(1.0),
        sigma: Schedule::constant(0.05),
        alpha: Schedule::constant(0.1),
        step_scale: StepScale::OnHyperGradient,
        ..Default::default()
    };
    let mut solver: Single =
        SingleLoop::new(config, &problem, vec![1.0; 5], vec![0.0; 10], vec![0.0; 10]).unwrap();
    steps(&mut solver, &Oracle::new(&problem), 4000);
    // The bias at σ = 0.05 is between those at 0.03 and 0.1 of the double loop, 9e-4 and 3e-3.
    let norm = problem.hyper_gradient(Solver::<Quadratic>::x(&solver)).norm();
    assert!((9e-4..3e-3).contains(&norm), "{norm}");
}
