//! Proximal steps, Moreau envelopes, and the residual that measures how far a point is from a minimum.

use crate::descent::{Descent, descend};
use crate::schedule::check_step;
use crate::{BilevelError, Point};

/// The Moreau envelope `q_ρ(v) = min_{w ∈ Y} q(w) + ‖w − v‖²/(2ρ)` at a point v.
#[derive(Clone, Debug)]
pub struct Envelope<Y> {
    /// `prox_{ρq}(v)`: the minimiser w.
    pub prox: Y,
    /// `q_ρ(v)`.
    pub value: f64,
    /// `∇q_ρ(v) = (v − w)/ρ`. It exists even where q has none, if q plus the parabola is strongly convex.
    pub gradient: Y,
    /// `R(v) = ‖v − w‖/ρ`: 0 exactly where v is stationary for q on Y.
    pub residual: f64,
}

/// `prox_{ρq}(v) = argmin_{w ∈ Y} q(w) + ‖w − v‖²/(2ρ)`, by projected gradients from v.
///
/// A caller who knows the minimiser in closed form needs none of this. With l the Lipschitz constant of ∇q, the problem is
/// strongly convex for ρ < 1/l, whatever q; for a convex q any ρ will do.
///
/// # Errors
/// If ρ is not finite and above 0; of `gradient`; of [`descend`].
///
/// # Source
/// Kwon, Kwon, Wright, Nowak 2024, <https://arxiv.org/abs/2309.01753>, for the projection folded in.
pub fn proximal_point<Y: Point>(
    v: &Y,
    rho: f64,
    descent: &Descent,
    mut gradient: impl FnMut(&Y) -> Result<Y, BilevelError>,
    project: impl Fn(&mut Y),
) -> Result<Y, BilevelError> {
    check_step("rho", rho)?;
    let pulled = |w: &Y| {
        let mut slope = gradient(w)?;
        slope.add_scaled(1.0 / rho, w);
        slope.add_scaled(-1.0 / rho, v);
        Ok(slope)
    };
    // The parabola alone has a curvature of 1/ρ, so a longer step would only be shortened.
    let descent = Descent { step: descent.step.min(rho), ..*descent };
    Ok(descend(v.clone(), &descent, pulled, project)?.point)
}

/// The Moreau envelope of q at `v`, with its gradient and the residual.
///
/// # Errors
/// As [`proximal_point`].
///
/// # Examples
/// ```
/// use align_bilevel::{Descent, moreau_envelope};
///
/// // q(w) = 1.5 (w − 1.5)² at v = −0.4, with ρ = 0.2.
/// let value = |w: &Vec<f64>| Ok(1.5 * (w[0] - 1.5).powi(2));
/// let gradient = |w: &Vec<f64>| Ok(vec![3.0 * (w[0] - 1.5)]);
/// let envelope = moreau_envelope(&vec![-0.4], 0.2, &Descent::default(), value, gradient, |_| {})?;
/// assert!((envelope.prox[0] - 0.3125).abs() < 1e-8);
/// assert!((envelope.value - 3.384375).abs() < 1e-8);
/// # Ok::<(), align_bilevel::BilevelError>(())
/// ```
pub fn moreau_envelope<Y: Point>(
    v: &Y,
    rho: f64,
    descent: &Descent,
    value: impl FnOnce(&Y) -> Result<f64, BilevelError>,
    gradient: impl FnMut(&Y) -> Result<Y, BilevelError>,
    project: impl Fn(&mut Y),
) -> Result<Envelope<Y>, BilevelError> {
    let prox = proximal_point(v, rho, descent, gradient, project)?;
    let mut gradient = v.minus(&prox);
    let distance = gradient.norm();
    gradient.scale(1.0 / rho);
    let value = value(&prox)? + distance * distance / (2.0 * rho);
    Ok(Envelope { prox, value, gradient, residual: distance / rho })
}

/// `(1 − β) anchor + β w`, in the memory of w.
pub(crate) fn followed<Y: Point>(anchor: &Y, beta: f64, mut w: Y) -> Y {
    if beta != 1.0 {
        w.scale_add(beta, 1.0 - beta, anchor);
    }
    w
}

/// One step of projected gradients towards `prox_{ρq}(anchor)`: `w ← P_Y(w − γ (∇q(w) + (w − anchor)/ρ))`, given ∇q(w).
///
/// Returns the new w, in the memory of the gradient.
pub(crate) fn tracking_step<Y: Point>(
    w: &Y,
    mut slope: Y,
    anchor: &Y,
    gamma: f64,
    rho: f64,
    project: impl Fn(&mut Y),
) -> Y {
    let pull = gamma / rho;
    slope.scale_add(-gamma, 1.0 - pull, w);
    // What rounding would swallow is not computed: ρ is set so large where there is to be no proximal term.
    if 1.0 - pull != 1.0 {
        slope.add_scaled(pull, anchor);
    }
    project(&mut slope);
    slope
}
