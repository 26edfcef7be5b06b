//! A reward whose own optimal policy does what it should: reinforcement learning below, an objective above.

use align_core::number::Positive;
use serde::{Deserialize, Serialize};

use super::policy::Regularized;
use super::policy_objective::PolicyObjective;
use crate::{BilevelError, Level, Point, Problem, Sample};

/// Chooses a reward r such that the policy that maximises it, held to its reference by β, minimises an objective f.
///
/// x is the reward, y the policy's logits, `g = Σₛ μₛ [−π·r + β KL(π‖ref)]`. Hence `∇ᵣ g = −μ π`, and the penalised gradient is
/// `∇ᵣ f + μ (π_0 − π_σ)/σ`: what the reward's policy does more often than one that also minds f.
///
/// # Source
/// Value penalties in bilevel reinforcement learning: Shen, Yang, Chen 2024, <https://arxiv.org/abs/2402.06886>; the closed
/// forms for choices of one step are ours.
#[derive(Clone, Debug)]
pub struct RewardDesign<O> {
    table: Regularized,
    beta: f64,
    objective: O,
}

impl<O: PolicyObjective> RewardDesign<O> {
    /// A problem over the table's rewards.
    pub fn new(table: Regularized, beta: Positive, objective: O) -> Self {
        Self { table, beta: beta.get(), objective }
    }

    /// The table of states and actions.
    pub fn table(&self) -> &Regularized {
        &self.table
    }

    /// ψ(r): the objective under the reward's own policy.
    pub fn psi(&self, reward: &[f64]) -> f64 {
        let policy = exp(&self.table.optimum(reward, self.beta));
        self.objective_value(reward, &policy)
    }

    /// `∇ᵣ ψ_σ`, and how nearly the penalised policy was found.
    pub fn penalized_gradient(&self, reward: &[f64], sigma: f64) -> (Vec<f64>, f64) {
        let free = exp(&self.table.optimum(reward, self.beta));
        let solved = self.table.penalized_optimum(reward, self.beta, sigma, &self.objective);
        let penalized = exp(&solved.log_probs);
        let slopes = self.reward_slopes(reward, &penalized);
        let gradient = slopes
            .iter()
            .zip(free.iter().zip(&penalized))
            .map(|(slope, (free, bent))| slope + (free - bent) / sigma);
        (self.table.by_frequency(gradient.collect()), solved.residual)
    }

    fn objective_value(&self, reward: &[f64], policy: &[f64]) -> f64 {
        self.table.over_states(|cells| {
            let state = cells.start / self.table.actions();
            self.objective.value(state, &reward[cells.clone()], &policy[cells])
        })
    }

    fn reward_slopes(&self, reward: &[f64], policy: &[f64]) -> Vec<f64> {
        self.by_state(|state, cells| {
            self.objective.reward_slope(state, &reward[cells.clone()], &policy[cells])
        })
    }

    fn by_state(&self, of: impl Fn(usize, std::ops::Range<usize>) -> Vec<f64>) -> Vec<f64> {
        (0..self.table.states()).flat_map(|state| of(state, self.table.cells_of(state))).collect()
    }
}

impl<O: PolicyObjective> Problem for RewardDesign<O> {
    type X = Vec<f64>;
    type Y = Vec<f64>;

    fn value(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _: &Sample) -> f64 {
        let policy = self.table.probabilities(y);
        match level {
            Level::Upper => self.objective_value(x, &policy),
            Level::Lower => self.beta * self.table.kl(y) - self.table.mean(&policy, x),
        }
    }

    fn gradient_x(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _: &Sample) -> Vec<f64> {
        let policy = self.table.probabilities(y);
        self.table.by_frequency(match level {
            Level::Upper => self.reward_slopes(x, &policy),
            Level::Lower => policy.into_iter().map(|p| -p).collect(),
        })
    }

