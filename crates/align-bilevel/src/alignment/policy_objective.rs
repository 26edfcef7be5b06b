//! What a policy is wanted for, above the reward that it is trained on.

use serde::{Deserialize, Serialize};

use super::weights::{sigmoid, softplus};

/// An objective of policies, state by state: `f = Σₛ μₛ fₛ(r, π)`, to be minimised.
///
/// `reward` and `policy` are those of one state, of length A.
pub trait PolicyObjective: Sync {
    /// fₛ.
    fn value(&self, state: usize, reward: &[f64], policy: &[f64]) -> f64;

    /// ∂fₛ/∂π, of length A, with the probabilities as free variables.
    fn policy_slope(&self, state: usize, reward: &[f64], policy: &[f64]) -> Vec<f64>;

    /// ∂fₛ/∂r, of length A. Zero, unless the objective looks at the reward itself.
    fn reward_slope(&self, _state: usize, reward: &[f64], _policy: &[f64]) -> Vec<f64> {
        vec![0.0; reward.len()]
    }
}

/// `−Σ p ln π`: how badly a policy explains demonstrations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Demonstrations {
    /// p, how often each action was demonstrated in each state.
    pub shares: Vec<f64>,
}

impl PolicyObjective for Demonstrations {
    fn value(&self, state: usize, _reward: &[f64], policy: &[f64]) -> f64 {
        let shares = row(&self.shares, state, policy.len());
        // What was never demonstrated does not count, even at π = 0.
        -shares.iter().zip(policy).filter(|(p, _)| **p > 0.0).map(|(p, pi)| p * pi.ln()).sum::<f64>()
    }

    fn policy_slope(&self, state: usize, _reward: &[f64], policy: &[f64]) -> Vec<f64> {
        let shares = row(&self.shares, state, policy.len());
        shares.iter().zip(policy).map(|(p, pi)| if *p > 0.0 { -p / pi } else { 0.0 }).collect()
    }
}

/// `−π·u`: the negative mean of another reward, the gold one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GoldReward {
    /// u.
    pub reward: Vec<f64>,
}

impl PolicyObjective for GoldReward {
    fn value(&self, state: usize, _reward: &[f64], policy: &[f64]) -> f64 {
        let gold = row(&self.reward, state, policy.len());
        -policy.iter().zip(gold).map(|(pi, u)| pi * u).sum::<f64>()
    }

    fn policy_slope(&self, state: usize, _reward: &[f64], policy: &[f64]) -> Vec<f64> {
        row(&self.reward, state, policy.len()).iter().map(|u| -u).collect()
    }
}

/// The loss of the reward on preferences between answers that the policy gives itself:
/// `½ Σ π(a) π(b) [−P ln σ(r_a − r_b) − (1 − P) ln σ(r_b − r_a)]`, with `P = P(a ≻ b)`, over ordered pairs of a ≠ b.
///
/// The reward is judged where its own policy goes. That also rewards going where nothing is compared: the loss of a
/// policy with one answer is 0. β keeps it from that.
///
/// # Source
/// The form of reinforcement learning from human feedback as a bilevel problem in Shen, Yang, Chen 2024,
/// <https://arxiv.org/abs/2402.06886>, here for answers of one step and with all pairs enumerated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PreferenceLoss {
    /// P(a ≻ b | s) at `(s · A + a) · A + b`, with P(b ≻ a) = 1 − P(a ≻ b).
    pub preferred: Vec<f64>,
}

impl PreferenceLoss {
    /// `P − σ(r_a − r_b)` and the cross-entropy of one pair.
    fn pair(&self, state: usize, reward: &[f64], a: usize, b: usize) -> (f64, f64) {
        let preferred = self.preferred[(state * reward.len() + a) * reward.len() + b];
        let margin = reward[a] - reward[b];
        let loss = preferred * softplus(-margin) + (1.0 - preferred) * softplus(margin);
        (preferred - sigmoid(margin), loss)
    }
}

impl PolicyObjective for PreferenceLoss {
    fn value(&self, state: usize, reward: &[f64], policy: &[f64]) -> f64 {
        let slopes = self.policy_slope(state, reward, policy);
        policy.iter().zip(slopes).map(|(pi, slope)| pi * slope).sum::<f64>() / 2.0
    }

    fn policy_slope(&self, state: usize, reward: &[f64], policy: &[f64]) -> Vec<f64> {
        let others = |a: usize| (0..policy.len()).filter(move |&b| b != a);
        let slope = |a: usize| others(a).map(|b| policy[b] * self.pair(state, reward, a, b).1).sum();
        (0..policy.len()).map(slope).collect()
    }

    fn reward_slope(&self, state: usize, reward: &[f64], policy: &[f64]) -> Vec<f64> {
        let others = |a: usize| (0..policy.len()).filter(move |&b| b != a);
        let slope = |a: usize| -> f64 {
            others(a).map(|b| -policy[a] * policy[b] * self.pair(state, reward, a, b).0).sum()
        };
        (0..policy.len()).map(slope).collect()
    }
}

fn row(table: &[f64], state: usize, actions: usize) -> &[f64] {
    &table[state * actions..(state + 1) * actions]
}
