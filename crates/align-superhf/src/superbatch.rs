//! Sampling: prompts are chosen and answered, answers ended and judged.
//!
//! The prior is asked about the first `kl_samples` samples of each prompt only; the log-probabilities of the policy are the
//! sampler's own, so that the policy makes no second pass.

use std::time::Instant;

use align_core::{CausalLm, Completions, Draws, Reference, Reward};
use align_models::{Detokenize, GenerateOptions, Generation, Prompt, choose_prompts, generate};
use burn::tensor::Device;

use crate::config::{GroupPlan, LengthUnit, SuperHfConfig};
use crate::ending::{Ended, Ending, end};
use crate::error::{Judge, SuperHfError};
use crate::filter::{Chosen, Filter};

/// One sampled completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// Index of its prompt in [`Superbatch::prompts`].
    pub prompt: usize,
    /// Which of the prompt's samples.
    pub sample: usize,
    /// What is scored and learnt: cut where a next turn began, with a stop token unless it hit the longest length.
    pub response: Vec<u32>,
    /// Tokens of the answer, without its stop token.
    pub content_length: usize,
    /// How it ended.
    pub ending: Ending,
    /// The answer as text, without white space around it; only with a tokenizer.
    pub text: Option<String>,
    /// Tokens drawn, those that were cut off included.
    pub drawn: usize,
    /// log p_θ of all tokens drawn, at the sampling temperature, nats.
    pub log_prob: f64,
    /// As the reward gave it; `None` for a completion that was dropped as empty.
    pub score: Option<f64>,
    /// The score minus what length costs: what is selected by.
    pub penalized: Option<f64>,
    /// The gold judge's score, for the log.
    pub gold: Option<f64>,
    /// The validation judge's score, for the log.
    pub validation: Option<f64>,
}

impl Completion {
    /// Nothing but its end, or nothing but white space.
    pub fn is_empty(&self) -> bool {
        self.content_length == 0 || self.text.as_deref() == Some("")
    }
}

/// The samples of one group, scored.
#[derive(Clone, Debug)]
pub struct Superbatch {
    /// M prompts.
    pub prompts: Vec<Prompt>,
    /// The place of each prompt in the pool.
    pub pool_index: Vec<usize>,
    /// M·N completions, those of one prompt side by side.
    pub completions: Vec<Completion>,
    /// log p_θ − log p_0 of whole responses as drawn, nats, for the samples it was measured on. Their mean estimates the
    /// KL of the policy from the prior (k1); where `top_p` filters, of what the filter lets through.
    pub log_ratios: Vec<f64>,
    /// What the reward noticed, by metric.
    pub judge_metrics: Vec<(String, f64)>,
    /// Where the time went.
    pub seconds: Seconds,
}

/// Seconds of sampling, of the prior's pass and of judging.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seconds {
    /// Drawing completions.
    pub generate: f64,
    /// The prior's log-probabilities.
    pub log_probs: f64,
    /// Judging.
    pub score: f64,
}

impl Superbatch {
    /// What a filter keeps.
    ///
    /// # Errors
    /// As [`Filter::choose`], with the prompt named by its place in the pool.
    pub fn choose(&self, filter: Filter) -> Result<Chosen, SuperHfError> {
        let samples = self.completions.len() / self.prompts.len();
        let scores: Vec<Vec<Option<f64>>> = self
            .completions
            .chunks(samples)
            .map(|row| row.iter().map(|completion| completion.penalized).collect())
            .collect();
        filter.choose(&scores).map_err(|error| match error {
            SuperHfError::NonFiniteScore { judge, prompt_index, completion_index, found } => {
                let prompt_index = self.pool_index[prompt_index];
                SuperHfError::NonFiniteScore { judge, prompt_index, completion_index, found }
            }
            error => error,
        })
    }

    /// The completions that were kept, best first within a prompt.
    pub fn kept<'a>(&'a self, chosen: &'a Chosen) -> Vec<&'a Completion> {
        let samples = self.completions.len() / self.prompts.len();
        let of_prompt = |(prompt, kept): (usize, &'a Vec<usize>)| {
            kept.iter().map(move |sample| &self.completions[prompt * samples + sample])
        };
        chosen.kept.iter().enumerate().flat_map(of_prompt).collect()
    }

