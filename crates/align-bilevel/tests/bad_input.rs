//! Every refusal, by its message: it names the thing, what was expected and what was found.

use std::sync::atomic::{AtomicU64, Ordering};

use align_bilevel::problems::{Boxed, Quadratic};
use align_bilevel::{
    BilevelError, Constrained, Count, Descent, DoubleLoop, DoubleLoopConfig, ErrorBoundConfig, Functions,
    Level, LevelBatches, Oracle, Penalty, Point, Problem, Sample, Samples, Schedule, Set, SingleLoop,
    SingleLoopConfig, Slopes, Solver, check_sigma, error_bound, moreau_envelope, proximal_point, psi_sigma,
};
use align_testkit::assert_close;

type Double = DoubleLoop<Vec<f64>, Vec<f64>>;

fn message<T>(result: Result<T, BilevelError>) -> String {
    result.err().expect("a refusal").to_string()
}

fn double(change: impl FnOnce(&mut DoubleLoopConfig)) -> Result<Double, BilevelError> {
    let mut config = DoubleLoopConfig::default();
    change(&mut config);
    DoubleLoop::new(config, &Boxed, vec![0.3], vec![0.5], vec![0.5])
}

fn single(change: impl FnOnce(&mut SingleLoopConfig)) -> String {
    let mut config = SingleLoopConfig::default();
    change(&mut config);
    message(SingleLoop::new(config, &Boxed, vec![0.3], vec![0.5], vec![0.5]))
}

