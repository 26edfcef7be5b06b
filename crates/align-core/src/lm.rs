//! Language models as the algorithms see them.

use std::ops::Range;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};

use crate::batch::{Completions, TokenBatch};
use crate::log_probs::{self, TokenLogProbs};

/// Gives next-token scores: transformers, fusions, frozen models, test doubles.
pub trait CausalLm: Send + Sync {
    /// Unnormalised log-probabilities of the next token at every position.
    ///
    /// # Shapes
    /// `[B, T]` → `[B, T, V]`. What stands under a false mask is unspecified but finite.
    fn logits(&self, tokens: &TokenBatch) -> Tensor<3>;

    /// V.
    fn vocab_size(&self) -> usize;

    /// Where the weights live.
    fn device(&self) -> Device;

    /// The longest sequence the model was made for, if it knows one.
    fn context_length(&self) -> Option<usize> {
        None
    }

    /// Incremental decoding. The default recomputes the prefix: correct, slow.
    fn decoder<'a>(&'a self) -> Box<dyn Decoder + 'a> {
        Box::new(Recompute { model: self, rows: Vec::new() })
    }

    /// Log-probabilities of the response tokens, and the entropy of the distribution each was taken from.
    ///
    /// # Shapes
    /// `[B, R]` each. Under a false mask the log-probability is 0 and the entropy is 0.
    ///
    /// # Units
    /// Nats per token, of the distribution `softmax(logits / temperature)`.
    ///
    /// # Gradient
    /// Through the log-probabilities; entropies are constants.
    ///
    /// The default builds `[B, R, V]`; override it to save memory.
    fn token_log_probs(&self, completions: &Completions, temperature: f64) -> TokenLogProbs {
        let [_, p] = completions.prompt.ids.dims();
        let [b, r] = completions.response.ids.dims();
        let logits = self.logits(&completions.joined()).slice([0..b, p - 1..p + r - 1]);
        log_probs::from_logits(logits, &completions.response, temperature)
    }

    /// The distributions the response tokens were taken from, to be read a few positions at a time.
    ///
    /// The default computes all scores at once, `[B, P + R, V]`, and keeps those before the response; override it with the
    /// states below the head to save memory.
    fn next_tokens<'a>(&'a self, completions: &Completions) -> NextTokens<'a> {
        let [_, p] = completions.prompt.ids.dims();
        let [b, r] = completions.response.ids.dims();
        NextTokens::of_scores(self.logits(&completions.joined()).slice([0..b, p - 1..p + r - 1]))
    }
}

/// The next-token distributions before each response token, computed as far as the head.
pub struct NextTokens<'a> {
    /// What the head reads, `[B, R, E]`: position `t` precedes response token `t`.
    pub states: Tensor<3>,
    head: Option<Head<'a>>,
}

/// `[B, C, E]` → `[B, C, V]`.
type Head<'a> = Box<dyn Fn(Tensor<3>) -> Tensor<3> + 'a>;

impl<'a> NextTokens<'a> {
    /// States and what makes scores of them, position by position: `[B, R, E]`, and a function `[B, C, E]` → `[B, C, V]`.
    pub fn new(states: Tensor<3>, head: impl Fn(Tensor<3>) -> Tensor<3> + 'a) -> Self {
        Self { states, head: Some(Box::new(head)) }
    }

    /// Scores that are there already, `[B, R, V]`.
    pub fn of_scores(scores: Tensor<3>) -> Self {
        Self { states: scores, head: None }
    }

    /// Unnormalised log-probabilities from states: `[B, C, E]` → `[B, C, V]`.
    ///
    /// # Gradient
    /// Through the states and the head's weights.
    pub fn head(&self, states: Tensor<3>) -> Tensor<3> {
        match &self.head {
            Some(head) => head(states),
            None => states,
        }
    }

    /// Unnormalised log-probabilities before the given response tokens, `[B, C, V]`.
    ///
    /// # Panics
    /// If there are fewer response positions.
    pub fn scores(&self, columns: Range<usize>) -> Tensor<3> {
        self.head(self.states.clone().narrow(1, columns.start, columns.len()))
    }

    /// `[B, R]`.
    pub(crate) fn positions(&self) -> [usize; 2] {
        let [b, r, _] = self.states.dims();
        [b, r]
    }
}

/// A decoding in progress: owns its cache, borrows its model.
///
/// Rows can be admitted at any time and leave when they are finished; the others do not notice.
pub trait Decoder {
    /// Appends rows and gives the scores that follow each prompt.
    ///
    /// # Shapes
    /// `[N, P]` → `[N, V]`, for the new rows only.
    fn admit(&mut self, prompts: &TokenBatch) -> Tensor<2>;

    /// Appends one token to every row and gives the scores that follow.
    ///
    /// # Shapes
    /// B ids → `[B, V]`.
    ///
    /// # Panics
    /// If the number of ids is not the number of rows.
    fn advance(&mut self, next: &[u32]) -> Tensor<2>;

    /// Keeps the given rows, in that order, and forgets the others. A row that is named twice goes on twice.
    fn keep(&mut self, rows: &[usize]);
}

