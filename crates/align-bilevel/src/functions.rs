//! A bilevel problem from two plain functions of vectors.

use crate::{Level, Problem, Sample};

/// An objective at one point: its value and both its gradients.
#[derive(Clone, Debug, PartialEq)]
pub struct Slopes {
    /// f(x, y), or g(x, y).
    pub value: f64,
    /// Its gradient in x.
    pub x: Vec<f64>,
    /// Its gradient in y.
    pub y: Vec<f64>,
}

/// A [`Problem`] from two functions `(x, y) → Slopes`, for objectives that are cheap enough to be evaluated whole.
///
/// A gradient in one variable costs a call of the function, which computes both; where that matters, or where objectives
/// are sampled, implement [`Problem`]. Sets come from [`Constrained`](crate::Constrained).
///
/// # Examples
/// ```
/// use std::ops::ControlFlow;
///
/// use align_bilevel::{DoubleLoop, DoubleLoopConfig, Functions, Oracle, Schedule, Slopes, Solver, run};
///
/// // min (y − 1)²/2 where y minimises (y − 2x)²/2: the best x is a half.
/// let problem = Functions {
///     upper: |x: &[f64], y: &[f64]| Slopes {
///         value: (y[0] - 1.0).powi(2) / 2.0,
///         x: vec![0.0],
///         y: vec![y[0] - 1.0],
///     },
///     lower: |x: &[f64], y: &[f64]| {
///         let r = y[0] - 2.0 * x[0];
///         Slopes { value: r * r / 2.0, x: vec![-2.0 * r], y: vec![r] }
///     },
/// };
/// let config = DoubleLoopConfig { outer_steps: 200, gamma: Schedule::constant(0.5), ..Default::default() };
/// let mut solver = DoubleLoop::new(config, &problem, vec![0.0], vec![0.0], vec![0.0])?;
/// run(&mut solver, &Oracle::new(&problem), 200, |_, _, _| ControlFlow::Continue(()))?;
/// assert!((solver.answer()[0] - 0.5).abs() < 1e-6);
/// # Ok::<(), align_bilevel::BilevelError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Functions<F, G> {
    /// f.
    pub upper: F,
    /// g.
    pub lower: G,
}

impl<F, G> Functions<F, G>
where
    F: Fn(&[f64], &[f64]) -> Slopes,
    G: Fn(&[f64], &[f64]) -> Slopes,
{
    fn at(&self, level: Level, x: &[f64], y: &[f64]) -> Slopes {
        match level {
            Level::Upper => (self.upper)(x, y),
            Level::Lower => (self.lower)(x, y),
        }
    }
}

impl<F, G> Problem for Functions<F, G>
where
    F: Fn(&[f64], &[f64]) -> Slopes + Sync,
    G: Fn(&[f64], &[f64]) -> Slopes + Sync,
{
    type X = Vec<f64>;
    type Y = Vec<f64>;

    fn value(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _: &Sample) -> f64 {
        self.at(level, x, y).value
    }

    fn gradient_x(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _: &Sample) -> Vec<f64> {
        self.at(level, x, y).x
    }

    fn gradient_y(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _: &Sample) -> Vec<f64> {
        self.at(level, x, y).y
    }
}
