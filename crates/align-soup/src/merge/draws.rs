//! Random masks by counter: whether a value is kept is a function of seed, tensor, model and position.
//!
//! Number i of a stream is SplitMix64's output at state key + (i+1)·γ. Nothing is advanced, so a mask is the same in
//! whichever order, on however many threads it is drawn, and it is drawn again rather than stored.
//!
//! # Source
//! Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators", OOPSLA.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// 2⁵³: a draw has 53 bits.
const DRAWS: f64 = (1u64 << 53) as f64;
/// The odd integer next to 2⁶⁴/φ.
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// The draws of one tensor of one model.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    key: u64,
}

impl Stream {
    pub(super) fn new(seed: u64, tensor: &str, model: usize) -> Self {
        let mut address = tensor.as_bytes().to_vec();
        address.extend_from_slice(&(model as u64).to_le_bytes());
        Self { key: xxh3_64_with_seed(&address, seed) }
    }

    /// 53 random bits for a position.
    #[inline(always)]
    pub(super) fn bits(self, position: usize) -> u64 {
        let mut z = self.key.wrapping_add((position as u64 + 1).wrapping_mul(GAMMA));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) >> 11
    }
}

/// `stream.bits(i) < threshold(p)` has probability p, rounded up to a multiple of 2⁻⁵³.
#[inline(always)]
pub(super) fn threshold(probability: f64) -> u64 {
    (probability * DRAWS).ceil() as u64
}
