//! Exact preference games against the numbers of the specification, which were computed apart from this code.

mod analytic;
mod bad_input;
mod experiments;
mod properties;
mod tournament;

use align_nash::game::{LogPolicy, PreferenceGame};

/// Rock, paper, scissors with a win probability of 0.9.
fn cycle() -> Vec<Vec<f64>> {
    [[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]].map(Vec::from).to_vec()
}

/// The reference of the game.
const REFERENCE: [f64; 3] = [0.6, 0.3, 0.1];

/// The game that most numbers are about, under another τ.
fn cyclic_game(tau: f64) -> PreferenceGame {
    PreferenceGame::new(cycle(), REFERENCE.to_vec(), tau).expect("a game")
}

/// A policy from its probabilities.
fn policy(probabilities: &[f64]) -> LogPolicy {
    LogPolicy::from_probabilities(probabilities).expect("a distribution")
}
