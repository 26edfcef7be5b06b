//! KTO: answers that are desirable or not, one by one.

use std::cell::Cell;

use align_core::number::{NonNegative, Positive};
use align_core::{CausalLm, Completions};
use align_train::{Loss, Metrics, Objective};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::batch::{answer_log_probs, numbers};
use crate::loss::{KtoWeights, kto};

/// One answer with its label.
#[derive(Clone, Debug, PartialEq)]
pub struct Rated {
    /// The prompt's tokens.
    pub prompt: Vec<u32>,
    /// The answer's tokens.
    pub response: Vec<u32>,
    /// log π_ref of the answer, nats.
    pub anchor: f32,
    /// Whether it is good.
    pub desirable: bool,
}

/// How KTO weighs what it sees.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KtoConfig {
    /// β. 0.1 as in the paper and in TRL.
    pub beta: Positive,
    /// λ_D. 1 as in TRL; raise it where good answers are few, so that λ_D n_D ≈ λ_U n_U.
    pub desirable_weight: NonNegative,
    /// λ_U.
    pub undesirable_weight: NonNegative,
}

impl Default for KtoConfig {
    fn default() -> Self {
        let one = NonNegative::literal(1.0);
        Self { beta: Positive::literal(0.1), desirable_weight: one, undesirable_weight: one }
    }
}

/// Rated answers as a loss reads them. All constants.
#[derive(Clone, Debug)]
pub struct KtoBatch {
    /// B rows.
    pub completions: Completions,
    /// log π_ref, `[B]`.
    pub anchors: Tensor<1>,
    /// 1 for good, 0 for bad, `[B]`.
    pub desirable: Tensor<1>,
    /// In the first microbatch of a step: the prompts of the whole step with each other's answers, whose divergence is z₀.
    pub mismatched: Option<Mismatched>,
}

/// Prompts with other prompts' answers.
#[derive(Clone, Debug)]
pub struct Mismatched {
    /// In parts that go through a model at once.
    pub completions: Vec<Completions>,
    /// log π_ref of them, nats.
    pub anchors: Vec<f32>,
}

/// The prompts of a step with the answers of their neighbours: row i gets the answer of row i − 1, the first that of the last.
///
/// As in TRL, so that `kl` can be compared; TRL rotates within a microbatch, this within the step.
pub fn mismatched_rows(rows: &[&Rated]) -> Vec<(Vec<u32>, Vec<u32>)> {
    let others = rows.iter().cycle().skip(rows.len().saturating_sub(1));
    rows.iter().zip(others).map(|(row, other)| (row.prompt.clone(), other.response.clone())).collect()
}

/// Microbatches of one optimiser step; `mismatched` goes with the first.
pub fn kto_microbatches(
    rows: &[&Rated],
    mismatched: Mismatched,
    size: usize,
    device: &Device,
) -> Vec<KtoBatch> {
    let mut mismatched = Some(mismatched);
    rows.chunks(size.max(1))
        .map(|rows| {
            let (prompts, responses): (Vec<_>, Vec<_>) =
                rows.iter().map(|row| (row.prompt.clone(), row.response.clone())).unzip();
            let desirable = rows.iter().map(|row| f32::from(u8::from(row.desirable))).collect();
            KtoBatch {
                completions: Completions::from_rows(&prompts, &responses, device),
                anchors: numbers(rows.iter().map(|row| row.anchor).collect(), device),
                desirable: numbers(desirable, device),
                mismatched: mismatched.take(),
            }
        })
        .collect()
}

/// The mean of [`kto`] over answers.
///
/// z₀ is `max(0, mean log π/π_ref)` over the step's prompts with each other's answers: an estimate of KL(π‖π_ref) that no gradient
/// flows through. It is measured anew whenever a microbatch brings [`KtoBatch::mismatched`] and holds for those that follow.
#[derive(Clone, Debug)]
pub struct KtoObjective {
    config: KtoConfig,
    reference_point: Cell<f64>,
}

impl KtoObjective {
    /// With these weights.
    pub fn new(config: KtoConfig) -> Self {
        Self { config, reference_point: Cell::new(0.0) }
    }

    /// z₀ as it stands, nats.
    pub fn reference_point(&self) -> f64 {
        self.reference_point.get()
    }

    fn measure<M: CausalLm>(&self, model: &M, mismatched: &Mismatched) {
        let log_probs = mismatched.completions.iter().flat_map(|part| {
            answer_log_probs(model, part).without_autodiff().into_data().iter::<f64>().collect::<Vec<_>>()
        });
        let ratios: Vec<f64> =
            log_probs.zip(&mismatched.anchors).map(|(policy, anchor)| policy - f64::from(*anchor)).collect();
        let mean = ratios.iter().sum::<f64>() / ratios.len().max(1) as f64;
        // Written so that NaN is kept: the loss is to stop on it.
        self.reference_point.set(if mean < 0.0 { 0.0 } else { mean });
    }
}

impl<M: CausalLm + burn::module::Module> Objective<M> for KtoObjective {
    type Batch = KtoBatch;

    fn loss(&self, model: &M, batch: &KtoBatch) -> Loss {
        if let Some(mismatched) = &batch.mismatched {
            self.measure(&model.valid(), mismatched);
        }
        let log_probs = answer_log_probs(model, &batch.completions);
        let ratios = log_probs - batch.anchors.clone();
        let weights = KtoWeights {
            desirable: self.config.desirable_weight.get(),
            undesirable: self.config.undesirable_weight.get(),
        };
        let beta = self.config.beta.get();
        let losses = kto(ratios.clone(), &batch.desirable, self.reference_point.get(), beta, weights);
        let count = losses.dims()[0] as f64;
        Loss::new(losses.sum(), count).with_metrics(self.metrics(&ratios, &batch.desirable))
    }

    /// Adds TRL's `rewards/chosen`, `rewards/rejected` and `rewards/margins`, each over the answers of its kind.
    fn finish(&self, metrics: &mut Metrics) {
        let share = metrics.get("count/chosen").unwrap_or_default();
        let mean = |sum: &str, share: f64| metrics.get(sum).filter(|_| share > 0.0).map(|sum| sum / share);
        let sides = [mean("rewards/chosen_sum", share), mean("rewards/rejected_sum", 1.0 - share)];
        for (name, side) in ["rewards/chosen", "rewards/rejected"].into_iter().zip(sides) {
            side.into_iter().for_each(|mean| metrics.set(name, mean));
        }
        if let [Some(chosen), Some(rejected)] = sides {
            metrics.set("rewards/margins", chosen - rejected);
        }
    }
}

impl KtoObjective {
    /// Sums over both kinds, divided by all rows: kinds that are missing from a microbatch weigh nothing.
    fn metrics(&self, ratios: &Tensor<1>, desirable: &Tensor<1>) -> Metrics {
        let ratios: Vec<f64> = ratios.clone().without_autodiff().into_data().iter::<f64>().collect();
        let desirable: Vec<f64> = desirable.to_data().iter::<f64>().collect();
        let rows = ratios.len() as f64;
        let good: f64 = desirable.iter().sum();
        let sum = |of: f64| -> f64 {
            ratios.iter().zip(&desirable).filter(|(_, d)| **d == of).map(|(ratio, _)| ratio).sum()
        };
        let beta = self.config.beta.get();
        Metrics::new()
            .with("kl", self.reference_point.get())
            .with("rewards/chosen_sum", beta * sum(1.0) / rows)
            .with("rewards/rejected_sum", beta * sum(0.0) / rows)
            .with("count/chosen", good / rows)
    }
}
