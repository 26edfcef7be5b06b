//! What an optimiser step minimises: the policy's surrogate and the critic's error.

use std::cell::{Cell, RefCell};

use align_core::exact::{Exact, add_gradients, token_divergences};
use align_core::regularizer::{Coefficient, Granularity, Regularizer, Site};
use align_core::{Completions, Critic, NextTokens, Policy, Reference, masked};
use align_train::{Loss, Metrics, Objective};
use burn::optim::GradientsParams;
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
/// the whole optimiser step. A regulariser of whole responses has to be [fixed](Regularizer::fixed_to) to the rollout.
///
/// A fixed β at sequence granularity multiplies the mean over responses, as in the published implementation of √χ². Beside a
/// mean over tokens that is as many times stronger than the same β in the reward as a response has tokens. In deviations of
/// the reward ([`Coefficient::RewardStd`]) β means the same in both places.
///
/// A regulariser that is exact over the vocabulary takes a second pass through the policy and one through the reference; its
/// scores are held a few response positions at a time ([`add_gradients`]).
pub struct PolicyObjective<'a> {
    clip: ClipRange,
    temperature: f64,
    /// Only if it stands in the loss with β > 0.
    regularizer: Option<&'a Regularizer>,
    /// For a regulariser that is exact over the vocabulary.
    reference: Option<&'a dyn Reference>,
    /// Tokens per response of the optimiser step: what turns a mean over tokens into one over responses.
    tokens_per_response: f64,
    sums: RefCell<RatioSums>,
    /// Overflows of the regulariser and what they are out of.
    clamped: Cell<(f64, f64)>,
}

impl<'a> PolicyObjective<'a> {
    /// For one optimiser step over the given mean length.
    pub fn new(
        clip: ClipRange,
        temperature: f64,
        regularizer: &'a Regularizer,
        tokens_per_response: f64,
    ) -> Self {
        let in_loss = !matches!(regularizer.site, Site::Reward(_)) && regularizer.coefficient.beta() > 0.0;
        Self {
            clip,
            temperature,
            regularizer: in_loss.then_some(regularizer),
            reference: None,
            tokens_per_response,
            sums: RefCell::default(),
            clamped: Cell::default(),
        }
    }

    /// With the reference as a model, which [`Site::Exact`] needs.
    #[must_use]
    pub fn with_reference(self, reference: &'a dyn Reference) -> Self {
        Self { reference: Some(reference), ..self }
    }

    /// Sums over everything seen so far.
    pub fn ratio(&self) -> RatioSums {
        *self.sums.borrow()
    }
}

