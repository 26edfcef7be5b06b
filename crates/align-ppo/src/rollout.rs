//! Collecting: prompts are chosen and answered, answers judged, log-probabilities and values noted.
//!
//! Everything here is a constant on the plain device. Old log-probabilities come from the trainer's own forward pass; the
//! sampler's are kept beside them, so that the gap between the two can be reported.

use std::time::Instant;

use align_core::{CausalLm, Completions, Draws, Reference, Reward};
use align_models::{Detokenize, GenerateOptions, SamplingConfig, choose_prompts, generate};
use burn::tensor::Tensor;

use crate::config::{BatchPlan, PpoConfig};
use crate::error::PpoError;
use crate::rewards::finite_scores;

/// What one iteration learns from.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// Prompts and responses, the responses of one prompt side by side. A response ends with its first stop token, or with the
    /// token that completes a stop string.
    pub completions: Completions,
    /// Whether each response ended with a stop token or a stop string.
    pub stopped: Vec<bool>,
    /// How many tokens each response has before its stop token.
    pub content_lengths: Vec<usize>,
    /// log π_old by the trainer's forward pass, `[B, R]`.
    pub old_log_probs: Tensor<2>,
    /// Entropy of π_old before each token, `[B, R]`.
    pub entropies: Tensor<2>,
    /// log π_old by the sampler's forward pass, `[B, R]`.
    pub raw_log_probs: Tensor<2>,
    /// Log-probabilities of what the sampler drew from, after its filters, `[B, R]`.
    pub sampled_log_probs: Tensor<2>,
    /// log π_ref, `[B, R]`.
    pub reference_log_probs: Tensor<2>,
    /// Log-probabilities under further anchors, for the log only.
    pub anchor_log_probs: Vec<(String, Tensor<2>)>,
    /// V_old, `[B, R]`, if there is a critic.
    pub values: Option<Tensor<2>>,
    /// The judge's scores.
    pub scores: Vec<f64>,
    /// The gold judge's scores, for the log only.
    pub gold: Option<Vec<f64>>,
    /// What the judge noticed, by metric: how far an ensemble's members were apart, say.
    pub judge_metrics: Vec<(String, f64)>,
    /// Seconds of generating, of forward passes and of judging.
    pub seconds: Seconds,
}

/// Where the time of a rollout went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seconds {
    /// Drawing responses.
    pub generate: f64,
    /// Old, reference and anchor log-probabilities, and values.
    pub log_probs: f64,
    /// Judging.
    pub score: f64,
}

/// What it takes to collect.
pub(crate) struct Collector<'a> {
    /// The policy on the plain device.
    pub(crate) policy: &'a dyn CausalLm,
    /// V, if there is a critic.
    pub(crate) values: Option<&'a dyn Fn(&Completions) -> Tensor<2>>,
    /// log π_ref.
    pub(crate) reference: &'a dyn Fn(&Completions) -> Tensor<2>,
    pub(crate) anchors: &'a [(String, Box<dyn Reference>)],
    pub(crate) reward: &'a dyn Reward,
    pub(crate) gold: Option<&'a dyn Reward>,
    pub(crate) detokenize: Option<&'a dyn Detokenize>,
    pub(crate) config: &'a PpoConfig,
    pub(crate) plan: &'a BatchPlan,
    pub(crate) draws: Draws,
}

/// How rollouts are sampled: the trainer's temperature, and every filter the config asks for.
pub fn sampling(config: &PpoConfig) -> SamplingConfig {
    SamplingConfig {
        top_k: config.top_k,
        ..SamplingConfig::for_rollouts(
            config.temperature,
            config.top_p,
            config.response_length,
            &config.stop_token_ids,
            &config.stop_strings,
        )
    }
}

impl Collector<'_> {
    /// One rollout.
    pub(crate) fn collect(&self, pool: &[Vec<u32>], iteration: u64) -> Result<Rollout, PpoError> {
        let begun = Instant::now();
        let prompts = choose_prompts(&self.draws, pool, iteration, self.plan.prompts);
        let sampling = sampling(self.config);
        let options = GenerateOptions {
            samples: self.config.num_generations,
            // Decoding keeps no activations, so more rows fit than in a training microbatch.
            slots: (4 * self.plan.microbatch).min(self.plan.rollout_batch),
            step: iteration,
            detokenize: self.detokenize,
            ..GenerateOptions::new(&sampling, self.draws)
        };
        let generation = generate(self.policy, &prompts, &options)?;
        let device = self.policy.device().without_autodiff();
        let completions = generation.to_completions(&device);
        let generated = begun.elapsed().as_secs_f64();

        let begun = Instant::now();
        let temperature = self.config.temperature.get();
        let size = self.plan.microbatch;
        let old: Vec<_> = microbatches(completions.batch_size(), size)
            .map(|rows| self.policy.token_log_probs(&completions.select(&rows), temperature))
            .collect();
        let entropies = Tensor::cat(old.iter().map(|part| part.entropies.clone()).collect(), 0);
        let old_log_probs = Tensor::cat(old.into_iter().map(|part| part.log_probs).collect(), 0);
        let over = |f: &dyn Fn(&Completions) -> Tensor<2>| {
            let parts =
                microbatches(completions.batch_size(), size).map(|rows| f(&completions.select(&rows)));
            Tensor::cat(parts.collect(), 0).without_autodiff()
        };
        let reference_log_probs = over(self.reference);
        let anchor_log_probs = self
            .anchors
            .iter()
            .map(|(name, anchor)| (name.clone(), over(&|batch| anchor.log_probs(batch, temperature))))
            .collect();
        let values = self.values.map(over);
        let passed = begun.elapsed().as_secs_f64();

        let begun = Instant::now();
        let scores = self.judge(self.reward, &completions)?;
        let judge_metrics = self.reward.take_metrics();
        let gold = self.gold.map(|gold| self.judge(gold, &completions)).transpose()?;
        let judged = begun.elapsed().as_secs_f64();

        let stops = &self.config.stop_token_ids;
        let content = |row: &Vec<u32>| row.iter().filter(|id| !stops.contains(id)).count();
        Ok(Rollout {
            stopped: generation.stopped(),
            content_lengths: generation.rows.iter().map(|row| content(&row.response)).collect(),
            raw_log_probs: generation.raw_log_probs(&device),
            sampled_log_probs: generation.sampled_log_probs(&device),
            completions,
            old_log_probs,
            entropies,
            reference_log_probs,
            anchor_log_probs,
            values,
            scores,
            gold,
            judge_metrics,
            seconds: Seconds { generate: generated, log_probs: passed, score: judged },
        })
    }

    /// One finite score for each response.
    fn judge(&self, judge: &dyn Reward, completions: &Completions) -> Result<Vec<f64>, PpoError> {
        let rows = completions.batch_size();
        let parts: Vec<_> = microbatches(rows, self.plan.microbatch)
            .map(|rows| judge.score(&completions.select(&rows)).without_autodiff())
            .collect();
        let scores = finite_scores(Tensor::cat(parts, 0)).map_err(|error| match judge.take_failure() {
            Some(reason) => PpoError::JudgeFailed { reason },
            None => error,
        })?;
        if scores.len() != rows {
            return Err(PpoError::ScoreCount { expected: rows, found: scores.len() });
        }
        Ok(scores)
    }
}

/// Row numbers `0..rows` in runs of `size`.
fn microbatches(rows: usize, size: usize) -> impl Iterator<Item = Vec<usize>> {
    (0..rows).step_by(size).map(move |first| (first..(first + size).min(rows)).collect())
}
