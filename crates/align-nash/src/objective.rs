//! What an optimiser step on pairs minimises.

use align_core::CausalLm;
use align_train::{Loss, Metrics, Objective};
use burn::tensor::Tensor;

use crate::batch::{PairBatch, answer_log_probs};
use crate::pair_loss::{PairLoss, PairView, halves};

/// The mean of a [`PairLoss`] over pairs; log-probabilities of whole answers, one pass over both sides together.
///
/// Reports, under TRL's names, `rewards/chosen`, `rewards/rejected`, `rewards/margins` (β times log-ratios to the anchor, of whole
/// answers even where IPO divides by lengths; for SimPO β times mean token log-probabilities; the chosen answer is the one that is
/// more likely the better), `rewards/accuracies` (a tie counts half), `logps/chosen` and `logps/rejected` (of whole answers), and
/// `margin/mean`, which is `rewards/margins` without β: nats towards the chosen answer.
///
/// Adapters must not drop inputs while pairs are compared: log-ratios would be noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairObjective {
    /// Which loss.
    pub loss: PairLoss,
    /// Multiplies loss and gradient and moves no minimum; 1 unless the loss has a scale of its own to be undone.
    pub scale: f64,
}

impl PairObjective {
    /// The loss as it is.
    pub fn new(loss: PairLoss) -> Self {
        Self { loss, scale: 1.0 }
    }
}

impl<M: CausalLm> Objective<M> for PairObjective {
    type Batch = PairBatch;

    fn loss(&self, model: &M, batch: &PairBatch) -> Loss {
        let log_probs = answer_log_probs(model, &batch.completions);
        let view = PairView {
            log_probs: log_probs.clone(),
            anchors: batch.anchors.clone(),
            lengths: batch.lengths.clone(),
            win_rates: batch.win_rates.clone(),
            preference: batch.preference.clone(),
        };
        let pair = self.loss.per_pair(&view).sum() * self.scale;
        let metrics = metrics(&self.loss, &view);
        let loss = match &batch.likelihood {
            None => Loss::new(pair, batch.pairs() as f64),
            Some(coefficients) => {
                let likelihood = (log_probs * coefficients.clone()).sum() * self.scale;
                Loss::new(pair.clone() + likelihood.clone(), batch.pairs() as f64)
                    .with_term("preference", pair)
                    .with_term("likelihood", likelihood)
            }
        };
        loss.with_metrics(metrics)
    }
}

fn metrics(loss: &PairLoss, view: &PairView) -> Metrics {
    let host = |of: &Tensor<1>| -> [Vec<f64>; 2] {
        halves(of.clone().without_autodiff()).map(|half| half.into_data().iter::<f64>().collect())
    };
    let (both, anchors, lengths) = (host(&view.log_probs), host(&view.anchors), host(&view.lengths));
    let preference: Vec<f64> = view.preference.to_data().iter::<f64>().collect();
    let count = preference.len() as f64;
    // Chosen and rejected, log-probability and log-ratio.
    let sides = |at: usize| {
        let rows = [0, 1].map(|side: usize| {
            let log_prob = both[side][at];
            (log_prob, loss.log_ratio(log_prob, anchors[side][at], lengths[side][at]))
        });
        if preference[at] >= 0.5 { rows } else { [rows[1], rows[0]] }
    };
    let (mut log_probs, mut ratios, mut right) = ([0.0; 2], [0.0; 2], 0.0);
    for at in 0..preference.len() {
        let rows = sides(at);
        for (side, (log_prob, ratio)) in rows.into_iter().enumerate() {
            log_probs[side] += log_prob;
            ratios[side] += ratio;
        }
        right += match rows[0].1.partial_cmp(&rows[1].1) {
            Some(std::cmp::Ordering::Greater) => 1.0,
            Some(std::cmp::Ordering::Equal) => 0.5,
            _ => 0.0,
        };
    }
    let beta = loss.beta();
    let [log_probs, ratios] = [log_probs, ratios].map(|sums| sums.map(|sum| sum / count));
    Metrics::new()
        .with("rewards/chosen", beta * ratios[0])
        .with("rewards/rejected", beta * ratios[1])
        .with("rewards/margins", beta * (ratios[0] - ratios[1]))
        .with("rewards/accuracies", right / count)
        .with("logps/chosen", log_probs[0])
        .with("logps/rejected", log_probs[1])
        .with("margin/mean", ratios[0] - ratios[1])
}

/// Nash-MD's step: REINFORCE on the chance to beat the mixture, with the KL to the reference in it.
///
/// ```text
/// ∇ = −E_{y~π, y'~mixture} [ (P(y ≻ y') − ½ − β log π(y)/π_ref(y)) ∇ log π(y) ]
/// ```
///
/// The bracket is a constant of the step. A batch's first answers are the policy's own, its second ones are not looked at: give
/// [`ReinforceBatch`] rows. TRL multiplies each token's own log-ratio with that token's gradient instead, which leaves out what a
/// token does to the log-ratios after it; for answers of one token both are the same.
///
/// Reports, under TRL's names, `loss/kl` (the mean log-ratio), `loss/score` (the mean of `(P − ½) log π`) and
/// `rewards/probabilities` (the mean of P, the chance to beat the mixture).
///
/// # Source
/// Munos et al. 2023, section 7, <https://arxiv.org/abs/2312.00886>.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NashMdObjective {
    /// β, the paper's τ.
    pub beta: f64,
}

/// Answers of the policy and how they fared. All constants.
#[derive(Clone, Debug)]
pub struct ReinforceBatch {
    /// The policy's answers, B rows.
    pub completions: align_core::Completions,
    /// log π_ref of whole answers, `[B]`.
    pub reference: Tensor<1>,
    /// P(answer ≻ the mixture's), `[B]`.
    pub preference: Tensor<1>,
}

impl<M: CausalLm> Objective<M> for NashMdObjective {
    type Batch = ReinforceBatch;

    fn loss(&self, model: &M, batch: &ReinforceBatch) -> Loss {
        let log_probs = answer_log_probs(model, &batch.completions);
        let log_ratio = log_probs.clone().without_autodiff() - batch.reference.clone();
        let count = log_ratio.dims()[0] as f64;
        let mean = |of: &Tensor<1>| of.to_data().iter::<f64>().sum::<f64>() / count;
        let centred = batch.preference.clone() - 0.5;
        let metrics = Metrics::new()
            .with("loss/kl", mean(&log_ratio))
            .with("loss/score", mean(&(log_probs.clone().without_autodiff() * centred.clone())))
            .with("rewards/probabilities", mean(&batch.preference));
        let advantage = centred - log_ratio * self.beta;
        Loss::new((log_probs * advantage).sum().neg(), count).with_metrics(metrics)
    }
}
