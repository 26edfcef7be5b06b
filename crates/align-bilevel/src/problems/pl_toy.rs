//! A nonconvex lower level that gradient descent solves all the same.

use super::ClosedForm;
use crate::{Level, Problem, Sample};

/// `f = cos(4y + 2)/(1 + e^(2−4x)) + ½ ln((4x − 2)² + 1)` and `g = (x + y)² + x sin²(x + y)` with x in [0, 3].
///
/// g is nonconvex in y, satisfies the Polyak–Łojasiewicz inequality, and has the only minimiser y = −x. Then
/// `ψ(x) = f(x, −x)` has three local minima in the interval: at 0.38236 (0.4427057), 1.21515 (0.1999109) and 2.82964
/// (1.2434583).
///
/// # Source
/// Shen, Chen 2023, "On penalty-based bilevel gradient descent method", section 6.1, <https://arxiv.org/abs/2302.05185>.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlToy;

impl Problem for PlToy {
    type X = Vec<f64>;
    type Y = Vec<f64>;

    fn value(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _sample: &Sample) -> f64 {
        let (x, y) = (x[0], y[0]);
        match level {
            Level::Upper => {
                (4.0 * y + 2.0).cos() * gate(x) + ((4.0 * x - 2.0) * (4.0 * x - 2.0)).ln_1p() / 2.0
            }
            Level::Lower => (x + y).powi(2) + x * (x + y).sin().powi(2),
        }
    }

    fn gradient_x(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _sample: &Sample) -> Vec<f64> {
        let (x, y) = (x[0], y[0]);
        vec![match level {
            Level::Upper => {
                // d/dx of 1/(1 + e^(2−4x)) is 4p(1 − p): both factors of the square belong to the denominator.
                let (p, shifted) = (gate(x), 4.0 * x - 2.0);
                (4.0 * y + 2.0).cos() * 4.0 * p * (1.0 - p) + 4.0 * shifted / (shifted * shifted + 1.0)
            }
            Level::Lower => 2.0 * (x + y) + (x + y).sin().powi(2) + x * (2.0 * (x + y)).sin(),
        }]
    }

    fn gradient_y(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _sample: &Sample) -> Vec<f64> {
        let (x, y) = (x[0], y[0]);
        vec![match level {
            Level::Upper => -4.0 * (4.0 * y + 2.0).sin() * gate(x),
            Level::Lower => 2.0 * (x + y) + x * (2.0 * (x + y)).sin(),
        }]
    }

    fn project_x(&self, x: &mut Vec<f64>) {
        x[0] = x[0].clamp(0.0, 3.0);
    }
}

impl ClosedForm for PlToy {
    fn solution(&self, x: &[f64]) -> Vec<f64> {
        vec![-x[0]]
    }

    /// `∂ₓ f − ∂ᵧ f` at (x, −x).
    fn hyper_gradient(&self, x: &[f64]) -> Vec<f64> {
        let (x, y, full) = (x.to_vec(), self.solution(x), Sample::full());
        let [along, across] =
            [self.gradient_x(Level::Upper, &x, &y, &full), self.gradient_y(Level::Upper, &x, &y, &full)];
        vec![along[0] - across[0]]
    }
}

/// `1/(1 + e^(2−4x))`.
fn gate(x: f64) -> f64 {
    (1.0 + (2.0 - 4.0 * x).exp()).recip()
}
