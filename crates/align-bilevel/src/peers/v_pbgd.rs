//! Gradient descent on the upper objective with a penalty on the lower level's value gap.

use std::num::NonZeroUsize;

use align_core::number::Positive;
use serde::{Deserialize, Serialize};

use super::sampling::Sampling;
use super::steps::{begin, descend_lower, moved};
use crate::{BilevelError, Level, Oracle, Point, Problem, Solver, Step, Stream};

/// Settings of [`VPbgd`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VPbgdConfig {
    /// T: warm-started steps on g before each joint step. 1, as in the released code.
    pub inner_steps: NonZeroUsize,
    /// Their size.
    pub inner_step: Positive,
    /// The joint step of x and y.
    pub joint_step: Positive,
    /// γ in the end, 1/σ elsewhere in this crate. 10, as in the released toy; large networks were trained with 0.1.
    pub gamma: Positive,
    /// Over how many outer steps γ rises from 0 to that, linearly; 0 for no rise.
    pub ramp: u64,
    /// Minibatches.
    pub sampling: Sampling,
}

impl Default for VPbgdConfig {
    fn default() -> Self {
        Self {
            inner_steps: NonZeroUsize::MIN,
            inner_step: Positive::literal(0.1),
            joint_step: Positive::literal(0.1),
            gamma: Positive::literal(10.0),
            ramp: 0,
            sampling: Sampling::default(),
        }
    }
}

impl VPbgdConfig {
    /// γ at an outer step.
    fn gamma_at(&self, outer: u64) -> f64 {
        match outer < self.ramp {
            true => self.gamma.get() * (outer as f64 / self.ramp as f64),
            false => self.gamma.get(),
        }
    }
}

/// V-PBGD: projected steps of x and y together on `min(1/γ, 1) · (f(x, y) + γ (g(x, y) − g(x, ŷ)))`.
///
/// ŷ follows the minimiser of g by T warm-started steps, and counts as a constant. The factor `min(1/γ, 1)` keeps the
/// length of a step independent of γ.
///
/// The y of the solver is that of the joint step, a minimiser of `f/γ + g` in the end, and not ŷ.
///
/// The norm reported is that of the gradient in x without the factor, which estimates `∇ψ` once y is near the minimiser of
/// `f/γ + g`.
///
/// # Source
/// Shen, Chen 2023, "On penalty-based bilevel gradient descent method", <https://arxiv.org/abs/2302.05185>; the factor and
/// the ramp of γ are from the released code.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VPbgd<X, Y> {
    config: VPbgdConfig,
    x: X,
    y: Y,
    follower: Y,
    iterations: u64,
}

impl<X: Point, Y: Point> VPbgd<X, Y> {
    /// From a start; ŷ begins at y.
    pub fn new(config: VPbgdConfig, x: X, y: Y) -> Self {
        Self { config, x, follower: y.clone(), y, iterations: 0 }
    }
}

impl<P: Problem> Solver<P> for VPbgd<P::X, P::Y> {
    fn step(&mut self, oracle: &Oracle<'_, P>) -> Result<Step, BilevelError> {
        let (config, outer, problem) = (&self.config, self.iterations, oracle.problem());
        let (x, y) = (&self.x, &self.y);
        let sampler = begin(oracle, &config.sampling, outer, x, y, None)?;
        let follower =
            descend_lower(oracle, &sampler, x, &self.follower, config.inner_step.get(), config.inner_steps)?;
        oracle.at(outer, config.inner_steps.get() as u64);

        let [upper, lower] = [Stream::OuterUpper, Stream::OuterLower].map(|stream| sampler.draw(stream, 0));
        let gamma = config.gamma_at(outer);
        let mut along_x = oracle.gradient_x(Level::Upper, x, y, &upper)?;
        along_x.add_scaled(gamma, &oracle.lower_difference_x(x, y, &follower.y, &lower)?);
        let mut along_y = oracle.gradient_y(Level::Upper, x, y, &upper)?;
        along_y.add_scaled(gamma, &oracle.gradient_y(Level::Lower, x, y, &lower)?);

        let step = config.joint_step.get() * gamma.recip().min(1.0);
        let next_x = moved(("x", x), step, &along_x, |x| problem.project_x(x), outer)?;
        let next_y = moved(("y", y), step, &along_y, |y| problem.project_y(y), outer)?;
        (self.x, self.y, self.follower) = (next_x, next_y, follower.y);
        self.iterations += 1;
        Ok(Step {
            iteration: outer,
            sigma: (gamma > 0.0).then(|| gamma.recip()),
            gradient_norm: along_x.norm(),
            residual: Some(follower.residual),
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
