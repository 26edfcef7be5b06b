//! Closeness that says where it failed and by how much.

use burn::tensor::Tensor;

/// Something that can be read as a list of numbers.
pub trait Values {
    /// The numbers, row by row.
    fn values(&self) -> Vec<f64>;
}

impl Values for f64 {
    fn values(&self) -> Vec<f64> {
        vec![*self]
    }
}

impl Values for f32 {
    fn values(&self) -> Vec<f64> {
        vec![f64::from(*self)]
    }
}

impl<T: Values> Values for [T] {
    fn values(&self) -> Vec<f64> {
        self.iter().flat_map(Values::values).collect()
    }
}

impl<T: Values, const N: usize> Values for [T; N] {
    fn values(&self) -> Vec<f64> {
        self.as_slice().values()
    }
}

impl<T: Values> Values for Vec<T> {
    fn values(&self) -> Vec<f64> {
        self.as_slice().values()
    }
}

impl<T: Values + ?Sized> Values for &T {
    fn values(&self) -> Vec<f64> {
        (**self).values()
    }
}

impl<const D: usize> Values for Tensor<D> {
    fn values(&self) -> Vec<f64> {
        self.to_data().iter::<f64>().collect()
    }
}

/// Panics unless every number is within `tolerance` of the expected one, absolutely; names the first that is not, both
/// values, the error and the tolerance. NaN is close to nothing; equal infinities are close.
///
/// State the reason of the tolerance beside the call.
///
/// # Panics
/// If the lengths differ or a number is too far off.
#[track_caller]
pub fn assert_close(found: impl Values, expected: impl Values, tolerance: f64) {
    compare(&found.values(), &expected.values(), |_| tolerance);
}

/// [`assert_close`] with a tolerance of `absolute + relative · |expected|`, for values of different sizes.
///
/// # Panics
/// If the lengths differ or a number is too far off.
#[track_caller]
pub fn assert_all_close(found: impl Values, expected: impl Values, relative: f64, absolute: f64) {
    compare(&found.values(), &expected.values(), |expected| absolute + relative * expected.abs());
}

#[track_caller]
fn compare(found: &[f64], expected: &[f64], tolerance: impl Fn(f64) -> f64) {
    assert_eq!(found.len(), expected.len(), "as many numbers as expected: {found:?} and {expected:?}");
    for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let (error, tolerance) = ((found - expected).abs(), tolerance(expected));
        // Written as "not within", so that NaN fails.
        let close = found == expected || error <= tolerance;
        assert!(
            close,
            "at index {index}: found {found}, expected {expected}, error {error:e}, tolerance {tolerance:e}"
        );
    }
}
