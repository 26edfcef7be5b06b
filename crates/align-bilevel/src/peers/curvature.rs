//! Products with the second derivatives of g, from differences of first ones.

use crate::{BilevelError, Level, Oracle, Point, Problem, Sample};

/// The second derivatives of g at a point, over one sample, as products with vectors.
///
/// Central differences along v, from `y − hv` to `y + hv` with `h = u^(1/3) (1 + ‖y‖)/‖v‖`: u is the unit roundoff of the
/// numbers of y, and the cube root balances the rounding u/h against the truncation h² where g is of size 1. The relative error
/// is then about u^(2/3): 2·10⁻¹¹ in f64, 2·10⁻⁵ in f32. On quadratics there is no truncation. A product with the zero vector
/// is zero and asks for nothing.
pub struct Curvature<'a, 'p, P: Problem> {
    oracle: &'a Oracle<'p, P>,
    x: &'a P::X,
    y: &'a P::Y,
}

impl<'a, 'p, P: Problem> Curvature<'a, 'p, P> {
    /// At a point.
    pub fn at(oracle: &'a Oracle<'p, P>, x: &'a P::X, y: &'a P::Y) -> Self {
        Self { oracle, x, y }
    }

    /// `∇²ᵧᵧ g · v`: two calls.
    ///
    /// # Errors
    /// Of the oracle.
    pub fn hessian(&self, v: &P::Y, sample: &Sample) -> Result<P::Y, BilevelError> {
        let Some(step) = self.step(v) else { return Ok(v.zeros()) };
        let [up, down] = [step, -step].map(|step| self.y.plus(step, v));
        let mut product = self.oracle.gradient_y(Level::Lower, self.x, &up, sample)?;
        product.add_scaled(-1.0, &self.oracle.gradient_y(Level::Lower, self.x, &down, sample)?);
        product.scale(0.5 / step);
        Ok(product)
    }

    /// `∇²ₓᵧ g · v`, which lives where x does: two calls.
    ///
    /// # Errors
    /// Of the oracle.
    pub fn cross(&self, v: &P::Y, sample: &Sample) -> Result<P::X, BilevelError> {
        let Some(step) = self.step(v) else { return Ok(self.x.zeros()) };
        let [up, down] = [step, -step].map(|step| self.y.plus(step, v));
        let mut product = self.oracle.lower_difference_x(self.x, &up, &down, sample)?;
        product.scale(0.5 / step);
        Ok(product)
    }

    fn step(&self, v: &P::Y) -> Option<f64> {
        let length = v.norm();
        (length > 0.0).then(|| self.y.unit_roundoff().cbrt() * (1.0 + self.y.norm()) / length)
    }
}
