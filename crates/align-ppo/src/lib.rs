//! PPO for language models with any reference, any reward and any divergence.
