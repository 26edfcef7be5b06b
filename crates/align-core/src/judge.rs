//! Judges: rewards score one completion, preferences compare two.

use burn::tensor::{Tensor, activation::sigmoid};

use crate::batch::Completions;
use crate::number::Probability;

/// A judge's number for a completion; higher is better.
pub trait Reward: Send + Sync {
    /// Scores every row, as constants.
    ///
    /// # Shapes
    /// → `[B]`, in the reward's own units.
    fn score(&self, completions: &Completions) -> Tensor<1>;

    /// What the judge noticed in the batches it scored since the last call, by the metric's name: how far an ensemble's
    /// members were apart, say. Nothing, unless the judge keeps count.
    fn take_metrics(&self) -> Vec<(String, f64)> {
        Vec::new()
    }

    /// Why rows scored since the last call are not numbers, if the judge knows: a server that did not answer, say.
    fn take_failure(&self) -> Option<String> {
        None
    }
}

/// Answers which of two completions of the same prompts is better. Need not come from a score: cycles are allowed.
pub trait Preference: Send + Sync {
    /// P(first ≻ second) for every row.
    ///
    /// # Shapes
    /// → `[B]`, in [0, 1].
    fn prefer(&self, first: &Completions, second: &Completions) -> Tensor<1>;

    /// What the judge noticed since the last call, by the metric's name. Nothing, unless it keeps count.
    fn take_metrics(&self) -> Vec<(String, f64)> {
        Vec::new()
    }

    /// Why answers since the last call are not numbers, if the judge knows: a server that did not answer, say.
    fn take_failure(&self) -> Option<String> {
        None
    }
}

/// Forwards every method to what stands behind a pointer.
macro_rules! forward_reward {
    ($($pointer:ty),+) => {
        $(impl<R: Reward + ?Sized> Reward for $pointer {
            fn score(&self, completions: &Completions) -> Tensor<1> {
                (**self).score(completions)
            }

            fn take_metrics(&self) -> Vec<(String, f64)> {
                (**self).take_metrics()
            }

            fn take_failure(&self) -> Option<String> {
                (**self).take_failure()
            }
        })+
    };
}
forward_reward!(&R, Box<R>, std::sync::Arc<R>);

/// Forwards every method to what stands behind a pointer.
macro_rules! forward_preference {
    ($($pointer:ty),+) => {
        $(impl<P: Preference + ?Sized> Preference for $pointer {
            fn prefer(&self, first: &Completions, second: &Completions) -> Tensor<1> {
                (**self).prefer(first, second)
            }

            fn take_metrics(&self) -> Vec<(String, f64)> {
                (**self).take_metrics()
            }

            fn take_failure(&self) -> Option<String> {
                (**self).take_failure()
            }
        })+
    };
}
forward_preference!(&P, Box<P>, std::sync::Arc<P>);

/// A reward read as a preference: `P(a ≻ b) = σ(r(a) − r(b))`.
///
/// # Source
/// Bradley and Terry 1952, "Rank analysis of incomplete block designs", Biometrika 39.
#[derive(Clone, Debug)]
pub struct BradleyTerry<R>(pub R);

impl<R: Reward> Preference for BradleyTerry<R> {
    fn prefer(&self, first: &Completions, second: &Completions) -> Tensor<1> {
        sigmoid(self.0.score(first) - self.0.score(second))
    }

    fn take_metrics(&self) -> Vec<(String, f64)> {
        self.0.take_metrics()
    }

    fn take_failure(&self) -> Option<String> {
        self.0.take_failure()
    }
}

/// Several criteria as one judge: `P(a ≻ b) = Σᵢ wᵢ Pᵢ(a ≻ b)`, the chance that a criterion drawn by its weight prefers `a`.
///
/// Criteria that are each an order can make a cycle together (Condorcet): no reward explains such a mixture.
pub struct PreferenceMixture {
    parts: Vec<(f64, Box<dyn Preference>)>,
}

impl PreferenceMixture {
    /// Weights are divided by their sum.
    ///
    /// # Panics
    /// With no part, or a weight that is not a positive finite number.
    pub fn new(parts: Vec<(f64, Box<dyn Preference>)>) -> Self {
        assert!(!parts.is_empty(), "a mixture needs at least one criterion");
        let wrong = parts.iter().find(|(weight, _)| !(weight.is_finite() && *weight > 0.0));
        assert!(wrong.is_none(), "weight {:?}: expected a positive number", wrong.map(|part| part.0));
        let total: f64 = parts.iter().map(|(weight, _)| weight).sum();
        Self { parts: parts.into_iter().map(|(weight, part)| (weight / total, part)).collect() }
    }
}

impl Preference for PreferenceMixture {
    fn prefer(&self, first: &Completions, second: &Completions) -> Tensor<1> {
        let weighed = self.parts.iter().map(|(weight, part)| part.prefer(first, second) * *weight);
        weighed.reduce(|sum, part| sum + part).expect("a mixture has a part")
    }

    fn take_metrics(&self) -> Vec<(String, f64)> {
        self.parts.iter().flat_map(|(_, part)| part.take_metrics()).collect()
    }

    fn take_failure(&self) -> Option<String> {
        self.parts.iter().find_map(|(_, part)| part.take_failure())
    }
}

/// A judge whose answers are turned round at a rate r: `P'(a ≻ b) = (1 − r) P(a ≻ b) + r P(b ≻ a)`.
///
/// r = ½ is a coin, r = 1 the opposite of the judge: controls on which an algorithm that listens to its judge must fail.
#[derive(Clone, Debug)]
pub struct NoisyPreference<P> {
    /// The judge.
    pub judge: P,
    /// r.
    pub rate: Probability,
}

impl<P: Preference> Preference for NoisyPreference<P> {
    fn prefer(&self, first: &Completions, second: &Completions) -> Tensor<1> {
        let rate = self.rate.get();
        self.judge.prefer(first, second) * (1.0 - 2.0 * rate) + rate
    }

    fn take_metrics(&self) -> Vec<(String, f64)> {
        self.judge.take_metrics()
    }

    fn take_failure(&self) -> Option<String> {
        self.judge.take_failure()
    }
}

/// A closure as a reward.
#[derive(Clone, Debug)]
pub struct RewardFn<F>(pub F);

impl<F: Fn(&Completions) -> Tensor<1> + Send + Sync> Reward for RewardFn<F> {
    fn score(&self, completions: &Completions) -> Tensor<1> {
        (self.0)(completions)
    }
}

/// A closure as a preference.
#[derive(Clone, Debug)]
pub struct PreferenceFn<F>(pub F);

impl<F: Fn(&Completions, &Completions) -> Tensor<1> + Send + Sync> Preference for PreferenceFn<F> {
    fn prefer(&self, first: &Completions, second: &Completions) -> Tensor<1> {
        (self.0)(first, second)
    }
}

/// The share of comparisons won, a tie counting half: `(wins + ½ ties) / (wins + ties + losses)`.
///
/// # Panics
/// With no comparison at all.
///
/// # Source
/// Chegini et al. 2024, section 4, <https://arxiv.org/abs/2411.01798>.
pub fn adjusted_win_rate(wins: usize, ties: usize, losses: usize) -> f64 {
    let comparisons = wins + ties + losses;
    assert!(comparisons > 0, "a win rate needs at least one comparison");
    (wins as f64 + ties as f64 / 2.0) / comparisons as f64
}
