//! Weights of training examples that make a model trained on them do well on trusted ones.

use align_core::number::NonNegative;

use super::examples::{ExampleSet, Examples, Part};
use super::weights::Weights;
use crate::{BilevelError, Level, Point, Problem, Sample};

/// Cleaning or reweighting data as a bilevel problem.
///
/// ```text
/// g(x, y) = (1/n) Σ sᵢ(x) ℓᵢ(y) + (C/2)|y|²      over the training examples
/// f(x, y) = (1/m) Σ ℓⱼ(y)                         over the trusted examples
/// ```
///
/// x are the logits of the [`Weights`] s, y the parameters of the model. f does not depend on x, and the difference of
/// the lower level's gradients has a closed form: `s′(xᵢ) (ℓᵢ(y) − ℓᵢ(z)) / n` for weights of single examples. The outer
/// step therefore needs two forward passes and no backward pass.
///
/// # Source
/// The problem is data hyper-cleaning (Franceschi et al. 2017, <https://arxiv.org/abs/1703.01785>) with the
/// Bradley–Terry loss; the gradient is that of Kwon, Kwon, Wright, Nowak 2023, <https://arxiv.org/abs/2309.01753>,
/// worked out for this problem by us.
#[derive(Clone, Debug)]
pub struct Cleaning<E> {
    examples: E,
    weights: Weights,
    ridge: f64,
}

impl<E: Examples> Cleaning<E> {
    /// With C, the `ridge`, which keeps the lower level from running off: cleaned data are separable sooner or later.
    ///
    /// # Errors
    /// If C is 0, a set is empty, or the weights are of another number of examples.
    pub fn new(examples: E, weights: Weights, ridge: NonNegative) -> Result<Self, BilevelError> {
        let [n, m] = [ExampleSet::Training, ExampleSet::Trusted].map(|set| examples.count(set));
        if n == 0 || m == 0 {
            return Err(BilevelError::InvalidSplit {
                detail: format!("{n} training and {m} trusted examples"),
            });
        }
        if weights.examples() != n {
            let found = weights.examples();
            return Err(BilevelError::ShapeMismatch { which: "the weighted examples", expected: n, found });
        }
        if ridge.get() == 0.0 {
            return Err(BilevelError::UnboundedLowerLevel { detail: "ridge C = 0".to_owned() });
        }
        Ok(Self { examples, weights, ridge: ridge.get() })
    }

    /// The examples.
    pub fn examples(&self) -> &E {
        &self.examples
    }

    /// How logits become weights.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// C.
    pub fn ridge(&self) -> f64 {
        self.ridge
    }

    fn rows(&self, level: Level, sample: &Sample) -> Vec<usize> {
        sample.rows.clone().unwrap_or_else(|| (0..self.terms(level)).collect())
    }

    /// Coefficients of the examples in g.
    fn lower_coefficients(&self, x: &[f64], rows: &[usize]) -> Vec<f64> {
        let mut coefficients = self.weights.of(x, rows);
        coefficients.iter_mut().for_each(|c| *c /= rows.len() as f64);
        coefficients
    }
}

impl<E: Examples> Problem for Cleaning<E> {
    type X = Vec<f64>;
    type Y = E::Y;

    fn value(&self, level: Level, x: &Vec<f64>, y: &E::Y, sample: &Sample) -> f64 {
        let rows = self.rows(level, sample);
        match level {
            Level::Upper => {
                let losses = self.examples.losses(y, ExampleSet::Trusted, &rows);
                losses.iter().sum::<f64>() / rows.len() as f64
            }
            Level::Lower => {
                let losses = self.examples.losses(y, ExampleSet::Training, &rows);
                let coefficients = self.lower_coefficients(x, &rows);
                coefficients.dot(&losses) + self.ridge / 2.0 * y.dot(y)
            }
        }
    }

    fn gradient_x(&self, level: Level, x: &Vec<f64>, y: &E::Y, sample: &Sample) -> Vec<f64> {
        match level {
            Level::Upper => x.zeros(),
            Level::Lower => {
                let rows = self.rows(level, sample);
                let losses = self.examples.losses(y, ExampleSet::Training, &rows);
                self.weights.gradient(x, &rows, &losses)
            }
        }
    }

    fn gradient_y(&self, level: Level, x: &Vec<f64>, y: &E::Y, sample: &Sample) -> E::Y {
        let rows = self.rows(level, sample);
        match level {
            Level::Upper => {
                let coefficients = vec![1.0 / rows.len() as f64; rows.len()];
                let part = Part { set: ExampleSet::Trusted, rows: &rows, coefficients: &coefficients };
                self.examples.gradient(y, &[part])
            }
            Level::Lower => {
                let coefficients = self.lower_coefficients(x, &rows);
                let part = Part { set: ExampleSet::Training, rows: &rows, coefficients: &coefficients };
                let mut gradient = self.examples.gradient(y, &[part]);
                gradient.add_scaled(self.ridge, y);
                gradient
            }
        }
    }

    /// One backward pass for both levels.
    fn perturbed_gradient_y(
        &self,
        sigma: f64,
        x: &Vec<f64>,
        y: &E::Y,
        upper: &Sample,
        lower: &Sample,
    ) -> E::Y {
        let (trusted, training) = (self.rows(Level::Upper, upper), self.rows(Level::Lower, lower));
        let [f, g] =
            [vec![sigma / trusted.len() as f64; trusted.len()], self.lower_coefficients(x, &training)];
        let mut gradient = self.examples.gradient(
            y,
            &[
                Part { set: ExampleSet::Trusted, rows: &trusted, coefficients: &f },
                Part { set: ExampleSet::Training, rows: &training, coefficients: &g },
            ],
        );
        gradient.add_scaled(self.ridge, y);
        gradient
    }

    /// Two forward passes, and differences of losses before anything is scaled.
    fn lower_difference_x(&self, x: &Vec<f64>, y: &E::Y, z: &E::Y, sample: &Sample) -> Vec<f64> {
        let rows = self.rows(Level::Lower, sample);
        let mut losses = self.examples.losses(y, ExampleSet::Training, &rows);
        let of_z = self.examples.losses(z, ExampleSet::Training, &rows);
        losses.iter_mut().zip(of_z).for_each(|(loss, of_z)| *loss -= of_z);
        self.weights.gradient(x, &rows, &losses)
    }

    fn upper_ignores_x(&self) -> bool {
        true
    }

    fn terms(&self, level: Level) -> usize {
        self.examples.count(match level {
            Level::Upper => ExampleSet::Trusted,
            Level::Lower => ExampleSet::Training,
        })
    }
}
