//! Sees that the outer gradient grows without bound, and that a start is not where it may be.

use serde::{Deserialize, Serialize};

use crate::{BilevelError, Point};

/// What has to be remembered of `‖D‖/σ` to see it run away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Watch {
    /// The first that was more than rounding.
    first: Option<f64>,
    last: f64,
    /// How many times in a row it grew tenfold.
    leaps: u32,
}

impl Watch {
    /// After one more norm.
    ///
    /// A run has diverged when the norm grew tenfold three times in a row, or is more than 10⁶ times its first value. A
    /// shorter outer step cures that, a smaller σ does not. Norms below √u are rounding at a stationary point, from which
    /// any growth looks large; they do not count.
    pub(crate) fn after(mut self, norm: f64, unit_roundoff: f64, outer: u64) -> Result<Self, BilevelError> {
        if norm < unit_roundoff.sqrt() {
            return Ok(Self { leaps: 0, last: norm, ..self });
        }
        let first = *self.first.get_or_insert(norm);
        let counts = self.last >= unit_roundoff.sqrt();
        self.leaps = if counts && norm >= 10.0 * self.last { self.leaps + 1 } else { 0 };
        self.last = norm;
        match self.leaps >= 3 || norm > 1e6 * first {
            true => Err(BilevelError::Diverged { from: first, to: norm, outer }),
            false => Ok(self),
        }
    }
}

/// The points that an outer step is about to leave behind.
pub(crate) struct Iterates<X, Y> {
    pub(crate) x: X,
    pub(crate) y: Y,
    pub(crate) z: Y,
}

impl<X: Point, Y: Point> Iterates<X, Y> {
    /// Refuses points with numbers that are not finite: an overlong step can overflow from finite gradients. Where the
    /// residual is finite, y and z moved from finite points by finite steps, and are not looked at again.
    pub(crate) fn check(&self, outer: u64, residual: f64) -> Result<(), BilevelError> {
        let refused = |which| Err(BilevelError::NonFinite { which, outer, inner: 0 });
        match residual.is_finite() {
            _ if !self.x.is_finite() => refused("x"),
            false if !self.y.is_finite() => refused("y"),
            false if !self.z.is_finite() => refused("z"),
            _ => Ok(()),
        }
    }
}

/// The start itself, moved onto its set by no more than rounding.
///
/// "No more" is half the digits: that is what is left of a point which was written down and read again, or made in f32.
pub(crate) fn feasible<T: Point>(
    which: &'static str,
    start: T,
    project: impl Fn(&mut T),
) -> Result<T, BilevelError> {
    if !start.is_finite() {
        return Err(BilevelError::NonFinite { which, outer: 0, inner: 0 });
    }
    let mut inside = start.clone();
    project(&mut inside);
    let distance = start.distance(&inside);
    match distance <= start.unit_roundoff().sqrt() * (1.0 + start.norm()) {
        true => Ok(inside),
        false => Err(BilevelError::Infeasible { which, distance }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fed(norms: &[f64]) -> Result<Watch, BilevelError> {
        let unit_roundoff = f64::EPSILON / 2.0;
        norms
            .iter()
            .zip(0..)
            .try_fold(Watch::default(), |watch, (&norm, k)| watch.after(norm, unit_roundoff, k))
    }

    #[test]
    fn three_leaps_in_a_row_or_a_millionfold_growth_is_divergence() {
        let diverged = |norms: &[f64]| match fed(norms) {
            Err(BilevelError::Diverged { from, to, outer }) => Some((from, to, outer)),
            _ => None,
        };
        assert_eq!(diverged(&[1.0, 10.0, 100.0, 1000.0]), Some((1.0, 1000.0, 3)));
        assert_eq!(diverged(&[1.0, 10.0, 100.0, 100.0, 1000.0, 10_000.0]), None);
        assert_eq!(diverged(&[1.0, 9.0, 81.0, 729.0, 6561.0]), None);
        assert_eq!(diverged(&[2.0, 2.1e6]), Some((2.0, 2.1e6, 1)));
        // A start at a stationary point.
        assert_eq!(diverged(&[1e-15, 1e-13, 1e-11, 1e-9, 1e-6, 0.5, 0.4]), None);
        assert_eq!(diverged(&[0.0, 0.0, 1.0, 0.5]), None);
    }
}
