//! What a soup of folders was asked for and what came of it.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::Ingredient;
use crate::mix::FloatDtype;

/// How a soup of folders is checked and written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SoupOptions {
    /// Type of the averaged floats; by default each tensor keeps the first ingredient's.
    pub dtype: Option<FloatDtype>,
    /// Average although the tokenizers differ; the first ingredient's is copied.
    pub allow_different_tokenizers: bool,
    /// Average although the configurations differ; the first ingredient's is copied.
    pub allow_different_configs: bool,
    /// Average although the ingredients name different ancestors.
    pub allow_different_ancestors: bool,
    /// Replace an existing checkpoint folder.
    pub overwrite: bool,
    /// Largest size of a file of weights; 5 GB as in transformers.
    pub max_shard_bytes: u64,
}

impl Default for SoupOptions {
    fn default() -> Self {
        Self {
            dtype: None,
            allow_different_tokenizers: false,
            allow_different_configs: false,
            allow_different_ancestors: false,
            overwrite: false,
            max_shard_bytes: 5_000_000_000,
        }
    }
}

/// How far a soup of folders is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes written.
    pub done: u64,
    /// Bytes the result will have.
    pub total: u64,
}

/// What was made.
#[derive(Clone, Debug, PartialEq)]
pub struct SoupReport {
    /// The folder.
    pub out: PathBuf,
    /// Identity of the soup's weights, as [`checkpoint_id`](crate::checkpoint_id) gives it.
    pub id: String,
    /// The ancestor all ingredients name.
    pub ancestor: Option<String>,
    /// The ingredients, in the order given.
    pub ingredients: Vec<IngredientReport>,
    /// Number of tensors.
    pub tensors: usize,
    /// Number of values in them.
    pub values: u64,
    /// Bytes of the tensors as written.
    pub bytes: u64,
    /// Number of files they are in.
    pub shards: usize,
    /// What the user should know.
    pub warnings: Vec<SoupWarning>,
}

/// One ingredient of a soup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IngredientReport {
    /// Its folder; the base of an adapter.
    pub folder: PathBuf,
    /// The adapter that was merged into it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<PathBuf>,
    /// Its weight.
    pub weight: f64,
    /// Identity of its weights.
    pub id: String,
    /// The ancestor it names.
    pub ancestor: Option<String>,
}

/// Something unusual that does not stop a soup.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SoupWarning {
    /// There is one ingredient, or all with a weight equal one bit for bit.
    EqualsIngredient,
    /// An ingredient equals the first bit for bit.
    Identical {
        /// Which.
        ingredient: Ingredient,
    },
    /// An ingredient names no ancestor.
    UnknownAncestor {
        /// Which.
        ingredient: Ingredient,
    },
    /// An ingredient names another ancestor, which was allowed.
    DifferentAncestor {
        /// Which.
        ingredient: Ingredient,
    },
    /// Only one of two folders has this tokenizer file.
    TokenizerUnknown {
        /// The file.
        file: String,
        /// Compared with the first ingredient.
        ingredient: Ingredient,
    },
    /// The chat templates differ; the first ingredient's is copied.
    ChatTemplateDiffers {
        /// Compared with the first ingredient.
        ingredient: Ingredient,
    },
}

impl fmt::Display for SoupWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EqualsIngredient => {
                f.write_str("the soup equals an ingredient; as a reference it makes the run plain PPO")
            }
            Self::Identical { ingredient } => {
                write!(f, "{ingredient} equals the first ingredient bit for bit")
            }
            Self::UnknownAncestor { ingredient } => write!(
                f,
                "{ingredient} names no ancestor (`ancestor` in align.json); whether it shares one with the others is \
                 unknown, check the soup's loss on held-out data"
            ),
            Self::DifferentAncestor { ingredient } => {
                write!(f, "{ingredient} descends from another ancestor")
            }
            Self::TokenizerUnknown { file, ingredient } => {
                write!(
                    f,
                    "{file} is in only one of the first ingredient and {ingredient}; it was not compared"
                )
            }
            Self::ChatTemplateDiffers { ingredient } => {
                write!(
                    f,
                    "the chat template of {ingredient} differs from the first ingredient's, which is copied"
                )
            }
        }
    }
}
