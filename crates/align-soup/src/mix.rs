//! The arithmetic of a soup on raw little-endian tensors: Σ_k w_k x_k in f64, cast once.
//!
//! Modules and checkpoint folders go through the same function, so their soups agree bit for bit.

use std::fmt;
use std::str::FromStr;

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use serde::{Deserialize, Serialize};

use crate::error::{SoupError, WeightError};
use crate::weights::Weights;

/// Values that are summed at once: their f64 accumulators stay in the first-level cache.
pub(crate) const LANES: usize = 1024;

/// A floating-point type that weights are stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FloatDtype {
    /// 64 bits.
    #[serde(rename = "float64", alias = "f64")]
    F64,
    /// 32 bits.
    #[serde(rename = "float32", alias = "f32")]
    F32,
    /// 16 bits, IEEE.
    #[serde(rename = "float16", alias = "f16")]
    F16,
    /// 16 bits with the range of f32.
    #[serde(rename = "bfloat16", alias = "bf16")]
    BF16,
}

impl FloatDtype {
    /// Bytes of one value.
    pub const fn size(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }
}

impl fmt::Display for FloatDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F64 => "float64",
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::BF16 => "bfloat16",
        })
    }
}

/// A name that is not one of [`FloatDtype`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected float64, float32, float16 or bfloat16 (f64, f32, f16, bf16), found `{found}`")]
pub struct UnknownDtype {
    /// The name.
    pub found: String,
}

impl FromStr for FloatDtype {
    type Err = UnknownDtype;

    fn from_str(name: &str) -> Result<Self, UnknownDtype> {
        match name {
            "float64" | "f64" => Ok(Self::F64),
            "float32" | "f32" => Ok(Self::F32),
            "float16" | "f16" => Ok(Self::F16),
            "bfloat16" | "bf16" => Ok(Self::BF16),
            _ => Err(UnknownDtype { found: name.to_owned() }),
        }
    }
}

/// The weighted mean of vectors: Σ_k w_k x_k.
///
/// # Shapes
/// Each vector and the result: `[N]`.
///
/// # Errors
/// If there is not one weight for each vector.
///
/// # Panics
/// If the vectors differ in length.
///
/// # Source
/// Wortsman et al. 2022, <https://arxiv.org/abs/2203.05482>; as SALSA's reference Chegini et al. 2024, section 3,
/// <https://arxiv.org/abs/2411.01798>.
///
/// # Examples
/// ```
/// use align_soup::{Weights, weighted_mean};
///
/// let mean = weighted_mean(&[&[1.0, 0.0], &[0.0, 2.0]], &Weights::uniform(2)?)?;
/// assert_eq!(mean, [0.5, 1.0]);
/// # Ok::<(), align_soup::SoupError>(())
/// ```
pub fn weighted_mean(vectors: &[&[f64]], weights: &Weights) -> Result<Vec<f64>, SoupError> {
    let first = vectors.first().ok_or(SoupError::InvalidWeights(WeightError::Empty))?;
    weights.expect_count(vectors.len())?;
    let mut mean = vec![0.0; first.len()];
    let mut begun = false;
    for (vector, &weight) in vectors.iter().zip(weights.as_slice()) {
        assert_eq!(vector.len(), first.len(), "weighted_mean: vectors of different lengths");
        if weight != 0.0 {
            add_scaled(&mut mean, vector, weight, begun);
            begun = true;
        }
    }
    Ok(mean)
}

/// `sum ← weight · values`, or `sum ← sum + weight · values` once the sum has begun. The first term is stored and not
/// added to zero, so that a weight of 1 keeps even the sign of −0.
#[inline(always)]
fn add_scaled(sum: &mut [f64], values: &[f64], weight: f64, begun: bool) {
    if begun {
        for (sum, &value) in sum.iter_mut().zip(values) {
            *sum += weight * value;
        }
    } else {
        for (sum, &value) in sum.iter_mut().zip(values) {
            *sum = weight * value;
        }
    }
}

/// One ingredient's share of a tensor.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) dtype: FloatDtype,
    pub(crate) bytes: &'a [u8],
    pub(crate) weight: f64,
}

/// Writes Σ_k w_k x_k into `out`, counts each source's values that are not finite into `non_finite`, and returns how
/// many means are not finite in `dtype`: more than can be finite if no source is to blame.
///
/// # Panics
/// If the lengths do not describe the same number of values.
pub(crate) fn mix(sources: &[Source<'_>], dtype: FloatDtype, out: &mut [u8], non_finite: &mut [u64]) -> u64 {
    let count = out.len() / dtype.size();
    for source in sources {
        assert_eq!(source.bytes.len(), count * source.dtype.size(), "mix: sources of different lengths");
    }
    // Without the dispatch the compiler may only use the oldest vector instructions of the platform.
    pulp::Arch::new().dispatch(Mix { sources, dtype, out, non_finite })
}

/// The call that is compiled once for each level of vector instructions. (A closure is not: it is called through a
/// shim that stays outside the vectorised function.)
struct Mix<'a> {
    sources: &'a [Source<'a>],
    dtype: FloatDtype,
    out: &'a mut [u8],
    non_finite: &'a mut [u64],
}

