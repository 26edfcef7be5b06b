//! The KL coefficient β as an upper variable: how near to the reference a policy should stay.

use align_core::number::Positive;
use serde::{Deserialize, Serialize};

use super::policy::Regularized;
use crate::{BilevelError, Level, Problem, Sample};

/// Tunes `x = [ln β]` for a policy that maximises a proxy reward r, held to its reference by β, judged by the gold reward
/// u: `g = Σₛ μₛ [−π·r + β KL(π‖ref)]`, `f = −Σₛ μₛ π·u`.
///
/// y are the policy's logits. Everything has a closed form, also the penalised solution `π ∝ ref · exp((r + σ u)/β)`, so that
/// [`tune_kl_coefficient`] needs no inner loop; as a [`Problem`] it is open to every solver.
///
/// Whether ψ has a minimum inside is a property of the rewards: where the proxy can be over-optimised it has one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KlCoefficient {
    table: Regularized,
    proxy: Vec<f64>,
    gold: Vec<f64>,
}

impl KlCoefficient {
    /// Rewards with (s, a) at `s · A + a`.
    ///
    /// # Errors
    /// If a reward is not as long as the table.
    pub fn new(table: Regularized, proxy: Vec<f64>, gold: Vec<f64>) -> Result<Self, BilevelError> {
        for (which, reward) in [("the proxy reward", &proxy), ("the gold reward", &gold)] {
            let (expected, found) = (table.cells(), reward.len());
            if found != expected {
                return Err(BilevelError::ShapeMismatch { which, expected, found });
            }
        }
        Ok(Self { table, proxy, gold })
    }

    /// The table of states and actions.
    pub fn table(&self) -> &Regularized {
        &self.table
    }

    /// Log-probabilities of the policy at β, penalised by σ; σ = 0 gives the lower level's solution.
    pub fn solution(&self, beta: f64, sigma: f64) -> Vec<f64> {
        let reward: Vec<f64> = self.proxy.iter().zip(&self.gold).map(|(r, u)| r + sigma * u).collect();
        self.table.optimum(&reward, beta)
    }

    /// ψ: the negative mean gold reward of the policy at β.
    pub fn psi(&self, beta: f64) -> f64 {
        -self.table.mean(&self.policy(beta), &self.gold)
    }

    /// `dψ/dβ = Cov_π(r, u)/β²`, averaged over the states.
    pub fn hyper_gradient(&self, beta: f64) -> f64 {
        self.table.covariance(&self.policy(beta), &self.proxy, &self.gold) / (beta * beta)
    }

    /// `dψ_σ/dβ = (KL(π_σ‖ref) − KL(π_0‖ref))/σ`.
    pub fn penalized_gradient(&self, beta: f64, sigma: f64) -> f64 {
        let kl = |sigma| self.table.kl(&self.solution(beta, sigma));
        (kl(sigma) - kl(0.0)) / sigma
    }

    fn policy(&self, beta: f64) -> Vec<f64> {
        self.solution(beta, 0.0).into_iter().map(f64::exp).collect()
    }
}

impl Problem for KlCoefficient {
    type X = Vec<f64>;
    type Y = Vec<f64>;

    fn value(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _: &Sample) -> f64 {
        let policy = self.table.probabilities(y);
        match level {
            Level::Upper => -self.table.mean(&policy, &self.gold),
            Level::Lower => x[0].exp() * self.table.kl(y) - self.table.mean(&policy, &self.proxy),
        }
    }

    fn gradient_x(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _: &Sample) -> Vec<f64> {
        match level {
            Level::Upper => vec![0.0],
            Level::Lower => vec![x[0].exp() * self.table.kl(y)],
        }
    }

    fn gradient_y(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _: &Sample) -> Vec<f64> {
        let slopes = match level {
            Level::Upper => self.gold.iter().map(|u| -u).collect(),
            Level::Lower => self.table.lower_slopes(y, &self.proxy, x[0].exp()),
        };
        self.table.by_logits(&self.table.probabilities(y), &slopes)
    }
}

/// How β is tuned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KlTuneConfig {
    /// σ. The optimum found is off by O(σ); with exact inner solutions there is no reason for a large one.
    pub sigma: Positive,
    /// The step on dψ_σ/d ln β.
    pub step: Positive,
    /// Steps at most.
    pub iterations: u64,
    /// It ends where |dψ_σ/d ln β| is no larger.
    pub tolerance: Positive,
}

impl Default for KlTuneConfig {
    fn default() -> Self {
        let [sigma, step, tolerance] = [0.01, 1.0, 1e-8].map(Positive::literal);
        Self { sigma, step, iterations: 1000, tolerance }
    }
}

/// A tuned coefficient.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KlTuned {
    /// β.
    pub beta: f64,
    /// ψ there: the negative gold reward.
    pub psi: f64,
    /// KL(π‖ref) there, nats.
    pub kl: f64,
    /// dψ_σ/d ln β there.
    pub penalized_gradient: f64,
    /// β before each step, and at the end.
    pub path: Vec<f64>,
}

/// Gradient descent of ψ_σ in ln β, with exact lower solutions.
///
/// # Examples
/// A proxy that likes the third action, which is not good; a small β chases it, a large one never leaves the reference:
/// ```
/// use align_bilevel::alignment::{KlCoefficient, KlTuneConfig, Regularized, tune_kl_coefficient};
///
/// let table = Regularized::new(&[vec![0.5, 0.3, 0.2]])?;
/// let problem = KlCoefficient::new(table, vec![0.0, 1.0, 2.0], vec![0.0, 1.0, 0.3])?;
/// let tuned = tune_kl_coefficient(&problem, 4.0, &KlTuneConfig::default());
/// assert!((tuned.beta - 0.992097).abs() < 1e-6); // the optimum of ψ itself is at 0.994054
/// # Ok::<(), align_bilevel::BilevelError>(())
/// ```
///
/// # Panics
/// If `start`, β, is not above 0.
pub fn tune_kl_coefficient(problem: &KlCoefficient, start: f64, config: &KlTuneConfig) -> KlTuned {
    assert!(start > 0.0, "beta starts above 0, not at {start}");
    let slope = |beta: f64| beta * problem.penalized_gradient(beta, config.sigma.get());
    let mut path = vec![start];
    let mut beta = start;
    let mut gradient = slope(beta);
    for _ in 0..config.iterations {
        if gradient.abs() <= config.tolerance.get() {
            break;
        }
        beta = (beta.ln() - config.step.get() * gradient).exp();
        gradient = slope(beta);
        path.push(beta);
    }
    let kl = problem.table.kl(&problem.solution(beta, 0.0));
    KlTuned { beta, psi: problem.psi(beta), kl, penalized_gradient: gradient, path }
}
