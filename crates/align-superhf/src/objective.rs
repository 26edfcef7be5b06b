//! What an optimiser step minimises: equation (2) over a minibatch, one microbatch at a time.
//!
//! The objective of a step is `Σ value / Σ weight` over its microbatches. The weight is the number of tokens, and whatever is
//! reduced otherwise is multiplied by the tokens of the whole minibatch, which the objective is told in advance: how a
//! minibatch is cut changes nothing but rounding.
//!
//! With β > 0 the policy makes one pass and the prior another. Cross-entropy and KL come from the same scores, which are
//! computed for tokens that count and held a part at a time; each part is run backward and forgotten, and the model below the
//! head is run backward once. With β = 0 the policy learns by its own `token_log_probs`, and the KL is only measured.

use std::cell::Cell;
use std::ops::Range;

use align_core::{Completions, NextTokens, Policy, Reference, accumulate, masked};
use align_train::{Loss, Metrics, Objective};
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};

use crate::loss::{
    Counted, InverseLoss, LossSettings, inverse_loss, log_probs, token_cross_entropy, token_kl,
};

/// Scores held at once unless said otherwise: 64 MiB of f32 a tensor. Memory, not results.
const SCORES: usize = 1 << 24;

/// What an objective has to know of the minibatch that a microbatch is a part of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Minibatch {
    /// E: completions.
    pub examples: usize,
    /// T: tokens of all of them.
    pub tokens: usize,
    /// L_CE before the step, nats per token. `C/L` is a function of that and of no single microbatch, so it is measured
    /// before the gradients are; looked at only where C > 0.
    pub cross_entropy: f64,
}

/// Equation (2) over the kept completions of one minibatch.
pub struct SuperHfObjective<'a> {
    settings: LossSettings,
    prior: Option<&'a dyn Reference>,
    whole: Minibatch,
    /// Where C > 0.
    inverse: Option<InverseLoss>,
    /// Scores held at once.
    scores: usize,
    seen: Cell<SeenKl>,
}

/// The KL of the tokens seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SeenKl {
    /// Its sum, nats.
    pub total: f64,
    /// Tokens it was measured on.
    pub tokens: usize,
}

impl SeenKl {
    /// The mean over tokens, nats; 0 before there is one.
    pub fn mean(&self) -> f64 {
        over(self.total, self.tokens)
    }
}

/// Both terms of the loss over some of the tokens.
struct Part {
    /// Summed, `[1]`.
    cross_entropy: Tensor<1>,
    /// Summed and weighed, `[1]`.
    kl: Tensor<1>,
}

impl Part {
    fn plus(self, other: Self) -> Self {
        Self { cross_entropy: self.cross_entropy + other.cross_entropy, kl: self.kl + other.kl }
    }

    fn constant(self) -> Self {
        Self { cross_entropy: self.cross_entropy.without_autodiff(), kl: self.kl.without_autodiff() }
    }
}

/// Policy and prior up to their heads, at the N tokens that count.
struct Heads<'a> {
    policy: NextTokens<'a>,
    prior: NextTokens<'a>,
    /// `[N, E]`, recorded if the policy is.
    states: Tensor<2>,
    /// `[N, E_0]`.
    prior_states: Tensor<2>,
    counted: Counted,
    /// What each token's KL is multiplied by.
    weights: Vec<f64>,
    /// Tokens at a time.
    at_once: usize,
}

impl Heads<'_> {
    fn ranges(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (tokens, at_once) = (self.weights.len(), self.at_once);
        (0..tokens).step_by(at_once).map(move |start| start..(start + at_once).min(tokens))
    }

    /// The policy's states at some of the tokens.
    fn states(&self, range: &Range<usize>) -> Tensor<2> {
        self.states.clone().narrow(0, range.start, range.len())
    }
}

