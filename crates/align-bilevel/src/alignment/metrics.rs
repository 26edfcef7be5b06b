//! How well weights tell clean examples from corrupted ones, where the truth is known; and how many they leave.

use serde::{Deserialize, Serialize};

/// The probability that a clean example scores above a corrupted one; ties count a half. `None` without both kinds.
///
/// # Source
/// Mann and Whitney 1947, <https://doi.org/10.1214/aoms/1177730491>: the area under the ROC curve is their U over the
/// number of pairs.
///
/// # Examples
/// ```
/// use align_bilevel::alignment::auc;
///
/// assert_eq!(auc(&[0.9, 0.8, 0.3, 0.8], &[false, false, true, true]), Some(0.875)); // 3.5 of 4 pairs
/// ```
///
/// # Panics
/// If the lengths differ.
pub fn auc(scores: &[f64], corrupted: &[bool]) -> Option<f64> {
    assert_eq!(scores.len(), corrupted.len(), "auc: one score for each example");
    let bad = corrupted.iter().filter(|&&bad| bad).count();
    let good = scores.len() - bad;
    if bad == 0 || good == 0 {
        return None;
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let mut below = 0.0;
    let mut won = 0.0;
    for tied in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let bad = tied.iter().filter(|&&row| corrupted[row]).count() as f64;
        won += (tied.len() as f64 - bad) * (below + bad / 2.0);
        below += bad;
    }
    Some(won / (good as f64 * bad as f64))
}

/// What a threshold on weights finds, with "kept" as the positive class and "clean" as the truth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// The share of kept examples that are clean; 0 if none is kept.
    pub precision: f64,
    /// The share of clean examples that are kept; 0 if none is clean.
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
}

/// Precision, recall and F1 of keeping what weighs more than `threshold`.
///
/// # Panics
/// If the lengths differ.
pub fn detection(weights: &[f64], corrupted: &[bool], threshold: f64) -> Detection {
    assert_eq!(weights.len(), corrupted.len(), "detection: one weight for each example");
    let (mut kept, mut clean, mut both) = (0.0, 0.0, 0.0);
    for (&weight, &corrupted) in weights.iter().zip(corrupted) {
        let is_kept = weight > threshold;
        kept += f64::from(u8::from(is_kept));
        clean += f64::from(u8::from(!corrupted));
        both += f64::from(u8::from(is_kept && !corrupted));
    }
    let ratio = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    Detection {
        precision: ratio(both, kept),
        recall: ratio(both, clean),
        f1: ratio(2.0 * both, kept + clean),
    }
}

/// `(Σ s)² / Σ s²`: how many equally weighted examples are worth as much; 0 if nothing weighs anything.
///
/// # Source
/// Kish 1965, "Survey sampling".
pub fn effective_sample_size(weights: &[f64]) -> f64 {
    let (sum, squares) = weights.iter().fold((0.0, 0.0), |(sum, squares), s| (sum + s, squares + s * s));
    if squares > 0.0 { sum * sum / squares } else { 0.0 }
}
