//! Learning a score from pairs: the ranking loss and its objective.

use align_core::PreferencePairs;
use align_core::number::NonNegative;
use align_core::shape::assert_same_shape;
use align_train::{Loss, Metrics, Objective};
use burn::tensor::{Tensor, activation::log_sigmoid};
use serde::{Deserialize, Serialize};

use crate::scorer::Scorer;

/// The negative log-likelihood of each label: `−log σ(r_c − r_r − margin)`.
///
/// # Shapes
/// `[B]` each → `[B]`.
///
/// # Units
/// Nats per pair. Finite at any difference of scores: it grows like the difference itself where the label is contradicted.
///
/// # Gradient
/// `∂/∂r_c = −σ(margin − (r_c − r_r))`, `∂/∂r_r` its opposite; margins are constants.
///
/// # Panics
/// If the shapes differ.
///
/// # Source
/// Bradley and Terry 1952; the margin is equation (2) of Touvron et al. 2023, <https://arxiv.org/abs/2307.09288>.
pub fn ranking_loss(chosen: Tensor<1>, rejected: Tensor<1>, margin: Tensor<1>) -> Tensor<1> {
    assert_same_shape("ranking_loss", [chosen.dims(), rejected.dims(), margin.dims()]);
    log_sigmoid(chosen - rejected - margin.without_autodiff()).neg()
}

/// How far the two scores of a pair are from lying around zero: `(r_c + r_r)²`.
///
/// The ranking loss does not see a constant added to all scores; this does.
///
/// # Shapes
/// `[B]`, `[B]` → `[B]`.
///
/// # Gradient
/// `2(r_c + r_r)` through both.
///
/// # Panics
/// If the shapes differ.
///
/// # Source
/// Eisenstein et al. 2023, §2, <https://arxiv.org/abs/2312.09244>; `center_rewards_coefficient` of TRL.
pub fn centering(chosen: Tensor<1>, rejected: Tensor<1>) -> Tensor<1> {
    assert_same_shape("centering", [chosen.dims(), rejected.dims()]);
    (chosen + rejected).square()
}

/// How large the two scores of a pair are: `½(r_c² + r_r²)`.
///
/// # Shapes
/// `[B]`, `[B]` → `[B]`.
///
/// # Gradient
/// `r_c` and `r_r`.
///
/// # Panics
/// If the shapes differ.
///
/// # Source
/// The released code of Coste et al. 2023, <https://arxiv.org/abs/2310.02743>, with coefficient 0.001.
pub fn squared_scores(chosen: Tensor<1>, rejected: Tensor<1>) -> Tensor<1> {
    assert_same_shape("squared_scores", [chosen.dims(), rejected.dims()]);
    (chosen.square() + rejected.square()) / 2.0
}

/// Trains a [`Scorer`] on labelled pairs:
/// `mean(−log σ(r_c − r_r − margin)) + c·mean((r_c + r_r)²) + l·mean(½(r_c² + r_r²))`.
///
/// Reports, under TRL's names, `accuracy` (a tie counts half) and `margin` (the mean of `r_c − r_r`), and `min_reward`,
/// `mean_reward`, `max_reward` over both sides. Minimum and maximum are those of a microbatch, averaged over a step's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BradleyTerryObjective {
    /// c. 0 is the plain ranking loss; TRL's documentation suggests 0.01.
    pub center_rewards_coefficient: NonNegative,
    /// l, which keeps scores small. 0 unless stated; 0.001 in the released code for ensembles.
    pub reward_l2_coefficient: NonNegative,
}

impl Default for BradleyTerryObjective {
    /// No centring, as in TRL: scores are centred after training, on a stated set.
    fn default() -> Self {
        let none = NonNegative::literal(0.0);
        Self { center_rewards_coefficient: none, reward_l2_coefficient: none }
    }
}

impl<M: Scorer> Objective<M> for BradleyTerryObjective {
    type Batch = PreferencePairs;

    fn loss(&self, model: &M, pairs: &PreferencePairs) -> Loss {
        let (chosen, rejected) = (model.scores(&pairs.chosen), model.scores(&pairs.rejected));
        let ranking = ranking_loss(chosen.clone(), rejected.clone(), pairs.margin.clone()).sum();
        let metrics = metrics(&host(&chosen), &host(&rejected));
        let count = chosen.dims()[0] as f64;
        let (mut value, mut terms) = (ranking.clone(), Vec::new());
        for (name, coefficient, term) in [
            (
                "centering",
                self.center_rewards_coefficient,
                centering as fn(Tensor<1>, Tensor<1>) -> Tensor<1>,
            ),
            ("reward_l2", self.reward_l2_coefficient, squared_scores),
        ] {
            if coefficient.get() > 0.0 {
                let weighed = term(chosen.clone(), rejected.clone()).sum() * coefficient.get();
                value = value + weighed.clone();
                terms.push((name, weighed));
            }
        }
        if terms.is_empty() {
            return Loss::new(ranking, count).with_metrics(metrics);
        }
        terms.into_iter().fold(
            Loss::new(value, count).with_term("ranking", ranking).with_metrics(metrics),
            |loss, (name, term)| loss.with_term(name, term),
        )
    }
}

fn metrics(chosen: &[f64], rejected: &[f64]) -> Metrics {
    let report = crate::evaluate::compare(chosen, rejected);
    let all = || chosen.iter().chain(rejected).copied();
    Metrics::new()
        .with("accuracy", report.accuracy)
        .with("margin", report.mean_margin)
        .with("min_reward", all().fold(f64::INFINITY, f64::min))
        .with("mean_reward", all().sum::<f64>() / (2 * chosen.len()) as f64)
        .with("max_reward", all().fold(f64::NEG_INFINITY, f64::max))
}

/// Scores on the host, without their graph.
pub(crate) fn host(scores: &Tensor<1>) -> Vec<f64> {
    scores.clone().without_autodiff().into_data().iter::<f64>().collect()
}
