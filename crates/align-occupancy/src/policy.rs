//! Policies that are tables.

use crate::error::{OccupancyError, RowOf, distribution};

/// π(a|s) as a table.
///
/// # Shapes
/// `[S, A]`, row-major; each row sums to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct TabularPolicy {
    actions: usize,
    probabilities: Vec<f64>,
}

impl TabularPolicy {
    /// A policy from its rows, one for each state.
    ///
    /// Rows may be off by printing, 1e-6 in their sum; they are divided by it.
    ///
    /// # Errors
    /// If a row is not a distribution or has another length than the first: with its index.
    pub fn new(rows: &[Vec<f64>]) -> Result<Self, OccupancyError> {
        let actions = rows.first().map_or(0, Vec::len);
        let mut probabilities = Vec::with_capacity(rows.len() * actions);
        if rows.is_empty() {
            return Err(OccupancyError::RowLength { of: RowOf::Policy, row: 0, expected: 1, found: 0 });
        }
        for (row, entries) in rows.iter().enumerate() {
            if entries.len() != actions {
                let (expected, found) = (actions, entries.len());
                return Err(OccupancyError::RowLength { of: RowOf::Policy, row, expected, found });
            }
            probabilities.extend(distribution(RowOf::Policy, row, entries)?);
        }
        Ok(Self { actions, probabilities })
    }

    /// Every action equally likely everywhere.
    ///
    /// # Panics
    /// Without states or actions.
    pub fn uniform(states: usize, actions: usize) -> Self {
        assert!(states > 0 && actions > 0, "expected states and actions, found {states} and {actions}");
        Self { actions, probabilities: vec![1.0 / actions as f64; states * actions] }
    }

    /// One action in each state.
    ///
    /// # Panics
    /// Without states, or if an action does not exist.
    pub fn deterministic(choices: &[usize], actions: usize) -> Self {
        assert!(!choices.is_empty(), "expected at least one state");
        let mut probabilities = vec![0.0; choices.len() * actions];
        for (state, &action) in choices.iter().enumerate() {
            assert!(action < actions, "state {state} takes action {action} of {actions}");
            probabilities[state * actions + action] = 1.0;
        }
        Self { actions, probabilities }
    }

    /// The softmax of logits, row by row.
    ///
    /// # Shapes
    /// `logits`: `[S·A]`.
    ///
    /// # Errors
    /// If a row's largest logit is not finite. Others may be −∞: those actions are never taken.
    ///
    /// # Panics
    /// If the logits do not fill rows of `actions`.
    pub fn softmax(logits: &[f64], actions: usize) -> Result<Self, OccupancyError> {
        assert!(
            actions > 0 && !logits.is_empty() && logits.len().is_multiple_of(actions),
            "expected rows of {actions} logits"
        );
        let mut probabilities = Vec::with_capacity(logits.len());
        for (row, logits) in logits.chunks(actions).enumerate() {
            let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let bad = |x: &f64| x.is_nan() || *x == f64::INFINITY;
            if let Some(column) = logits.iter().position(bad).or((!largest.is_finite()).then_some(0)) {
                let found = logits[column];
                return Err(OccupancyError::NotFinite {
                    what: "logits",
                    index: row * actions + column,
                    found,
                });
            }
            let weights: Vec<f64> = logits.iter().map(|x| (x - largest).exp()).collect();
            let sum: f64 = weights.iter().sum();
            probabilities.extend(weights.iter().map(|w| w / sum));
        }
        Ok(Self { actions, probabilities })
    }

    /// A mixture of action distributions: `Σ wᵢ πᵢ(a|s)`, drawn anew at every step.
    ///
    /// # Errors
    /// If the weights are not a distribution.
    ///
    /// # Panics
    /// If the policies are for different worlds.
    pub fn mixture(parts: &[(f64, &Self)]) -> Result<Self, OccupancyError> {
        let weights: Vec<f64> = parts.iter().map(|part| part.0).collect();
        let weights = distribution(RowOf::Probabilities, 0, &weights)?;
        let first = parts[0].1;
        let mut probabilities = vec![0.0; first.probabilities.len()];
        for (weight, (_, policy)) in weights.iter().zip(parts) {
            let shape = |policy: &Self| (policy.states(), policy.actions);
            assert_eq!(shape(policy), shape(first), "policies that are mixed share states and actions");
            for (sum, p) in probabilities.iter_mut().zip(&policy.probabilities) {
                *sum += weight * p;
            }
        }
        Ok(Self { actions: first.actions, probabilities })
    }

    /// Rows known to be distributions up to rounding.
    pub(crate) fn rounded(mut probabilities: Vec<f64>, actions: usize) -> Self {
        for row in probabilities.chunks_mut(actions) {
            let sum: f64 = row.iter().sum();
            row.iter_mut().for_each(|p| *p /= sum);
        }
        Self { actions, probabilities }
    }

    /// S.
    pub fn states(&self) -> usize {
        self.probabilities.len() / self.actions
    }

    /// A.
    pub fn actions(&self) -> usize {
        self.actions
    }

    /// π(·|s).
    ///
    /// # Shapes
    /// → `[A]`.
    pub fn row(&self, state: usize) -> &[f64] {
        &self.probabilities[state * self.actions..(state + 1) * self.actions]
    }

    /// The whole table.
    ///
    /// # Shapes
    /// → `[S·A]`, π(a|s) at `s · A + a`.
    pub fn probabilities(&self) -> &[f64] {
        &self.probabilities
    }
}
