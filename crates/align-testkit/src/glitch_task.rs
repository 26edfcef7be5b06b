//! The small task on which the claim of reward-model ensembles is checked: twelve independent tokens, some of them traps.
//!
//! Vocabulary 40: 16 common tokens and 24 rare ones ("glitches") of probability 0.001 each. With c the counts of the tokens in a
//! text of twelve, gold is `w·c + cᵀQc/√12`, brought to mean 0 and deviation 1: common tokens have moderate weights, glitches
//! a large negative one. A proxy trained on a thousand pairs sees each glitch some two dozen times, so what it thinks of one is
//! decided by its initial weights.
//!
//! # Source
//! Specification of reward-model ensembles, section 8.1.

use align_core::draws::Purpose;
use align_core::{Completions, Draws, Reward};
use burn::tensor::{Device, Tensor, TensorData};

/// V.
pub const VOCABULARY: usize = 40;
/// How many tokens are common; the rest are glitches.
pub const COMMON: usize = 16;
/// T, tokens of a text.
pub const LENGTH: usize = 12;
/// The probability of each glitch.
const RARE: f64 = 0.001;
/// The weight of a glitch in gold, before it is standardised.
const GLITCH_WEIGHT: f64 = -10.0;
/// Texts that gold is standardised on.
const REFERENCE: u64 = 20_000;

/// A world: what is good in it.
#[derive(Clone, Debug)]
pub struct GlitchTask {
    draws: Draws,
    weights: Vec<f64>,
    interactions: Vec<f64>,
    mean: f64,
    deviation: f64,
}

impl GlitchTask {
    /// The world of a seed.
    pub fn new(seed: u64) -> Self {
        let draws = Draws::new(seed).child(u64::from_le_bytes(*b"glitches"));
        let normal = |which: u64, index: u64| standard_normal(&draws, Purpose::Initialize, which, index);
        let weights = (0..VOCABULARY)
            .map(|token| if token < COMMON { 0.6 * normal(0, token as u64) } else { GLITCH_WEIGHT })
            .collect();
        let half: Vec<f64> = (0..VOCABULARY * VOCABULARY).map(|at| 0.156 * normal(1, at as u64)).collect();
        // The mean of a matrix and its transpose: deviation 0.11 off the diagonal.
        let interactions = (0..VOCABULARY * VOCABULARY)
            .map(|at| (half[at] + half[at % VOCABULARY * VOCABULARY + at / VOCABULARY]) / 2.0)
            .collect();
        let mut task = Self { draws, weights, interactions, mean: 0.0, deviation: 1.0 };
        let raw: Vec<f64> = (0..REFERENCE).map(|index| task.gold(&task.text(u64::MAX, index))).collect();
        task.mean = raw.iter().sum::<f64>() / raw.len() as f64;
        task.deviation =
            (raw.iter().map(|gold| (gold - task.mean).powi(2)).sum::<f64>() / raw.len() as f64).sqrt();
        task
    }

    /// log π_init of each token.
    pub fn log_probabilities() -> Vec<f32> {
        let common = (1.0 - (VOCABULARY - COMMON) as f64 * RARE) / COMMON as f64;
        (0..VOCABULARY).map(|token| if token < COMMON { common } else { RARE }.ln() as f32).collect()
    }

    /// Text number `index` of a set, drawn from π_init.
    pub fn text(&self, set: u64, index: u64) -> Vec<u32> {
        let rare_mass = (VOCABULARY - COMMON) as f64 * RARE;
        (0..LENGTH as u32)
            .map(|position| {
                let u = self.draws.token(Purpose::Synthesize, set, index, 0, position);
                let token = if u < rare_mass {
                    COMMON as f64 + u / RARE
                } else {
                    (u - rare_mass) / (1.0 - rare_mass) * COMMON as f64
                };
                (token as u32).min(if u < rare_mass { VOCABULARY as u32 - 1 } else { COMMON as u32 - 1 })
            })
            .collect()
    }

    /// What was meant: mean 0 and deviation 1 under π_init.
    pub fn gold(&self, text: &[u32]) -> f64 {
        let linear: f64 = text.iter().map(|&token| self.weights[token as usize]).sum();
        let pairs: f64 = text
            .iter()
            .flat_map(|&a| text.iter().map(move |&b| (a as usize, b as usize)))
            .map(|(a, b)| self.interactions[a * VOCABULARY + b])
            .sum();
        (linear + pairs / (LENGTH as f64).sqrt() - self.mean) / self.deviation
    }

    /// Pairs labelled by gold, the better text first.
    pub fn pairs(&self, count: usize) -> Vec<[Vec<u32>; 2]> {
        (0..count as u64)
            .map(|index| {
                let [a, b] = [0, 1].map(|set| self.text(set, index));
                if self.gold(&a) > self.gold(&b) { [a, b] } else { [b, a] }
            })
            .collect()
    }

    /// Token counts divided by √12, `[B, 40]`: what a proxy looks at.
    pub fn features(completions: &Completions) -> Tensor<2> {
        let rows = completions.response.rows();
        let scale = 1.0 / (LENGTH as f32).sqrt();
        let mut counts = vec![0.0_f32; rows.len() * VOCABULARY];
        for (row, tokens) in rows.iter().enumerate() {
            tokens.iter().for_each(|&token| counts[row * VOCABULARY + token as usize] += scale);
        }
        let device: Device = completions.response.ids.device().without_autodiff();
        Tensor::from_data(TensorData::new(counts, [rows.len(), VOCABULARY]), &device)
    }
}

impl Reward for GlitchTask {
    fn score(&self, completions: &Completions) -> Tensor<1> {
        let scores: Vec<f32> = completions.response.rows().iter().map(|row| self.gold(row) as f32).collect();
        let device = completions.response.ids.device().without_autodiff();
        Tensor::from_data(TensorData::new(scores.clone(), [scores.len()]), &device)
    }
}

/// A standard normal number by Box and Muller.
pub fn standard_normal(draws: &Draws, purpose: Purpose, which: u64, index: u64) -> f64 {
    let u = |sample| draws.token(purpose, which, index, sample, 0);
    (-2.0 * (1.0 - u(0)).ln()).sqrt() * (std::f64::consts::TAU * u(1)).cos()
}
