//! The same operations as compositions of plain tensor operations: what every device but Flex runs, and what the tests
//! compare the kernels with.
//!
//! Same names, arguments and results as at the crate's root; the shapes are checked there.

mod attention;
mod log_probs;
mod optimizer;

pub use attention::{attention, cache_attention, hidden_keys};
pub use log_probs::token_log_probs;
pub use optimizer::{adamw, axpby, square_sums};

use burn::Tensor;
use burn::tensor::activation;

use crate::{Approximation, Rotation};

/// See [`swiglu`](crate::swiglu).
pub fn swiglu<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    activation::silu(gate) * up
}

/// See [`geglu`](crate::geglu).
pub fn geglu<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    gelu(gate, Approximation::Tanh) * up
}

/// See [`gelu`](crate::gelu).
pub fn gelu<const D: usize>(x: Tensor<D>, approximation: Approximation) -> Tensor<D> {
    match approximation {
        Approximation::Exact => (x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf().add_scalar(1.0) * x * 0.5,
        Approximation::Tanh => {
            let cube = x.clone() * x.clone() * x.clone() * 0.044715;
            let inner = (x.clone() + cube) * (2.0 / std::f64::consts::PI).sqrt();
            inner.tanh().add_scalar(1.0) * x * 0.5
        }
    }
}

/// See [`tanh`](crate::tanh).
pub fn tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.tanh()
}

/// See [`rms_norm`](crate::rms_norm).
pub fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, epsilon: f64, offset: f64) -> Tensor<D> {
    let size = (x.clone() * x.clone()).mean_dim(D - 1).add_scalar(epsilon).sqrt();
    x / size * weight.add_scalar(offset).unsqueeze()
}

/// See [`layer_norm`](crate::layer_norm).
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Option<Tensor<1>>,
    epsilon: f64,
) -> Tensor<D> {
    let centred = x.clone() - x.mean_dim(D - 1);
    let deviation = (centred.clone() * centred.clone()).mean_dim(D - 1).add_scalar(epsilon).sqrt();
    let y = centred / deviation * weight.unsqueeze();
    match bias {
        Some(bias) => y + bias.unsqueeze(),
        None => y,
    }
}

/// See [`rope`](crate::rope).
pub fn rope(x: Tensor<4>, rotation: &Rotation) -> Tensor<4> {
    let d = x.dims()[3];
    let half = rotation.dims()[2];
    let cos = rotation.cos.clone().unsqueeze_dim::<4>(1);
    let sin = rotation.sin.clone().unsqueeze_dim::<4>(1);
    let first = x.clone().narrow(3, 0, half);
    let second = x.clone().narrow(3, half, half);
    let mut parts =
        vec![first.clone() * cos.clone() - second.clone() * sin.clone(), second * cos + first * sin];
    if 2 * half < d {
        parts.push(x.narrow(3, 2 * half, d - 2 * half));
    }
    Tensor::cat(parts, 3)
}
