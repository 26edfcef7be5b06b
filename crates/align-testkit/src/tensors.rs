//! Small tensors written out in a test.

use burn::tensor::{Bool, DType, Tensor, TensorData};

use crate::device;

/// A constant in f32.
pub fn plain<const D: usize>(data: impl Into<TensorData>) -> Tensor<D> {
    Tensor::from_data(data, (&device(), DType::F32))
}

/// A constant in f64, for values checked to more digits than f32 has.
pub fn double<const D: usize>(data: impl Into<TensorData>) -> Tensor<D> {
    Tensor::from_data(data, (&device(), DType::F64))
}

/// A leaf in f32 that records gradients.
pub fn tracked<const D: usize>(data: impl Into<TensorData>) -> Tensor<D> {
    plain(data).autodiff().require_grad()
}

/// A leaf in f64 that records gradients.
pub fn tracked_double<const D: usize>(data: impl Into<TensorData>) -> Tensor<D> {
    double(data).autodiff().require_grad()
}

/// A mask; true counts.
pub fn mask(data: impl Into<TensorData>) -> Tensor<2, Bool> {
    Tensor::from_data(data, &device())
}

/// A mask under which everything counts.
pub fn all_true(rows: usize, width: usize) -> Tensor<2, Bool> {
    Tensor::full([rows, width], true, &device())
}

/// The gradient of a loss by a leaf, row by row; zeros if the loss does not depend on it.
///
/// Consumes the recorded graph: one call for each forward pass.
///
/// # Panics
/// If nothing was recorded at all.
pub fn gradient<const D: usize>(loss: &Tensor<1>, leaf: &Tensor<D>) -> Vec<f64> {
    let gradients = loss.backward();
    match leaf.grad(&gradients) {
        Some(gradient) => gradient.to_data().iter::<f64>().collect(),
        None => vec![0.0; leaf.shape().num_elements()],
    }
}
