//! The kernels for Burn's Flex device.

use burn::Tensor;
use burn::tensor::{Bool, Int};

use crate::{Approximation, AttentionOptions, HeadOptions, KeyValueCache, Rotation, TokenLogProbs, plain};

/// An elementwise function of the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// `x·σ(x)`.
    Silu,
    /// GELU with the error function.
    GeluExact,
    /// GELU with the tanh approximation.
    GeluTanh,
}

impl From<Approximation> for Activation {
    fn from(approximation: Approximation) -> Self {
        match approximation {
            Approximation::Exact => Self::GeluExact,
            Approximation::Tanh => Self::GeluTanh,
        }
    }
}

pub(crate) fn gated<const D: usize>(gate: Tensor<D>, up: Tensor<D>, activation: Activation) -> Tensor<D> {
    match activation {
        Activation::Silu => plain::swiglu(gate, up),
        Activation::GeluExact => plain::gelu(gate, Approximation::Exact) * up,
        Activation::GeluTanh => plain::geglu(gate, up),
    }
}

pub(crate) fn activate<const D: usize>(x: Tensor<D>, activation: Activation) -> Tensor<D> {
    match activation {
        Activation::Silu => burn::tensor::activation::silu(x),
        Activation::GeluExact => plain::gelu(x, Approximation::Exact),
        Activation::GeluTanh => plain::gelu(x, Approximation::Tanh),
    }
}

pub(crate) fn rms_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    epsilon: f64,
    offset: f64,
) -> Tensor<D> {
    plain::rms_norm(x, weight, epsilon, offset)
}

pub(crate) fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Option<Tensor<1>>,
    epsilon: f64,
) -> Tensor<D> {
    plain::layer_norm(x, weight, bias, epsilon)
}

pub(crate) fn rope(x: Tensor<4>, rotation: &Rotation) -> Tensor<4> {
    plain::rope(x, rotation)
}

pub(crate) fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    mask: Option<&Tensor<2, Bool>>,
    options: &AttentionOptions,
) -> Tensor<4> {
    plain::attention(q, k, v, mask, options)
}

pub(crate) fn cache_attention(q: Tensor<4>, cache: &KeyValueCache, options: &AttentionOptions) -> Tensor<4> {
    plain::cache_attention(q, cache, options)
}

pub(crate) fn token_log_probs(
    hidden: Tensor<2>,
    head: Tensor<2>,
    bias: Option<Tensor<1>>,
    targets: Tensor<1, Int>,
    options: &HeadOptions,
) -> TokenLogProbs {
    plain::token_log_probs(hidden, head, bias, targets, options)
}
