//! A bilevel problem, as solvers see it: gradients of two objectives, and two sets.

use crate::{Point, Sample};

/// The two objectives of a bilevel problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// f(x, y): what the outer variable is tuned for.
    Upper,
    /// g(x, y): what the inner variable minimises.
    Lower,
}

/// `min_{x ∈ X} f(x, y)` where `y` minimises `g(x, ·)` over `Y`.
///
/// First derivatives are all that is asked for. Values and gradients are means over the terms of a [`Sample`]; the same
/// sample gives the same terms and the same noise at every point. Solvers ask through an [`Oracle`](crate::Oracle),
/// which counts.
///
/// Problems over Burn modules implement [`ModuleProblem`](crate::ModuleProblem) instead, and get their gradients from
/// automatic differentiation.
pub trait Problem: Sync {
    /// Where x lives.
    type X: Point;
    /// Where y lives.
    type Y: Point;

    /// f or g.
    fn value(&self, level: Level, x: &Self::X, y: &Self::Y, sample: &Sample) -> f64;

    /// ∇ₓ of f or g.
    fn gradient_x(&self, level: Level, x: &Self::X, y: &Self::Y, sample: &Sample) -> Self::X;

    /// ∇ᵧ of f or g.
    fn gradient_y(&self, level: Level, x: &Self::X, y: &Self::Y, sample: &Sample) -> Self::Y;

    /// `σ ∇ᵧ f + ∇ᵧ g`, for problems that get both from one pass.
    fn perturbed_gradient_y(
        &self,
        sigma: f64,
        x: &Self::X,
        y: &Self::Y,
        upper: &Sample,
        lower: &Sample,
    ) -> Self::Y {
        let mut gradient = self.gradient_y(Level::Lower, x, y, lower);
        gradient.add_scaled(sigma, &self.gradient_y(Level::Upper, x, y, upper));
        gradient
    }

    /// `∇ₓ g(x, y) − ∇ₓ g(x, z)` on one sample, for problems that know the difference more cheaply, or more exactly,
    /// than as a difference.
    fn lower_difference_x(&self, x: &Self::X, y: &Self::Y, z: &Self::Y, sample: &Sample) -> Self::X {
        self.gradient_x(Level::Lower, x, y, sample).minus(&self.gradient_x(Level::Lower, x, z, sample))
    }

    /// Whether ∇ₓ f is zero wherever it is taken: a solver then counts its calls and makes none.
    fn upper_ignores_x(&self) -> bool {
        false
    }

    /// How many terms an objective is the mean of. One, unless it can be sampled.
    fn terms(&self, _level: Level) -> usize {
        1
    }

    /// Projects onto X. The whole space by default.
    fn project_x(&self, _x: &mut Self::X) {}

    /// Projects onto Y. The whole space by default.
    fn project_y(&self, _y: &mut Self::Y) {}
}
