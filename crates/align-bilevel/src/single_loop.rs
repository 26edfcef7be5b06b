//! The single loop: one step of everything at a time, on gradients that remember.

use serde::{Deserialize, Serialize};

use crate::divergence::{Drift, Iterates, Watch, feasible};
use crate::proximal::{followed, tracking_step};
use crate::schedule::{check_count, check_step};
use crate::{
    BilevelError, Level, LevelBatches, Oracle, Point, Problem, Schedule, Smoothness, Solver, Step, StepScale,
    Stream, Warning, check_sigma,
};

/// `e ← fresh + (1 − η)(e − before)`: a running estimate of a gradient.
///
/// `fresh` and `before` are the gradient at the present and at the previous point, on the same fresh sample. For η = 1 it is the
/// fresh gradient; with an oracle without noise it is the exact gradient at every step, for any η.
///
/// The estimate is unbiased, and its variance falls, only if gradients of a fixed sample are Lipschitz in the mean square.
///
/// # Source
/// Cutkosky and Orabona 2019, "Momentum-based variance reduction", <https://arxiv.org/abs/1905.10018>.
pub fn recursive_momentum<T: Point>(estimate: &T, eta: f64, mut fresh: T, before: &T) -> T {
    fresh.add_scaled(1.0 - eta, estimate);
    fresh.add_scaled(eta - 1.0, before);
    fresh
}

/// The settings of a [`SingleLoop`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SingleLoopConfig {
    /// K: the steps that geometric schedules are stretched over.
    pub outer_steps: u64,
    /// σₖ.
    pub sigma: Schedule,
    /// ρ of the proximal problems.
    pub rho: f64,
    /// γₖ, of the inner points.
    pub gamma: Schedule,
    /// βₖ in (0, 1]: how far y and z follow them.
    pub beta: Schedule,
    /// αₖ, of x.
    pub alpha: Schedule,
    /// What α multiplies.
    pub step_scale: StepScale,
    /// ηₖ in (0, 1]: how much an estimate forgets. At 0 the noise of the first sample would stay for good.
    pub eta: Schedule,
    /// Terms per gradient.
    pub batch: LevelBatches,
    /// Of the samples.
    pub seed: u64,
}

impl Default for SingleLoopConfig {
    /// Power laws from k₀ = 10 on: α, β and γ like k^(−2/5), σ like k^(−1/5), η like k^(−4/5). The exponents are derived
    /// here from the published total of O(ε⁻⁵) calls, not read from the theorem: the step on ψ is ασ ~ k^(−3/5), hence
    /// ‖∇ψ‖² of the order of k^(−2/5), and so is the squared error of the estimates, η/σ².
    ///
    /// σ, β and η begin at 1. γ from 0.1 suits lower levels of curvature up to 9 with ρ = 1. α acts on D, from 0.05.
    fn default() -> Self {
        let power = |first, exponent| Schedule::Power { first, exponent, offset: 10.0 };
        Self {
            outer_steps: 10_000,
            sigma: power(1.0, -0.2),
            rho: 1.0,
            gamma: power(0.1, -0.4),
            beta: power(1.0, -0.4),
            alpha: power(0.05, -0.4),
            step_scale: StepScale::OnDifference,
            eta: power(1.0, -0.8),
            batch: LevelBatches::default(),
            seed: 0,
        }
    }
}

impl SingleLoopConfig {
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
        self.gamma.check_step("gamma", steps)?;
        self.beta.check_weight("beta", steps)?;
        self.alpha.check_step("alpha", steps)?;
        self.eta.check_weight("eta", steps)?;
        self.batch.check(problem)
    }
}

/// The five running estimates.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Estimates<X, Y> {
    /// Of `∇ᵧf(x, w_y)`.
    pub upper_y: Y,
    /// Of `∇ᵧg(x, w_y)`.
    pub lower_y: Y,
    /// Of `∇ᵧg(x, w_z)`.
    pub lower_z: Y,
    /// Of `∇ₓf(x, w_y)`.
    pub upper_x: X,
    /// Of `∇ₓg(x, w_y) − ∇ₓg(x, w_z)`.
    pub difference_x: X,
}

