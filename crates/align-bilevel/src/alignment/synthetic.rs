//! Preference pairs of a known linear reward, some of them corrupted: where cleaning can be checked.

use align_core::draws::{Draws, Purpose};
use align_core::number::{Positive, UnitInterval};
use serde::{Deserialize, Serialize};

use super::flips::{Flips, flip_share};
use super::weights::sigmoid;

/// A world in which the best reward is linear.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinearWorldConfig {
    /// d.
    pub features: usize,
    /// |θ|: how sure labels are.
    pub norm: Positive,
    /// Training pairs.
    pub training: usize,
    /// Trusted pairs.
    pub trusted: usize,
    /// Held-out pairs.
    pub test: usize,
    /// The share of training pairs that are flipped.
    pub flipped: UnitInterval,
    /// Of everything that is drawn.
    pub seed: u64,
}

impl Default for LinearWorldConfig {
    /// 400 pairs of 20 features, a quarter of them wrong: more than one in four labels, since right labels are noisy too.
    fn default() -> Self {
        Self {
            features: 20,
            norm: Positive::literal(3.0),
            training: 400,
            trusted: 200,
            test: 2000,
            flipped: UnitInterval::literal(0.25),
            seed: 0,
        }
    }
}

/// Feature differences of chosen less rejected, by set.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearWorld {
    /// The reward.
    pub theta: Vec<f64>,
    /// As labelled, flips included.
    pub training: Vec<Vec<f64>>,
    /// Clean.
    pub trusted: Vec<Vec<f64>>,
    /// Clean.
    pub test: Vec<Vec<f64>>,
    /// Which training pairs are flipped.
    pub flips: Flips,
}

impl LinearWorldConfig {
    /// θ ~ N(0, I) scaled to its norm; differences ~ N(0, I); the first answer is chosen with probability σ(θ·x).
    pub fn draw(&self) -> LinearWorld {
        let draws = Draws::new(self.seed);
        let normals = |list: u64, index: u64| -> Vec<f64> {
            let at = |feature: usize| index * self.features as u64 + feature as u64;
            (0..self.features).map(|feature| draws.normal(Purpose::Synthesize, list, at(feature))).collect()
        };
        let direction = normals(0, 0);
        let length = direction.iter().map(|x| x * x).sum::<f64>().sqrt();
        let theta: Vec<f64> = direction.iter().map(|x| x / length * self.norm.get()).collect();
        let pairs = |list: u64, count: usize| -> Vec<Vec<f64>> {
            let pair = |index: u64| {
                let x = normals(list, index);
                let margin: f64 = x.iter().zip(&theta).map(|(x, theta)| x * theta).sum();
                let first = draws.token(Purpose::Label, list, index, 0, 0) < sigmoid(margin);
                if first { x } else { x.into_iter().map(|x| -x).collect() }
            };
            (0..count as u64).map(pair).collect()
        };
        let (mut training, trusted, test) =
            (pairs(1, self.training), pairs(2, self.trusted), pairs(3, self.test));
        let flips = flip_share(self.training, self.flipped, self.seed);
        flips.apply(&mut training);
        LinearWorld { theta, training, trusted, test, flips }
    }
}
