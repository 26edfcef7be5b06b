//! The fully first-order method, and its variant with momentum.

use serde::{Deserialize, Serialize};

use super::f2sa_config::F2saConfig;
use super::sampling::Sampler;
use super::steps::{begin, moved};
use crate::{BilevelError, Level, Oracle, Point, Problem, Solver, Step, Stream, recursive_momentum};

/// F2SA, and with momentum F3SA: a penalty whose multiplier λ = 1/σ grows.
///
/// ```text
/// T times:  z ← z − γ ∇ᵧ g(x, z)
///           y ← y − α (∇ᵧ f(x, y) + λ ∇ᵧ g(x, y))
/// x ← x − ξ α (∇ₓ f(x, y) + λ (∇ₓ g(x, y) − ∇ₓ g(x, z))),    then λ grows
/// ```
///
/// With a constant λ, and the step of x set apart from that of y by ξ, this is the two-time-scale method F2BA.
///
/// With momentum, each of the three directions is estimated by `e ← d(now) + (1 − η)(e − d(before))`, see
/// [`recursive_momentum`], both over the same fresh sample, and each d with the λ of its step.
///
/// # Source
/// Kwon, Kwon, Wright, Nowak 2023, "A fully first-order method for stochastic bilevel optimization",
/// <https://arxiv.org/abs/2301.10945>; F2BA is of Chen, Ma, Zhang 2025, <https://arxiv.org/abs/2306.14853>. Departures: `αλ ≤
/// γ` is enforced in every step, by shortening α; the two lower gradients of a step of x share their sample, without which
/// their noise is multiplied by λ; projections. Momentum is reconstructed from its published rates and its general form.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct F2sa<X, Y> {
    config: F2saConfig,
    at: Place<X, Y>,
    inner: Option<Fed<X, Y, Slopes<Y>>>,
    outer: Option<Fed<X, Y, X>>,
    iterations: u64,
}

/// All that a direction depends on but its sample.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place<X, Y> {
    x: X,
    /// y: follows the minimiser of `f/λ + g`.
    penalized: Y,
    /// z: follows that of g.
    solution: Y,
    multiplier: f64,
}

/// An estimate, and where it was last fed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fed<X, Y, E> {
    at: Place<X, Y>,
    estimate: E,
}

/// `∇ᵧ f/λ + ∇ᵧ g` at y, and `∇ᵧ g` at z.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Slopes<Y> {
    y: Y,
    z: Y,
}

impl<X: Point, Y: Point> Place<X, Y> {
    /// The directions of y and z: three calls.
    fn slopes<P: Problem<X = X, Y = Y>>(
        &self,
        oracle: &Oracle<'_, P>,
        sampler: &Sampler,
        inner: u64,
    ) -> Result<Slopes<Y>, BilevelError> {
        let [upper, lower] =
            [Stream::InnerUpper, Stream::InnerLower].map(|stream| sampler.draw(stream, inner));
        Ok(Slopes {
            y: oracle.perturbed_gradient_y(
                self.multiplier.recip(),
                &self.x,
                &self.penalized,
                &upper,
                &lower,
            )?,
            z: oracle.gradient_y(Level::Lower, &self.x, &self.solution, &lower)?,
        })
    }

    /// The direction of x, `∇ₓ f + λ (∇ₓ g(y) − ∇ₓ g(z))`: three calls.
    fn pull<P: Problem<X = X, Y = Y>>(
        &self,
        oracle: &Oracle<'_, P>,
        sampler: &Sampler,
    ) -> Result<X, BilevelError> {
        let [upper, lower] = [Stream::OuterUpper, Stream::OuterLower].map(|stream| sampler.draw(stream, 0));
        let mut pull = oracle.gradient_x(Level::Upper, &self.x, &self.penalized, &upper)?;
        let difference = oracle.lower_difference_x(&self.x, &self.penalized, &self.solution, &lower)?;
        pull.add_scaled(self.multiplier, &difference);
        Ok(pull)
    }
}

impl<X: Point, Y: Point> F2sa<X, Y> {
    /// From a start.
    ///
    /// # Errors
    /// If a momentum weight is above 1 or grows, or the first multiplier is below what the constants ask for.
    pub fn new(config: F2saConfig, x: X, y: Y, z: Y) -> Result<Self, BilevelError> {
        config.check()?;
        let at = Place { x, penalized: y, solution: z, multiplier: config.multiplier.first() };
        Ok(Self { config, at, inner: None, outer: None, iterations: 0 })
    }

