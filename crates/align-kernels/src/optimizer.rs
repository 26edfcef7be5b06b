//! What an optimizer's step does with every number of a model.

use burn::Tensor;

use crate::plain;

/// The numbers of one AdamW step, bias corrections worked out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// Multiplies the gradient first: normalisation and clipping.
    pub scale: f64,
    /// β₁.
    pub beta_1: f64,
    /// β₂.
    pub beta_2: f64,
    /// ε, added after the second correction.
    pub epsilon: f64,
    /// `η / (1 − β₁ᵗ)`.
    pub rate: f64,
    /// `√(1 − β₂ᵗ)`.
    pub second_correction: f64,
    /// `1 − ηλ`.
    pub decay: f64,
}

/// A parameter and its moments after a step.
#[derive(Clone, Debug)]
pub struct AdamWState {
    /// θ.
    pub parameter: Tensor<1>,
    /// m, the running mean of the gradient.
    pub first: Tensor<1>,
    /// v, the running mean of its square.
    pub second: Tensor<1>,
}

/// One step of AdamW: `m ← β₁m + (1−β₁)g`, `v ← β₂v + (1−β₂)g²`, `θ ← decay·θ − rate·m / (√v / second_correction + ε)` with
/// `g = scale·gradient`.
///
/// On Flex one pass over memory, in place where nothing else holds the tensors.
///
/// # Shapes
/// All `[N]`.
///
/// # Gradient
/// None: everything is untracked.
///
/// # Panics
/// If the lengths differ.
///
/// # Source
/// Loshchilov, Hutter 2019, algorithm 2, <https://arxiv.org/abs/1711.05101>.
pub fn adamw(state: AdamWState, gradient: Tensor<1>, step: &AdamWStep) -> AdamWState {
    let n = gradient.dims();
    let AdamWState { parameter, first, second } = &state;
    assert!(
        [parameter, first, second].iter().all(|tensor| tensor.dims() == n),
        "adamw: parameter {:?}, moments {:?} and {:?} and gradient {n:?} must have one length",
        parameter.dims(),
        first.dims(),
        second.dims()
    );
    #[cfg(feature = "flex")]
    if [parameter, first, second, &gradient]
        .into_iter()
        .all(|x| crate::device::is_fused(x) && !x.is_autodiff())
    {
        return crate::flex::adamw(state, gradient, step);
    }
    plain::adamw(state, gradient, step)
}

/// `a·x + b·y`, as in BLAS: on Flex one pass over memory, in place where nothing else holds x.
///
/// # Shapes
/// Both `[N]`.
///
/// # Gradient
/// None: everything is untracked.
///
/// # Panics
/// If the lengths differ.
pub fn axpby(a: f64, x: Tensor<1>, b: f64, y: &Tensor<1>) -> Tensor<1> {
    assert_eq!(x.dims(), y.dims(), "axpby: x and y must have one length");
    #[cfg(feature = "flex")]
    if [&x, y].into_iter().all(|tensor| crate::device::is_fused(tensor) && !tensor.is_autodiff()) {
        return crate::flex::axpby(a, x, b, y);
    }
    plain::axpby(a, x, b, y)
}

/// `Σ x²` of each tensor: the squared norms that clipping wants.
///
/// Summed in f32 within blocks of fixed size and in f64 across them on Flex, so that the result does not depend on the number
/// of threads.
///
/// # Shapes
/// `[N]` each, of any lengths.
pub fn square_sums(tensors: &[&Tensor<1>]) -> Vec<f64> {
    #[cfg(feature = "flex")]
    if tensors.iter().all(|tensor| crate::device::is_fused(tensor) && !tensor.is_autodiff()) {
        return tensors.iter().map(|tensor| crate::flex::square_sum(tensor)).collect();
    }
    plain::square_sums(tensors)
}
