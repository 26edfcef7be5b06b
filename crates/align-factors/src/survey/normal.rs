//! The mean absolute value of a normal number.

use std::f64::consts::{FRAC_2_PI, FRAC_2_SQRT_PI, SQRT_2};

/// `E|X|` for X ~ N(μ, σ²): `σ √(2/π) exp(−μ²/2σ²) + μ erf(μ / σ√2)`.
pub(super) fn folded_normal_mean(mean: f64, deviation: f64) -> f64 {
    if deviation == 0.0 {
        return mean.abs();
    }
    let standard = mean / deviation;
    deviation * FRAC_2_PI.sqrt() * (-0.5 * standard * standard).exp() + mean * erf(standard / SQRT_2)
}

/// `2/√π ∫₀ˣ exp(−t²) dt` by `2/√π exp(−x²) Σ 2ⁿ x²ⁿ⁺¹ / (2n+1)!!`, whose terms have one sign, so that nothing cancels.
fn erf(x: f64) -> f64 {
    // 1 − erf(6) is 2e-17, below half a unit in the last place.
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut odd) = (x, x, 1.0);
    while term.abs() > f64::EPSILON * 0.1 * sum.abs() {
        odd += 2.0;
        term *= 2.0 * x * x / odd;
        sum += term;
    }
    (FRAC_2_SQRT_PI * (-x * x).exp() * sum).clamp(-1.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_has_its_published_values() {
        // Abramowitz and Stegun 1964, table 7.1.
        for (x, expected) in [
            (0.0, 0.0),
            (0.02, 0.022_564_574_7),
            (0.5, 0.520_499_877_8),
            (1.0, 0.842_700_792_9),
            (2.0, 0.995_322_265_0),
        ] {
            // Ten digits are printed there.
            assert!((erf(x) - expected).abs() < 1e-10, "{x}");
            assert_eq!(erf(-x), -erf(x));
        }
        assert!(erf(5.9) > 1.0 - 1e-15 && erf(5.9) <= 1.0);
        assert_eq!(erf(f64::INFINITY), 1.0);
    }

    #[test]
    fn a_folded_normal_is_between_its_limits() {
        // σ → 0: |μ|. μ = 0: σ√(2/π).
        assert_eq!(folded_normal_mean(-0.7, 0.0), 0.7);
        assert!((folded_normal_mean(-0.7, 1e-3) - 0.7).abs() < 1e-15);
        assert!((folded_normal_mean(0.0, 3.0) - 3.0 * FRAC_2_PI.sqrt()).abs() < 1e-15);
    }
}
