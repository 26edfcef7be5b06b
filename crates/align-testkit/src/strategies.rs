//! Proptest strategies for what the algorithms are fed with.

use proptest::collection::vec;
use proptest::prelude::*;

/// Normalised log-probabilities of `v` outcomes, each within about 8 nats of the likeliest.
pub fn log_distribution(v: usize) -> impl Strategy<Value = Vec<f64>> {
    vec(-4.0..4.0f64, v).prop_map(|logits| {
        let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_sum = highest + logits.iter().map(|logit| (logit - highest).exp()).sum::<f64>().ln();
        logits.iter().map(|logit| logit - log_sum).collect()
    })
}

/// Two distributions over the same outcomes.
pub fn two_log_distributions(v: usize) -> impl Strategy<Value = (Vec<f64>, Vec<f64>)> {
    (log_distribution(v), log_distribution(v))
}

/// A `[rows, width]` matrix of numbers in ±`limit`, row by row.
pub fn matrix(rows: usize, width: usize, limit: f64) -> impl Strategy<Value = Vec<Vec<f64>>> {
    vec(vec(-limit..limit, width), rows)
}

/// A `[rows, width]` mask with holes anywhere, also empty rows.
pub fn any_mask(rows: usize, width: usize) -> impl Strategy<Value = Vec<Vec<bool>>> {
    vec(vec(any::<bool>(), width), rows)
}

/// A `[rows, width]` mask of right-padded responses: some true, then only false; rows may be empty.
pub fn right_padded_mask(rows: usize, width: usize) -> impl Strategy<Value = Vec<Vec<bool>>> {
    vec(0..=width, rows).prop_map(move |lengths| {
        lengths.iter().map(|&length| (0..width).map(|t| t < length).collect()).collect()
    })
}

/// Token rows of different lengths, none empty.
pub fn ragged_rows(rows: usize, longest: usize, vocab_size: u32) -> impl Strategy<Value = Vec<Vec<u32>>> {
    vec(vec(0..vocab_size, 1..=longest), rows)
}

/// An order of `count` things.
pub fn permutation(count: usize) -> impl Strategy<Value = Vec<usize>> {
    Just((0..count).collect::<Vec<_>>()).prop_shuffle()
}
