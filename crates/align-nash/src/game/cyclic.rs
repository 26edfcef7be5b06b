//! Games that no score explains.

use std::f64::consts::TAU;

use align_core::Draws;
use align_core::draws::Purpose;

use super::error::GameError;
use super::policy::LogPolicy;
use super::preference_game::{PreferenceGame, sigmoid};

/// A seeded game whose responses stand on a circle, each preferring to be a little behind another:
///
/// ```text
/// P(yᵢ ≻ y_j) = σ(3 sin(θ_j − θᵢ) + q_i − q_j)
/// ```
///
/// with θ uniform on the circle, the transitive part q normal with a standard deviation of 0.1, and a reference uniform on
/// the simplex (a Dirichlet distribution with all parameters 1).
///
/// # Errors
/// If τ is negative or not finite.
///
/// # Panics
/// Without responses.
pub fn random_cyclic(draws: &Draws, responses: usize, tau: f64) -> Result<PreferenceGame, GameError> {
    assert!(responses > 0, "a game needs at least one response, found 0");
    let uniform = |list: u64, y: usize| draws.token(Purpose::Synthesize, list, y as u64, 0, 0);
    let angles: Vec<f64> = (0..responses).map(|y| TAU * uniform(0, y)).collect();
    let quality: Vec<f64> =
        (0..responses).map(|y| 0.1 * draws.normal(Purpose::Synthesize, 1, y as u64)).collect();
    // Normalised exponentials; 1 − u is never 0, and −log of it is 0 once in 2⁵³ draws.
    let weights = (0..responses).map(|y| (-(1.0 - uniform(2, y)).ln()).max(f64::MIN_POSITIVE).ln());
    let reference = LogPolicy::from_logits(&weights.collect::<Vec<f64>>())?;
    let row = |i: usize| -> Vec<f64> {
        let logit = |j: usize| 3.0 * (angles[j] - angles[i]).sin() + quality[i] - quality[j];
        (0..responses).map(|j| sigmoid(logit(j))).collect()
    };
    let game = PreferenceGame::new((0..responses).map(row).collect(), reference.probabilities(), tau)?;
    game.with_reference(reference)
}