impl pulp::WithSimd for Mix<'_> {
    type Output = u64;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> u64 {
        mix_lanes(self.sources, self.dtype, self.out, self.non_finite)
    }
}

#[inline(always)]
fn mix_lanes(sources: &[Source<'_>], dtype: FloatDtype, out: &mut [u8], non_finite: &mut [u64]) -> u64 {
    let mut sums = [0.0f64; LANES];
    let mut narrow = [0.0f32; LANES];
    let mut overflow = 0;
    for (block, out) in out.chunks_mut(LANES * dtype.size()).enumerate() {
        let count = out.len() / dtype.size();
        let (sums, narrow) = (&mut sums[..count], &mut narrow[..count]);
        let share = |source: &Source<'_>| {
            let size = source.dtype.size();
            block * LANES * size..(block * LANES + count) * size
        };
        let mut begun = false;
        for source in sources.iter().filter(|source| source.weight != 0.0) {
            add_bytes(sums, source.dtype, &source.bytes[share(source)], source.weight, begun, narrow);
            begun = true;
        }
        if !begun {
            sums.fill(0.0); // all weights are 0, and the block before may have left its values
        }
        let infinite = encode(sums, dtype, out, narrow);
        overflow += infinite;
        // A value that is not finite makes its sum so too; only then, or without a weight, must one look for it.
        for (source, bad) in sources.iter().zip(non_finite.iter_mut()) {
            if infinite > 0 || source.weight == 0.0 {
                add_bytes(sums, source.dtype, &source.bytes[share(source)], 1.0, false, narrow);
                *bad += count_non_finite(sums);
            }
        }
    }
    overflow
}

#[inline(always)]
pub(crate) fn count_non_finite(values: &[f64]) -> u64 {
    let mut count = 0u64;
    for value in values {
        count += u64::from(!value.is_finite());
    }
    count
}

/// [`add_scaled`] of at most [`LANES`] values as they are stored. `narrow` is scratch of the same length.
#[inline(always)]
pub(crate) fn add_bytes(
    sums: &mut [f64],
    dtype: FloatDtype,
    bytes: &[u8],
    weight: f64,
    begun: bool,
    narrow: &mut [f32],
) {
    match dtype {
        FloatDtype::F64 => add_words(sums, bytes, weight, begun, f64::from_le_bytes),
        FloatDtype::F32 => add_words(sums, bytes, weight, begun, |word| f64::from(f32::from_le_bytes(word))),
        FloatDtype::BF16 => add_words(sums, bytes, weight, begun, |word| {
            f64::from(f32::from_bits(u32::from(u16::from_le_bytes(word)) << 16))
        }),
        FloatDtype::F16 => {
            let mut bits = [0u16; LANES];
            let bits = &mut bits[..sums.len()];
            for (bits, word) in bits.iter_mut().zip(bytes.as_chunks().0) {
                *bits = u16::from_le_bytes(*word);
            }
            bits.reinterpret_cast::<f16>().convert_to_f32_slice(narrow);
            if begun {
                for (sum, &value) in sums.iter_mut().zip(narrow.iter()) {
                    *sum += weight * f64::from(value);
                }
            } else {
                for (sum, &value) in sums.iter_mut().zip(narrow.iter()) {
                    *sum = weight * f64::from(value);
                }
            }
        }
    }
}

#[inline(always)]
fn add_words<const N: usize>(
    sums: &mut [f64],
    bytes: &[u8],
    weight: f64,
    begun: bool,
    widen: impl Fn([u8; N]) -> f64,
) {
    if begun {
        for (sum, word) in sums.iter_mut().zip(bytes.as_chunks().0) {
            *sum += weight * widen(*word);
        }
    } else {
        for (sum, word) in sums.iter_mut().zip(bytes.as_chunks().0) {
            *sum = weight * widen(*word);
        }
    }
}

/// Rounds at most [`LANES`] values into `out` and counts those that became infinite. `narrow` is scratch of the same
/// length.
#[inline(always)]
pub(crate) fn encode(values: &[f64], dtype: FloatDtype, out: &mut [u8], narrow: &mut [f32]) -> u64 {
    match dtype {
        FloatDtype::F64 => {
            for (out, value) in out.as_chunks_mut().0.iter_mut().zip(values) {
                *out = value.to_le_bytes();
            }
            count_non_finite(values)
        }
        FloatDtype::F32 => {
            let mut overflow = 0u32;
            for (out, &value) in out.as_chunks_mut().0.iter_mut().zip(values) {
                let value = value as f32;
                *out = value.to_le_bytes();
                overflow += u32::from(!value.is_finite());
            }
            u64::from(overflow)
        }
        FloatDtype::BF16 => {
            let mut overflow = 0u32;
            for (out, &value) in out.as_chunks_mut().0.iter_mut().zip(values) {
                let bits = round_to_odd(value).to_bits();
                let rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
                *out = (rounded as u16).to_le_bytes();
                overflow += u32::from(rounded & 0x7f80 == 0x7f80);
            }
            u64::from(overflow)
        }
        FloatDtype::F16 => {
            for (narrow, &value) in narrow.iter_mut().zip(values) {
                *narrow = round_to_odd(value);
            }
            let mut bits = [0u16; LANES];
            let bits = &mut bits[..values.len()];
            bits.reinterpret_cast_mut::<f16>().convert_from_f32_slice(narrow);
            let mut overflow = 0u32;
            for (out, &bits) in out.as_chunks_mut().0.iter_mut().zip(bits.iter()) {
                *out = bits.to_le_bytes();
                overflow += u32::from(bits & 0x7c00 == 0x7c00);
            }
            u64::from(overflow)
        }
    }
}

