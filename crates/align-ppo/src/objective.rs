//! What an optimiser step minimises: the policy's surrogate and the critic's error.

use std::cell::{Cell, RefCell};

use align_core::regularizer::{Granularity, Regularizer, Site};
use align_core::{Completions, Critic, Policy, masked};
use align_train::{Loss, Metrics, Objective};
use burn::tensor::{Bool, Int, Tensor, TensorData};

use crate::surrogate::{ClipRange, RatioSums, clipped_surrogate};
use crate::value::{clipped_value_loss, value_clip_count};

/// Rows of a rollout as the policy learns from them. All constants.
#[derive(Clone, Debug)]
pub struct PolicyBatch {
    /// Prompts and responses.
    pub completions: Completions,
    /// log π_old, `[B, R]`.
    pub old_log_probs: Tensor<2>,
    /// log π_ref, `[B, R]`.
    pub reference_log_probs: Tensor<2>,
    /// Â, `[B, R]`, already weighed where the sampler is corrected for.
    pub advantages: Tensor<2>,
}

/// Rows of a rollout as the critic learns from them. All constants.
#[derive(Clone, Debug)]
pub struct CriticBatch {
    /// Prompts and responses.
    pub completions: Completions,
    /// V_old, `[B, R]`.
    pub old_values: Tensor<2>,
    /// G, `[B, R]`.
    pub returns: Tensor<2>,
}

/// The clipped surrogate, plus the regulariser where that stands in the loss.
///
/// The value is a sum over tokens and the weight their number, so the learner's quotient is the mean over the tokens of
/// the whole optimiser step.
#[derive(Debug)]
pub struct PolicyObjective<'a> {
    clip: ClipRange,
    temperature: f64,
    /// Only if it stands in the loss with β > 0.
    regularizer: Option<&'a Regularizer>,
    /// Tokens per response of the optimiser step: what turns a mean over tokens into one over responses.
    tokens_per_response: f64,
    sums: RefCell<RatioSums>,
}

impl<'a> PolicyObjective<'a> {
    /// For one optimiser step over the given mean length.
    pub fn new(
        clip: ClipRange,
        temperature: f64,
        regularizer: &'a Regularizer,
        tokens_per_response: f64,
    ) -> Self {
        let in_loss = matches!(regularizer.site, Site::Loss(_)) && regularizer.coefficient.beta() > 0.0;
        Self {
            clip,
            temperature,
            regularizer: in_loss.then_some(regularizer),
            tokens_per_response,
            sums: RefCell::default(),
        }
    }

    /// Sums over everything seen so far.
    pub fn ratio(&self) -> RatioSums {
        *self.sums.borrow()
    }
}

impl<P: Policy> Objective<P> for PolicyObjective<'_> {
    type Batch = PolicyBatch;

    fn loss(&self, policy: &P, batch: &PolicyBatch) -> Loss {
        let mask = &batch.completions.response.mask;
        let tokens = policy.token_log_probs(&batch.completions, self.temperature);
        let log_ratio = tokens.log_probs.clone() - batch.old_log_probs.clone();
        let sums = RatioSums::of(&log_ratio, &batch.advantages, mask, self.clip);
        self.sums.replace_with(|seen| seen.plus(sums));

        let surrogate = clipped_surrogate(log_ratio, batch.advantages.clone(), mask, self.clip, 1.0);
        let entropy: f64 = number(masked::sum(tokens.entropies, mask));
        let mut metrics = Metrics::new();
        let mut loss = Loss::new(surrogate.clone(), sums.tokens).with_term("policy", surrogate.clone());
        let over = |sum: f64| if sums.tokens > 0.0 { sum / sums.tokens } else { 0.0 };
        metrics.set("loss/policy_avg", over(number(surrogate)));
        metrics.set("policy/entropy_avg", over(entropy));
        if let Some(regularizer) = self.regularizer {
            let log_ratio = tokens.log_probs - batch.reference_log_probs.clone();
            let terms = masked::sum(regularizer.loss_terms(log_ratio, mask), mask);
            let terms = match regularizer.granularity {
                Granularity::Token => terms,
                Granularity::Sequence => terms * self.tokens_per_response,
            };
            metrics.set("loss/regularizer_avg", over(number(terms.clone())));
            loss.value = loss.value + terms.clone();
            loss = loss.with_term("regularizer", terms);
        }
        loss.with_metrics(metrics)
    }

    fn finish(&self, metrics: &mut Metrics) {
        let sums = self.ratio();
        metrics.set("policy/approxkl_avg", sums.approx_kl());
        metrics.set("policy/clipfrac_avg", sums.clip_fraction());
        metrics.set("policy/log_ratio_clampfrac", sums.clamp_fraction());
        metrics.set("val/ratio", sums.ratio_mean());
        metrics.set("val/ratio_var", sums.ratio_variance());
    }
}

