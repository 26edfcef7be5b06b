//! Selection among N candidates by their scores, shared by best-of-N, SuperHF and evaluation.

use std::cmp::Ordering;

/// Indices of the `k` highest scores, best first; ties go to the earlier candidate.
///
/// A score that is not a number ranks below every number, −∞ included: it is chosen only when nothing else is left.
///
/// # Panics
/// If `k` exceeds the number of scores.
///
/// # Examples
/// ```
/// use align_core::selection::top_k;
///
/// assert_eq!(top_k(&[0.1, 0.7, 0.7, f32::NAN], 2), [1, 2]);
/// ```
pub fn top_k(scores: &[f32], k: usize) -> Vec<usize> {
    assert!(k <= scores.len(), "top_k: expected k of at most {} scores, found {k}", scores.len());
    let mut order: Vec<usize> = (0..scores.len()).collect();
    // The sort is stable, so equal scores keep their order.
    order.sort_by(|&a, &b| compare(scores[b], scores[a]));
    order.truncate(k);
    order
}

/// Index of the best of every `n` consecutive scores, as indices into `scores`; ties go to the earlier candidate.
///
/// # Shapes
/// G·N scores, the N candidates of a prompt side by side → G indices.
///
/// # Panics
/// If `n` is 0 or does not divide the number of scores.
///
/// # Examples
/// ```
/// use align_core::selection::best_of_n;
///
/// assert_eq!(best_of_n(&[0.1, 0.9, 0.4, 0.4], 2), [1, 2]);
/// ```
pub fn best_of_n(scores: &[f32], n: usize) -> Vec<usize> {
    assert!(
        n > 0 && scores.len().is_multiple_of(n),
        "best_of_n: expected groups of {n}, found {} scores",
        scores.len()
    );
    scores.chunks(n).enumerate().map(|(group, scores)| group * n + top_k(scores, 1)[0]).collect()
}

/// The order of numbers, with NaN below all of them.
fn compare(a: f32, b: f32) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}
