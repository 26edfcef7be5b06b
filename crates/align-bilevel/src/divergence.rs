//! Sees that the outer gradient grows without bound, that a lower level has no minimum, and that a start is not where it may be.

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

/// What has to be remembered of the inner residuals to see that the lower level falls for ever.
///
/// Where it does, the copy that follows its minimiser walks away at a pace that does not fall. Steps are looked at in spans that
/// double in length; what is said of a span is said of its residuals, and of how far from the origin it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Drift {
    /// Steps so far.
    steps: u64,
    /// The least and the largest residual of this span.
    pace: Option<(f64, f64)>,
    /// Norms of the copy at the ends of the first and of the last span.
    norms: Option<(f64, f64)>,
    /// How many spans in a row it walked away.
    spans: u32,
}

impl Drift {
    /// The first span.
    const FIRST: u64 = 32;

    /// After one more outer step, which left this residual; `norm` is asked for at the ends of spans alone.
    ///
    /// No minimum is in reach if over three spans the residual stayed within a hundredth of itself while the norm grew by a third in
    /// each, and tenfold in all. Under noise residuals vary by more, and nothing is said.
    pub(crate) fn after(mut self, residual: f64, norm: impl FnOnce() -> f64) -> Result<Self, BilevelError> {
        if !residual.is_finite() {
            return Ok(self); // and would not come back from a file
        }
        let (least, most) = self.pace.unwrap_or((residual, residual));
        let (least, most) = (least.min(residual), most.max(residual));
        self.pace = Some((least, most));
        self.steps += 1;
        if self.steps < Self::FIRST || !self.steps.is_power_of_two() {
            return Ok(self);
        }
        let norm = norm();
        let (first, last) = self.norms.unwrap_or((norm, norm));
        let away = norm >= 4.0 / 3.0 * last && least >= 0.99 * most && least > 0.0;
        self.spans = if self.norms.is_some() && away { self.spans + 1 } else { 0 };
        (self.pace, self.norms) = (None, Some((first, norm)));
        match self.spans >= 3 && norm >= 10.0 * first {
            true => Err(BilevelError::UnboundedLowerLevel {
                detail: format!(
                    "the copy that follows its minimiser went from ‖z‖ = {first:.3e} to {norm:.3e} in {} steps, with a residual \
                     that stays at {most:.3e}",
                    self.steps - Self::FIRST
                ),
            }),
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

    /// A copy that walks `pace(k)` at step k.
    fn walked(steps: u64, pace: impl Fn(u64) -> f64) -> Result<Drift, BilevelError> {
        let mut norm = 0.0;
        (0..steps).try_fold(Drift::default(), |drift, k| {
            norm += pace(k);
            drift.after(pace(k), || norm)
        })
    }

    #[test]
    fn a_copy_that_walks_away_at_one_pace_follows_no_minimum() {
        assert!(matches!(walked(512, |_| 0.1), Err(BilevelError::UnboundedLowerLevel { .. })));
        // At 256 steps the norm has grown eightfold.
        assert!(walked(511, |_| 0.1).is_ok());
        // Something that is approached slowly, and noise about nothing.
        assert!(walked(100_000, |k| 0.999f64.powi(k as i32)).is_ok());
        assert!(walked(100_000, |k| 1.0 + 0.02 * (k % 2) as f64).is_ok());
        assert!(walked(100_000, |_| 0.0).is_ok());
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
