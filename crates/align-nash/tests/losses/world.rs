//! What the tests share: small models, pairs, and an optimiser step's view of an objective.

use align_core::log_probs::sequence_log_probs;
use align_core::number::{Finite, NoiseRate, Positive};
use align_core::{CausalLm, Completions, Draws};
use align_nash::loss::FDivergence;
use align_nash::{Pair, PairBatch, PairLoss, cache_anchors, microbatches};
use align_testkit::{BigramLm, device, train_device};
use align_train::{Metrics, Objective};
use burn::tensor::{DType, Tensor};

/// A language of five tokens.
pub(crate) const V: usize = 5;

/// A model in f32 to train.
pub(crate) fn policy() -> BigramLm {
    BigramLm::random(V, &Draws::new(11), &train_device())
}

/// A frozen model in f32.
pub(crate) fn reference() -> BigramLm {
    BigramLm::random(V, &Draws::new(12), &device())
}

/// Pairs of different lengths with labels of every kind, anchored to [`reference`].
pub(crate) fn pairs() -> Vec<Pair> {
    let mut pairs = vec![
        Pair::labelled(vec![1, 2], vec![3, 4, 0], vec![4]),
        Pair::labelled(vec![0], vec![2, 2, 1, 4], vec![1, 3, 4]),
        Pair::compared(vec![3, 1, 0, 2], [vec![1, 4], vec![0, 3, 3, 2, 4]], 0.75),
        Pair::compared(vec![4], [vec![0], vec![3]], 0.5),
        Pair::compared(vec![2, 2, 0], [vec![4], vec![2, 0, 1, 1, 3, 4]], 0.125),
        Pair::compared(vec![1], [vec![0, 2, 4], vec![3, 3]], 0.0),
    ];
    cache_anchors(&reference(), &mut pairs, 4, &device()).expect("a reference that can say anything");
    pairs
}

/// Every kind of loss, and every divergence; β such that losses are neither flat nor far beyond 1.
pub(crate) fn every_loss() -> Vec<(&'static str, PairLoss)> {
    let beta = Positive::literal(0.4);
    let dpo = |f_divergence| PairLoss::Dpo { beta, label_smoothing: NoiseRate::literal(0.0), f_divergence };
    let alpha = |alpha| FDivergence::AlphaDivergence { alpha: Finite::literal(alpha) };
    let label_smoothing = NoiseRate::literal(0.2);
    vec![
        ("dpo", dpo(FDivergence::ReverseKl)),
        ("dpo, forward KL", dpo(FDivergence::ForwardKl)),
        ("dpo, Jensen–Shannon", dpo(FDivergence::JsDivergence)),
        ("dpo, α = 0.5", dpo(alpha(0.5))),
        ("dpo, α = 2", dpo(alpha(2.0))),
        ("conservative dpo", PairLoss::Dpo { beta, label_smoothing, f_divergence: FDivergence::ReverseKl }),
        ("robust dpo", PairLoss::Robust { beta, label_smoothing }),
        ("ipo", PairLoss::Ipo { beta, length_normalized: false }),
        ("ipo by lengths", PairLoss::Ipo { beta, length_normalized: true }),
        ("hinge", PairLoss::Hinge { beta }),
        ("simpo", PairLoss::Simpo { beta, gamma: Finite::literal(0.3) }),
        ("sppo", PairLoss::Sppo { beta }),
    ]
}

/// What an optimiser step over these microbatches sees.
pub(crate) struct Step {
    /// The mean loss.
    pub(crate) loss: f64,
    /// Its gradient by the table of a bigram model, row by row.
    pub(crate) gradient: Vec<f64>,
    /// Averaged and finished.
    pub(crate) metrics: Metrics,
}

impl Step {
    /// The metric of that name.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        self.metrics.get(name).unwrap_or_else(|| panic!("no metric `{name}` in {:?}", self.metrics))
    }
}

/// `Σ value / Σ weight` over microbatches, and its gradient.
pub(crate) fn step<O: Objective<BigramLm>>(objective: &O, model: &BigramLm, batches: &[O::Batch]) -> Step {
    let [v, _] = model.table.val().dims();
    let (mut sum, mut weight, mut gradient, mut parts) = (0.0, 0.0, vec![0.0; v * v], Vec::new());
    for batch in batches {
        let (loss, gradients) = objective.gradients(model, batch);
        sum += loss.value.to_data().iter::<f64>().sum::<f64>();
        weight += loss.weight;
        if let Some(part) = gradients.get::<2>(model.table.id) {
            gradient.iter_mut().zip(part.to_data().iter::<f64>()).for_each(|(sum, part)| *sum += part);
        }
        parts.push((loss.weight, loss.metrics));
    }
    gradient.iter_mut().for_each(|sum| *sum /= weight);
    let mut metrics = Metrics::mean(&parts);
    objective.finish(&mut metrics);
    Step { loss: sum / weight, gradient, metrics }
}

/// Microbatches of pairs on the host.
pub(crate) fn batches(pairs: &[Pair], size: usize) -> Vec<PairBatch> {
    microbatches(&pairs.iter().collect::<Vec<_>>(), size, &device())
}

/// All pairs at once.
pub(crate) fn whole(pairs: &[Pair]) -> Vec<PairBatch> {
    batches(pairs, pairs.len())
}

/// log π of whole answers under a frozen model, in the model's precision, as a constant.
pub(crate) fn sums<M: CausalLm>(model: &M, completions: &Completions) -> Tensor<1> {
    let tokens = model.token_log_probs(completions, 1.0).log_probs.without_autodiff();
    sequence_log_probs(tokens, &completions.response.mask)
}

/// The same batch in f64. Anchors keep the digits that f32 left them; give others where that is too few.
pub(crate) fn in_double(batch: &PairBatch) -> PairBatch {
    let double = |tensor: &Tensor<1>| tensor.clone().cast(DType::F64);
    PairBatch {
        completions: batch.completions.clone(),
        anchors: double(&batch.anchors),
        lengths: double(&batch.lengths),
        win_rates: double(&batch.win_rates),
        likelihood: batch.likelihood.as_ref().map(double),
        preference: double(&batch.preference),
    }
}

/// The largest of the absolute values, for tolerances of whole gradients.
pub(crate) fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()))
}
