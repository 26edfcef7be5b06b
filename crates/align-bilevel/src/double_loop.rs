//! The double loop: a few proximal inner steps for two copies of y, then one step of x.

use align_core::draws::{Draws, Purpose};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::divergence::{Drift, Iterates, Watch, feasible};
use crate::proximal::{followed, tracking_step};
use crate::schedule::{check_count, check_step};
use crate::{
    BilevelError, Count, Difference, LevelBatches, Oracle, Penalty, Point, Problem, Samples, Schedule,
    Smoothness, Solver, Step, Stream, Warning, check_sigma,
};

/// What the outer step α multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepScale {
    /// `D ≈ σ ∇ψ`, as in the analysis for lower levels that need not be strongly convex.
    OnDifference,
    /// `D/σ ≈ ∇ψ`: much faster where the lower level is strongly convex, since the smoothness of ψ_σ does not depend on σ there
    /// (Chen, Ma, Zhang 2025).
    OnHyperGradient,
}

/// Whether the lower gradients at y and at z are taken over the same terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// The same: the deviation of `D/σ` does not depend on σ.
    Shared,
    /// Apart: the deviation of `D/σ` is of the order of 1/σ. To see what sharing is worth.
    Independent,
}

/// Which x is the answer of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Iterate {
    /// The last.
    Last,
    /// One of `x₀ … x_{K−1}`, each as likely as any other, by the seed: what the theorems bound.
    Random,
}

/// The settings of a [`DoubleLoop`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DoubleLoopConfig {
    /// K: the outer steps that schedules are stretched over and a random iterate is chosen from.
    pub outer_steps: u64,
    /// σₖ.
    pub sigma: Schedule,
    /// Forward or central.
    pub difference: Difference,
    /// ρ of the proximal problems.
    pub rho: f64,
    /// Tₖ.
    pub inner_steps: Count,
    /// The first outer step makes this many times T₀ inner steps: the difference of two runs that have not yet arrived
    /// looks like signal.
    pub warm_up: usize,
    /// The inner loop stops early when both residuals `‖w − P_Y(w − γ∇)‖/γ` are at most σ times this.
    pub inner_tolerance: Option<f64>,
    /// γₖ, of the inner steps.
    pub gamma: Schedule,
    /// βₖ in (0, 1]: how far y and z follow the inner loop.
    pub beta: Schedule,
    /// αₖ, of the outer steps.
    pub alpha: Schedule,
    /// What α multiplies.
    pub step_scale: StepScale,
    /// Terms per gradient in inner steps.
    pub inner_batch: LevelBatches,
    /// Mₖ: terms per gradient in outer steps.
    pub outer_batch: LevelBatches,
    /// Whether y and z see the same lower terms.
    pub sharing: Sharing,
    /// Which x is the answer.
    pub answer: Iterate,
    /// Of the samples and of the random iterate.
    pub seed: u64,
}

impl Default for DoubleLoopConfig {
    /// σ falls from 1, where y and z are easily followed, to 0.05 over 30 % of the run. ρ = 1 and T = 10 are common in public
    /// code; γ = 0.1 suits lower levels of curvature up to 9, and [`with_smoothness`](Self::with_smoothness) does better
    /// where the constants are known. β = 1 is the shortest memory. A warm-up of 10·T ends before the first step of x.
    fn default() -> Self {
        Self {
            outer_steps: 1000,
            sigma: Schedule::Geometric { first: 1.0, last: 0.05, share: 0.3 },
            difference: Difference::Forward,
            rho: 1.0,
            inner_steps: Count::constant(10),
            warm_up: 10,
            inner_tolerance: None,
            gamma: Schedule::constant(0.1),
            beta: Schedule::constant(1.0),
            alpha: Schedule::constant(0.1),
            step_scale: StepScale::OnHyperGradient,
            inner_batch: LevelBatches::default(),
            outer_batch: LevelBatches::default(),
            sharing: Sharing::Shared,
            answer: Iterate::Last,
            seed: 0,
        }
    }
}

