//! Model stock: how far from the base to the mean of the models, by the angle between their task vectors.

use super::gram::Gram;

/// Least product of norms that a cosine is divided by.
const LEAST_NORMS: f64 = 1e-6;
/// Where 1 + (N−1)·cos θ is smaller than this, t has no finite value, and the base is kept.
const SINGULAR: f64 = 1e-6;

/// t = N·cos θ / (1 + (N−1)·cos θ) for N task vectors; θ is the mean of the pairwise angles' cosines. The merged tensor is
/// t·mean + (1−t)·b.
///
/// t leaves [0, 1] when the task vectors point away from each other. The paper has θ from its geometry, one for all pairs;
/// the mean over pairs is mergekit's choice.
///
/// # Source
/// Jang, Yun, Han 2024, "Model Stock", section 4, <https://arxiv.org/abs/2403.19522>.
pub(super) fn interpolation(gram: &Gram) -> f64 {
    let count = gram.order();
    let mut cosines = Vec::new();
    for i in 0..count {
        for j in i + 1..count {
            let norms = (gram.norm(i) * gram.norm(j)).max(LEAST_NORMS);
            cosines.push((gram.product(i, j) / norms).clamp(-1.0, 1.0));
        }
    }
    let cosine = cosines.iter().sum::<f64>() / cosines.len() as f64;
    let n = count as f64;
    let denominator = 1.0 + (n - 1.0) * cosine;
    if denominator.abs() < SINGULAR { 0.0 } else { n * cosine / denominator }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Task vectors of `specs/salsa.md`, section 9, test 9.
    const TASK_VECTORS: [[f64; 5]; 3] =
        [[0.5, -0.1, 0.2, -0.3, 0.01], [-0.2, 0.2, 0.1, -0.5, 0.0], [0.4, 0.05, -0.4, 0.1, -0.01]];

    #[test]
    fn the_interpolation_has_the_printed_digits() {
        // The digits printed in test 15 of the specification.
        assert!((interpolation(&Gram::of_vectors(&TASK_VECTORS[..2])) - 0.24143538).abs() < 1e-8);
        assert!((interpolation(&Gram::of_vectors(&TASK_VECTORS)) + 0.11036803).abs() < 1e-8);
    }

    #[test]
    fn opposite_updates_keep_the_base() {
        // cos θ = −1 and N = 2: the denominator is 0.
        assert_eq!(interpolation(&Gram::of_vectors(&[[1.0, 2.0], [-1.0, -2.0]])), 0.0);
        let equal = interpolation(&Gram::of_vectors(&[[1.0, 2.0], [1.0, 2.0]]));
        assert!((equal - 1.0).abs() < 1e-15); // a rounding of the norms
    }
}