/// The points of the step before, where gradients are taken once more.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Before<X, Y> {
    x: X,
    w_y: Y,
    w_z: Y,
    estimates: Estimates<X, Y>,
}

/// The fully single-loop method: one inner step, one outer step, recursive momentum in five gradients.
///
/// One sample of each level a step, on which every gradient is taken at the present and at the previous point. With the
/// estimates e of [`recursive_momentum`],
/// ```text
/// w_y ← P_Y(w_y − γ (σ e_fy + e_gy + (w_y − y)/ρ)),    w_z ← P_Y(w_z − γ (e_gz + (w_z − z)/ρ))
/// y ← (1 − β) y + β w_y,    z ← (1 − β) z + β w_z
/// x ← P_X(x − α (σ e_fx + e_dx))
/// ```
/// where the last two estimates are at the new w. A step makes 12 calls; 6 in the first, and wherever η = 1, which
/// is plain stochastic gradient descent. It remembers nine points of the size of y and four of the size of x.
///
/// A lower level along which z walks away at one pace is refused, as in the [`DoubleLoop`](crate::DoubleLoop).
///
/// Saved at any step and read again, it goes on to the last bit. The gain over plain gradients is in the variance of the
/// estimates; where x moves slowly it averages much of the noise anyway.
///
/// # Source
/// Kwon, Kwon, Wright, Nowak 2024, algorithm 2, <https://arxiv.org/abs/2309.01753>; the layout is our reconstruction.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SingleLoop<X, Y> {
    config: SingleLoopConfig,
    x: X,
    y: Y,
    z: Y,
    w_y: Y,
    w_z: Y,
    before: Option<Before<X, Y>>,
    iteration: u64,
    watch: Watch,
    drift: Drift,
}

impl<X: Point, Y: Point> SingleLoop<X, Y> {
    /// From starts of x, of y, which will follow the minimiser of `σf + g`, and of z, which will follow that of g.
    ///
    /// # Errors
    /// If a setting is out of range for this problem, or a start is not finite or outside its set.
    pub fn new<P: Problem<X = X, Y = Y>>(
        config: SingleLoopConfig,
        problem: &P,
        x: X,
        y: Y,
        z: Y,
    ) -> Result<Self, BilevelError> {
        config.check(problem, x.unit_roundoff().max(y.unit_roundoff()))?;
        if z.len() != y.len() {
            return Err(BilevelError::ShapeMismatch { which: "z", expected: y.len(), found: z.len() });
        }
        let y = feasible("y", y, |y| problem.project_y(y))?;
        let z = feasible("z", z, |z| problem.project_y(z))?;
        Ok(Self {
            x: feasible("x", x, |x| problem.project_x(x))?,
            w_y: y.clone(),
            w_z: z.clone(),
            y,
            z,
            config,
            before: None,
            iteration: 0,
            watch: Watch::default(),
            drift: Drift::default(),
        })
    }

    /// The settings.
    pub fn config(&self) -> &SingleLoopConfig {
        &self.config
    }

    /// The point that follows the minimiser of `σf + g`; [`Solver::y`] follows that of g alone.
    pub fn perturbed(&self) -> &Y {
        &self.y
    }

    /// `w_y` and `w_z`.
    pub fn inner_points(&self) -> (&Y, &Y) {
        (&self.w_y, &self.w_z)
    }

    /// The five estimates of the last step; `None` before the first.
    pub fn estimates(&self) -> Option<&Estimates<X, Y>> {
        self.before.as_ref().map(|before| &before.estimates)
    }

    /// σ at the present step.
    pub fn sigma(&self) -> f64 {
        self.config.sigma.at(self.iteration, self.config.outer_steps)
    }
}