    fn gradient_y(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _: &Sample) -> Vec<f64> {
        let policy = self.table.probabilities(y);
        let slopes = match level {
            Level::Upper => self.by_state(|state, cells| {
                self.objective.policy_slope(state, &x[cells.clone()], &policy[cells])
            }),
            Level::Lower => self.table.lower_slopes(y, x, self.beta),
        };
        self.table.by_logits(&policy, &slopes)
    }
}

/// How a reward is designed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DesignConfig {
    /// σ.
    pub sigma: Positive,
    /// The step on ∇ψ_σ in units of β²: the policy's logits are r/β, and ψ bends with 1/β².
    pub step: Positive,
    /// Steps at most.
    pub iterations: u64,
    /// It ends where ‖∇ψ_σ‖ is no larger.
    pub tolerance: Positive,
}

impl Default for DesignConfig {
    fn default() -> Self {
        let [sigma, step, tolerance] = [0.01, 1.0, 1e-6].map(Positive::literal);
        Self { sigma, step, iterations: 10_000, tolerance }
    }
}

/// A designed reward, and what comes of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DesignedReward {
    /// r.
    pub reward: Vec<f64>,
    /// Probabilities of the policy that maximises it.
    pub policy: Vec<f64>,
    /// The objective under that policy.
    pub psi: f64,
    /// KL(π‖ref) of that policy, nats.
    pub kl: f64,
    /// ‖∇ψ_σ‖ at the end.
    pub gradient_norm: f64,
    /// The largest residual of the penalised policies on the way.
    pub residual: f64,
    /// Steps made.
    pub iterations: u64,
}

/// Gradient descent of ψ_σ in the reward, with both policies solved exactly in every step.
///
/// A reward is known up to a constant for each state: gradients do not move it.
///
/// # Errors
/// If the start is of another length than the table, or a gradient is not finite.
///
/// # Examples
/// A reward under which the optimal policy is what was demonstrated:
/// ```
/// use align_bilevel::alignment::{DesignConfig, Demonstrations, Regularized, RewardDesign, design_reward};
///
/// let table = Regularized::new(&[vec![0.5, 0.3, 0.2]])?;
/// let shown = Demonstrations { shares: vec![0.2, 0.5, 0.3] };
/// let problem = RewardDesign::new(table, 0.5.try_into()?, shown);
/// let designed = design_reward(&problem, vec![0.0; 3], &DesignConfig::default())?;
/// assert!((designed.policy[1] - 0.5).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn design_reward<O: PolicyObjective>(
    problem: &RewardDesign<O>,
    start: Vec<f64>,
    config: &DesignConfig,
) -> Result<DesignedReward, BilevelError> {
    let (expected, found) = (problem.table.cells(), start.len());
    if found != expected {
        return Err(BilevelError::ShapeMismatch { which: "the reward", expected, found });
    }
    let step = config.step.get() * problem.beta * problem.beta;
    let mut reward = start;
    let (mut iterations, mut worst) = (0, 0.0f64);
    let gradient_norm = loop {
        let (gradient, residual) = problem.penalized_gradient(&reward, config.sigma.get());
        let norm = gradient.norm();
        if !norm.is_finite() {
            return Err(BilevelError::NonFinite { which: "∇ᵣ ψ_σ", outer: iterations, inner: 0 });
        }
        worst = worst.max(residual);
        if norm <= config.tolerance.get() || iterations == config.iterations {
            break norm;
        }
        reward.add_scaled(-step, &gradient);
        iterations += 1;
    };
    let log_probs = problem.table.optimum(&reward, problem.beta);
    Ok(DesignedReward {
        policy: exp(&log_probs),
        psi: problem.psi(&reward),
        kl: problem.table.kl(&log_probs),
        reward,
        gradient_norm,
        residual: worst,
        iterations,
    })
}

fn exp(log_probs: &[f64]) -> Vec<f64> {
    log_probs.iter().map(|log| log.exp()).collect()
}
