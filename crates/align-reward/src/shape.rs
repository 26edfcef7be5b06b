//! Rewards made of rewards: scaled, clipped, penalised, added up.
//!
//! They nest, and the order is the order of the types: `Clipped { reward: Scaled { .. }, .. }` scales first.

use align_core::{Completions, Reward};
use burn::tensor::{Bool, Tensor};

/// `factor·r`.
#[derive(Clone, Debug)]
pub struct Scaled<R> {
    /// What is scaled.
    pub reward: R,
    /// By what.
    pub factor: f64,
}

impl<R: Reward> Reward for Scaled<R> {
    fn score(&self, completions: &Completions) -> Tensor<1> {
        self.reward.score(completions) * self.factor
    }

    fn take_metrics(&self) -> Vec<(String, f64)> {
        self.reward.take_metrics()
    }

    fn take_failure(&self) -> Option<String> {
        self.reward.take_failure()
    }
}

/// `clamp(r, −limit, limit)`. OpenRLHF clips at 10.
#[derive(Clone, Debug)]
pub struct Clipped<R> {
    /// What is clipped.
    pub reward: R,
    /// The largest magnitude that remains.
    pub limit: f64,
}

impl<R: Reward> Reward for Clipped<R> {
    fn score(&self, completions: &Completions) -> Tensor<1> {
        self.reward.score(completions).clamp(-self.limit, self.limit)
    }

    fn take_metrics(&self) -> Vec<(String, f64)> {
        self.reward.take_metrics()
    }

    fn take_failure(&self) -> Option<String> {
        self.reward.take_failure()
    }
}

/// `r − per_token·max(0, length − free)`, with the length of the response in tokens that count.
#[derive(Clone, Debug)]
pub struct LengthPenalized<R> {
    /// What is penalised.
    pub reward: R,
    /// What each further token costs, in the reward's units.
    pub per_token: f64,
    /// How many tokens cost nothing.
    pub free: usize,
}

impl<R: Reward> Reward for LengthPenalized<R> {
    fn score(&self, completions: &Completions) -> Tensor<1> {
        let scores = self.reward.score(completions);
        let lengths = completions.response.mask.clone().int().sum_dim(1).squeeze_dim::<1>(1);
        let beyond = (lengths - self.free as i64).clamp_min(0).float();
        scores - beyond * self.per_token
    }

    fn take_metrics(&self) -> Vec<(String, f64)> {
        self.reward.take_metrics()
    }

    fn take_failure(&self) -> Option<String> {
        self.reward.take_failure()
    }
}

/// What a response without a stop token is scored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NoStop {
    /// The judge's score less a constant (TRL, 1.0).
    Subtract(f64),
    /// A constant in place of the judge's score (OpenAI −1, torchtune −3).
    Replace(f64),
}

/// Penalises responses in which none of the configured stop tokens occurs.
///
/// The ids are those that generation stops at, not the tokenizer's end-of-text alone; a token under a false mask is padding
/// and stops nothing. For a response that a stop *string* ended this cannot be seen from the tokens.
#[derive(Clone, Debug)]
pub struct StopRequired<R> {
    /// What is penalised.
    pub reward: R,
    /// Any of these will do.
    pub stop_token_ids: Vec<u32>,
    /// The penalty.
    pub without: NoStop,
}

impl<R: Reward> Reward for StopRequired<R> {
    fn score(&self, completions: &Completions) -> Tensor<1> {
        let scores = self.reward.score(completions);
        let endless = has_any(completions, &self.stop_token_ids).bool_not();
        let penalized = match self.without {
            NoStop::Subtract(penalty) => scores.clone() - penalty,
            NoStop::Replace(constant) => scores.zeros_like() + constant,
        };
        scores.mask_where(endless, penalized)
    }

    fn take_metrics(&self) -> Vec<(String, f64)> {
        self.reward.take_metrics()
    }

    fn take_failure(&self) -> Option<String> {
        self.reward.take_failure()
    }
}

/// Whether one of these tokens occurs in the response.
///
/// # Shapes
/// → `[B]`.
fn has_any(completions: &Completions, ids: &[u32]) -> Tensor<1, Bool> {
    let response = &completions.response;
    let found =
        ids.iter().fold(response.mask.clone().bool_not().bool_and(response.mask.clone()), |found, &id| {
            found.bool_or(response.ids.clone().equal_elem(i64::from(id)))
        });
    found.bool_and(response.mask.clone()).any_dim(1).squeeze_dim(1)
}

/// `Σ wᵢ rᵢ`.
pub struct WeightedSum {
    /// Weights and rewards, at least one.
    pub parts: Vec<(f64, Box<dyn Reward>)>,
}

impl Reward for WeightedSum {
    /// # Panics
    /// With no parts.
    fn score(&self, completions: &Completions) -> Tensor<1> {
        self.parts
            .iter()
            .map(|(weight, reward)| reward.score(completions) * *weight)
            .reduce(|sum, part| sum + part)
            .expect("a weighted sum has at least one part")
    }

    fn take_metrics(&self) -> Vec<(String, f64)> {
        self.parts.iter().flat_map(|(_, reward)| reward.take_metrics()).collect()
    }

    fn take_failure(&self) -> Option<String> {
        self.parts.iter().find_map(|(_, reward)| reward.take_failure())
    }
}
