//! Models of tables: networks that can be guided, and models of a pool that can be explained.
//!
//! Labels on an ordinal scale are regressed as numbers: the score is the expected class, in the units of the scale, and is
//! rounded only for accuracies. Class probabilities would saturate where the model is sure, and their attributions with them.

mod additive;
mod error;
mod factorization_machine;
mod forest;
mod ft_transformer;
mod least_squares;
mod linear;
mod logistic;
mod mlp;
mod model;
mod network;
mod ridge;
mod trees;
mod weights;

pub use additive::{BoostedStumps, Stump, StumpsConfig};
pub use error::ModelError;
pub use factorization_machine::FactorizationMachine;
pub use forest::{Forest, Node, Side, Tree};
pub use ft_transformer::{FtConfig, FtTransformer};
pub use linear::Linear;
pub use logistic::Logistic;
pub use mlp::{Activation, Mlp};
pub use model::Model;
pub use network::{AnyNetwork, Net, NetworkConfig, to_double};
pub use ridge::{PairTerm, Ridge, RidgeConfig, RidgeTerms};
pub use trees::{TreesConfig, TreesLoss};

pub(crate) use least_squares::check_finite;
pub(crate) use network::first_parameter;
