//! Importances: attributions summarised over rows.

use align_core::draws::{Draws, Purpose};
use align_core::number::UnitInterval;
use rand::RngExt;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::FactorsError;
use crate::attribution::Attributions;
use crate::attribution::question::at_least_one;

/// Importances `I_j = mean_x |φ_j(x)|`, one for every factor, in units of the score.
///
/// # Source
/// Lundberg et al. 2020, "Global feature importance", <https://doi.org/10.1038/s42256-019-0138-9>; the definition of
/// arXiv 2402.12398 could not be checked, and this one is our choice.
pub fn importances(attributions: &Attributions) -> Vec<f64> {
    let all: Vec<usize> = (0..attributions.values.len()).collect();
    mean_of(attributions, &all)
}

/// How bands are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BandConfig {
    /// Samples of rows. With 1000, 25 lie beyond either end at level 0.95, which places it within a tenth of the half width.
    pub resamples: usize,
    /// How much of the samples a band holds.
    pub level: UnitInterval,
    /// Decides the samples.
    pub seed: u64,
}

impl Default for BandConfig {
    fn default() -> Self {
        Self { resamples: 1000, level: UnitInterval::literal(0.95), seed: 0 }
    }
}

/// A number and the interval it may be in.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Band {
    /// From all rows.
    pub value: f64,
    /// Where the interval begins.
    pub low: f64,
    /// Where it ends.
    pub high: f64,
}

/// Importances with the bands that other rows of the same population would have given: percentile intervals of the bootstrap
/// over rows. What another training set would have given, or other orders of a sampled method, is not in them.
///
/// # Errors
/// [`FactorsError::InvalidCount`] if there are no resamples.
///
/// # Source
/// Efron 1979, <https://doi.org/10.1214/aos/1176344552>; between samples we interpolate linearly.
pub fn importance_bands(attributions: &Attributions, config: &BandConfig) -> Result<Vec<Band>, FactorsError> {
    bands(attributions, config, |importances| importances)
}

/// Shares `p_j = I_j / Σ_k I_k` with their bands: each sample of rows is normalised by itself.
///
/// # Errors
/// [`FactorsError::InvalidCount`] if there are no resamples, [`FactorsError::DegenerateExplanation`] if all importances are
/// below 1e-12.
pub fn share_bands(attributions: &Attributions, config: &BandConfig) -> Result<Vec<Band>, FactorsError> {
    if importances(attributions).iter().all(|&importance| importance < 1e-12) {
        return Err(FactorsError::DegenerateExplanation);
    }
    bands(attributions, config, |importances| {
        let sum: f64 = importances.iter().sum();
        // A sample may hold only rows without any attribution: then no factor has a share.
        importances.iter().map(|importance| if sum > 0.0 { importance / sum } else { 0.0 }).collect()
    })
}

fn bands(
    attributions: &Attributions,
    config: &BandConfig,
    quantity: impl Fn(Vec<f64>) -> Vec<f64> + Sync,
) -> Result<Vec<Band>, FactorsError> {
    at_least_one("resamples", config.resamples)?;
    let rows = attributions.values.len();
    let draws = Draws::new(config.seed);
    let sample = |index: usize| {
        let mut generator = draws.generator(Purpose::Evaluate, index as u64);
        let drawn: Vec<usize> = (0..rows).map(|_| generator.random_range(0..rows)).collect();
        quantity(mean_of(attributions, &drawn))
    };
    let samples: Vec<Vec<f64>> = (0..config.resamples).into_par_iter().map(sample).collect();
    let tail = (1.0 - config.level.get()) / 2.0;
    let band = |(factor, value): (usize, f64)| {
        let mut sorted: Vec<f64> = samples.iter().map(|sample| sample[factor]).collect();
        sorted.sort_by(f64::total_cmp);
        Band { value, low: quantile(&sorted, tail), high: quantile(&sorted, 1.0 - tail) }
    };
    Ok(quantity(importances(attributions)).into_iter().enumerate().map(band).collect())
}

/// The mean of |φ| over these rows.
fn mean_of(attributions: &Attributions, rows: &[usize]) -> Vec<f64> {
    let mut sums = vec![0.0; attributions.values.width()];
    for &row in rows {
        sums.iter_mut().zip(attributions.values.row(row)).for_each(|(sum, phi)| *sum += phi.abs());
    }
    sums.into_iter().map(|sum| sum / rows.len() as f64).collect()
}

/// The number below which a share of sorted ones lies, interpolated linearly.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let position = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
    below + (above - below) * position.fract()
}
