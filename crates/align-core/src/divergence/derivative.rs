//! f-divergences that descend by their derivative: in the loss, and in the reward of whole responses.

use std::fmt::Debug;

use burn::tensor::Tensor;

use super::{Divergence, clamp_log_ratio, with_gradient_of};

/// A divergence `D_f(π‖μ) = E_μ[f(ρ)]` whose generator has a derivative, `f(1) = f′(1) = 0`.
///
/// Its gradient is `∇D = E_π[f′(ρ) ∇log π]`. With `f′(1) = 0` every draw at which the policies agree pulls nowhere, so the
/// estimate of the gradient has no noise where they are equal.
pub trait FDivergence: Divergence {
    /// `f′(ρ)` with ρ = e^d, as a constant.
    ///
    /// # Shapes
    /// `[B, R]` → `[B, R]`; `[B, 1]` for whole responses.
    fn derivative(&self, log_ratio: Tensor<2>) -> Tensor<2>;
}

impl<F: FDivergence + ?Sized> FDivergence for Box<F> {
    fn derivative(&self, log_ratio: Tensor<2>) -> Tensor<2> {
        (**self).derivative(log_ratio)
    }
}

/// The value of the estimate and the gradient of `stop(f′(ρ))·d`: that of the divergence, on average over draws from π.
pub(super) fn descend<F: FDivergence>(divergence: &F, log_ratio: Tensor<2>) -> Tensor<2> {
    let d = clamp_log_ratio(log_ratio);
    let constant = d.clone().without_autodiff();
    let pull = divergence.derivative(constant.clone()) * d;
    with_gradient_of(divergence.estimate(constant), pull)
}

/// An f-divergence of whole responses for the **reward**, with the divergence's own gradient.
///
/// A response pays `D̂ + f′(ρ) − mean f′`, where D̂ is the mean estimate of the batch. The mean payment is D̂ and the score
/// function makes the rest into `E_π[f′(ρ) ∇log π] = ∇D`. The plain value `f(ρ)/ρ` has that gradient for KL by k1 only.
///
/// # Shapes
/// [`estimate`](Divergence::estimate) takes the whole batch, `[B, 1]`.
///
/// # Source
/// The influence function of `D_f`; for χ² Laidlaw, Singhal, Dragan 2025, section 5, <https://arxiv.org/abs/2403.03185>.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Derivative<F>(pub F);

impl<F: FDivergence> Divergence for Derivative<F> {
    fn estimate(&self, log_ratio: Tensor<2>) -> Tensor<2> {
        let value = mean_everywhere(self.0.estimate(log_ratio.clone()));
        centred(self.0.derivative(log_ratio)) + value
    }

    fn exact(&self, log_p: Tensor<2>, log_q: Tensor<2>) -> Tensor<1> {
        self.0.exact(log_p, log_q)
    }

    fn whole_responses(&self) -> bool {
        true
    }
}

/// `x − mean x`.
pub(super) fn centred(x: Tensor<2>) -> Tensor<2> {
    x.clone() - mean_everywhere(x)
}

fn mean_everywhere(x: Tensor<2>) -> Tensor<2> {
    let shape = x.dims();
    x.mean().reshape([1, 1]).expand(shape)
}
