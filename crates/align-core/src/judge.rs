//! Judges: rewards score one completion, preferences compare two.

use burn::tensor::{Tensor, activation::sigmoid};

use crate::batch::Completions;

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
}

impl<R: Reward + ?Sized> Reward for &R {
    fn score(&self, completions: &Completions) -> Tensor<1> {
        (**self).score(completions)
    }

    fn take_metrics(&self) -> Vec<(String, f64)> {
        (**self).take_metrics()
    }

    fn take_failure(&self) -> Option<String> {
        (**self).take_failure()
    }
}

impl<R: Reward + ?Sized> Reward for Box<R> {
    fn score(&self, completions: &Completions) -> Tensor<1> {
        (**self).score(completions)
    }

    fn take_metrics(&self) -> Vec<(String, f64)> {
        (**self).take_metrics()
    }

    fn take_failure(&self) -> Option<String> {
        (**self).take_failure()
    }
}

impl<R: Reward + ?Sized> Reward for std::sync::Arc<R> {
    fn score(&self, completions: &Completions) -> Tensor<1> {
        (**self).score(completions)
    }

    fn take_metrics(&self) -> Vec<(String, f64)> {
        (**self).take_metrics()
    }

    fn take_failure(&self) -> Option<String> {
        (**self).take_failure()
    }
}

impl<P: Preference + ?Sized> Preference for &P {
    fn prefer(&self, first: &Completions, second: &Completions) -> Tensor<1> {
        (**self).prefer(first, second)
    }
}

impl<P: Preference + ?Sized> Preference for Box<P> {
    fn prefer(&self, first: &Completions, second: &Completions) -> Tensor<1> {
        (**self).prefer(first, second)
    }
}

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
