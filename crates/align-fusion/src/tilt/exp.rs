//! eˣ without branches, so that loops over it become vector instructions.

use pulp::Simd;

/// Below this, 0 is returned: e^−708 ≈ 3·10⁻³⁰⁸ is just above the smallest normal number.
const LOWEST: f64 = -708.0;
/// 1.5 · 2⁵²: added to a small number it leaves the nearest integer in the lowest bits.
const ROUND: f64 = 6_755_399_441_055_744.0;
/// ln 2 to 32 bits, so that its product with an integer of 11 bits is exact (Cody and Waite 1980).
const LN_2_HIGH: f64 = 0.693_147_180_369_123_8;
/// ln 2 less [`LN_2_HIGH`].
const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;

/// 1/k! for k = 0 … 13. The remainder of Taylor's series on |r| ≤ ½ ln 2 is r¹⁴/14! < 5·10⁻¹⁸, a twentieth of a rounding.
const INVERSE_FACTORIALS: [f64; 14] = [
    1.0,
    1.0,
    1.0 / 2.0,
    1.0 / 6.0,
    1.0 / 24.0,
    1.0 / 120.0,
    1.0 / 720.0,
    1.0 / 5_040.0,
    1.0 / 40_320.0,
    1.0 / 362_880.0,
    1.0 / 3_628_800.0,
    1.0 / 39_916_800.0,
    1.0 / 479_001_600.0,
    1.0 / 6_227_020_800.0,
];

/// `a · b + c`, rounded once where the processor can. Elsewhere a rounded product: the library's fused form would be a call.
#[inline(always)]
fn multiply_add<S: Simd>(a: f64, b: f64, c: f64) -> f64 {
    if S::IS_SCALAR || cfg!(target_family = "wasm") { a * b + c } else { a.mul_add(b, c) }
}

/// eˣ for x ≤ 709 or −∞, within two units in the last place; 0 below −708.
///
/// x = n ln 2 + r with |r| ≤ ½ ln 2; eʳ by its series, 2ⁿ by adding n to the exponent's bits.
#[inline(always)]
pub(super) fn exp<S: Simd>(x: f64) -> f64 {
    let bounded = if x < LOWEST { LOWEST } else { x };
    let shifted = multiply_add::<S>(bounded, std::f64::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = multiply_add::<S>(n, -LN_2_LOW, multiply_add::<S>(n, -LN_2_HIGH, bounded));
    // Even and odd powers apart: two short chains of additions in place of a long one.
    let square = r * r;
    let [mut even, mut odd] = [INVERSE_FACTORIALS[12], INVERSE_FACTORIALS[13]];
    for k in (0..6).rev() {
        even = multiply_add::<S>(even, square, INVERSE_FACTORIALS[2 * k]);
        odd = multiply_add::<S>(odd, square, INVERSE_FACTORIALS[2 * k + 1]);
    }
    let series = multiply_add::<S>(odd, r, even);
    let scaled = f64::from_bits(series.to_bits().wrapping_add(shifted.to_bits() << 52));
    if x < LOWEST { 0.0 } else { scaled }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Table<'a>(&'a [f64], &'a mut [f64]);

    impl pulp::WithSimd for Table<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            for (x, y) in self.0.iter().zip(self.1) {
                *y = exp::<S>(*x);
            }
        }
    }

    #[test]
    fn the_exponential_agrees_with_the_standard_library_to_two_units_in_the_last_place() {
        // An irrational stride over the whole domain, and a fine walk around 0 where the search needs it most.
        let wide = (0..200_000).map(|i| -708.0 + (f64::from(i) * 0.618_033_988_749_894_9).fract() * 1416.9);
        let near = (0..200_000).map(|i| (f64::from(i) * 0.618_033_988_749_894_9).fract() * 2.0 - 1.0);
        let x: Vec<f64> = wide.chain(near).chain([0.0, -708.0, 709.0]).collect();
        let mut dispatched = vec![0.0; x.len()];
        pulp::Arch::new().dispatch(Table(&x, &mut dispatched));
        let mut scalar = vec![0.0; x.len()];
        pulp::WithSimd::with_simd(Table(&x, &mut scalar), pulp::Scalar::new());
        for (x, (one, other)) in x.iter().zip(dispatched.iter().zip(&scalar)) {
            for found in [one, other] {
                let units = (found.to_bits() as i64 - x.exp().to_bits() as i64).abs();
                // The library itself is within one; ours within one and a half, since the last sum is rounded once.
                assert!(units <= 2, "e^{x}: {found:e} is {units} units from {:e}", x.exp());
            }
        }
    }

    #[test]
    fn what_is_masked_or_far_below_vanishes() {
        let mut out = [1.0; 3];
        pulp::Arch::new().dispatch(Table(&[f64::NEG_INFINITY, -1e30, -708.1], &mut out));
        assert_eq!(out, [0.0; 3]);
    }
}
