//! The kernels for Burn's Flex device, one file an operation.
//!
//! Every tensor that enters here is f32. [`KernelOps`] routes a call to the kernel itself or, on an autodiff device, to the
//! kernel with its backward pass recorded; both live in the operation's file.

mod activation;
mod attention;
mod attention_backward;
mod buffer;
mod cache_attention;
mod few_rows;
mod lanes;
mod linear;
mod log_probs;
mod norm;
mod optimizer;
mod rotary;

use std::sync::Arc;

use burn::Tensor;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{Bool, Int};

use crate::{AttentionOptions, HeadOptions, Rotation, TokenLogProbs, WeightLayout};

pub(crate) use activation::Activation;
pub(crate) use cache_attention::cache_attention;
pub(crate) use linear::linear;
pub(crate) use optimizer::{adamw, axpby, square_sum};

use attention::View;
use log_probs::Head;
use norm::Norm;

/// A tensor of an autodiff device.
type Recorded<C> = FloatTensor<Autodiff<Flex, C>>;

/// The fused operations, as a backend provides them.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait KernelOps: Backend {
    /// `activation(gate)·up`.
    fn gated(gate: FloatTensor<Self>, up: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self>;

    /// `activation(x)`.
    fn activate(x: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self>;

    /// Root-mean-square or layer normalisation over the last dimension.
    fn normalise(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        norm: Norm,
    ) -> FloatTensor<Self>;

    /// Product with a weight matrix.
    fn project(x: FloatTensor<Self>, weight: FloatTensor<Self>, layout: WeightLayout) -> FloatTensor<Self>;

    /// Elementwise sum.
    fn sum_of_two(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Rotary embedding; the angles are constants.
    fn rotate(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Attention over whole sequences.
    fn attend(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        view: View,
    ) -> FloatTensor<Self>;

    /// Log-probabilities of the targets in `head`, and entropies, which are constants.
    fn score(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        head: Head,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

impl KernelOps for Flex {
    fn gated(gate: FloatTensor<Self>, up: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        activation::gated(gate, up, activation)
    }

    fn activate(x: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        activation::activate(x, activation)
    }

    fn normalise(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        norm: Norm,
    ) -> FloatTensor<Self> {
        norm::normalise(x, weight, bias, norm)
    }

    fn project(x: FloatTensor<Self>, weight: FloatTensor<Self>, layout: WeightLayout) -> FloatTensor<Self> {
        linear::project(x, weight, layout)
    }

    fn sum_of_two(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        activation::add(a, b)
    }

    fn rotate(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        rotary::rotate(x, cos, sin)
    }

    fn attend(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        view: View,
    ) -> FloatTensor<Self> {
        attention::attend(q, k, v, &view).0
    }

    fn score(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        head: Head,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let scores = log_probs::score(hidden, weight, bias, &head, false);
        (scores.log_probs, scores.entropies)
    }
}

impl<C: CheckpointStrategy> KernelOps for Autodiff<Flex, C> {
    fn gated(gate: FloatTensor<Self>, up: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        activation::gated_recorded::<C>(gate, up, activation)
    }

    fn activate(x: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        activation::activate_recorded::<C>(x, activation)
    }

    fn normalise(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        norm: Norm,
    ) -> FloatTensor<Self> {
        norm::normalise_recorded::<C>(x, weight, bias, norm)
    }

    fn project(x: FloatTensor<Self>, weight: FloatTensor<Self>, layout: WeightLayout) -> FloatTensor<Self> {
        linear::project_recorded::<C>(x, weight, layout)
    }

    fn sum_of_two(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        activation::add_recorded::<C>(a, b)
    }

    fn rotate(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        rotary::rotate_recorded::<C>(x, cos, sin)
    }

    fn attend(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        view: View,
    ) -> FloatTensor<Self> {
        attention_backward::attend_recorded::<C>(q, k, v, view)
    }

    fn score(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        head: Head,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        log_probs::score_recorded::<C>(hidden, weight, bias, head)
    }
}

pub(crate) fn gated<const D: usize>(gate: Tensor<D>, up: Tensor<D>, activation: Activation) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as KernelOps>::gated(
        gate.into_dispatch(),
        up.into_dispatch(),
        activation,
    ))
}

pub(crate) fn add<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as KernelOps>::sum_of_two(a.into_dispatch(), b.into_dispatch()))
}

pub(crate) fn activate<const D: usize>(x: Tensor<D>, activation: Activation) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as KernelOps>::activate(x.into_dispatch(), activation))
}

pub(crate) fn rms_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    epsilon: f64,
    offset: f64,
) -> Tensor<D> {
    let norm = Norm { centred: false, epsilon: epsilon as f32, offset: offset as f32 };
    normalise(x, weight, None, norm)
}

pub(crate) fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Option<Tensor<1>>,
    epsilon: f64,
) -> Tensor<D> {
    let norm = Norm { centred: true, epsilon: epsilon as f32, offset: 0.0 };
    normalise(x, weight, bias, norm)
}

fn normalise<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Option<Tensor<1>>,
    norm: Norm,
) -> Tensor<D> {
    let bias = or_zeros(bias, &weight);
    Tensor::from_dispatch(<Dispatch as KernelOps>::normalise(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        norm,
    ))
}

pub(crate) fn rope(x: Tensor<4>, rotation: &Rotation) -> Tensor<4> {
    let (cos, sin) = (rotation.cos.clone().into_dispatch(), rotation.sin.clone().into_dispatch());
    Tensor::from_dispatch(<Dispatch as KernelOps>::rotate(x.into_dispatch(), cos, sin))
}

pub(crate) fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    mask: Option<&Tensor<2, Bool>>,
    options: &AttentionOptions,
) -> Tensor<4> {
    let view = View { options: *options, mask: mask.map(host_mask) };
    let (q, k, v) = (q.into_dispatch(), k.into_dispatch(), v.into_dispatch());
    Tensor::from_dispatch(<Dispatch as KernelOps>::attend(q, k, v, view))
}

pub(crate) fn token_log_probs(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    targets: Tensor<1, Int>,
    options: &HeadOptions,
) -> TokenLogProbs {
    let v = weight.dims()[0];
    let targets: Vec<usize> = targets.into_data().iter::<i64>().map(|target| checked(target, v)).collect();
    let head = Head { targets: targets.into(), options: *options };
    let bias = bias.unwrap_or_else(|| Tensor::zeros([v], &weight.device().without_autodiff()));
    let (log_probs, entropies) = <Dispatch as KernelOps>::score(
        hidden.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        head,
    );
    TokenLogProbs {
        log_probs: Tensor::from_dispatch(log_probs),
        entropies: Tensor::<1>::from_dispatch(entropies).without_autodiff(),
    }
}

fn checked(target: i64, v: usize) -> usize {
    match usize::try_from(target) {
        Ok(target) if target < v => target,
        _ => panic!("token_log_probs: target {target} is outside the vocabulary of {v}; use 0 and a mask"),
    }
}

fn or_zeros(bias: Option<Tensor<1>>, weight: &Tensor<1>) -> Tensor<1> {
    bias.unwrap_or_else(|| Tensor::zeros(weight.dims(), &weight.device().without_autodiff()))
}

fn host_mask(mask: &Tensor<2, Bool>) -> Arc<[bool]> {
    mask.to_data().iter::<bool>().collect()
}