    /// λ, as the next step will use it.
    pub fn multiplier(&self) -> f64 {
        self.at.multiplier
    }

    /// The next step's α: shortened where αλ would exceed γ.
    pub fn alpha(&self) -> f64 {
        self.config.alpha.at(self.iterations).min(self.gamma() / self.at.multiplier)
    }

    /// The next step's γ.
    pub fn gamma(&self) -> f64 {
        self.config.gamma.at(self.iterations)
    }

    /// The directions of y and z at an inner step: fresh, or corrected by what was estimated before.
    fn estimated_slopes<P: Problem<X = X, Y = Y>>(
        &mut self,
        oracle: &Oracle<'_, P>,
        sampler: &Sampler,
        inner: u64,
        at: &Place<X, Y>,
    ) -> Result<Slopes<Y>, BilevelError> {
        let mut estimate = at.slopes(oracle, sampler, inner)?;
        if let Some(law) = self.config.momentum {
            let eta = law.at(sampler.outer());
            if let Some(last) = self.inner.take() {
                let before = last.at.slopes(oracle, sampler, inner)?;
                estimate = Slopes {
                    y: recursive_momentum(&last.estimate.y, eta, estimate.y, &before.y),
                    z: recursive_momentum(&last.estimate.z, eta, estimate.z, &before.z),
                };
            }
            self.inner = Some(Fed { at: at.clone(), estimate: estimate.clone() });
        }
        Ok(estimate)
    }

    /// The same of the direction of x.
    fn estimated_pull<P: Problem<X = X, Y = Y>>(
        &mut self,
        oracle: &Oracle<'_, P>,
        sampler: &Sampler,
        at: &Place<X, Y>,
    ) -> Result<X, BilevelError> {
        let mut estimate = at.pull(oracle, sampler)?;
        if let Some(law) = self.config.momentum {
            let eta = law.at(sampler.outer());
            if let Some(last) = self.outer.take() {
                let before = last.at.pull(oracle, sampler)?;
                estimate = recursive_momentum(&last.estimate, eta, estimate, &before);
            }
            self.outer = Some(Fed { at: at.clone(), estimate: estimate.clone() });
        }
        Ok(estimate)
    }
}

impl<P: Problem> Solver<P> for F2sa<P::X, P::Y> {
    fn step(&mut self, oracle: &Oracle<'_, P>) -> Result<Step, BilevelError> {
        let (outer, problem) = (self.iterations, oracle.problem());
        let sampler = begin(
            oracle,
            &self.config.sampling,
            outer,
            &self.at.x,
            &self.at.penalized,
            Some(&self.at.solution),
        )?;
        let (alpha, gamma, multiplier) = (self.alpha(), self.gamma(), self.at.multiplier);
        let mut at = self.at.clone();
        let mut residual = 0.0;
        for inner in 0..self.config.inner_steps.get() as u64 {
            oracle.at(outer, inner);
            let slopes = self.estimated_slopes(oracle, &sampler, inner, &at)?;
            residual = slopes.y.norm().max(slopes.z.norm());
            at.penalized =
                moved(("y", &at.penalized), alpha * multiplier, &slopes.y, |y| problem.project_y(y), outer)?;
            at.solution = moved(("z", &at.solution), gamma, &slopes.z, |z| problem.project_y(z), outer)?;
        }
        let pull = self.estimated_pull(oracle, &sampler, &at)?;
        let step = self.config.xi.at(outer) * alpha;
        at.x = moved(("x", &at.x), step, &pull, |x| problem.project_x(x), outer)?;
        at.multiplier = self.config.multiplier.after(outer, multiplier);
        self.at = at;
        self.iterations += 1;
        Ok(Step {
            iteration: outer,
            sigma: Some(multiplier.recip()),
            gradient_norm: pull.norm(),
            residual: Some(residual),
        })
    }

    fn x(&self) -> &P::X {
        &self.at.x
    }

    fn y(&self) -> &P::Y {
        &self.at.solution
    }

    fn iterations(&self) -> u64 {
        self.iterations
    }
}
