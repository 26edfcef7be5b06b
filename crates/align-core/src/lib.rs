//! The language the Align crates share.
//!
//! What is trained is a generic parameter, what is frozen is a boxed trait object; algorithms meet only through the
//! traits of this crate.
//!
//! | topic | where |
//! | --- | --- |
//! | token batches, completions, preference pairs | [`TokenBatch`], [`Completions`], [`PreferencePairs`] |
//! | models | [`CausalLm`], [`Decoder`], [`Policy`], [`Critic`], [`Frozen`] |
//! | what a regulariser measures from | [`Reference`], [`CachedReference`] |
//! | distances and their weights | [`Divergence`], [`divergence`], [`Regularizer`] |
//! | distances over the whole vocabulary | [`exact`] |
//! | judges | [`Reward`], [`Preference`], [`BradleyTerry`], [`PreferenceMixture`], [`NoisyPreference`], [`RewardFn`], [`PreferenceFn`], [`adjusted_win_rate`] |
//! | asking an oracle and checking its answers | [`oracle`], [`checked_preferences`], [`check_antisymmetry`], [`OrderAveraged`] |
//! | from rewards to advantages | [`advantages`] |
//! | reductions over a mask, selection, checked numbers | [`masked`], [`selection`], [`number`] |
//! | saving and restoring | [`Persist`], [`persist`] |
//! | counter-based randomness | [`Draws`] |
//!
//! # Conventions
//! - `mask` is true where a position **counts**.
//! - Prompts are padded on the left, responses on the right; every per-token quantity is `[B, R]` over the response.
//! - Padding holds token id 0 under a false mask, never an index outside the vocabulary.
//! - Log-probabilities are in nats; `temperature` divides logits and nothing else.
//! - Data, masks and old log-probabilities live on the plain device; only what is trained records gradients.
//! - Whatever draws is keyed by counters ([`Draws`]), so batch size and order change nothing.

mod accumulate;
pub mod advantages;
mod batch;
pub mod divergence;
pub mod draws;
pub mod exact;
mod judge;
mod lm;
pub mod log_probs;
pub mod masked;
pub mod number;
pub mod oracle;
pub mod persist;
mod reference;
pub mod regularizer;
pub mod selection;
pub mod shape;

pub use accumulate::accumulate;
pub use batch::{Completions, Demonstrations, PreferencePairs, TokenBatch};
pub use divergence::Divergence;
pub use draws::Draws;
pub use judge::{
    BradleyTerry, NoisyPreference, Preference, PreferenceFn, PreferenceMixture, Reward, RewardFn,
    adjusted_win_rate,
};
pub use lm::{BlockwiseGradients, CausalLm, Critic, Decoder, Frozen, NextTokens, Policy, RecomputingLm};
pub use log_probs::TokenLogProbs;
pub use oracle::{OracleError, OrderAveraged, check_antisymmetry, checked_preferences};
pub use persist::{Persist, PersistError};
pub use reference::{CachedReference, Reference};
pub use regularizer::{Regularizer, RegularizerConfig};
