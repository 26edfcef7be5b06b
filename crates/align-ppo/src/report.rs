//! What an iteration says about itself, in TRL's names; every mean is over tokens or responses that count.

use align_core::Regularizer;
use align_core::divergence::{
    Divergence, Kl, KlEstimator, LOG_RATIO_LIMIT, chi_squared_estimate, clamped_fraction,
};
use align_train::Metrics;
use burn::tensor::{Bool, Tensor};

use crate::estimate::Estimates;
use crate::rollout::Rollout;
use crate::value::explained_variance;

/// Numbers of one rollout that the algorithm acts on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Mean KL to the reference by k1, nats per response.
    pub kl: f64,
    /// Mean score as the judge gave it.
    pub score: f64,
    /// Mean response length, tokens.
    pub length: f64,
}

/// Per-token tensors on the host, row by row.
struct Host {
    counts: Vec<bool>,
    width: usize,
    rows: usize,
}

impl Host {
    fn new(mask: &Tensor<2, Bool>) -> Self {
        let [rows, width] = mask.dims();
        Self { counts: mask.to_data().iter::<bool>().collect(), width, rows }
    }

    /// The sum over tokens that count, averaged over responses.
    fn mean_of_sums(&self, tensor: &Tensor<2>) -> f64 {
        self.valid(tensor).iter().sum::<f64>() / self.rows as f64
    }

    /// The mean over tokens that count.
    fn mean(&self, tensor: &Tensor<2>) -> f64 {
        let valid = self.valid(tensor);
        valid.iter().sum::<f64>() / valid.len().max(1) as f64
    }

    fn valid(&self, tensor: &Tensor<2>) -> Vec<f64> {
        let values = tensor.to_data();
        values
            .iter::<f64>()
            .zip(&self.counts)
            .filter(|(_, counts)| **counts)
            .map(|(value, _)| value)
            .collect()
    }

    fn lengths(&self) -> Vec<usize> {
        self.counts.chunks(self.width).map(|row| row.iter().filter(|counts| **counts).count()).collect()
    }
}

/// The numbers the algorithm acts on.
pub fn summarize(rollout: &Rollout) -> Summary {
    let host = Host::new(&rollout.completions.response.mask);
    let lengths = host.lengths();
    Summary {
        kl: host.mean_of_sums(&(rollout.old_log_probs.clone() - rollout.reference_log_probs.clone())),
        score: mean(&rollout.scores),
        length: lengths.iter().sum::<usize>() as f64 / lengths.len() as f64,
    }
}

/// Everything to log about a rollout and its estimates.
pub fn rollout_metrics(
    rollout: &Rollout,
    estimates: &Estimates,
    stop_token_ids: &[u32],
    response_length: usize,
) -> Metrics {
    let mask = &rollout.completions.response.mask;
    let host = Host::new(mask);
    let mut metrics = Metrics::new();
    divergences(&mut metrics, &host, rollout);

    let non_score = -host.mean_of_sums(&estimates.penalties);
    let score = mean(&estimates.scores);
    metrics.set("objective/entropy", -host.mean_of_sums(&rollout.old_log_probs));
    metrics.set("objective/token_entropy", host.mean(&rollout.entropies));
    metrics.set("objective/scores", score);
    metrics.set("objective/scores_raw", mean(&rollout.scores));
    metrics.set("objective/non_score_reward", non_score);
    metrics.set("objective/rlhf_reward", score + non_score);
    if let Some(gold) = &rollout.gold {
        metrics.set("gold/score", mean(gold));
    }
    lengths(&mut metrics, &host, rollout, stop_token_ids, response_length);
    sampler_gap(&mut metrics, &host, rollout);
    if let (Some(values), Some(returns)) = (&rollout.values, &estimates.returns) {
        metrics.set("critic/vf_explained_var", explained_variance(values, returns, mask));
        metrics.set("critic/values_mean", host.mean(values));
        metrics.set("critic/returns_mean", host.mean(returns));
    }
    metrics.set("critic/advantages_mean", host.mean(&estimates.advantages));
    metrics.set("timing_s/generate", rollout.seconds.generate);
    metrics.set("timing_s/log_probs", rollout.seconds.log_probs);
    metrics.set("timing_s/score", rollout.seconds.score);
    metrics
}

