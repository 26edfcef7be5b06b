//! Whether a model is right as often as it is sure.
//!
//! A model is calibrated if, of the answers it gives with confidence c, a share c is right. Predictions are sorted into
//! equal-width bins by confidence, and in each the accuracy is compared with the mean confidence. Fine-tuning on rewards
//! can cost calibration while the reward rises; the SuperHF paper therefore measures both, on multiple choice with
//! [`choice_confidence`].
//!
//! # Source
//! Guo, Pleiss, Sun, Weinberger 2017, "On calibration of modern neural networks", <https://arxiv.org/abs/1706.04599>,
//! equations 3 and 5; the root mean square form: Hendrycks, Mazeika, Dietterich 2019,
//! <https://arxiv.org/abs/1812.04606>; Brier 1950, "Verification of forecasts expressed in terms of probability".
//! Bins here are closed below: bin = min(⌊B·c⌋, B − 1); Guo et al. close them above, which differs for a confidence
//! exactly on an edge.
//!
//! # Examples
//! ```
//! use std::num::NonZeroUsize;
//!
//! use align_superhf::calibration::{Prediction, Reliability};
//!
//! // Sure by 0.9, and right in one case of two.
//! let predictions = [true, false].map(|correct| Prediction { confidence: 0.9, correct });
//! let reliability = Reliability::new(&predictions, NonZeroUsize::new(10).unwrap())?;
//! assert!((reliability.expected_error() - 0.4).abs() < 1e-12);
//! # Ok::<(), align_superhf::calibration::CalibrationError>(())
//! ```

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

/// An answer: how sure the model was, and whether it was right.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prediction {
    /// The probability that the model gave its answer, in [0, 1].
    pub confidence: f64,
    /// Whether the answer is right.
    pub correct: bool,
}

/// Why calibration cannot be measured.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrationError {
    /// Nothing to measure.
    #[error("found no predictions, expected at least one")]
    NoPredictions,
    /// A confidence that is no probability.
    #[error("the confidence of prediction {index} is {found}, expected a number in [0, 1]")]
    Confidence {
        /// Which prediction.
        index: usize,
        /// Its confidence.
        found: f64,
    },
}

/// The predictions of one bin; there is at least one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bin {
    /// Which bin, from 0: confidences from `index`/B up to (`index` + 1)/B, the last bin with its upper end.
    pub index: usize,
    /// How many predictions fall in it.
    pub count: usize,
    /// The share of them that is right.
    pub accuracy: f64,
    /// Their mean confidence.
    pub confidence: f64,
}

impl Bin {
    /// Accuracy minus confidence: below 0 the model is too sure.
    pub fn gap(&self) -> f64 {
        self.accuracy - self.confidence
    }
}

/// What a reliability diagram draws, and the errors that sum it up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reliability {
    /// B: into how many bins [0, 1] was cut, each 1/B wide.
    pub bin_count: NonZeroUsize,
    /// How many predictions there are.
    pub count: usize,
    /// The bins that hold predictions, by index; an empty bin has nothing to draw.
    pub bins: Vec<Bin>,
}

impl Reliability {
    /// Sorts predictions into bins.
    ///
    /// # Errors
    /// If there are no predictions, or a confidence is not in [0, 1].
    pub fn new(predictions: &[Prediction], bin_count: NonZeroUsize) -> Result<Self, CalibrationError> {
        check(predictions)?;
        let mut sorted: Vec<(usize, Prediction)> = predictions
            .iter()
            .map(|prediction| (bin(prediction.confidence, bin_count), *prediction))
            .collect();
        // Stable: the sums below do not depend on anything but the order of the predictions.
        sorted.sort_by_key(|(index, _)| *index);
        let bins = sorted.chunk_by(|(a, _), (b, _)| a == b).map(|members| Bin {
            index: members[0].0,
            count: members.len(),
            accuracy: mean(members, |prediction| f64::from(u8::from(prediction.correct))),
            confidence: mean(members, |prediction| prediction.confidence),
        });
        Ok(Self { bin_count, count: predictions.len(), bins: bins.collect() })
    }

