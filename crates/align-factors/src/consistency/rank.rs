//! How alike two rankings are.

use std::cmp::Ordering;

/// Kendall's τ_b: `(C − D) / √((n₀ − n₁)(n₀ − n₂))` with C concordant and D discordant pairs of n₀, and n₁, n₂ pairs tied in
/// the one and in the other. In [−1, 1]; `None` where either has only ties.
///
/// # Panics
/// If there are not as many numbers in both.
///
/// # Source
/// Kendall 1945, "The treatment of ties in ranking problems", <https://doi.org/10.1093/biomet/33.3.239>.
///
/// # Examples
/// ```
/// let tau = align_factors::kendall_tau_b(&[0.30, 0.25, 0.20, 0.15, 0.10], &[0.28, 0.30, 0.12, 0.20, 0.10]);
/// assert!((tau.unwrap() - 0.6).abs() < 1e-15);
/// ```
pub fn kendall_tau_b(first: &[f64], second: &[f64]) -> Option<f64> {
    let (mut balance, mut untied_first, mut untied_second) = (0_i64, 0_i64, 0_i64);
    for (a, b) in pairs("kendall_tau_b", first, second) {
        balance += a as i64 * b as i64;
        untied_first += i64::from(a != Ordering::Equal);
        untied_second += i64::from(b != Ordering::Equal);
    }
    // Roots apart, so that the product of two counts cannot overflow.
    let scale = (untied_first as f64).sqrt() * (untied_second as f64).sqrt();
    (scale > 0.0).then(|| (balance as f64 / scale).clamp(-1.0, 1.0))
}

/// Spearman's ρ: the correlation of ranks, where ties share the mean of theirs. In [−1, 1]; `None` where either has only ties.
///
/// # Panics
/// If there are not as many numbers in both.
pub fn spearman(first: &[f64], second: &[f64]) -> Option<f64> {
    assert_eq!(first.len(), second.len(), "spearman: as many numbers in both");
    let (a, b) = (centred_ranks(first), centred_ranks(second));
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let scale = (product(&a, &a) * product(&b, &b)).sqrt();
    (scale > 0.0).then(|| (product(&a, &b) / scale).clamp(-1.0, 1.0))
}

/// The share of pairs that both order alike; a tie agrees only with a tie. 1 where there is no pair.
///
/// # Panics
/// If there are not as many numbers in both.
pub fn order_agreement(first: &[f64], second: &[f64]) -> f64 {
    let (mut alike, mut count) = (0_u64, 0_u64);
    for (a, b) in pairs("order_agreement", first, second) {
        alike += u64::from(a == b);
        count += 1;
    }
    if count == 0 { 1.0 } else { alike as f64 / count as f64 }
}

/// Positions of the k largest, the largest first; of equal ones, those that come first.
///
/// # Panics
/// If there are fewer than k, or a number is NaN.
pub fn top_k(importances: &[f64], k: usize) -> Vec<usize> {
    assert!(k <= importances.len(), "top_k: {k} of {} numbers", importances.len());
    assert!(!importances.iter().any(|x| x.is_nan()), "top_k: NaN has no rank");
    let mut order: Vec<usize> = (0..importances.len()).collect();
    order.sort_by(|&a, &b| importances[b].partial_cmp(&importances[a]).expect("no NaN"));
    order.truncate(k);
    order
}

/// The share of the k largest that both have in common: `|A ∩ B| / k`.
///
/// # Panics
/// If k is 0, and as [`top_k`].
pub fn top_k_overlap(first: &[f64], second: &[f64], k: usize) -> f64 {
    assert!(k > 0, "top_k_overlap: k must be at least 1");
    in_common(first, second, k) as f64 / k as f64
}

/// `|A ∩ B| / |A ∪ B|` of the k largest.
///
/// # Panics
/// If k is 0, and as [`top_k`].
pub fn top_k_jaccard(first: &[f64], second: &[f64], k: usize) -> f64 {
    assert!(k > 0, "top_k_jaccard: k must be at least 1");
    let common = in_common(first, second, k);
    common as f64 / (2 * k - common) as f64
}

/// The share of pairs of one factor in `primary` and one outside it in which the former is more important. 1 where there is
/// no pair.
///
/// # Panics
/// If there is no such factor.
pub fn share_above(importances: &[f64], primary: &[usize]) -> f64 {
    let rest: Vec<f64> = (0..importances.len())
        .filter(|factor| !primary.contains(factor))
        .map(|factor| importances[factor])
        .collect();
    let above: usize =
        primary.iter().map(|&factor| rest.iter().filter(|other| importances[factor] > **other).count()).sum();
    let pairs = primary.len() * rest.len();
    if pairs == 0 { 1.0 } else { above as f64 / pairs as f64 }
}

fn in_common(first: &[f64], second: &[f64], k: usize) -> usize {
    assert_eq!(first.len(), second.len(), "as many numbers in both");
    let top = top_k(second, k);
    top_k(first, k).iter().filter(|factor| top.contains(factor)).count()
}

/// How each pair is ordered by the one and by the other. There are as many as factors squared, and few factors.
fn pairs<'a>(
    what: &str,
    first: &'a [f64],
    second: &'a [f64],
) -> impl Iterator<Item = (Ordering, Ordering)> + 'a {
    assert_eq!(first.len(), second.len(), "{what}: as many numbers in both");
    let order = |list: &[f64], i: usize, j: usize| {
        list[i]
            .partial_cmp(&list[j])
            .unwrap_or_else(|| panic!("a ranking has no NaN: {}, {}", list[i], list[j]))
    };
    let count = first.len();
    (0..count)
        .flat_map(move |i| (i + 1..count).map(move |j| (i, j)))
        .map(move |(i, j)| (order(first, i, j), order(second, i, j)))
}

/// Ranks from 0 with ties at the mean of theirs, less their mean.
fn centred_ranks(list: &[f64]) -> Vec<f64> {
    let rank = |x: f64| {
        let below = list.iter().filter(|other| **other < x).count();
        let equal = list.iter().filter(|other| **other == x).count();
        assert!(equal > 0, "spearman: NaN has no rank");
        // The mean of below .. below + equal − 1.
        below as f64 + (equal - 1) as f64 / 2.0
    };
    let middle = (list.len() as f64 - 1.0) / 2.0;
    list.iter().map(|&x| rank(x) - middle).collect()
}
