//! What can go wrong with a tokenizer.

use std::path::PathBuf;

/// A tokenizer that cannot be read, or a text it cannot encode.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The folder has no `tokenizer.json`.
    #[error(
        "{} has no `tokenizer.json`; expected the folder of a model with a fast tokenizer, found {found}",
        folder.display()
    )]
    Missing {
        /// The folder.
        folder: PathBuf,
        /// What it holds.
        found: String,
    },
    /// A file is there and cannot be used.
    #[error("cannot read {}: {message}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What was expected and found.
        message: String,
    },
    /// A special token of the configuration is not in the vocabulary.
    #[error("`{name}` is `{token}`, which is not in the vocabulary of {size} tokens")]
    UnknownSpecial {
        /// Its name in the configuration.
        name: String,
        /// The token.
        token: String,
        /// How many tokens there are.
        size: usize,
    },
    /// A text has no encoding.
    #[error("cannot encode {text:?}: {message}")]
    Encode {
        /// Its beginning.
        text: String,
        /// What the tokenizer says.
        message: String,
    },
    /// Ids have no text.
    #[error("cannot decode {count} ids: {message}")]
    Decode {
        /// How many.
        count: usize,
        /// What the tokenizer says.
        message: String,
    },
    /// Tokenizer and model do not belong together.
    #[error(
        "the tokenizer has {tokenizer} tokens and the model's vocabulary {model}: expected a model with as many or \
         slightly more (padded); they do not belong together"
    )]
    Vocabulary {
        /// Ids of the tokenizer.
        tokenizer: usize,
        /// Rows of the model's embedding.
        model: usize,
    },
}
