//! AdamW and norms of plain operations.

use burn::Tensor;

use crate::{AdamWState, AdamWStep};

/// See [`adamw`](crate::adamw).
pub fn adamw(state: AdamWState, gradient: Tensor<1>, step: &AdamWStep) -> AdamWState {
    let squared = gradient.clone().square() * ((1.0 - step.beta_2) * step.scale * step.scale);
    let scaled = gradient * ((1.0 - step.beta_1) * step.scale);
    let first = state.first * step.beta_1 + scaled;
    let second = state.second * step.beta_2 + squared;
    let size = second.clone().sqrt() / step.second_correction + step.epsilon;
    let direction = first.clone() / size * step.rate;
    let parameter = if step.decay == 1.0 { state.parameter } else { state.parameter * step.decay };
    AdamWState { parameter: parameter - direction, first, second }
}

/// See [`axpby`](crate::axpby).
pub fn axpby(a: f64, x: Tensor<1>, b: f64, y: &Tensor<1>) -> Tensor<1> {
    let scaled = |factor: f64, tensor: Tensor<1>| if factor == 1.0 { tensor } else { tensor * factor };
    scaled(a, x) + scaled(b, y.clone())
}

/// See [`square_sums`](crate::square_sums); one transfer for all of them.
pub fn square_sums(tensors: &[&Tensor<1>]) -> Vec<f64> {
    if tensors.is_empty() {
        return Vec::new();
    }
    let sums = tensors.iter().map(|&tensor| tensor.clone().square().sum()).collect();
    Tensor::<1>::cat(sums, 0).to_data().iter::<f64>().collect()
}
