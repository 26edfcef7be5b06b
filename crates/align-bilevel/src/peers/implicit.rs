//! Approximate implicit differentiation: inner steps, a linear system, a hyper-gradient.

use std::num::NonZeroUsize;

use align_core::number::{NonNegative, Positive};
use serde::{Deserialize, Serialize};

use super::curvature::Curvature;
use super::inverse::{LinearSolution, conjugate_gradients, neumann_series};
use super::sampling::{Sampler, Sampling};
use super::steps::{begin, descend_lower, moved};
use crate::{BilevelError, Level, Oracle, Point, Problem, Solver, Step, Stream};

/// Settings of [`Implicit`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImplicitConfig {
    /// T: steps on g before each step of x. 10, as in the public benchmark.
    pub inner_steps: NonZeroUsize,
    /// Their size; below 2 over the curvature of g. 0.1, as in the released code of stocBiO.
    pub inner_step: Positive,
    /// The step of x along the hyper-gradient. 0.1, as in the released code of stocBiO.
    pub outer_step: Positive,
    /// How the Hessian is inverted.
    pub inverse: Inverse,
    /// Minibatches.
    pub sampling: Sampling,
}

/// How `H v = ∇ᵧ f` is solved.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Inverse {
    /// By conjugate gradients on one sample, from the v of the outer step before.
    ConjugateGradients {
        /// At most this many.
        iterations: NonZeroUsize,
        /// Stop at this residual, relative to `‖∇ᵧ f‖`.
        tolerance: NonNegative,
    },
    /// By a truncated Neumann series, on a sample of its own in every product.
    NeumannSeries {
        /// How many products.
        products: NonZeroUsize,
        /// η; below 2 over the curvature of g.
        step: Positive,
    },
}

impl ImplicitConfig {
    /// AID with conjugate gradients: ten of them, or until eight digits are right.
    pub fn aid() -> Self {
        Self {
            inner_steps: NonZeroUsize::new(10).expect("10 is not 0"),
            inner_step: Positive::literal(0.1),
            outer_step: Positive::literal(0.1),
            inverse: Inverse::ConjugateGradients {
                iterations: NonZeroUsize::new(10).expect("10 is not 0"),
                tolerance: NonNegative::literal(1e-8),
            },
            sampling: Sampling::default(),
        }
    }

    /// stocBiO: ten products of a Neumann series, with the step size of the inner steps, as in the public benchmark.
    pub fn stoc_bio() -> Self {
        let products = NonZeroUsize::new(10).expect("10 is not 0");
        Self { inverse: Inverse::NeumannSeries { products, step: Positive::literal(0.1) }, ..Self::aid() }
    }
}

impl Default for ImplicitConfig {
    fn default() -> Self {
        Self::aid()
    }
}

/// Implicit differentiation by Hessian products: AID with conjugate gradients, and stocBiO.
///
/// T warm-started steps on g give y; then `v ≈ [∇²ᵧᵧ g]⁻¹ ∇ᵧ f` and `x ← P_X(x − α (∇ₓ f − ∇²ₓᵧ g · v))`. Products with second
/// derivatives are differences of gradients, see [`Curvature`].
///
/// A singular Hessian is seen by conjugate gradients as soon as `∇ᵧ f` leaves its range, by the series not at all.
///
/// # Source
/// Pedregosa 2016, <https://arxiv.org/abs/1602.02355>, and Grazzi, Franceschi, Pontil, Salzo 2020,
/// <https://arxiv.org/abs/2006.16218>, for AID; Ji, Yang, Liang 2021, <https://arxiv.org/abs/2010.07962>, for stocBiO, whose
/// products come from automatic differentiation there. The projections are ours; where a bound of Y is active the implicit
/// formula does not hold.
///
/// # Examples
/// ```
/// use align_bilevel::peers::{Implicit, ImplicitConfig};
/// use align_bilevel::problems::{ClosedForm, Quadratic};
/// use align_bilevel::{Oracle, Point, Solver, run};
/// use std::ops::ControlFlow;
///
/// let problem = Quadratic::vector();
/// let oracle = Oracle::new(&problem);
/// let mut solver = Implicit::new(ImplicitConfig::aid(), vec![0.7, -0.4], vec![0.0, 0.0]);
/// run(&mut solver, &oracle, 600, |_, _, _| ControlFlow::Continue(()))?;
/// assert!(problem.hyper_gradient(Solver::<Quadratic>::x(&solver)).norm() < 1e-6);
/// # Ok::<(), align_bilevel::BilevelError>(())
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Implicit<X, Y> {
    config: ImplicitConfig,
    x: X,
    y: Y,
    v: Y,
    iterations: u64,
}

