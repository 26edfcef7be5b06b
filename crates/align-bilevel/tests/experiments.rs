//! The method does what the theory says: orders in σ, calls to a given stationarity, variance, momentum.

use align_bilevel::problems::{
    Bilinear, Boxed, ClosedForm, ClosedPenalty, FiniteSum, Noisy, Quadratic, Tied, TiedUniform,
};
use align_bilevel::{
    Batches, Count, Descent, Difference, DoubleLoop, DoubleLoopConfig, Level, Oracle, Penalty, Point,
    Problem, Sample, Samples, Schedule, Sharing, SingleLoop, SingleLoopConfig, Solver, Stream, bias_order,
    log_log_slope, psi_sigma, trace,
};
use align_core::draws::{Draws, Purpose};
use align_testkit::assert_all_close;
use std::num::NonZeroUsize;

const TIGHT: Descent = Descent { step: 1.0, tolerance: 1e-11, max_steps: 50_000 };

/// The slope of the error of ∇ψ_σ over σ from 1e-2 to 1e-4, by solving the lower problems.
fn slope<P: ClosedForm>(problem: &P, x: &[f64], difference: Difference) -> f64 {
    let oracle = Oracle::new(problem);
    let (x, start) = (x.to_vec(), vec![0.2; problem.solution(x).len()]);
    let estimate = |sigma| {
        let psi = psi_sigma(&oracle, &x, &start, &start, Penalty { sigma, difference }, &TIGHT)?;
        Ok(psi.gradient)
    };
    bias_order(&[1e-2, 1e-3, 1e-4], &problem.hyper_gradient(&x), estimate).unwrap().slope
}

#[test]
fn the_bias_is_of_first_order_and_of_second_for_the_central_difference() {
    let slopes = [
        slope(&Quadratic::scalar(), &[0.8], Difference::Forward),
        slope(&Quadratic::vector(), &[0.7, -0.4], Difference::Forward),
        slope(&Tied, &[2.5], Difference::Forward),
        slope(&TiedUniform, &[2.5], Difference::Forward),
        slope(&Boxed, &[0.3], Difference::Forward),
        slope(&Quadratic::portable(), &[1.0; 5], Difference::Forward),
    ];
    println!("slopes {slopes:.4?}");
    assert!(slopes.iter().all(|slope| (0.9..=1.1).contains(slope)), "{slopes:?}");
    let central = slope(&Quadratic::vector(), &[0.7, -0.4], Difference::Central);
    println!("central {central:.4}");
    assert!((1.9..=2.1).contains(&central), "{central}");
}

#[test]
fn an_estimator_that_is_constant_or_zero_would_not_pass_the_negative_control() {
    let problem = Bilinear;
    for sigma in [1e-1, 1e-2, 1e-3] {
        let start = vec![0.3];
        let penalty = Penalty::forward(sigma);
        let psi = psi_sigma(&Oracle::new(&problem), &vec![sigma], &start, &start, penalty, &TIGHT).unwrap();
        let gap = problem.psi(&[sigma]) - psi.value;
        assert!((gap - 0.25).abs() < 1e-9, "σ = {sigma}: {gap}");
    }
}

/// A double loop on the portable problem from x = 1, y = z = 0.
struct Setting {
    inner: usize,
    rho: f64,
    step: f64,
}

const FIVE: Setting = Setting { inner: 5, rho: 1.0, step: 0.5 };
const ONE: Setting = Setting { inner: 1, rho: 10.0, step: 0.1 };

impl Setting {
    fn solver<P: ClosedForm>(&self, problem: &P, sigma: f64) -> DoubleLoop<Vec<f64>, Vec<f64>> {
        let config = DoubleLoopConfig {
            outer_steps: 5000,
            sigma: Schedule::constant(sigma),
            rho: self.rho,
            inner_steps: Count::constant(self.inner),
            warm_up: 1,
            gamma: Schedule::constant(0.5),
            alpha: Schedule::constant(self.step),
            ..Default::default()
        };
        DoubleLoop::new(config, problem, vec![1.0; 5], vec![0.0; 10], vec![0.0; 10]).unwrap()
    }

