//! Tables of KL-regularised choices: states, actions, and a reference to stay near.

use serde::{Deserialize, Serialize};

use super::policy_objective::PolicyObjective;
use super::weights::softmax;
use crate::BilevelError;

/// States with the same actions in each, how often each state occurs, and a reference policy.
///
/// The lower level of its problems maximises a reward, held to the reference by β:
///
/// ```text
/// g(π) = Σₛ μₛ [ −π·r + β KL(π‖ref) ],   solved by   π ∝ ref · exp(r/β)
/// ```
///
/// Policies are given by logits, rewards and policies with (s, a) at `s · A + a`.
///
/// # Units
/// KL in nats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Regularized {
    actions: usize,
    frequency: Vec<f64>,
    log_reference: Vec<f64>,
}

/// A policy that minimises a penalised lower level, and how nearly it does.
#[derive(Clone, Debug, PartialEq)]
pub struct PenalizedPolicy {
    /// Log-probabilities.
    pub log_probs: Vec<f64>,
    /// The largest mean absolute deviation, over a state's policy, of the slopes that are equal at an optimum.
    pub residual: f64,
}

/// Steps of the iteration in one state at most. Where f is convex, it contracts by a factor of 1 − β/l with each step,
/// for l the larger of β and the curvature of the penalised problem against the entropy.
const STEPS: usize = 20_000;

impl Regularized {
    /// One row of reference probabilities for each state, all states equally frequent.
    ///
    /// # Errors
    /// If there is no state, rows differ in length, or a row is not a distribution with every action possible.
    pub fn new(reference: &[Vec<f64>]) -> Result<Self, BilevelError> {
        let frequency = vec![1.0 / reference.len() as f64; reference.len()];
        Self::with_frequencies(reference, frequency)
    }

    /// The same, with how often each state occurs.
    ///
    /// # Errors
    /// As [`new`](Self::new), and if the frequencies are not a distribution over the states.
    pub fn with_frequencies(reference: &[Vec<f64>], frequency: Vec<f64>) -> Result<Self, BilevelError> {
        let which = "a row of the reference";
        let Some(actions) = reference.first().map(Vec::len) else {
            return Err(BilevelError::InvalidDistribution { which, detail: "none".to_owned() });
        };
        if let Some(row) = reference.iter().find(|row| row.len() != actions) {
            let (expected, found) = (actions, row.len());
            return Err(BilevelError::ShapeMismatch { which, expected, found });
        }
        if frequency.len() != reference.len() {
            let (expected, found) = (reference.len(), frequency.len());
            return Err(BilevelError::ShapeMismatch { which: "the states' frequencies", expected, found });
        }
        check_distribution("the states' frequencies", &frequency, |p| p >= 0.0)?;
        for row in reference {
            // An impossible action could never be chosen, and its log-ratio is infinite.
            check_distribution(which, row, |p| p > 0.0)?;
        }
        let log_reference = reference.iter().flatten().map(|p| p.ln()).collect();
        Ok(Self { actions, frequency, log_reference })
    }

    /// S.
    pub fn states(&self) -> usize {
        self.frequency.len()
    }

    /// A.
    pub fn actions(&self) -> usize {
        self.actions
    }

    /// S · A: the length of rewards and policies.
    pub fn cells(&self) -> usize {
        self.log_reference.len()
    }

    /// Log-probabilities of the reference: logits to start from.
    pub fn log_reference(&self) -> &[f64] {
        &self.log_reference
    }

    /// Probabilities from logits.
    pub fn probabilities(&self, logits: &[f64]) -> Vec<f64> {
        logits.chunks(self.actions).flat_map(softmax).collect()
    }

    /// `Σₛ μₛ Σₐ π(a|s) v(s, a)`.
    pub fn mean(&self, policy: &[f64], values: &[f64]) -> f64 {
        self.over_states(|state| policy[state.clone()].iter().zip(&values[state]).map(|(p, v)| p * v).sum())
    }

    /// `Σₛ μₛ KL(π‖ref)`, for log-probabilities or logits.
    pub fn kl(&self, logits: &[f64]) -> f64 {
        self.over_states(|state| {
            let log_probs = log_softmax(&logits[state.clone()]);
            log_probs.iter().zip(&self.log_reference[state]).map(|(p, q)| p.exp() * (p - q)).sum()
        })
    }

