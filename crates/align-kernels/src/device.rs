//! Which tensors the fused kernels serve.

use burn::Tensor;

/// Whether the kernels of this crate serve `tensor`: it lies on the Flex device, with or without gradients, in f32.
///
/// Otherwise every operation is the composition in [`plain`](crate::plain).
#[cfg(feature = "flex")]
pub fn is_fused<const D: usize>(tensor: &Tensor<D>) -> bool {
    use burn::tensor::{DType, Device};
    tensor.dtype() == DType::F32 && tensor.device() == Device::flex()
}

/// Whether the kernels of this crate serve `tensor`: none do in this build, which lacks the feature `flex`.
#[cfg(not(feature = "flex"))]
pub fn is_fused<const D: usize>(_tensor: &Tensor<D>) -> bool {
    false
}
