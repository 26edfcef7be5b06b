//! AdamW, for one tensor at a time.
//!
//! Ours rather than Burn's: its state is keyed by parameter ids, which differ in a freshly loaded model, and its record
//! is restored on the process's default device. A test holds the two against each other.

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
        let squared = gradient.clone().square() * ((1.0 - self.beta_2) * scale * scale);
        let scaled = gradient * ((1.0 - self.beta_1) * scale);
        let moments = match moments {
            Some(Moments { first, second, time }) => Moments {
                first: first * self.beta_1 + scaled,
                second: second * self.beta_2 + squared,
                time: time + 1,
            },
            None => Moments { first: scaled, second: squared, time: 1 },
        };
        let time = moments.time as f64;
        let first_correction = 1.0 - self.beta_1.powf(time);
        let second_correction = (1.0 - self.beta_2.powf(time)).sqrt();
        let scale_of_gradient = moments.second.clone().sqrt() / second_correction + self.epsilon;
        let direction = moments.first.clone() / scale_of_gradient * (self.learning_rate / first_correction);
        let decay = 1.0 - self.learning_rate * self.weight_decay;
        let decayed = if decay == 1.0 { parameter } else { parameter * decay };
        (decayed - direction, moments)
    }
}