impl DoubleLoopConfig {
    /// With ρ = 1/(2l) and γ = 1/(l + 1/ρ), for the l of the largest σ.
    pub fn with_smoothness(mut self, smoothness: Smoothness) -> Self {
        let sigma = self.sigma.at(0, self.outer_steps).max(self.sigma.at(self.outer_steps, self.outer_steps));
        self.rho = smoothness.rho(sigma);
        self.gamma = Schedule::constant(smoothness.inner_step(sigma, self.rho));
        self
    }

    /// What is allowed but will hardly work, if the lower level is as smooth as is said.
    pub fn warnings(&self, smoothness: Smoothness) -> Vec<Warning> {
        let at = |k| (self.sigma.at(k, self.outer_steps), self.gamma.at(k, self.outer_steps));
        smoothness.first_excess(self.outer_steps, self.rho, at).into_iter().collect()
    }

    fn check<P: Problem>(&self, problem: &P, unit_roundoff: f64) -> Result<(), BilevelError> {
        let steps = self.outer_steps;
        check_count("outer steps K", usize::try_from(steps).unwrap_or(usize::MAX), usize::MAX)?;
        self.sigma.check_sigma(steps, unit_roundoff)?;
        check_step("rho", self.rho)?;
        self.inner_steps.check("inner steps T", usize::MAX)?;
        check_count("the warm-up", self.warm_up, usize::MAX)?;
        self.inner_tolerance.map_or(Ok(()), |tolerance| check_step("the inner tolerance", tolerance))?;
        self.gamma.check_step("gamma", steps)?;
        self.beta.check_weight("beta", steps)?;
        self.alpha.check_step("alpha", steps)?;
        self.inner_batch.check(problem)?;
        self.outer_batch.check(problem)
    }
}

/// The double loop, deterministic or stochastic.
///
/// With `w_y ← y`, `w_z ← z`, T times over fresh samples
/// ```text
/// w_y ← P_Y(w_y − γ (σ ∇ᵧf(x, w_y) + ∇ᵧg(x, w_y) + (w_y − y)/ρ))
/// w_z ← P_Y(w_z − γ (∇ᵧg(x, w_z) + (w_z − z)/ρ))
/// ```
/// then `y ← (1 − β) y + β w_y`, `z` likewise, and with `D = σ ∇ₓf(x, w_y) + ∇ₓg(x, w_y) − ∇ₓg(x, w_z)`
/// ```text
/// x ← P_X(x − α D/σ)      or      x ← P_X(x − α D).
/// ```
/// An outer step with T inner ones makes 3T + 3 calls, or 4T + 4 with a central difference. y and z are never reset.
/// A lower level along which z walks away at one pace is refused as
/// [`UnboundedLowerLevel`](BilevelError::UnboundedLowerLevel), after 512 steps at the soonest.
///
/// While it steps it holds four points of the size of y and two of the size of x, and the gradient at hand.
///
/// Saved at any step and read again, it goes on to the last bit.
///
/// # Source
/// Kwon, Kwon, Wright, Nowak 2024, algorithm 1, <https://arxiv.org/abs/2309.01753>. Which quantity β averages, where the 1/σ
/// stands, and all constants are our reconstruction. Departures of ours: by default the step is on the hyper-gradient
/// and not on σ times it, the first outer step warms up, the inner loop may stop early, and a central difference is
/// offered.
///
/// # Examples
/// ```
/// use std::ops::ControlFlow;
///
/// use align_bilevel::problems::Quadratic;
/// use align_bilevel::{DoubleLoop, DoubleLoopConfig, Oracle, Schedule, Solver, run};
///
/// // min (y − 1)²/2 where y minimises (y − 2x)²/2: the best x is a half.
/// let problem = Quadratic::scalar();
/// let config = DoubleLoopConfig { outer_steps: 200, gamma: Schedule::constant(0.5), ..Default::default() };
/// let mut solver = DoubleLoop::new(config, &problem, vec![0.0], vec![0.0], vec![0.0])?;
/// let calls = run(&mut solver, &Oracle::new(&problem), 200, |_, _, _| ControlFlow::Continue(()))?;
/// assert!((solver.answer()[0] - 0.5).abs() < 1e-6);
/// assert_eq!(calls.total(), 3 * (10 * 10 + 199 * 10) + 3 * 200);
/// # Ok::<(), align_bilevel::BilevelError>(())
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoubleLoop<X, Y> {
    config: DoubleLoopConfig,
    x: X,
    y: Y,
    z: Y,
    iteration: u64,
    watch: Watch,
    drift: Drift,
    /// The random iterate, once the run has passed it.
    chosen: Option<X>,
}

