//! The same quantities from samples, with what is known of their error.

use rand::{Rng, RngExt};
use serde::Serialize;

use crate::bounds::{bound_a, bound_b};
use crate::correlation::checked_correlation;
use crate::error::{OccupancyError, all_finite};

/// Two ends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// The lower end.
    pub lower: f64,
    /// The upper end.
    pub upper: f64,
}

/// Fisher's interval of a correlation: `tanh(atanh r̂ ± z/√(n − 3))`.
///
/// # Units
/// `z` is the quantile of the normal distribution, 1.96 for 95 %.
///
/// # Errors
/// With fewer than four pairs, or if r̂ is not in [−1, 1].
///
/// # Source
/// Fisher 1921, "On the 'probable error' of a coefficient of correlation deduced from a small sample", Metron 1.
pub fn fisher_interval(r: f64, pairs: usize, z: f64) -> Result<Interval, OccupancyError> {
    if pairs < 4 {
        return Err(OccupancyError::TooFewSamples {
            what: "a correlation's interval",
            expected: 4,
            found: pairs,
        });
    }
    let (middle, half) = (checked_correlation(r)?.atanh(), z / ((pairs - 3) as f64).sqrt());
    Ok(Interval { lower: (middle - half).tanh(), upper: (middle + half).tanh() })
}

/// The part of a sample of the reference that speaks for the policy: `1/(1 + χ²)`, in (0, 1].
///
/// # Source
/// Kong 1992, "A note on importance sampling using standardized weights": `1/E_ν[ρ²]`.
pub fn effective_sample_size(chi_squared: f64) -> f64 {
    1.0 / (1.0 + chi_squared)
}

/// The bootstrap's percentile interval of a mean.
///
/// Of χ̂² = mean(e^d − 1) it tells the spread of the sample, not what the sample never saw: tails are heavy.
///
/// # Errors
/// Without samples, if one is not finite, or if `level` is not inside (0, 1).
///
/// # Panics
/// Without resamples.
///
/// # Source
/// Efron 1979, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7.
pub fn bootstrap_interval<G: Rng>(
    samples: &[f64],
    level: f64,
    resamples: usize,
    rng: &mut G,
) -> Result<Interval, OccupancyError> {
    assert!(resamples > 0, "a bootstrap needs at least one resample");
    let n = samples.len();
    if n == 0 {
        return Err(OccupancyError::TooFewSamples { what: "a bootstrap", expected: 1, found: 0 });
    }
    all_finite("samples", samples)?;
    if !(level > 0.0 && level < 1.0) {
        return Err(OccupancyError::Setting { name: "level", range: "inside (0, 1)", found: level });
    }
    let mut means: Vec<f64> = (0..resamples)
        .map(|_| (0..n).map(|_| samples[rng.random_range(0..n)]).sum::<f64>() / n as f64)
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| means[(share * (resamples - 1) as f64).round() as usize];
    Ok(Interval { lower: at((1.0 - level) / 2.0), upper: at((1.0 + level) / 2.0) })
}

/// The mean after leaving out the `share` smallest and as many of the largest.
///
/// At least one stays: the released code drops `int(share·n)` from either end and, where that is 0, keeps nothing. A
/// share that leaves nothing keeps the median.
///
/// # Errors
/// Without samples, or if one is not a number.
pub fn trimmed_mean(samples: &[f64], share: f64) -> Result<f64, OccupancyError> {
    let n = samples.len();
    if n == 0 {
        return Err(OccupancyError::TooFewSamples { what: "a trimmed mean", expected: 1, found: 0 });
    }
    if let Some(index) = samples.iter().position(|x| x.is_nan()) {
        return Err(OccupancyError::NotFinite { what: "samples", index, found: samples[index] });
    }
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    // 0.01 · 2900 is a hair below 29.
    let drop = ((share.max(0.0) * n as f64 + 1e-9) as usize).min((n - 1) / 2);
    let kept = &sorted[drop..n - drop];
    Ok(kept.iter().sum::<f64>() / kept.len() as f64)
}

/// χ² from counts of visits, with what the counts cannot say.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PlugIn {
    /// Visits of the policy.
    pub policy_samples: u64,
    /// Visits of the reference.
    pub reference_samples: u64,
    /// χ² over the cells that the reference was seen in.
    pub chi_squared: f64,
    /// How much of the policy's visits went where the reference was never seen.
    pub unseen_mass: f64,
    /// About how much too large χ² is: (cells − 1)/n for either sample.
    pub upward_bias: f64,
}

impl PlugIn {
    /// From visits of each cell.
    ///
    /// # Errors
    /// If either was never anywhere.
    ///
    /// # Panics
    /// If the two have different numbers of cells.
    pub fn from_counts(policy: &[u64], reference: &[u64]) -> Result<Self, OccupancyError> {
        assert_eq!(policy.len(), reference.len(), "two counts of the same cells");
        let (policy_samples, reference_samples) = (policy.iter().sum::<u64>(), reference.iter().sum::<u64>());
        let found = policy_samples.min(reference_samples) as usize;
        if found == 0 {
            return Err(OccupancyError::TooFewSamples { what: "a divergence of counts", expected: 1, found });
        }
        let (mut chi_squared, mut unseen_mass, mut cells) = (0.0, 0.0, 0u64);
        for (&seen, &reference) in policy.iter().zip(reference) {
            let p = seen as f64 / policy_samples as f64;
            if reference == 0 {
                unseen_mass += p;
            } else {
                let q = reference as f64 / reference_samples as f64;
                chi_squared += (p - q).powi(2) / q;
                cells += 1;
            }
        }
        let free = cells.saturating_sub(1) as f64;
        let upward_bias = free / policy_samples as f64 + free / reference_samples as f64;
        Ok(Self { policy_samples, reference_samples, chi_squared, unseen_mass, upward_bias })
    }

    /// Bounds A and B for a correlation and a proxy gain. `None` if there is unseen mass: nothing holds there.
    ///
    /// # Errors
    /// As [`bound_a`] and [`bound_b`].
    pub fn bounds(&self, r: f64, gain: f64) -> Result<Option<(f64, f64)>, OccupancyError> {
        if self.unseen_mass > 0.0 {
            return Ok(None);
        }
        Ok(Some((bound_a(r, gain, self.chi_squared)?, bound_b(r, gain, self.chi_squared)?)))
    }
}
