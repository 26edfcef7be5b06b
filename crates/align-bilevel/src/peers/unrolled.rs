//! Reverse mode through inner gradient steps.

use std::num::NonZeroUsize;

use align_core::number::Positive;
use serde::{Deserialize, Serialize};

use super::curvature::Curvature;
use super::sampling::Sampling;
use super::steps::{Descended, begin, lower_step, moved};
use crate::{BilevelError, Level, Oracle, Point, Problem, Sample, Solver, Step, Stream};

/// Settings of [`Unrolled`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UnrolledConfig {
    /// T: steps on g before each step of x.
    pub inner_steps: NonZeroUsize,
    /// K: the last of them, through which the gradient goes back; all of them if there are fewer. Memory grows with it.
    pub back_steps: NonZeroUsize,
    /// The size of the inner steps; below 2 over the curvature of g.
    pub inner_step: Positive,
    /// The step of x along the hyper-gradient.
    pub outer_step: Positive,
    /// Minibatches.
    pub sampling: Sampling,
}

impl Default for UnrolledConfig {
    /// As [`ImplicitConfig`](super::ImplicitConfig), all of ten steps.
    fn default() -> Self {
        let ten = NonZeroUsize::new(10).expect("10 is not 0");
        Self {
            inner_steps: ten,
            back_steps: ten,
            inner_step: Positive::literal(0.1),
            outer_step: Positive::literal(0.1),
            sampling: Sampling::default(),
        }
    }
}

/// Truncated back-propagation through the inner steps.
///
/// Forward, `yₜ₊₁ = yₜ − γ ∇ᵧ g(x, yₜ)` for T steps from the y of before. Backward from `a = ∇ᵧ f(x, y_T)`, through the last K
/// steps, `d ← d − γ ∇²ₓᵧ g(x, yₜ) · a` and `a ← a − γ ∇²ᵧᵧ g(x, yₜ) · a`; then `x ← P_X(x − α (∇ₓ f + d))`. This is the implicit
/// hyper-gradient with the inverse Hessian replaced by K terms of its Neumann series, each where the iterate was.
///
/// The start of the inner steps counts as a constant. Products with second derivatives are differences of gradients, see
/// [`Curvature`].
///
/// # Source
/// Shaban, Cheng, Hatch, Boots 2019, <https://arxiv.org/abs/1810.10667>; with K = T Franceschi, Donini, Frasconi, Pontil 2017,
/// <https://arxiv.org/abs/1703.01785>. There by automatic differentiation. The projections are ours, and not gone back
/// through.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unrolled<X, Y> {
    config: UnrolledConfig,
    x: X,
    y: Y,
    iterations: u64,
}

impl<X: Point, Y: Point> Unrolled<X, Y> {
    /// From a start.
    pub fn new(config: UnrolledConfig, x: X, y: Y) -> Self {
        Self { config, x, y, iterations: 0 }
    }
}

impl<P: Problem> Solver<P> for Unrolled<P::X, P::Y> {
    fn step(&mut self, oracle: &Oracle<'_, P>) -> Result<Step, BilevelError> {
        let (config, outer, problem) = (&self.config, self.iterations, oracle.problem());
        let sampler = begin(oracle, &config.sampling, outer, &self.x, &self.y, None)?;
        let (steps, gamma) = (config.inner_steps.get(), config.inner_step.get());
        let first_kept = steps.saturating_sub(config.back_steps.get());

        let mut at = Descended { y: self.y.clone(), residual: 0.0 };
        let mut path: Vec<(P::Y, Sample)> = Vec::with_capacity(steps - first_kept);
        for inner in 0..steps {
            oracle.at(outer, inner as u64);
            let sample = sampler.draw(Stream::InnerLower, inner as u64);
            let slope = oracle.gradient_y(Level::Lower, &self.x, &at.y, &sample)?;
            let next = lower_step(problem, &at.y, gamma, &slope, outer)?;
            if inner >= first_kept {
                path.push((at.y, sample));
            }
            at = next;
        }

        let upper = sampler.draw(Stream::OuterUpper, 0);
        let mut adjoint = oracle.gradient_y(Level::Upper, &self.x, &at.y, &upper)?;
        let mut hyper_gradient = oracle.gradient_x(Level::Upper, &self.x, &at.y, &upper)?;
        for (back, (y, sample)) in path.iter().enumerate().rev() {
            oracle.at(outer, (first_kept + back) as u64);
            let curvature = Curvature::at(oracle, &self.x, y);
            hyper_gradient.add_scaled(-gamma, &curvature.cross(&adjoint, sample)?);
            if back > 0 {
                let bent = curvature.hessian(&adjoint, sample)?;
                adjoint.add_scaled(-gamma, &bent);
            }
        }

        let step = config.outer_step.get();
        self.x = moved(("x", &self.x), step, &hyper_gradient, |x| problem.project_x(x), outer)?;
        self.y = at.y;
        self.iterations += 1;
        Ok(Step {
            iteration: outer,
            sigma: None,
            gradient_norm: hyper_gradient.norm(),
            residual: Some(at.residual),
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