/// Where an inner loop ended.
struct Inner<Y> {
    y: Y,
    z: Y,
    residual: f64,
}

impl<X: Point, Y: Point> DoubleLoop<X, Y> {
    /// From starts of x, of y, which will follow the minimiser of `σf + g`, and of z, which will follow that of g.
    ///
    /// # Errors
    /// If a setting is out of range for this problem, or a start is not finite or outside its set.
    pub fn new<P: Problem<X = X, Y = Y>>(
        config: DoubleLoopConfig,
        problem: &P,
        x: X,
        y: Y,
        z: Y,
    ) -> Result<Self, BilevelError> {
        config.check(problem, x.unit_roundoff().max(y.unit_roundoff()))?;
        if z.len() != y.len() {
            return Err(BilevelError::ShapeMismatch { which: "z", expected: y.len(), found: z.len() });
        }
        Ok(Self {
            x: feasible("x", x, |x| problem.project_x(x))?,
            y: feasible("y", y, |y| problem.project_y(y))?,
            z: feasible("z", z, |z| problem.project_y(z))?,
            config,
            iteration: 0,
            watch: Watch::default(),
            drift: Drift::default(),
            chosen: None,
        })
    }

    /// The settings.
    pub fn config(&self) -> &DoubleLoopConfig {
        &self.config
    }

    /// The point that follows the minimiser of `σf + g`; [`Solver::y`] follows that of g alone.
    pub fn perturbed(&self) -> &Y {
        &self.y
    }

    /// The x that the run answers with: the last one, or the random one as soon as the run has passed it.
    pub fn answer(&self) -> &X {
        self.chosen.as_ref().unwrap_or(&self.x)
    }

    /// σ at the present step.
    pub fn sigma(&self) -> f64 {
        self.config.sigma.at(self.iteration, self.config.outer_steps)
    }

    fn inner_loop<P: Problem<X = X, Y = Y>>(
        &self,
        oracle: &Oracle<'_, P>,
        penalty: Penalty,
    ) -> Result<Inner<Y>, BilevelError> {
        let (config, k) = (&self.config, self.iteration);
        let project = |y: &mut Y| oracle.problem().project_y(y);
        let gamma = config.gamma.at(k, config.outer_steps);
        let warm_up = if k == 0 { config.warm_up } else { 1 };
        let steps = config.inner_steps.at(k, penalty.sigma).saturating_mul(warm_up);
        let mut inner = Inner { y: self.y.clone(), z: self.z.clone(), residual: f64::INFINITY };
        for t in 0..steps as u64 {
            oracle.at(k, t);
            let samples = self.samples(oracle, Loop::Inner(t));
            let at_z = samples.apart.as_ref().unwrap_or(&samples.lower);
            let slope = penalty.gradient_at_y(oracle, &self.x, &inner.y, &samples.upper, &samples.lower)?;
            let y = tracking_step(&inner.y, slope, &self.y, gamma, config.rho, project);
            let slope = penalty.gradient_at_z(oracle, &self.x, &inner.z, &samples.upper, at_z)?;
            let z = tracking_step(&inner.z, slope, &self.z, gamma, config.rho, project);
            // A norm is a transfer where points live on a device, so it is taken only if someone looks at it.
            if config.inner_tolerance.is_some() || t + 1 == steps as u64 {
                inner.residual = inner.y.distance(&y).max(inner.z.distance(&z)) / gamma;
            }
            (inner.y, inner.z) = (y, z);
            if config.inner_tolerance.is_some_and(|tolerance| inner.residual <= penalty.sigma * tolerance) {
                break;
            }
        }
        Ok(inner)
    }

