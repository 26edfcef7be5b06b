//! The game itself: payoffs, best responses, and how far a policy is from the equilibrium.

use super::error::GameError;
use super::policy::LogPolicy;

/// By how much `P(y ≻ y′) + P(y′ ≻ y)` may differ from 1.
const ANTISYMMETRY: f64 = 1e-3;

/// A symmetric two-player game over a list of responses, regularised towards a reference.
///
/// ```text
/// J(p, q) = E_{y∼p, y′∼q}[P(y ≻ y′)] − τ KL(p‖π_ref) + τ KL(q‖π_ref)
/// ```
///
/// # Source
/// Zhang et al. 2025, eq. 3, <https://arxiv.org/abs/2407.00617>.
#[derive(Clone, Debug, PartialEq)]
pub struct PreferenceGame {
    /// K = P − ½, antisymmetric to the last bit.
    margins: Vec<Vec<f64>>,
    reference: LogPolicy,
    tau: f64,
}

impl PreferenceGame {
    /// A game from its matrix.
    ///
    /// `preferences[i][j]` is P(yᵢ ≻ yⱼ). Where the two orders of a pair disagree by no more than 1e-3, the game has
    /// their average. The reference is divided by its sum.
    ///
    /// # Errors
    /// If there are no responses; the matrix is not square, has an entry outside [0, 1] or is not antisymmetric; the
    /// reference has another length, a zero, or no sum of 1 within 1e-5; τ is negative or not finite.
    pub fn new(preferences: Vec<Vec<f64>>, reference: Vec<f64>, tau: f64) -> Result<Self, GameError> {
        let margins = margins(&preferences)?;
        if reference.len() != margins.len() {
            return Err(GameError::ReferenceLength { expected: margins.len(), found: reference.len() });
        }
        let game = Self { reference: LogPolicy::uniform(margins.len()), margins, tau: 0.0 };
        game.with_reference(LogPolicy::from_probabilities(&reference)?)?.with_tau(tau)
    }

    /// A game whose preferences come from scores: `P(yᵢ ≻ yⱼ) = σ(sᵢ − sⱼ)`.
    ///
    /// # Errors
    /// As [`new`](Self::new), and if a score is not finite.
    ///
    /// # Source
    /// Bradley and Terry 1952, "Rank analysis of incomplete block designs", Biometrika 39.
    pub fn try_from_scores(scores: &[f64], reference: Vec<f64>, tau: f64) -> Result<Self, GameError> {
        if let Some(response) = scores.iter().position(|score| !score.is_finite()) {
            return Err(GameError::Score { response, found: scores[response] });
        }
        let row = |first: &f64| scores.iter().map(|second| sigmoid(first - second)).collect();
        Self::new(scores.iter().map(row).collect(), reference, tau)
    }

    /// The same preferences under another reference, which may be too unlikely in places for a probability in `f64`.
    ///
    /// # Errors
    /// If the reference is for another number of responses, or never gives one of them.
    pub fn with_reference(self, reference: LogPolicy) -> Result<Self, GameError> {
        if reference.responses() != self.responses() {
            return Err(GameError::ReferenceLength {
                expected: self.responses(),
                found: reference.responses(),
            });
        }
        let missing = reference.log_probs().iter().position(|&log| log == f64::NEG_INFINITY);
        match missing {
            Some(response) => Err(GameError::ReferenceSupport { response }),
            None => Ok(Self { reference, ..self }),
        }
    }

    /// The same preferences under another τ.
    ///
    /// # Errors
    /// If τ is negative or not finite.
    pub fn with_tau(self, tau: f64) -> Result<Self, GameError> {
        let accepted = tau >= 0.0 && tau.is_finite();
        if accepted { Ok(Self { tau, ..self }) } else { Err(GameError::Tau { found: tau }) }
    }

    /// How many responses there are.
    pub fn responses(&self) -> usize {
        self.margins.len()
    }

    /// P(y ≻ y′).
    ///
    /// # Panics
    /// If there is no such response.
    pub fn preference(&self, first: usize, second: usize) -> f64 {
        0.5 + self.margins[first][second]
    }

    /// P as a matrix, row by row.
    pub fn preferences(&self) -> Vec<Vec<f64>> {
        self.margins.iter().map(|row| row.iter().map(|margin| 0.5 + margin).collect()).collect()
    }

    /// π_ref.
    pub fn reference(&self) -> &LogPolicy {
        &self.reference
    }

    /// The weight τ of the KL terms.
    pub fn tau(&self) -> f64 {
        self.tau
    }

    /// K = P − ½, row by row.
    pub(crate) fn margins(&self) -> &[Vec<f64>] {
        &self.margins
    }

    /// `P(y ≻ π) = E_{y′∼π}[P(y ≻ y′)]` of every response.
    ///
    /// # Panics
    /// If the policy is for another number of responses.
    pub fn win_rates(&self, policy: &LogPolicy) -> Vec<f64> {
        self.margins_against(policy).iter().map(|margin| 0.5 + margin).collect()
    }

