//! A model with a fixed prefix before every row: in-context learning as a model.
//!
//! Dynamic logits fusion combines with in-context examples, and nothing says that all members see the same ones. So the
//! prompt is a matter of each member: wrap those that are to see the examples. An expert may be the small base itself,
//! with examples before it.

use align_core::{CausalLm, Completions, Decoder, NextTokens, TokenBatch, TokenLogProbs};
use burn::tensor::{Device, Tensor, TensorData};

use crate::error::PrefixError;

/// Where a prefix goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Before everything.
    Front,
    /// Behind this beginning-of-text token in rows that start with it; before everything in others.
    After(u32),
}

/// A model that reads the same tokens before every row and otherwise is what it was.
///
/// Scores are those of the row's own positions: shapes are those of the rows given, and the prefix is not seen from outside.
///
/// # Source
/// Fan et al. 2024, §5.3, <https://arxiv.org/abs/2406.15480>: fusion together with in-context learning.
///
/// # Examples
/// ```
/// use align_core::{CausalLm, TokenBatch};
/// use align_fusion::{Placement, Prefixed};
/// use align_models::{Transformer, TransformerConfig};
///
/// let device = align_testkit::device();
/// let config = TransformerConfig::llama(20, 16, 1, 2);
/// let model = Transformer::init(&config, &align_core::Draws::new(1), &device);
/// // Token 1 begins every text.
/// let prefixed = Prefixed::new(&model, vec![5, 6, 7], Placement::After(1))?;
///
/// let row = |ids: &[u32]| TokenBatch::left_padded(&[ids.to_vec()], &device);
/// let (found, whole) = (prefixed.logits(&row(&[1, 9])), model.logits(&row(&[1, 5, 6, 7, 9])));
/// assert_eq!(found.to_data(), whole.narrow(1, 3, 2).to_data());
/// # Ok::<(), align_fusion::PrefixError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Prefixed<M> {
    model: M,
    prefix: Vec<u32>,
    placement: Placement,
}

impl<M: CausalLm> Prefixed<M> {
    /// Puts `prefix` before every row.
    ///
    /// # Errors
    /// If the prefix is empty, has an id the model does not know, or fills its context.
    pub fn new(model: M, prefix: Vec<u32>, placement: Placement) -> Result<Self, PrefixError> {
        let (found, vocabulary) = (prefix.len(), model.vocab_size());
        if prefix.is_empty() {
            return Err(PrefixError::Empty);
        }
        if let Some(position) = prefix.iter().position(|&id| id as usize >= vocabulary) {
            let found = prefix[position];
            return Err(PrefixError::TokenOutsideVocabulary { position, found, vocabulary });
        }
        if let Some(context) = model.context_length().filter(|&context| found >= context) {
            return Err(PrefixError::TooLong { found, context });
        }
        Ok(Self { model, prefix, placement })
    }

    /// The model.
    pub fn get(&self) -> &M {
        &self.model
    }

    /// What it reads before every row.
    pub fn prefix(&self) -> &[u32] {
        &self.prefix
    }

    /// `[B, T]` → `[B, K + T]`: what stood in column `c` and counts is read in column `K + c`, and so is the end of the
    /// prefix where a beginning-of-text token stood.
    ///
    /// The prefix goes where the row starts, not where the batch starts: what counts stays together.
    fn insert(&self, tokens: &TokenBatch) -> TokenBatch {
        let ([b, t], k) = (tokens.ids.dims(), self.prefix.len());
        let ids: Vec<i64> = tokens.ids.to_data().iter::<i64>().collect();
        let mask: Vec<bool> = tokens.mask.to_data().iter::<bool>().collect();
        let mut wider = Vec::with_capacity(b * (k + t));
        let mut counts = Vec::with_capacity(b * (k + t));
        for (ids, mask) in ids.chunks(t).zip(mask.chunks(t)) {
            let start = mask.iter().position(|&counts| counts).unwrap_or(t);
            let at = match self.placement {
                Placement::After(bos) if ids.get(start) == Some(&i64::from(bos)) => start + 1,
                _ => start,
            };
            wider.extend_from_slice(&ids[..at]);
            wider.extend(self.prefix.iter().map(|&id| i64::from(id)));
            wider.extend_from_slice(&ids[at..]);
            counts.extend_from_slice(&mask[..at]);
            counts.resize(counts.len() + k, true);
            counts.extend_from_slice(&mask[at..]);
        }
        let device = tokens.ids.device();
        TokenBatch {
            ids: Tensor::from_data(TensorData::new(wider, [b, k + t]), &device),
            mask: Tensor::from_data(TensorData::new(counts, [b, k + t]), &device),
        }
    }

    fn insert_in_prompts(&self, completions: &Completions) -> Completions {
        Completions { prompt: self.insert(&completions.prompt), response: completions.response.clone() }
    }
}

impl<M: CausalLm> CausalLm for Prefixed<M> {
    fn logits(&self, tokens: &TokenBatch) -> Tensor<3> {
        self.model.logits(&self.insert(tokens)).narrow(1, self.prefix.len(), tokens.width())
    }

    fn vocab_size(&self) -> usize {
        self.model.vocab_size()
    }

    fn device(&self) -> Device {
        self.model.device()
    }

    /// What the prefix leaves.
    fn context_length(&self) -> Option<usize> {
        self.model.context_length().map(|context| context - self.prefix.len())
    }

    fn decoder<'a>(&'a self) -> Box<dyn Decoder + 'a> {
        Box::new(PrefixedDecoder { of: self, inner: self.model.decoder() })
    }

    fn token_log_probs(&self, completions: &Completions, temperature: f64) -> TokenLogProbs {
        self.model.token_log_probs(&self.insert_in_prompts(completions), temperature)
    }

    fn next_tokens<'a>(&'a self, completions: &Completions) -> NextTokens<'a> {
        self.model.next_tokens(&self.insert_in_prompts(completions))
    }
}

struct PrefixedDecoder<'a, M> {
    of: &'a Prefixed<M>,
    inner: Box<dyn Decoder + 'a>,
}

impl<M: CausalLm> Decoder for PrefixedDecoder<'_, M> {
    fn admit(&mut self, prompts: &TokenBatch) -> Tensor<2> {
        self.inner.admit(&self.of.insert(prompts))
    }

    fn advance(&mut self, next: &[u32]) -> Tensor<2> {
        self.inner.advance(next)
    }

    fn keep(&mut self, rows: &[usize]) {
        self.inner.keep(rows);
    }
}