    /// The calls until `‖∇ψ‖ ≤ ε`, by the closed form, which only stops the run.
    fn calls(&self, epsilon: f64) -> u64 {
        let problem = Quadratic::portable();
        let oracle = Oracle::new(&problem);
        let mut solver = self.solver(&problem, 0.3 * epsilon);
        while problem.hyper_gradient(solver.answer()).norm() > epsilon {
            solver.step(&oracle).unwrap();
            assert!(Solver::<Quadratic>::iterations(&solver) < 5000, "no stationarity of {epsilon}");
        }
        oracle.calls().total()
    }
}

#[test]
fn calls_to_stationarity_grow_slowly_and_are_an_eighth_of_finite_differences() {
    let mut fits = [Vec::new(), Vec::new()];
    for (epsilon, five, one, implicit, differences) in [
        (1e-1, 288, 474, 432, 7200),
        (3e-2, 468, 732, 648, 10_800),
        (1e-2, 630, 954, 837, 13_950),
        (3e-3, 702, 1200, 1026, 17_100),
        (1e-3, 882, 1422, 1215, 20_250),
    ] {
        let found = [FIVE.calls(epsilon), ONE.calls(epsilon)];
        println!("ε = {epsilon}: {found:?} calls");
        assert_all_close(found.map(|calls| calls as f64), [f64::from(five), f64::from(one)], 0.1, 0.0);
        // Against the counts of an implicit method with conjugate gradients and of finite differences on this problem.
        assert!(found.iter().all(|calls| 8 * calls <= differences && *calls <= 2 * implicit), "{found:?}");
        fits.iter_mut().zip(found).for_each(|(fit, calls)| fit.push((1.0 / epsilon, calls as f64)));
    }
    let exponents = fits.map(|fit| log_log_slope(&fit));
    println!("exponents {exponents:.3?}");
    assert!(exponents.iter().all(|exponent| *exponent <= 3.0), "{exponents:?}");
}

#[test]
fn at_a_fixed_sigma_the_run_ends_a_bias_of_that_order_away() {
    let problem = Quadratic::portable();
    let mut ends = Vec::new();
    for (sigma, expected) in
        [(0.3, 8.608e-3), (0.1, 3.003e-3), (0.03, 9.161e-4), (0.01, 3.068e-4), (0.003, 9.220e-5)]
    {
        let (mut solver, mut points) = (FIVE.solver(&problem, sigma), Vec::new());
        let measure = |x: &Vec<f64>| problem.hyper_gradient(x).norm();
        trace(&mut solver, &Oracle::new(&problem), 3000, &mut points, measure).unwrap();
        let end = points[points.len() - 1];
        assert_all_close([end.stationarity], [expected], 1e-3, 0.0); // four digits are written
        assert!(end.estimate < 1e-10, "σ = {sigma}: not at the end, {}", end.estimate);
        ends.push((sigma, end.stationarity));
    }
    let slope = log_log_slope(&ends);
    println!("slope {slope:.4}");
    assert!((0.9..=1.1).contains(&slope), "{slope}");
}

/// The deviation of D/σ over minibatches of eight, at the exact solutions.
fn deviation(problem: &FiniteSum, sigma: f64, sharing: Sharing) -> f64 {
    const DRAWS: u64 = 4000;
    let oracle = Oracle::new(problem);
    let x = vec![0.8];
    let (y, z) = (problem.penalized(&x, sigma).y, problem.solution(&x));
    let batches = Batches::new(5, NonZeroUsize::new(8));
    let estimate = |k| {
        let lower = |stream| batches.draw(stream, k, 0, problem.terms(Level::Lower));
        let samples = Samples {
            upper: Sample::full(),
            lower: lower(Stream::OuterLower),
            apart: (sharing == Sharing::Independent).then(|| lower(Stream::OuterLowerApart)),
        };
        Penalty::forward(sigma).difference_x(&oracle, &x, &y, &z, &samples).unwrap()[0] / sigma
    };
    let found: Vec<f64> = (0..DRAWS).map(estimate).collect();
    let mean = found.iter().sum::<f64>() / DRAWS as f64;
    (found.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (DRAWS - 1) as f64).sqrt()
}

