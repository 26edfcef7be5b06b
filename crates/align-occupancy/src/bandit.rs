//! One step, one state: what maximises `⟨π, R̃⟩ − λ·D(π‖π_ref)`, in closed form.
//!
//! All three keep within the reference's support. χ² and √χ² put responses far below the others at exactly 0; KL never
//! does.

use crate::divergence::Divergence;
use crate::error::{OccupancyError, all_finite, positive};
use crate::occupancy::Occupancy;

/// The distribution that maximises `⟨π, R̃⟩ − λ·D(π‖π_ref)`.
///
/// - KL: `π ∝ π_ref·exp(R̃/λ)`.
/// - χ²: `π = π_ref·(R̃ − b)₊/(2λ)`, with b such that it sums to 1.
/// - √χ²: `π ∝ π_ref·(R̃ − b)₊`, with b such that the standard deviation of `(R̃ − b)₊` under π_ref is λ. From
///   λ = σ_R̃ on, π_ref itself; just below, the solution jumps to one that drives a response to 0.
///
/// # Shapes
/// `proxy`: one entry for each cell of `reference`.
///
/// # Errors
/// If a reward is not finite, or λ not a finite number above 0.
///
/// # Panics
/// If the lengths differ.
///
/// # Examples
/// ```
/// use align_occupancy::{Divergence, Occupancy, bandit_optimum};
///
/// let reference = Occupancy::new(vec![0.5, 0.5])?;
/// let tilted = bandit_optimum(Divergence::Kl, &reference, &[3f64.ln(), 0.0], 1.0)?;
/// assert!((tilted.cells()[0] - 0.75).abs() < 1e-12);
/// // σ = ½, and a weight above it leaves the reference where it is.
/// assert_eq!(bandit_optimum(Divergence::SqrtChiSquared, &reference, &[1.0, 0.0], 0.6)?, reference);
/// # Ok::<(), align_occupancy::OccupancyError>(())
/// ```
pub fn bandit_optimum(
    divergence: Divergence,
    reference: &Occupancy,
    proxy: &[f64],
    lambda: f64,
) -> Result<Occupancy, OccupancyError> {
    assert_eq!(proxy.len(), reference.cells().len(), "a reward has one entry for each response");
    all_finite("proxy reward", proxy)?;
    positive("lambda", lambda)?;
    Ok(Occupancy::normalized(row_optimum(divergence, reference.cells(), proxy, lambda)))
}

/// Of one row, unchecked. The row may have zeros, but sums to 1.
pub(crate) fn row_optimum(divergence: Divergence, reference: &[f64], proxy: &[f64], lambda: f64) -> Vec<f64> {
    let mut weights = match divergence {
        Divergence::Kl => tilted(reference, proxy, lambda),
        Divergence::ChiSquared => {
            // E[(R̃ − b)₊] is at least 2λ at the lower end of the bracket, and 0 at the upper.
            let mean = |b: f64| moments(reference, proxy, b).0;
            let (lowest, highest) = range(reference, proxy);
            let b = falling_root(|b| mean(b) - 2.0 * lambda, lowest - 2.0 * lambda, highest);
            above(reference, proxy, b)
        }
        Divergence::SqrtChiSquared => {
            let (lowest, highest) = range(reference, proxy);
            let deviation = |b: f64| {
                let (mean, square) = moments(reference, proxy, b);
                (square - mean * mean).max(0.0).sqrt()
            };
            if lambda >= standard_deviation(reference, proxy) {
                return reference.to_vec(); // to the last bit
            }
            above(reference, proxy, falling_root(|b| deviation(b) - lambda, lowest, highest))
        }
    };
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|w| *w /= sum);
    weights
}

/// π_ref·exp(R̃/λ), not normalised, its largest exponential 1.
fn tilted(reference: &[f64], proxy: &[f64], lambda: f64) -> Vec<f64> {
    let (_, highest) = range(reference, proxy);
    let pairs = reference.iter().zip(proxy);
    pairs.map(|(q, r)| if *q > 0.0 { q * ((r - highest) / lambda).exp() } else { 0.0 }).collect()
}

/// π_ref·(R̃ − b)₊, not normalised.
fn above(reference: &[f64], proxy: &[f64], b: f64) -> Vec<f64> {
    let weights: Vec<f64> = reference.iter().zip(proxy).map(|(q, r)| q * (r - b).max(0.0)).collect();
    if weights.iter().any(|w| *w > 0.0) {
        return weights;
    }
    // b has reached the largest reward to the last bit: those responses alone remain.
    let (_, highest) = range(reference, proxy);
    reference.iter().zip(proxy).map(|(q, r)| if *r == highest { *q } else { 0.0 }).collect()
}

/// E[(R̃ − b)₊] and E[(R̃ − b)₊²] under the reference.
fn moments(reference: &[f64], proxy: &[f64], b: f64) -> (f64, f64) {
    reference.iter().zip(proxy).fold((0.0, 0.0), |(mean, square), (q, r)| {
        let x = (r - b).max(0.0);
        (mean + q * x, square + q * x * x)
    })
}

fn standard_deviation(reference: &[f64], proxy: &[f64]) -> f64 {
    let mean: f64 = reference.iter().zip(proxy).map(|(q, r)| q * r).sum();
    reference.iter().zip(proxy).map(|(q, r)| q * (r - mean).powi(2)).sum::<f64>().sqrt()
}

/// Smallest and largest reward of what the reference does.
fn range(reference: &[f64], proxy: &[f64]) -> (f64, f64) {
    let inside = reference.iter().zip(proxy).filter(|(q, _)| **q > 0.0).map(|(_, r)| *r);
    inside.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), r| (low.min(r), high.max(r)))
}

/// Where a falling function changes sign, to the last bit.
fn falling_root(function: impl Fn(f64) -> f64, mut low: f64, mut high: f64) -> f64 {
    for _ in 0..2000 {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            break;
        }
        if function(middle) > 0.0 { low = middle } else { high = middle }
    }
    low
}
