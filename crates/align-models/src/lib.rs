//! Transformers in Hugging Face form: checkpoints, generation, heads and adapters.
