//! What a proxy gain guarantees of the gold reward, and the reward for which it guarantees no more.
//!
//! Both bounds hold whatever the gold reward is, as long as it correlates with the proxy under the reference and the
//! policy goes nowhere the reference does not.

use serde::Serialize;

use crate::correlation::{Correlation, complement, positive_correlation};
use crate::divergence::chi_squared;
use crate::error::OccupancyError;
use crate::estimates::effective_sample_size;
use crate::occupancy::Occupancy;

/// Bound A: `(J(π,R) − J(π_ref,R))/σ_R ≥ (D − s·√χ²)/r`, with s = √(1 − r²).
///
/// Regress the proxy on the gold reward: `Z̃ = r·Z + s·E`; by Cauchy–Schwarz `E_π[E] ≤ √χ²`.
///
/// # Units
/// Standard deviations of the gold reward under the reference.
///
/// # Errors
/// If r is not in (0, 1], or χ² is negative.
///
/// # Source
/// Laidlaw, Singhal, Dragan 2025, theorem 5.1, <https://arxiv.org/abs/2403.03185>.
pub fn bound_a(r: f64, gain: f64, chi_squared: f64) -> Result<f64, OccupancyError> {
    let r = positive_correlation(r)?;
    let chi_squared = checked_chi_squared(chi_squared)?;
    Ok((gain - complement(r) * chi_squared.sqrt()) / r)
}

/// Bound B: `(J(π,R) − J(π_ref,R))/σ_R ≥ r·D − s·√(χ² − D²)`, never below bound A, and attained.
///
/// Only the part of ρ − 1 orthogonal to the proxy can hurt; its squared norm is χ² − D².
///
/// # Units
/// Standard deviations of the gold reward under the reference.
///
/// # Errors
/// If r is not in (0, 1], χ² is negative, or `D² > χ²` beyond rounding (1e-9 of χ²): such numbers belong to no policy.
///
/// # Source
/// Liu, Sun, Zheng 2026, theorem 1, <https://arxiv.org/abs/2604.12086>.
pub fn bound_b(r: f64, gain: f64, chi_squared: f64) -> Result<f64, OccupancyError> {
    let r = positive_correlation(r)?;
    let chi_squared = checked_chi_squared(chi_squared)?;
    let rest = chi_squared - gain * gain;
    // Near equality both are differences of nearly equal numbers: 1e-24 is their rounding, squared.
    if rest < -(1e-9 * chi_squared + 1e-24) {
        return Err(OccupancyError::InconsistentEstimates { chi_squared, gain });
    }
    Ok(r * gain - complement(r) * rest.max(0.0).sqrt())
}

/// The reward that attains bound B: `W = r·Z̃ − s·E*`, with E* the part of ρ − 1 orthogonal to Z̃, normalised.
///
/// Under the reference its mean is 0, its variance 1 and its correlation with the proxy r. Where the reference has no
/// mass it is 0. If ρ − 1 is a multiple of Z̃ there is no such part; W is then `r·Z̃`, of variance r².
///
/// # Shapes
/// `proxy`: `[S·A]`, as the occupancies. → `[S·A]`, in standard deviations.
///
/// # Errors
/// If r is not in (0, 1], the proxy is constant under the reference, or `policy` has mass outside it.
///
/// # Panics
/// If the lengths differ.
///
/// # Source
/// Liu, Sun, Zheng 2026, proof of theorem 1, <https://arxiv.org/abs/2604.12086>.
pub fn worst_case_reward(
    policy: &Occupancy,
    reference: &Occupancy,
    proxy: &[f64],
    r: f64,
) -> Result<Vec<f64>, OccupancyError> {
    let r = positive_correlation(r)?;
    let ratio = policy.ratio(reference)?;
    // Its deviation is checked where correlations are made; the proxy stands in for the gold reward.
    let scale = Correlation::under(reference, proxy, proxy)?;
    let standard: Vec<f64> = proxy.iter().map(|x| (x - scale.proxy_mean) / scale.proxy_deviation).collect();
    let gain = scale.proxy_gain(policy.mean(proxy));
    let rest: Vec<f64> = ratio.iter().zip(&standard).map(|(rho, z)| rho - 1.0 - gain * z).collect();
    let norm = reference.mean(&rest.iter().map(|e| e * e).collect::<Vec<_>>()).sqrt();
    let share = if norm > 0.0 { complement(r) / norm } else { 0.0 };
    let inside = reference.cells().iter().map(|q| *q > 0.0);
    let entries = standard.iter().zip(&rest).zip(inside);
    Ok(entries.map(|((z, e), inside)| if inside { r * z - share * e } else { 0.0 }).collect())
}

/// What can be said of a policy whose gold reward is known: a checkpoint's row in the account of a run.
///
/// Gains and bounds are in standard deviations of the gold reward under the reference, the proxy gain in those of the
/// proxy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Audit {
    /// The two rewards where the reference goes.
    pub at_reference: Correlation,
    /// D.
    pub proxy_gain: f64,
    /// χ² of the occupancies.
    pub chi_squared: f64,
    /// What D guaranteed, by bound A.
    pub bound_a: f64,
    /// What D guaranteed, by bound B.
    pub bound_b: f64,
    /// What the gold reward did.
    pub gold_gain: f64,
    /// The part of a sample of the reference that still speaks for this policy: 1/(1 + χ²).
    pub effective_sample_size: f64,
    /// The correlation where this policy goes. Its collapse is the mark of hacking. `None` if a reward is constant there.
    pub correlation_here: Option<f64>,
    /// The gold return is below the reference's, though the proxy correlates.
    pub hacks: bool,
}

impl Audit {
    /// Exact, from occupancies.
    ///
    /// # Errors
    /// If a reward is degenerate or not finite, the correlation under the reference is not positive, or `policy` has
    /// mass where `reference` has none.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn of(
        policy: &Occupancy,
        reference: &Occupancy,
        proxy: &[f64],
        gold: &[f64],
    ) -> Result<Self, OccupancyError> {
        let at_reference = Correlation::under(reference, proxy, gold)?;
        let chi_squared = chi_squared(policy, reference)?;
        let proxy_gain = at_reference.proxy_gain(policy.mean(proxy));
        let gold_return = policy.mean(gold);
        Ok(Self {
            at_reference,
            proxy_gain,
            chi_squared,
            bound_a: bound_a(at_reference.r, proxy_gain, chi_squared)?,
            bound_b: bound_b(at_reference.r, proxy_gain, chi_squared)?,
            gold_gain: at_reference.gold_gain(gold_return),
            effective_sample_size: effective_sample_size(chi_squared),
            correlation_here: Correlation::under(policy, proxy, gold).ok().map(|here| here.r),
            hacks: at_reference.is_hacked_by(gold_return),
        })
    }
}

fn checked_chi_squared(found: f64) -> Result<f64, OccupancyError> {
    if found >= 0.0 && found.is_finite() {
        Ok(found)
    } else {
        Err(OccupancyError::Setting { name: "chi_squared", range: "a finite number >= 0", found })
    }
}
