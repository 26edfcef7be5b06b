//! PPO for language models, with any reference, any reward and any divergence.
//!
//! SALSA is this crate with a soup as the reference; plain PPO is this crate with the SFT model as the reference; nothing
//! else differs. The crate knows neither soups nor reward models: it knows [`Reference`](align_core::Reference) and
//! [`Reward`](align_core::Reward).
//!
//! | topic | where |
//! | --- | --- |
//! | the algorithm | [`Ppo`], [`PpoParts`] |
//! | its numbers, under the names people know | [`PpoConfig`], [`Preset`], [`BatchPlan`] |
//! | the policy's loss and its statistics | [`surrogate`] |
//! | the critic's loss and its quality | [`value`] |
//! | what each token is paid | [`rewards`] |
//! | collecting | [`rollout`] |
//! | rewards to advantages | [`estimate`] |
//! | how far to trust the judge, how strongly to hold the policy | [`occupancy`] |
//! | references that follow the policy | [`Anchor`], [`MovingReference`] |
//! | what is logged | [`report`] |
//!
//! # Departures from the paper
//! Means are over tokens, not over episodes; the critic is a network of its own with an optimiser of its own; rewards are
//! per token because the regulariser is.

mod anchor;
pub mod config;
mod critic;
mod error;
pub mod estimate;
pub mod objective;
pub mod occupancy;
mod ppo;
pub mod report;
mod resume;
pub mod rewards;
pub mod rollout;
pub mod surrogate;
pub mod value;

pub use anchor::{Anchor, Following, MovingReference, mix};
pub use config::{AdvantageEstimator, BatchPlan, ConfigError, PpoConfig, Preset};
pub use critic::NoCritic;
pub use error::{Degeneration, PpoError, Warning};
pub use ppo::{Ppo, PpoParts};
pub use rollout::Rollout;