#[test]
fn a_shared_minibatch_keeps_the_variance_that_an_independent_one_divides_by_sigma() {
    let problem = FiniteSum::drawn(4000, &Draws::new(11));
    let over = |sharing| [0.1, 0.01, 0.001].map(|sigma| deviation(&problem, sigma, sharing));
    let (shared, apart) = (over(Sharing::Shared), over(Sharing::Independent));
    println!("shared {shared:.4?}, independent {apart:.3?}");
    // A deviation of 4000 draws is known to 1.1 %.
    assert!((shared[2] / shared[0] - 1.0).abs() < 0.2, "{shared:?}");
    assert!(apart.windows(2).all(|pair| (pair[1] / pair[0] / 10.0 - 1.0).abs() < 0.2), "{apart:?}");
}

#[test]
fn noise_of_its_own_in_every_gradient_is_averaged_by_the_batch() {
    // The lower gradients at y and at z are drawn apart, so that their noise does not cancel.
    let mean_norm = |batch: usize, seed| {
        let problem = Noisy::new(Quadratic::portable(), 0.5, NonZeroUsize::new(batch).unwrap(), seed);
        let config = DoubleLoopConfig {
            outer_steps: 200,
            sigma: Schedule::constant(0.1),
            warm_up: 1,
            gamma: Schedule::constant(0.4),
            alpha: Schedule::constant(0.3),
            sharing: Sharing::Independent,
            seed,
            ..Default::default()
        };
        let mut solver =
            DoubleLoop::new(config, &problem, vec![1.0; 5], vec![0.0; 10], vec![0.0; 10]).unwrap();
        let mut points = Vec::new();
        let measure = |x: &Vec<f64>| problem.hyper_gradient(x).norm();
        trace(&mut solver, &Oracle::new(&problem), 200, &mut points, measure).unwrap();
        points[150..].iter().map(|point| point.stationarity).sum::<f64>() / 50.0
    };
    let batches = [64, 256, 1024, 4096, 16_384];
    let found = batches.map(|batch| (0..4).map(|seed| mean_norm(batch, seed)).sum::<f64>() / 4.0);
    println!("mean ‖∇ψ‖ {found:.3?}");
    let points: Vec<_> = batches.iter().zip(found).map(|(batch, norm)| (*batch as f64, norm)).collect();
    let slope = log_log_slope(&points);
    println!("slope {slope:.3}");
    assert!((-0.6..=-0.4).contains(&slope), "{slope}");
    // Other random numbers gave these means; four seeds of fifty correlated steps leave about a tenth.
    assert_all_close(found, [0.793, 0.409, 0.208, 0.105, 0.052], 0.25, 0.0);
}

/// A noisy problem in which the two lower gradients of a difference carry noise of their own, which sharing cannot cancel.
struct Apart {
    noisy: Noisy<Quadratic>,
    deviation: f64,
    draws: Draws,
}

impl Problem for Apart {
    type X = Vec<f64>;
    type Y = Vec<f64>;

    fn value(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, sample: &Sample) -> f64 {
        self.noisy.value(level, x, y, sample)
    }

    fn gradient_x(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, sample: &Sample) -> Vec<f64> {
        self.noisy.gradient_x(level, x, y, sample)
    }

    fn gradient_y(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, sample: &Sample) -> Vec<f64> {
        self.noisy.gradient_y(level, x, y, sample)
    }

