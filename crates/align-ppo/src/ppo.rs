//! One iteration: collect, judge, learn.

use std::time::Instant;

use align_core::draws::Purpose;
use align_core::regularizer::Site;
use align_core::{Completions, Critic, Draws, Policy, Reference, Regularizer, Reward};
use align_models::Detokenize;
use align_train::{Learner, Metrics};
use rand::seq::SliceRandom;

use crate::anchor::Anchor;
use crate::config::{BatchPlan, PpoConfig};
use crate::critic::NoCritic;
use crate::error::{DISAGREEMENT, Degeneration, PpoError, Warning};
use crate::estimate::{Estimates, estimate};
use crate::objective::{CriticBatch, CriticObjective, Lengths, PolicyBatch, PolicyObjective};
use crate::occupancy::{self, Base};
use crate::report::{Summary, regularizer_metrics, rollout_metrics, summarize};
use crate::rewards::RunningMoments;
use crate::rollout::{Collector, Rollout};

/// A mean KL below this, in nats per response, is not noise any more.
const NEGATIVE_KL: f64 = -0.05;
/// Iterations between two looks at whether the fixed reference still stands where it stood.
const REFERENCE_CHECK_EVERY: u64 = 16;

/// What a run is put together from: what is trained is generic, what is frozen is boxed.
pub struct PpoParts<P, C = NoCritic> {
    /// The policy at its start.
    pub policy: P,
    /// Predicts returns; for `gae` only. Start it from the reward model.
    pub critic: Option<C>,
    /// Where the regulariser measures from: an SFT model (plain PPO), a soup (SALSA), something that follows the policy.
    pub reference: Anchor<P>,
    /// The judge.
    pub reward: Box<dyn Reward>,
    /// Takes the place of the config's `regularizer`, for divergences that no recipe can name.
    pub regularizer: Option<Regularizer>,
    /// The pool of prompts, each with at least one token.
    pub prompts: Vec<Vec<u32>>,
    /// A judge that is logged as `gold/score` and never trained on.
    pub gold: Option<Box<dyn Reward>>,
    /// Further references whose KL is logged as `objective/kl_to_<name>`.
    pub anchors: Vec<(String, Box<dyn Reference>)>,
}

/// Proximal policy optimisation with any reference, any reward and any divergence.
///
/// One iteration collects `rollout_batch` responses, judges and pays them, and goes through them `num_ppo_epochs` times.
/// Everything random is a function of `seed` and the iteration, so a restored run goes on bit for bit.
///
/// # Source
/// Schulman et al. 2017, <https://arxiv.org/abs/1707.06347>; for language models Ziegler et al. 2019,
/// <https://arxiv.org/abs/1909.08593>; with a soup as reference Chegini et al. 2024 (SALSA),
/// <https://arxiv.org/abs/2411.01798>.
pub struct Ppo<P, C = NoCritic> {
    config: PpoConfig,
    plan: BatchPlan,
    draws: Draws,
    pub(crate) policy: Learner<P>,
    pub(crate) critic: Option<Learner<C>>,
    pub(crate) reference: Anchor<P>,
    reward: Box<dyn Reward>,
    gold: Option<Box<dyn Reward>>,
    anchors: Vec<(String, Box<dyn Reference>)>,
    pub(crate) regularizer: Regularizer,
    prompts: Vec<Vec<u32>>,
    detokenize: Option<Box<dyn Detokenize>>,
    pub(crate) moments: RunningMoments,
    pub(crate) first: Option<(f64, f64)>,
    pub(crate) base: Option<Base>,
    pub(crate) episodes: u64,
    probe: Option<(Completions, f32)>,
    warnings: Vec<Warning>,
}

