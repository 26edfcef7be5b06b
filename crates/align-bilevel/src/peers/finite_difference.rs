//! The hyper-gradient by moving every coordinate of x: slow, and assuming nothing.

use std::num::NonZeroUsize;

use align_core::number::Positive;
use serde::{Deserialize, Serialize};

use super::sampling::Sampling;
use super::steps::{begin, descend_lower, moved};
use crate::{BilevelError, Level, Oracle, Point, Problem, Sample, Solver, Step};

/// Settings of [`FiniteDifference`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FiniteDifferenceConfig {
    /// T: steps on g wherever it is solved.
    pub inner_steps: NonZeroUsize,
    /// Their size; below 2 over the curvature of g.
    pub inner_step: Positive,
    /// The step of x along the hyper-gradient.
    pub outer_step: Positive,
    /// By how much a coordinate xⱼ is moved up and down, in units of `1 + |xⱼ|`. 10⁻⁵ balances rounding and truncation of
    /// a central difference in f64.
    pub difference: Positive,
}

impl Default for FiniteDifferenceConfig {
    fn default() -> Self {
        Self {
            inner_steps: NonZeroUsize::new(100).expect("100 is not 0"),
            inner_step: Positive::literal(0.1),
            outer_step: Positive::literal(0.1),
            difference: Positive::literal(1e-5),
        }
    }
}

/// Ground truth: `∂ψ/∂xⱼ ≈ (f(x + hⱼ, y(x + hⱼ)) − f(x − hⱼ, y(x − hⱼ))) / 2h`, the lower level solved anew for each.
///
/// y(·) is T steps on g from the solution at x, so that what is left of the start cancels in the difference. All terms are
/// used. For x a vector; the cost grows with its length.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FiniteDifference<Y> {
    config: FiniteDifferenceConfig,
    x: Vec<f64>,
    y: Y,
    iterations: u64,
}

impl<Y: Point> FiniteDifference<Y> {
    /// From a start.
    pub fn new(config: FiniteDifferenceConfig, x: Vec<f64>, y: Y) -> Self {
        Self { config, x, y, iterations: 0 }
    }
}

impl<P: Problem<X = Vec<f64>>> Solver<P> for FiniteDifference<P::Y> {
    fn step(&mut self, oracle: &Oracle<'_, P>) -> Result<Step, BilevelError> {
        let (config, outer, problem) = (&self.config, self.iterations, oracle.problem());
        let sampler = begin(oracle, &Sampling::default(), outer, &self.x, &self.y, None)?;
        let solve =
            |x: &_, y: &_| descend_lower(oracle, &sampler, x, y, config.inner_step.get(), config.inner_steps);
        let base = solve(&self.x, &self.y)?;
        let mut hyper_gradient = vec![0.0; self.x.len()];
        for (j, slope) in hyper_gradient.iter_mut().enumerate() {
            let h = config.difference.get() * (1.0 + self.x[j].abs());
            let value_at = |by: f64| {
                let mut x = self.x.clone();
                x[j] += by;
                let solved = solve(&x, &base.y)?;
                oracle.value(Level::Upper, &x, &solved.y, &Sample::full())
            };
            *slope = (value_at(h)? - value_at(-h)?) / (2.0 * h);
        }
        let step = config.outer_step.get();
        self.x = moved(("x", &self.x), step, &hyper_gradient, |x| problem.project_x(x), outer)?;
        self.y = base.y;
        self.iterations += 1;
        Ok(Step {
            iteration: outer,
            sigma: None,
            gradient_norm: hyper_gradient.norm(),
            residual: Some(base.residual),
        })
    }

    fn x(&self) -> &Vec<f64> {
        &self.x
    }

    fn y(&self) -> &P::Y {
        &self.y
    }

    fn iterations(&self) -> u64 {
        self.iterations
    }
}
