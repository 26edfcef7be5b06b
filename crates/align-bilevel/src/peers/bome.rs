//! A multiplier that makes every step reduce the lower level's gap.

use std::num::NonZeroUsize;

use align_core::number::Positive;
use serde::{Deserialize, Serialize};

use super::sampling::Sampling;
use super::steps::{begin, lower_step, moved};
use crate::{BilevelError, Level, Oracle, Point, Problem, Solver, Step, Stream};

/// Settings of [`Bome`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BomeConfig {
    /// T: steps on g from y, whose end stands for the minimiser. 10, as in the released code.
    pub inner_steps: NonZeroUsize,
    /// Their size.
    pub inner_step: Positive,
    /// The step of x.
    pub outer_step: Positive,
    /// The step of y.
    pub joint_step: Positive,
    /// η: how fast the gap is to fall. 0.5, as in the released code.
    pub eta: Positive,
    /// What η multiplies.
    pub control: Control,
    /// Minibatches: one of each level for the whole step, so that the gap is that of one objective. The paper's method has none.
    pub sampling: Sampling,
}

/// φ/η, where the step is to have `⟨∇q, direction⟩ ≥ φ`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// `‖∇q‖²`.
    #[default]
    GradientNorm,
    /// q itself, for two values of g a step.
    Gap,
}

impl Default for BomeConfig {
    fn default() -> Self {
        Self {
            inner_steps: NonZeroUsize::new(10).expect("10 is not 0"),
            inner_step: Positive::literal(0.1),
            outer_step: Positive::literal(0.1),
            joint_step: Positive::literal(0.1),
            eta: Positive::literal(0.5),
            control: Control::GradientNorm,
            sampling: Sampling::default(),
        }
    }
}

/// `λ = max(0, (φ − ⟨∇f, ∇q⟩) / ‖∇q‖²)`, the least multiplier with `⟨∇q, ∇f + λ∇q⟩ ≥ φ`; 0 where `∇q` is.
pub fn bome_multiplier(phi: f64, alignment: f64, gap_slope_squared: f64) -> f64 {
    match gap_slope_squared > 0.0 {
        true => ((phi - alignment) / gap_slope_squared).max(0.0),
        false => 0.0,
    }
}

/// BOME: `q = g(x, y) − g(x, y_T)` is driven to 0 while f falls, by a step along `∇f + λ∇q` in x and y together.
///
/// y_T is where T gradient steps on g lead from y, and counts as a constant in `∇q = (∇ₓ g(x, y) − ∇ₓ g(x, y_T), ∇ᵧ g(x, y))`. λ
/// is [`bome_multiplier`] with `φ = η‖∇q‖²`.
///
/// # Source
/// Ye, Liu, Wright, Stone, Liu 2022, "BOME! Bilevel optimization made easy", <https://arxiv.org/abs/2209.08709>. The
/// projections are ours.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bome<X, Y> {
    config: BomeConfig,
    x: X,
    y: Y,
    iterations: u64,
}

impl<X: Point, Y: Point> Bome<X, Y> {
    /// From a start.
    pub fn new(config: BomeConfig, x: X, y: Y) -> Self {
        Self { config, x, y, iterations: 0 }
    }
}

impl<P: Problem> Solver<P> for Bome<P::X, P::Y> {
    fn step(&mut self, oracle: &Oracle<'_, P>) -> Result<Step, BilevelError> {
        let (config, outer, problem) = (&self.config, self.iterations, oracle.problem());
        let (x, y) = (&self.x, &self.y);
        let sampler = begin(oracle, &config.sampling, outer, x, y, None)?;
        let [upper, lower] = [Stream::OuterUpper, Stream::OuterLower].map(|stream| sampler.draw(stream, 0));

        // The first inner gradient is ∇ᵧ q too.
        let gamma = config.inner_step.get();
        let mut gap_y = oracle.gradient_y(Level::Lower, x, y, &lower)?;
        let mut end = lower_step(problem, y, gamma, &gap_y, outer)?;
        for inner in 1..config.inner_steps.get() as u64 {
            oracle.at(outer, inner);
            let slope = oracle.gradient_y(Level::Lower, x, &end.y, &lower)?;
            end = lower_step(problem, &end.y, gamma, &slope, outer)?;
        }

        let mut gap_x = oracle.lower_difference_x(x, y, &end.y, &lower)?;
        let mut along_x = oracle.gradient_x(Level::Upper, x, y, &upper)?;
        let mut along_y = oracle.gradient_y(Level::Upper, x, y, &upper)?;
        let squared = gap_x.dot(&gap_x) + gap_y.dot(&gap_y);
        let phi = match config.control {
            Control::GradientNorm => squared,
            Control::Gap => {
                let value = |y| oracle.value(Level::Lower, x, y, &lower);
                value(y)? - value(&end.y)?
            }
        };
        let alignment = along_x.dot(&gap_x) + along_y.dot(&gap_y);
        let multiplier = bome_multiplier(config.eta.get() * phi, alignment, squared);
        gap_x.scale(multiplier);
        gap_y.scale(multiplier);
        along_x.add_scaled(1.0, &gap_x);
        along_y.add_scaled(1.0, &gap_y);

        let next_x = moved(("x", x), config.outer_step.get(), &along_x, |x| problem.project_x(x), outer)?;
        let next_y = moved(("y", y), config.joint_step.get(), &along_y, |y| problem.project_y(y), outer)?;
        (self.x, self.y) = (next_x, next_y);
        self.iterations += 1;
        Ok(Step {
            iteration: outer,
            sigma: (multiplier > 0.0).then(|| multiplier.recip()),
            gradient_norm: along_x.norm(),
            residual: Some(end.residual),
        })
    }

    fn x(&self) -> &P::X {
        &self.x
    }

    fn y(&self) -> &P::Y {
        &self.y
    }

    fn iterations(&self) -> u64 {
        self.iterations
    }
}
