//! How far one distribution is from another: of occupancies, and of actions state by state.

use serde::{Deserialize, Serialize};

use crate::error::OccupancyError;
use crate::mdp::Mdp;
use crate::occupancy::Occupancy;
use crate::policy::TabularPolicy;

/// What is penalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Divergence {
    /// KL(π‖π_ref), in nats.
    Kl,
    /// χ²(π‖π_ref).
    ChiSquared,
    /// The square root of χ²: a norm of the difference, and what the bound on the gold reward contains.
    SqrtChiSquared,
}

impl Divergence {
    /// The divergence of one occupancy from another.
    ///
    /// # Errors
    /// If `policy` has mass where `reference` has none.
    ///
    /// # Panics
    /// If the two have different numbers of cells.
    pub fn between(self, policy: &Occupancy, reference: &Occupancy) -> Result<f64, OccupancyError> {
        match self {
            Self::Kl => kl(policy, reference),
            Self::ChiSquared => chi_squared(policy, reference),
            Self::SqrtChiSquared => Ok(chi_squared(policy, reference)?.sqrt()),
        }
    }

    /// The divergence of action distributions, averaged over the states that `policy` visits:
    /// `Σ_s d_π(s) D(π(·|s) ‖ π_ref(·|s))`.
    ///
    /// [`SqrtChiSquared`](Self::SqrtChiSquared) averages the roots of the states, as the released code does. The
    /// divergence of occupancies takes one root, of the mean.
    ///
    /// # Errors
    /// If `policy` does, in a state it visits, what `reference` never does.
    ///
    /// # Panics
    /// If a policy is for another world.
    ///
    /// # Source
    /// Laidlaw, Singhal, Dragan 2025, section 5, <https://arxiv.org/abs/2403.03185>.
    pub fn of_actions(
        self,
        mdp: &Mdp,
        policy: &TabularPolicy,
        reference: &TabularPolicy,
    ) -> Result<f64, OccupancyError> {
        assert_eq!(
            policy.probabilities().len(),
            reference.probabilities().len(),
            "two policies of one world"
        );
        let visits = mdp.state_occupancy(policy);
        let rows = visits.cells().iter().enumerate().filter(|(_, d)| **d > 0.0);
        let mut outside = 0.0;
        let mut sum = 0.0;
        for (state, d) in rows {
            let (p, q) = (policy.row(state), reference.row(state));
            outside += d * p.iter().zip(q).filter(|(_, q)| **q == 0.0).map(|(p, _)| p).sum::<f64>();
            sum += d * self.of_rows(p, q);
        }
        if outside > 0.0 { Err(OccupancyError::NotAbsolutelyContinuous { mass: outside }) } else { Ok(sum) }
    }

    /// Of two rows; +∞ where `q` is 0 and `p` is not.
    pub(crate) fn of_rows(self, p: &[f64], q: &[f64]) -> f64 {
        let pairs = p.iter().zip(q).filter(|(p, q)| **p > 0.0 || **q > 0.0);
        match self {
            Self::Kl => pairs.filter(|(p, _)| **p > 0.0).map(|(p, q)| p * (p / q).ln()).sum::<f64>().max(0.0),
            Self::ChiSquared => pairs.map(|(p, q)| (p - q) * ((p - q) / q)).sum(),
            Self::SqrtChiSquared => Self::ChiSquared.of_rows(p, q).sqrt(),
        }
    }
}

/// χ²(μ‖ν) = `E_ν[(ρ − 1)²] = E_μ[ρ − 1]` with ρ = μ/ν.
///
/// Computed as `Σ (μ − ν)²/ν`: exactly 0 at equality, and accurate close to it.
///
/// # Errors
/// If `policy` has mass where `reference` has none.
///
/// # Panics
/// If the two have different numbers of cells.
pub fn chi_squared(policy: &Occupancy, reference: &Occupancy) -> Result<f64, OccupancyError> {
    let mass = policy.mass_outside(reference);
    if mass > 0.0 {
        return Err(OccupancyError::NotAbsolutelyContinuous { mass });
    }
    Ok(Divergence::ChiSquared.of_rows(policy.cells(), reference.cells()))
}

/// KL(μ‖ν) = `Σ μ log(μ/ν)`.
///
/// # Units
/// Nats.
///
/// # Errors
/// If `policy` has mass where `reference` has none.
///
/// # Panics
/// If the two have different numbers of cells.
pub fn kl(policy: &Occupancy, reference: &Occupancy) -> Result<f64, OccupancyError> {
    let mass = policy.mass_outside(reference);
    if mass > 0.0 {
        return Err(OccupancyError::NotAbsolutelyContinuous { mass });
    }
    Ok(Divergence::Kl.of_rows(policy.cells(), reference.cells()))
}

/// ‖μ − ν‖₁ = `Σ |μ − ν|`, twice the total variation. At most 2, and finite whatever the support.
///
/// For a reward in [0, 1], returns differ by no more than it.
///
/// # Panics
/// If the two have different numbers of cells.
///
/// # Source
/// Laidlaw, Singhal, Dragan 2023, proposition 3.2.
pub fn l1(policy: &Occupancy, reference: &Occupancy) -> f64 {
    assert_eq!(
        policy.cells().len(),
        reference.cells().len(),
        "two occupancies of one world have the same cells"
    );
    policy.cells().iter().zip(reference.cells()).map(|(p, q)| (p - q).abs()).sum()
}

/// χ² of independent parts: `Π(1 + χ²ᵢ) − 1`. Of a sequence's tokens it grows exponentially with their number.
///
/// # Examples
/// ```
/// // Thirty-two tokens, each 0.16 away.
/// let sequence = align_occupancy::chi_squared_of_product([0.16; 32]);
/// assert!((sequence - 114.519_594_368).abs() < 1e-8);
/// ```
pub fn chi_squared_of_product(parts: impl IntoIterator<Item = f64>) -> f64 {
    parts.into_iter().map(f64::ln_1p).sum::<f64>().exp_m1()
}
