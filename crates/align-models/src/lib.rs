//! Transformers in Hugging Face form: checkpoints, generation, heads and adapters.
//!
//! One decoder with options serves Llama, Mistral, Gemma 1 to 3, Qwen 2 and 3, GPT-NeoX and GPT-2. Folders written by
//! transformers are read and folders written here are read there; a test compares every family with it at every position.
//!
//! | topic | where |
//! | --- | --- |
//! | the language model | [`Transformer`], [`Backbone`], [`TransformerConfig`] |
//! | folders | [`Transformer::from_pretrained`], [`Transformer::save_pretrained`], [`checkpoint`] |
//! | generation | [`generate()`], [`choose_prompts`], [`Sampler`], [`SamplingConfig`] |
//! | reward models and critics | [`RewardModel`], [`ValueModel`] |
//! | reward models that share layers | [`SharedRewardModels`] |
//! | several models as one | [`LogLinear`] |
//! | low-rank adapters | [`LoraConfig`], [`Transformer::with_adapters`], [`Transformer::load_adapters`] |
//! | gradients in little memory | [`RecomputingLm`](align_core::RecomputingLm) of [`Transformer`] |
//!
//! # Traps closed here
//! Positions count tokens that count, so padding on either side changes nothing. Ids outside the vocabulary panic on every
//! device. Weights are drawn when a model is made, each from its place and the seed. A critic made from a policy has parameter
//! ids of its own. A configuration that its family's files cannot express is not saved.
//!
//! # Examples
//! ```
//! use align_core::{CausalLm, Draws, TokenBatch};
//! use align_models::{Transformer, TransformerConfig};
//!
//! let config = TransformerConfig::llama(50, 32, 2, 4);
//! let device = align_testkit::device();
//! let model = Transformer::init(&config, &Draws::new(7), &device);
//! let tokens = TokenBatch::left_padded(&[vec![3, 1, 4], vec![1, 5]], &device);
//! assert_eq!(model.logits(&tokens).dims(), [2, 3, 50]);
//!
//! let folder = tempfile::tempdir()?;
//! model.save_pretrained(&folder.path().join("model"))?;
//! let again = Transformer::from_pretrained(&folder.path().join("model"), &device)?;
//! assert_eq!(again.logits(&tokens).to_data(), model.logits(&tokens).to_data());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod attention;
mod backbone;
mod blockwise;
mod cache;
pub mod checkpoint;
mod choose;
mod combine;
pub mod config;
mod generate;
mod heads;
mod lora;
mod mlp;
mod pretrained;
mod processors;
pub mod rope;
mod sampler;
mod shared;
mod softmax;
mod stop;
mod transformer;
mod weights;

pub use attention::Attention;
pub use backbone::{Backbone, Layer};
pub use checkpoint::{CheckpointError, SaveOptions};
pub use choose::choose_prompts;
pub use combine::LogLinear;
pub use config::{ConfigError, Family, HfConfig, TransformerConfig};
pub use generate::{
    Event, GenerateError, GenerateOptions, Generated, Generation, Prompt, generate, generate_watched,
};
pub use heads::{Normalization, RewardModel, ScalarHead, ValueModel};
pub use lora::{Adapter, LoraConfig, LoraTarget};
pub use mlp::{Mlp, Norm, Projection};
pub use processors::{History, MinNewTokens, MinP, Processor, RepetitionPenalty, Temperature, TopK, TopP};
pub use sampler::{Chain, Drawn, Greedy, Pick, Sampler, SamplingConfig, SamplingError, raw_log_prob};
pub use shared::SharedRewardModels;
pub use stop::{Detokenize, FinishReason, cut_at_stop_string};
pub use transformer::Transformer;
