//! Which tensors the fused kernels serve.

use burn::Tensor;

/// Whether the kernels of this crate serve `tensor`: it lies on the Flex device, with or without gradients, in f32.
#[cfg(feature = "flex")]
pub(crate) fn is_fused<const D: usize>(tensor: &Tensor<D>) -> bool {
    use burn::tensor::{DType, Device};
    tensor.dtype() == DType::F32 && tensor.device() == Device::flex()
}

/// Whether the kernels of this crate serve `tensor`: none do in this build.
#[cfg(not(feature = "flex"))]
pub(crate) fn is_fused<const D: usize>(_tensor: &Tensor<D>) -> bool {
    false
}