/// A decoder without a cache: runs the whole prefix each time.
struct Recompute<'a, M: ?Sized> {
    model: &'a M,
    rows: Vec<Vec<u32>>,
}

impl<M: CausalLm + ?Sized> Recompute<'_, M> {
    fn last_logits(&self, rows: &[Vec<u32>]) -> Tensor<2> {
        let batch = TokenBatch::left_padded(rows, &self.model.device());
        let [b, t] = batch.ids.dims();
        self.model.logits(&batch).slice([0..b, t - 1..t]).squeeze_dim(1)
    }
}

impl<M: CausalLm + ?Sized> Decoder for Recompute<'_, M> {
    fn admit(&mut self, prompts: &TokenBatch) -> Tensor<2> {
        let new = prompts.rows();
        let logits = self.last_logits(&new);
        self.rows.extend(new);
        logits
    }

    fn advance(&mut self, next: &[u32]) -> Tensor<2> {
        assert_eq!(next.len(), self.rows.len(), "one token for each row");
        for (row, &id) in self.rows.iter_mut().zip(next) {
            row.push(id);
        }
        self.last_logits(&self.rows)
    }

    fn keep(&mut self, rows: &[usize]) {
        self.rows = rows.iter().map(|&row| self.rows[row].clone()).collect();
    }
}

/// What can be trained. A bound, never a trait object.
pub trait Policy: CausalLm + Module {}
impl<M: CausalLm + Module> Policy for M {}

/// A model that gives its gradients with the activations of one block in memory at a time.
pub trait RecomputingLm: Policy {
    /// The gradients of `loss` of the response log-probabilities, with every block computed again in the backward pass.
    ///
    /// The gradients are those of an ordinary pass up to rounding, for one more forward pass and a fraction of the memory.
    ///
    /// # Shapes
    /// `loss` takes log-probabilities and entropies `[B, R]` and gives `[1]`.
    ///
    /// # Panics
    /// If the model is not training.
    fn backward_blockwise(
        &self,
        completions: &Completions,
        temperature: f64,
        loss: impl FnOnce(TokenLogProbs) -> Tensor<1>,
    ) -> BlockwiseGradients;
}

/// A loss and its gradients.
#[derive(Debug)]
pub struct BlockwiseGradients {
    /// The loss, `[1]`, a constant.
    pub loss: Tensor<1>,
    /// What [`GradientsParams::from_grads`] gives after an ordinary backward pass.
    pub gradients: GradientsParams,
}

/// Predicts the return from every response position. Trained beside a policy.
pub trait Critic: Module + Send + Sync {
    /// The value *before* each response token is chosen: entry `t` sees the prompt and the tokens before `t`.
    ///
    /// # Shapes
    /// → `[B, R]`; 0 under a false mask.
    fn values(&self, completions: &Completions) -> Tensor<2>;
}

/// A model that cannot record gradients and that no learner accepts: it is a [`CausalLm`] and no [`Module`].
///
/// # Examples
/// What is trained is accepted:
/// ```
/// fn learner<M: align_core::Policy>(model: M) {}
///
/// fn train(policy: align_testkit::BigramLm) {
///     learner(policy);
/// }
/// ```
/// What is frozen is not:
/// ```compile_fail,E0277
/// fn learner<M: align_core::Policy>(model: M) {}
///
/// fn train(reference: align_core::Frozen<align_testkit::BigramLm>) {
///     learner(reference); // the trait `Module` is not implemented for `Frozen<..>`
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Frozen<M>(M);

impl<M: Module> Frozen<M> {
    /// Detaches the model from autodiff. Storage is shared until the original moves on.
    pub fn new(model: &M) -> Self {
        Self(model.valid())
    }

    /// The model, for reading.
    pub fn get(&self) -> &M {
        &self.0
    }
}

/// Forwards every method, so that an override is never lost behind a pointer or a wrapper.
macro_rules! forward_causal_lm {
    ($self:ident => $inner:expr) => {
        fn logits(&$self, tokens: &TokenBatch) -> Tensor<3> {
            $inner.logits(tokens)
        }
        fn vocab_size(&$self) -> usize {
            $inner.vocab_size()
        }
        fn device(&$self) -> Device {
            $inner.device()
        }
        fn context_length(&$self) -> Option<usize> {
            $inner.context_length()
        }
        fn decoder<'a>(&'a $self) -> Box<dyn Decoder + 'a> {
            $inner.decoder()
        }
        fn token_log_probs(&$self, completions: &Completions, temperature: f64) -> TokenLogProbs {
            $inner.token_log_probs(completions, temperature)
        }
        fn next_tokens<'a>(&'a $self, completions: &Completions) -> NextTokens<'a> {
            $inner.next_tokens(completions)
        }
    };
}

impl<M: CausalLm> CausalLm for Frozen<M> {
    forward_causal_lm!(self => self.0);
}
impl<M: CausalLm + ?Sized> CausalLm for &M {
    forward_causal_lm!(self => (**self));
}
impl<M: CausalLm + ?Sized> CausalLm for Box<M> {
    forward_causal_lm!(self => (**self));
}
impl<M: CausalLm + ?Sized> CausalLm for std::sync::Arc<M> {
    forward_causal_lm!(self => (**self));
}
