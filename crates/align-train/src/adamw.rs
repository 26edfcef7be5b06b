//! AdamW, for one tensor at a time.
//!
//! Ours rather than Burn's: its state is keyed by parameter ids, which differ in a freshly loaded model, and its record
//! is restored on the process's default device. A test holds the two against each other.

use align_kernels::{AdamWState, AdamWStep};
use burn::tensor::Tensor;

/// The rule of one step for one tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// η, schedule included.
    pub learning_rate: f64,
    /// β₁.
    pub beta_1: f64,
    /// β₂.
    pub beta_2: f64,
    /// ε.
    pub epsilon: f64,
    /// λ.
    pub weight_decay: f64,
}

/// What AdamW remembers of one tensor.
#[derive(Clone, Debug)]
pub struct Moments {
    /// m, the running mean of the gradient, `[N]`.
    pub first: Tensor<1>,
    /// v, the running mean of its square, `[N]`.
    pub second: Tensor<1>,
    /// t, how many steps went in.
    pub time: u64,
}

impl AdamW {
    /// One step: `m ← β₁m + (1−β₁)g`, `v ← β₂v + (1−β₂)g²`,
    /// `θ ← (1−ηλ)θ − η · (m / (1−β₁ᵗ)) / (√(v / (1−β₂ᵗ)) + ε)`.
    ///
    /// The gradient is `scale · gradient`: normalisation and clipping ride along without a pass of their own.
    ///
    /// # Shapes
    /// All `[N]`, untracked.
    ///
    /// # Source
    /// Loshchilov, Hutter 2019, algorithm 2, <https://arxiv.org/abs/1711.05101>.
    pub fn update(
        &self,
        parameter: Tensor<1>,
        gradient: Tensor<1>,
        scale: f64,
        moments: Option<Moments>,
    ) -> (Tensor<1>, Moments) {
        let (first, second, time) = match moments {
            Some(Moments { first, second, time }) => (first, second, time + 1),
            None => (gradient.zeros_like(), gradient.zeros_like(), 1),
        };
        let step = AdamWStep {
            scale,
            beta_1: self.beta_1,
            beta_2: self.beta_2,
            epsilon: self.epsilon,
            rate: self.learning_rate / (1.0 - self.beta_1.powf(time as f64)),
            second_correction: (1.0 - self.beta_2.powf(time as f64)).sqrt(),
            decay: 1.0 - self.learning_rate * self.weight_decay,
        };
        let AdamWState { parameter, first, second } =
            align_kernels::adamw(AdamWState { parameter, first, second }, gradient, &step);
        (parameter, Moments { first, second, time })
    }
}