impl<X: Point, Y: Point> Implicit<X, Y> {
    /// From a start.
    pub fn new(config: ImplicitConfig, x: X, y: Y) -> Self {
        let v = y.zeros();
        Self { config, x, y, v, iterations: 0 }
    }

    fn invert<P: Problem<X = X, Y = Y>>(
        &self,
        oracle: &Oracle<'_, P>,
        sampler: &Sampler,
        y: &Y,
        b: &Y,
    ) -> Result<LinearSolution<Y>, BilevelError> {
        let curvature = Curvature::at(oracle, &self.x, y);
        let outer = self.iterations;
        match self.config.inverse {
            Inverse::ConjugateGradients { iterations, tolerance } => {
                let sample = sampler.draw(Stream::OuterLower, 0);
                let product = |v: &Y| curvature.hessian(v, &sample);
                conjugate_gradients(product, b, &self.v, iterations, tolerance, outer)
            }
            Inverse::NeumannSeries { products, step } => {
                // After those of the inner steps, whose addresses end at T.
                let first = self.config.inner_steps.get();
                let product = |v: &Y, index| {
                    curvature.hessian(v, &sampler.draw(Stream::InnerLower, (first + index) as u64))
                };
                neumann_series(product, b, step, products, outer)
            }
        }
    }
}

impl<P: Problem> Solver<P> for Implicit<P::X, P::Y> {
    fn step(&mut self, oracle: &Oracle<'_, P>) -> Result<Step, BilevelError> {
        let (config, outer) = (&self.config, self.iterations);
        let sampler = begin(oracle, &config.sampling, outer, &self.x, &self.y, None)?;
        let inner =
            descend_lower(oracle, &sampler, &self.x, &self.y, config.inner_step.get(), config.inner_steps)?;
        oracle.at(outer, config.inner_steps.get() as u64);
        let upper = sampler.draw(Stream::OuterUpper, 0);
        let b = oracle.gradient_y(Level::Upper, &self.x, &inner.y, &upper)?;
        let mut hyper_gradient = oracle.gradient_x(Level::Upper, &self.x, &inner.y, &upper)?;
        let solved = self.invert(oracle, &sampler, &inner.y, &b)?;
        let cross = Curvature::at(oracle, &self.x, &inner.y)
            .cross(&solved.v, &sampler.draw(Stream::OuterLower, 0))?;
        hyper_gradient.add_scaled(-1.0, &cross);
        let problem = oracle.problem();
        let step = config.outer_step.get();
        self.x = moved(("x", &self.x), step, &hyper_gradient, |x| problem.project_x(x), outer)?;
        (self.y, self.v) = (inner.y, solved.v);
        self.iterations += 1;
        Ok(Step {
            iteration: outer,
            sigma: None,
            gradient_norm: hyper_gradient.norm(),
            residual: Some(inner.residual.max(solved.residual)),
        })
    }

    fn x(&self) -> &P::X {
        &self.x
    }

    fn y(&self) -> &P::Y {
        &self.y
    }

    fn iterations(&self) -> u64 {
        self.iterations
    }
}