/// `objective/kl` by k1, open-instruct's four estimators beside it, and the distance to further anchors.
fn divergences(metrics: &mut Metrics, host: &Host, rollout: &Rollout) {
    let mask = &rollout.completions.response.mask;
    let log_ratio = rollout.old_log_probs.clone() - rollout.reference_log_probs.clone();
    let estimate = |estimator: KlEstimator| host.mean_of_sums(&Kl { estimator }.estimate(log_ratio.clone()));
    let k1 = estimate(KlEstimator::K1);
    metrics.set("objective/kl", k1);
    metrics.set("objective/kl0", k1);
    metrics.set("objective/kl1", estimate(KlEstimator::K2));
    metrics.set("objective/kl2", estimate(KlEstimator::K3));
    // Importance-weighted: draws come from the sampler's distribution, the divergence is the policy's.
    let weight = (rollout.old_log_probs.clone() - rollout.sampled_log_probs.clone()).exp();
    metrics.set("objective/kl3", host.mean_of_sums(&(weight * log_ratio.clone())));
    metrics.set("divergence/log_ratio_clipfrac", clamped_fraction(&log_ratio, mask));
    for (name, anchor) in &rollout.anchor_log_probs {
        let log_ratio = rollout.old_log_probs.clone() - anchor.clone();
        metrics.set(format!("objective/kl_to_{name}"), host.mean_of_sums(&log_ratio));
    }
}

/// The distance of whole responses, whatever the regulariser is, and how often log-ratios overflowed: `regularizer/chi_squared`
/// by [`chi_squared_estimate`], its root, `regularizer/sequence_clampfrac` beyond ±20, and `regularizer/clampfrac` at the
/// regulariser's own granularity and limit. The KL of whole responses is `objective/kl`.
pub fn regularizer_metrics(metrics: &mut Metrics, rollout: &Rollout, regularizer: &Regularizer) {
    let mask = &rollout.completions.response.mask;
    let log_ratio = rollout.old_log_probs.clone() - rollout.reference_log_probs.clone();
    let whole = log_ratio.clone().mask_fill(mask.clone().bool_not(), 0.0).sum_dim(1);
    // Counted inside, so that NaN is outside.
    let inside = whole.to_data().iter::<f64>().filter(|d| d.abs() <= LOG_RATIO_LIMIT).count();
    let chi_squared: Vec<f64> = chi_squared_estimate(whole).to_data().iter::<f64>().collect();
    let responses = chi_squared.len();
    let chi_squared = mean(&chi_squared);
    metrics.set("regularizer/chi_squared", chi_squared);
    metrics.set("regularizer/sqrt_chi_squared", chi_squared.sqrt());
    metrics.set("regularizer/sequence_clampfrac", (responses - inside) as f64 / responses as f64);
    metrics.set("regularizer/clampfrac", regularizer.clamped_fraction(&log_ratio, mask));
}

/// Lengths, stops and empty responses.
fn lengths(
    metrics: &mut Metrics,
    host: &Host,
    rollout: &Rollout,
    stop_token_ids: &[u32],
    response_length: usize,
) {
    let lengths = host.lengths();
    let rows = lengths.len() as f64;
    let stop_tokens = rollout.completions.response.rows();
    let stop_tokens = stop_tokens.iter().flatten().filter(|id| stop_token_ids.contains(id)).count();
    let cut_off =
        lengths.iter().zip(&rollout.stopped).filter(|(l, s)| **l >= response_length && !**s).count();
    metrics.set("response_length/mean", lengths.iter().sum::<usize>() as f64 / rows);
    metrics.set("response_length/max", lengths.iter().max().copied().unwrap_or(0) as f64);
    metrics.set("response_length/min", lengths.iter().min().copied().unwrap_or(0) as f64);
    metrics.set("response_length/clip_ratio", cut_off as f64 / rows);
    metrics.set("val/num_eos_tokens", stop_tokens as f64);
    metrics.set("val/stop_token_rate", rollout.stopped.iter().filter(|s| **s).count() as f64 / rows);
    let empty = rollout.content_lengths.iter().filter(|length| **length == 0).count();
    metrics.set("val/num_empty_responses", empty as f64);
}

/// How far the sampler's probabilities are from the trainer's, token by token.
fn sampler_gap(metrics: &mut Metrics, host: &Host, rollout: &Rollout) {
    let gap = (rollout.raw_log_probs.clone().exp() - rollout.old_log_probs.clone().exp()).abs();
    let gap = host.valid(&gap);
    let average = mean(&gap);
    let variance =
        gap.iter().map(|g| (g - average) * (g - average)).sum::<f64>() / (gap.len().max(2) - 1) as f64;
    metrics.set("training/rollout_probs_diff_mean", average);
    metrics.set("training/rollout_probs_diff_max", gap.iter().copied().fold(0.0, f64::max));
    metrics.set("training/rollout_probs_diff_std", variance.sqrt());
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
