//! Gradients on request, counted exactly and checked.

use std::cell::Cell;

use serde::{Deserialize, Serialize};

use crate::{BilevelError, Level, Point, Problem, Sample};

/// How often each gradient was asked for. One call is one gradient at one point over one sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// Of ∇ₓ f.
    pub upper_x: u64,
    /// Of ∇ᵧ f.
    pub upper_y: u64,
    /// Of ∇ₓ g.
    pub lower_x: u64,
    /// Of ∇ᵧ g.
    pub lower_y: u64,
    /// Of f or g alone. Not gradients, and not in the total.
    pub values: u64,
    /// Terms over which the gradients were averaged, summed over the calls.
    pub terms: u64,
}

impl Calls {
    /// Gradient calls of all four kinds.
    pub fn total(&self) -> u64 {
        self.upper_x + self.upper_y + self.lower_x + self.lower_y
    }
}

/// A problem behind a counter.
///
/// Every gradient is checked: of the right length and finite, or the error names it.
pub struct Oracle<'a, P: Problem> {
    problem: &'a P,
    calls: Cell<Calls>,
    step: Cell<(u64, u64)>,
}

impl<'a, P: Problem> Oracle<'a, P> {
    /// Counts from zero.
    pub fn new(problem: &'a P) -> Self {
        Self { problem, calls: Cell::default(), step: Cell::default() }
    }

    /// Goes on counting from what a saved run had counted.
    pub fn resumed(problem: &'a P, calls: Calls) -> Self {
        Self { calls: Cell::new(calls), ..Self::new(problem) }
    }

    /// The problem itself, for projections and sizes.
    pub fn problem(&self) -> &'a P {
        self.problem
    }

    /// The count so far.
    pub fn calls(&self) -> Calls {
        self.calls.get()
    }

    /// Says which outer and inner step errors are to name.
    pub fn at(&self, outer: u64, inner: u64) {
        self.step.set((outer, inner));
    }

    /// f or g.
    ///
    /// # Errors
    /// If it is not finite.
    pub fn value(&self, level: Level, x: &P::X, y: &P::Y, sample: &Sample) -> Result<f64, BilevelError> {
        self.count(|calls| calls.values += 1);
        let value = self.problem.value(level, x, y, sample);
        match value.is_finite() {
            true => Ok(value),
            false => Err(self.non_finite(match level {
                Level::Upper => "f",
                Level::Lower => "g",
            })),
        }
    }

    /// ∇ₓ of f or g.
    ///
    /// # Errors
    /// If it has the wrong length or is not finite.
    pub fn gradient_x(
        &self,
        level: Level,
        x: &P::X,
        y: &P::Y,
        sample: &Sample,
    ) -> Result<P::X, BilevelError> {
        self.count(|calls| {
            match level {
                Level::Upper => calls.upper_x += 1,
                Level::Lower => calls.lower_x += 1,
            }
            calls.terms += self.size(level, sample);
        });
        let which = match level {
            Level::Upper => "∇ₓ f",
            Level::Lower => "∇ₓ g",
        };
        self.checked(which, self.problem.gradient_x(level, x, y, sample), x.len())
    }

    /// ∇ᵧ of f or g.
    ///
    /// # Errors
    /// If it has the wrong length or is not finite.
    pub fn gradient_y(
        &self,
        level: Level,
        x: &P::X,
        y: &P::Y,
        sample: &Sample,
    ) -> Result<P::Y, BilevelError> {
        self.count(|calls| {
            match level {
                Level::Upper => calls.upper_y += 1,
                Level::Lower => calls.lower_y += 1,
            }
            calls.terms += self.size(level, sample);
        });
        let which = match level {
            Level::Upper => "∇ᵧ f",
            Level::Lower => "∇ᵧ g",
        };
        self.checked(which, self.problem.gradient_y(level, x, y, sample), y.len())
    }

    /// `σ ∇ᵧ f + ∇ᵧ g`: two calls.
    ///
    /// # Errors
    /// If it has the wrong length or is not finite.
    pub fn perturbed_gradient_y(
        &self,
        sigma: f64,
        x: &P::X,
        y: &P::Y,
        upper: &Sample,
        lower: &Sample,
    ) -> Result<P::Y, BilevelError> {
        self.count(|calls| {
            calls.upper_y += 1;
            calls.lower_y += 1;
            calls.terms += self.size(Level::Upper, upper) + self.size(Level::Lower, lower);
        });
        let gradient = self.problem.perturbed_gradient_y(sigma, x, y, upper, lower);
        self.checked("σ ∇ᵧ f + ∇ᵧ g", gradient, y.len())
    }

    /// `∇ₓ g(x, y) − ∇ₓ g(x, z)` on one sample: two calls.
    ///
    /// # Errors
    /// If it has the wrong length or is not finite.
    pub fn lower_difference_x(
        &self,
        x: &P::X,
        y: &P::Y,
        z: &P::Y,
        sample: &Sample,
    ) -> Result<P::X, BilevelError> {
        self.count(|calls| {
            calls.lower_x += 2;
            calls.terms += 2 * self.size(Level::Lower, sample);
        });
        let difference = self.problem.lower_difference_x(x, y, z, sample);
        self.checked("∇ₓ g(x, y) − ∇ₓ g(x, z)", difference, x.len())
    }

    /// `D ← D + scale · ∇ₓ f`: one call, which costs nothing where f does not depend on x.
    ///
    /// # Errors
    /// If it has the wrong length or is not finite.
    pub fn add_upper_x(
        &self,
        difference: &mut P::X,
        scale: f64,
        x: &P::X,
        y: &P::Y,
        sample: &Sample,
    ) -> Result<(), BilevelError> {
        if self.problem.upper_ignores_x() {
            self.count(|calls| {
                calls.upper_x += 1;
                calls.terms += self.size(Level::Upper, sample);
            });
            return Ok(());
        }
        difference.add_scaled(scale, &self.gradient_x(Level::Upper, x, y, sample)?);
        Ok(())
    }

    fn count(&self, add: impl FnOnce(&mut Calls)) {
        let mut calls = self.calls.get();
        add(&mut calls);
        self.calls.set(calls);
    }

    fn size(&self, level: Level, sample: &Sample) -> u64 {
        sample.rows.as_ref().map_or_else(|| self.problem.terms(level), Vec::len) as u64
    }

    fn checked<T: Point>(
        &self,
        which: &'static str,
        gradient: T,
        expected: usize,
    ) -> Result<T, BilevelError> {
        if gradient.len() != expected {
            return Err(BilevelError::ShapeMismatch { which, expected, found: gradient.len() });
        }
        if !gradient.is_finite() {
            return Err(self.non_finite(which));
        }
        Ok(gradient)
    }

    fn non_finite(&self, which: &'static str) -> BilevelError {
        let (outer, inner) = self.step.get();
        BilevelError::NonFinite { which, outer, inner }
    }
}
