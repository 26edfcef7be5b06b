//! A model opened for use: weights, tokenizer, template, and the sampling a command line describes.

use align_data::encode::{EncodeOptions, Encoder, PlainPrompts};
use align_models::{Detokenize, SamplingConfig};
use anyhow::Result;

use crate::args::{LoadArgs, SamplingArgs};
use crate::context::resolve_model;
use crate::language_model::OpenModel;

/// A language model and what turns text into its tokens.
pub(super) struct Opened {
    pub(super) model: OpenModel,
    pub(super) encoder: Encoder,
}

/// Opens a model folder, a hub id or a fusion. Prompts that are text are tokenised as they stand.
pub(super) fn open(reference: &str, load: &LoadArgs) -> Result<Opened> {
    let (device, dtype) = load.open()?;
    let model = OpenModel::open(&resolve_model(reference)?, &device, dtype, load.adapter.as_deref())?;
    let options = EncodeOptions { plain_prompts: PlainPrompts::AsText, ..EncodeOptions::default() };
    let encoder = model.encoder(options)?;
    Ok(Opened { model, encoder })
}

/// The sampling a command line describes, with the model's own stop tokens.
pub(super) fn sampling(args: &SamplingArgs, encoder: &Encoder) -> SamplingConfig {
    SamplingConfig {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        repetition_penalty: args.repetition_penalty,
        max_new_tokens: args.max_new_tokens,
        stop_token_ids: encoder.stop_ids().to_vec(),
        stop_strings: args.stop.clone(),
        never_stop: encoder.stop_ids().is_empty() && args.stop.is_empty(),
        ..SamplingConfig::default()
    }
}

/// An encoder that decodes for stop strings and for reading.
pub(super) struct Text<'a>(pub(super) &'a Encoder);

impl Detokenize for Text<'_> {
    fn text(&self, ids: &[u32]) -> String {
        // Tokens that do not decode have no text; generation itself does not depend on it.
        self.0.decode(ids).unwrap_or_default()
    }
}
