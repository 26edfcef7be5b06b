//! Divergences over the whole vocabulary at every token: no draw stands for the distribution it came from.
//!
//! ```text
//! D_t = D(π(·|s_t) ‖ μ(·|s_t))        s_t the prompt and the response before token t
//! ```
//!
//! Where responses are drawn from π this is the divergence "token by token" without sampling noise in the actions; the states
//! are still those visited, and taken as given. `[B, R, V]` is taken `columns` positions at a time.
//!
//! | | memory beside the two models |
//! | --- | --- |
//! | [`token_divergences`], nothing recorded | a few `[B, columns, V]` |
//! | [`token_divergences`], recorded | about four `[B, R, V]`: autodiff keeps every part until the backward pass |
//! | [`add_gradients`] | a few `[B, columns, V]`, and `[B, R, E]` twice |
//!
//! E is the width of [`NextTokens::states`]. A model that does not override
//! [`CausalLm::next_tokens`](crate::CausalLm::next_tokens) keeps its scores there, so that E is V; one that does computes its
//! head part by part and never holds all scores.

use burn::optim::GradientsParams;
use burn::tensor::{Bool, Tensor, activation::log_softmax};

use crate::accumulate::accumulate;
use crate::batch::Completions;
use crate::divergence::Divergence;
use crate::lm::{NextTokens, Policy};
use crate::log_probs::full_precision;
use crate::shape::assert_same_shape;

/// What is measured, and in how many parts.
#[derive(Clone, Copy, Debug)]
pub struct Exact<'a> {
    /// By [`Divergence::exact`].
    pub divergence: &'a dyn Divergence,
    /// Divides the scores of both models.
    pub temperature: f64,
    /// Response positions at a time: memory, not results.
    pub columns: usize,
}

impl Exact<'_> {
    /// Ranges of response positions.
    fn parts(&self, width: usize) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        assert!(self.columns > 0, "exact: expected at least one column at a time, found 0");
        let columns = self.columns;
        (0..width).step_by(columns).map(move |start| start..(start + columns).min(width))
    }

    /// Scores `[B, C, V]` and a mask `[B, C]` to `[B, C]`.
    fn part(&self, policy: Tensor<3>, reference: Tensor<3>, mask: Tensor<2, Bool>) -> Tensor<2> {
        let [b, c, v] = policy.dims();
        assert_same_shape("exact::token_divergences", [policy.dims(), reference.dims()]);
        let hidden = mask.bool_not();
        let everywhere = hidden.clone().unsqueeze_dim::<3>(2).expand([b, c, v]);
        // Filled on the way in as well: what overflows under a false mask must not reach the gradient.
        let rows = |scores: Tensor<3>| {
            let scores = full_precision(scores).mask_fill(everywhere.clone(), 0.0) / self.temperature;
            log_softmax(scores, 2).reshape([b * c, v])
        };
        let measured = self.divergence.exact(rows(policy), rows(reference.without_autodiff()));
        measured.reshape([b, c]).mask_fill(hidden, 0.0)
    }
}

/// `D_t` at every response token.
///
/// # Shapes
/// `mask` `[B, R]` → `[B, R]`; 0 where nothing counts.
///
/// # Units
/// Nats per token for KL, pure numbers otherwise.
///
/// # Gradient
/// Through the policy, that of the divergence itself; the reference is a constant.
///
/// # Panics
/// If the shapes disagree (the vocabularies too), or `columns` is 0.
///
/// # Examples
/// ```
/// use align_core::divergence::Kl;
/// use align_core::exact::{Exact, token_divergences};
/// use align_core::{CausalLm, Completions};
/// use align_testkit::{BigramLm, device};
///
/// let policy = BigramLm::independent(&[0.0, 0.0], &device());
/// let reference = BigramLm::independent(&[0.0, 3f32.ln()], &device());
/// let answered = Completions::from_rows(&[vec![0]], &[vec![1]], &device());
/// let (of_policy, of_reference) = (policy.next_tokens(&answered), reference.next_tokens(&answered));
/// let how = Exact { divergence: &Kl::default(), temperature: 1.0, columns: 1 };
/// let found = token_divergences(&of_policy, &of_reference, &answered.response.mask, &how);
/// // KL((½, ½) ‖ (¼, ¾)) = ½ log(4/3).
/// assert!((found.into_scalar::<f64>() - 0.5 * (4f64 / 3.0).ln()).abs() < 1e-6);
/// ```
pub fn token_divergences(
    policy: &NextTokens<'_>,
    reference: &NextTokens<'_>,
    mask: &Tensor<2, Bool>,
    how: &Exact<'_>,
) -> Tensor<2> {
    let [b, r] = mask.dims();
    assert_same_shape("exact::token_divergences", [[b, r], policy.positions(), reference.positions()]);
    let parts = how.parts(r).map(|columns| {
        let mask = mask.clone().slice([0..b, columns.clone()]);
        how.part(policy.scores(columns.clone()), reference.scores(columns), mask)
    });
    Tensor::cat(parts.collect(), 1)
}

/// Adds the gradients of `weight · Σ_t D_t`, over the response tokens that count, to those in `into`; gives that sum.
///
/// They are the gradients of [`token_divergences`], part by part: each part is recorded down to the policy's states, run
/// backward and forgotten; the model below the states is run backward once, at the end.
///
/// # Shapes
/// → `[1]`, a constant.
///
/// # Panics
/// If the shapes disagree, `columns` is 0, or the policy does not record.
pub fn add_gradients<P: Policy>(
    policy: &P,
    completions: &Completions,
    reference: &NextTokens<'_>,
    how: &Exact<'_>,
    weight: f64,
    into: &mut GradientsParams,
) -> Tensor<1> {
    let mask = &completions.response.mask;
    let [b, r] = mask.dims();
    let next = policy.next_tokens(completions);
    assert_same_shape("exact::add_gradients", [[b, r], next.positions(), reference.positions()]);
    let mut total: Option<Tensor<1>> = None;
    let mut downstream = Vec::new();
    for columns in how.parts(r) {
        let length = columns.len();
        let states = next.states.clone().without_autodiff().narrow(1, columns.start, length);
        let states = states.autodiff().require_grad();
        let mask = mask.clone().slice([0..b, columns.clone()]);
        let measured = how.part(next.head(states.clone()), reference.scores(columns), mask);
        let value = measured.sum() * weight;
        let mut gradients = value.backward();
        downstream.push(states.grad_remove(&mut gradients).expect("scores depend on the states"));
        accumulate(policy, GradientsParams::from_grads(gradients, policy), into);
        let value = value.without_autodiff();
        total = Some(total.map_or(value.clone(), |total| total + value));
    }
    // (y·dy).sum() has the vector-Jacobian product as its gradient.
    if next.states.is_tracked() {
        let gradients = (next.states * Tensor::cat(downstream, 1)).sum().backward();
        accumulate(policy, GradientsParams::from_grads(gradients, policy), into);
    }
    total.expect("a response is at least one position wide")
}