/// The clipped value loss times its coefficient.
#[derive(Debug)]
pub struct CriticObjective {
    /// How far values may move before their loss stops pushing.
    pub epsilon: Option<f64>,
    /// c_v.
    pub coefficient: f64,
    clipped: Cell<f64>,
    tokens: Cell<f64>,
}

impl CriticObjective {
    /// For one optimiser step.
    pub fn new(epsilon: Option<f64>, coefficient: f64) -> Self {
        Self { epsilon, coefficient, clipped: Cell::new(0.0), tokens: Cell::new(0.0) }
    }
}

impl<C: Critic> Objective<C> for CriticObjective {
    type Batch = CriticBatch;

    fn loss(&self, critic: &C, batch: &CriticBatch) -> Loss {
        let mask = &batch.completions.response.mask;
        let values = critic.values(&batch.completions);
        let (old, returns) = (batch.old_values.clone(), batch.returns.clone());
        let tokens = count(mask);
        let clipped = value_clip_count(values.clone(), old.clone(), returns.clone(), mask, self.epsilon);
        self.clipped.set(self.clipped.get() + clipped);
        self.tokens.set(self.tokens.get() + tokens);
        let loss = clipped_value_loss(values, old, returns, mask, self.epsilon, 1.0);
        let mean = if tokens > 0.0 { number(loss.clone()) / tokens } else { 0.0 };
        Loss::new(loss * self.coefficient, tokens).with_metrics(Metrics::new().with("loss/value_avg", mean))
    }

    fn finish(&self, metrics: &mut Metrics) {
        metrics.set("val/clipfrac_avg", self.clipped.get() / self.tokens.get().max(1.0));
    }
}

impl PolicyBatch {
    /// The given rows, without the columns in which none of them has a token.
    pub(crate) fn rows(
        completions: &Completions,
        per_token: [&Tensor<2>; 3],
        rows: &[usize],
        lengths: Lengths<'_>,
    ) -> Self {
        let (p, r) = lengths.widest(rows);
        let [old, reference, advantages] = per_token.map(|tensor| take(tensor, rows, r));
        Self {
            completions: trimmed(completions.select(rows), p, r),
            old_log_probs: old,
            reference_log_probs: reference,
            advantages,
        }
    }
}

impl CriticBatch {
    /// The given rows, without the columns in which none of them has a token.
    pub(crate) fn rows(
        completions: &Completions,
        per_token: [&Tensor<2>; 2],
        rows: &[usize],
        lengths: Lengths<'_>,
    ) -> Self {
        let (p, r) = lengths.widest(rows);
        let [old_values, returns] = per_token.map(|tensor| take(tensor, rows, r));
        Self { completions: trimmed(completions.select(rows), p, r), old_values, returns }
    }
}

/// How many tokens every row has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lengths<'a> {
    pub(crate) prompts: &'a [usize],
    pub(crate) responses: &'a [usize],
}

impl Lengths<'_> {
    fn widest(&self, rows: &[usize]) -> (usize, usize) {
        let widest = |lengths: &[usize]| rows.iter().map(|&row| lengths[row]).max().unwrap_or(0).max(1);
        (widest(self.prompts), widest(self.responses))
    }
}

/// The last `p` columns of the prompts and the first `r` of the responses.
fn trimmed(completions: Completions, p: usize, r: usize) -> Completions {
    let [b, width] = completions.prompt.ids.dims();
    let mut trimmed = completions;
    trimmed.prompt.ids = trimmed.prompt.ids.slice([0..b, width - p..width]);
    trimmed.prompt.mask = trimmed.prompt.mask.slice([0..b, width - p..width]);
    trimmed.response.ids = trimmed.response.ids.slice([0..b, 0..r]);
    trimmed.response.mask = trimmed.response.mask.slice([0..b, 0..r]);
    trimmed
}

/// The first `width` columns of the given rows.
fn take(tensor: &Tensor<2>, rows: &[usize], width: usize) -> Tensor<2> {
    let index = rows.iter().map(|&row| row as i64).collect::<Vec<_>>();
    let index = Tensor::<1, Int>::from_data(TensorData::new(index, [rows.len()]), &tensor.device());
    tensor.clone().select(0, index).slice([0..rows.len(), 0..width])
}

fn count(mask: &Tensor<2, Bool>) -> f64 {
    mask.clone().int().sum().into_scalar::<i64>() as f64
}

fn number(tensor: Tensor<1>) -> f64 {
    tensor.into_data().iter::<f64>().sum()
}
