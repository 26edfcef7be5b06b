//! Gradients with noise, drawn by the sample and by nothing else.

use std::num::NonZeroUsize;

use align_core::draws::{Draws, Purpose};

use super::{ClosedForm, ClosedPenalty, Penalized};
use crate::{Level, Point, Problem, Sample};

/// A problem whose gradients carry independent normal noise in every coordinate, of deviation `std/√batch`.
///
/// The four gradients have noise of their own. It is a function of [`Sample::id`] alone: one sample is one random objective
/// `f(x, y) + ⟨n, x⟩ + ⟨m, y⟩`, whose gradient differences hold no noise, as those of a minibatch hold little. The sample of
/// id 0, which is [`Sample::full`], has none.
///
/// The closed forms are those of the mean.
#[derive(Clone, Debug)]
pub struct Noisy<P> {
    problem: P,
    deviation: f64,
    draws: Draws,
}

impl<P> Noisy<P> {
    /// With noise of deviation `std` in each term, averaged over a `batch` of terms.
    pub fn new(problem: P, std: f64, batch: NonZeroUsize, seed: u64) -> Self {
        Self { problem, deviation: std / (batch.get() as f64).sqrt(), draws: Draws::new(seed) }
    }

    /// The problem without noise.
    pub fn mean(&self) -> &P {
        &self.problem
    }

    /// The noise of one gradient.
    fn noise(&self, level: Level, variable: Variable, sample: &Sample, length: usize) -> Vec<f64> {
        if sample.id == 0 {
            return vec![0.0; length];
        }
        let draws = self.draws.child(level as u64).child(variable as u64);
        let number = |index| self.deviation * draws.normal(Purpose::Evaluate, sample.id, index);
        (0..length as u64).map(number).collect()
    }
}

#[derive(Clone, Copy)]
enum Variable {
    X,
    Y,
}

impl<P: Problem<X = Vec<f64>, Y = Vec<f64>>> Problem for Noisy<P> {
    type X = Vec<f64>;
    type Y = Vec<f64>;

    fn value(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, sample: &Sample) -> f64 {
        self.problem.value(level, x, y, sample)
            + self.noise(level, Variable::X, sample, x.len()).dot(x)
            + self.noise(level, Variable::Y, sample, y.len()).dot(y)
    }

    fn gradient_x(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, sample: &Sample) -> Vec<f64> {
        let noise = self.noise(level, Variable::X, sample, x.len());
        self.problem.gradient_x(level, x, y, sample).plus(1.0, &noise)
    }

    fn gradient_y(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, sample: &Sample) -> Vec<f64> {
        let noise = self.noise(level, Variable::Y, sample, y.len());
        self.problem.gradient_y(level, x, y, sample).plus(1.0, &noise)
    }

    /// Of the mean: on one sample the noise is the same at both points.
    fn lower_difference_x(&self, x: &Vec<f64>, y: &Vec<f64>, z: &Vec<f64>, sample: &Sample) -> Vec<f64> {
        self.problem.lower_difference_x(x, y, z, sample)
    }

    fn terms(&self, level: Level) -> usize {
        self.problem.terms(level)
    }

    fn project_x(&self, x: &mut Vec<f64>) {
        self.problem.project_x(x);
    }

    fn project_y(&self, y: &mut Vec<f64>) {
        self.problem.project_y(y);
    }
}

impl<P: ClosedForm> ClosedForm for Noisy<P> {
    fn solution(&self, x: &[f64]) -> Vec<f64> {
        self.problem.solution(x)
    }

    fn hyper_gradient(&self, x: &[f64]) -> Vec<f64> {
        self.problem.hyper_gradient(x)
    }

    fn psi(&self, x: &[f64]) -> f64 {
        self.problem.psi(x)
    }
}

impl<P: ClosedPenalty> ClosedPenalty for Noisy<P> {
    fn penalized(&self, x: &[f64], sigma: f64) -> Penalized {
        self.problem.penalized(x, sigma)
    }
}
