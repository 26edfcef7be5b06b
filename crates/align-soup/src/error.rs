//! What can go wrong when weights are averaged.

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde_json::Value;

use crate::checkpoint::AdapterError;
use crate::health::Health;
use crate::mix::FloatDtype;

/// Which ingredient an error speaks of: its position, and its folder where it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingredient {
    /// Position in the list handed in, from 0.
    pub index: usize,
    /// The checkpoint's folder; `None` for a module.
    pub folder: Option<PathBuf>,
}

impl From<usize> for Ingredient {
    fn from(index: usize) -> Self {
        Self { index, folder: None }
    }
}

impl fmt::Display for Ingredient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ingredients[{}]", self.index)?;
        match &self.folder {
            Some(folder) => write!(f, " ({})", folder.display()),
            None => Ok(()),
        }
    }
}

/// Why a list of numbers cannot weigh a soup.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WeightError {
    /// The list is empty.
    #[error("expected at least one weight, found none")]
    Empty,
    /// A weight is NaN or infinite.
    #[error("weights[{index}] must be finite, found {value}")]
    NotFinite {
        /// Position in the list.
        index: usize,
        /// The weight.
        value: f64,
    },
    /// A weight is below zero.
    #[error(
        "weights[{index}] must not be negative, found {value}; extrapolation is `Weights::extrapolating`"
    )]
    Negative {
        /// Position in the list.
        index: usize,
        /// The weight.
        value: f64,
    },
    /// The weights do not sum to one.
    #[error(
        "weights must sum to 1 within 1e-6, found a sum of {sum}; `Weights::normalized` divides by the sum"
    )]
    Sum {
        /// What they sum to.
        sum: f64,
    },
    /// The weights sum to zero (or overflow) and cannot be normalised.
    #[error("weights that are normalised must have a positive, finite sum, found {sum}")]
    NotNormalizable {
        /// What they sum to.
        sum: f64,
    },
    /// As many weights as ingredients are needed.
    #[error("expected {ingredients} weights, one for each ingredient, found {weights}")]
    Count {
        /// How many ingredients there are.
        ingredients: usize,
        /// How many weights there are.
        weights: usize,
    },
    /// An interpolation weight is outside the segment.
    #[error(
        "alpha must be in [0, 1], found {alpha}; extrapolation is `average` with `Weights::extrapolating`"
    )]
    Alpha {
        /// The interpolation weight.
        alpha: f64,
    },
}

