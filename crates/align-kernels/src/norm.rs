//! Normalisation over the last dimension.

use burn::Tensor;

use crate::plain;

/// Scales each row to unit root mean square: `y = x / √(mean(x²) + ε) · (offset + weight)`.
///
/// `offset` is 0 for Llama, Mistral and Qwen, 1 for Gemma, whose checkpoints store the weight's distance from one.
///
/// # Shapes
/// `x`: `[.., E]`, `weight`: `[E]`. Also for `[B, H, T, D]` with `weight` `[D]` (QK-norm).
///
/// # Gradient
/// Through both.
///
/// # Panics
/// If the last dimension of `x` is not the length of `weight`.
///
/// # Source
/// Zhang & Sennrich 2019, eq. 4, <https://arxiv.org/abs/1910.07467>.
pub fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, epsilon: f64, offset: f64) -> Tensor<D> {
    assert_width("rms_norm", &x, &weight);
    #[cfg(feature = "flex")]
    if crate::device::is_fused(&x) {
        return crate::flex::rms_norm(x, weight, epsilon, offset);
    }
    plain::rms_norm(x, weight, epsilon, offset)
}

/// Centres each row and scales it to unit variance: `y = (x − mean) / √(variance + ε) · weight + bias`.
///
/// The variance is the biased one, over `E`, as in PyTorch.
///
/// # Shapes
/// `x`: `[.., E]`, `weight` and `bias`: `[E]`.
///
/// # Gradient
/// Through all three.
///
/// # Panics
/// If the last dimension of `x` is not the length of `weight` or of `bias`.
///
/// # Source
/// Ba et al. 2016, <https://arxiv.org/abs/1607.06450>.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Option<Tensor<1>>,
    epsilon: f64,
) -> Tensor<D> {
    assert_width("layer_norm", &x, &weight);
    if let Some(bias) = &bias {
        assert_width("layer_norm", &x, bias);
    }
    #[cfg(feature = "flex")]
    if crate::device::is_fused(&x) {
        return crate::flex::layer_norm(x, weight, bias, epsilon);
    }
    plain::layer_norm(x, weight, bias, epsilon)
}

fn assert_width<const D: usize>(name: &str, x: &Tensor<D>, weight: &Tensor<1>) {
    let (x, [width]) = (x.dims(), weight.dims());
    assert_eq!(
        x[D - 1],
        width,
        "{name}: x has shape {x:?}, expected a last dimension of {width} as the weight has"
    );
}
