//! The arithmetic of a soup on raw little-endian tensors: Σ_k w_k x_k in f64, cast once.
//!
//! Modules and checkpoint folders go through the same function, so their soups agree bit for bit.

use std::fmt;
use std::str::FromStr;

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};
use serde::{Deserialize, Serialize};

use crate::error::{SoupError, WeightError};
use crate::weights::Weights;

/// Values that are summed at once: their f64 accumulators stay in the first-level cache.
const LANES: usize = 1024;

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
            add_scaled(&mut mean, vector.iter().copied(), weight, begun);
            begun = true;
        }
    }
    Ok(mean)
}

/// `sum ← weight · values`, or `sum ← sum + weight · values` once the sum has begun. The first term is stored and not
/// added to zero, so that a weight of 1 keeps even the sign of −0. Returns how many values are not finite.
#[inline(always)]
fn add_scaled(sum: &mut [f64], values: impl Iterator<Item = f64>, weight: f64, begun: bool) -> u64 {
    let mut bad = 0u64;
    if begun {
        for (sum, value) in sum.iter_mut().zip(values) {
            *sum += weight * value;
            bad += u64::from(!value.is_finite());
        }
    } else {
        for (sum, value) in sum.iter_mut().zip(values) {
            *sum = weight * value;
            bad += u64::from(!value.is_finite());
        }
    }
    bad
}

/// One ingredient's share of a tensor.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) dtype: FloatDtype,
    pub(crate) bytes: &'a [u8],
    pub(crate) weight: f64,
}

/// Writes Σ_k w_k x_k into `out`, counts each source's values that are not finite into `non_finite`, and returns how
/// many finite means became infinite in `dtype`.
///
/// # Panics
/// If the lengths do not describe the same number of values.
pub(crate) fn mix(sources: &[Source<'_>], dtype: FloatDtype, out: &mut [u8], non_finite: &mut [u64]) -> u64 {
    let count = out.len() / dtype.size();
    for source in sources {
        assert_eq!(source.bytes.len(), count * source.dtype.size(), "mix: sources of different lengths");
    }
    // Without the dispatch the compiler may only use the oldest vector instructions of the platform.
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || mix_lanes(sources, dtype, out, non_finite),
    )
}

#[inline(always)]
fn mix_lanes(sources: &[Source<'_>], dtype: FloatDtype, out: &mut [u8], non_finite: &mut [u64]) -> u64 {
    let mut sums = [0.0f64; LANES];
    let mut scratch = [0.0f32; LANES];
    let mut overflow = 0;
    for (block, out) in out.chunks_mut(LANES * dtype.size()).enumerate() {
        let count = out.len() / dtype.size();
        let sums = &mut sums[..count];
        let mut begun = false;
        for (source, bad) in sources.iter().zip(non_finite.iter_mut()) {
            let size = source.dtype.size();
            let start = block * LANES * size;
            let bytes = &source.bytes[start..start + count * size];
            // A weight of zero is read for its values that are not finite, and left out of the sum.
            let mut unused = [0.0f64; LANES];
            let (target, begun_here) =
                if source.weight == 0.0 { (&mut unused[..count], false) } else { (&mut *sums, begun) };
            *bad += add_bytes(target, source.dtype, bytes, source.weight, begun_here, &mut scratch[..count]);
            begun |= source.weight != 0.0;
        }
        overflow += encode(sums, dtype, out, &mut scratch[..count]);
    }
    overflow
}

#[inline(always)]
fn add_bytes(
    sum: &mut [f64],
    dtype: FloatDtype,
    bytes: &[u8],
    weight: f64,
    begun: bool,
    scratch: &mut [f32],
) -> u64 {
    match dtype {
        FloatDtype::F64 => add_scaled(sum, words(bytes).map(f64::from_le_bytes), weight, begun),
        FloatDtype::F32 => add_scaled(sum, words(bytes).map(|w| f64::from(f32::from_le_bytes(w))), weight, begun),
        FloatDtype::BF16 => add_scaled(
            sum,
            words(bytes).map(|w| f64::from(f32::from_bits(u32::from(u16::from_le_bytes(w)) << 16))),
            weight,
            begun,
        ),
        FloatDtype::F16 => {
            let mut bits = [0u16; LANES];
            let bits = &mut bits[..sum.len()];
            for (bits, word) in bits.iter_mut().zip(words(bytes)) {
                *bits = u16::from_le_bytes(word);
            }
            bits.reinterpret_cast::<f16>().convert_to_f32_slice(scratch);
            add_scaled(sum, scratch.iter().map(|&value| f64::from(value)), weight, begun)
        }
    }
}

#[inline(always)]
fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}

#[inline(always)]
fn encode(values: &[f64], dtype: FloatDtype, out: &mut [u8], scratch: &mut [f32]) -> u64 {
    let mut overflow = 0u64;
    match dtype {
        FloatDtype::F64 => {
            for (out, &value) in out.as_chunks_mut::<8>().0.iter_mut().zip(values) {
                *out = value.to_le_bytes();
                overflow += u64::from(!value.is_finite());
            }
        }
        FloatDtype::F32 => {
            for (out, &value) in out.as_chunks_mut::<4>().0.iter_mut().zip(values) {
                let value = value as f32;
                *out = value.to_le_bytes();
                overflow += u64::from(!value.is_finite());
            }
        }
        FloatDtype::BF16 => {
            for (out, &value) in out.as_chunks_mut::<2>().0.iter_mut().zip(values) {
                let bits = round_to_odd(value).to_bits();
                let rounded = ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
                *out = rounded.to_le_bytes();
                overflow += u64::from(rounded & 0x7f80 == 0x7f80);
            }
        }
        FloatDtype::F16 => {
            for (scratch, &value) in scratch.iter_mut().zip(values) {
                *scratch = round_to_odd(value);
            }
            let mut bits = [0u16; LANES];
            let bits = &mut bits[..values.len()];
            bits.reinterpret_cast_mut::<f16>().convert_from_f32_slice(scratch);
            for (out, &bits) in out.as_chunks_mut::<2>().0.iter_mut().zip(bits.iter()) {
                *out = bits.to_le_bytes();
                overflow += u64::from(bits & 0x7c00 == 0x7c00);
            }
        }
    }
    overflow
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

/// The f64 value of a stored float.
pub(crate) fn decode_into(dtype: FloatDtype, bytes: &[u8], out: &mut Vec<f64>) {
    out.clear();
    match dtype {
        FloatDtype::F64 => out.extend(words(bytes).map(f64::from_le_bytes)),
        FloatDtype::F32 => out.extend(words(bytes).map(|w| f64::from(f32::from_le_bytes(w)))),
        FloatDtype::F16 => out.extend(words(bytes).map(|w| f16::from_le_bytes(w).to_f64())),
        FloatDtype::BF16 => out.extend(words(bytes).map(|w| bf16::from_le_bytes(w).to_f64())),
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn casts_agree_with_half_over_many_magnitudes() {
        // A multiplicative walk through 3000 values of both signs, from 1e-7 to 6e4.
        let values: Vec<f64> =
            (0..3000).map(|i| (1e-7 * 1.009_f64.powi(i)).min(6e4) * if i % 3 == 0 { -1.0 } else { 1.0 }).collect();
        let half: Vec<u8> = values.iter().flat_map(|&value| f16::from_f64(value).to_le_bytes()).collect();
        let brain: Vec<u8> = values.iter().flat_map(|&value| bf16::from_f64(value).to_le_bytes()).collect();
        assert_eq!(cast(&values, FloatDtype::F16), half);
        assert_eq!(cast(&values, FloatDtype::BF16), brain);
    }
}
