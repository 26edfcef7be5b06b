//! Transformers in Hugging Face form: checkpoints, generation, heads and adapters.

mod generate;
mod processors;
mod sampler;
mod softmax;
mod stop;

pub use generate::{
    Event, GenerateError, GenerateOptions, Generated, Generation, Prompt, generate, generate_watched,
};
pub use processors::{History, MinNewTokens, MinP, Processor, RepetitionPenalty, Temperature, TopK, TopP};
pub use sampler::{Chain, Drawn, Greedy, Pick, Sampler, SamplingConfig, SamplingError, raw_log_prob};
pub use stop::{Detokenize, FinishReason, cut_at_stop_string};
