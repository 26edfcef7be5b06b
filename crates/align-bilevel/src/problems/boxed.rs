//! Lower levels on an interval: one with an active set, one whose solution jumps.

use super::{ClosedForm, ClosedPenalty, Penalized};
use crate::{Level, Problem, Sample};

/// `g = (y − x)²/2` and `f = (y − ½)²/2` with y in [0, 1].
///
/// Beyond the interval y no longer follows x, and ψ is flat. Near a kink, the bias of the order of σ starts once σ is below
/// the distance to it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Boxed;

/// `g = x y` and `f = x² + y²` with x and y in [−1, 1]: the negative control.
///
/// The lower solution jumps from 1 to −1 as x passes 0. `ψ = x² + 1` except that ψ(0) = 0; at `x = σ` the penalised
/// objective is ¼ too low for every σ, and its gradient of the order of 1/σ.
///
/// # Source
/// The phenomenon of example 1 in Kwon, Kwon, Wright, Nowak 2024, <https://arxiv.org/abs/2309.01753>.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bilinear;

impl Problem for Boxed {
    type X = Vec<f64>;
    type Y = Vec<f64>;

    fn value(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _sample: &Sample) -> f64 {
        match level {
            Level::Upper => (y[0] - 0.5).powi(2) / 2.0,
            Level::Lower => (y[0] - x[0]).powi(2) / 2.0,
        }
    }

    fn gradient_x(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _sample: &Sample) -> Vec<f64> {
        match level {
            Level::Upper => vec![0.0],
            Level::Lower => vec![x[0] - y[0]],
        }
    }

    fn gradient_y(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _sample: &Sample) -> Vec<f64> {
        match level {
            Level::Upper => vec![y[0] - 0.5],
            Level::Lower => vec![y[0] - x[0]],
        }
    }

    fn project_y(&self, y: &mut Vec<f64>) {
        y[0] = y[0].clamp(0.0, 1.0);
    }
}

impl ClosedForm for Boxed {
    fn solution(&self, x: &[f64]) -> Vec<f64> {
        vec![x[0].clamp(0.0, 1.0)]
    }

    /// `x − ½` inside the interval and 0 outside; 0 on its ends too, where ψ has a kink.
    fn hyper_gradient(&self, x: &[f64]) -> Vec<f64> {
        let inside = 0.0 < x[0] && x[0] < 1.0;
        vec![if inside { x[0] - 0.5 } else { 0.0 }]
    }
}

impl ClosedPenalty for Boxed {
    /// For σ > 0.
    fn penalized(&self, x: &[f64], sigma: f64) -> Penalized {
        let y = ((x[0] + 0.5 * sigma) / (1.0 + sigma)).clamp(0.0, 1.0);
        let z = x[0].clamp(0.0, 1.0);
        // g(y) − g(z), as a product so that nothing cancels.
        let gap = (y - z) * (y + z - 2.0 * x[0]) / 2.0;
        Penalized { y: vec![y], psi: (y - 0.5).powi(2) / 2.0 + gap / sigma, gradient: vec![(z - y) / sigma] }
    }
}

impl Problem for Bilinear {
    type X = Vec<f64>;
    type Y = Vec<f64>;

    fn value(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _sample: &Sample) -> f64 {
        match level {
            Level::Upper => x[0] * x[0] + y[0] * y[0],
            Level::Lower => x[0] * y[0],
        }
    }

    fn gradient_x(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _sample: &Sample) -> Vec<f64> {
        match level {
            Level::Upper => vec![2.0 * x[0]],
            Level::Lower => y.clone(),
        }
    }

    fn gradient_y(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _sample: &Sample) -> Vec<f64> {
        match level {
            Level::Upper => vec![2.0 * y[0]],
            Level::Lower => x.clone(),
        }
    }

    fn project_x(&self, x: &mut Vec<f64>) {
        x[0] = x[0].clamp(-1.0, 1.0);
    }

    fn project_y(&self, y: &mut Vec<f64>) {
        y[0] = y[0].clamp(-1.0, 1.0);
    }
}

impl ClosedForm for Bilinear {
    /// The end of the interval opposite to x; at x = 0, where every y is a solution, the one that f likes best.
    fn solution(&self, x: &[f64]) -> Vec<f64> {
        vec![if x[0] == 0.0 { 0.0 } else { -x[0].signum() }]
    }

    /// `2x`, the slope on either side; at 0 itself ψ jumps and has none.
    fn hyper_gradient(&self, x: &[f64]) -> Vec<f64> {
        vec![2.0 * x[0]]
    }
}

impl ClosedPenalty for Bilinear {
    /// For σ > 0.
    fn penalized(&self, x: &[f64], sigma: f64) -> Penalized {
        let y = (-x[0] / (2.0 * sigma)).clamp(-1.0, 1.0);
        let pull = (y - self.solution(x)[0]) / sigma;
        Penalized { y: vec![y], psi: x[0] * x[0] + y * y + x[0] * pull, gradient: vec![2.0 * x[0] + pull] }
    }
}