impl<P: Problem> Solver<P> for SingleLoop<P::X, P::Y> {
    fn step(&mut self, oracle: &Oracle<'_, P>) -> Result<Step, BilevelError> {
        let (config, k, sigma) = (&self.config, self.iteration, self.sigma());
        check_sigma(sigma, self.x.unit_roundoff().max(self.y.unit_roundoff()))?;
        oracle.at(k, 0);
        let at = |schedule: &Schedule| schedule.at(k, config.outer_steps);
        let draw = |stream| config.batch.draw(stream, oracle.problem(), config.seed, [k, 0], sigma);
        let (upper, lower) = (draw(Stream::OuterUpper), draw(Stream::OuterLower));
        let eta = at(&config.eta);
        // At η = 1 the past has no weight, and is not asked for.
        let before = self.before.as_ref().filter(|_| eta < 1.0);

        let slopes = |x: &P::X, w_y: &P::Y, w_z: &P::Y| -> Result<[P::Y; 3], BilevelError> {
            Ok([
                oracle.gradient_y(Level::Upper, x, w_y, &upper)?,
                oracle.gradient_y(Level::Lower, x, w_y, &lower)?,
                oracle.gradient_y(Level::Lower, x, w_z, &lower)?,
            ])
        };
        let [mut upper_y, mut lower_y, mut lower_z] = slopes(&self.x, &self.w_y, &self.w_z)?;
        if let Some(before) = before {
            let [f, g_y, g_z] = slopes(&before.x, &before.w_y, &before.w_z)?;
            upper_y = recursive_momentum(&before.estimates.upper_y, eta, upper_y, &f);
            lower_y = recursive_momentum(&before.estimates.lower_y, eta, lower_y, &g_y);
            lower_z = recursive_momentum(&before.estimates.lower_z, eta, lower_z, &g_z);
        }
        let (gamma, rho) = (at(&config.gamma), config.rho);
        let project = |y: &mut P::Y| oracle.problem().project_y(y);
        let w_y = tracking_step(&self.w_y, lower_y.plus(sigma, &upper_y), &self.y, gamma, rho, project);
        let w_z = tracking_step(&self.w_z, lower_z.clone(), &self.z, gamma, rho, project);
        let residual = self.w_y.distance(&w_y).max(self.w_z.distance(&w_z)) / gamma;

        let pulls = |x: &P::X, w_y: &P::Y, w_z: &P::Y| -> Result<[P::X; 2], BilevelError> {
            let upper = oracle.gradient_x(Level::Upper, x, w_y, &upper)?;
            Ok([upper, oracle.lower_difference_x(x, w_y, w_z, &lower)?])
        };
        let [mut upper_x, mut difference_x] = pulls(&self.x, &w_y, &w_z)?;
        if let Some(before) = before {
            // The estimates of the step before were at the w that it moved to: the present one.
            let [f, difference] = pulls(&before.x, &self.w_y, &self.w_z)?;
            upper_x = recursive_momentum(&before.estimates.upper_x, eta, upper_x, &f);
            difference_x = recursive_momentum(&before.estimates.difference_x, eta, difference_x, &difference);
        }
        let difference = difference_x.plus(sigma, &upper_x);
        let gradient_norm = difference.norm() / sigma;
        let watch = self.watch.after(gradient_norm, self.x.unit_roundoff(), k)?;

        let alpha = match config.step_scale {
            StepScale::OnDifference => at(&config.alpha),
            StepScale::OnHyperGradient => at(&config.alpha) / sigma,
        };
        let beta = at(&config.beta);
        let mut next = Iterates {
            x: self.x.plus(-alpha, &difference),
            y: followed(&self.y, beta, w_y.clone()),
            z: followed(&self.z, beta, w_z.clone()),
        };
        oracle.problem().project_x(&mut next.x);
        next.check(k, residual)?;
        let drift = self.drift.after(residual, || next.z.norm())?;

        // Nothing of the state was touched before all that can fail had succeeded.
        self.before = Some(Before {
            x: std::mem::replace(&mut self.x, next.x),
            w_y: std::mem::replace(&mut self.w_y, w_y),
            w_z: std::mem::replace(&mut self.w_z, w_z),
            estimates: Estimates { upper_y, lower_y, lower_z, upper_x, difference_x },
        });
        (self.y, self.z) = (next.y, next.z);
        (self.watch, self.drift) = (watch, drift);
        self.iteration += 1;
        Ok(Step { iteration: k, sigma: Some(sigma), gradient_norm, residual: Some(residual) })
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
