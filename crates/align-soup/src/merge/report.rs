//! How a merge of folders is made and what came of it.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::MergeWarning;

/// How a merge of folders is checked and written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MergeOptions {
    /// Decides what random methods draw.
    pub seed: u64,
    /// Replace an existing checkpoint folder.
    pub overwrite: bool,
    /// Largest size of a file of weights; 5 GB as in transformers.
    pub max_shard_bytes: u64,
    /// Merge although rows of the embeddings mean different tokens, with the first model's tokenizer.
    pub allow_different_tokenizers: bool,
    /// Merge although a filter is in no tensor's name, as mergekit does.
    pub allow_unmatched_filters: bool,
}

impl Default for MergeOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            overwrite: false,
            max_shard_bytes: 5_000_000_000,
            allow_different_tokenizers: false,
            allow_unmatched_filters: false,
        }
    }
}

/// What was made.
#[derive(Clone, Debug, PartialEq)]
pub struct MergeReport {
    /// The folder.
    pub out: PathBuf,
    /// Identity of the result's weights, as [`checkpoint_id`](crate::checkpoint_id) gives it.
    pub id: String,
    /// The ancestor that all models have in common, the base counting as one.
    pub ancestor: Option<String>,
    /// The models, the one whose configuration was copied first.
    pub models: Vec<MergedModel>,
    /// Number of layers.
    pub layers: usize,
    /// Number of tensors.
    pub tensors: usize,
    /// Bytes of the tensors as written.
    pub bytes: u64,
    /// Number of files they are in.
    pub shards: usize,
    /// What the user should know.
    pub warnings: Vec<FolderMergeWarning>,
}

/// One model of a merge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MergedModel {
    /// As the configuration names it.
    pub name: String,
    /// Identity of its weights; `None` if the merge did not read all of them.
    pub id: Option<String>,
    /// The ancestor it names.
    pub ancestor: Option<String>,
}

/// Something unusual that does not stop a merge.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FolderMergeWarning {
    /// An entry of `config.json` differs; the first model's is copied.
    ConfigDiffers {
        /// The entry.
        key: String,
        /// The model that differs from the first.
        model: String,
    },
    /// A model has no `tokenizer.json`, so that its tokens were not compared.
    NoTokenizer {
        /// The model.
        model: String,
    },
    /// Tokens of the result that no model has.
    TokensWithoutRows {
        /// The first of them.
        first: String,
        /// How many there are.
        count: usize,
    },
    /// What a method says of a tensor.
    Method(MergeWarning),
}

impl fmt::Display for FolderMergeWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConfigDiffers { key, model } => {
                write!(
                    f,
                    "config.json of `{model}` has another {key} than the first model's, which is copied"
                )
            }
            Self::NoTokenizer { model } => write!(
                f,
                "`{model}` or the first model has no tokenizer.json; their tokens are taken to be the same"
            ),
            Self::TokensWithoutRows { first, count } => write!(
                f,
                "no model has a row for {first:?} and {} more of the vocabulary; such rows are zero",
                count - 1
            ),
            Self::Method(warning) => warning.fmt(f),
        }
    }
}
