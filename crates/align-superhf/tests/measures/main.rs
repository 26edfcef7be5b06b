//! What measures a policy from outside: METEOR, calibration, Elo ratings, and where an answer ends.

mod calibration;
mod elo;
mod meteor;
mod trim;

use std::num::NonZeroUsize;

pub(crate) fn close(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "found {found}, expected {expected} within {tolerance:e}");
}

pub(crate) fn count(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).expect("positive")
}
