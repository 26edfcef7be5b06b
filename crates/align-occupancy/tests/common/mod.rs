//! What the suites share.
#![allow(dead_code)]

use align_occupancy::Occupancy;

/// Equal within an absolute tolerance, entry by entry.
#[track_caller]
pub(crate) fn assert_close(found: impl AsRef<[f64]>, expected: impl AsRef<[f64]>, tolerance: f64) {
    let (found, expected) = (found.as_ref(), expected.as_ref());
    assert_eq!(found.len(), expected.len(), "{found:?} vs {expected:?}");
    for (index, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= tolerance, "entry {index}: {f} vs {e}, in {found:?} vs {expected:?}");
    }
}

pub(crate) fn occupancy(cells: &[f64]) -> Occupancy {
    Occupancy::new(cells.to_vec()).expect("a distribution")
}

/// Five cells: a reference, a policy, a proxy and a gold reward. The numbers asserted of them were computed apart from
/// this code, to nine digits.
pub(crate) struct Five {
    pub(crate) nu: Occupancy,
    pub(crate) mu: Occupancy,
    pub(crate) gold: Vec<f64>,
    pub(crate) proxy: Vec<f64>,
}

pub(crate) fn five() -> Five {
    Five {
        nu: occupancy(&[0.1, 0.2, 0.3, 0.25, 0.15]),
        mu: occupancy(&[0.2, 0.15, 0.45, 0.1, 0.1]),
        gold: vec![1.0, 0.0, 2.0, -1.0, 0.5],
        proxy: vec![1.2, -0.3, 1.5, -0.8, 2.0],
    }
}

/// Printed to nine digits.
pub(crate) const PRINTED: f64 = 1e-8;
