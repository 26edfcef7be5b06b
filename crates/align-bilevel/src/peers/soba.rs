//! All three variables in one loop.

use align_core::number::{Finite, Positive};
use serde::{Deserialize, Serialize};

use super::curvature::Curvature;
use super::power::Power;
use super::sampling::Sampling;
use super::steps::{begin, moved};
use crate::{BilevelError, Level, Oracle, Point, Problem, Sample, Solver, Step, Stream};

/// Settings of [`Soba`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SobaConfig {
    /// Of y and v. `0.1 (k + 1)^(−1/2)`, as in the public benchmark.
    pub inner_step: Power,
    /// Of x.
    pub outer_step: Power,
    /// Minibatches.
    pub sampling: Sampling,
}

impl Default for SobaConfig {
    fn default() -> Self {
        let decaying = Power::new(Positive::literal(0.1), Finite::literal(-0.5));
        Self { inner_step: decaying, outer_step: decaying, sampling: Sampling::default() }
    }
}

/// The directions of y, v and x at one point, each linear in the terms of f and g.
pub(super) struct Directions<X, Y> {
    /// `∇ᵧ g`, and `∇²ᵧᵧ g · v`, and `∇²ₓᵧ g · v`.
    pub(super) lower: (Y, Y, X),
    /// `∇ᵧ f` and `∇ₓ f`.
    pub(super) upper: (Y, X),
}

/// The five gradients and products that SOBA and SABA take: seven calls, three where v is 0.
pub(super) fn directions<P: Problem>(
    oracle: &Oracle<'_, P>,
    (x, y, v): (&P::X, &P::Y, &P::Y),
    upper: &Sample,
    lower: &Sample,
) -> Result<Directions<P::X, P::Y>, BilevelError> {
    let slope = oracle.gradient_y(Level::Lower, x, y, lower)?;
    let curvature = Curvature::at(oracle, x, y);
    Ok(Directions {
        lower: (slope, curvature.hessian(v, lower)?, curvature.cross(v, lower)?),
        upper: (oracle.gradient_y(Level::Upper, x, y, upper)?, oracle.gradient_x(Level::Upper, x, y, upper)?),
    })
}

/// Where y, v and x stand.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Triple<X, Y> {
    pub(super) x: X,
    pub(super) y: Y,
    /// Tends to `−[∇²ᵧᵧ g]⁻¹ ∇ᵧ f`.
    pub(super) v: Y,
}

impl<X: Point, Y: Point> Triple<X, Y> {
    pub(super) fn new(x: X, y: Y) -> Self {
        Self { x, v: y.zeros(), y }
    }

    /// One step of each of the three, at once.
    pub(super) fn advance<P: Problem<X = X, Y = Y>>(
        &mut self,
        problem: &P,
        along: Directions<X, Y>,
        inner_step: f64,
        outer_step: f64,
        outer: u64,
    ) -> Result<Step, BilevelError> {
        let (slope, mut residual, mut hyper_gradient) = along.lower;
        residual.add_scaled(1.0, &along.upper.0);
        hyper_gradient.add_scaled(1.0, &along.upper.1);
        let y = moved(("y", &self.y), inner_step, &slope, |y| problem.project_y(y), outer)?;
        let v = moved(("v", &self.v), inner_step, &residual, |_| {}, outer)?;
        let x = moved(("x", &self.x), outer_step, &hyper_gradient, |x| problem.project_x(x), outer)?;
        *self = Self { x, y, v };
        Ok(Step {
            iteration: outer,
            sigma: None,
            gradient_norm: hyper_gradient.norm(),
            residual: Some(slope.norm().max(residual.norm())),
        })
    }
}

/// SOBA: one step each of the lower solution, of the linear system and of x, all at the same point.
///
/// `y ← y − ρ ∇ᵧ g`, `v ← v − ρ (∇²ᵧᵧ g · v + ∇ᵧ f)`, `x ← P_X(x − α (∇ₓ f + ∇²ₓᵧ g · v))`, over one minibatch of each level. v
/// begins at 0 and tends to `−[∇²ᵧᵧ g]⁻¹ ∇ᵧ f`. Products with second derivatives are differences of gradients, see
/// [`Curvature`].
///
/// Where the Hessian is singular, v grows along its null space, and the residual does not fall.
///
/// # Source
/// Dagréou, Ablin, Vaiter, Moreau 2022, "A framework for bilevel optimization that enables stochastic and global variance
/// reduction algorithms", <https://arxiv.org/abs/2201.13409>. Products there by automatic differentiation; the
/// projections are ours.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Soba<X, Y> {
    config: SobaConfig,
    at: Triple<X, Y>,
    iterations: u64,
}

impl<X: Point, Y: Point> Soba<X, Y> {
    /// From a start.
    pub fn new(config: SobaConfig, x: X, y: Y) -> Self {
        Self { config, at: Triple::new(x, y), iterations: 0 }
    }
}

impl<P: Problem> Solver<P> for Soba<P::X, P::Y> {
    fn step(&mut self, oracle: &Oracle<'_, P>) -> Result<Step, BilevelError> {
        let (config, at, outer) = (&self.config, &mut self.at, self.iterations);
        let sampler = begin(oracle, &config.sampling, outer, &at.x, &at.y, None)?;
        let [upper, lower] = [Stream::OuterUpper, Stream::OuterLower].map(|stream| sampler.draw(stream, 0));
        let along = directions(oracle, (&at.x, &at.y, &at.v), &upper, &lower)?;
        let [rho, alpha] = [config.inner_step, config.outer_step].map(|step| step.at(outer));
        let step = at.advance(oracle.problem(), along, rho, alpha, outer)?;
        self.iterations += 1;
        Ok(step)
    }

    fn x(&self) -> &P::X {
        &self.at.x
    }

    fn y(&self) -> &P::Y {
        &self.at.y
    }

    fn iterations(&self) -> u64 {
        self.iterations
    }
}
