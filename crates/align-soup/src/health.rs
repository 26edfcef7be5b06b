//! The health gate: is the soup at least nearly as good as its worst ingredient?

use std::fmt;

use crate::error::SoupError;

/// How much worse than its worst ingredient a soup may be on held-out data.
///
/// Unrelated models, or models that differ by a permutation of hidden units, average to nonsense although every shape
/// agrees. Their negative log-likelihood shows it.
///
/// # Units
/// Nats per token.
///
/// # Source
/// `specs/salsa.md`, section 4, step 3.
///
/// # Examples
/// ```
/// use align_soup::HealthGate;
///
/// let health = HealthGate::default().judge(1.92, &[1.95, 1.97])?;
/// assert!(health.excess < 0.0);
/// assert!(HealthGate::default().judge(2.60, &[1.95, 1.97]).is_err());
/// # Ok::<(), align_soup::SoupError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HealthGate {
    tolerance: f64,
}

impl Default for HealthGate {
    /// 0.05 nats per token.
    fn default() -> Self {
        Self { tolerance: 0.05 }
    }
}

impl HealthGate {
    /// A gate that allows `tolerance` nats per token more than the worst ingredient.
    ///
    /// # Errors
    /// If the tolerance is negative or not finite.
    pub fn new(tolerance: f64) -> Result<Self, SoupError> {
        if tolerance.is_finite() && tolerance >= 0.0 {
            Ok(Self { tolerance })
        } else {
            Err(SoupError::InvalidTolerance { tolerance })
        }
    }

    /// Compares the soup's negative log-likelihood with its ingredients': healthy if
    /// nll(soup) ≤ max_k nll(θ_k) + tolerance.
    ///
    /// # Units
    /// Nats per token, all on the same held-out data.
    ///
    /// # Errors
    /// [`SoupError::Unhealthy`] with the figures if the soup is worse than that or any figure is not finite,
    /// [`SoupError::NoIngredients`] if there is nothing to compare with.
    pub fn judge(&self, soup: f64, ingredients: &[f64]) -> Result<Health, SoupError> {
        if ingredients.is_empty() {
            return Err(SoupError::NoIngredients);
        }
        // `f64::max` would drop a NaN; an ingredient that cannot be judged fails the gate.
        let worst = ingredients.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let worst = if ingredients.iter().any(|nll| nll.is_nan()) { f64::NAN } else { worst };
        let health = Health {
            soup,
            ingredients: ingredients.to_vec(),
            excess: soup - worst,
            tolerance: self.tolerance,
        };
        let finite = soup.is_finite() && ingredients.iter().all(|nll| nll.is_finite());
        if finite && health.excess <= self.tolerance { Ok(health) } else { Err(SoupError::Unhealthy(health)) }
    }
}

/// The figures a health gate saw, in nats per token.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// Negative log-likelihood of the soup.
    pub soup: f64,
    /// Negative log-likelihood of each ingredient.
    pub ingredients: Vec<f64>,
    /// nll(soup) − max_k nll(θ_k); negative when the soup is better than its worst ingredient.
    pub excess: f64,
    /// How large the excess may be.
    pub tolerance: f64,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "negative log-likelihood {:.4} nats per token, ingredients ", self.soup)?;
        for (index, nll) in self.ingredients.iter().enumerate() {
            write!(f, "{}{nll:.4}", if index == 0 { "" } else { ", " })?;
        }
        write!(f, ": {:+.4} against the worst, allowed {:+.4}", self.excess, self.tolerance)
    }
}
