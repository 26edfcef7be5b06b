//! Why a `config.json` was refused.

/// Why a `config.json` was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The text is not a JSON object.
    #[error("not a JSON object")]
    Json(#[from] serde_json::Error),
    /// Nothing says which family the model belongs to, or it is one that is not supported.
    #[error("unknown model family `{found}`, expected one of {}", known.join(", "))]
    UnknownFamily {
        /// The `model_type` of the file.
        found: String,
        /// Those that are supported.
        known: Vec<&'static str>,
    },
    /// An option has a value that this crate does not implement.
    #[error("`{key}` is {found}, which is not supported; expected {expected}")]
    Unsupported {
        /// The key in the file.
        key: String,
        /// Its value there.
        found: String,
        /// What is supported.
        expected: &'static str,
    },
    /// A key is needed and missing.
    #[error("`{key}` is missing, expected {expected}")]
    Missing {
        /// The key.
        key: String,
        /// What should stand there.
        expected: &'static str,
    },
    /// A value has the wrong type or is out of range.
    #[error("`{key}` is {found}, expected {expected}")]
    Invalid {
        /// The key.
        key: String,
        /// What stands there.
        found: String,
        /// What should stand there.
        expected: String,
    },
}