    /// Prompts all of whose completions were dropped, by their place in [`prompts`](Self::prompts).
    pub(crate) fn skipped(&self) -> Vec<usize> {
        let samples = self.completions.len() / self.prompts.len();
        let rows = self.completions.chunks(samples).enumerate();
        rows.filter(|(_, row)| row.iter().all(|completion| completion.score.is_none()))
            .map(|(prompt, _)| prompt)
            .collect()
    }

    /// Completions as a batch.
    pub(crate) fn batch(&self, rows: &[&Completion], device: &Device) -> Completions {
        let prompts: Vec<_> = rows.iter().map(|row| self.prompts[row.prompt].ids.clone()).collect();
        let responses: Vec<_> = rows.iter().map(|row| row.response.clone()).collect();
        Completions::from_rows(&prompts, &responses, device)
    }

    /// Tokens of prompt and response.
    pub(crate) fn length(&self, completion: &Completion) -> usize {
        self.prompts[completion.prompt].ids.len() + completion.response.len()
    }
}

/// Rows in runs of `size`, rows of like length together, so that little is padded.
pub(crate) fn by_length<T: Copy>(rows: &[T], size: usize, length: impl Fn(T) -> usize) -> Vec<Vec<T>> {
    let mut rows = rows.to_vec();
    rows.sort_by_key(|&row| length(row));
    rows.chunks(size).map(<[T]>::to_vec).collect()
}

/// What it takes to sample a group.
pub(crate) struct Collector<'a> {
    /// The policy on the plain device.
    pub(crate) policy: &'a dyn CausalLm,
    /// Unless there is none to ask.
    pub(crate) prior: Option<&'a dyn Reference>,
    pub(crate) reward: &'a dyn Reward,
    pub(crate) gold: Option<&'a dyn Reward>,
    /// In the groups in which it is due.
    pub(crate) validation: Option<&'a dyn Reward>,
    pub(crate) detokenize: Option<&'a dyn Detokenize>,
    pub(crate) config: &'a SuperHfConfig,
    pub(crate) plan: &'a GroupPlan,
    pub(crate) draws: Draws,
}