impl<P: Policy, C: Critic> Ppo<P, C> {
    /// Puts the parts together.
    ///
    /// # Errors
    /// If settings contradict each other or the parts: no prompts, `gae` without a critic or a critic without `gae`, a stop
    /// penalty without stop tokens, nothing to train, a regulariser that is exact over the vocabulary beside a reference that
    /// is no model of the policy's tokens.
    pub fn new(parts: PpoParts<P, C>, config: PpoConfig) -> Result<Self, PpoError> {
        let plan = config.plan()?;
        config.check_stop_tokens()?;
        if parts.prompts.is_empty() {
            return Err(PpoError::NoPrompts);
        }
        match (config.advantage_estimator.needs_critic(), &parts.critic) {
            (true, None) => return Err(PpoError::CriticMissing),
            (false, Some(_)) => return Err(PpoError::CriticUnused),
            _ => {}
        }
        let steps = |iterations: usize| (iterations * plan.steps_per_iteration) as u64;
        let learning = plan.iterations.saturating_sub(config.critic_warmup);
        let policy = Learner::new(parts.policy, config.policy_optimizer(), steps(learning))?;
        let critic = parts
            .critic
            .map(|critic| Learner::new(critic, config.critic_optimizer(), steps(plan.iterations)))
            .transpose()?;
        let regularizer = parts.regularizer.unwrap_or_else(|| config.regularizer());
        config.check_regularizer(&regularizer)?;
        let mut ppo = Self {
            draws: Draws::new(config.seed),
            config,
            plan,
            policy,
            critic,
            reference: parts.reference,
            reward: parts.reward,
            gold: parts.gold,
            anchors: parts.anchors,
            regularizer,
            prompts: parts.prompts,
            detokenize: None,
            moments: RunningMoments::default(),
            first: None,
            base: None,
            episodes: 0,
            probe: None,
            warnings: Vec::new(),
        };
        ppo.check_distributions()?;
        ppo.probe = ppo.take_probe();
        Ok(ppo)
    }

    /// Gives the text in which [`PpoConfig::stop_strings`] are looked for; without it collecting refuses them.
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

    /// The critic as it stands.
    pub fn critic(&self) -> Option<&C> {
        self.critic.as_ref().map(Learner::model)
    }

    /// The reference as it stands.
    pub fn reference(&self) -> &Anchor<P> {
        &self.reference
    }

    /// The settings.
    pub fn config(&self) -> &PpoConfig {
        &self.config
    }

    /// The batch sizes spelt out.
    pub fn plan(&self) -> &BatchPlan {
        &self.plan
    }

    /// β as it stands.
    pub fn beta(&self) -> f64 {
        self.regularizer.coefficient.beta()
    }

    /// What came up since the last call.
    pub fn take_warnings(&mut self) -> Vec<Warning> {
        std::mem::take(&mut self.warnings)
    }

    /// Collects the responses of one iteration and learns nothing.
    ///
    /// # Errors
    /// If nothing can be generated or a reward is not finite.
    pub fn collect(&self, iteration: u64) -> Result<Rollout, PpoError> {
        let policy = self.policy.model().valid();
        let critic = self.critic.as_ref().map(|critic| critic.model().valid());
        let values = critic.as_ref().map(|critic| |completions: &Completions| critic.values(completions));
        let temperature = self.config.temperature.get();
        let reference = |completions: &Completions| self.reference.log_probs(completions, temperature);
        Collector {
            policy: &policy,
            values: values.as_ref().map(|values| values as &dyn Fn(&Completions) -> _),
            reference: &reference,
            anchors: &self.anchors,
            reward: &self.reward,
            gold: self.gold.as_deref(),
            detokenize: self.detokenize.as_deref(),
            config: &self.config,
            plan: &self.plan,
            draws: self.draws,
        }
        .collect(&self.prompts, iteration)
    }

