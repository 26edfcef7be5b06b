//! A policy that learns from comparisons of its own answers: INPO, online and iterative DPO, SPPO, XPO, Nash-MD.
//!
//! ```text
//! iteration t    collect    π_t answers, the oracle compares, log π_t and log π_ref of every answer are noted
//!                learn      optimiser steps on those pairs; neither frozen policy is looked at again
//!                compare    π_{t+1} with the reference and with earlier policies, on held-out prompts
//! ```

mod collect;
mod config;
mod error;
mod evaluate;
mod resume;

use align_core::draws::Purpose;
use align_core::{CausalLm, Draws, Policy, Preference};
use align_models::Detokenize;
use align_train::{Learner, Metrics};
use burn::tensor::Device;
use rand::seq::SliceRandom;

use self::collect::{Collected, Collector};
pub use self::config::{
    Anchor, EtaSchedule, InpoStep, Labels, Method, Pairing, Plan, SelfPlayConfig, Truncated,
};
pub use self::error::{SelfPlayError, Warning};
use self::evaluate::Opponents;
use crate::batch::{Pair, microbatches, numbers};
use crate::game::conservative_threshold;
use crate::objective::{NashMdObjective, PairObjective, ReinforceBatch};
use crate::pair_loss::PairLoss;

/// By how much the policy may differ from itself between collecting and learning, relative to the log-probability of an answer.
const SELF_TOLERANCE: f64 = 1e-3;

/// A number measured on a policy, such as its exact duality gap where all answers can be enumerated.
pub type Measure = Box<dyn Fn(&dyn CausalLm) -> f64 + Send + Sync>;

/// What a run is put together from.
pub struct SelfPlayParts<P> {
    /// The policy at its start.
    pub policy: P,
    /// What the game is regularised towards; the opponent of XPO, half the opponent of Nash-MD.
    pub reference: Box<dyn CausalLm>,
    /// Which of two answers is better.
    pub oracle: Box<dyn Preference>,
    /// The pool of prompts, each with at least one token.
    pub prompts: Vec<Vec<u32>>,
    /// Prompts on which policies are compared; none, no comparison.
    pub held_out: Vec<Vec<u32>>,
    /// Numbers to measure on the policy whenever it is compared, by the metric's name.
    pub measures: Vec<(String, Measure)>,
}

/// Self-play on a preference oracle.
///
/// One [`Algorithm`](align_train::Algorithm) step is one optimiser step; the first of an iteration collects. Everything random is a
/// function of the seed and the iteration, and a checkpoint holds the pairs, so a restored run goes on bit for bit.
///
/// # Source
/// INPO: Zhang et al. 2025, algorithm 1, <https://arxiv.org/abs/2407.00617>; the other methods where [`Method`] names them.
pub struct SelfPlay<P> {
    config: SelfPlayConfig,
    plan: Plan,
    draws: Draws,
    learner: Learner<P>,
    reference: Box<dyn CausalLm>,
    oracle: Box<dyn Preference>,
    prompts: Vec<Vec<u32>>,
    held_out: Vec<Vec<u32>>,
    measures: Vec<(String, Measure)>,
    detokenize: Option<Box<dyn Detokenize>>,
    collected: Collected,
    opponents: Opponents,
    calls: u64,
    warnings: Vec<Warning>,
}

impl<P: Policy> SelfPlay<P> {
    /// Puts the parts together.
    ///
    /// # Errors
    /// If settings contradict each other or the parts: no prompts, `tau > eta`, a number of answers that cannot be paired, another
    /// vocabulary, nothing to train.
    pub fn new(parts: SelfPlayParts<P>, config: SelfPlayConfig) -> Result<Self, SelfPlayError> {
        let plan = config.plan(parts.prompts.len())?;
        let (expected, found) = (parts.policy.vocab_size(), parts.reference.vocab_size());
        if expected != found {
            return Err(SelfPlayError::OtherVocabulary { expected, found });
        }
        let steps = if plan.reset_optimizer { plan.steps_per_iteration as u64 } else { plan.steps() };
        let learner = Learner::new(parts.policy, config.optimizer.clone(), steps)?;
        Ok(Self {
            draws: Draws::new(config.seed),
            warnings: warnings(&config)?,
            config,
            plan,
            learner,
            reference: parts.reference,
            oracle: parts.oracle,
            prompts: parts.prompts,
            held_out: parts.held_out,
            measures: parts.measures,
            detokenize: None,
            collected: Collected::default(),
            opponents: Opponents::default(),
            calls: 0,
        })
    }

