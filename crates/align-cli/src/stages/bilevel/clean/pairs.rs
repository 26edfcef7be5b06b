//! Pairs under a reward model: their margins, their losses, and a training that weighs them.

use align_bilevel::alignment::Margins;
use align_core::PreferencePairs;
use align_data::collate::preference_pairs;
use align_data::encode::PreferenceExample;
use align_models::RewardModel;
use align_reward::{Scorer, ranking_loss};
use align_train::{Loss, Metrics, Objective};
use burn::tensor::{Device, Tensor, TensorData};

/// Encoded pairs on a device.
pub(super) struct PairSet {
    pub(super) examples: Vec<PreferenceExample>,
    pub(super) device: Device,
}

impl Margins<RewardModel> for PairSet {
    fn count(&self) -> usize {
        self.examples.len()
    }

    /// Less the margin that a pair asks for.
    fn margins(&self, model: &RewardModel, rows: &[usize]) -> Tensor<1> {
        let chosen: Vec<PreferenceExample> = rows.iter().map(|&row| self.examples[row].clone()).collect();
        let pairs = preference_pairs(&chosen, &self.device);
        model.scores(&pairs.chosen) - model.scores(&pairs.rejected) - pairs.margin
    }
}

/// The loss of each pair, a microbatch at a time.
pub(super) fn losses(
    model: &RewardModel,
    examples: &[PreferenceExample],
    microbatch: usize,
    device: &Device,
) -> Vec<f64> {
    let of = |chunk: &[PreferenceExample]| {
        let pairs = preference_pairs(chunk, device);
        let losses = ranking_loss(model.scores(&pairs.chosen), model.scores(&pairs.rejected), pairs.margin);
        losses.into_data().iter::<f64>().collect::<Vec<_>>()
    };
    examples.chunks(microbatch).flat_map(of).collect()
}

/// A microbatch of pairs, each with its weight.
pub(super) struct Weighted {
    pairs: PreferencePairs,
    weights: Tensor<1>,
    total: f64,
}

impl Weighted {
    /// Microbatches of examples with their weights.
    pub(super) fn batches(
        rows: &[(&PreferenceExample, f64)],
        microbatch: usize,
        device: &Device,
    ) -> Vec<Self> {
        let batch = |rows: &[(&PreferenceExample, f64)]| {
            let examples: Vec<PreferenceExample> =
                rows.iter().map(|(example, _)| (*example).clone()).collect();
            let weights: Vec<f32> = rows.iter().map(|(_, weight)| *weight as f32).collect();
            Self {
                pairs: preference_pairs(&examples, device),
                total: rows.iter().map(|(_, weight)| weight).sum(),
                weights: Tensor::from_data(TensorData::new(weights, [rows.len()]), device),
            }
        };
        rows.chunks(microbatch).map(batch).collect()
    }
}

/// `Σ sᵢ ℓᵢ / Σ sᵢ` with the loss of Bradley and Terry.
pub(super) struct WeightedRanking;

impl Objective<RewardModel> for WeightedRanking {
    type Batch = Weighted;

    fn loss(&self, model: &RewardModel, batch: &Weighted) -> Loss {
        let (chosen, rejected) = (model.scores(&batch.pairs.chosen), model.scores(&batch.pairs.rejected));
        let margins = (chosen.clone() - rejected.clone()).without_autodiff().into_data();
        let right =
            margins.iter::<f64>().map(|margin| if margin == 0.0 { 0.5 } else { f64::from(margin > 0.0) });
        let accuracy = right.sum::<f64>() / margins.num_elements() as f64;
        let losses = ranking_loss(chosen, rejected, batch.pairs.margin.clone());
        let weights = batch.weights.clone().to_device(&losses.device().without_autodiff());
        Loss::new((losses * weights).sum(), batch.total)
            .with_metrics(Metrics::new().with("accuracy", accuracy))
    }
}
