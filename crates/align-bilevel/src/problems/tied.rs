//! Lower levels with a line of minimisers: `g = (y₁ + y₂ − x)²/2`.

use super::{ClosedForm, ClosedPenalty, Penalized};
use crate::{Level, Problem, Sample};

/// `g = (y₁ + y₂ − x)²/2` and `f = (y₁ − 1)²/2 + y₂²`: f chooses among the minimisers of g.
///
/// The penalised minimiser is unique, but the Hessian of `σf + g` has a condition number that grows like 1/σ, and an
/// implicit hyper-gradient is right only at the minimiser that f likes best.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tied;

/// `g = (y₁ + y₂ − x)²/2` and `f = (y₁ + y₂ − 1)²/2`: f is constant along the minimisers of g.
///
/// The Hessian of g is singular, and so is that of `σf + g` at every σ: a method that inverts it has nothing to invert, while
/// `ψ = (x − 1)²/2` is smooth. [`solution`](ClosedForm::solution) is the shortest minimiser.
#[derive(Clone, Copy, Debug, Default)]
pub struct TiedUniform;

/// `y₁ + y₂ − x`.
fn residual(x: &[f64], y: &[f64]) -> f64 {
    y[0] + y[1] - x[0]
}

impl Problem for Tied {
    type X = Vec<f64>;
    type Y = Vec<f64>;

    fn value(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _sample: &Sample) -> f64 {
        match level {
            Level::Upper => (y[0] - 1.0).powi(2) / 2.0 + y[1] * y[1],
            Level::Lower => residual(x, y).powi(2) / 2.0,
        }
    }

    fn gradient_x(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _sample: &Sample) -> Vec<f64> {
        match level {
            Level::Upper => vec![0.0],
            Level::Lower => vec![-residual(x, y)],
        }
    }

    fn gradient_y(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _sample: &Sample) -> Vec<f64> {
        match level {
            Level::Upper => vec![y[0] - 1.0, 2.0 * y[1]],
            Level::Lower => vec![residual(x, y); 2],
        }
    }
}

impl ClosedForm for Tied {
    fn solution(&self, x: &[f64]) -> Vec<f64> {
        self.penalized(x, 0.0).y
    }

    fn hyper_gradient(&self, x: &[f64]) -> Vec<f64> {
        self.penalized(x, 0.0).gradient
    }
}

impl ClosedPenalty for Tied {
    /// `ψ_σ = (x − 1)²/(3 + 2σ)`, which at σ = 0 is ψ.
    fn penalized(&self, x: &[f64], sigma: f64) -> Penalized {
        let share = (x[0] - 1.0) / (3.0 + 2.0 * sigma);
        Penalized {
            y: vec![1.0 + 2.0 * share, share],
            psi: share * (x[0] - 1.0),
            gradient: vec![2.0 * share],
        }
    }
}

impl Problem for TiedUniform {
    type X = Vec<f64>;
    type Y = Vec<f64>;

    fn value(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _sample: &Sample) -> f64 {
        match level {
            Level::Upper => (y[0] + y[1] - 1.0).powi(2) / 2.0,
            Level::Lower => residual(x, y).powi(2) / 2.0,
        }
    }

    fn gradient_x(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _sample: &Sample) -> Vec<f64> {
        match level {
            Level::Upper => vec![0.0],
            Level::Lower => vec![-residual(x, y)],
        }
    }

    fn gradient_y(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _sample: &Sample) -> Vec<f64> {
        match level {
            Level::Upper => vec![y[0] + y[1] - 1.0; 2],
            Level::Lower => vec![residual(x, y); 2],
        }
    }
}

impl ClosedForm for TiedUniform {
    fn solution(&self, x: &[f64]) -> Vec<f64> {
        vec![x[0] / 2.0; 2]
    }

    fn hyper_gradient(&self, x: &[f64]) -> Vec<f64> {
        vec![x[0] - 1.0]
    }
}

impl ClosedPenalty for TiedUniform {
    /// `y₁ + y₂ = (x + σ)/(1 + σ)`, shared equally; `ψ_σ = (x − 1)²/(2(1 + σ))`.
    fn penalized(&self, x: &[f64], sigma: f64) -> Penalized {
        let slope = (x[0] - 1.0) / (1.0 + sigma);
        Penalized {
            y: vec![(x[0] + sigma) / (1.0 + sigma) / 2.0; 2],
            psi: slope * (x[0] - 1.0) / 2.0,
            gradient: vec![slope],
        }
    }
}
