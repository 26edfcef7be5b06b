//! χ² of continuous action distributions, in closed form, and infinite where the integral is.

/// χ²(N(m, s²) ‖ N(m₀, s₀²)) = `s₀²/(s·√(2s₀² − s²))·exp((m − m₀)²/(2s₀² − s²)) − 1`; +∞ if `s² ≥ 2s₀²`.
///
/// # Panics
/// If a deviation is not positive.
///
/// # Examples
/// ```
/// use align_occupancy::continuous::gaussian_chi_squared;
///
/// assert!((gaussian_chi_squared((1.0, 1.0), (0.0, 1.0)) - (1f64.exp() - 1.0)).abs() < 1e-12);
/// // Half as wide again as the reference: its tails are out of reach.
/// assert_eq!(gaussian_chi_squared((0.0, 1.5), (0.0, 1.0)), f64::INFINITY);
/// ```
pub fn gaussian_chi_squared((mean, deviation): (f64, f64), (mean_0, deviation_0): (f64, f64)) -> f64 {
    assert!(
        deviation > 0.0 && deviation_0 > 0.0,
        "deviations are positive, found {deviation} and {deviation_0}"
    );
    let variance = deviation_0 * deviation_0;
    let room = 2.0 * variance - deviation * deviation;
    if room <= 0.0 {
        return f64::INFINITY;
    }
    let log = (variance / (deviation * room.sqrt())).ln() + (mean - mean_0).powi(2) / room;
    log.exp_m1()
}

/// χ²(Beta(α, β) ‖ Beta(α₀, β₀)) = `B(2α − α₀, 2β − β₀)·B(α₀, β₀)/B(α, β)² − 1`; +∞ if `2α ≤ α₀` or `2β ≤ β₀`.
///
/// # Panics
/// If a parameter is not positive.
pub fn beta_chi_squared((alpha, beta): (f64, f64), (alpha_0, beta_0): (f64, f64)) -> f64 {
    let parameters = [alpha, beta, alpha_0, beta_0];
    assert!(
        parameters.iter().all(|x| *x > 0.0),
        "a beta distribution has positive parameters, found {parameters:?}"
    );
    let (a, b) = (2.0 * alpha - alpha_0, 2.0 * beta - beta_0);
    if a <= 0.0 || b <= 0.0 {
        return f64::INFINITY;
    }
    (ln_beta(a, b) + ln_beta(alpha_0, beta_0) - 2.0 * ln_beta(alpha, beta)).exp_m1()
}

fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

/// log Γ(x) for x > 0, by Stirling's series after moving x beyond 15; good to 1e-14.
fn ln_gamma(mut x: f64) -> f64 {
    let mut shift = 0.0;
    while x < 15.0 {
        shift -= x.ln();
        x += 1.0;
    }
    let inverse = 1.0 / (x * x);
    let terms = [1.0 / 12.0, -1.0 / 360.0, 1.0 / 1260.0, -1.0 / 1680.0, 1.0 / 1188.0, -691.0 / 360_360.0];
    let series = terms.iter().rev().fold(0.0, |sum, term| sum * inverse + term) / x;
    shift + (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + series
}

/// Φ(x), the normal distribution function, by its series; good to 1e-15.
///
/// # Source
/// Marsaglia 2004, "Evaluating the normal distribution", Journal of Statistical Software 11.
pub(crate) fn normal_cdf(x: f64) -> f64 {
    if x.abs() > 8.0 {
        return if x > 0.0 { 1.0 } else { 0.0 };
    }
    let (mut sum, mut term, mut k) = (x, x, 1.0);
    while (sum + term) != sum || k == 1.0 {
        k += 2.0;
        term *= x * x / k;
        sum += term;
        if x == 0.0 {
            break;
        }
    }
    0.5 + sum * (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt()
}
