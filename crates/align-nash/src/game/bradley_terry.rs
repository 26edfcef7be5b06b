//! Scores fitted to pairwise preferences: all that a reward can say about a game.

use super::error::GameError;
use super::newton::{System, newton};
use super::policy::LogPolicy;
use super::preference_game::{PreferenceGame, dot, sigmoid};

/// How well win rates must be matched.
const TOLERANCE: f64 = 1e-12;

/// How little scores must still move. Where a score wants to be infinite, a step moves it by about 1.
const STILL: f64 = 1e-6;

impl PreferenceGame {
    /// The scores r whose Bradley–Terry model makes the oracle's answers about pairs from μ most likely:
    ///
    /// ```text
    /// Σ_j μ_j P(yᵢ ≻ y_j) = Σ_j μ_j σ(rᵢ − r_j)     for every i,      Σ_j μ_j r_j = 0
    /// ```
    ///
    /// They match the win rates against μ and nothing else: of a cycle whose members win half their comparisons they see
    /// nothing. A response that μ never gives gets the score that would match its win rate.
    ///
    /// # Units
    /// Nats.
    ///
    /// # Errors
    /// If there are no such finite scores (a response preferred with certainty, say).
    ///
    /// # Panics
    /// If the policy is for another number of responses.
    ///
    /// # Source
    /// Bradley and Terry 1952, "Rank analysis of incomplete block designs", Biometrika 39. The equations are those of a
    /// largest likelihood; each is divided by its μᵢ here, so that a response of probability 1e-80 is fitted too.
    pub fn bradley_terry_scores(&self, pairs: &LogPolicy) -> Result<Vec<f64>, GameError> {
        let model = Likelihood { win_rates: self.win_rates(pairs), mu: pairs.probabilities() };
        let found = newton(&model, vec![0.0; self.responses()], TOLERANCE);
        // Written as "not within", so that NaN is refused.
        if found.residual <= TOLERANCE && (found.step <= STILL || found.iterations == 0) {
            Ok(found.point)
        } else {
            let (iterations, residual, step) = (found.iterations, found.residual, found.step);
            Err(GameError::ScoresNotFound { iterations, residual, step })
        }
    }
}

/// Fᵢ = Σ_j μ_j σ(rᵢ − r_j) − P(yᵢ ≻ μ) + Σ_j μ_j r_j. The last sum is 0 at a root: weighed by μ, the rest adds up to 0.
struct Likelihood {
    win_rates: Vec<f64>,
    mu: Vec<f64>,
}

impl System for Likelihood {
    fn value(&self, r: &[f64]) -> Vec<f64> {
        let mean = dot(&self.mu, r);
        let modelled =
            |own: &f64| -> f64 { self.mu.iter().zip(r).map(|(mu, other)| mu * sigmoid(own - other)).sum() };
        r.iter().zip(&self.win_rates).map(|(own, win_rate)| modelled(own) - win_rate + mean).collect()
    }

    fn jacobian(&self, r: &[f64]) -> Vec<Vec<f64>> {
        let slope = |i: usize, j: usize| self.mu[j] * sigmoid(r[i] - r[j]) * sigmoid(r[j] - r[i]);
        let mut rows: Vec<Vec<f64>> = Vec::with_capacity(r.len());
        for i in 0..r.len() {
            let others = (0..r.len()).filter(|&j| j != i);
            let own: f64 = others.map(|j| slope(i, j)).sum();
            let entry = |j| self.mu[j] + if i == j { own } else { -slope(i, j) };
            rows.push((0..r.len()).map(entry).collect());
        }
        rows
    }
}
