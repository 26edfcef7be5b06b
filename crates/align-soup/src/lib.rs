//! Averages of weights: soups of modules and of checkpoint folders, with checks that they make sense.
//!
//! A soup θ = Σ_k w_k θ_k averages models that were fine-tuned from one pretrained ancestor. SALSA is PPO whose
//! reference is the soup of two such models. The soup of models that do *not* share a basin is nonsense of the right
//! shape, so this crate checks what can be checked before it averages and offers a [`HealthGate`] for the rest.
//!
//! Two levels, one arithmetic ([`weighted_mean`], sums in f64 and one cast at the end):
//!
//! - modules in memory: [`average`], [`uniform`], [`lerp`], [`Ema`], [`Lawa`], [`task_vectors`];
//! - checkpoint folders on disk: [`soup_folders`], which streams, so that memory does not grow with the models.
//!
//! What is averaged may be chosen ([`greedy`](greedy())), weighed by a loss ([`learned`](learned())), and looked at on the plane through three models
//! ([`Plane`]). [`merge`] puts models together by mergekit's other methods, in memory and from its configurations.
//!
//! Parameters are matched by their path in the module (or their name in the file), never by generated identifiers.
//! Floats are averaged; integers and booleans must be equal; quantised weights are refused. Low-rank adapters, in modules
//! or in PEFT's files over a base ([`Source`]), are merged into their weights first, since the mean of factors is not the
//! mean of updates; [`soup_adapters`] writes the mean of the updates as one adapter.
//!
//! # Source
//! Wortsman et al. 2022, "Model soups", <https://arxiv.org/abs/2203.05482>; Chegini et al. 2024, "SALSA",
//! <https://arxiv.org/abs/2411.01798>.

mod average;
mod checkpoint;
mod combine;
mod ema;
mod error;
mod greedy;
mod health;
mod interpolate;
mod lawa;
mod learned;
pub mod merge;
mod mix;
mod parameters;
mod plane;
mod state;
mod task_vector;
mod weights;

pub use average::{average, uniform};
pub use checkpoint::{
    AdapterError, AdapterSoup, IngredientReport, Progress, SoupOptions, SoupReport, SoupWarning, Source,
    ToSource, checkpoint_id, soup_adapters, soup_folders, soup_folders_observed, task_vectors_of_folders,
};
pub use ema::Ema;
pub use error::{Ingredient, SoupError, WeightError};
pub use greedy::{Better, GreedyError, GreedyPath, Trial, greedy};
pub use health::{Health, HealthGate};
pub use interpolate::lerp;
pub use lawa::Lawa;
pub use learned::{Granularity, GroupWeights, LearnedError, LearnedOptions, LearnedSoup, Region, learned};
pub use mix::{FloatDtype, UnknownDtype, weighted_mean};
pub use plane::{Plane, PlaneError, PlaneGrid, Point, plane, plane_of_folders};
pub use task_vector::{TaskVectors, task_vectors};
pub use weights::Weights;
