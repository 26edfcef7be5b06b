//! What a group says about itself, in the names of this workspace's PPO where it has one.
//!
//! Scores are over **all** completions that were scored: the mean of those kept rises with N even if the policy learns nothing.

use align_core::Draws;
use align_train::Metrics;

use crate::ending::Ending;
use crate::filter::Chosen;
use crate::meteor::{Meteor, mean_similarity};
use crate::superbatch::{Completion, Superbatch};

/// Ordered pairs that a group's similarity is a mean of, at most: their number is quadratic in the completions kept.
const SIMILARITY_PAIRS: usize = 200;

/// Everything to log about a group's samples and what the filter kept of them.
pub fn group_metrics(superbatch: &Superbatch, chosen: &Chosen) -> Metrics {
    let all = &superbatch.completions;
    let kept = superbatch.kept(chosen);
    let mut metrics = Metrics::new();
    let scores: Vec<f64> = all.iter().filter_map(|completion| completion.penalized).collect();
    metrics.set("objective/scores", mean(&scores));
    metrics.set("objective/scores_std", deviation(&scores));
    for (name, of) in [
        ("objective/scores_raw", (|completion| completion.score) as fn(&Completion) -> Option<f64>),
        ("gold/score", |completion| completion.gold),
        ("validation/score", |completion| completion.validation),
    ] {
        let found: Vec<f64> = all.iter().filter_map(of).collect();
        if !found.is_empty() {
            metrics.set(name, mean(&found));
        }
    }
    let of_kept: Vec<f64> = kept.iter().filter_map(|completion| completion.penalized).collect();
    if !of_kept.is_empty() {
        metrics.set("objective/scores_kept", mean(&of_kept));
    }
    let log_probs: Vec<f64> = all.iter().map(|completion| completion.log_prob).collect();
    metrics.set("objective/entropy", -mean(&log_probs));
    if !superbatch.log_ratios.is_empty() {
        metrics.set("objective/kl", mean(&superbatch.log_ratios));
    }
    lengths(&mut metrics, all);

    metrics.set("superhf/kept", kept.len() as f64);
    metrics.set("superhf/ties", chosen.ties as f64);
    metrics.set("superhf/constant_prompts", chosen.constant as f64);
    metrics.set("superhf/skipped_prompts", superbatch.skipped().len() as f64);
    superbatch.judge_metrics.iter().for_each(|(name, value)| metrics.set(name.as_str(), *value));
    metrics.set("timing_s/generate", superbatch.seconds.generate);
    metrics.set("timing_s/log_probs", superbatch.seconds.log_probs);
    metrics.set("timing_s/score", superbatch.seconds.score);
    metrics
}

/// Lengths and ends, of responses as they are scored and learnt.
fn lengths(metrics: &mut Metrics, all: &[Completion]) {
    let rows = all.len() as f64;
    let lengths: Vec<f64> = all.iter().map(|completion| completion.response.len() as f64).collect();
    let share = |of: Ending| all.iter().filter(|completion| completion.ending == of).count() as f64 / rows;
    metrics.set("response_length/mean", mean(&lengths));
    metrics.set("response_length/max", lengths.iter().copied().fold(0.0, f64::max));
    metrics.set("response_length/min", lengths.iter().copied().fold(f64::INFINITY, f64::min));
    metrics.set("response_length/clip_ratio", share(Ending::Length));
    metrics.set("val/stop_token_rate", share(Ending::Stop));
    metrics.set("superhf/turn_rate", share(Ending::Turn));
    let empty = all.iter().filter(|completion| completion.is_empty()).count();
    metrics.set("val/num_empty_responses", empty as f64);
}

/// How alike the kept completions of different prompts are, by METEOR with exact matches: near 0.05 in a healthy model of English,
/// rising with collapse. Without text the tokens' ids are the words, and only the course of the number means something.
///
/// `None` if fewer than two prompts have one.
pub fn similarity(superbatch: &Superbatch, kept: &[&Completion], draws: &Draws, step: u64) -> Option<f64> {
    let texts: Vec<(u64, String)> = kept
        .iter()
        .map(|completion| {
            let words = || {
                let content = &completion.response[..completion.content_length];
                content.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
            };
            let text = completion.text.clone().unwrap_or_else(words);
            (superbatch.pool_index[completion.prompt] as u64, text)
        })
        .collect();
    let texts: Vec<(u64, &str)> = texts.iter().map(|(prompt, text)| (*prompt, text.as_str())).collect();
    mean_similarity(&Meteor::exact(), &texts, SIMILARITY_PAIRS, draws, step)
}

/// A score of the published test reward on the scale of the paper's figures.
///
/// # Source
/// The normalisation of the released code: `R_test + 2.22`.
pub fn published_test_scale(score: f64) -> f64 {
    score + 2.22
}

/// A score of the published training reward on the scale of the paper's figures: `(R_train + 2.65) · 1.94 / 2.44`.
///
/// # Source
/// As [`published_test_scale`].
pub fn published_train_scale(score: f64) -> f64 {
    (score + 2.65) * 1.94 / 2.44
}

/// 0 of nothing.
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// That of a sample, n − 1; 0 of a single value.
fn deviation(values: &[f64]) -> f64 {
    let centre = mean(values);
    let squares: f64 = values.iter().map(|value| (value - centre) * (value - centre)).sum();
    (squares / (values.len().max(2) - 1) as f64).sqrt()
}
