//! One score out of several: mean, worst case, uncertainty-weighted.

use align_core::number::NonNegative;
use serde::{Deserialize, Serialize};

/// What a variance over members is divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Divisor {
    /// k, the number of members: equation (5) of the paper and its best-of-n code.
    #[default]
    Members,
    /// k − 1, as the paper's released PPO code has it: at k = 5 its λ acts as 1.25 λ.
    MembersLessOne,
}

/// How the scores of an ensemble's members become one.
///
/// | | formula | takes |
/// | --- | --- | --- |
/// | mean | `R̄ = Σ rᵢ / k` | |
/// | worst case, WCO | `min rᵢ` | |
/// | uncertainty-weighted, UWO | `R̄ − λ Σ (rᵢ − R̄)² / k` | `lambda` |
///
/// The penalty is the variance, not the deviation, so λ has the inverse unit of the scores and means something only for
/// members on one scale.
///
/// # Source
/// Coste et al. 2023, equations (3) to (5), <https://arxiv.org/abs/2310.02743>.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Aggregate {
    /// Not conservative: what one member overrates, the mean overrates a little.
    Mean {},
    /// Nothing to tune.
    #[serde(alias = "wco")]
    WorstCase {},
    /// λ 0.5 for best-of-n and 0.1 for PPO in the paper; 0 is the mean, bit for bit.
    #[serde(alias = "uwo")]
    UncertaintyWeighted {
        /// λ.
        lambda: NonNegative,
        /// k unless stated.
        #[serde(default)]
        divisor: Divisor,
    },
}

impl Default for Aggregate {
    /// The mean.
    fn default() -> Self {
        Self::Mean {}
    }
}

impl Aggregate {
    /// UWO with divisor k.
    ///
    /// # Panics
    /// If λ is negative or no number.
    pub fn uncertainty_weighted(lambda: f64) -> Self {
        let lambda = NonNegative::try_from(lambda).unwrap_or_else(|error| panic!("λ: {error}"));
        Self::UncertaintyWeighted { lambda, divisor: Divisor::Members }
    }

    /// The one score of an answer from the members' scores of it. NaN if any of them is: a minimum that passes NaN over would
    /// hide a broken member.
    ///
    /// # Panics
    /// With no scores.
    ///
    /// # Examples
    /// ```
    /// use align_reward::Aggregate;
    ///
    /// let scores = [1.0, 0.4, 1.6];
    /// assert_eq!(Aggregate::Mean {}.of(&scores), 1.0);
    /// assert_eq!(Aggregate::WorstCase {}.of(&scores), 0.4);
    /// assert!((Aggregate::uncertainty_weighted(0.5).of(&scores) - 0.88).abs() < 1e-12);
    /// ```
    pub fn of(&self, scores: &[f64]) -> f64 {
        assert!(!scores.is_empty(), "an ensemble has at least one member");
        if scores.iter().any(|score| score.is_nan()) {
            return f64::NAN;
        }
        match *self {
            Self::Mean {} => mean(scores),
            Self::WorstCase {} => scores.iter().copied().fold(f64::INFINITY, f64::min),
            Self::UncertaintyWeighted { lambda, divisor } => {
                mean(scores) - lambda.get() * variance(scores, divisor)
            }
        }
    }

    /// A word for tables: `mean`, `WCO`, `UWO 0.5`.
    pub fn label(&self) -> String {
        match self {
            Self::Mean {} => "mean".into(),
            Self::WorstCase {} => "WCO".into(),
            Self::UncertaintyWeighted { lambda, .. } => format!("UWO {}", lambda.get()),
        }
    }
}

/// The mean, exact for equal numbers: the mean of copies of a score is that score, to the last bit.
pub(crate) fn mean(scores: &[f64]) -> f64 {
    let first = scores[0];
    first + scores.iter().map(|score| score - first).sum::<f64>() / scores.len() as f64
}

/// The variance about the mean; 0 of a single score, whatever the divisor.
pub(crate) fn variance(scores: &[f64], divisor: Divisor) -> f64 {
    let mean = mean(scores);
    let squares: f64 = scores.iter().map(|score| (score - mean).powi(2)).sum();
    let divisor = match divisor {
        Divisor::Members => scores.len(),
        Divisor::MembersLessOne => (scores.len() - 1).max(1),
    };
    squares / divisor as f64
}