    /// `Σₛ μₛ Cov_π(v, w)`.
    pub fn covariance(&self, policy: &[f64], v: &[f64], w: &[f64]) -> f64 {
        self.over_states(|state| {
            let (p, v, w) = (&policy[state.clone()], &v[state.clone()], &w[state]);
            let mean = |of: &[f64]| p.iter().zip(of).map(|(p, of)| p * of).sum::<f64>();
            let (v_mean, w_mean) = (mean(v), mean(w));
            p.iter().zip(v).zip(w).map(|((p, v), w)| p * (v - v_mean) * (w - w_mean)).sum()
        })
    }

    /// The log-probabilities of `π ∝ ref · exp(r/β)`.
    pub fn optimum(&self, reward: &[f64], beta: f64) -> Vec<f64> {
        let logits: Vec<f64> = self.log_reference.iter().zip(reward).map(|(log, r)| log + r / beta).collect();
        logits.chunks(self.actions).flat_map(log_softmax).collect()
    }

    /// The minimiser of `g(π) + σ f(π)`, by mirror descent in the entropy: `π′ ∝ π · exp(−η ∂)`.
    ///
    /// With η = 1/β it is the fixed point iteration `π ∝ ref · exp((r − σ ∂f/∂π)/β)`, exact at once where f is linear; η is
    /// halved wherever the problem bends more than that allows.
    ///
    /// # Source
    /// Lu, Freund, Nesterov 2018, <https://arxiv.org/abs/1610.05708>, for the step and its test.
    pub fn penalized_optimum(
        &self,
        reward: &[f64],
        beta: f64,
        sigma: f64,
        objective: &impl PolicyObjective,
    ) -> PenalizedPolicy {
        let start = self.optimum(reward, beta);
        let mut solved = PenalizedPolicy { log_probs: Vec::with_capacity(start.len()), residual: 0.0 };
        for state in 0..self.states() {
            let cells = self.cells_of(state);
            let local = Local {
                reward: &reward[cells.clone()],
                log_reference: &self.log_reference[cells.clone()],
                beta,
                sigma,
                objective: |policy: &[f64], reward: &[f64]| {
                    let value = objective.value(state, reward, policy);
                    (value, objective.policy_slope(state, reward, policy))
                },
            };
            let (log_probs, residual) = local.minimum(start[cells].to_vec());
            solved.log_probs.extend(log_probs);
            solved.residual = solved.residual.max(residual);
        }
        solved
    }

    /// `Σₛ μₛ fₛ`.
    pub(crate) fn over_states(&self, of: impl Fn(std::ops::Range<usize>) -> f64) -> f64 {
        let states = self.frequency.iter().enumerate();
        states.map(|(state, frequency)| frequency * of(self.cells_of(state))).sum()
    }

    /// The gradient by the logits of `Σₛ μₛ fₛ(π)`, from the slopes ∂fₛ/∂π: `μₛ π (∂ − Σ π ∂)`.
    pub(crate) fn by_logits(&self, policy: &[f64], slopes: &[f64]) -> Vec<f64> {
        let states = policy.chunks(self.actions).zip(slopes.chunks(self.actions)).zip(&self.frequency);
        let gradient = states.flat_map(|((policy, slopes), frequency)| {
            let mean: f64 = policy.iter().zip(slopes).map(|(p, slope)| p * slope).sum();
            policy.iter().zip(slopes).map(move |(p, slope)| frequency * p * (slope - mean))
        });
        gradient.collect()
    }

    /// The slopes of the lower level: `−r + β ln(π/ref)`, up to a constant for each state.
    pub(crate) fn lower_slopes(&self, logits: &[f64], reward: &[f64], beta: f64) -> Vec<f64> {
        let log_ratios = logits.iter().zip(&self.log_reference).map(|(log, reference)| log - reference);
        log_ratios.zip(reward).map(|(log_ratio, r)| beta * log_ratio - r).collect()
    }

