//! What a regularised objective is maximised by, and how far from it one can still be.

use serde::Serialize;

use crate::bandit::row_optimum;
use crate::divergence::Divergence;
use crate::error::{OccupancyError, all_finite, positive};
use crate::mdp::Mdp;
use crate::occupancy::Occupancy;
use crate::policy::TabularPolicy;

/// A maximiser over all policies, with a certificate.
///
/// Everything follows from the policy by linear solves: who doubts an optimum can compute it again.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimum {
    /// The policy.
    pub policy: TabularPolicy,
    /// Its occupancy of pairs, `[S·A]`.
    pub occupancy: Occupancy,
    /// Its proxy return, its divergence and the gap.
    pub score: Score,
}

/// The numbers of an optimum.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Score {
    /// J(π, R̃).
    pub proxy_return: f64,
    /// What was penalised: of occupancies, or of actions, as asked.
    pub divergence: f64,
    /// `J(π, R̃) − λ·divergence`.
    pub objective: f64,
    /// No policy's objective is larger than this one's by more, up to rounding.
    pub duality_gap: f64,
}

/// Maximises `J(π, R̃) − λ Σ_s d_π(s) D(π(·|s) ‖ π_ref(·|s))` over all policies: the customary penalty, on action
/// distributions.
///
/// Soft policy iteration: each policy is evaluated exactly, penalty included, and improved state by state by
/// [`bandit_optimum`](crate::bandit_optimum). Its fixed point is that of soft value iteration, `V(s) = λ log Σ π_ref(a|s)
/// exp(Q(s,a)/λ)` for KL; the gap returned is the largest change another sweep would make.
///
/// # Shapes
/// `proxy`: `[S·A]`.
///
/// # Errors
/// If a reward is not finite, λ not a finite number above 0, or the iteration does not settle.
///
/// # Panics
/// If the reward or the reference is for another world.
///
/// # Source
/// The baseline of Laidlaw, Singhal, Dragan 2025, section 6, <https://arxiv.org/abs/2403.03185>. Their code takes the
/// gradient of the penalty at the visited states only; this optimum counts its effect on which states are visited.
pub fn action_optimum(
    mdp: &Mdp,
    proxy: &[f64],
    reference: &TabularPolicy,
    divergence: Divergence,
    lambda: f64,
) -> Result<Optimum, OccupancyError> {
    assert_eq!(proxy.len(), mdp.pairs(), "a reward has one entry for each pair");
    assert_eq!(reference.probabilities().len(), mdp.pairs(), "the reference is a policy of this world");
    all_finite("proxy reward", proxy)?;
    positive("lambda", lambda)?;
    let actions = mdp.actions();
    let penalties = |policy: &TabularPolicy| -> Vec<f64> {
        (0..mdp.states()).map(|s| divergence.of_rows(policy.row(s), reference.row(s))).collect()
    };
    let mut policy = reference.clone();
    let mut best = (f64::INFINITY, policy.clone());
    let (mut stale, most) = (0, 1000);
    for _ in 0..most {
        let charged = penalties(&policy);
        let penalized: Vec<f64> =
            proxy.iter().enumerate().map(|(pair, r)| r - lambda * charged[pair / actions]).collect();
        let values = mdp.values(&policy, &penalized);
        let action_values = mdp.action_values(&values, proxy);
        let mut table = Vec::with_capacity(mdp.pairs());
        let mut residual = 0.0;
        for (state, row) in action_values.chunks(actions).enumerate() {
            let better = row_optimum(divergence, reference.row(state), row, lambda);
            let value: f64 = better.iter().zip(row).map(|(p, q)| p * q).sum::<f64>()
                - lambda * divergence.of_rows(&better, reference.row(state));
            residual = f64::max(residual, value - values[state]);
            table.extend(better);
        }
        // It shrinks quadratically, down to the rounding of the values or of λ times the penalty, and then idles.
        if residual < best.0 {
            (best, stale) = ((residual, policy), 0);
        } else {
            stale += 1;
        }
        if best.0 == 0.0 || stale == 5 {
            break;
        }
        policy = TabularPolicy::rounded(table, actions);
    }
    let (residual, policy) = best;
    let size = proxy.iter().fold(0f64, |m, r| m.max(r.abs())) / (1.0 - mdp.discount());
    if residual > 1e-8 * (size + lambda) {
        return Err(OccupancyError::NotConverged {
            what: "soft policy iteration",
            iterations: most,
            residual,
        });
    }
    let occupancy = mdp.occupancy(&policy);
    let proxy_return = occupancy.mean(proxy);
    let divergence = occupancy.states(actions).mean(&penalties(&policy));
    let objective = proxy_return - lambda * divergence;
    // ‖T V − V‖∞ bounds (1 − γ)·‖V* − V‖∞.
    let score = Score { proxy_return, divergence, objective, duality_gap: residual };
    Ok(Optimum { policy, occupancy, score })
}
