//! Objectives that are means over terms, for minibatches.

use align_core::draws::{Draws, Purpose};

use super::{ClosedForm, ClosedPenalty, Penalized};
use crate::{BilevelError, Level, Problem, Sample};

/// `g = meanᵢ aᵢ(y − bᵢx)²/2` and `f = meanⱼ (y − cⱼ)²/2` in one dimension each.
///
/// The terms of g disagree about y, so a minibatch gradient has noise everywhere, solutions included.
#[derive(Clone, Debug)]
pub struct FiniteSum {
    curvatures: Vec<f64>,
    slopes: Vec<f64>,
    targets: Vec<f64>,
    lower: Moments,
    mean_target: f64,
}

/// Means over the terms of g: of a, ab and ab².
#[derive(Clone, Copy, Debug)]
struct Moments {
    a: f64,
    ab: f64,
    ab2: f64,
}

impl FiniteSum {
    /// From the curvatures a, the slopes b and the targets c.
    ///
    /// # Errors
    /// If there is no term in a level, a and b differ in number, or the mean of a is not positive.
    pub fn new(curvatures: Vec<f64>, slopes: Vec<f64>, targets: Vec<f64>) -> Result<Self, BilevelError> {
        let (expected, found) = (curvatures.len(), slopes.len());
        if expected != found {
            return Err(BilevelError::ShapeMismatch { which: "slopes", expected, found });
        }
        for (name, found) in [("terms of g", curvatures.len()), ("terms of f", targets.len())] {
            if found == 0 {
                return Err(BilevelError::InvalidCount { name, least: 1, most: usize::MAX, found });
            }
        }
        let all: Vec<usize> = (0..expected).collect();
        let mut problem = Self {
            lower: Moments { a: 0.0, ab: 0.0, ab2: 0.0 },
            mean_target: mean(targets.iter().copied()),
            curvatures,
            slopes,
            targets,
        };
        problem.lower = problem.moments(&all);
        if problem.lower.a > 0.0 {
            Ok(problem)
        } else {
            let detail = format!("the mean curvature is {}", problem.lower.a);
            Err(BilevelError::UnboundedLowerLevel { detail })
        }
    }

    /// Curvatures uniform in [1, 1.5], slopes normal with mean 2 and deviation ½, and one target, 1: on average the scalar
    /// [`Quadratic`](super::Quadratic).
    ///
    /// # Panics
    /// If there are no terms.
    pub fn drawn(terms: usize, draws: &Draws) -> Self {
        let indices = 0..terms as u64;
        let uniform = |index| draws.token(Purpose::Synthesize, 0, index, 0, 0);
        let curvatures = indices.clone().map(|index| 1.0 + 0.5 * uniform(index)).collect();
        let slopes = indices.map(|index| 2.0 + 0.5 * draws.normal(Purpose::Synthesize, 1, index)).collect();
        Self::new(curvatures, slopes, vec![1.0]).expect("at least one term, with a positive curvature")
    }

    fn moments(&self, rows: &[usize]) -> Moments {
        let over = |term: fn(f64, f64) -> f64| {
            mean(rows.iter().map(|&row| term(self.curvatures[row], self.slopes[row])))
        };
        Moments { a: over(|a, _| a), ab: over(|a, b| a * b), ab2: over(|a, b| a * b * b) }
    }

    /// The moments of a sample of g.
    fn sampled(&self, sample: &Sample) -> Moments {
        sample.rows.as_ref().map_or(self.lower, |rows| self.moments(rows))
    }

    /// The mean target of a sample of f.
    fn sampled_target(&self, sample: &Sample) -> f64 {
        let over = |rows: &Vec<usize>| mean(rows.iter().map(|&row| self.targets[row]));
        sample.rows.as_ref().map_or(self.mean_target, over)
    }
}

impl Problem for FiniteSum {
    type X = Vec<f64>;
    type Y = Vec<f64>;

    fn value(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, sample: &Sample) -> f64 {
        let (x, y) = (x[0], y[0]);
        match level {
            Level::Upper => {
                let term = |target: &f64| (y - target).powi(2) / 2.0;
                match &sample.rows {
                    Some(rows) => mean(rows.iter().map(|&row| term(&self.targets[row]))),
                    None => mean(self.targets.iter().map(term)),
                }
            }
            Level::Lower => {
                let Moments { a, ab, ab2 } = self.sampled(sample);
                a * y * y / 2.0 - ab * x * y + ab2 * x * x / 2.0
            }
        }
    }

    fn gradient_x(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, sample: &Sample) -> Vec<f64> {
        vec![match level {
            Level::Upper => 0.0,
            Level::Lower => {
                let Moments { ab, ab2, .. } = self.sampled(sample);
                ab2 * x[0] - ab * y[0]
            }
        }]
    }

    fn gradient_y(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, sample: &Sample) -> Vec<f64> {
        vec![match level {
            Level::Upper => y[0] - self.sampled_target(sample),
            Level::Lower => {
                let Moments { a, ab, .. } = self.sampled(sample);
                a * y[0] - ab * x[0]
            }
        }]
    }

    fn terms(&self, level: Level) -> usize {
        match level {
            Level::Upper => self.targets.len(),
            Level::Lower => self.curvatures.len(),
        }
    }
}

impl ClosedForm for FiniteSum {
    fn solution(&self, x: &[f64]) -> Vec<f64> {
        vec![self.lower.ab / self.lower.a * x[0]]
    }

    fn hyper_gradient(&self, x: &[f64]) -> Vec<f64> {
        self.penalized(x, 0.0).gradient
    }
}

impl ClosedPenalty for FiniteSum {
    /// For σ > −mean a. With `v = (y* − c)/(a + σ)`: `y_σ = y* − σv`, `ψ_σ = ψ − (σ/2)(y* − c)v`, `∇ψ_σ = ab·v`.
    fn penalized(&self, x: &[f64], sigma: f64) -> Penalized {
        let solution = self.solution(x)[0];
        let slope = solution - self.mean_target;
        let v = slope / (self.lower.a + sigma);
        Penalized {
            y: vec![solution - sigma * v],
            psi: self.psi(x) - sigma / 2.0 * slope * v,
            gradient: vec![self.lower.ab * v],
        }
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}
