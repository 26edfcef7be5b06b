//! Surveys that we make ourselves, whose primary and secondary factors are known.
//!
//! Happiness is a latent number cut into classes. The latent number depends on a few factors strongly, on a few weakly, and
//! not at all on the rest, some of which correlate with the strong ones: what a model must not be fooled by. The importances
//! of the latent number have a closed form, so that a model's reasons can be compared with the truth.

mod file;
mod generate;
mod normal;

pub use generate::{Survey, SurveyConfig};
