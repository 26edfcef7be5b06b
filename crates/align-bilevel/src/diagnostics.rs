//! What tells whether a penalised gradient can be trusted: its error against σ, the proximal error bound, and how
//! stationarity falls with the calls that were paid for it.

use std::ops::ControlFlow;

use align_core::draws::{Draws, Purpose};
use serde::{Deserialize, Serialize};

use crate::descent::{Descent, descend};
use crate::proximal::proximal_point;
use crate::schedule::{check_count, check_step};
use crate::{BilevelError, Calls, Oracle, Point, Problem, Sample, Solver, Warning, check_sigma, run};

/// The least-squares slope of ln y against ln x: the order of y in x.
///
/// # Panics
/// With fewer than two points, or a number that is not above 0.
///
/// # Examples
/// ```
/// use align_bilevel::log_log_slope;
///
/// let cubes = [1.0, 2.0, 4.0].map(|x: f64| (x, 7.0 * x.powi(3)));
/// assert!((log_log_slope(&cubes) - 3.0).abs() < 1e-12);
/// ```
pub fn log_log_slope(points: &[(f64, f64)]) -> f64 {
    assert!(points.len() >= 2, "a slope of {} points", points.len());
    assert!(points.iter().all(|(x, y)| *x > 0.0 && *y > 0.0), "a logarithm of {points:?}");
    let count = points.len() as f64;
    let (x_mean, y_mean) =
        points.iter().fold((0.0, 0.0), |(a, b), (x, y)| (a + x.ln() / count, b + y.ln() / count));
    let (across, along) = points.iter().fold((0.0, 0.0), |(across, along), (x, y)| {
        let dx = x.ln() - x_mean;
        (across + dx * (y.ln() - y_mean), along + dx * dx)
    });
    across / along
}

/// The error of a hyper-gradient at one σ.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SigmaError {
    /// The penalty.
    pub sigma: f64,
    /// `‖∇ψ_σ(x) − ∇ψ(x)‖`.
    pub error: f64,
}

/// How the error of a hyper-gradient falls with σ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BiasOrder {
    /// In the order in which the σ were given.
    pub errors: Vec<SigmaError>,
    /// The slope of ln error against ln σ: 1 where the theory applies, 2 for central differences.
    pub slope: f64,
}

/// The error of `estimate(σ)` against the exact gradient, for each σ.
///
/// # Errors
/// Of `estimate`.
///
/// # Panics
/// With fewer than two σ, or if an error is exactly 0: a slope then means nothing.
pub fn bias_order<X: Point>(
    sigmas: &[f64],
    exact: &X,
    mut estimate: impl FnMut(f64) -> Result<X, BilevelError>,
) -> Result<BiasOrder, BilevelError> {
    let error = |&sigma| Ok(SigmaError { sigma, error: estimate(sigma)?.distance(exact) });
    let errors = sigmas.iter().map(error).collect::<Result<Vec<_>, BilevelError>>()?;
    let points: Vec<_> = errors.iter().map(|at| (at.sigma, at.error)).collect();
    Ok(BiasOrder { slope: log_log_slope(&points), errors })
}

/// How the proximal error bound is probed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ErrorBoundConfig {
    /// How many starts around y.
    pub samples: usize,
    /// The largest distance of a start from y.
    pub radius: f64,
    /// ρ of the proximal steps.
    pub rho: f64,
    /// How many proximal steps from each start. They leave the stiff directions behind, and with them the points at which the
    /// bound is easy.
    pub proximal_steps: usize,
    /// How the proximal problems and the lower problem are solved.
    pub descent: Descent,
    /// Of the starts.
    pub seed: u64,
}

impl Default for ErrorBoundConfig {
    /// Twenty starts of ten steps; the rest in the units of most problems.
    fn default() -> Self {
        let descent = Descent::default();
        Self { samples: 20, radius: 0.1, rho: 1.0, proximal_steps: 10, descent, seed: 0 }
    }
}

/// A point near the lower solutions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BoundSample {
    /// To the solution that a descent from it ends at: at least that to the nearest.
    pub distance: f64,
    /// `R(y) = ‖y − prox_{ρh}(y)‖/ρ` with `h = σf + g`.
    pub residual: f64,
}

/// An estimate of the constant μ of `R(y) ≥ μ dist(y, T(x, σ))`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorBound {
    /// The least residual per distance: an estimate of μ, from above over the points of the region and from below at
    /// each point. The bias of the hyper-gradient is of the order of σ/μ³. Infinite if no point was apart from a solution.
    pub constant: f64,
    /// All points that were looked at.
    pub samples: Vec<BoundSample>,
}

impl ErrorBound {
    /// A warning if the constant is below a thousandth.
    pub fn warning(&self) -> Option<Warning> {
        (self.constant < 1e-3).then_some(Warning::WeakErrorBound { constant: self.constant })
    }
}