    /// The expected calibration error, ECE = Σ_b (n_b/n)·|acc_b − conf_b|.
    pub fn expected_error(&self) -> f64 {
        self.weighted(|gap| gap.abs())
    }

    /// The root mean square calibration error, √(Σ_b (n_b/n)·(acc_b − conf_b)²); at least the expected one.
    pub fn root_mean_square_error(&self) -> f64 {
        self.weighted(|gap| gap * gap).sqrt()
    }

    /// The maximum calibration error, max_b |acc_b − conf_b|; at least the root mean square one.
    pub fn maximum_error(&self) -> f64 {
        self.bins.iter().map(|bin| bin.gap().abs()).fold(0.0, f64::max)
    }

    fn weighted(&self, of_gap: impl Fn(f64) -> f64) -> f64 {
        self.bins.iter().map(|bin| bin.count as f64 / self.count as f64 * of_gap(bin.gap())).sum()
    }
}

/// The Brier score of yes-or-no forecasts, (1/n)·Σ (confidence − correct)²: 0 for certainty that is always right, ¼ for
/// a constant ½. Unlike the errors over bins it also rewards telling right answers from wrong ones.
///
/// # Errors
/// If there are no predictions, or a confidence is not in [0, 1].
pub fn brier_score(predictions: &[Prediction]) -> Result<f64, CalibrationError> {
    check(predictions)?;
    let squares = predictions.iter().map(|Prediction { confidence, correct }| {
        let distance = confidence - f64::from(u8::from(*correct));
        distance * distance
    });
    Ok(squares.sum::<f64>() / predictions.len() as f64)
}

/// The option a model chooses, by its place, and its confidence: the probability of the most likely option among the
/// options, exp(l_max) / Σ_i exp(l_i). Of equally likely ones the first is chosen.
///
/// # Units
/// `log_probs` in nats; any constant may be added to all of them, so logits will do.
///
/// # Panics
/// If no option has a finite log-probability, or one is NaN or +∞.
///
/// # Source
/// Mukobi et al. 2023, <https://arxiv.org/abs/2310.16763>, on MMLU; the released code holds no script for it.
///
/// # Examples
/// ```
/// use align_superhf::calibration::choice_confidence;
///
/// let (choice, confidence) = choice_confidence(&[0.2_f64.ln(), 0.6_f64.ln(), f64::NEG_INFINITY]);
/// assert_eq!(choice, 1);
/// assert!((confidence - 0.75).abs() < 1e-12);
/// ```
pub fn choice_confidence(log_probs: &[f64]) -> (usize, f64) {
    let mut best: Option<(usize, f64)> = None;
    for (option, &log_prob) in log_probs.iter().enumerate() {
        assert!(
            log_prob < f64::INFINITY,
            "choice_confidence: expected a log-probability below infinity, found {log_prob} for option {option}"
        );
        if log_prob > best.map_or(f64::NEG_INFINITY, |(_, most)| most) {
            best = Some((option, log_prob));
        }
    }
    let Some((choice, most)) = best else {
        panic!("choice_confidence: expected an option with a finite log-probability, found {log_probs:?}");
    };
    // The chosen option contributes exp(0): the sum is at least 1.
    (choice, 1.0 / log_probs.iter().map(|log_prob| (log_prob - most).exp()).sum::<f64>())
}

/// ⌊B·c⌋ in f64, where 5 × 0.8 is exactly 4; a confidence of 1 belongs to the last bin.
fn bin(confidence: f64, bins: NonZeroUsize) -> usize {
    ((bins.get() as f64 * confidence) as usize).min(bins.get() - 1)
}

fn check(predictions: &[Prediction]) -> Result<(), CalibrationError> {
    if predictions.is_empty() {
        return Err(CalibrationError::NoPredictions);
    }
    match predictions.iter().position(|prediction| !(0.0..=1.0).contains(&prediction.confidence)) {
        Some(index) => Err(CalibrationError::Confidence { index, found: predictions[index].confidence }),
        None => Ok(()),
    }
}

fn mean(members: &[(usize, Prediction)], of: impl Fn(&Prediction) -> f64) -> f64 {
    members.iter().map(|(_, prediction)| of(prediction)).sum::<f64>() / members.len() as f64
}
