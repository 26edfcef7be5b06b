//! Transformers in Hugging Face form: checkpoints, generation, heads and adapters.

mod attention;
mod backbone;
mod blockwise;
mod cache;
pub mod checkpoint;
pub mod config;
mod generate;
mod heads;
mod lora;
mod mlp;
mod pretrained;
mod processors;
pub mod rope;
mod sampler;
mod softmax;
mod stop;
mod transformer;
mod weights;

pub use attention::Attention;
pub use backbone::{Backbone, Layer};
pub use blockwise::BlockwiseGradients;
pub use checkpoint::{CheckpointError, SaveOptions};
pub use config::{ConfigError, Family, HfConfig, TransformerConfig};
pub use generate::{
    Event, GenerateError, GenerateOptions, Generated, Generation, Prompt, generate, generate_watched,
};
pub use heads::{Normalization, RewardModel, ScalarHead, ValueModel};
pub use lora::{Adapter, LoraConfig, LoraTarget};
pub use mlp::{Mlp, Norm, Projection};
pub use processors::{History, MinNewTokens, MinP, Processor, RepetitionPenalty, Temperature, TopK, TopP};
pub use sampler::{Chain, Drawn, Greedy, Pick, Sampler, SamplingConfig, SamplingError, raw_log_prob};
pub use stop::{Detokenize, FinishReason, cut_at_stop_string};
pub use transformer::Transformer;