impl PolicyObjective<'_> {
    /// All but what is exact over the vocabulary.
    fn sampled<P: Policy>(&self, policy: &P, batch: &PolicyBatch) -> Loss {
        let mask = &batch.completions.response.mask;
        let tokens = policy.token_log_probs(&batch.completions, self.temperature);
        let log_ratio = tokens.log_probs.clone() - batch.old_log_probs.clone();
        let sums = RatioSums::of(&log_ratio, &batch.advantages, mask, self.clip);
        self.sums.replace_with(|seen| seen.plus(sums));

        let surrogate = clipped_surrogate(log_ratio, batch.advantages.clone(), mask, self.clip, 1.0);
        let entropy: f64 = number(masked::sum(tokens.entropies, mask));
        let mut metrics = Metrics::new();
        let mut loss = Loss::new(surrogate.clone(), sums.tokens).with_term("policy", surrogate.clone());
        metrics.set("loss/policy_avg", over(number(surrogate), sums.tokens));
        metrics.set("policy/entropy_avg", over(entropy, sums.tokens));
        loss.metrics = metrics;
        let Some(regularizer) = self.regularizer.filter(|of| matches!(of.site, Site::Loss(_))) else {
            return loss;
        };
        let log_ratio = tokens.log_probs - batch.reference_log_probs.clone();
        self.count_clamped(regularizer, &log_ratio, mask, sums.tokens);
        let terms = masked::sum(regularizer.loss_terms(log_ratio, mask), mask);
        let terms = match (regularizer.granularity, &regularizer.coefficient) {
            (Granularity::Token, _) => terms,
            // In units of the reward: a response's advantage is a mean over tokens as well.
            (Granularity::Sequence, Coefficient::RewardStd { .. }) => terms,
            (Granularity::Sequence, _) => terms * self.tokens_per_response,
        };
        with_regularizer(loss, terms)
    }

    fn count_clamped(
        &self,
        regularizer: &Regularizer,
        log_ratio: &Tensor<2>,
        mask: &Tensor<2, Bool>,
        tokens: f64,
    ) {
        let out_of = match regularizer.granularity {
            Granularity::Token => tokens,
            Granularity::Sequence => {
                number(mask.clone().int().sum_dim(1).greater_elem(0).int().sum().float())
            }
        };
        let (clamped, seen) = self.clamped.get();
        self.clamped.set((clamped + regularizer.clamped_fraction(log_ratio, mask) * out_of, seen + out_of));
    }

    /// What is exact over the vocabulary, if that is asked for: how it is measured, β, and the reference's distributions.
    fn exact(&self, completions: &Completions) -> Option<(Exact<'_>, f64, NextTokens<'_>)> {
        let regularizer = self.regularizer?;
        let Site::Exact { divergence, columns } = &regularizer.site else { return None };
        let reference = self.reference.expect("an exact divergence has its reference by `with_reference`");
        let distributions = reference.distributions(completions).expect("the reference is a model");
        let how =
            Exact { divergence: divergence.as_ref(), temperature: self.temperature, columns: columns.get() };
        Some((how, regularizer.coefficient.beta(), distributions))
    }
}

/// The loss with the regulariser's sum over tokens.
fn with_regularizer(mut loss: Loss, terms: Tensor<1>) -> Loss {
    loss.metrics.set("loss/regularizer_avg", over(number(terms.clone()), loss.weight));
    loss.value = loss.value + terms.clone();
    loss.with_term("regularizer", terms)
}

fn over(sum: f64, tokens: f64) -> f64 {
    if tokens > 0.0 { sum / tokens } else { 0.0 }
}

impl<P: Policy> Objective<P> for PolicyObjective<'_> {
    type Batch = PolicyBatch;

    /// # Panics
    /// If the regulariser is exact over the vocabulary and there is no reference, or one that is no model.
    fn loss(&self, policy: &P, batch: &PolicyBatch) -> Loss {
        let loss = self.sampled(policy, batch);
        let Some((how, beta, reference)) = self.exact(&batch.completions) else { return loss };
        let mask = &batch.completions.response.mask;
        let measured = token_divergences(&policy.next_tokens(&batch.completions), &reference, mask, &how);
        with_regularizer(loss, measured.sum() * beta)
    }

    fn gradients(&self, policy: &P, batch: &PolicyBatch) -> (Loss, GradientsParams) {
        let loss = self.sampled(policy, batch);
        if loss.weight <= 0.0 || !number(loss.value.clone()).is_finite() {
            return (loss, GradientsParams::new());
        }
        let mut gradients = GradientsParams::from_grads(loss.value.backward(), policy);
        let Some((how, beta, reference)) = self.exact(&batch.completions) else { return (loss, gradients) };
        let terms = add_gradients(policy, &batch.completions, &reference, &how, beta, &mut gradients);
        (with_regularizer(loss, terms), gradients)
    }

    fn finish(&self, metrics: &mut Metrics) {
        let sums = self.ratio();
        metrics.set("policy/approxkl_avg", sums.approx_kl());
        metrics.set("policy/clipfrac_avg", sums.clip_fraction());
        metrics.set("policy/log_ratio_clampfrac", sums.clamp_fraction());
        let (clamped, seen) = self.clamped.get();
        if seen > 0.0 {
            metrics.set("regularizer/clampfrac_avg", clamped / seen);
        }
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