    /// One iteration, counted from 0.
    ///
    /// # Errors
    /// As [`collect`](Self::collect); if an optimiser step fails, the reference moved, an adaptive target is out of reach, β
    /// counts in deviations of a constant reward or the policy degenerated.
    pub fn iteration(&mut self, iteration: u64) -> Result<Metrics, PpoError> {
        let begun = Instant::now();
        self.check_reference(iteration)?;
        let rollout = self.collect(iteration)?;
        let summary = summarize(&rollout);
        let gold = rollout.gold.as_deref();
        let (base, undefined) = match (self.first, self.base) {
            (None, _) => {
                let (base, undefined) = Base::of(&rollout.scores, gold);
                self.regularizer.coefficient.measure(base.reward_std)?;
                (Some(base), undefined)
            }
            (Some(_), base) => (base, None),
        };
        let mut moments = self.moments;
        let estimates = estimate(&rollout, &self.regularizer, &self.config, &mut moments);
        let observed = self.observed_divergence(&summary, &estimates);
        if self.first.is_none() {
            self.regularizer.coefficient.check_start(observed)?;
        }
        self.check_degeneration(&summary)?;
        self.check_disagreement(&rollout)?;

        let updating = Instant::now();
        let learnt = self.update(iteration, &rollout, &estimates)?;
        let updated = updating.elapsed().as_secs_f64();

        let (stops, limit) = (&self.config.stop_token_ids, self.config.response_length);
        let mut metrics = rollout_metrics(&rollout, &estimates, stops, limit);
        metrics.merge(learnt);
        rollout.judge_metrics.iter().for_each(|(name, value)| metrics.set(name.as_str(), *value));
        regularizer_metrics(&mut metrics, &rollout, &self.regularizer);
        let present = occupancy::log(&mut metrics, base.as_ref(), &rollout.scores, gold);
        // On the first rollout the two are of the same scores.
        self.warnings.extend(undefined.or(present).map(|cause| Warning::Uncorrelated { cause }));
        metrics.set("objective/kl_coef", self.beta());
        if summary.kl < NEGATIVE_KL {
            self.warnings.push(Warning::NegativeKl { mean: summary.kl });
            metrics.set("warning/negative_kl", 1.0);
        }
        self.regularizer.coefficient.update(observed, self.plan.rollout_batch);
        self.moments = moments;
        self.first.get_or_insert((summary.length, summary.score));
        self.base = base;
        self.episodes += self.plan.rollout_batch as u64;
        if let Anchor::Moving(moving) = &mut self.reference {
            moving.follow(self.policy.model(), iteration + 1);
        }

        let seconds = begun.elapsed().as_secs_f64();
        metrics.set("episode", self.episodes as f64);
        metrics.set("eps", self.plan.rollout_batch as f64 / seconds);
        metrics.set("timing_s/update", updated);
        metrics.set("perf/throughput", summary.length * self.plan.rollout_batch as f64 / seconds);
        Ok(metrics)
    }

    /// All epochs over one rollout: shuffled, cut into minibatches and those into microbatches.
    fn update(
        &mut self,
        iteration: u64,
        rollout: &Rollout,
        estimates: &Estimates,
    ) -> Result<Metrics, PpoError> {
        let (prompts, responses) =
            (rollout.completions.prompt.lengths(), rollout.completions.response.lengths());
        let lengths = Lengths { prompts: &prompts, responses: &responses };
        // Measured once on the whole rollout: how it is cut into steps and microbatches then changes nothing.
        let log_ratio = rollout.old_log_probs.clone() - rollout.reference_log_probs.clone();
        let fixed = self.regularizer.fixed_to(log_ratio, &rollout.completions.response.mask);
        let warming_up = self.critic.is_some() && iteration < self.config.critic_warmup as u64;
        let mut policy_metrics = Vec::new();
        let mut critic_metrics = Vec::new();
        for epoch in 0..self.config.num_ppo_epochs as u64 {
            let mut order: Vec<usize> = (0..self.plan.rollout_batch).collect();
            let pass = iteration * self.config.num_ppo_epochs as u64 + epoch;
            order.shuffle(&mut self.draws.generator(Purpose::Minibatch, pass));
            for rows in order.chunks(self.plan.minibatch) {
                if !warming_up {
                    let first = policy_metrics.is_empty();
                    let step = self.step_policy(rollout, estimates, fixed.as_ref(), rows, lengths, first)?;
                    policy_metrics.push((1.0, step));
                }
                if let Some(metrics) = self.step_critic(rollout, estimates, rows, lengths)? {
                    critic_metrics.push((1.0, metrics));
                }
            }
        }
        let mut metrics = Metrics::mean(&policy_metrics);
        if let Some((_, last)) = policy_metrics.last() {
            rename(&mut metrics, last, &[("lr", "lr")]);
        }
        let critic = Metrics::mean(&critic_metrics);
        rename(
            &mut metrics,
            &critic,
            &[
                ("loss/value_avg", "loss/value_avg"),
                ("val/clipfrac_avg", "val/clipfrac_avg"),
                ("grad_norm", "critic/grad_norm"),
            ],
        );
        if let Some((_, last)) = critic_metrics.last() {
            rename(&mut metrics, last, &[("lr", "critic/lr")]);
        }
        Ok(metrics)
    }

