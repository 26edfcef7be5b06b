//! The language model: a decoder and the head that scores next tokens.

use align_core::{CausalLm, Completions, Decoder, Draws, NextTokens, TokenBatch, TokenLogProbs};
use align_kernels::{HeadOptions, WeightLayout};
use burn::module::{Module, Param};
use burn::tensor::{DType, Device, IndexingUpdateOp, Int, Tensor, TensorData};

use crate::backbone::Backbone;
use crate::cache::CachedDecoder;
use crate::config::TransformerConfig;
use crate::weights::{Weights, normal};

/// A causal language model of any supported family.
///
/// Made by [`Transformer::init`] or [`Transformer::from_pretrained`]; trained after [`Module::train`], read after
/// [`Module::valid`].
#[derive(Module, Debug)]
pub struct Transformer {
    pub(crate) backbone: Backbone,
    /// `[V, E]`; `None` if tied to the embedding.
    pub(crate) head: Option<Param<Tensor<2>>>,
}

/// Where the draws of the head stand, far from those of any backbone parameter.
const HEAD_DRAWS: u64 = 1 << 32;

impl Transformer {
    /// A model with fresh weights: they depend on the configuration and the draws alone, not on order or device.
    ///
    /// Normal with standard deviation `initializer_range`, norms at one, biases at zero; GPT-2's residual projections are
    /// divided by √(2·layers).
    pub fn init(config: &TransformerConfig, draws: &Draws, device: &Device) -> Self {
        let backbone = Backbone::assemble(config.clone(), &mut Weights::initial(config, draws, device));
        let head = (!config.tied).then(|| {
            let shape = [config.vocab_size, config.hidden_size];
            let values = normal(draws, HEAD_DRAWS, shape[0] * shape[1], config.initializer_range);
            Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), (device, DType::F32)))
        });
        Self { backbone, head }
    }

    /// What the model is made of.
    pub fn config(&self) -> &TransformerConfig {
        self.backbone.config()
    }

    /// The decoder without its head.
    pub fn backbone(&self) -> &Backbone {
        &self.backbone
    }

    /// Hidden states after the last norm; see [`Backbone::hidden`].
    ///
    /// # Shapes
    /// `[B, T]` → `[B, T, E]`.
    pub fn hidden(&self, tokens: &TokenBatch) -> Tensor<3> {
        self.backbone.hidden(tokens)
    }

    /// The head's weights, `[V, E]`: its own or the embedding's.
    pub fn head_weight(&self) -> Tensor<2> {
        self.head.as_ref().unwrap_or(&self.backbone.embedding).val()
    }

    /// Scores of the next token from hidden states, in f32.
    ///
    /// # Shapes
    /// `[N, E]` → `[N, V]`.
    pub(crate) fn score(&self, hidden: Tensor<2>) -> Tensor<2> {
        let logits = align_kernels::linear(hidden, self.head_weight(), WeightLayout::OutIn);
        let logits = if logits.dtype() == DType::F32 { logits } else { logits.cast(DType::F32) };
        match self.config().final_softcap {
            Some(cap) => (logits / cap).tanh() * cap,
            None => logits,
        }
    }

    /// Log-probabilities and entropies of `targets` from the hidden states that predict them; with `recompute` no logits are kept for
    /// the backward pass.
    ///
    /// # Shapes
    /// `hidden` `[B, R, E]`, `targets` `[B, R]` → `[B, R]` each, 0 under a false mask.
    pub(crate) fn log_probs_from_hidden(
        &self,
        hidden: Tensor<3>,
        targets: &TokenBatch,
        temperature: f64,
        recompute: bool,
    ) -> TokenLogProbs {
        let options = HeadOptions { temperature, softcap: self.config().final_softcap, recompute };
        let [b, r, e] = hidden.dims();
        let counted: Vec<i64> = (0..)
            .zip(targets.mask.to_data().iter::<bool>())
            .filter_map(|(at, counts)| counts.then_some(at))
            .collect();
        let rows = hidden.reshape([b * r, e]);
        let ids = targets.ids.clone().without_autodiff().reshape([b * r]);
        // The head is the dearest product of all: rows of padding are left out of it.
        if counted.is_empty() || counted.len() == b * r {
            let (log_probs, entropies) = self.log_probs_of_rows(rows, ids, &options);
            let padding = targets.mask.clone().without_autodiff().bool_not();
            return TokenLogProbs {
                log_probs: log_probs.reshape([b, r]).mask_fill(padding.clone(), 0.0),
                entropies: entropies.reshape([b, r]).mask_fill(padding, 0.0),
            };
        }
        let count = counted.len();
        let counted = Tensor::<1, Int>::from_data(TensorData::new(counted, [count]), &ids.device());
        let (log_probs, entropies) =
            self.log_probs_of_rows(rows.select(0, counted.clone()), ids.select(0, counted.clone()), &options);
        let spread = |values: Tensor<1>| {
            let blank = Tensor::zeros([b * r], &values.device().without_autodiff());
            blank.select_assign(0, counted.clone(), values, IndexingUpdateOp::Add).reshape([b, r])
        };
        TokenLogProbs { log_probs: spread(log_probs), entropies: spread(entropies) }
    }

    /// # Shapes
    /// `rows` `[N, E]`, `ids` `[N]` → log-probabilities and entropies `[N]`.
    fn log_probs_of_rows(
        &self,
        rows: Tensor<2>,
        ids: Tensor<1, Int>,
        options: &HeadOptions,
    ) -> (Tensor<1>, Tensor<1>) {
        // A softmax over a vocabulary in bf16 would have two significant digits.
        let full = |x: Tensor<2>| if x.dtype() == DType::F32 { x } else { x.cast(DType::F32) };
        let found = align_kernels::token_log_probs(full(rows), full(self.head_weight()), None, ids, options);
        (found.log_probs, found.entropies)
    }
}

impl CausalLm for Transformer {
    fn logits(&self, tokens: &TokenBatch) -> Tensor<3> {
        let hidden = self.hidden(tokens);
        let [b, t, e] = hidden.dims();
        self.score(hidden.reshape([b * t, e])).reshape([b, t, self.vocab_size()])
    }

    fn vocab_size(&self) -> usize {
        self.config().vocab_size
    }

    fn device(&self) -> Device {
        self.backbone.device()
    }

    fn context_length(&self) -> Option<usize> {
        Some(self.config().context_length)
    }

    fn decoder<'a>(&'a self) -> Box<dyn Decoder + 'a> {
        Box::new(CachedDecoder::new(self))
    }

    fn next_tokens<'a>(&'a self, completions: &Completions) -> NextTokens<'a> {
        let states = self.backbone.hidden_before_responses(completions);
        NextTokens::new(states, |states| {
            let [b, c, e] = states.dims();
            self.score(states.reshape([b * c, e])).reshape([b, c, self.vocab_size()])
        })
    }

    fn token_log_probs(&self, completions: &Completions, temperature: f64) -> TokenLogProbs {
        crate::backbone::assert_ids_below(
            completions.response.ids.to_data().iter::<i64>(),
            self.vocab_size(),
        );
        let hidden = self.backbone.hidden_before_responses(completions);
        self.log_probs_from_hidden(hidden, &completions.response, temperature, false)
    }
}
