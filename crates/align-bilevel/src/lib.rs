//! Bilevel optimisation by penalties, with first derivatives only.
//!
//! Above a training run there is something to tune: weights of the data, a reward, the coefficient of a KL. Call it x, what is
//! trained y, and what the training minimises g(x, y). The question is which x makes the *trained* y good for an objective f:
//! minimise `ψ(x) = f(x, y*(x))`. The exact gradient of ψ has the inverse of a Hessian in it. Here, two copies of y are
//! trained instead, y on `σf + g` and z on g alone, and
//!
//! ```text
//! ∇ₓf(x, y) + (∇ₓg(x, y) − ∇ₓg(x, z)) / σ
//! ```
//!
//! is the gradient of a penalised objective ψ_σ, whose distance from ∇ψ is of the order of σ. g may be nonconvex, may
//! have many minimisers, and y may be confined to a convex set, as long as a small residual means a near solution: the proximal
//! error bound, which can be measured.
//!
//! | topic | where |
//! | --- | --- |
//! | a problem, its points, counted gradients, samples | [`Problem`], [`Point`], [`Oracle`], [`Batches`] |
//! | a problem from two functions | [`Functions`] |
//! | a problem over Burn modules | [`ModuleProblem`], [`Modules`], [`Parameters`] |
//! | closed convex sets and their projections | [`Set`], [`Constrained`] |
//! | proximal steps, envelopes, minima to a residual | [`proximal_point`], [`moreau_envelope`], [`descend`] |
//! | ψ_σ, its gradient, stationarity | [`psi_sigma`], [`Penalty`], [`stationarity`] |
//! | the algorithms | [`DoubleLoop`], [`SingleLoop`], and [`run`] |
//! | what they are compared with | [`peers`] |
//! | whether to believe the result | [`bias_order`], [`error_bound`], [`trace`], [`Warning`] |
//! | cleaning preferences, tuning β, designing rewards | [`alignment`] |
//! | problems with known answers | [`problems`] |
//!
//! # What to know before the first run
//! - The lower gradients at y and at z must see the same minibatch. With samples of their own, the deviation of the
//!   hyper-gradient is of the order of 1/σ. [`Sharing::Shared`] is the default.
//! - An error in y or z is divided by σ. The inner loop has to be that much better, and where f breaks ties among minimisers of g
//!   it also converges more slowly, by 1/σ.
//! - In f32 there is nothing to gain below σ = 10⁻⁴, and it is refused; in f64 the floor is 4.3·10⁻⁹. See [`check_sigma`].
//! - An outer step beyond 2 over the curvature of ψ diverges at every σ. That is seen, and reported as
//!   [`BilevelError::Diverged`].
//! - Where the lower solution jumps with x, no σ is small enough. [`error_bound`] shows it.
//!
//! # Source
//! Kwon, Kwon, Wright, Nowak 2024, "On penalty methods for nonconvex bilevel optimization and first-order stochastic
//! approximation", <https://arxiv.org/abs/2309.01753>. The paper has no experiments; the layout of both algorithms and the exponents of
//! their schedules are reconstructed here, and every default says where it comes from.
//!
//! # Examples
//! Two measurements, 1 and 5, of which the second may be wrong; a trusted one says 1.1. Which weight should the second have
//! in the fit?
//! ```
//! use std::ops::ControlFlow;
//!
//! use align_bilevel::{DoubleLoop, DoubleLoopConfig, Level, Oracle, Problem, Sample, Schedule, run};
//!
//! struct Weigh;
//!
//! fn weight(x: f64) -> f64 {
//!     1.0 / (1.0 + (-x).exp())
//! }
//!
//! impl Problem for Weigh {
//!     type X = Vec<f64>;
//!     type Y = Vec<f64>;
//!
//!     fn value(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _: &Sample) -> f64 {
//!         match level {
//!             Level::Upper => (y[0] - 1.1).powi(2) / 2.0,
//!             Level::Lower => (y[0] - 1.0).powi(2) / 2.0 + weight(x[0]) * (y[0] - 5.0).powi(2) / 2.0,
//!         }
//!     }
//!
//!     fn gradient_x(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _: &Sample) -> Vec<f64> {
//!         match level {
//!             Level::Upper => vec![0.0],
//!             Level::Lower => {
//!                 let s = weight(x[0]);
//!                 vec![s * (1.0 - s) * (y[0] - 5.0).powi(2) / 2.0]
//!             }
//!         }
//!     }
//!
//!     fn gradient_y(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _: &Sample) -> Vec<f64> {
//!         match level {
//!             Level::Upper => vec![y[0] - 1.1],
//!             Level::Lower => vec![y[0] - 1.0 + weight(x[0]) * (y[0] - 5.0)],
//!         }
//!     }
//! }
//!
//! let config = DoubleLoopConfig {
//!     outer_steps: 500,
//!     gamma: Schedule::constant(0.3),
//!     alpha: Schedule::constant(5.0),
//!     ..Default::default()
//! };
//! let mut solver = DoubleLoop::new(config, &Weigh, vec![0.0], vec![0.0], vec![0.0])?;
//! let calls = run(&mut solver, &Oracle::new(&Weigh), 500, |_, _, _| ControlFlow::Continue(()))?;
//!
//! // The fit (1 + 5s)/(1 + s) is 1.1 at s = 1/39.
//! assert!((weight(solver.answer()[0]) - 1.0 / 39.0).abs() < 1e-4);
//! assert_eq!(calls.total(), 3 * (100 + 499 * 10) + 3 * 500);
//! # Ok::<(), align_bilevel::BilevelError>(())
//! ```

pub mod alignment;
mod batch;
mod constrained;
mod curvature;
mod descent;
mod diagnostics;
mod divergence;
mod double_loop;
mod error;
mod functions;
mod module_problem;
mod oracle;
mod parameters;
pub mod peers;
mod penalty;
mod point;
mod problem;
pub mod problems;
mod proximal;
mod sample;
mod schedule;
mod sets;
mod single_loop;
mod solver;
mod warning;

pub use batch::LevelBatches;
pub use constrained::Constrained;
pub use curvature::least_curvature;
pub use descent::{Descent, Minimum, descend};
pub use diagnostics::{
    BiasOrder, BoundSample, ErrorBound, ErrorBoundConfig, SigmaError, TracePoint, bias_order, error_bound,
    log_log_slope, trace,
};
pub use double_loop::{DoubleLoop, DoubleLoopConfig, Iterate, Sharing, StepScale};
pub use error::BilevelError;
pub use functions::{Functions, Slopes};
pub use module_problem::{ModuleProblem, Modules};
pub use oracle::{Calls, Oracle};
pub use parameters::Parameters;
pub use penalty::{Difference, Penalty, PsiSigma, Samples, check_sigma, psi_sigma, stationarity};
pub use point::Point;
pub use problem::{Level, Problem};
pub use proximal::{Envelope, moreau_envelope, proximal_point};
pub use sample::{Batches, Sample, Stream};
pub use schedule::{Count, Schedule};
pub use sets::{Part, Set, SetConfig};
pub use single_loop::{Estimates, SingleLoop, SingleLoopConfig, recursive_momentum};
pub use solver::{Solver, Step, run};
pub use warning::{Smoothness, Warning};