    /// One optimiser step of the policy; before the first of an iteration is applied, the ratio must be 1.
    fn step_policy(
        &mut self,
        rollout: &Rollout,
        estimates: &Estimates,
        fixed: Option<&Regularizer>,
        rows: &[usize],
        lengths: Lengths<'_>,
        first: bool,
    ) -> Result<Metrics, PpoError> {
        let per_token = [&rollout.old_log_probs, &rollout.reference_log_probs, &estimates.advantages];
        let batches: Vec<_> = rows
            .chunks(self.plan.microbatch)
            .map(|rows| PolicyBatch::rows(&rollout.completions, per_token, rows, lengths))
            .collect();
        let tokens: usize = rows.iter().map(|&row| lengths.responses[row]).sum();
        let objective = PolicyObjective::new(
            self.config.clip_range(),
            self.config.temperature.get(),
            fixed.unwrap_or(&self.regularizer),
            tokens as f64 / rows.len() as f64,
        )
        .with_reference(self.reference.as_reference());
        let gradients = self.policy.gradients(&objective, &batches)?;
        if first {
            self.check_ratio(&objective)?;
        }
        let step = self.policy.apply(gradients)?;
        let mut metrics = Metrics::new();
        rename(
            &mut metrics,
            &step,
            &[
                ("loss/policy_avg", "loss/policy_avg"),
                ("loss/regularizer_avg", "loss/regularizer_avg"),
                ("policy/entropy_avg", "policy/entropy_avg"),
                ("grad_norm", "actor/grad_norm"),
                ("lr", "lr"),
            ],
        );
        align_train::Objective::<P>::finish(&objective, &mut metrics);
        Ok(metrics)
    }

    /// One optimiser step of the critic, if there is one.
    fn step_critic(
        &mut self,
        rollout: &Rollout,
        estimates: &Estimates,
        rows: &[usize],
        lengths: Lengths<'_>,
    ) -> Result<Option<Metrics>, PpoError> {
        let (Some(critic), Some(values), Some(returns)) =
            (&mut self.critic, &rollout.values, &estimates.returns)
        else {
            return Ok(None);
        };
        let batches: Vec<_> = rows
            .chunks(self.plan.microbatch)
            .map(|rows| CriticBatch::rows(&rollout.completions, [values, returns], rows, lengths))
            .collect();
        let objective = CriticObjective::new(self.config.value_clip_range(), self.config.vf_coef.get());
        Ok(Some(critic.step(&objective, &batches)?))
    }

    /// Item 21: the first minibatch sees the policy that drew the rollout.
    fn check_ratio(&self, objective: &PolicyObjective<'_>) -> Result<(), PpoError> {
        let (ratio, tolerance) = (objective.ratio(), self.config.ratio_tolerance.get());
        let (found, spread) = (ratio.ratio_mean(), (2.0 * ratio.approx_kl()).sqrt());
        // Written as "not within", so that NaN is refused.
        let within = (found - 1.0).abs() <= tolerance && spread <= tolerance;
        if within { Ok(()) } else { Err(PpoError::RatioNotOne { found, spread, tolerance }) }
    }

