//! Optimal policies, of all or of those that stay within a set of pairs.

use crate::error::{OccupancyError, all_finite, positive};
use crate::mdp::Mdp;
use crate::policy::TabularPolicy;

/// A policy no other beats.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Deterministic.
    pub policy: TabularPolicy,
    /// V*, not normalised.
    ///
    /// # Shapes
    /// `[S]`.
    pub values: Vec<f64>,
}

/// An optimal policy, by policy iteration: exact after finitely many linear solves.
///
/// # Shapes
/// `reward`: `[S·A]`.
///
/// # Errors
/// If a reward is not finite.
///
/// # Panics
/// If the reward is for another world.
///
/// # Source
/// Howard 1960, "Dynamic programming and Markov processes".
pub fn optimal_policy(mdp: &Mdp, reward: &[f64]) -> Result<Plan, OccupancyError> {
    optimal_within(mdp, reward, &vec![true; mdp.pairs()])
}

/// The same among policies that take allowed pairs only. States without any are never to be reached; there the policy
/// takes action 0.
pub(crate) fn optimal_within(mdp: &Mdp, reward: &[f64], allowed: &[bool]) -> Result<Plan, OccupancyError> {
    assert_eq!(reward.len(), mdp.pairs(), "a reward has one entry for each pair");
    all_finite("reward", reward)?;
    let actions = mdp.actions();
    let lowest = |row: &[bool]| row.iter().position(|a| *a).unwrap_or(0);
    let mut choices: Vec<usize> = allowed.chunks(actions).map(lowest).collect();
    let most = 50 + 10 * mdp.pairs();
    for _ in 0..most {
        let policy = TabularPolicy::deterministic(&choices, actions);
        let values = mdp.values(&policy, reward);
        let action_values = mdp.action_values(&values, reward);
        let scale = action_values.iter().fold(0f64, |m, q| m.max(q.abs()));
        let mut improved = choices.clone();
        for (state, choice) in improved.iter_mut().enumerate() {
            for action in (0..actions).filter(|a| allowed[state * actions + a]) {
                let at = |action: usize| action_values[state * actions + action];
                // A smaller difference is the rounding of a linear solve, and would go round in circles.
                if at(action) > at(*choice) + 1e-12 * scale {
                    *choice = action;
                }
            }
        }
        if improved == choices {
            return Ok(Plan { policy, values });
        }
        choices = improved;
    }
    Err(OccupancyError::NotConverged { what: "policy iteration", iterations: most, residual: f64::NAN })
}

/// V* by value iteration: sweeps of `V(s) ← max_a Q(s, a)` until a sweep changes no value by more than `tolerance`.
///
/// The error of the values is then at most `tolerance·γ/(1 − γ)`. [`optimal_policy`] is exact and faster; this is its check.
///
/// # Shapes
/// `reward`: `[S·A]`. → `[S]`.
///
/// # Errors
/// If a reward is not finite, the tolerance is not positive, or rounding keeps the sweeps from settling.
///
/// # Panics
/// If the reward is for another world.
pub fn value_iteration(mdp: &Mdp, reward: &[f64], tolerance: f64) -> Result<Vec<f64>, OccupancyError> {
    all_finite("reward", reward)?;
    positive("tolerance", tolerance)?;
    let mut values = vec![0.0; mdp.states()];
    let most = 1_000_000;
    let mut residual = f64::INFINITY;
    for _ in 0..most {
        let action_values = mdp.action_values(&values, reward);
        let best = |row: &[f64]| row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let swept: Vec<f64> = action_values.chunks(mdp.actions()).map(best).collect();
        residual = swept.iter().zip(&values).fold(0.0, |m: f64, (new, old)| m.max((new - old).abs()));
        values = swept;
        if residual <= tolerance {
            return Ok(values);
        }
    }
    Err(OccupancyError::NotConverged { what: "value iteration", iterations: most, residual })
}
