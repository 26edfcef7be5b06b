//! Which of two batches did this come from? The logit of the answer is log ρ.

use super::adam::Adam;

/// log(1 + e^x), finite at any x.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

/// `E_μ[log(1 + e^−d)] + E_ν[log(1 + e^d)]`, each mean over its own batch: pooled means would shift d by log(n_π/n_ref).
///
/// Least at d = log(μ/ν), where it is `2·log 2 − 2·JSD(μ, ν)`; `2·log 2 = 1.386294` is what d = 0 gets.
///
/// # Shapes
/// One entry for each cell. `policy` and `reference` are frequencies.
///
/// # Units
/// Nats.
///
/// # Panics
/// If the lengths differ.
///
/// # Source
/// Laidlaw, Singhal, Dragan 2025, section 5, <https://arxiv.org/abs/2403.03185>.
pub fn discriminator_loss(logits: &[f64], policy: &[f64], reference: &[f64]) -> f64 {
    assert_eq!((policy.len(), reference.len()), (logits.len(), logits.len()), "one logit for each cell");
    let cells = logits.iter().zip(policy).zip(reference);
    cells.map(|((d, p), q)| p * softplus(-d) + q * softplus(*d)).sum()
}

/// Its gradient with respect to the logits: `−μ·σ(−d) + ν·σ(d)`.
///
/// # Shapes
/// As [`discriminator_loss`]. → one entry for each cell.
///
/// # Panics
/// If the lengths differ.
pub fn discriminator_gradient(logits: &[f64], policy: &[f64], reference: &[f64]) -> Vec<f64> {
    assert_eq!((policy.len(), reference.len()), (logits.len(), logits.len()), "one logit for each cell");
    let cells = logits.iter().zip(policy).zip(reference);
    cells.map(|((d, p), q)| q * sigmoid(*d) - p * sigmoid(-d)).collect()
}

/// A logit for each cell, trained by Adam. It keeps what it learned from one pair of batches to the next.
#[derive(Clone, Debug)]
pub struct Discriminator {
    logits: Vec<f64>,
    adam: Adam,
}

impl Discriminator {
    /// One that has learned nothing: every logit 0.
    pub fn new(cells: usize, learning_rate: f64) -> Self {
        Self { logits: vec![0.0; cells], adam: Adam::new(cells, learning_rate) }
    }

    /// Adam's steps on one pair of batches, given as frequencies of the cells. → the loss after them.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn fit(&mut self, policy: &[f64], reference: &[f64], steps: usize) -> f64 {
        for _ in 0..steps {
            let gradient = discriminator_gradient(&self.logits, policy, reference);
            self.adam.descend(&mut self.logits, &gradient);
        }
        self.loss(policy, reference)
    }

    /// [`discriminator_loss`]; on batches it was not trained on, the honest one.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn loss(&self, policy: &[f64], reference: &[f64]) -> f64 {
        discriminator_loss(&self.logits, policy, reference)
    }

    /// d of each cell.
    pub fn logits(&self) -> &[f64] {
        &self.logits
    }
}
