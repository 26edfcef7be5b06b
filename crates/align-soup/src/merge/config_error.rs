//! Why a merge configuration was refused.

use std::io;
use std::path::PathBuf;

pub use super::document::Place;

/// Why a merge configuration was refused, and where in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The text is not YAML.
    #[error("{name}:{line}: not valid YAML: {message}")]
    Syntax {
        /// The file, or what stands for it.
        name: String,
        /// The line, from 1.
        line: u64,
        /// What the parser says.
        message: String,
    },
    /// A value is not what it should be.
    #[error("{place}: {problem}")]
    At {
        /// Where it stands.
        place: Box<Place>,
        /// What is wrong.
        problem: Problem,
    },
}

/// What is wrong with a value of a merge configuration.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A key that means nothing here.
    #[error("unknown key{}", hint(nearest, known))]
    UnknownKey {
        /// The known key that reads most like it.
        nearest: Option<String>,
        /// All known keys.
        known: Vec<String>,
    },
    /// A parameter the method does not take.
    #[error("`{method}` takes no such parameter here{}", hint(nearest, known))]
    UnknownParameter {
        /// The method.
        method: String,
        /// The known parameter that reads most like it.
        nearest: Option<String>,
        /// All it takes here.
        known: Vec<String>,
    },
    /// A parameter of the merge that stands with one model.
    #[error(
        "`{parameter}` is a parameter of the whole merge: put it under the top level's or a slice's `parameters`"
    )]
    NotPerModel {
        /// The parameter.
        parameter: String,
    },
    /// No method has this name.
    #[error("no merge method is called `{found}`{}", hint(nearest, known))]
    UnknownMethod {
        /// The name.
        found: String,
        /// The known method that reads most like it.
        nearest: Option<String>,
        /// All known methods.
        known: Vec<String>,
    },
    /// Something mergekit knows and this crate does not do.
    #[error("`{what}` is not supported: {instead}")]
    Unsupported {
        /// What.
        what: String,
        /// What to do instead, or why.
        instead: &'static str,
    },
    /// A key that must be there.
    #[error("`{key}` is missing")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// A value of another kind.
    #[error("expected {expected}, found {found}")]
    Type {
        /// What should be there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// NaN or infinity.
    #[error("expected a finite number, found {found}")]
    NotFinite {
        /// The number.
        found: f64,
    },
    /// Keys that exclude one another, or that need one of them.
    #[error("expected exactly one of {expected}, found {found}")]
    ExactlyOne {
        /// The keys.
        expected: &'static str,
        /// Those that are there.
        found: String,
    },
    /// A model reference that cannot be read.
    #[error("`{found}` is not a model: expected `model`, `model@revision` or `model+adapter`")]
    Reference {
        /// What is there.
        found: String,
    },
    /// A model that is named twice where each may stand once.
    #[error(
        "`{model}` stands here twice; parameters are looked up by model, so that each may stand once in a slice"
    )]
    Twice {
        /// The model.
        model: String,
    },
    /// A base that the method has no use for, or that it lacks.
    #[error("`{method}` needs a `base_model`")]
    BaseMissing {
        /// The method.
        method: String,
    },
    /// The base model is not among the models of a slice.
    #[error("the base model `{base}` is not among the sources of this slice, and `{method}` needs it there")]
    BaseNotInSlice {
        /// The base model.
        base: String,
        /// The method.
        method: String,
    },
    /// More or fewer models than the method can merge.
    #[error("`{method}` merges {expected}, found {found}")]
    ModelCount {
        /// The method.
        method: String,
        /// How many it takes.
        expected: String,
        /// How many there are.
        found: usize,
    },
    /// A range of layers that is empty or runs backwards.
    #[error("expected a range of layers [first, past the last] that is not empty, found [{first}, {end}]")]
    LayerRange {
        /// The first layer.
        first: usize,
        /// One past the last layer.
        end: usize,
    },
    /// Sources of a slice with different numbers of layers.
    #[error("the sources of a slice must have as many layers each: {first} here and {other} in `{model}`")]
    LayerCounts {
        /// Of the first source.
        first: usize,
        /// Of the other.
        other: usize,
        /// The other.
        model: String,
    },
    /// A range of layers that ends after the last.
    #[error("the layers end at {end}, and `{model}` has {layers}")]
    LayersBeyond {
        /// One past the last layer.
        end: usize,
        /// How many layers there are.
        layers: usize,
        /// The model.
        model: String,
    },
    /// A parameter without which the method cannot do.
    #[error("`{method}` needs `{parameter}`, and nothing gives it for {subject}")]
    MissingParameter {
        /// The method.
        method: String,
        /// The parameter.
        parameter: String,
        /// The tensor, with the model if the parameter is a model's.
        subject: String,
    },
    /// A filter that selects nothing.
    #[error("the filter `{filter}` is in no tensor's name, so that this value is never used{}", nearest.as_ref().map(|nearest| format!("; did you mean `{nearest}`?")).unwrap_or_default())]
    UnmatchedFilter {
        /// The filter.
        filter: String,
        /// The part of a name that reads most like it.
        nearest: Option<String>,
    },
    /// A chat template that is neither a name nor a template.
    #[error("expected `auto`, `chatml` or the text of a template, found {found:?}")]
    ChatTemplate {
        /// What is there.
        found: String,
    },
}

fn hint(nearest: &Option<String>, known: &[String]) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean `{nearest}`?"),
        None if known.is_empty() => "; it takes none".to_owned(),
        None => format!("; known are {}", known.join(", ")),
    }
}
