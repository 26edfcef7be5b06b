//! What can be wrong with a file of rows.

use std::path::PathBuf;

use crate::rows::RowProblem;

/// Where a row stands: the file, and the line (text) or the position (JSON array, Parquet), both counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file.
    pub path: PathBuf,
    /// Line or position, from 1.
    pub number: u64,
    /// Whether `number` counts lines or rows.
    pub unit: Unit,
}

/// What [`Origin::number`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Lines of text.
    Line,
    /// Rows of a binary file.
    Row,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let unit = match self.unit {
            Unit::Line => "line",
            Unit::Row => "row",
        };
        write!(f, "{}, {unit} {}", self.path.display(), self.number)
    }
}

/// A file of rows that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The file is not there or may not be opened.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Reading or decompressing stopped half-way.
    #[error("cannot read {} after line or row {after}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The last line or row that was read.
        after: u64,
        /// Why.
        source: std::io::Error,
    },
    /// The format is not one we read.
    #[error(
        "{}: expected JSON Lines, a JSON array, plain text (.txt) or Parquet, perhaps compressed with gzip or \
         Zstandard; found {found}",
        path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// How it begins.
        found: String,
    },
    /// The format is known, and this build does not read it.
    #[error("{} is {format}, which this build does not read; build with the feature `{feature}`", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The format's name.
        format: &'static str,
        /// The cargo feature that adds it.
        feature: &'static str,
    },
    /// The file ends inside a JSON array, or something stands between its elements.
    #[error("{origin}: the JSON array is broken: {problem}")]
    Array {
        /// Where it happened.
        origin: Origin,
        /// What was expected and found.
        problem: String,
    },
    /// A row is broken.
    #[error("{origin}: {problem}")]
    Row {
        /// Where it stands.
        origin: Origin,
        /// What is wrong with it.
        problem: RowProblem,
    },
    /// There is nothing to learn from.
    #[error("{} holds no {kind} rows: expected at least one, found {found}", path.display())]
    Empty {
        /// The file or folder.
        path: PathBuf,
        /// The kind of rows that was asked for.
        kind: &'static str,
        /// What was found instead.
        found: String,
    },
}
