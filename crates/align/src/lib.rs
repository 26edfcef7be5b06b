#![doc = include_str!("../../../README.md")]
//!
//! # The crates
//!
//! | module | crate | what it is for |
//! | --- | --- | --- |
//! | [`core`] | `align-core` | batches, traits, divergences, advantages |
//! | [`kernels`] | `align-kernels` | fused operations |
//! | [`models`] | `align-models` | transformers, checkpoints, generation, heads, adapters |
//! | [`data`] | `align-data` | files, templates, tokenizers, a synthetic world |
//! | [`soup`] | `align-soup` | averages of weights |
//! | [`train`] | `align-train` | the step, the loop, resume |
//! | [`reward`] | `align-reward` | reward models |
//! | [`ppo`] | `align-ppo` | PPO with any reference: SALSA |
//! | [`playground`] | here | the synthetic world with small models that answer in it |

pub use align_core as core;
pub use align_data as data;
pub use align_kernels as kernels;
pub use align_models as models;
pub use align_ppo as ppo;
pub use align_reward as reward;
pub use align_soup as soup;
pub use align_train as train;

pub mod playground;