/// f64 → f32 with the last bit set whenever something was cut off (Boldo and Melquiond 2008, "Emulation of FMA and
/// correctly rounded sums"). A second rounding, to 16 bits, is then the same as rounding once.
#[inline(always)]
fn round_to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    let back = f64::from(nearest);
    let bits = nearest.to_bits();
    let away = u32::from(back.abs() > value.abs());
    let inexact = u32::from(back != value);
    f32::from_bits((bits - away) | inexact)
}

/// The f64 values of stored floats.
pub(crate) fn decode_into(dtype: FloatDtype, bytes: &[u8], out: &mut Vec<f64>) {
    out.clear();
    out.resize(bytes.len() / dtype.size(), 0.0);
    let mut narrow = [0.0f32; LANES];
    for (bytes, out) in bytes.chunks(LANES * dtype.size()).zip(out.chunks_mut(LANES)) {
        let count = out.len();
        add_bytes(out, dtype, bytes, 1.0, false, &mut narrow[..count]);
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    /// One source of f64 with weight 1, written as `dtype`.
    fn cast(values: &[f64], dtype: FloatDtype) -> Vec<u8> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let mut out = vec![0; values.len() * dtype.size()];
        let source = Source { dtype: FloatDtype::F64, bytes: &bytes, weight: 1.0 };
        assert_eq!(mix(&[source], dtype, &mut out, &mut [0]), 0);
        out
    }

    #[test]
    fn sixteen_bit_results_are_rounded_once() {
        // 1 + 2⁻⁸ is half-way between two bf16; 2⁻³⁰ more must round up, though f32 cannot hold it. The same at 2⁻¹¹ for f16.
        let above = cast(&[1.0 + 2f64.powi(-8) + 2f64.powi(-30)], FloatDtype::BF16);
        assert_eq!(bf16::from_le_bytes([above[0], above[1]]).to_f64(), 1.0 + 2f64.powi(-7));
        let above = cast(&[1.0 + 2f64.powi(-11) + 2f64.powi(-40)], FloatDtype::F16);
        assert_eq!(f16::from_le_bytes([above[0], above[1]]).to_f64(), 1.0 + 2f64.powi(-10));
        let below = cast(&[-1.0 - 3.0 * 2f64.powi(-11) + 2f64.powi(-40)], FloatDtype::F16);
        assert_eq!(f16::from_le_bytes([below[0], below[1]]).to_f64(), -1.0 - 2f64.powi(-10));
    }

    /// Fails unless no neighbour of each 16-bit result is nearer to the value, or as near with an even last bit.
    /// (`f16::from_f64` is no judge: it rounds by way of f32.)
    fn expect_nearest(values: &[f64], dtype: FloatDtype, decode: impl Fn(u16) -> f64) {
        for (&value, bytes) in values.iter().zip(cast(values, dtype).as_chunks().0) {
            let bits = u16::from_le_bytes(*bytes);
            let distance = (decode(bits) - value).abs();
            for neighbour in [bits.wrapping_sub(1), bits + 1] {
                let other = (decode(neighbour) - value).abs();
                let nearest = distance < other || (distance == other && bits % 2 == 0);
                assert!(nearest || other.is_nan(), "{value} became {bits:#x} in {dtype}");
            }
        }
    }

    #[test]
    fn casts_to_sixteen_bits_take_the_nearest_value() {
        // A multiplicative walk through 3000 values of both signs, from 1e-7 (subnormal in f16) to 6e4; with the
        // half-way points that follow from cutting some of them to few bits.
        let walk =
            (0..3000).map(|i| (1e-7 * 1.009_f64.powi(i)).min(6e4) * if i % 3 == 0 { -1.0 } else { 1.0 });
        let cut = |value: f64, bits: u32| f64::from_bits(value.to_bits() >> (52 - bits) << (52 - bits));
        let values: Vec<f64> = walk.flat_map(|value| [value, cut(value, 8), cut(value, 11)]).collect();
        expect_nearest(&values, FloatDtype::F16, |bits| f16::from_bits(bits).to_f64());
        expect_nearest(&values, FloatDtype::BF16, |bits| bf16::from_bits(bits).to_f64());
    }
}
