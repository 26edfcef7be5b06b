//! One group: sample, filter, fit.

use std::time::Instant;

use align_core::draws::Purpose;
use align_core::{Completions, Draws, NextTokens, Policy, Reference, Reward, masked};
use align_models::Detokenize;
use align_train::{Learner, Metrics, TrainError};
use burn::tensor::Tensor;
use rand::seq::SliceRandom;

use crate::config::{GroupPlan, PriorRole, SuperHfConfig};
use crate::error::{SuperHfError, Warning};
use crate::objective::{Minibatch, SuperHfObjective};
use crate::report::{group_metrics, similarity};
use crate::superbatch::{Collector, Completion, Superbatch, by_length};

/// How far from 0 the KL per token may be before the first step: rounding of a prior in half precision is below it, another
/// model is far above.
const START_TOLERANCE: f64 = 1e-3;

/// What a run is put together from: what is trained is generic, what is frozen is boxed.
pub struct SuperHfParts<P> {
    /// The policy at its start.
    pub policy: P,
    /// p_0: where the KL is measured from. A model, [`NoPrior`] where the config says that there is none.
    pub prior: Box<dyn Reference>,
    /// R_train: what is selected by.
    pub reward: Box<dyn Reward>,
    /// R_val, trained on other data: reported as `validation/score` every `validation_interval` groups.
    pub validation: Option<Box<dyn Reward>>,
    /// A judge that is reported as `gold/score` in every group and never selected by.
    pub gold: Option<Box<dyn Reward>>,
    /// The pool of prompts, each with at least one token.
    pub prompts: Vec<Vec<u32>>,
}

/// No prior, for a config whose `prior` is `none`: nothing is measured from it.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPrior;

impl Reference for NoPrior {
    /// NaN: whoever asks all the same is to see it.
    fn log_probs(&self, completions: &Completions, _: f64) -> Tensor<2> {
        let device = completions.response.ids.device();
        Tensor::full(completions.response.ids.dims(), f32::NAN, &device)
    }
}

/// SuperHF: samples completions, keeps what a reward likes best, and fine-tunes on that with a KL to the start.
///
/// One iteration is one group of prompts. Everything random is a function of `seed` and the iteration, so a restored run goes on
/// bit for bit.
///
/// # Source
/// Mukobi et al. 2023, <https://arxiv.org/abs/2310.16763>, and the code released with it.
pub struct SuperHf<P> {
    config: SuperHfConfig,
    plan: GroupPlan,
    draws: Draws,
    pub(crate) policy: Learner<P>,
    prior: Box<dyn Reference>,
    reward: Box<dyn Reward>,
    validation: Option<Box<dyn Reward>>,
    gold: Option<Box<dyn Reward>>,
    prompts: Vec<Vec<u32>>,
    detokenize: Option<Box<dyn Detokenize>>,
    pub(crate) episodes: u64,
    warnings: Vec<Warning>,
    warned_of_turns: bool,
}

impl<P: Policy> SuperHf<P> {
    /// Puts the parts together.
    ///
    /// # Errors
    /// If settings contradict each other or the parts: no prompts or fewer than a group needs, a prior that is no model of the
    /// policy's tokens, reports of a validation judge that is not there, nothing to train.
    pub fn new(parts: SuperHfParts<P>, config: SuperHfConfig) -> Result<Self, SuperHfError> {
        config.check()?;
        if parts.prompts.is_empty() {
            return Err(SuperHfError::NoPrompts);
        }
        let plan = config.plan(parts.prompts.len())?;
        let mut warnings = config.warnings();
        match (config.validation_interval, &parts.validation) {
            (interval @ 1.., None) => return Err(SuperHfError::ValidationMissing { interval }),
            (0, Some(_)) => warnings.push(Warning::ValidationNeverAsked),
            _ => {}
        }
        let superhf = Self {
            draws: Draws::new(config.seed),
            policy: Learner::new(parts.policy, config.optimizer(), plan.groups)?,
            config,
            plan,
            prior: parts.prior,
            reward: parts.reward,
            validation: parts.validation,
            gold: parts.gold,
            prompts: parts.prompts,
            detokenize: None,
            episodes: 0,
            warnings,
            warned_of_turns: false,
        };
        superhf.check_prior()?;
        Ok(superhf)
    }

    /// Gives the text in which stop strings and next turns are looked for, whose characters count and whose words are compared.
    pub fn with_detokenizer(self, detokenize: impl Detokenize + 'static) -> Self {
        Self { detokenize: Some(Box::new(detokenize)), ..self }
    }

