//! What the theory of correlated proxies says of a run: how far to trust the judge, and how strongly to hold the policy.
//!
//! A judge's score is a proxy for the gold one. With r their correlation under the base policy and σ the deviation of the
//! proxy's scores there, the regulariser `λ √χ²(π‖π_ref)` whose bound on the gold reward is that of the theory has
//! `λ* = σ √(1 − r²)`; from `λ = σ` on, the reference itself is optimal.
//!
//! The base policy is the one of the first rollout. The theory means the reference: the two are the same where a run starts
//! from its reference. Deviations are those of a sample (n − 1), and of scores as the judges gave them.
//!
//! # Source
//! Laidlaw, Singhal, Dragan 2025, definition 4.1 and theorem 5.1, <https://arxiv.org/abs/2403.03185>.

use align_core::regularizer::LEAST_DEVIATION;
use align_train::Metrics;
use serde::{Deserialize, Serialize};

/// Fewer pairs than this have no correlation worth the name.
const LEAST_PAIRS: usize = 4;

/// What was measured on the first rollout. Part of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// σ: the standard deviation of the judge's scores; 0 of a single one.
    pub reward_std: f64,
    /// r: the correlation of the judge's scores with the gold judge's, if there is one and it is defined.
    pub correlation: Option<f64>,
    /// λ*, where r is above 0.
    pub lambda_star: Option<f64>,
}

impl Base {
    /// From the first rollout's scores; what could not be had is said beside it.
    pub fn of(scores: &[f64], gold: Option<&[f64]>) -> (Self, Option<NoCorrelation>) {
        let reward_std = standard_deviation(scores);
        let bare = Self { reward_std, correlation: None, lambda_star: None };
        let Some(gold) = gold else { return (bare, None) };
        match correlation(scores, gold) {
            Err(cause) => (bare, Some(cause)),
            Ok(found) => match lambda_star(reward_std, found) {
                Err(cause) => (Self { correlation: Some(found), ..bare }, Some(cause)),
                Ok(best) => (Self { correlation: Some(found), lambda_star: Some(best), ..bare }, None),
            },
        }
    }
}

/// What an iteration logs: `occupancy/reward_std`, `occupancy/correlation_base` and `occupancy/lambda_star` of the base
/// policy, `occupancy/correlation` of the present one. What is undefined is absent, and the cause is given back.
pub(crate) fn log(
    metrics: &mut Metrics,
    base: Option<&Base>,
    scores: &[f64],
    gold: Option<&[f64]>,
) -> Option<NoCorrelation> {
    if let Some(base) = base {
        metrics.set("occupancy/reward_std", base.reward_std);
        let of_base = [("correlation_base", base.correlation), ("lambda_star", base.lambda_star)];
        for (name, value) in of_base {
            if let Some(value) = value {
                metrics.set(format!("occupancy/{name}"), value);
            }
        }
    }
    match correlation(scores, gold?) {
        Ok(found) => {
            metrics.set("occupancy/correlation", found);
            None
        }
        Err(cause) => Some(cause),
    }
}

/// Why there is no correlation, or no λ*.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NoCorrelation {
    /// Too few pairs.
    #[error("found {found} pairs of scores, expected at least 4")]
    TooFew {
        /// How many.
        found: usize,
    },
    /// The judge gives everything the same score.
    #[error(
        "the judge's scores have standard deviation {deviation}, expected more than 1e-12: they are constant"
    )]
    ConstantReward {
        /// Their deviation.
        deviation: f64,
    },
    /// The gold judge gives everything the same score.
    #[error(
        "the gold scores have standard deviation {deviation}, expected more than 1e-12: they are constant"
    )]
    ConstantGold {
        /// Their deviation.
        deviation: f64,
    },
    /// A proxy that does not agree with what it stands for.
    #[error(
        "judge and gold judge correlate by {correlation:.4} under the base policy, expected more than 0: the theory's λ* is \
         of a proxy that agrees with the gold reward"
    )]
    NotPositive {
        /// r.
        correlation: f64,
    },
}

/// Standard deviation of a sample (n − 1); 0 of fewer than two numbers.
pub fn standard_deviation(x: &[f64]) -> f64 {
    (sum_of_squares(&centred(x)) / x.len().max(2).saturating_sub(1) as f64).sqrt()
}

/// Pearson's r, within [−1, 1].
///
/// # Errors
/// [`NoCorrelation`] with fewer than four pairs, or where one side is constant.
///
/// # Panics
/// If there are not as many numbers on both sides.
pub fn correlation(scores: &[f64], gold: &[f64]) -> Result<f64, NoCorrelation> {
    assert_eq!(scores.len(), gold.len(), "a gold score for each score");
    if scores.len() < LEAST_PAIRS {
        return Err(NoCorrelation::TooFew { found: scores.len() });
    }
    // Asked this way round, so that NaN is refused.
    let varies = |deviation: f64| deviation > LEAST_DEVIATION;
    let deviation = standard_deviation(scores);
    if !varies(deviation) {
        return Err(NoCorrelation::ConstantReward { deviation });
    }
    let of_gold = standard_deviation(gold);
    if !varies(of_gold) {
        return Err(NoCorrelation::ConstantGold { deviation: of_gold });
    }
    let (x, y) = (centred(scores), centred(gold));
    let together: f64 = x.iter().zip(&y).map(|(x, y)| x * y).sum();
    // Rounding may leave the interval by its last digit.
    Ok((together / (sum_of_squares(&x) * sum_of_squares(&y)).sqrt()).clamp(-1.0, 1.0))
}

/// `λ* = σ √(1 − r²)`.
///
/// # Errors
/// [`NoCorrelation::NotPositive`] unless r is above 0.
pub fn lambda_star(reward_std: f64, correlation: f64) -> Result<f64, NoCorrelation> {
    if correlation > 0.0 {
        Ok(reward_std * (1.0 - correlation * correlation).max(0.0).sqrt())
    } else {
        Err(NoCorrelation::NotPositive { correlation })
    }
}

fn centred(x: &[f64]) -> Vec<f64> {
    let mean = x.iter().sum::<f64>() / x.len().max(1) as f64;
    x.iter().map(|x| x - mean).collect()
}

fn sum_of_squares(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum()
}
