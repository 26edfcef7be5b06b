//! The same regularisation where nothing is known but samples.
//!
//! Robots follow the policy and, as many, the reference. A discriminator learns which of the two a pair came from; its
//! logit is log ρ. The penalty it gives goes into the reward, and any policy gradient then climbs the regularised
//! objective.
//!
//! | step | where |
//! | --- | --- |
//! | exactly discounted samples: a restart with probability 1 − γ after each step | [`Robots`], [`Batch`] |
//! | log ρ from two batches | [`Discriminator`], [`discriminator_loss`], [`discriminator_gradient`] |
//! | the penalised reward | [`Penalty`], [`trimmed_chi_squared`] |
//! | the whole iteration | [`Learner`], [`LearnerConfig`], [`Regularizer`] |
//! | what has gone wrong | [`Health`], [`Iteration`] |
//!
//! # Departures
//! - Occupancies are discounted, as in the theory; the released batches are undiscounted and of fixed horizon.
//! - A penalty of e^d − 1 beyond any number is capped, not set to 0: the most novel pairs pay most.
//! - Trimming never trims everything away.
//!
//! # Source
//! Laidlaw, Singhal, Dragan 2025, section 5 and appendix B, <https://arxiv.org/abs/2403.03185>.

mod account;
mod adam;
mod advantages;
mod config;
mod discriminator;
mod health;
mod learner;
mod penalty;
mod robots;

pub use config::{Cells, LearnerConfig, RatioSource, Regularizer};
pub use discriminator::{Discriminator, discriminator_gradient, discriminator_loss};
pub use health::Health;
pub use learner::{Iteration, Learner};
pub use penalty::{Penalty, trimmed_chi_squared};
pub use robots::{Batch, Robots};