    /// The policy as it stands, on the recording device.
    pub fn policy(&self) -> &P {
        self.policy.model()
    }

    /// The policy, for good.
    pub fn into_policy(self) -> P {
        self.policy.into_model()
    }

    /// The settings.
    pub fn config(&self) -> &SuperHfConfig {
        &self.config
    }

    /// The batch sizes spelt out; `groups` is how many iterations make a run.
    pub fn plan(&self) -> &GroupPlan {
        &self.plan
    }

    /// What came up since the last call.
    pub fn take_warnings(&mut self) -> Vec<Warning> {
        std::mem::take(&mut self.warnings)
    }

    /// Samples and scores one group and learns nothing: rejection sampling, best of N.
    ///
    /// # Errors
    /// If nothing can be generated or a judge gives something that is no score.
    pub fn collect(&self, step: u64) -> Result<Superbatch, SuperHfError> {
        let policy = self.policy.model().valid();
        let interval = self.config.validation_interval;
        Collector {
            policy: &policy,
            prior: self.prior(),
            reward: &self.reward,
            gold: self.gold.as_deref(),
            validation: self.validation.as_deref().filter(|_| interval > 0 && step.is_multiple_of(interval)),
            detokenize: self.detokenize.as_deref(),
            config: &self.config,
            plan: &self.plan,
            draws: self.draws,
        }
        .collect(&self.prompts, step)
    }

    /// One group, counted from 0.
    ///
    /// # Errors
    /// As [`collect`](Self::collect); if too many prompts got nothing but empty completions, the prior is not where the policy
    /// starts, or too many optimiser steps fail.
    pub fn iteration(&mut self, step: u64) -> Result<Metrics, SuperHfError> {
        let begun = Instant::now();
        self.warn_of_turns();
        let superbatch = self.collect(step)?;
        self.check_skipped(&superbatch)?;
        let chosen = superbatch.choose(self.config.filter)?;
        let kept = superbatch.kept(&chosen);

        let updating = Instant::now();
        let learnt = self.update(step, &superbatch, &kept)?;
        let updated = updating.elapsed().as_secs_f64();

        let mut metrics = group_metrics(&superbatch, &chosen);
        metrics.merge(learnt);
        if let Some(similarity) = similarity(&superbatch, &kept, &self.draws, step) {
            metrics.set("superhf/similarity", similarity);
        }
        let drawn: usize = superbatch.completions.iter().map(|completion| completion.drawn).sum();
        self.episodes += superbatch.completions.len() as u64;
        let seconds = begun.elapsed().as_secs_f64();
        metrics.set("objective/kl_coef", self.config.beta());
        metrics.set("episode", self.episodes as f64);
        metrics.set("eps", superbatch.completions.len() as f64 / seconds);
        metrics.set("timing_s/update", updated);
        metrics.set("perf/throughput", drawn as f64 / seconds);
        Ok(metrics)
    }

    /// All passes over what was kept: shuffled and cut into minibatches.
    ///
    /// A step whose loss or gradient is not finite changes nothing and is counted; only that is passed over.
    fn update(
        &mut self,
        step: u64,
        superbatch: &Superbatch,
        kept: &[&Completion],
    ) -> Result<Metrics, SuperHfError> {
        let of_pass = kept.len().div_ceil(self.plan.minibatch) as u64;
        let passes = self.config.passes as u64;
        let (mut learnt, mut failed) = (Vec::new(), Vec::new());
        for pass in 0..passes {
            let mut order = kept.to_vec();
            order.shuffle(&mut self.draws.generator(Purpose::Minibatch, step * passes + pass));
            for (index, rows) in (pass * of_pass..).zip(order.chunks(self.plan.minibatch)) {
                match self.plan.single_pass {
                    true => self.policy.hold_schedule(index, passes * of_pass),
                    false => self.policy.hold_schedule(step, self.plan.groups),
                }
                match self.step(superbatch, rows) {
                    Ok(metrics) => learnt.push((1.0, metrics)),
                    Err(SuperHfError::Train(
                        error @ (TrainError::LossNotFinite { .. } | TrainError::GradientNotFinite { .. }),
                    )) => failed.push(error),
                    Err(error) => return Err(error),
                }
            }
        }
        let skipped = failed.len() as f64;
        let limit = self.config.max_skipped_fraction.get() * (passes * of_pass) as f64;
        match failed.pop() {
            Some(error) if skipped > limit || learnt.is_empty() => return Err(error.into()),
            _ => {}
        }
        let mut metrics = Metrics::mean(&learnt);
        if let Some(rate) = learnt.last().and_then(|(_, last)| last.get("lr")) {
            metrics.set("lr", rate);
        }
        metrics.set("superhf/skipped_steps", skipped);
        Ok(metrics)
    }

