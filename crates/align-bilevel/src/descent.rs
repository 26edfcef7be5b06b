//! Minimises a smooth function over a convex set to a residual: projected gradients, accelerated.

use serde::{Deserialize, Serialize};

use crate::schedule::{check_count, check_step};
use crate::{BilevelError, Point};

/// How a minimum over Y is sought.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Descent {
    /// The first step size. It is shortened to what the curvature allows wherever that shows itself as more than 1/step,
    /// and never lengthened.
    pub step: f64,
    /// Stop when the residual `‖w − P_Y(w − step ∇q(w))‖ / step` is at most this.
    pub tolerance: f64,
    /// Stop after this many steps in any case. It also stops when a step moves nothing but the last digits.
    pub max_steps: usize,
}

impl Default for Descent {
    /// A step of 1, which is shortened at once where it is too long; eight digits; enough steps for a condition number of
    /// about 10⁸.
    fn default() -> Self {
        Self { step: 1.0, tolerance: 1e-8, max_steps: 100_000 }
    }
}

/// Where a descent ended.
#[derive(Clone, Debug)]
pub struct Minimum<Y> {
    /// The point, in Y.
    pub point: Y,
    /// The last residual `‖w − P_Y(w − step ∇q(w))‖ / step`: above the tolerance only if the steps ran out, or the digits.
    pub residual: f64,
    /// How many steps it took.
    pub steps: usize,
    /// The least `⟨∇q(v) − ∇q(w), v − w⟩ / ‖v − w‖²` between points that followed each other; `None` if none were far
    /// enough apart to tell.
    pub curvature: Option<f64>,
}

/// Beyond this many times the size of the start, a descent is taken to have no minimum to go to.
const FAR: f64 = 1e8;

/// `argmin_{w ∈ Y} q(w)`, or a stationary point where q is not convex.
///
/// Nesterov's acceleration, restarted whenever it points uphill, so that the steps needed grow with the square root of the
/// condition number and no knowledge of it is asked for. The step size needs none either: if two points that follow each
/// other show a gradient that changes faster than 1/step, the step is shortened and taken again. All points at
/// which a gradient is asked for lie in Y.
///
/// # Errors
/// Of `gradient`; [`UnboundedLowerLevel`](BilevelError::UnboundedLowerLevel) if the points run away; or if a setting is
/// out of range.
///
/// # Source
/// Beck and Teboulle 2009, <https://doi.org/10.1137/080716542>; the restart is the gradient scheme of O'Donoghue and Candès
/// 2015, <https://arxiv.org/abs/1204.3982>. The test of the step, by gradients where others use values, is ours: near a
/// minimum values no longer tell two points apart.
pub fn descend<Y: Point>(
    mut start: Y,
    settings: &Descent,
    mut gradient: impl FnMut(&Y) -> Result<Y, BilevelError>,
    project: impl Fn(&mut Y),
) -> Result<Minimum<Y>, BilevelError> {
    check_step("the step of a descent", settings.step)?;
    check_step("the tolerance of a descent", settings.tolerance)?;
    check_count("the steps of a descent", settings.max_steps, usize::MAX)?;
    project(&mut start);
    let origin = start.norm();
    // Closer than this, the difference of two gradients is mostly rounding.
    let close = start.unit_roundoff().sqrt();

    let (mut point, mut ahead) = (start.clone(), start);
    let mut slope = gradient(&ahead)?;
    let (mut step, mut inertia) = (settings.step, 1.0f64);
    let (mut residual, mut least) = (f64::INFINITY, f64::INFINITY);
    for taken in 1..=settings.max_steps {
        let mut next = ahead.plus(-step, &slope);
        project(&mut next);
        let moved = next.minus(&ahead);
        residual = moved.norm() / step;
        // A step that only moves the last digit leads nowhere, however small the tolerance.
        let resolved = 4.0 * ahead.unit_roundoff() * ahead.norm();
        if residual <= settings.tolerance || moved.norm() <= resolved {
            let curvature = least.is_finite().then_some(least);
            return Ok(Minimum { point: next, residual, steps: taken, curvature });
        }
        if next.norm() > FAR * (1.0 + origin) {
            let detail = format!("a descent went from a norm of {origin} to {}", next.norm());
            return Err(BilevelError::UnboundedLowerLevel { detail });
        }

        let stride = next.minus(&point);
        let uphill = moved.dot(&stride) < 0.0;
        let later = if uphill { 1.0 } else { (1.0 + (1.0 + 4.0 * inertia * inertia).sqrt()) / 2.0 };
        let momentum = if uphill { 0.0 } else { (inertia - 1.0) / later };
        let mut further = next.plus(momentum, &stride);
        project(&mut further);

        let slope_there = gradient(&further)?;
        let between = further.minus(&ahead);
        let length = between.norm();
        if length > close * (1.0 + ahead.norm()) {
            let bend = slope_there.minus(&slope);
            least = least.min(bend.dot(&between) / (length * length));
            let steepest = bend.norm() / length;
            if steepest * step > 1.0 + 1e-6 {
                step = 0.95 / steepest;
                inertia = 1.0;
                point = ahead.clone();
                continue;
            }
        }
        (point, ahead, slope, inertia) = (next, further, slope_there, later);
    }
    let curvature = least.is_finite().then_some(least);
    Ok(Minimum { point, residual, steps: settings.max_steps, curvature })
}