    fn samples<P: Problem>(&self, oracle: &Oracle<'_, P>, of: Loop) -> Samples {
        let (config, k) = (&self.config, self.iteration);
        let (batch, t, [upper, lower, apart]) = match of {
            Loop::Inner(t) => {
                (&config.inner_batch, t, [Stream::InnerUpper, Stream::InnerLower, Stream::InnerLowerApart])
            }
            Loop::Outer => {
                (&config.outer_batch, 0, [Stream::OuterUpper, Stream::OuterLower, Stream::OuterLowerApart])
            }
        };
        let draw = |stream| batch.draw(stream, oracle.problem(), config.seed, [k, t], self.sigma());
        Samples {
            upper: draw(upper),
            lower: draw(lower),
            apart: (config.sharing == Sharing::Independent).then(|| draw(apart)),
        }
    }

    /// R, uniform on 0 … K − 1.
    fn chosen_step(&self) -> u64 {
        let mut generator = Draws::new(self.config.seed).generator(Purpose::Shuffle, 0);
        generator.random_range(0..self.config.outer_steps)
    }
}

/// Which loop a sample is for.
#[derive(Clone, Copy)]
enum Loop {
    Inner(u64),
    Outer,
}

impl<P: Problem> Solver<P> for DoubleLoop<P::X, P::Y> {
    fn step(&mut self, oracle: &Oracle<'_, P>) -> Result<Step, BilevelError> {
        let (config, k) = (&self.config, self.iteration);
        let penalty = Penalty { sigma: self.sigma(), difference: config.difference };
        // A power law goes on beyond K, and below the floor in the end.
        check_sigma(penalty.sigma, self.x.unit_roundoff().max(self.y.unit_roundoff()))?;
        let inner = self.inner_loop(oracle, penalty)?;

        let samples = self.samples(oracle, Loop::Outer);
        let difference = penalty.difference_x(oracle, &self.x, &inner.y, &inner.z, &samples)?;
        let gradient_norm = difference.norm() / penalty.sigma;
        let watch = self.watch.after(gradient_norm, self.x.unit_roundoff(), k)?;

        let alpha = match config.step_scale {
            StepScale::OnDifference => config.alpha.at(k, config.outer_steps),
            StepScale::OnHyperGradient => config.alpha.at(k, config.outer_steps) / penalty.sigma,
        };
        let beta = config.beta.at(k, config.outer_steps);
        let mut x = difference;
        x.scale_add(-alpha, 1.0, &self.x);
        let mut next =
            Iterates { x, y: followed(&self.y, beta, inner.y), z: followed(&self.z, beta, inner.z) };
        oracle.problem().project_x(&mut next.x);
        next.check(k, inner.residual)?;
        let drift = self.drift.after(inner.residual, || next.z.norm())?;

        // Nothing of the state was touched before all that can fail had succeeded.
        let left = std::mem::replace(&mut self.x, next.x);
        if self.config.answer == Iterate::Random && k == self.chosen_step() {
            self.chosen = Some(left);
        }
        (self.y, self.z) = (next.y, next.z);
        (self.watch, self.drift) = (watch, drift);
        self.iteration += 1;
        Ok(Step { iteration: k, sigma: Some(penalty.sigma), gradient_norm, residual: Some(inner.residual) })
    }

    fn x(&self) -> &P::X {
        &self.x
    }

    // Of the two copies, z is the one that g alone decides.
    #[allow(clippy::misnamed_getters)]
    fn y(&self) -> &P::Y {
        &self.z
    }

    fn iterations(&self) -> u64 {
        self.iteration
    }
}
