//! What can be wrong with an adapter that is to be merged.

use std::path::PathBuf;

/// Why an adapter cannot be merged into its base.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// The folder has no `adapter_config.json`.
    #[error("{} has no adapter_config.json; expected a folder that PEFT or `align` wrote an adapter to", folder.display())]
    MissingConfig {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder has no weights in the form that is read.
    #[error("{} has no adapter_model.safetensors; weights in other forms are not read, save the adapter again with safe_serialization", folder.display())]
    MissingWeights {
        /// The folder.
        folder: PathBuf,
    },
    /// An entry of the configuration is missing or out of range.
    #[error("{} has `{key}` = {found}, expected {expected}", config.display())]
    Invalid {
        /// The configuration.
        config: PathBuf,
        /// The entry.
        key: String,
        /// Its value; `null` if it is not there.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
    /// The configuration asks for more than a plain low-rank update.
    #[error("{} has `{key}` = {found}, which is not plain LoRA: {why}", config.display())]
    Unsupported {
        /// The configuration.
        config: PathBuf,
        /// The option.
        key: String,
        /// Its value.
        found: String,
        /// What stands against it.
        why: &'static str,
    },
    /// A tensor of the adapter is none that can be merged.
    #[error("{} holds the tensor `{tensor}`, which is not merged: {why}", adapter.display())]
    UnknownTensor {
        /// The adapter.
        adapter: PathBuf,
        /// The tensor.
        tensor: String,
        /// What stands against it.
        why: &'static str,
    },
    /// One of the two factors of an update is missing.
    #[error("{} has no tensor `{missing}`, the other factor of `{present}`", adapter.display())]
    LoneFactor {
        /// The adapter.
        adapter: PathBuf,
        /// The factor that is there.
        present: String,
        /// The factor that is not.
        missing: String,
    },
    /// Nothing in the file changes the base.
    #[error("{} holds no tensor; an adapter that changes nothing is not an ingredient", adapter.display())]
    Empty {
        /// The adapter.
        adapter: PathBuf,
    },
    /// What the adapter changes is not in the base.
    #[error("{} changes `{tensor}`, and the base {} has {found} of that name; is it the base the adapter was trained on?", adapter.display(), base.display())]
    NotInBase {
        /// The adapter.
        adapter: PathBuf,
        /// The base.
        base: PathBuf,
        /// The tensor, as the adapter names it.
        tensor: String,
        /// "no tensor" or "several tensors".
        found: &'static str,
    },
    /// A factor or a whole tensor does not fit the base.
    #[error("`{tensor}` of {} has shape {found:?}, expected {expected:?} over the base {}", adapter.display(), base.display())]
    Shape {
        /// The adapter.
        adapter: PathBuf,
        /// The base.
        base: PathBuf,
        /// The tensor.
        tensor: String,
        /// What would fit.
        expected: Vec<usize>,
        /// What is there.
        found: Vec<usize>,
    },
    /// The adapter changes one of two tensors that the base holds as one.
    #[error("{} changes `{tensor}`, which the base {} ties to its other embedding; untie them in a dense model first", adapter.display(), base.display())]
    Tied {
        /// The adapter.
        adapter: PathBuf,
        /// The base.
        base: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// The adapter records another base than it is given, or than the first adapter records.
    #[error("{} was trained on the base {recorded}, expected {expected}; an update means nothing on other weights (override with allow_different_ancestors)", adapter.display())]
    OtherBase {
        /// The adapter.
        adapter: PathBuf,
        /// What it records: a name, or the identity of weights.
        recorded: String,
        /// What it is compared with.
        expected: String,
    },
    /// Adapters that are to become one differ in what must be common.
    #[error("{} has `{key}` = {found}, the first adapter has {expected}; as one adapter they need the same", adapter.display())]
    Differs {
        /// The adapter.
        adapter: PathBuf,
        /// The option.
        key: String,
        /// The first adapter's value.
        expected: String,
        /// This adapter's value.
        found: String,
    },
}