    /// What the adaptive coefficient steers by: the regulariser's own divergence, nats per response for KL.
    fn observed_divergence(&self, summary: &Summary, estimates: &Estimates) -> f64 {
        match self.regularizer.site {
            Site::Reward(_) if self.beta() > 0.0 => {
                let total: f64 = estimates.penalties.to_data().iter::<f64>().sum();
                total / self.beta() / self.plan.rollout_batch as f64
            }
            _ => summary.kl,
        }
    }

    /// Members of an ensemble that no longer agree.
    fn check_disagreement(&self, rollout: &Rollout) -> Result<(), PpoError> {
        let Some(limit) = self.config.max_disagreement else { return Ok(()) };
        let found = rollout.judge_metrics.iter().find(|(name, _)| name == DISAGREEMENT);
        let Some(&(_, variance)) = found else { return Err(PpoError::NoDisagreement) };
        if variance <= limit.get() {
            return Ok(());
        }
        let kind = Degeneration::Disagreement { variance, limit: limit.get() };
        Err(PpoError::DegeneratePolicy { kind })
    }

    /// T4: responses that became short while the score fell.
    fn check_degeneration(&self, now: &Summary) -> Result<(), PpoError> {
        let (Some(fraction), Some((first_length, first_score))) =
            (self.config.early_stop_fraction, self.first)
        else {
            return Ok(());
        };
        let (length, score) = (now.length, now.score);
        if length < fraction.get() * first_length && score < first_score {
            let kind = Degeneration::EarlyStop { length, first_length, score, first_score };
            return Err(PpoError::DegeneratePolicy { kind });
        }
        Ok(())
    }

    /// What is exact over the vocabulary needs a reference that scores the policy's own.
    fn check_distributions(&self) -> Result<(), PpoError> {
        let Site::Exact { .. } = self.regularizer.site else { return Ok(()) };
        // Without a token to ask about, collecting will refuse the prompts.
        let Some(completions) = self.one_token() else { return Ok(()) };
        let distributions = self.reference.as_reference().distributions(&completions);
        let [_, _, found] = distributions.ok_or(PpoError::ReferenceWithoutScores)?.scores(0..1).dims();
        let expected = self.policy.model().vocab_size();
        if found == expected { Ok(()) } else { Err(PpoError::OtherVocabulary { expected, found }) }
    }

    /// The first prompt, answered by its own first token.
    fn one_token(&self) -> Option<Completions> {
        let prompt = self.prompts.iter().find(|prompt| !prompt.is_empty())?;
        let device = self.policy.model().valid().device();
        Some(Completions::from_rows(std::slice::from_ref(prompt), &[vec![prompt[0]]], &device))
    }

    /// One token the fixed reference is asked about at the start.
    fn take_probe(&self) -> Option<(Completions, f32)> {
        let completions = self.one_token()?;
        let log_prob = self.ask(&completions)?;
        Some((completions, log_prob))
    }

    fn ask(&self, completions: &Completions) -> Option<f32> {
        match &self.reference {
            Anchor::Fixed(_) => {
                let log_probs = self.reference.log_probs(completions, self.config.temperature.get());
                log_probs.into_data().iter::<f32>().next()
            }
            Anchor::Moving(_) => None,
        }
    }

    /// T1: what is frozen stands still, to the last bit.
    fn check_reference(&self, iteration: u64) -> Result<(), PpoError> {
        let Some((completions, expected)) = &self.probe else { return Ok(()) };
        if iteration.is_multiple_of(REFERENCE_CHECK_EVERY)
            && let Some(found) = self.ask(completions)
            && found.to_bits() != expected.to_bits()
        {
            return Err(PpoError::ReferenceMoved { expected: *expected, found });
        }
        Ok(())
    }
}

/// Takes over metrics under other names.
fn rename(into: &mut Metrics, from: &Metrics, names: &[(&str, &str)]) {
    for (old, new) in names {
        if let Some(value) = from.get(old) {
            into.set(*new, value);
        }
    }
}
