//! Merges: models put together tensor by tensor, by mergekit's methods.
//!
//! A [`Method`] and its numbers are [`MergeParameters`]; [`merge_modules`] merges modules in memory. δ_k = x_k − b is the
//! task vector of model k over the base b.
//!
//! | family | methods | passes over the data |
//! | --- | --- | --- |
//! | Σ_k c_k x_k, c known | linear, passthrough, task_arithmetic | one |
//! | Σ_k c_k x_k, c from the Gram matrix | slerp, nuslerp, multislerp, model_stock, karcher | two |
//! | value by value | ties, dare_*, della*, breadcrumbs*, sce | one to four |
//!
//! Every pass goes through a tensor in chunks, so that of a folder's no more than a few hundred KB for each model and thread
//! are in memory; a chunk that is read again comes from the system's cache.
//!
//! # Departures from mergekit
//! - Arithmetic and sums are in f64 with one rounding to the type of the result, whatever the type of the inputs;
//!   mergekit works in the promoted type of the inputs. Magnitudes are compared as f32, as in mergekit on a CPU.
//! - Equal magnitudes at a cut are kept by position as a stable sort would; mergekit leaves this to the sort.
//! - Shapes that differ and values that are not finite are refused.
//! - Weights that are divided by their sum must not be negative nor sum to 0, except that task vectors may be subtracted.
//! - task_arithmetic takes no `density` and no `rescale`, which mergekit accepts and ignores; slerp's `t` is in [0, 1].
//! - nuslerp mixes vectors linearly that are opposite up to rounding, where mergekit in f64 divides rounding errors.
//! - DELLA keeps the value of a row of length 1 with probability `density`; mergekit divides 0 by 0 there.
//! - Draws are addressed by seed, tensor, model and position, so that the result depends on nothing else.

mod companions;
mod config;
mod config_error;
mod consensus;
mod document;
mod draws;
mod error;
mod folders;
mod folders_error;
mod gram;
mod karcher;
mod layers;
mod method;
mod model_stock;
mod modules;
mod parameters;
mod pass;
mod plan;
mod reference;
mod report;
mod rows;
mod run;
mod sce;
mod select;
mod setting;
mod span;
mod sparsify;
mod spherical;
mod task;
mod tokenizer;

pub use config::MergeConfig;
pub use config_error::{ConfigError, Place, Problem};
pub use error::{Member, MergeError, MergeWarning};
pub use folders::{merge_folders, merge_folders_observed};
pub use folders_error::FolderMergeError;
pub(crate) use method::LoneRule;
pub use method::{BaseRule, Method, ParameterRule, Scope, UnknownMethod};
pub use modules::{Merged, add_task_vectors, merge_modules, slerp};
pub use parameters::{Kind, MergeParameters, Parameter, UnknownParameter, Value};
pub use plan::{MergePlan, Resolve};
pub use reference::{ModelPath, ModelReference};
pub use report::{FolderMergeWarning, MergeOptions, MergeReport, MergedModel};
pub(crate) use task::{Bytes, TensorTask, Values};
pub use tokenizer::TokenizerError;
