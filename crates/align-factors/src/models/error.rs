//! What can go wrong while a model is fitted, read or written.

use align_core::PersistError;
use thiserror::Error;

/// An error of a model.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// Nodes that are no tree.
    #[error("not a tree: node {node}: {detail}")]
    Tree {
        /// The node.
        node: usize,
        /// What is wrong with it.
        detail: String,
    },
    /// As many labels as rows are needed.
    #[error("cannot fit {model}: {rows} rows and {labels} labels")]
    Rows {
        /// The kind of model.
        model: &'static str,
        /// Rows given.
        rows: usize,
        /// Labels given.
        labels: usize,
    },
    /// A number of the data is not finite where the model takes no missing values.
    #[error("cannot fit {model}: {what} of row {row} is {value}")]
    NotFinite {
        /// The kind of model.
        model: &'static str,
        /// The column or the label.
        what: String,
        /// The row.
        row: usize,
        /// What was found.
        value: f64,
    },
    /// A label of a classifier is neither 0 nor 1.
    #[error("cannot fit {model}: the label of row {row} is {label}, not 0 or 1")]
    NotBinary {
        /// The kind of model.
        model: &'static str,
        /// The row.
        row: usize,
        /// What was found.
        label: f64,
    },
    /// The normal equations have no unique solution.
    #[error("cannot fit {model}: column {column} is a combination of others; set a ridge above 0")]
    Singular {
        /// The kind of model.
        model: &'static str,
        /// The column at which the factorisation broke down.
        column: usize,
    },
    /// An iteration did not come to an end.
    #[error("{model} did not converge in {iterations} iterations; set a ridge above 0")]
    NotConverged {
        /// The kind of model.
        model: &'static str,
        /// Iterations done.
        iterations: usize,
    },
    /// The library that grows trees failed.
    #[error("cannot fit trees: {0}")]
    Trees(String),
    /// A file could not be read or written.
    #[error(transparent)]
    Persist(#[from] PersistError),
}
