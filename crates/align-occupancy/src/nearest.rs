//! Of all optimal policies, the one that looks most like the reference.

use crate::error::OccupancyError;
use crate::mdp::Mdp;
use crate::planning::optimal_policy;
use crate::policy::TabularPolicy;

/// Among the optimal policies, the one nearest to the reference: of least `Σ_s d_π(s) KL(π(·|s) ‖ π_ref(·|s))`.
///
/// It is the limit of [`action_optimum`](crate::action_optimum) with KL as λ falls to 0: of all ways to hack, the one
/// that a penalty on action distributions charges least.
///
/// # Shapes
/// `reward`: `[S·A]`.
///
/// # Errors
/// If a reward is not finite, or no optimal policy keeps to what the reference does.
///
/// # Panics
/// If the reward or the reference is for another world.
pub fn nearest_optimal_policy(
    mdp: &Mdp,
    reward: &[f64],
    reference: &TabularPolicy,
) -> Result<TabularPolicy, OccupancyError> {
    assert_eq!(reference.probabilities().len(), mdp.pairs(), "the reference is a policy of this world");
    let actions = mdp.actions();
    let plan = optimal_policy(mdp, reward)?;
    let action_values = mdp.action_values(&plan.values, reward);
    let scale = action_values.iter().fold(0f64, |m, q| m.max(q.abs()));
    // Values come from a linear solve of condition 1/(1 − γ).
    let slack = 1e-12 * scale / (1.0 - mdp.discount());
    let mut weights: Vec<f64> = reference.probabilities().to_vec();
    for (pair, weight) in weights.iter_mut().enumerate() {
        if action_values[pair] < plan.values[pair / actions] - slack {
            *weight = 0.0;
        }
    }
    let dead = prune(mdp, &mut weights);
    let mass: f64 = mdp.start().iter().zip(&dead).filter(|(_, dead)| **dead).map(|(p, _)| p).sum();
    if mass > 0.0 {
        return Err(OccupancyError::NotAbsolutelyContinuous { mass });
    }
    let mut values = vec![0.0; mdp.states()];
    let most = 1000;
    let mut residual = f64::INFINITY;
    for _ in 0..most {
        let policy = soft_greedy(mdp, &weights, &values, &plan.policy);
        let ratios = policy.probabilities().iter().zip(reference.probabilities());
        let cost: Vec<f64> =
            ratios.map(|(p, q)| if *p > 0.0 && *q > 0.0 { -(p / q).ln() } else { 0.0 }).collect();
        let next = mdp.values(&policy, &cost);
        residual = next.iter().zip(&values).fold(0.0, |m: f64, (a, b)| m.max((a - b).abs()));
        values = next;
        if residual <= 1e-11 * values.iter().fold(1.0, |m: f64, v| m.max(v.abs())) {
            return Ok(policy);
        }
    }
    Err(OccupancyError::NotConverged { what: "soft policy iteration", iterations: most, residual })
}

/// Takes away what leads to a state without weight, until nothing does. → which states have none.
fn prune(mdp: &Mdp, weights: &mut [f64]) -> Vec<bool> {
    let actions = mdp.actions();
    loop {
        let dead: Vec<bool> = weights.chunks(actions).map(|row| row.iter().all(|w| *w == 0.0)).collect();
        let mut changed = false;
        for (pair, weight) in weights.iter_mut().enumerate().filter(|(_, w)| **w > 0.0) {
            if mdp.next(pair / actions, pair % actions).iter().any(|&(state, _)| dead[state]) {
                *weight = 0.0;
                changed = true;
            }
        }
        if !changed {
            return dead;
        }
    }
}

/// π(a|s) ∝ `w(s, a)·exp(γ Σ p V)`; in a dead state, what `elsewhere` does.
fn soft_greedy(mdp: &Mdp, weights: &[f64], values: &[f64], elsewhere: &TabularPolicy) -> TabularPolicy {
    let actions = mdp.actions();
    let log = |pair: usize| weights[pair].ln() + mdp.discount() * mdp.expected(pair, values);
    let mut table: Vec<f64> = (0..mdp.pairs()).map(log).collect();
    for (state, row) in table.chunks_mut(actions).enumerate() {
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if largest == f64::NEG_INFINITY {
            row.copy_from_slice(elsewhere.row(state));
        } else {
            row.iter_mut().for_each(|x| *x = (*x - largest).exp());
        }
    }
    TabularPolicy::rounded(table, actions)
}