/// Why a soup was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SoupError {
    /// Nothing to average.
    #[error("a soup needs at least one ingredient, found none")]
    NoIngredients,
    /// The weights are not weights.
    #[error("invalid soup weights: {0}")]
    InvalidWeights(#[from] WeightError),
    /// An averaging constant is outside its range.
    #[error("decay must be in [0, 1), found {decay}")]
    InvalidDecay {
        /// The decay.
        decay: f64,
    },
    /// An average of snapshots needs room for one.
    #[error("an average keeps at least one snapshot, found {last}")]
    InvalidLast {
        /// How many are to be kept.
        last: usize,
    },
    /// A saved average cannot be gone on with.
    #[error("the average saved in {} is damaged or of another model: expected {expected}, found {found}", path.display())]
    DamagedAverage {
        /// The file, or the folder of several.
        path: PathBuf,
        /// What should be there.
        expected: String,
        /// What is.
        found: String,
    },
    /// A tolerance is negative or not finite.
    #[error("tolerance must be finite and not negative, found {tolerance}")]
    InvalidTolerance {
        /// The tolerance.
        tolerance: f64,
    },

    /// One ingredient has a parameter that another lacks.
    #[error(
        "parameter `{path}` is in {present_in} and missing in {missing_in}; a soup needs models of one architecture"
    )]
    IngredientMismatch {
        /// The parameter.
        path: String,
        /// Who has it.
        present_in: Ingredient,
        /// Who lacks it.
        missing_in: Ingredient,
    },
    /// A parameter has different shapes.
    #[error("parameter `{path}` of {ingredient} has shape {found:?}, expected {expected:?} as in the first ingredient{hint}", hint = vocabulary_hint(path, expected, found))]
    ShapeMismatch {
        /// The parameter.
        path: String,
        /// The first ingredient's shape.
        expected: Vec<usize>,
        /// This ingredient's shape.
        found: Vec<usize>,
        /// Whose shape differs.
        ingredient: Ingredient,
    },
    /// A parameter is a float in one ingredient and something else in another.
    #[error(
        "parameter `{path}` of {ingredient} has type {found}, the first ingredient has {expected}; only floats are averaged, with floats"
    )]
    KindMismatch {
        /// The parameter.
        path: String,
        /// The first ingredient's type.
        expected: String,
        /// This ingredient's type.
        found: String,
        /// Whose type differs.
        ingredient: Ingredient,
    },
    /// A parameter holds NaN or infinity.
    #[error(
        "parameter `{path}` of {ingredient} holds {count} values that are not finite; averaging would hide a broken model"
    )]
    NonFiniteParameter {
        /// The parameter.
        path: String,
        /// Whose parameter it is.
        ingredient: Ingredient,
        /// How many values are NaN or infinite.
        count: u64,
    },
    /// The average does not fit the type it is to be written in.
    #[error(
        "{count} values of the averaged parameter `{path}` overflow {dtype}; choose a type with a larger range"
    )]
    Overflow {
        /// The parameter.
        path: String,
        /// The type of the result.
        dtype: FloatDtype,
        /// How many values became infinite.
        count: u64,
    },
    /// Integers and booleans must agree: they are never averaged.
    #[error(
        "parameter `{path}` is not a float and differs between the first ingredient and {ingredient}; such values must be equal"
    )]
    ConstantDiffers {
        /// The parameter.
        path: String,
        /// Whose values differ.
        ingredient: Ingredient,
    },
    /// Two paths share one parameter in the first ingredient and hold different values in another.
    #[error(
        "parameters `{path}` and `{tied_to}` are tied in the first ingredient and differ in {ingredient}"
    )]
    TieBroken {
        /// The later path.
        path: String,
        /// The earlier path.
        tied_to: String,
        /// Whose values differ.
        ingredient: Ingredient,
    },
    /// Quantised weights cannot be averaged.
    #[error("parameter `{path}` of {ingredient} is quantised ({dtype}); dequantise it first")]
    QuantizedIngredient {
        /// The parameter.
        path: String,
        /// Whose parameter it is.
        ingredient: Ingredient,
        /// Its type.
        dtype: String,
    },
    /// The configuration says that the weights are quantised.
    #[error("config.json of {ingredient} has a quantization_config; dequantise the checkpoint first")]
    QuantizedConfig {
        /// Whose configuration it is.
        ingredient: Ingredient,
    },
    /// Low-rank factors cannot be averaged one by one.
    #[error(
        "{ingredient} holds LoRA factors (adapter_config.json); the mean of factors is not the mean of updates, give the adapter together with its base"
    )]
    Adapter {
        /// Whose factors they are.
        ingredient: Ingredient,
    },

    /// An adapter cannot be merged into its base.
    #[error(transparent)]
    InvalidAdapter(#[from] AdapterError),

    /// The configurations describe different models.
    #[error(
        "config.json of {ingredient} has {key} = {found}, the first ingredient has {expected}; models of different configurations do not average (override with allow_different_configs)"
    )]
    ConfigMismatch {
        /// The key.
        key: String,
        /// The first ingredient's value.
        expected: Box<Value>,
        /// This ingredient's value.
        found: Box<Value>,
        /// Whose value differs.
        ingredient: Ingredient,
    },
    /// The tokenizers differ.
    #[error(
        "{file} of {ingredient} differs from the first ingredient's; rows of the embeddings would mean different tokens (override with allow_different_tokenizers)"
    )]
    TokenizerMismatch {
        /// The tokenizer's file.
        file: String,
        /// Whose tokenizer differs.
        ingredient: Ingredient,
    },
    /// The ingredients were not tuned from one base.
    #[error(
        "{ingredient} descends from {found}, the first ingredient that names an ancestor from {expected}; models of different ancestors do not average (override with allow_different_ancestors)"
    )]
    DifferentAncestors {
        /// The ancestor the others name.
        expected: String,
        /// The ancestor this one names.
        found: String,
        /// Whose ancestor differs.
        ingredient: Ingredient,
    },
    /// The soup models held-out data worse than its ingredients: they are not linearly connected.
    #[error("the soup is unhealthy: {0}; the ingredients are not linearly connected")]
    Unhealthy(Health),

    /// A file or folder could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// What was read.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file or folder could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// What was written.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A JSON file is not what it should be.
    #[error("cannot parse {}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A folder without configuration is no checkpoint.
    #[error("{} has no config.json; expected a checkpoint folder", folder.display())]
    MissingConfig {
        /// The folder.
        folder: PathBuf,
    },
    /// A folder without weights is no checkpoint.
    #[error("{} has neither model.safetensors nor model.safetensors.index.json", folder.display())]
    MissingWeights {
        /// The folder.
        folder: PathBuf,
    },
    /// The index names a file that is not a plain name inside the folder.
    #[error("{} names the shard `{shard}`, expected the name of a file in the same folder", index.display())]
    UnsafeShardName {
        /// The index file.
        index: PathBuf,
        /// The name it gives.
        shard: String,
    },
    /// The index names a file that is not there.
    #[error("{} names the shard `{shard}`, which is not in the folder", index.display())]
    MissingShard {
        /// The index file.
        index: PathBuf,
        /// The name it gives.
        shard: String,
    },
    /// Index and shards disagree on where a tensor is.
    #[error("{} and the shard `{shard}` disagree about the tensor `{tensor}`: it must be named by the index exactly where it lies", index.display())]
    IndexMismatch {
        /// The index file.
        index: PathBuf,
        /// The shard.
        shard: String,
        /// The tensor.
        tensor: String,
    },
    /// The header's length is not credible.
    #[error("{} announces a header of {length} bytes, the file has {file_length} and a header may have 100000000", path.display())]
    HeaderLength {
        /// The file.
        path: PathBuf,
        /// What it announces.
        length: u64,
        /// What it has.
        file_length: u64,
    },
    /// The header cannot be parsed, or its offsets contradict its shapes.
    #[error("{} has a broken safetensors header", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// The file is shorter (or longer) than its header says.
    #[error("{} is truncated or damaged: its header describes {expected} bytes, the file has {found}", path.display())]
    FileLength {
        /// The file.
        path: PathBuf,
        /// What the header describes.
        expected: u64,
        /// What the file has.
        found: u64,
    },
    /// The output exists.
    #[error("{} exists; choose another folder or ask to overwrite", path.display())]
    OutputExists {
        /// The output.
        path: PathBuf,
    },
    /// What would be overwritten is no checkpoint, so it is left alone.
    #[error("{} exists and is not a checkpoint folder (no config.json); it is not overwritten", path.display())]
    OutputNotCheckpoint {
        /// The output.
        path: PathBuf,
    },
    /// The output is one of the inputs.
    #[error("{} is an ingredient; a soup is not written over what it is made of", path.display())]
    OutputIsIngredient {
        /// The output.
        path: PathBuf,
    },
    /// The observer asked to stop.
    #[error("interrupted; nothing was written")]
    Interrupted,
}

/// The most frequent cause of a shape that differs: a token added to one vocabulary (mergekit issues 47 and 139).
fn vocabulary_hint(path: &str, expected: &[usize], found: &[usize]) -> &'static str {
    let rows = ["embed", "wte", "lm_head", "embd", "output", "score"];
    let differs_in_one =
        expected.len() == found.len() && expected.iter().zip(found).filter(|(a, b)| a != b).count() == 1;
    if differs_in_one && rows.iter().any(|row| path.contains(row)) {
        "; the vocabularies seem to differ, often by an added pad or special token: give every ingredient the same \
         tokenizer and the same number of embedding and output rows"
    } else {
        ""
    }
}

impl From<std::convert::Infallible> for SoupError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}