impl<'a> SuperHfObjective<'a> {
    /// For one minibatch. A prior beside β = 0 is only measured from; without one β counts for nothing.
    pub fn new(settings: LossSettings, prior: Option<&'a dyn Reference>, whole: Minibatch) -> Self {
        let inverse =
            (settings.inverse_loss > 0.0).then(|| inverse_loss(whole.cross_entropy, settings.inverse_loss));
        Self { settings, prior, whole, inverse, scores: SCORES, seen: Cell::default() }
    }

    /// Holds about that many scores of each model at once, those of a token at least.
    #[must_use]
    pub fn holding(self, scores: usize) -> Self {
        Self { scores, ..self }
    }

    /// The KL of everything seen so far.
    pub fn seen_kl(&self) -> SeenKl {
        self.seen.get()
    }

    /// What the cross-entropy of the minibatch becomes, where C > 0.
    pub fn inverse_loss(&self) -> Option<InverseLoss> {
        self.inverse
    }

    /// The prior, if it acts on the gradient.
    fn acting(&self) -> Option<&'a dyn Reference> {
        self.prior.filter(|_| self.settings.kl_coef > 0.0)
    }

    /// None where nothing counts.
    fn heads<'b, P: Policy>(
        &self,
        policy: &'b P,
        prior: &'b dyn Reference,
        batch: &Completions,
    ) -> Option<Heads<'b>> {
        let counted = Counted::of(&batch.response);
        if counted.tokens() == 0 {
            return None;
        }
        let at_once = (self.scores / policy.vocab_size()).max(1);
        let policy = policy.next_tokens(batch);
        let prior = prior.distributions(batch).expect("the prior is a model");
        // Dividing by all tokens of the minibatch then reduces as asked.
        let weight = |length| {
            let Minibatch { examples, tokens, .. } = self.whole;
            self.settings.reduction.weight(length, examples, tokens) * tokens as f64
        };
        Some(Heads {
            states: counted.rows(policy.states.clone()),
            prior_states: counted.rows(prior.states.clone()).without_autodiff(),
            weights: counted.spread(weight),
            policy,
            prior,
            counted,
            at_once,
        })
    }

    /// Both terms at some of the tokens, from the policy's states there.
    fn part(&self, heads: &Heads<'_>, states: Tensor<2>, range: &Range<usize>) -> Part {
        let (start, length) = (range.start, range.len());
        let scores = |of: &NextTokens<'_>, states: Tensor<2>| -> Tensor<2> {
            of.head(states.unsqueeze_dim(0)).squeeze_dim(0)
        };
        let policy = log_probs(scores(&heads.policy, states));
        let prior = scores(&heads.prior, heads.prior_states.clone().narrow(0, start, length));
        let prior = log_probs(prior.without_autodiff());
        let targets = heads.counted.targets.clone().narrow(0, start, length);
        let cross_entropy = token_cross_entropy(policy.clone(), targets);
        let kl = token_kl(policy, prior, self.settings.direction);
        let seen = self.seen.get();
        let total = seen.total + number(&kl.clone().sum());
        self.seen.set(SeenKl { total, tokens: seen.tokens + length });
        let weights = TensorData::new(heads.weights[range.clone()].to_vec(), [length]);
        let weights = Tensor::from_data(weights, (&kl.device().without_autodiff(), kl.dtype()));
        Part { cross_entropy: cross_entropy.sum(), kl: (kl * weights).sum() }
    }

    /// The cross-entropy as it stands in the loss: where C > 0 its tangent, which has the value and the slope of `L + C/L`.
    fn cross_entropy_term(&self, sum: Tensor<1>, tokens: usize) -> Tensor<1> {
        match self.inverse {
            None => sum,
            Some(found) => {
                let constant = found.value - found.slope * self.whole.cross_entropy;
                sum * found.slope + constant * tokens as f64
            }
        }
    }

    fn value(&self, part: &Part, tokens: usize) -> Tensor<1> {
        self.cross_entropy_term(part.cross_entropy.clone(), tokens) + part.kl.clone() * self.settings.kl_coef
    }

    fn loss_of(&self, part: Part, tokens: usize) -> Loss {
        let metrics = Metrics::new()
            .with("loss/ce", over(number(&part.cross_entropy), tokens))
            .with("loss/kl", over(number(&part.kl), tokens));
        Loss::new(self.value(&part, tokens), tokens as f64)
            .with_term("cross_entropy", part.cross_entropy)
            .with_term("kl", part.kl)
            .with_metrics(metrics)
    }

    /// The loss without anything of the prior's.
    fn plain<P: Policy>(&self, policy: &P, batch: &Completions) -> Loss {
        let tokens = batch.response.lengths().iter().sum();
        let log_probs = policy.token_log_probs(batch, 1.0).log_probs;
        let cross_entropy = masked::sum(log_probs, &batch.response.mask).neg();
        let metrics = Metrics::new().with("loss/ce", over(number(&cross_entropy), tokens));
        Loss::new(self.cross_entropy_term(cross_entropy.clone(), tokens), tokens as f64)
            .with_term("cross_entropy", cross_entropy)
            .with_metrics(metrics)
    }

    /// `loss/kl` where the KL has no gradient.
    fn measured<P: Policy>(&self, policy: &P, prior: &dyn Reference, batch: &Completions) -> Metrics {
        let policy = policy.valid();
        let Some(heads) = self.heads(&policy, prior, batch) else { return Metrics::new() };
        let sums = heads.ranges().map(|range| number(&self.part(&heads, heads.states(&range), &range).kl));
        Metrics::new().with("loss/kl", over(sums.sum(), heads.weights.len()))
    }
}

