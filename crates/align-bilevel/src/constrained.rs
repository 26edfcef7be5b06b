//! A problem of any kind over vectors, put into two sets.

use crate::{Level, Problem, Sample, Set};

/// A problem over vectors, confined to two sets, whatever sets it had before.
#[derive(Clone, Debug)]
pub struct Constrained<P> {
    /// The objectives.
    pub problem: P,
    /// X.
    pub x: Set,
    /// Y.
    pub y: Set,
}

impl<P: Problem<X = Vec<f64>, Y = Vec<f64>>> Problem for Constrained<P> {
    type X = Vec<f64>;
    type Y = Vec<f64>;

    fn value(&self, level: Level, x: &Self::X, y: &Self::Y, sample: &Sample) -> f64 {
        self.problem.value(level, x, y, sample)
    }

    fn gradient_x(&self, level: Level, x: &Self::X, y: &Self::Y, sample: &Sample) -> Self::X {
        self.problem.gradient_x(level, x, y, sample)
    }

    fn gradient_y(&self, level: Level, x: &Self::X, y: &Self::Y, sample: &Sample) -> Self::Y {
        self.problem.gradient_y(level, x, y, sample)
    }

    fn perturbed_gradient_y(
        &self,
        sigma: f64,
        x: &Self::X,
        y: &Self::Y,
        upper: &Sample,
        lower: &Sample,
    ) -> Self::Y {
        self.problem.perturbed_gradient_y(sigma, x, y, upper, lower)
    }

    fn lower_difference_x(&self, x: &Self::X, y: &Self::Y, z: &Self::Y, sample: &Sample) -> Self::X {
        self.problem.lower_difference_x(x, y, z, sample)
    }

    fn upper_ignores_x(&self) -> bool {
        self.problem.upper_ignores_x()
    }

    fn terms(&self, level: Level) -> usize {
        self.problem.terms(level)
    }

    fn project_x(&self, x: &mut Self::X) {
        self.x.project(x);
    }

    fn project_y(&self, y: &mut Self::Y) {
        self.y.project(y);
    }
}
