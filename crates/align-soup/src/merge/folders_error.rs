//! Why a merge of folders was not made.

use std::path::PathBuf;

use serde_json::Value;

use super::config_error::ConfigError;
use super::error::MergeError;
use super::tokenizer::TokenizerError;
use crate::error::SoupError;

/// Why a merge of folders was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderMergeError {
    /// The configuration asks for something that has no meaning or cannot be done.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A folder cannot be read, or the result cannot be written (ingredients are counted as the configuration names
    /// models).
    #[error(transparent)]
    Folder(Box<SoupError>),
    /// The vocabulary of the result cannot be made.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A model cannot be found.
    #[error("cannot find the model `{model}`")]
    Resolve {
        /// As the configuration names it.
        model: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The models are of different families.
    #[error(
        "`{model}` has {key} = {found} in its config.json, `{first}` has {expected}; models of different families do not merge"
    )]
    Family {
        /// The key.
        key: String,
        /// The first model.
        first: String,
        /// Its value.
        expected: Box<Value>,
        /// The model that differs.
        model: String,
        /// Its value.
        found: Box<Value>,
    },
    /// A model has more than one stack of layers.
    #[error(
        "`{model}` has layers in `{first}` and in `{second}`; models with one stack of layers are merged"
    )]
    SeveralStacks {
        /// The model.
        model: String,
        /// One stack.
        first: String,
        /// Another.
        second: String,
    },
    /// A tensor that another model of the slice has is missing.
    #[error("`{model}` has no tensor `{tensor}`, which {} in `{other}`", if tensor == counterpart { "is".to_owned() } else { format!("stands beside `{counterpart}`") })]
    MissingTensor {
        /// The model that lacks it.
        model: String,
        /// The tensor.
        tensor: String,
        /// The model that has it.
        other: String,
        /// Its name there.
        counterpart: String,
    },
    /// A tensor has different shapes.
    #[error("the tensor `{tensor}` has shape {found:?} in `{model}` and {expected:?} in `{first}`; tensors are never cropped{}", if *by_token { "; the vocabularies differ: `tokenizer_source: union` or `base` maps rows by token" } else { "" })]
    Shape {
        /// The tensor of the result.
        tensor: String,
        /// The first model.
        first: String,
        /// Its shape.
        expected: Box<[usize]>,
        /// The model that differs.
        model: String,
        /// Its shape.
        found: Box<[usize]>,
        /// Whether it has a row for each token.
        by_token: bool,
    },
    /// A tensor is a float in one model and something else in another.
    #[error(
        "the tensor `{tensor}` has type {found} in `{model}` and {expected} in `{first}`; only floats are merged, with floats"
    )]
    Kind {
        /// The tensor of the result.
        tensor: String,
        /// The first model.
        first: String,
        /// Its type.
        expected: Box<str>,
        /// The model that differs.
        model: String,
        /// Its type.
        found: Box<str>,
    },
    /// The configuration of the result has no place for its number of layers.
    #[error("{} names no number of layers, and the merge changes it to {layers}", config.display())]
    NoLayerKey {
        /// The configuration that is copied.
        config: PathBuf,
        /// Layers of the result.
        layers: usize,
    },
    /// The same row means different tokens in different models.
    #[error(
        "token {id} is {} in `{model}` and {} in `{first}`; rows of the embeddings would mean different \
         tokens: `tokenizer_source: union` or `base` maps rows by token",
        shown(found),
        shown(expected)
    )]
    Vocabulary {
        /// The first token that differs.
        id: usize,
        /// The first model.
        first: String,
        /// Its token.
        expected: Option<String>,
        /// The model that differs.
        model: String,
        /// Its token.
        found: Option<String>,
    },
    /// The method refuses a tensor's values.
    #[error("cannot merge the tensor `{tensor}` ({members})")]
    Method {
        /// The tensor.
        tensor: String,
        /// Which model is which in the error.
        members: String,
        /// What the method says.
        source: Box<MergeError>,
    },
    /// The parameters of a tensor are refused.
    #[error("parameters of the tensor `{tensor}` ({members})")]
    Parameters {
        /// The tensor.
        tensor: String,
        /// Which model is which in the error.
        members: String,
        /// What the method says.
        source: Box<MergeError>,
    },
}

impl From<SoupError> for FolderMergeError {
    fn from(error: SoupError) -> Self {
        Self::Folder(Box::new(error))
    }
}

fn shown(token: &Option<String>) -> String {
    token.as_ref().map_or_else(|| "nothing".to_owned(), |token| format!("{token:?}"))
}
