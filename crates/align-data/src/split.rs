//! Train and held-out rows, so that no prompt stands on both sides.

use sha2::{Digest, Sha256};

/// Rows on two sides.
#[derive(Clone, Debug, PartialEq)]
pub struct Split<T> {
    /// To learn from.
    pub train: Vec<T>,
    /// To be judged on.
    pub held_out: Vec<T>,
}

/// Splits rows by a hash of (seed, prompt): about `held_out` of the prompts go to the second side, with all their rows.
///
/// # Panics
/// When `held_out` is not in [0, 1].
pub fn split_by_prompt<T>(rows: Vec<T>, prompt: impl Fn(&T) -> String, held_out: f64, seed: u64) -> Split<T> {
    let (held_out, train) = rows.into_iter().partition(|row| is_held_out(&prompt(row), held_out, seed));
    Split { train, held_out }
}

/// Whether rows with this key ([`FromRow::key`](crate::rows::FromRow::key)) are held out.
///
/// # Panics
/// When `fraction` is not in [0, 1].
pub fn is_held_out(key: &str, fraction: f64, seed: u64) -> bool {
    assert!((0.0..=1.0).contains(&fraction), "the held-out fraction must be in [0, 1], found {fraction}");
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(key.as_bytes());
    let digest = hash.finalize();
    let mut first = [0u8; 8];
    first.copy_from_slice(&digest[..8]);
    // 53 bits make a number in [0, 1), as exact as f64 is.
    let unit = (u64::from_le_bytes(first) >> 11) as f64 / (1u64 << 53) as f64;
    unit < fraction
}