#[test]
fn penalties() {
    for (sigma, found) in [(0.0, "0"), (-0.1, "-0.1"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let expected = format!("InvalidPenalty: sigma must be finite and > 0, got {found}");
        assert_eq!(message(double(|c| c.sigma = Schedule::constant(sigma))), expected);
        assert_eq!(single(|c| c.sigma = Schedule::constant(sigma)), expected);
        let start = vec![0.5];
        let (oracle, penalty) = (Oracle::new(&Boxed), Penalty::forward(sigma));
        assert_eq!(
            message(psi_sigma(&oracle, &start, &start, &start, penalty, &Descent::default())),
            expected
        );
    }
    // The end of a schedule counts as much as its beginning.
    let schedule = Schedule::Geometric { first: 1.0, last: 0.0, share: 0.3 };
    assert_eq!(
        message(double(|c| c.sigma = schedule)),
        "InvalidPenalty: sigma must be finite and > 0, got 0"
    );
}

#[test]
fn penalties_below_what_the_numbers_resolve() {
    let single = 2f64.powi(-24);
    assert_eq!(check_sigma(1e-4, single), Ok(()));
    assert_eq!(
        message(check_sigma(5e-5, single)),
        "InvalidPenalty: sigma must be finite and > 0.0001, got 0.00005"
    );
    let double = 2f64.powi(-53);
    assert_eq!(check_sigma(5e-9, double), Ok(()));
    assert!(message(check_sigma(4e-9, double)).contains("> 0.0000000043"));
}

/// A point in f32.
#[derive(Clone, Debug)]
struct Narrow(Vec<f32>);

impl Narrow {
    fn wide(&self) -> Vec<f64> {
        self.0.iter().map(|&value| f64::from(value)).collect()
    }

    fn of(values: &[f64]) -> Self {
        Self(values.iter().map(|&value| value as f32).collect())
    }
}

impl Point for Narrow {
    fn add_scaled(&mut self, scale: f64, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(value, other)| *value += scale as f32 * other);
    }

    fn scale(&mut self, factor: f64) {
        self.0.iter_mut().for_each(|value| *value *= factor as f32);
    }

    fn dot(&self, other: &Self) -> f64 {
        self.wide().dot(&other.wide())
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn zeros(&self) -> Self {
        Self(vec![0.0; self.0.len()])
    }

    fn unit_roundoff(&self) -> f64 {
        2f64.powi(-24)
    }
}

/// A problem whose gradients and points are rounded to f32.
struct Rounded(Quadratic);

impl Problem for Rounded {
    type X = Narrow;
    type Y = Narrow;

    fn value(&self, level: Level, x: &Narrow, y: &Narrow, sample: &Sample) -> f64 {
        self.0.value(level, &x.wide(), &y.wide(), sample)
    }

    fn gradient_x(&self, level: Level, x: &Narrow, y: &Narrow, sample: &Sample) -> Narrow {
        Narrow::of(&self.0.gradient_x(level, &x.wide(), &y.wide(), sample))
    }

    fn gradient_y(&self, level: Level, x: &Narrow, y: &Narrow, sample: &Sample) -> Narrow {
        Narrow::of(&self.0.gradient_y(level, &x.wide(), &y.wide(), sample))
    }
}

#[test]
fn in_f32_a_smaller_sigma_makes_the_error_larger_below_the_floor() {
    use align_bilevel::problems::{ClosedForm, ClosedPenalty};
    let (problem, exact) = (Rounded(Quadratic::vector()), Quadratic::vector());
    let oracle = Oracle::new(&problem);
    let x = [0.7, -0.4];
    let error = |sigma: f64| {
        let (y, z) = (Narrow::of(&exact.penalized(&x, sigma).y), Narrow::of(&exact.solution(&x)));
        let penalty = Penalty::forward(sigma);
        let mut found = penalty.difference_x(&oracle, &Narrow::of(&x), &y, &z, &Samples::full()).unwrap();
        found.scale(1.0 / sigma);
        found.wide().distance(&exact.hyper_gradient(&x))
    };
    let errors = [1e-3, 1e-4, 1e-5, 1e-6, 1e-7].map(error);
    assert!(errors[1] < errors[0], "above the floor the bias rules: {errors:?}");
    assert!(errors[3] > 5.0 * errors[1] && errors[4] > 50.0 * errors[1], "below it, rounding: {errors:?}");
    // So it is refused, by functions and by solvers.
    let start = Narrow::of(&[0.0, 0.0]);
    let refused = psi_sigma(&oracle, &start, &start, &start, Penalty::forward(5e-5), &Descent::default());
    assert!(message(refused).starts_with("InvalidPenalty: sigma must be finite and > 0.0001"));
    let config = DoubleLoopConfig { sigma: Schedule::constant(5e-5), ..Default::default() };
    assert!(DoubleLoop::new(config, &problem, start.clone(), start.clone(), start).is_err());
}

#[test]
fn a_descent_stops_where_the_digits_end() {
    // 1e-12 is far below what f32 resolves.
    let problem = Rounded(Quadratic::vector());
    let (oracle, start) = (Oracle::new(&problem), Narrow::of(&[0.0, 0.0]));
    let descent = Descent { tolerance: 1e-9, ..Default::default() };
    let x = Narrow::of(&[0.7, -0.4]);
    let found = psi_sigma(&oracle, &x, &start, &start, Penalty::forward(1e-3), &descent).unwrap();
    assert!(found.steps < 500, "{} steps", found.steps);
    assert!(found.residual > 1e-12 && found.residual < 1e-5, "{}", found.residual);
    // The error of the bias, 5.5e-3, and rounding over σ.
    assert_close(found.gradient.wide(), [2.4291836735, -3.7951020408], 1e-2);
}

#[test]
fn a_power_law_that_falls_below_the_floor_is_refused_where_it_does() {
    // 1e-6 · (1 + k)⁻⁸ is 3.9e-9 at k = 1 and the floor 4.3e-9.
    let config = DoubleLoopConfig {
        outer_steps: 1,
        sigma: Schedule::Power { first: 1e-6, exponent: -8.0, offset: 1.0 },
        ..Default::default()
    };
    let refused = DoubleLoop::new(config.clone(), &Boxed, vec![0.3], vec![0.5], vec![0.5]);
    assert!(message(refused).starts_with("InvalidPenalty"));

    // 1e-6 · (1 + k)⁻⁷ is above it at K = 1, and below when the run goes on beyond K.
    let sigma = Schedule::Power { first: 1e-6, exponent: -7.0, offset: 1.0 };
    let config = DoubleLoopConfig { sigma, ..config };
    let mut solver = DoubleLoop::new(config, &Boxed, vec![0.3], vec![0.5], vec![0.5]).unwrap();
    let oracle = Oracle::new(&Boxed);
    solver.step(&oracle).unwrap();
    solver.step(&oracle).unwrap();
    assert!(message(solver.step(&oracle)).starts_with("InvalidPenalty"));
}

#[test]
fn step_sizes() {
    for (value, found) in [(0.0, "0"), (-1.0, "-1"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let constant = Schedule::constant(value);
        let expected = |name| format!("InvalidStep: {name} must be finite and > 0, got {found}");
        assert_eq!(message(double(|c| c.rho = value)), expected("rho"));
        assert_eq!(message(double(|c| c.gamma = constant)), expected("gamma"));
        assert_eq!(message(double(|c| c.alpha = constant)), expected("alpha"));
        assert_eq!(message(double(|c| c.inner_tolerance = Some(value))), expected("the inner tolerance"));
        assert_eq!(single(|c| c.rho = value), expected("rho"));
        assert_eq!(single(|c| c.gamma = constant), expected("gamma"));
        assert_eq!(single(|c| c.alpha = constant), expected("alpha"));

        let (v, none) = (vec![0.0], |v: &Vec<f64>| Ok(v.clone()));
        let descent = Descent::default();
        assert_eq!(message(proximal_point(&v, value, &descent, none, |_| {})), expected("rho"));
        assert_eq!(message(moreau_envelope(&v, value, &descent, |_| Ok(0.0), none, |_| {})), expected("rho"));
        let tolerance = Descent { tolerance: value, ..descent };
        assert_eq!(
            message(proximal_point(&v, 1.0, &tolerance, none, |_| {})),
            expected("the tolerance of a descent")
        );
        let config = ErrorBoundConfig { radius: value, ..Default::default() };
        assert_eq!(
            message(error_bound(&Oracle::new(&Boxed), &v, &v, 0.1, &config)),
            expected("the radius of an error bound")
        );
    }
    let offset = Schedule::Power { first: 0.1, exponent: -0.5, offset: 0.0 };
    assert_eq!(
        message(double(|c| c.gamma = offset)),
        "InvalidStep: the offset of a power schedule must be finite and > 0, got 0"
    );
    let exponent = Schedule::Power { first: 0.1, exponent: f64::NAN, offset: 10.0 };
    assert_eq!(message(double(|c| c.alpha = exponent)), "InvalidStep: alpha must be finite and > 0, got NaN");
}

#[test]
fn weights() {
    for (value, found) in [(0.0, "0"), (-0.5, "-0.5"), (1.5, "1.5"), (f64::NAN, "NaN")] {
        let expected = |name| format!("InvalidWeight: {name} must be in (0, 1], got {found}");
        assert_eq!(message(double(|c| c.beta = Schedule::constant(value))), expected("beta"));
        assert_eq!(single(|c| c.beta = Schedule::constant(value)), expected("beta"));
        assert_eq!(single(|c| c.eta = Schedule::constant(value)), expected("eta"));
        let share = Schedule::Geometric { first: 1.0, last: 0.1, share: value };
        assert_eq!(message(double(|c| c.sigma = share)), expected("the share of a geometric schedule"));
    }
}

#[test]
fn counts() {
    let problem = align_bilevel::problems::FiniteSum::new(vec![1.0; 5], vec![2.0; 5], vec![1.0; 3]).unwrap();
    let batch = |batch: LevelBatches| {
        let config = DoubleLoopConfig { outer_batch: batch, ..Default::default() };
        message(DoubleLoop::new(config, &problem, vec![0.0], vec![0.0], vec![0.0]))
    };
    let count = |value| Some(Count::constant(value));
    assert_eq!(
        batch(LevelBatches { upper: None, lower: count(6) }),
        "InvalidCount: the batch of the lower level must be from 1 to 5, got 6"
    );
    assert_eq!(
        batch(LevelBatches { upper: count(4), lower: count(4) }),
        "InvalidCount: the batch of the upper level must be from 1 to 3, got 4"
    );
    assert_eq!(
        batch(LevelBatches { upper: count(0), lower: None }),
        "InvalidCount: the batch of the upper level must be from 1 to 3, got 0"
    );
    let names = [
        (message(double(|c| c.outer_steps = 0)), "outer steps K"),
        (single(|c| c.outer_steps = 0), "outer steps K"),
        (message(double(|c| c.inner_steps = Count::constant(0))), "inner steps T"),
        (message(double(|c| c.warm_up = 0)), "the warm-up"),
    ];
    for (found, name) in names {
        assert_eq!(found, format!("InvalidCount: {name} must be from 1 to {}, got 0", usize::MAX));
    }
    let growing = Count::Power { value: 3, exponent: f64::NAN, offset: 10.0 };
    assert!(message(double(|c| c.inner_steps = growing)).starts_with("InvalidCount: inner steps T"));
}

#[test]
fn infeasible_starts() {
    let start = |x: f64, y: f64, z: f64| {
        let config = DoubleLoopConfig::default();
        let problem = align_bilevel::problems::Bilinear;
        [
            message(DoubleLoop::new(config, &problem, vec![x], vec![y], vec![z])),
            message(SingleLoop::new(SingleLoopConfig::default(), &problem, vec![x], vec![y], vec![z])),
        ]
    };
    for (found, expected) in [
        (start(1.5, 0.0, 0.0), "Infeasible: the start x is 0.5 away from its set"),
        (start(0.0, -3.0, 0.0), "Infeasible: the start y is 2 away from its set"),
        (start(0.0, 0.0, 1.25), "Infeasible: the start z is 0.25 away from its set"),
        (start(f64::NAN, 0.0, 0.0), "NonFinite: x at outer 0, inner 0"),
    ] {
        assert_eq!(found, [expected, expected]);
    }
    // What is outside by rounding is moved in.
    let solver = DoubleLoop::new(
        DoubleLoopConfig::default(),
        &align_bilevel::problems::Bilinear,
        vec![1.0 + 1e-12],
        vec![0.0],
        vec![0.0],
    );
    assert_eq!(solver.unwrap().answer(), &[1.0]);
    let other = DoubleLoop::new(DoubleLoopConfig::default(), &Boxed, vec![0.3], vec![0.5], vec![0.5, 0.5]);
    assert_eq!(message(other), "ShapeMismatch: expected 1, got 2 for z");
}

/// `f = (y − 1)²/2`, `g = (y − 2x)²/2`, until something breaks at one of the calls.
struct Breaks {
    calls: AtomicU64,
    at: u64,
    with: Vec<f64>,
}

impl Breaks {
    fn at(at: u64, with: Vec<f64>) -> Self {
        Self { calls: AtomicU64::new(0), at, with }
    }

    fn or(&self, gradient: f64) -> Vec<f64> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        if call == self.at { self.with.clone() } else { vec![gradient] }
    }
}

impl Problem for Breaks {
    type X = Vec<f64>;
    type Y = Vec<f64>;

    fn value(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _sample: &Sample) -> f64 {
        match level {
            Level::Upper => (y[0] - 1.0).powi(2) / 2.0,
            Level::Lower => (y[0] - 2.0 * x[0]).powi(2) / 2.0,
        }
    }

    fn gradient_x(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _sample: &Sample) -> Vec<f64> {
        self.or(match level {
            Level::Upper => 0.0,
            Level::Lower => 4.0 * x[0] - 2.0 * y[0],
        })
    }

    fn gradient_y(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _sample: &Sample) -> Vec<f64> {
        self.or(match level {
            Level::Upper => y[0] - 1.0,
            Level::Lower => y[0] - 2.0 * x[0],
        })
    }
}

#[test]
fn a_broken_gradient_is_named_and_the_last_finite_state_is_kept() {
    // Three calls in each of two inner steps, three in the outer one: 9 a step.
    let config = DoubleLoopConfig { inner_steps: Count::constant(2), warm_up: 1, ..Default::default() };
    for (call, expected) in [
        (0, "NonFinite: σ ∇ᵧ f + ∇ᵧ g at outer 0, inner 0"),
        (18 + 3, "NonFinite: σ ∇ᵧ f + ∇ᵧ g at outer 2, inner 1"),
        (18 + 5, "NonFinite: ∇ᵧ g at outer 2, inner 1"),
        (18 + 7, "NonFinite: ∇ₓ g(x, y) − ∇ₓ g(x, z) at outer 2, inner 1"),
        (18 + 8, "NonFinite: ∇ₓ f at outer 2, inner 1"),
    ] {
        for broken in [f64::NAN, f64::INFINITY] {
            let problem = Breaks::at(call, vec![broken]);
            let oracle = Oracle::new(&problem);
            let mut solver =
                DoubleLoop::new(config.clone(), &problem, vec![0.3], vec![0.0], vec![0.0]).unwrap();
            let mut before = serde_json::to_string(&solver).unwrap();
            let error = loop {
                match solver.step(&oracle) {
                    Ok(_) => before = serde_json::to_string(&solver).unwrap(),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.to_string(), expected);
            assert_eq!(serde_json::to_string(&solver).unwrap(), before, "a failed step changes nothing");
            assert!(solver.answer().is_finite());
        }
    }
}

#[test]
fn the_single_loop_keeps_its_last_finite_state_too() {
    // 6 calls in the first step, 12 in the second: call 15 is ∇ₓ f at the point before.
    for (call, expected) in
        [(7, "NonFinite: ∇ᵧ g at outer 1, inner 0"), (15, "NonFinite: ∇ₓ f at outer 1, inner 0")]
    {
        let problem = Breaks::at(call, vec![f64::NAN]);
        let oracle = Oracle::new(&problem);
        let config = SingleLoopConfig::default();
        let mut solver = SingleLoop::new(config, &problem, vec![0.3], vec![0.0], vec![0.0]).unwrap();
        solver.step(&oracle).unwrap();
        let before = serde_json::to_string(&solver).unwrap();
        assert_eq!(message(solver.step(&oracle)), expected);
        assert_eq!(serde_json::to_string(&solver).unwrap(), before);
    }
}

#[test]
fn a_gradient_of_the_wrong_length() {
    let problem = Breaks::at(2, vec![0.0, 0.0]);
    let config = DoubleLoopConfig::default();
    let mut solver = DoubleLoop::new(config, &problem, vec![0.3], vec![0.0], vec![0.0]).unwrap();
    assert_eq!(message(solver.step(&Oracle::new(&problem))), "ShapeMismatch: expected 1, got 2 for ∇ᵧ g");
}

#[test]
fn an_overlong_outer_step_is_seen_to_diverge() {
    let problem = Quadratic::scalar();
    for sigma in [0.1, 0.001] {
        // ψ has a curvature of 4, so a step of 5 multiplies the gradient by −19, whatever σ is.
        let config = DoubleLoopConfig {
            sigma: Schedule::constant(sigma),
            // A weak proximal term, so that the inner problems are solved and the outer step alone is to blame.
            rho: 100.0,
            inner_steps: Count::constant(50),
            gamma: Schedule::constant(0.5),
            alpha: Schedule::constant(5.0),
            ..Default::default()
        };
        let mut solver = DoubleLoop::new(config, &problem, vec![0.3], vec![0.0], vec![0.0]).unwrap();
        let oracle = Oracle::new(&problem);
        let error = loop {
            if let Err(error) = solver.step(&oracle) {
                break error;
            }
        };
        let BilevelError::Diverged { from, to, outer } = error.clone() else { panic!("{error}") };
        assert!((0.5..1.0).contains(&from) && to > 1000.0 * from && outer == 3, "{error}");
        let text = error.to_string();
        assert!(text.starts_with("Diverged: |D|/sigma grew from 0."), "{text}");
        assert!(text.ends_with("at outer 3; reduce the outer step or raise inner steps"), "{text}");
        assert!(solver.answer().is_finite());
    }
}

#[test]
fn a_step_that_overflows_is_not_taken() {
    let problem = Quadratic::scalar();
    let config = DoubleLoopConfig { alpha: Schedule::constant(1e200), ..Default::default() };
    let mut solver = DoubleLoop::new(config, &problem, vec![0.3], vec![0.0], vec![0.0]).unwrap();
    assert_eq!(message(solver.step(&Oracle::new(&problem))), "NonFinite: x at outer 0, inner 0");
    assert_eq!(solver.answer(), &[0.3]);
}

/// `g = x y` without bounds: no minimiser, but for x = 0.
struct Slope;

impl Problem for Slope {
    type X = Vec<f64>;
    type Y = Vec<f64>;

    fn value(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _sample: &Sample) -> f64 {
        match level {
            Level::Upper => y[0] * y[0] / 2.0,
            Level::Lower => x[0] * y[0],
        }
    }

    fn gradient_x(&self, level: Level, _x: &Vec<f64>, y: &Vec<f64>, _sample: &Sample) -> Vec<f64> {
        match level {
            Level::Upper => vec![0.0],
            Level::Lower => y.clone(),
        }
    }

    fn gradient_y(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _sample: &Sample) -> Vec<f64> {
        match level {
            Level::Upper => y.clone(),
            Level::Lower => x.clone(),
        }
    }
}

#[test]
fn a_lower_level_without_a_minimum() {
    let (oracle, start) = (Oracle::new(&Slope), vec![0.0]);
    let found = psi_sigma(&oracle, &vec![0.5], &start, &start, Penalty::forward(0.1), &Descent::default());
    let text = message(found);
    assert!(text.starts_with("UnboundedLowerLevel: a descent went from a norm of 0 to 1"), "{text}");
    assert!(text.ends_with(": set C > 0 or bound Y"), "{text}");
}

/// The outcome of 2000 outer steps of both loops on g(y) = `lower`(y), given as value and slope, with f = (y − 1)²/2.
fn both_loops(lower: fn(f64) -> (f64, f64), bounded: bool) -> [Result<(), BilevelError>; 2] {
    let upper = |_: &[f64], y: &[f64]| Slopes {
        value: (y[0] - 1.0).powi(2) / 2.0,
        x: vec![0.0],
        y: vec![y[0] - 1.0],
    };
    let lower = move |_: &[f64], y: &[f64]| {
        let (value, slope) = lower(y[0]);
        Slopes { value, x: vec![0.0], y: vec![slope] }
    };
    let y = if bounded { Set::bounds(vec![-5.0], vec![5.0]).unwrap() } else { Set::whole() };
    let problem = Constrained { problem: Functions { upper, lower }, x: Set::whole(), y };
    let start = || vec![0.0];
    let mut double =
        DoubleLoop::new(DoubleLoopConfig::default(), &problem, start(), start(), start()).unwrap();
    let mut single =
        SingleLoop::new(SingleLoopConfig::default(), &problem, start(), start(), start()).unwrap();
    let oracle = Oracle::new(&problem);
    [
        (0..2000).try_for_each(|_| double.step(&oracle).map(|_| ())),
        (0..2000).try_for_each(|_| single.step(&oracle).map(|_| ())),
    ]
}

#[test]
fn a_lower_level_that_falls_for_ever_under_both_loops() {
    for outcome in both_loops(|y| (y, 1.0), false) {
        let text = message(outcome);
        assert!(
            text.starts_with("UnboundedLowerLevel: the copy that follows its minimiser went from"),
            "{text}"
        );
    }
    // A bound on Y is a minimum, and so is the end of a long slope.
    assert_eq!(both_loops(|y| (y, 1.0), true), [Ok(()), Ok(())]);
    let slope = |y: f64| if y < -30.0 { (y + (y + 30.0).powi(2), 1.0 + 2.0 * (y + 30.0)) } else { (y, 1.0) };
    assert_eq!(both_loops(slope, false)[0], Ok(()));
}

#[test]
fn a_central_difference_beyond_the_curvature_of_the_lower_level() {
    let start = vec![0.0];
    let central =
        |problem: &dyn Fn(Penalty) -> Result<(), BilevelError>, sigma| match problem(Penalty::central(sigma))
        {
            Err(BilevelError::LostConvexity { sigma: at, curvature }) => {
                assert_eq!(at, sigma);
                Some(curvature)
            }
            Ok(()) => None,
            Err(other) => panic!("{other}"),
        };
    let descent = Descent::default();
    let scalar = |penalty| {
        let problem = Quadratic::scalar();
        psi_sigma(&Oracle::new(&problem), &vec![0.8], &start, &start, penalty, &descent).map(|_| ())
    };
    // 1 − σ, along the only direction.
    assert_close([central(&scalar, 1.5).unwrap()], [-0.5], 1e-8);
    assert_eq!(central(&scalar, 0.9), None);
    // The bounds of Y keep a minimum, but at an end that has nothing to do with the lower solution.
    let boxed = |penalty| {
        let start = vec![0.4];
        psi_sigma(&Oracle::new(&Boxed), &vec![0.3], &start, &start, penalty, &descent).map(|_| ())
    };
    assert_close([central(&boxed, 1.25).unwrap()], [-0.25], 1e-8);
    let vector = |penalty| {
        let (problem, start) = (Quadratic::vector(), vec![0.0; 2]);
        psi_sigma(&Oracle::new(&problem), &vec![0.7, -0.4], &start, &start, penalty, &descent).map(|_| ())
    };
    let least = (3.0 - 2f64.sqrt()) / 2.0;
    assert_close([central(&vector, 0.85).unwrap()], [least - 0.85], 1e-8);
    assert_eq!(central(&vector, 0.7), None);
    let text = message(scalar(Penalty::central(1.5)));
    assert!(
        text.starts_with(
            "InvalidPenalty: g - sigma f lost strong convexity at sigma 1.5 (min eigenvalue estimate -0."
        ),
        "{text}"
    );
}

#[test]
fn recipes_with_unknown_keys_or_kinds() {
    let double = |text: &str| toml::from_str::<DoubleLoopConfig>(text).unwrap_err().to_string();
    assert!(double("sigm = { kind = 'constant', value = 0.2 }").contains("unknown field `sigm`"));
    assert!(double("sigma = { kind = 'linear', value = 0.2 }").contains("unknown variant `linear`"));
    assert!(
        double("sigma = { kind = 'constant', value = 0.2, last = 1.0 }").contains("unknown field `last`")
    );
    assert!(double("difference = 'backward'").contains("unknown variant `backward`"));
    assert!(toml::from_str::<SingleLoopConfig>("momentum = 0.9").is_err());
    assert!(toml::from_str::<ErrorBoundConfig>("radii = 0.9").is_err());
}

#[test]
#[should_panic(expected = "a slope of 1 points")]
fn a_slope_of_one_point_is_a_bug() {
    align_bilevel::log_log_slope(&[(1.0, 2.0)]);
}
