//! What each token is paid: the judge's score at the end, the regulariser along the way.
//!
//! The score stands on the last response token that counts, index `length − 1`; the penalty on every response token.
//! The rewards of a row therefore sum to `score − β·Σ penalty` exactly.

use align_core::shape::assert_same_shape;
use burn::tensor::{Bool, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::error::PpoError;

/// What happens to the score of a response in which no stop token occurs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MissingStop {
    /// The judge's score stands.
    Keep,
    /// A constant is subtracted from it (TRL, 1.0).
    Subtract(f64),
    /// A constant takes its place (OpenAI −1, torchtune −3).
    Replace(f64),
}

/// How scores are brought to a common scale. Alternatives: they do not combine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RewardScaling {
    /// Scores as the judge gives them.
    None,
    /// Per-token rewards divided by their standard deviation over the batch; their mean is kept (TRL, lm-human-preferences).
    Whiten,
    /// Scores divided by the standard deviation of all scores so far (MOSS-RLHF).
    RunningStd,
    /// Scores clipped to `[−limit, limit]` (OpenRLHF, 10).
    Clip(f64),
}

/// Scores as numbers, refused if one is not finite.
///
/// # Shapes
/// `[B]` → B numbers.
///
/// # Errors
/// [`PpoError::NonFiniteReward`] with the row; a reward that is not a number is never averaged away.
pub fn finite_scores(scores: Tensor<1>) -> Result<Vec<f64>, PpoError> {
    let scores: Vec<f64> = scores.into_data().iter::<f64>().collect();
    match scores.iter().position(|score| !score.is_finite()) {
        Some(row) => Err(PpoError::NonFiniteReward { row, found: scores[row] }),
        None => Ok(scores),
    }
}

/// Applies the rule for responses that never stopped, row by row.
///
/// # Panics
/// If there are not as many flags as scores.
pub fn penalize_missing_stop(scores: &[f64], stopped: &[bool], rule: MissingStop) -> Vec<f64> {
    assert_eq!(scores.len(), stopped.len(), "one flag for each score");
    let judge = |score: f64| match rule {
        MissingStop::Keep => score,
        MissingStop::Subtract(penalty) => score - penalty,
        MissingStop::Replace(constant) => constant,
    };
    scores.iter().zip(stopped).map(|(&score, &stopped)| if stopped { score } else { judge(score) }).collect()
}

/// Rewards per token: `r_t = 1[t = length − 1]·score − penalty_t`.
///
/// # Shapes
/// `scores`: B numbers; `penalties`, `mask`: `[B, R]` → `[B, R]`, 0 under a false mask. Penalties hold β already, as
/// [`Regularizer::penalty`](align_core::Regularizer::penalty) gives them. A row without any token is paid nothing.
///
/// # Gradient
/// None: rewards are constants.
///
/// # Panics
/// If the shapes disagree.
///
/// # Source
/// SALSA's usual form, equation (5). TRL added the score one position later (huggingface/trl#3750); we do not.
pub fn token_rewards(scores: &[f64], penalties: Tensor<2>, mask: &Tensor<2, Bool>) -> Tensor<2> {
    let [b, r] = penalties.dims();
    assert_same_shape("token_rewards", [penalties.dims(), mask.dims()]);
    assert_eq!(b, scores.len(), "one score for each row");
    let hidden = mask.clone().bool_not();
    let penalties = penalties.without_autodiff().mask_fill(hidden.clone(), 0.0);
    let like = (&penalties.device(), penalties.dtype());
    let scores = Tensor::<2>::from_data(TensorData::new(scores.to_vec(), [b, 1]), like).expand([b, r]);
    // The last token that counts: the running count has reached the length there, and the position itself counts.
    let seen = mask.clone().int().cumsum(1);
    let length = mask.clone().int().sum_dim(1).expand([b, r]);
    let elsewhere = seen.equal(length).bool_not().bool_or(hidden);
    // 0 − (±0) is +0: with β = 0 not even the sign of a zero depends on the reference.
    scores.mask_fill(elsewhere, 0.0) - penalties
}

/// Mean and variance of everything seen so far (Welford's recurrence), for [`RewardScaling::RunningStd`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunningMoments {
    /// How many numbers were seen.
    pub count: f64,
    /// Their mean.
    pub mean: f64,
    /// Their summed squared distance from the mean.
    pub squares: f64,
}

impl RunningMoments {
    /// Takes in more numbers.
    pub fn update(&mut self, values: &[f64]) {
        for value in values {
            self.count += 1.0;
            let before = value - self.mean;
            self.mean += before / self.count;
            self.squares += before * (value - self.mean);
        }
    }

    /// Sample standard deviation; 1 until two different numbers were seen.
    pub fn standard_deviation(&self) -> f64 {
        if self.count < 2.0 || self.squares == 0.0 { 1.0 } else { (self.squares / (self.count - 1.0)).sqrt() }
    }
}