    /// One optimiser step.
    fn step(&mut self, superbatch: &Superbatch, rows: &[&Completion]) -> Result<Metrics, SuperHfError> {
        let device = self.policy.model().device().without_autodiff();
        let batches: Vec<Completions> =
            by_length(rows, self.plan.microbatch, |completion| superbatch.length(completion))
                .iter()
                .map(|rows| superbatch.batch(rows, &device))
                .collect();
        let tokens: usize = rows.iter().map(|completion| completion.response.len()).sum();
        let settings = self.config.loss();
        let cross_entropy = match settings.inverse_loss > 0.0 {
            true => self.cross_entropy(&batches, tokens),
            false => 0.0,
        };
        let whole = Minibatch { examples: rows.len(), tokens, cross_entropy };
        let objective = SuperHfObjective::new(settings, self.prior(), whole);
        let gradients = self.policy.gradients(&objective, &batches)?;
        let (seen, inverse) = (objective.seen_kl(), objective.inverse_loss());
        let first = self.config.prior == PriorRole::Start && self.policy.steps() == 0;
        // Written as "not within", so that NaN is refused.
        let within = seen.mean() <= START_TOLERANCE;
        if first && !within {
            return Err(SuperHfError::PriorIsNotStart { found: seen.mean(), tolerance: START_TOLERANCE });
        }
        let step = self.policy.apply(gradients)?;
        let taken = ["loss", "loss/ce", "loss/kl", "grad_norm", "lr"];
        let mut metrics: Metrics = taken.iter().filter_map(|name| Some((*name, step.get(name)?))).collect();
        if let Some(found) = inverse {
            metrics.set("superhf/inverse_slope", found.slope);
            metrics.set("superhf/inverse_guarded", f64::from(u8::from(found.guarded)));
        }
        Ok(metrics)
    }

    /// L_CE of a minibatch, without gradients.
    fn cross_entropy(&self, batches: &[Completions], tokens: usize) -> f64 {
        let policy = self.policy.model().valid();
        let sum = |batch: &Completions| -> f64 {
            let log_probs = policy.token_log_probs(batch, 1.0).log_probs;
            masked::sum(log_probs, &batch.response.mask).to_data().iter::<f64>().sum()
        };
        -batches.iter().map(sum).sum::<f64>() / tokens as f64
    }

    /// Unless there is none to ask.
    fn prior(&self) -> Option<&dyn Reference> {
        (self.config.prior != PriorRole::None).then_some(&*self.prior)
    }

    /// The KL is over the whole vocabulary, and both sides have to have one.
    fn check_prior(&self) -> Result<(), SuperHfError> {
        let Some(prior) = self.prior() else { return Ok(()) };
        // Without a token to ask about, sampling will refuse the prompts.
        let Some(prompt) = self.prompts.iter().find(|prompt| !prompt.is_empty()) else { return Ok(()) };
        let device = self.policy.model().device().without_autodiff();
        let asked = Completions::from_rows(std::slice::from_ref(prompt), &[vec![prompt[0]]], &device);
        let distributions: NextTokens<'_> =
            prior.distributions(&asked).ok_or(SuperHfError::PriorWithoutScores)?;
        let [_, _, found] = distributions.scores(0..1).dims();
        let expected = self.policy.model().vocab_size();
        if found == expected { Ok(()) } else { Err(SuperHfError::VocabMismatch { expected, found }) }
    }

    /// Prompts that got nothing but empty completions are left out, up to a share of them and never all.
    fn check_skipped(&self, superbatch: &Superbatch) -> Result<(), SuperHfError> {
        let skipped = superbatch.skipped();
        let Some(&first) = skipped.first() else { return Ok(()) };
        let (prompts, limit) = (superbatch.prompts.len(), self.config.max_skipped_fraction.get());
        if skipped.len() as f64 <= limit * prompts as f64 && skipped.len() < prompts {
            return Ok(());
        }
        let prompt_index = superbatch.pool_index[first];
        Err(SuperHfError::NoValidCompletion { prompt_index, skipped: skipped.len(), prompts, limit })
    }

    fn warn_of_turns(&mut self) {
        let trim = &self.config.trim;
        let looked_for =
            !trim.line_start.is_empty() || !trim.anywhere.is_empty() || trim.blank_line_and_colon;
        if looked_for && self.detokenize.is_none() && !self.warned_of_turns {
            self.warned_of_turns = true;
            self.warnings.push(Warning::TurnsNotLookedFor);
        }
    }
}
