//! The equilibrium, by a solver that shares nothing with the dynamics that are to find it.

use super::error::GameError;
use super::newton::{System, largest, newton};
use super::policy::LogPolicy;
use super::preference_game::PreferenceGame;

/// What [`Nash::residual`] is promised to stay below.
const TOLERANCE: f64 = 1e-12;

/// The equilibrium of a game.
#[derive(Clone, Debug, PartialEq)]
pub struct Nash {
    /// π*.
    pub policy: LogPolicy,
    /// max_y |log π*(y) − log b(y)|, b the best response to π*; below 1e-12.
    pub residual: f64,
    /// Newton steps it took.
    pub iterations: usize,
}

impl PreferenceGame {
    /// The one policy that is its own best response, `π*(y) ∝ π_ref(y) exp(P(y ≻ π*)/τ)`.
    ///
    /// Newton's method on `u = K π_u/τ` with `π_u ∝ π_ref eᵘ` and `K = P − ½`. Its Jacobian is `1 − K S/τ` with
    /// `S = diag(π_u) − π_u π_uᵀ`; the eigenvalues of K S are imaginary, so that it is nowhere singular and the method
    /// goes to π* from any start. A step costs n³/3 multiplications for n responses.
    ///
    /// # Errors
    /// For τ = 0, where the equilibrium need not be unique, and if the residual cannot be brought below 1e-12: for τ
    /// below about 1e-4 rounding, or the number of steps, may prevent that.
    ///
    /// # Source
    /// That the equilibrium exists, is unique and symmetric: Zhang et al. 2025, section 2.2,
    /// <https://arxiv.org/abs/2407.00617>. The fixed point and the method are ours.
    pub fn nash(&self) -> Result<Nash, GameError> {
        if self.tau() == 0.0 {
            return Err(GameError::NotRegularized);
        }
        let equation = FixedPoint { game: self };
        let found = newton(&equation, equation.tilt(self.reference()), TOLERANCE);
        let policy = equation.policy(&found.point);
        let best = self.best_response(&policy);
        let differences = policy.log_probs().iter().zip(best.log_probs()).map(|(own, best)| own - best);
        let residual = largest(&differences.collect::<Vec<f64>>());
        // Written as "not below", so that NaN is refused.
        if residual < TOLERANCE {
            Ok(Nash { policy, residual, iterations: found.iterations })
        } else {
            let iterations = found.iterations;
            Err(GameError::NashNotFound { iterations, residual, tolerance: TOLERANCE })
        }
    }
}

/// `u − K π_u/τ = 0`.
struct FixedPoint<'a> {
    game: &'a PreferenceGame,
}

impl FixedPoint<'_> {
    /// π_u.
    fn policy(&self, u: &[f64]) -> LogPolicy {
        let log_reference = self.game.reference().log_probs();
        LogPolicy::softmax(log_reference.iter().zip(u).map(|(log, u)| log + u).collect())
    }

    /// K π/τ: how the best response to π is tilted away from the reference.
    fn tilt(&self, policy: &LogPolicy) -> Vec<f64> {
        self.game.margins_against(policy).iter().map(|margin| margin / self.game.tau()).collect()
    }
}

impl System for FixedPoint<'_> {
    fn value(&self, u: &[f64]) -> Vec<f64> {
        u.iter().zip(self.tilt(&self.policy(u))).map(|(u, tilt)| u - tilt).collect()
    }

    fn jacobian(&self, u: &[f64]) -> Vec<Vec<f64>> {
        let policy = self.policy(u);
        let (probabilities, tilts) = (policy.probabilities(), self.tilt(&policy));
        let rows = self.game.margins().iter().zip(tilts).enumerate();
        rows.map(|(i, (margins, tilt))| {
            let entries = margins.iter().zip(&probabilities).enumerate();
            let entry = |(j, (margin, p)): (usize, (&f64, &f64))| {
                f64::from(u8::from(i == j)) - p * (margin / self.game.tau() - tilt)
            };
            entries.map(entry).collect()
        })
        .collect()
    }
}