    /// Gives the text in which stop strings are looked for.
    pub fn with_detokenizer(self, detokenize: impl Detokenize + 'static) -> Self {
        Self { detokenize: Some(Box::new(detokenize)), ..self }
    }

    /// The policy as it stands, on the recording device.
    pub fn policy(&self) -> &P {
        self.learner.model()
    }

    /// The policy, for good.
    pub fn into_policy(self) -> P {
        self.learner.into_model()
    }

    /// The sizes spelt out.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The pairs that are learnt from at present.
    pub fn pairs(&self) -> &[Pair] {
        &self.collected.pairs
    }

    /// What came up since the last call.
    pub fn take_warnings(&mut self) -> Vec<Warning> {
        std::mem::take(&mut self.warnings)
    }

    /// One optimiser step, counted from 0; the first of an iteration collects before it, the last compares after it.
    ///
    /// # Errors
    /// If answers cannot be drawn, the oracle fails, no pair is left, an optimiser step fails.
    pub fn step(&mut self, step: u64) -> Result<Metrics, SelfPlayError> {
        let per_iteration = self.plan.steps_per_iteration as u64;
        let (iteration, place) = (step / per_iteration, (step % per_iteration) as usize);
        let mut metrics = Metrics::new();
        if place == 0 {
            self.begin(iteration)?;
            metrics.merge(self.collected.metrics.clone());
        }
        let rows = self.rows(iteration, place);
        metrics.merge(self.learn(iteration, &rows)?);
        if place == 0 {
            self.check_itself(iteration, &rows, &metrics)?;
        }
        let (done, every) = (iteration as usize + 1, self.config.evaluate_every);
        let due = every > 0 && (done.is_multiple_of(every) || done == self.plan.iterations);
        if place + 1 == self.plan.steps_per_iteration && due {
            metrics.merge(self.compare(iteration + 1)?);
        }
        metrics.set("iteration", done as f64);
        metrics.set("oracle/calls", self.calls as f64);
        Ok(metrics)
    }

    /// Draws, compares and anchors the answers of an iteration.
    fn begin(&mut self, iteration: u64) -> Result<(), SelfPlayError> {
        let policy = self.learner.model().valid();
        let collector = Collector {
            policy: &policy,
            reference: &*self.reference,
            oracle: &*self.oracle,
            detokenize: self.detokenize.as_deref(),
            config: &self.config,
            plan: &self.plan,
            draws: self.draws,
            iteration,
        };
        self.collected = collector.collect(&self.prompts)?;
        self.calls += self.collected.calls;
        if self.plan.reset_optimizer {
            self.learner.begin_again(self.plan.steps_per_iteration as u64);
        }
        Ok(())
    }

    /// The pairs of a step: every pass goes through all of them in an order of its own, in equal parts.
    fn rows(&self, iteration: u64, place: usize) -> Vec<usize> {
        let pairs = self.collected.pairs.len();
        let parts = self.plan.steps_per_iteration / self.config.num_epochs;
        let (pass, part) = (place / parts, place % parts);
        let mut order: Vec<usize> = (0..pairs).collect();
        let pass = iteration * self.config.num_epochs as u64 + pass as u64;
        order.shuffle(&mut self.draws.generator(Purpose::Minibatch, pass));
        match pairs < parts {
            // Fewer pairs than steps, because most were dropped: they come round again.
            true => vec![order[part % pairs]],
            false => order[part * pairs / parts..(part + 1) * pairs / parts].to_vec(),
        }
    }