    fn lower_difference_x(&self, x: &Vec<f64>, y: &Vec<f64>, z: &Vec<f64>, sample: &Sample) -> Vec<f64> {
        let mut difference = self.noisy.lower_difference_x(x, y, z, sample);
        for (value, index) in difference.iter_mut().zip(0..) {
            // The difference of two independent noises.
            *value += 2f64.sqrt() * self.deviation * self.draws.normal(Purpose::Evaluate, sample.id, index);
        }
        difference
    }
}

/// What momentum did to one run of the single loop.
struct Momentum {
    /// Mean-squared error of the estimate of D over the last half, per that of raw gradients.
    error: f64,
    /// `‖∇ψ‖` averaged over the last fifth.
    norm: f64,
}

fn single_loop(seed: u64, steps: u64, eta: Schedule) -> Momentum {
    let exact = Quadratic::portable();
    let std = 0.5;
    let noisy = Noisy::new(Quadratic::portable(), std, NonZeroUsize::MIN, seed);
    let problem = Apart { noisy, deviation: std, draws: Draws::new(seed).child(1) };
    let power = |first, exponent| Schedule::Power { first, exponent, offset: 10.0 };
    let config = SingleLoopConfig {
        outer_steps: steps,
        sigma: power(1.0, -0.2),
        rho: 10.0,
        gamma: power(0.5, -0.4),
        beta: power(1.0, -0.4),
        alpha: power(0.05, -0.4),
        eta,
        seed,
        ..Default::default()
    };
    let mut solver = SingleLoop::new(config, &problem, vec![1.0; 5], vec![0.0; 10], vec![0.0; 10]).unwrap();
    let (oracle, all) = (Oracle::new(&problem), Sample::full());
    let (mut squared, mut raw, mut norms) = (0.0, 0.0, 0.0);
    for k in 0..steps {
        let x = Solver::<Apart>::x(&solver).clone();
        let sigma = solver.step(&oracle).unwrap().sigma.unwrap();
        if k >= steps / 2 {
            let (w_y, w_z) = solver.inner_points();
            let estimates = solver.estimates().unwrap();
            let found = estimates.difference_x.plus(sigma, &estimates.upper_x);
            let truth = exact
                .lower_difference_x(&x, w_y, w_z, &all)
                .plus(sigma, &exact.gradient_x(Level::Upper, &x, w_y, &all));
            squared += found.distance(&truth).powi(2);
            // Five coordinates, with the noise of one upper and two lower gradients.
            raw += 5.0 * std * std * (sigma * sigma + 2.0);
        }
        if k >= steps - steps / 5 {
            norms += exact.hyper_gradient(Solver::<Apart>::x(&solver)).norm();
        }
    }
    Momentum { error: squared / raw, norm: norms / (steps / 5) as f64 }
}

#[test]
fn momentum_removes_most_of_the_noise_and_does_no_harm() {
    const SEEDS: u64 = 5;
    let eta = Schedule::Power { first: 1.0, exponent: -0.8, offset: 10.0 };
    let [mut error, mut norm, mut plain_norm] = [0.0; 3];
    for seed in 0..SEEDS {
        let momentum = single_loop(seed, 32_000, eta);
        let plain = single_loop(seed, 32_000, Schedule::constant(1.0));
        // Without momentum the estimate is the raw gradient, whose error is known.
        assert!((plain.error - 1.0).abs() < 0.1, "{}", plain.error);
        error += momentum.error / SEEDS as f64;
        norm += momentum.norm / SEEDS as f64;
        plain_norm += plain.norm / SEEDS as f64;
    }
    println!("squared error {error:.5} of the raw one, ‖∇ψ‖ {norm:.4} and {plain_norm:.4} without");
    assert!(error < 0.02, "{error}");
    assert!(norm <= 1.1 * plain_norm, "{norm} and {plain_norm}");
}