    /// `K π = P(y ≻ π) − ½`. Where a constant makes no difference this takes the place of the win rate: it has no ½ to round.
    pub(crate) fn margins_against(&self, policy: &LogPolicy) -> Vec<f64> {
        let (expected, found) = (self.responses(), policy.responses());
        assert_eq!(expected, found, "the game has {expected} responses, the policy {found}");
        let probabilities = policy.probabilities();
        self.margins.iter().map(|row| dot(row, &probabilities)).collect()
    }

    /// J(p, q), the payoff of the player who chose p; the other gets `1 − J(p, q) = J(q, p)`.
    ///
    /// # Panics
    /// If a policy is for another number of responses.
    ///
    /// # Source
    /// Zhang et al. 2025, eq. 3.
    pub fn payoff(&self, p: &LogPolicy, q: &LogPolicy) -> f64 {
        let regularizer = p.kl(&self.reference) - q.kl(&self.reference);
        0.5 + p.mean(&self.margins_against(q)) - self.tau * regularizer
    }

    /// What does best against a policy: `∝ π_ref(y) exp(P(y ≻ π)/τ)`.
    ///
    /// For τ = 0 the limit of this: the reference, given that the response is one of those with the highest win rate.
    ///
    /// # Panics
    /// If the policy is for another number of responses.
    ///
    /// # Source
    /// Maximise J(·, π) of Zhang et al. 2025, eq. 3; the closed form is ours.
    pub fn best_response(&self, policy: &LogPolicy) -> LogPolicy {
        let margins = self.margins_against(policy);
        let highest = largest(&margins);
        let logit = |(log_reference, margin): (&f64, f64)| match self.tau {
            0.0 if margin < highest => f64::NEG_INFINITY,
            0.0 => *log_reference,
            // From the highest, so that a tiny τ does not overflow.
            tau => log_reference + (margin - highest) / tau,
        };
        LogPolicy::softmax(self.reference.log_probs().iter().zip(margins).map(logit).collect())
    }

    /// How much the two players together could gain by leaving π: `max_p J(p, π) − min_q J(π, q)`; 0 at the equilibrium
    /// and nowhere else (for τ = 0, at an equilibrium).
    ///
    /// With b the best response to π,
    ///
    /// ```text
    /// Gap(π) = 2τ log Σ_y π_ref(y) exp(P(y ≻ π)/τ) + 2τ KL(π‖π_ref) − 1 = 2τ KL(π‖b),      τ > 0
    /// Gap(π) = 2 max_y P(y ≻ π) − 1,                                                       τ = 0
    /// ```
    ///
    /// The last form of the first line is what is computed: close to the equilibrium nothing cancels. The gap bounds the
    /// distance, `Gap(π) ≥ 2τ KL(π‖π*)`.
    ///
    /// # Panics
    /// If the policy is for another number of responses.
    ///
    /// # Source
    /// The gap is that of Zhang et al. 2025, section 2.2. The closed forms are ours: `J(p, q) + J(q, p) = 1`, so that the gap
    /// is `2 J(b, π) − 1`, and `P(π ≻ π) = ½`. The bound is `J(b, π) ≥ J(π*, π)`.
    pub fn duality_gap(&self, policy: &LogPolicy) -> f64 {
        if self.tau == 0.0 {
            return 2.0 * largest(&self.margins_against(policy)).max(0.0);
        }
        2.0 * self.tau * policy.kl(&self.best_response(policy))
    }
}

/// K from P, checked.
fn margins(preferences: &[Vec<f64>]) -> Result<Vec<Vec<f64>>, GameError> {
    let expected = preferences.len();
    if expected == 0 {
        return Err(GameError::NoResponses);
    }
    for (row, entries) in preferences.iter().enumerate() {
        if entries.len() != expected {
            return Err(GameError::NotSquare { row, expected, found: entries.len() });
        }
        // Written as "not within", so that NaN is refused.
        if let Some(column) = entries.iter().position(|p| !(0.0..=1.0).contains(p)) {
            return Err(GameError::Preference { row, column, found: entries[column] });
        }
    }
    let mut margins = vec![vec![0.0; expected]; expected];
    for row in 0..expected {
        let found = preferences[row][row];
        if (2.0 * found - 1.0).abs() > ANTISYMMETRY {
            return Err(GameError::Diagonal { response: row, found });
        }
        for column in 0..row {
            let (forward, backward) = (preferences[row][column], preferences[column][row]);
            let by = (forward + backward - 1.0).abs();
            // A little more than the limit, so that rounding does not refuse 1e-3 itself.
            if by > ANTISYMMETRY * (1.0 + 1e-9) {
                return Err(GameError::NotAntisymmetric { row, column, forward, backward, by });
            }
            margins[row][column] = (forward - backward) / 2.0;
            margins[column][row] = -margins[row][column];
        }
    }
    Ok(margins)
}

/// 1/(1 + e^{−x}), without overflow.
pub(crate) fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

/// max xᵢ.
fn largest(x: &[f64]) -> f64 {
    x.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

/// Σ aᵢ bᵢ.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
