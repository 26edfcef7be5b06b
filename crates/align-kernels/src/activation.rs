//! Activations of the feed-forward layers: SwiGLU, GeGLU, GELU and tanh.

use burn::Tensor;

use crate::plain;

/// How GELU's Gaussian distribution function Φ is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approximation {
    /// Φ(x) = (1 + erf(x/√2)) / 2. Hugging Face calls it `gelu`; GPT-NeoX uses it.
    Exact,
    /// Φ(x) ≈ (1 + tanh(√(2/π)·(x + 0.044715·x³))) / 2. Hugging Face calls it `gelu_new` (GPT-2) and
    /// `gelu_pytorch_tanh` (Gemma).
    Tanh,
}

/// The gated unit of Llama's feed-forward layer: `silu(gate)·up` with `silu(x) = x·σ(x)`.
///
/// # Shapes
/// Any, the same for both.
///
/// # Gradient
/// Through both; σ is computed again in the backward pass, so only the inputs are kept.
///
/// # Panics
/// If the shapes differ.
///
/// # Source
/// Shazeer 2020, <https://arxiv.org/abs/2002.05202>.
pub fn swiglu<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    assert_same_shape("swiglu", &gate, &up);
    #[cfg(feature = "flex")]
    if crate::device::is_fused(&gate) {
        return crate::flex::gated(gate, up, crate::flex::Activation::Silu);
    }
    plain::swiglu(gate, up)
}

/// The gated unit of Gemma's feed-forward layer: `gelu(gate)·up` with GELU's tanh approximation.
///
/// # Shapes
/// Any, the same for both.
///
/// # Gradient
/// Through both; only the inputs are kept.
///
/// # Panics
/// If the shapes differ.
///
/// # Source
/// Shazeer 2020, <https://arxiv.org/abs/2002.05202>.
pub fn geglu<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    assert_same_shape("geglu", &gate, &up);
    #[cfg(feature = "flex")]
    if crate::device::is_fused(&gate) {
        return crate::flex::gated(gate, up, crate::flex::Activation::GeluTanh);
    }
    plain::geglu(gate, up)
}

/// `x·Φ(x)` with Φ the distribution function of a standard normal.
///
/// # Shapes
/// Any.
///
/// # Gradient
/// `Φ(x) + x·φ(x)`, of the approximation where one is asked for; only the input is kept.
///
/// # Source
/// Hendrycks & Gimpel 2016, <https://arxiv.org/abs/1606.08415>.
pub fn gelu<const D: usize>(x: Tensor<D>, approximation: Approximation) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if crate::device::is_fused(&x) {
        return crate::flex::activate(x, approximation.into());
    }
    plain::gelu(x, approximation)
}

/// `tanh(x)`: on Flex several times as fast as the tensor's own, which calls the C library for every number.
///
/// # Shapes
/// Any.
///
/// # Gradient
/// `1 − tanh²(x)`; only the input is kept.
pub fn tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if crate::device::is_fused(&x) {
        return crate::flex::activate(x, crate::flex::Activation::Tanh);
    }
    plain::tanh(x)
}

/// `a + b`: the residual connection.
///
/// On Flex on all threads; Burn's own sum runs on one.
///
/// # Shapes
/// Any, the same for both.
///
/// # Gradient
/// Through both.
///
/// # Panics
/// If the shapes differ.
pub fn add<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    assert_same_shape("add", &a, &b);
    #[cfg(feature = "flex")]
    if crate::device::is_fused(&a) && crate::device::is_fused(&b) {
        return crate::flex::add(a, b);
    }
    a + b
}

fn assert_same_shape<const D: usize>(name: &str, gate: &Tensor<D>, up: &Tensor<D>) {
    let (gate, up) = (gate.dims(), up.dims());
    assert_eq!(gate, up, "{name}: gate has shape {gate:?} and up {up:?}, expected the same");
}