    fn learn(&mut self, iteration: u64, rows: &[usize]) -> Result<Metrics, SelfPlayError> {
        let device = self.learner.model().device().without_autodiff();
        let pairs: Vec<&Pair> = rows.iter().map(|&row| &self.collected.pairs[row]).collect();
        let size = self.config.microbatch;
        if let Method::NashMd { beta, .. } = self.config.method {
            let batches: Vec<_> = pairs.chunks(2 * size).map(|pairs| reinforce(pairs, &device)).collect();
            return Ok(self.learner.step(&NashMdObjective { beta: beta.get() }, &batches)?);
        }
        let objective = self.objective(iteration)?;
        let batches = microbatches(&pairs, size, &device);
        let mut metrics = self.learner.step(&objective, &batches)?;
        if let Some(step) = self.config.method.inpo(iteration as usize)? {
            let h = metrics.get("margin/mean").unwrap_or_default();
            metrics.set("nash/h", h);
            metrics.set("nash/h_over_target", h * 2.0 * step.eta);
            let loss = metrics.get("loss").unwrap_or_default() / objective.scale;
            metrics.set("loss/inpo", loss);
            metrics.set("loss/inpo_scaled", loss * step.eta * step.eta);
        }
        let limit = self.config.optimizer.max_grad_norm.get();
        let clipped = limit > 0.0 && metrics.get("grad_norm").is_some_and(|norm| norm > limit);
        metrics.set("val/clipped", f64::from(u8::from(clipped)));
        Ok(metrics)
    }

    fn objective(&self, iteration: u64) -> Result<PairObjective, SelfPlayError> {
        Ok(match self.config.method {
            Method::Inpo { loss_scaling, .. } => {
                let step = self.config.method.inpo(iteration as usize)?.expect("the method is INPO");
                let beta = align_core::number::Positive::try_from(step.eta).expect("eta is positive");
                let scale = if loss_scaling { step.eta * step.eta } else { 1.0 };
                PairObjective { loss: PairLoss::Ipo { beta, length_normalized: false }, scale }
            }
            Method::Dpo { loss, .. } | Method::Xpo { loss, .. } => PairObjective::new(loss),
            Method::Sppo { beta } => PairObjective::new(PairLoss::Sppo { beta }),
            Method::NashMd { .. } => unreachable!("Nash-MD has an objective of its own"),
        })
    }

    /// Before the first step the policy gives its own answers the probabilities it drew them with.
    fn check_itself(&self, iteration: u64, rows: &[usize], metrics: &Metrics) -> Result<(), SelfPlayError> {
        let (Some(chosen), Some(rejected)) = (metrics.get("logps/chosen"), metrics.get("logps/rejected"))
        else {
            return Ok(());
        };
        let found = chosen + rejected;
        let drawn: f64 = rows.iter().flat_map(|&row| self.collected.drawn[row]).map(f64::from).sum();
        let expected = drawn / rows.len() as f64;
        // Written as "not within", so that NaN is refused.
        let within = (found - expected).abs() <= SELF_TOLERANCE * (1.0 + expected.abs());
        let iteration = iteration as usize + 1;
        if within { Ok(()) } else { Err(SelfPlayError::NotItself { iteration, found, expected }) }
    }
}

fn reinforce(pairs: &[&Pair], device: &Device) -> ReinforceBatch {
    let (prompts, responses): (Vec<_>, Vec<_>) =
        pairs.iter().map(|pair| (pair.prompt.clone(), pair.responses[0].clone())).unzip();
    ReinforceBatch {
        completions: align_core::Completions::from_rows(&prompts, &responses, device),
        reference: numbers(pairs.iter().map(|pair| pair.anchors[0]).collect(), device),
        preference: numbers(pairs.iter().map(|pair| pair.preference).collect(), device),
    }
}

/// What should be said before a run.
fn warnings(config: &SelfPlayConfig) -> Result<Vec<Warning>, SelfPlayError> {
    let mut warnings = Vec::new();
    if let Some(InpoStep { eta, tau }) = config.method.inpo(0)? {
        let safe = conservative_threshold(tau);
        // A growing η passes what is safe on its way, and converges (theorem 4).
        let constant = matches!(config.method, Method::Inpo { schedule: EtaSchedule::Constant, .. });
        match tau {
            0.0 => warnings.push(Warning::Unregularized),
            _ if constant && eta < safe => warnings.push(Warning::MayOrbit { eta, tau, safe }),
            _ => {}
        }
        let (slope, limit) = (1.0 / eta, config.optimizer.max_grad_norm.get());
        let scaled = matches!(config.method, Method::Inpo { loss_scaling: true, .. });
        if !scaled && limit > 0.0 && slope > 10.0 * limit {
            warnings.push(Warning::AlwaysClipped { slope, limit });
        }
    }
    if config.pairing == Pairing::Tournament {
        warnings.push(Warning::Tournament);
    }
    let (temperature, top_p) = (config.temperature.get(), config.top_p.get());
    if temperature != 1.0 || top_p < 1.0 {
        warnings.push(Warning::Filtered { temperature, top_p });
    }
    Ok(warnings)
}
