//! How well a reward agrees with labelled pairs.

use align_core::{Completions, PreferencePairs, Reward};
use serde::{Deserialize, Serialize};

use crate::bradley_terry::host;
use crate::error::RewardError;

/// Agreement of a reward with labels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairReport {
    /// How many pairs were compared.
    pub pairs: usize,
    /// In how many the chosen side scored higher.
    pub correct: usize,
    /// In how many both scored the same.
    pub ties: usize,
    /// `(correct + ties / 2) / pairs`: a reward that always ties is no better than a coin.
    pub accuracy: f64,
    /// Mean of `r_c − r_r`, in the reward's units.
    pub mean_margin: f64,
    /// Mean score of the chosen side.
    pub mean_chosen: f64,
    /// Mean score of the rejected side.
    pub mean_rejected: f64,
}

/// Compares scores pair by pair.
///
/// # Panics
/// With no pairs, or with another number of chosen than of rejected scores.
///
/// # Examples
/// ```
/// let report = align_reward::compare(&[2.0, 1.0, 0.0, 5.0], &[1.0, 1.0, 3.0, 4.0]);
/// assert_eq!((report.correct, report.ties, report.accuracy), (2, 1, 0.625));
/// assert_eq!(report.mean_margin, -0.25);
/// ```
pub fn compare(chosen: &[f64], rejected: &[f64]) -> PairReport {
    assert_eq!(chosen.len(), rejected.len(), "as many chosen as rejected scores");
    assert!(!chosen.is_empty(), "at least one pair");
    let pairs = chosen.len();
    let count = |holds: fn(f64, f64) -> bool| {
        chosen.iter().zip(rejected).filter(|(chosen, rejected)| holds(**chosen, **rejected)).count()
    };
    let (correct, ties) = (count(|c, r| c > r), count(|c, r| c == r));
    let mean = |scores: &[f64]| scores.iter().sum::<f64>() / pairs as f64;
    PairReport {
        pairs,
        correct,
        ties,
        accuracy: (correct as f64 + 0.5 * ties as f64) / pairs as f64,
        mean_margin: chosen.iter().zip(rejected).map(|(c, r)| c - r).sum::<f64>() / pairs as f64,
        mean_chosen: mean(chosen),
        mean_rejected: mean(rejected),
    }
}

/// Scores both sides of every batch of pairs and compares them.
///
/// # Errors
/// With no pairs, or if a score is not finite; rows count on over the batches.
pub fn evaluate_pairs(reward: &dyn Reward, batches: &[PreferencePairs]) -> Result<PairReport, RewardError> {
    let chosen = finite_scores(reward, batches.iter().map(|pairs| &pairs.chosen))?;
    let rejected = finite_scores(reward, batches.iter().map(|pairs| &pairs.rejected))?;
    if chosen.is_empty() {
        return Err(RewardError::NoPairs);
    }
    Ok(compare(&chosen, &rejected))
}

/// Scores of all rows of all batches, in order.
///
/// # Errors
/// If a score is not finite: the row, counted over the batches, and what was found.
pub fn finite_scores<'a>(
    reward: &dyn Reward,
    batches: impl IntoIterator<Item = &'a Completions>,
) -> Result<Vec<f64>, RewardError> {
    let mut scores: Vec<f64> = Vec::new();
    for batch in batches {
        scores.extend(host(&reward.score(batch)));
    }
    match scores.iter().position(|score| !score.is_finite()) {
        Some(row) => Err(RewardError::NotFinite { row, found: scores[row] }),
        None => Ok(scores),
    }
}