impl<P: Policy> Objective<P> for SuperHfObjective<'_> {
    type Batch = Completions;

    /// # Panics
    /// If there is a prior and it is no model of the policy's tokens.
    fn loss(&self, policy: &P, batch: &Completions) -> Loss {
        let Some(prior) = self.acting() else {
            let loss = self.plain(policy, batch);
            return match self.prior {
                Some(prior) => loss.with_metrics(self.measured(policy, prior, batch)),
                None => loss,
            };
        };
        let Some(heads) = self.heads(policy, prior, batch) else { return self.plain(policy, batch) };
        let parts = heads.ranges().map(|range| self.part(&heads, heads.states(&range), &range));
        let part = parts.reduce(Part::plus).expect("a token counts");
        self.loss_of(part, heads.weights.len())
    }

    fn gradients(&self, policy: &P, batch: &Completions) -> (Loss, GradientsParams) {
        let heads = self.acting().and_then(|prior| self.heads(policy, prior, batch));
        let Some(heads) = heads else {
            let loss = self.loss(policy, batch);
            let gradients = match loss.weight > 0.0 && number(&loss.value).is_finite() {
                true => GradientsParams::from_grads(loss.value.backward(), policy),
                false => GradientsParams::new(),
            };
            return (loss, gradients);
        };
        let mut gradients = GradientsParams::new();
        let (mut sum, mut downstream): (Option<Part>, Vec<_>) = (None, Vec::new());
        for range in heads.ranges() {
            let states = heads.states(&range).without_autodiff().autodiff().require_grad();
            let part = self.part(&heads, states.clone(), &range);
            let mut found = self.value(&part, range.len()).backward();
            downstream.push(states.grad_remove(&mut found).expect("scores depend on the states"));
            accumulate(policy, GradientsParams::from_grads(found, policy), &mut gradients);
            let part = part.constant();
            sum = Some(match sum {
                Some(sum) => sum.plus(part),
                None => part,
            });
        }
        // (y·dy).sum() has the vector-Jacobian product as its gradient.
        if heads.states.is_tracked() {
            let found = (heads.states.clone() * Tensor::cat(downstream, 0)).sum().backward();
            accumulate(policy, GradientsParams::from_grads(found, policy), &mut gradients);
        }
        (self.loss_of(sum.expect("a token counts"), heads.weights.len()), gradients)
    }
}

fn over(sum: f64, tokens: usize) -> f64 {
    sum / tokens.max(1) as f64
}

fn number(tensor: &Tensor<1>) -> f64 {
    tensor.to_data().iter::<f64>().sum()
}
