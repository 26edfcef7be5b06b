//! How far a model's importance distribution p is from knowledge q, and which way importances should move.

use serde::{Deserialize, Serialize};

use crate::FactorsError;
use crate::distribution::{ImportanceDistribution, Normalization};

/// What reports put in the place of a smaller mass, so that a factor that a model ignores gives a finite divergence.
pub const REPORT_FLOOR: f64 = 1e-8;

/// A divergence of p, the model's distribution, from q, the knowledge.
///
/// The paper penalises a KL divergence; its direction is not confirmed. Forward is our default: it asks for mass wherever
/// knowledge has some, which is how a factor that was overlooked is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Divergence {
    /// `KL(q‖p) = Σ q_j ln(q_j / p_j)`.
    #[default]
    Forward,
    /// `KL(p‖q) = Σ p_j ln(p_j / q_j)`.
    Reverse,
    /// `½ KL(q‖m) + ½ KL(p‖m)` with m = (q + p)/2. At most ln 2.
    JensenShannon,
}

impl Divergence {
    /// The divergence; +∞ where the second argument of a KL has no mass and the first has some.
    ///
    /// # Units
    /// Nats.
    ///
    /// # Panics
    /// If the two have different numbers of factors.
    pub fn value(self, q: &ImportanceDistribution, p: &ImportanceDistribution) -> f64 {
        match self {
            Self::Forward => kl(q, p),
            Self::Reverse => kl(p, q),
            Self::JensenShannon => {
                assert_eq!(q.len(), p.len(), "distributions over the same factors");
                let terms = q.iter().zip(p.iter()).map(|(&q, &p)| {
                    let middle = 0.5 * (q + p);
                    0.5 * (term(q, middle) + term(p, middle))
                });
                terms.sum::<f64>().max(0.0)
            }
        }
    }

    /// The divergence with every mass at least [`REPORT_FLOOR`]: what reports print.
    ///
    /// # Units
    /// Nats.
    ///
    /// # Panics
    /// If the two have different numbers of factors.
    pub fn reported(self, q: &ImportanceDistribution, p: &ImportanceDistribution) -> f64 {
        match self {
            Self::Forward => kl(q, &p.floored(REPORT_FLOOR)),
            Self::Reverse => kl(p, &q.floored(REPORT_FLOOR)),
            Self::JensenShannon => self.value(q, p),
        }
    }

    /// The gradient of the divergence in the importances: `∂D(q, p(I))/∂I_j`.
    ///
    /// With s_j = ∂D/∂p_j it is `(s_j − Σ_k p_k s_k) / Σ_k I_k` for the ratio, and `p_j (s_j − Σ_k p_k s_k) / τ` for the softmax.
    /// For the forward KL that is `−q_j/I_j + 1/Σ_k I_k` and `(p_j − q_j)/τ`; the former is −∞ for a factor that knowledge
    /// wants and the model ignores.
    ///
    /// # Errors
    /// As [`ImportanceDistribution::of`].
    ///
    /// # Panics
    /// If there are not as many importances as masses.
    pub fn gradient(
        self,
        q: &ImportanceDistribution,
        importances: &[f64],
        normalization: Normalization,
    ) -> Result<Vec<f64>, FactorsError> {
        assert_eq!(q.len(), importances.len(), "one importance for each factor");
        let p = ImportanceDistribution::of(importances, normalization)?;
        let pairs = || q.iter().copied().zip(p.iter().copied());
        // p_j s_j, finite where p_j is 0 and s_j is not.
        let weighted: Vec<f64> = pairs().map(|(q, p)| self.weighted_slope(q, p)).collect();
        let mean: f64 = weighted.iter().sum();
        Ok(match normalization {
            Normalization::Ratio => {
                let sum: f64 = importances.iter().sum();
                pairs().map(|(q, p)| (self.slope(q, p) - mean) / sum).collect()
            }
            Normalization::Softmax { tau } => {
                weighted.iter().zip(p.iter()).map(|(weighted, p)| (weighted - p * mean) / tau.get()).collect()
            }
        })
    }

    /// ∂D/∂p_j.
    fn slope(self, q: f64, p: f64) -> f64 {
        match self {
            Self::Forward if q == 0.0 => 0.0,
            Self::Forward => -q / p,
            Self::Reverse => (p / q).ln() + 1.0,
            Self::JensenShannon if p == q => 0.0,
            Self::JensenShannon => 0.5 * (2.0 * p / (p + q)).ln(),
        }
    }

    /// p_j · ∂D/∂p_j.
    fn weighted_slope(self, q: f64, p: f64) -> f64 {
        match self {
            Self::Forward => -q,
            _ if p == 0.0 => 0.0,
            _ => p * self.slope(q, p),
        }
    }
}

/// `Σ a ln(a/b)`, never negative by rounding.
fn kl(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "distributions over the same factors");
    a.iter().zip(b).map(|(&a, &b)| term(a, b)).sum::<f64>().max(0.0)
}

/// `a ln(a/b)`, 0 at a = 0.
fn term(a: f64, b: f64) -> f64 {
    if a == 0.0 { 0.0 } else { a * (a / b).ln() }
}

/// The generalised Jensen–Shannon divergence of several models: `Σ_m w_m KL(p^(m) ‖ Σ_n w_n p^(n))`. It is 0 only where all
/// agree, and at most the entropy of the weights.
///
/// # Units
/// Nats.
///
/// # Errors
/// [`FactorsError::InvalidDistribution`] if weights are negative or do not sum to 1 within 1e-6.
///
/// # Panics
/// If there are fewer than two models, not as many weights as models, or models differ in their number of factors.
///
/// # Source
/// Lin 1991, "Divergence measures based on the Shannon entropy", eq. 5.1, <https://doi.org/10.1109/18.61115>.
pub fn generalized_jensen_shannon(
    models: &[ImportanceDistribution],
    weights: &[f64],
) -> Result<f64, FactorsError> {
    assert_eq!(models.len(), weights.len(), "one weight for each model");
    assert!(models.len() > 1, "at least two models");
    let weights = ImportanceDistribution::new(weights.to_vec())?;
    let mut middle = vec![0.0; models[0].len()];
    for (model, weight) in models.iter().zip(weights.iter()) {
        assert_eq!(model.len(), middle.len(), "distributions over the same factors");
        middle.iter_mut().zip(model.iter()).for_each(|(sum, mass)| *sum += weight * mass);
    }
    Ok(models.iter().zip(weights.iter()).map(|(model, weight)| weight * kl(model, &middle)).sum())
}