/// Probes the proximal error bound of `h = σf + g` (of g itself at σ = 0) around y.
///
/// From each of several starts near y a few proximal steps are made, and every point on the way is compared with the
/// solution at the end of it. For a strongly convex quadratic of least curvature a the constant is `a/(1 + ρa)`. Where f breaks
/// ties along flat directions of g, it is of the order of σ, and the bound of the theory does not hold uniformly.
///
/// # Errors
/// If a setting is out of range, or a gradient not finite; of [`descend`].
///
/// # Source
/// Kwon, Kwon, Wright, Nowak 2024, assumption 1, <https://arxiv.org/abs/2309.01753>, for the bound; this way to
/// estimate it is ours.
pub fn error_bound<P: Problem<Y = Vec<f64>>>(
    oracle: &Oracle<'_, P>,
    x: &P::X,
    y: &Vec<f64>,
    sigma: f64,
    config: &ErrorBoundConfig,
) -> Result<ErrorBound, BilevelError> {
    if sigma != 0.0 {
        check_sigma(sigma, y.unit_roundoff())?;
    }
    check_count("the samples of an error bound", config.samples, usize::MAX)?;
    check_step("the radius of an error bound", config.radius)?;
    let all = Sample::full();
    let gradient = |y: &Vec<f64>| oracle.perturbed_gradient_y(sigma, x, y, &all, &all);
    let project = |y: &mut Vec<f64>| oracle.problem().project_y(y);

    let mut samples = Vec::new();
    for index in 0..config.samples as u64 {
        let mut path = vec![start_near(y, config.radius, Draws::new(config.seed), index)];
        project(&mut path[0]);
        for _ in 0..config.proximal_steps {
            let last = &path[path.len() - 1];
            path.push(proximal_point(last, config.rho, &config.descent, gradient, project)?);
        }
        let solution = descend(path[path.len() - 1].clone(), &config.descent, gradient, project)?.point;
        for pair in path.windows(2) {
            let (distance, residual) = (pair[0].distance(&solution), pair[0].distance(&pair[1]) / config.rho);
            // Closer than the solution is known, the ratio is rounding.
            if distance > 1e3 * config.descent.tolerance * (1.0 + solution.norm()) {
                samples.push(BoundSample { distance, residual });
            }
        }
    }
    let constant = samples.iter().map(|at| at.residual / at.distance).fold(f64::INFINITY, f64::min);
    Ok(ErrorBound { constant, samples })
}

/// A point in a uniformly random direction, at up to the radius.
fn start_near(y: &[f64], radius: f64, draws: Draws, index: u64) -> Vec<f64> {
    let normal = |i| draws.normal(Purpose::Evaluate, index, i);
    let direction: Vec<f64> = (0..y.len() as u64).map(normal).collect();
    let length = radius * (1.0 - draws.token(Purpose::Sample, 0, index, 0, 0));
    y.to_vec().plus(length / direction.norm(), &direction)
}

/// How stationary x was after a number of calls.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TracePoint {
    /// After how many outer steps.
    pub iteration: u64,
    /// After how many calls.
    pub calls: Calls,
    /// The penalty of the last step, where the method has one.
    pub sigma: Option<f64>,
    /// The method's own estimate of `‖∇ψ‖` in that step, before x was moved.
    pub estimate: f64,
    /// What `measure` gives at x now.
    pub stationarity: f64,
}

/// Runs a solver to `iterations` in all, and writes down after each step how stationary x is by `measure`.
///
/// The points go where they are wanted, so that a run which fails leaves those before the failure.
///
/// # Errors
/// Of the solver's steps.
///
/// # Examples
/// ```
/// use align_bilevel::problems::{ClosedForm, Quadratic};
/// use align_bilevel::{DoubleLoop, DoubleLoopConfig, Oracle, Point, trace};
///
/// let problem = Quadratic::portable();
/// let zeros = vec![0.0; 10];
/// let config = DoubleLoopConfig { outer_steps: 50, ..Default::default() };
/// let mut solver = DoubleLoop::new(config, &problem, vec![1.0; 5], zeros.clone(), zeros)?;
/// let mut points = Vec::new();
/// trace(&mut solver, &Oracle::new(&problem), 50, &mut points, |x| problem.hyper_gradient(x).norm())?;
/// assert!(points[49].stationarity < points[0].stationarity);
/// # Ok::<(), align_bilevel::BilevelError>(())
/// ```
pub fn trace<P: Problem, S: Solver<P> + ?Sized>(
    solver: &mut S,
    oracle: &Oracle<'_, P>,
    iterations: u64,
    points: &mut Vec<TracePoint>,
    mut measure: impl FnMut(&P::X) -> f64,
) -> Result<Calls, BilevelError> {
    run(solver, oracle, iterations, |solver, step, calls| {
        points.push(TracePoint {
            iteration: step.iteration + 1,
            calls,
            sigma: step.sigma,
            estimate: step.gradient_norm,
            stationarity: measure(solver.x()),
        });
        ControlFlow::Continue(())
    })
}
