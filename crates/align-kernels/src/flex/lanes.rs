//! Loops over numbers that compile to vector instructions, and the functions they call.
//!
//! The loops are ordinary Rust; [`vectorised`] compiles them for the widest instructions the processor has. Sums run in
//! [`LANES`] partial sums, because the compiler may not reorder additions itself.

use pulp::Arch;

/// Partial sums of a reduction: two registers of AVX-512, four of AVX2.
pub(super) const LANES: usize = 32;

/// Runs `work`, and what it inlines, with the widest vector instructions of this processor.
///
/// Only functions marked `#[inline(always)]` benefit: code behind a call is compiled for the baseline.
#[inline(always)]
pub(super) fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    Arch::new().dispatch(work)
}

/// `eˣ`, within two units in the last place. Below −87.3 (where f32 leaves the normal numbers) it is 0, above 88 it stays at e⁸⁸.
///
/// `x = n·ln 2 + r` with `|r| ≤ ln 2 / 2`, the constant split in two so that `r` is exact; the polynomial is that of Cephes' `expf`.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5·2²³: adding it rounds to an integer in the low bits
    let bounded = if x < -87.3 { -87.3 } else { x };
    let bounded = if bounded > 88.0 { 88.0 } else { bounded };
    let shifted = bounded.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-0.693_359_4, bounded);
    let r = n.mul_add(2.121_944_4e-4, r);
    let p = 1.987_569_1e-4_f32;
    let p = p.mul_add(r, 1.398_2e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 0.166_666_65);
    let p = p.mul_add(r, 0.5);
    let y = p.mul_add(r * r, r) + 1.0;
    // The integer sits in the low bits of `shifted`; moved into the exponent it is 2ⁿ.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.3 { 0.0 } else { y * power }
}

/// `1/(1 + e⁻ˣ)`, exact to rounding at both ends.
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    let e = exp(-x.abs());
    let larger = 1.0 / (1.0 + e);
    if x < 0.0 { e * larger } else { larger }
}

/// Hyperbolic tangent: Cephes' polynomial near 0, where the quotient of exponentials would cancel, and that quotient elsewhere.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    let z = x * x;
    let p = -5.704_988_7e-3_f32;
    let p = p.mul_add(z, 2.063_908_8e-2);
    let p = p.mul_add(z, -5.373_971_6e-2);
    let p = p.mul_add(z, 0.133_314_42);
    let p = p.mul_add(z, -0.333_332_8);
    let near = (p * z).mul_add(x, x);
    let e = exp(-2.0 * x.abs());
    let far = ((1.0 - e) / (1.0 + e)).copysign(x);
    if x.abs() < 0.625 { near } else { far }
}

/// The error function as a quotient of polynomials (Eigen's coefficients), within 1e-7; ±1 beyond 3.92, where f32 rounds to it.
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    let far = x.abs() > 3.92;
    let end = 1.0_f32.copysign(x);
    let x = if far { 0.0 } else { x };
    let z = x * x;
    let p = -2.726_142_3e-10_f32;
    let p = p.mul_add(z, 2.770_681_4e-8);
    let p = p.mul_add(z, -2.101_024e-6);
    let p = p.mul_add(z, -5.692_506_4e-5);
    let p = p.mul_add(z, -7.349_906_3e-4);
    let p = p.mul_add(z, -2.954_6e-3);
    let p = p.mul_add(z, -1.609_603_3e-2);
    let q = -1.456_607_2e-5_f32;
    let q = q.mul_add(z, -2.133_740_6e-4);
    let q = q.mul_add(z, -1.682_827e-3);
    let q = q.mul_add(z, -7.373_329_2e-3);
    let q = q.mul_add(z, -1.426_473_9e-2);
    if far { end } else { x * p / q }
}

/// `Σ f(i)` over `0..n`, in [`LANES`] partial sums.
#[inline(always)]
pub(super) fn sum(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut partial = [0.0_f32; LANES];
    let whole = n - n % LANES;
    let mut start = 0;
    while start < whole {
        for (lane, partial) in partial.iter_mut().enumerate() {
            *partial += f(start + lane);
        }
        start += LANES;
    }
    for (lane, partial) in partial.iter_mut().enumerate().take(n - whole) {
        *partial += f(whole + lane);
    }
    total(partial)
}

/// The largest element; −∞ of none.
#[inline(always)]
pub(super) fn largest(values: &[f32]) -> f32 {
    let mut partial = [f32::NEG_INFINITY; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            partial[lane] = if chunk[lane] > partial[lane] { chunk[lane] } else { partial[lane] };
        }
    }
    for (lane, value) in rest.iter().enumerate() {
        partial[lane] = if *value > partial[lane] { *value } else { partial[lane] };
    }
    partial.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

/// Replaces each `x` by `eˣ⁻ˢʰⁱᶠᵗ` and gives their sum.
#[inline(always)]
pub(super) fn exponentiate(values: &mut [f32], shift: f32) -> f32 {
    let mut partial = [0.0_f32; LANES];
    let mut chunks = values.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        for lane in 0..LANES {
            chunk[lane] = exp(chunk[lane] - shift);
            partial[lane] += chunk[lane];
        }
    }
    for (lane, value) in chunks.into_remainder().iter_mut().enumerate() {
        *value = exp(*value - shift);
        partial[lane] += *value;
    }
    total(partial)
}

/// Adds the partial sums pairwise.
#[inline(always)]
fn total(mut partial: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            partial[lane] += partial[lane + width];
        }
        width /= 2;
    }
    partial[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(
        range: std::ops::RangeInclusive<i32>,
        step: f64,
        ours: fn(f32) -> f32,
        exact: fn(f64) -> f64,
    ) -> f64 {
        range
            .map(|i| (f64::from(i) * step) as f32)
            .map(|x| {
                let (found, expected) = (f64::from(ours(x)), exact(f64::from(x)));
                (found - expected).abs() / expected.abs().max(f64::from(f32::MIN_POSITIVE))
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn the_exponential_is_within_two_units_in_the_last_place() {
        assert!(worst(-87_000..=88_000, 1e-3, exp, f64::exp) < 2.4e-7); // 2 · 2⁻²³
        assert_eq!([exp(0.0), exp(-88.0), exp(f32::NEG_INFINITY)], [1.0, 0.0, 0.0]);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn sigmoid_and_tanh_keep_their_relative_precision_at_both_ends() {
        // Three roundings on top of the exponential's.
        assert!(worst(-80_000..=80_000, 1e-3, sigmoid, |x| 1.0 / (1.0 + (-x).exp())) < 4e-7);
        assert!(worst(-20_000..=20_000, 1e-3, tanh, f64::tanh) < 4e-7);
        assert!(worst(1..=1000, 1e-9, tanh, f64::tanh) < 4e-7);
    }

    #[test]
    fn sums_and_products_cover_the_remainder() {
        for n in [0_usize, 1, 31, 32, 33, 95] {
            let values: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let (linear, squares) = (n * n.saturating_sub(1) / 2, (0..n).map(|i| i * i).sum::<usize>());
            assert_eq!(sum(n, |i| values[i]), linear as f32);
            assert_eq!(sum(n, |i| values[i] * values[i]), squares as f32);
            assert_eq!(largest(&values), if n == 0 { f32::NEG_INFINITY } else { (n - 1) as f32 });
        }
    }
}
