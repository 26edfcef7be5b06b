//! Bringing rewards to a known scale: mean 0, and deviation 1 if wanted, on a stated set of completions.
//!
//! A ranking loss leaves the zero of the scores open, and PPO's critic, its clipping and any stop penalty feel it.
//!
//! # Source
//! Ziegler et al. 2019, §2.1, <https://arxiv.org/abs/1909.08593>; Huang et al. 2024, detail 6 (bias) of
//! <https://arxiv.org/abs/2403.17031>.

use align_core::{Completions, Reward};
use align_models::Normalization;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::error::RewardError;
use crate::evaluate::finite_scores;

/// What the reference scores are brought to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Mean 0; differences of scores keep their size.
    Mean,
    /// Mean 0 and standard deviation 1.
    MeanAndDeviation,
}

/// Scores closer together than this are one score.
const LEAST_DEVIATION: f64 = 1e-6;

/// How a reward scores a stated set of completions: where gain and bias come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceScores {
    /// The set in words: which prompts, whose responses.
    pub measured_on: String,
    /// How many completions were in it.
    pub rows: usize,
    /// Mean of their scores.
    pub mean: f64,
    /// Standard deviation of their scores, over all of them (not `rows − 1`).
    pub deviation: f64,
}

impl ReferenceScores {
    /// Scores the completions. Measure the raw reward: a normalisation it already has would enter.
    ///
    /// # Errors
    /// Without completions, or if a score is not finite.
    pub fn measure<'a>(
        reward: &dyn Reward,
        batches: impl IntoIterator<Item = &'a Completions>,
        measured_on: impl Into<String>,
    ) -> Result<Self, RewardError> {
        Self::from_scores(&finite_scores(reward, batches)?, measured_on)
    }

    /// The same from scores already computed.
    ///
    /// # Errors
    /// As [`measure`](Self::measure).
    pub fn from_scores(scores: &[f64], measured_on: impl Into<String>) -> Result<Self, RewardError> {
        if scores.is_empty() {
            return Err(RewardError::NoReference);
        }
        if let Some(row) = scores.iter().position(|score| !score.is_finite()) {
            return Err(RewardError::NotFinite { row, found: scores[row] });
        }
        let rows = scores.len() as f64;
        let mean = scores.iter().sum::<f64>() / rows;
        let mut deviation = (scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / rows).sqrt();
        if scores.iter().all(|score| *score == scores[0]) {
            // The mean of equal numbers need not equal them in the last digit; their deviation is 0 all the same.
            deviation = 0.0;
        }
        Ok(Self { measured_on: measured_on.into(), rows: scores.len(), mean, deviation })
    }

    /// The deviation with `rows − 1` for divisor, as released code for reward-model ensembles stores it; not a number of one
    /// completion.
    pub fn sample_deviation(&self) -> f64 {
        let rows = self.rows as f64;
        self.deviation * (rows / (rows - 1.0)).sqrt()
    }

    /// Gain and bias that bring these scores to `target`: gain 1 or 1/deviation, bias −gain·mean.
    ///
    /// Store it with the model: [`RewardModel::with_normalization`](align_models::RewardModel::with_normalization).
    ///
    /// # Errors
    /// If all scores are equal, to a millionth, and a deviation of 1 is wanted.
    pub fn normalization(&self, target: Target) -> Result<Normalization, RewardError> {
        let gain = match target {
            Target::Mean => 1.0,
            Target::MeanAndDeviation if self.deviation <= LEAST_DEVIATION => {
                return Err(RewardError::Constant { rows: self.rows, score: self.mean });
            }
            Target::MeanAndDeviation => 1.0 / self.deviation,
        };
        Ok(Normalization { gain, bias: -gain * self.mean })
    }
}

/// Any reward on its normalised scale: `gain·r + bias`. A [`RewardModel`](align_models::RewardModel) carries its own.
#[derive(Clone, Debug)]
pub struct Normalized<R> {
    /// The raw reward.
    pub reward: R,
    /// Its scale.
    pub normalization: Normalization,
}

impl<R: Reward> Reward for Normalized<R> {
    fn score(&self, completions: &Completions) -> Tensor<1> {
        self.reward.score(completions) * self.normalization.gain + self.normalization.bias
    }

    fn take_metrics(&self) -> Vec<(String, f64)> {
        self.reward.take_metrics()
    }

    fn take_failure(&self) -> Option<String> {
        self.reward.take_failure()
    }
}
