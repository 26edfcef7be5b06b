//! Which step sizes make mirror descent contract at the equilibrium.
//!
//! Write δ for a small change of log π at π*, up to a constant. A step takes it to `((1 − τ/η) + K S/η) δ`, with
//! `K = P − ½` and `S = diag(π*) − π* π*ᵀ`. K is antisymmetric, so that the eigenvalues of K S are ±iω: each step shrinks by
//! `1 − τ/η` and turns by about ω/η. Too long a step turns more than it shrinks. All of this is ours, not the paper's, which
//! remarks that the greedy step is unstable.

use super::nash::Nash;
use super::preference_game::{PreferenceGame, dot};

impl PreferenceGame {
    /// How strongly the game turns around its equilibrium: ω, the largest modulus of an eigenvalue of K S; at most ½, and
    /// 0 where all preferences are ties.
    ///
    /// Costs about n³ multiplications for n responses.
    ///
    /// # Panics
    /// If the equilibrium is of a game with another number of responses.
    ///
    /// # Source
    /// Ours; see the module's header for the matrices.
    pub fn rotation(&self, nash: &Nash) -> f64 {
        let (expected, found) = (self.responses(), nash.policy.responses());
        assert_eq!(expected, found, "the game has {expected} responses, the equilibrium {found}");
        // S = L Lᵀ with L = D^½ Q, D = diag(π*), s = √π*, Q = 1 − s sᵀ. K S has the eigenvalues of the antisymmetric
        // Lᵀ K L = Q M Q, where M = D^½ K D^½.
        let roots: Vec<f64> = nash.policy.log_probs().iter().map(|log| (0.5 * log).exp()).collect();
        let mut skew: Vec<Vec<f64>> = self.margins().to_vec();
        for (row, root) in skew.iter_mut().zip(&roots) {
            row.iter_mut().zip(&roots).for_each(|(entry, other)| *entry *= root * other);
        }
        conjugate(&mut skew, &roots, 1.0, 0);
        largest_eigenvalue(&tridiagonal(skew))
    }
}

/// The least η above which mirror descent contracts at the equilibrium: `(τ² + ω²)/(2τ)`; infinite for τ = 0.
///
/// Below it the iterates orbit at a distance. An η below τ is not admitted either way, so that where ω < τ every admitted η
/// contracts.
///
/// # Source
/// Ours: [`spectral_radius`] is below 1 above it and above 1 below it.
pub fn stability_threshold(tau: f64, omega: f64) -> f64 {
    if tau == 0.0 { f64::INFINITY } else { (tau * tau + omega * omega) / (2.0 * tau) }
}

/// The η above which mirror descent contracts at the equilibrium of any game: the threshold for ω = ½, the most there is.
///
/// # Source
/// Ours.
pub fn conservative_threshold(tau: f64) -> f64 {
    stability_threshold(tau, 0.5)
}

/// By how much one step shrinks a small deviation from the equilibrium, `√((1 − τ/η)² + (ω/η)²)`.
///
/// The direction in which all log-probabilities change alike is left out, being no change of the policy.
///
/// # Source
/// Ours.
pub fn spectral_radius(tau: f64, omega: f64, eta: f64) -> f64 {
    (1.0 - tau / eta).hypot(omega / eta)
}

/// `H A H` for an antisymmetric A and `H = 1 − β v vᵀ`, in place; v, and every row of A that meets it, is 0 before `start`.
///
/// `vᵀ A v = 0`, so that only `A + v pᵀ − p vᵀ` with `p = β A v` is left of the product.
fn conjugate(a: &mut [Vec<f64>], v: &[f64], beta: f64, start: usize) {
    let p: Vec<f64> = a.iter().map(|row| beta * dot(&row[start..], &v[start..])).collect();
    for (i, row) in a.iter_mut().enumerate().skip(start) {
        for (j, entry) in row.iter_mut().enumerate().skip(start) {
            *entry += v[i] * p[j] - p[i] * v[j];
        }
    }
}

/// The entries beside the diagonal of an antisymmetric tridiagonal matrix with the eigenvalues of `a`, by Householder's
/// reflections.
fn tridiagonal(mut a: Vec<Vec<f64>>) -> Vec<f64> {
    let n = a.len();
    for k in 0..n.saturating_sub(2) {
        let mut v: Vec<f64> = (0..n).map(|i| if i > k { a[i][k] } else { 0.0 }).collect();
        // The reflection has no length; scaled, so that the square of a tiny entry is not 0.
        let largest = v.iter().fold(0.0, |largest: f64, entry| largest.max(entry.abs()));
        if largest == 0.0 {
            continue;
        }
        v.iter_mut().for_each(|entry| *entry /= largest);
        v[k + 1] += dot(&v, &v).sqrt().copysign(v[k + 1]);
        let beta = 2.0 / dot(&v, &v);
        conjugate(&mut a, &v, beta, k);
    }
    (1..n).map(|i| a[i][i - 1]).collect()
}

/// The largest modulus of an eigenvalue of the antisymmetric tridiagonal matrix with these entries beside its diagonal.
///
/// i times the matrix has the eigenvalues of the symmetric one with the moduli of the entries and a diagonal of 0; bisection
/// by whether one of those is at or above a number (Sturm).
fn largest_eigenvalue(beside: &[f64]) -> f64 {
    let largest = beside.iter().fold(0.0, |largest: f64, entry| largest.max(entry.abs()));
    // No eigenvalue is beyond the largest sum of a row (Gershgorin).
    let (mut below, mut above) = (0.0, 2.0 * largest);
    let reaches = |x: f64| {
        let mut pivot = -x;
        beside.iter().any(|entry| {
            pivot = -x - entry * entry / pivot;
            // At 0 the part so far has the eigenvalue x, and the whole one at least as large (Cauchy's interlacing).
            pivot >= 0.0
        })
    };
    loop {
        let middle = 0.5 * (below + above);
        if middle <= below || middle >= above {
            return middle;
        }
        if reaches(middle) { below = middle } else { above = middle }
    }
}
