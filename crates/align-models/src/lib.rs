//! Transformers in Hugging Face form: checkpoints, generation, heads and adapters.

mod attention;
mod backbone;
mod cache;
pub mod checkpoint;
pub mod config;
mod lora;
mod mlp;
mod pretrained;
pub mod rope;
mod transformer;
mod weights;

pub use attention::Attention;
pub use backbone::{Backbone, Layer};
pub use checkpoint::{CheckpointError, SaveOptions};
pub use config::{ConfigError, Family, HfConfig, TransformerConfig};
pub use lora::Adapter;
pub use mlp::{Mlp, Norm, Projection};
pub use transformer::Transformer;