    /// Weights each cell's number by how often its state occurs.
    pub(crate) fn by_frequency(&self, mut values: Vec<f64>) -> Vec<f64> {
        for (values, frequency) in values.chunks_mut(self.actions).zip(&self.frequency) {
            values.iter_mut().for_each(|value| *value *= frequency);
        }
        values
    }

    pub(crate) fn cells_of(&self, state: usize) -> std::ops::Range<usize> {
        state * self.actions..(state + 1) * self.actions
    }
}

/// The penalised problem in one state.
struct Local<'a, F> {
    reward: &'a [f64],
    log_reference: &'a [f64],
    beta: f64,
    sigma: f64,
    objective: F,
}

impl<F: Fn(&[f64], &[f64]) -> (f64, Vec<f64>)> Local<'_, F> {
    /// `−π·r + β KL(π‖ref) + σ f(π)` and its slopes by π, up to a constant.
    fn value_and_slopes(&self, log_probs: &[f64]) -> (f64, Vec<f64>) {
        let policy: Vec<f64> = log_probs.iter().map(|log| log.exp()).collect();
        let (f, mut slopes) = (self.objective)(&policy, self.reward);
        let mut value = self.sigma * f;
        for (action, slope) in slopes.iter_mut().enumerate() {
            let lower = self.beta * (log_probs[action] - self.log_reference[action]) - self.reward[action];
            value += policy[action] * lower;
            *slope = self.sigma * *slope + lower;
        }
        (value, slopes)
    }

    fn minimum(&self, mut log_probs: Vec<f64>) -> (Vec<f64>, f64) {
        let mut step = 1.0 / self.beta;
        let (mut value, mut slopes) = self.value_and_slopes(&log_probs);
        let mut residual = deviation(&log_probs, &slopes);
        for _ in 0..STEPS {
            let size = slopes.iter().fold(0.0, |size: f64, slope| size.max(slope.abs()));
            // Roundings of the numbers that have to agree.
            if residual <= 32.0 * f64::EPSILON * size {
                break;
            }
            let moved: Vec<f64> = log_probs.iter().zip(&slopes).map(|(log, d)| log - step * d).collect();
            let moved = log_softmax(&moved);
            let (new_value, new_slopes) = self.value_and_slopes(&moved);
            // The model that mirror descent minimises: linear in π′ − π, plus KL(π′‖π)/η. It has to lie above.
            let model: f64 = moved
                .iter()
                .zip(&log_probs)
                .zip(&slopes)
                .map(|((new, old), slope)| slope * (new.exp() - old.exp()) + new.exp() * (new - old) / step)
                .sum();
            if new_value > value + model + 1e-12 * (1.0 + value.abs()) {
                step /= 2.0;
                continue;
            }
            (log_probs, value, slopes) = (moved, new_value, new_slopes);
            residual = deviation(&log_probs, &slopes);
        }
        (log_probs, residual)
    }
}

/// `Σ π |∂ − Σ π ∂|`: zero where no mass wants to move.
fn deviation(log_probs: &[f64], slopes: &[f64]) -> f64 {
    let policy = || log_probs.iter().map(|log| log.exp()).zip(slopes);
    let mean: f64 = policy().map(|(p, slope)| p * slope).sum();
    policy().map(|(p, slope)| p * (slope - mean).abs()).sum()
}

/// `x − ln Σ eˣ`.
pub(crate) fn log_softmax(x: &[f64]) -> Vec<f64> {
    let highest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = highest + x.iter().map(|x| (x - highest).exp()).sum::<f64>().ln();
    x.iter().map(|x| x - log_sum).collect()
}

/// A probability may be off by what six printed digits are.
fn check_distribution(
    which: &'static str,
    p: &[f64],
    allowed: impl Fn(f64) -> bool,
) -> Result<(), BilevelError> {
    let sum: f64 = p.iter().sum();
    match p.iter().copied().find(|&p| !allowed(p)) {
        Some(entry) => {
            Err(BilevelError::InvalidDistribution { which, detail: format!("an entry of {entry}") })
        }
        None if (sum - 1.0).abs() > 1e-6 => {
            Err(BilevelError::InvalidDistribution { which, detail: format!("a sum of {sum}") })
        }
        None => Ok(()),
    }
}
