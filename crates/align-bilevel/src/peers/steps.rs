//! What the steps of all methods have in common.

use std::num::NonZeroUsize;

use super::sampling::{Sampler, Sampling};
use crate::divergence::feasible;
use crate::{BilevelError, Level, Oracle, Point, Problem, Stream};

/// The samples of an outer step; before the first one, the starts are checked to lie in their sets.
pub(super) fn begin<P: Problem>(
    oracle: &Oracle<'_, P>,
    sampling: &Sampling,
    outer: u64,
    x: &P::X,
    y: &P::Y,
    z: Option<&P::Y>,
) -> Result<Sampler, BilevelError> {
    let problem = oracle.problem();
    if outer == 0 {
        feasible("x", x.clone(), |x| problem.project_x(x))?;
        for (which, point) in [("y", Some(y)), ("z", z)] {
            point
                .map(|point| feasible(which, point.clone(), |point| problem.project_y(point)))
                .transpose()?;
        }
    }
    oracle.at(outer, 0);
    sampling.of(problem, outer)
}

/// `P(point − step · direction)`.
///
/// # Errors
/// If that is not finite.
pub(super) fn moved<T: Point>(
    (which, point): (&'static str, &T),
    step: f64,
    direction: &T,
    project: impl FnOnce(&mut T),
    outer: u64,
) -> Result<T, BilevelError> {
    let mut next = point.plus(-step, direction);
    project(&mut next);
    match next.is_finite() {
        true => Ok(next),
        false => Err(BilevelError::NonFinite { which, outer, inner: 0 }),
    }
}

/// Where projected gradient steps on g ended.
pub(super) struct Descended<Y> {
    pub(super) y: Y,
    /// The last step's `‖y − P_Y(y − γ∇ᵧg)‖ / γ`, where it set out.
    pub(super) residual: f64,
}

/// `y ← P_Y(y − step ∇ᵧ g(x, y))`, over and over, each on a sample of its own: one call a step.
pub(super) fn descend_lower<P: Problem>(
    oracle: &Oracle<'_, P>,
    sampler: &Sampler,
    x: &P::X,
    start: &P::Y,
    step: f64,
    steps: NonZeroUsize,
) -> Result<Descended<P::Y>, BilevelError> {
    let mut at = Descended { y: start.clone(), residual: 0.0 };
    for inner in 0..steps.get() as u64 {
        oracle.at(sampler.outer(), inner);
        let slope = oracle.gradient_y(Level::Lower, x, &at.y, &sampler.draw(Stream::InnerLower, inner))?;
        at = lower_step(oracle.problem(), &at.y, step, &slope, sampler.outer())?;
    }
    Ok(at)
}

/// One such step, the gradient given.
pub(super) fn lower_step<P: Problem>(
    problem: &P,
    y: &P::Y,
    step: f64,
    slope: &P::Y,
    outer: u64,
) -> Result<Descended<P::Y>, BilevelError> {
    let next = moved(("y", y), step, slope, |y| problem.project_y(y), outer)?;
    let residual = next.distance(y) / step;
    Ok(Descended { y: next, residual })
}