impl Collector<'_> {
    /// One group.
    pub(crate) fn collect(&self, pool: &[Vec<u32>], step: u64) -> Result<Superbatch, SuperHfError> {
        let counts_characters = self.config.length_penalty.get() > 0.0
            && self.config.length_penalty_unit == LengthUnit::Characters;
        if counts_characters && self.detokenize.is_none() {
            return Err(SuperHfError::NoText { setting: "length_penalty" });
        }
        let begun = Instant::now();
        let prompts = choose_prompts(&self.draws, pool, step, self.plan.prompts);
        let generation = self.generate(&prompts, step)?;
        let completions = generation.rows.iter().map(|row| {
            let Ended { response, content_length, ending, text } = end(row, self.config, self.detokenize);
            Completion {
                prompt: row.prompt_index,
                sample: row.sample,
                response,
                content_length,
                ending,
                text,
                drawn: row.response.len(),
                log_prob: row.raw_log_probs.iter().map(|log| f64::from(*log)).sum(),
                score: None,
                penalized: None,
                gold: None,
                validation: None,
            }
        });
        let mut superbatch = Superbatch {
            pool_index: prompts.iter().map(|prompt| (prompt.key % pool.len() as u64) as usize).collect(),
            completions: completions.collect(),
            prompts,
            log_ratios: Vec::new(),
            judge_metrics: Vec::new(),
            seconds: Seconds { generate: begun.elapsed().as_secs_f64(), ..Seconds::default() },
        };

        let begun = Instant::now();
        superbatch.log_ratios = self.log_ratios(&generation);
        superbatch.seconds.log_probs = begun.elapsed().as_secs_f64();

        let begun = Instant::now();
        self.score(&mut superbatch)?;
        superbatch.seconds.score = begun.elapsed().as_secs_f64();
        Ok(superbatch)
    }

    fn generate(&self, prompts: &[Prompt], step: u64) -> Result<Generation, SuperHfError> {
        let sampling = self.config.sampling();
        let options = GenerateOptions {
            samples: self.plan.samples,
            // Decoding keeps no activations, so more rows fit than in a training microbatch.
            slots: (4 * self.plan.microbatch).min(self.plan.rollout()),
            step,
            detokenize: self.detokenize.filter(|_| !sampling.stop_strings.is_empty()),
            ..GenerateOptions::new(&sampling, self.draws)
        };
        Ok(generate(self.policy, prompts, &options)?)
    }

    /// log p_θ − log p_0 of the first samples of each prompt, as drawn.
    fn log_ratios(&self, generation: &Generation) -> Vec<f64> {
        let Some(prior) = self.prior else { return Vec::new() };
        let device = self.policy.device().without_autodiff();
        let measured: Vec<_> =
            generation.rows.iter().filter(|row| row.sample < self.plan.kl_samples).collect();
        let batches = by_length(&measured, self.plan.microbatch, |row| row.prompt.len() + row.response.len());
        let ratios = batches.iter().flat_map(|rows| {
            let prompts: Vec<_> = rows.iter().map(|row| row.prompt.clone()).collect();
            let responses: Vec<_> = rows.iter().map(|row| row.response.clone()).collect();
            let completions = Completions::from_rows(&prompts, &responses, &device);
            let prior = prior.log_probs(&completions, self.config.temperature.get()).sum_dim(1);
            let prior: Vec<f64> = prior.to_data().iter::<f64>().collect();
            let of_policy =
                rows.iter().map(|row| row.raw_log_probs.iter().map(|log| f64::from(*log)).sum::<f64>());
            of_policy.zip(prior).map(|(policy, prior)| policy - prior).collect::<Vec<_>>()
        });
        ratios.collect()
    }

    /// Drops what is empty and asks the judges about the rest.
    fn score(&self, superbatch: &mut Superbatch) -> Result<(), SuperHfError> {
        let rows: Vec<usize> = (0..superbatch.completions.len())
            .filter(|&row| !superbatch.completions[row].is_empty())
            .collect();
        let scores = self.judge(Judge::Reward, self.reward, superbatch, &rows)?;
        superbatch.judge_metrics = self.reward.take_metrics();
        let ask = |judge, reward: Option<&dyn Reward>| {
            reward.map(|reward| self.judge(judge, reward, superbatch, &rows)).transpose()
        };
        let (gold, validation) = (ask(Judge::Gold, self.gold)?, ask(Judge::Validation, self.validation)?);
        for (place, &row) in rows.iter().enumerate() {
            let completion = &mut superbatch.completions[row];
            let length = match (self.config.length_penalty_unit, &completion.text) {
                (LengthUnit::Characters, Some(text)) => text.chars().count(),
                _ => completion.content_length,
            };
            completion.score = Some(scores[place]);
            completion.penalized = Some(scores[place] - self.config.length_cost(length));
            completion.gold = gold.as_ref().map(|gold| gold[place]);
            completion.validation = validation.as_ref().map(|validation| validation[place]);
        }
        Ok(())
    }

    /// One finite score for each of the given rows.
    fn judge(
        &self,
        judge: Judge,
        reward: &dyn Reward,
        superbatch: &Superbatch,
        rows: &[usize],
    ) -> Result<Vec<f64>, SuperHfError> {
        let device = self.policy.device().without_autodiff();
        let places: Vec<usize> = (0..rows.len()).collect();
        let completion = |place: usize| &superbatch.completions[rows[place]];
        let mut scores = vec![0.0; rows.len()];
        for batch in by_length(&places, self.plan.microbatch, |place| superbatch.length(completion(place))) {
            let completions: Vec<_> = batch.iter().map(|&place| completion(place)).collect();
            let given = reward.score(&superbatch.batch(&completions, &device));
            let given: Vec<f64> = given.into_data().iter::<f64>().collect();
            if given.len() != batch.len() {
                return Err(SuperHfError::ScoreCount { judge, expected: batch.len(), found: given.len() });
            }
            batch.iter().zip(given).for_each(|(&place, score)| scores[place] = score);
        }
        match scores.iter().position(|score| !score.is_finite()) {
            None => Ok(scores),
            Some(place) => Err(match reward.take_failure() {
                Some(reason) => SuperHfError::JudgeFailed { judge, reason },
                None => SuperHfError::NonFiniteScore {
                    judge,
                    prompt_index: superbatch.pool_index[completion(place).prompt],
                    completion_index: completion(place).sample,
                    found: scores[place],
                },
            }),
        }
    }
}
