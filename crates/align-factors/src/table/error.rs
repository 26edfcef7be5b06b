//! What can be wrong with a file of answers, and with a table given to an encoder.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Where a row stands: the file, and the line (text) or the position (Parquet), both counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// Line or position, from 1.
    pub number: u64,
    /// What `number` counts.
    pub unit: Unit,
}

/// What [`Place::number`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Lines of text; the header is line 1.
    Line,
    /// Rows of a binary file.
    Row,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            Unit::Line => "line",
            Unit::Row => "row",
        };
        write!(formatter, "{}, {unit} {}", self.path.display(), self.number)
    }
}

/// A file or table that cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TableError {
    /// The file cannot be opened or read, or is not what its format demands.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The text is in another encoding.
    #[error(
        "{place}: expected text in UTF-8, found other bytes; convert the file (from GBK, Latin-1 or what \
         it is in) first"
    )]
    Encoding {
        /// Where.
        place: Place,
    },
    /// There is no header, or nothing under it.
    #[error("{} is empty: expected a header and at least one row, found {found}", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// What there is.
        found: &'static str,
    },
    /// Two columns of one name.
    #[error("{} has two columns `{name}`", path.display())]
    DuplicateColumn {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// A column without a name.
    #[error("{}: column {number} has no name", path.display())]
    UnnamedColumn {
        /// The file.
        path: PathBuf,
        /// Which, from 1.
        number: usize,
    },
    /// A row with more or fewer fields than the header.
    #[error("{place}: expected {expected} fields as in the header, found {found}{hint}")]
    Ragged {
        /// Where.
        place: Place,
        /// Fields of the header.
        expected: usize,
        /// Fields of the row.
        found: usize,
        /// What may be the reason.
        hint: &'static str,
    },
    /// The file ends within quotes.
    #[error("{place}: a quoted field is never closed; the file may have been cut off")]
    CutOff {
        /// Where the last row begins.
        place: Place,
    },
    /// The schema names a column that the file lacks.
    #[error("{} has no column `{name}`, which the schema names; it has {known}", path.display())]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
        /// The columns there are.
        known: String,
    },
    /// The file has a column that the schema does not name, and the schema refuses those.
    #[error("{}: the schema does not name column `{name}`", path.display())]
    UndeclaredColumn {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// A cell that its column cannot hold.
    #[error("{place}, column `{column}`: expected {expected}, found `{found}`")]
    Cell {
        /// Where.
        place: Place,
        /// The column.
        column: String,
        /// What it could be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// An undeclared column that looks like a scale with codes for missing answers.
    #[error(
        "{place}, column `{column}`: `{found}` among answers looks like a code for a missing one; declare it \
         in `missing`, or declare the column's kind if it is an answer"
    )]
    UndeclaredCode {
        /// Where it stands first.
        place: Place,
        /// The column.
        column: String,
        /// The code.
        found: String,
    },
    /// An undeclared column with so many texts that it is a name or an essay.
    #[error(
        "{}: column `{column}` has {found} different texts, more than {limit}; declare it nominal, or \
         ignore it",
        path.display()
    )]
    TooManyCategories {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// How many.
        found: usize,
        /// How many an undeclared column may have.
        limit: usize,
    },
    /// A row without what is to be predicted.
    #[error(
        "{place}: the label `{column}` is missing; set `missing_label = \"drop\"` to leave such rows out"
    )]
    MissingLabel {
        /// Where.
        place: Place,
        /// The label.
        column: String,
    },
    /// The label is no number and no scale.
    #[error(
        "{}: the label `{column}` must be numeric or ordinal on consecutive whole numbers, found {found}",
        path.display()
    )]
    LabelKind {
        /// The file.
        path: PathBuf,
        /// The label.
        column: String,
        /// What it is.
        found: String,
    },
    /// The table has no label, and one is needed.
    #[error("the table has no label: name one in the schema (`label = \"...\"`)")]
    NoLabel,
    /// There is nothing to encode.
    #[error("there are no {part} rows to encode")]
    NoRows {
        /// The part.
        part: &'static str,
    },
    /// A column says the same of everybody.
    #[error(
        "column `{column}` is constant in the training rows ({value}); drop it, or set `constant = \"drop\"`"
    )]
    Constant {
        /// The column.
        column: String,
        /// What it says.
        value: String,
    },
    /// No column says anything.
    #[error("no column varies in the training rows: there is nothing to learn from")]
    NothingVaries,
    /// The encoder knows a column that the table lacks, or has as another kind.
    #[error("column `{column}`: the encoder expects it to be {expected}, found {found}")]
    ColumnKind {
        /// The column.
        column: String,
        /// What it was when the encoder was fitted.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// A category that no training row had.
    #[error(
        "row {row}, column `{column}`: category `{found}` does not occur in the training rows; known are \
         {known}"
    )]
    UnseenCategory {
        /// Which row of the table, from 0.
        row: usize,
        /// The column.
        column: String,
        /// The category.
        found: String,
        /// Those there were.
        known: String,
    },
}

/// Names in backquotes, and how many more there are.
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 12;
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.len() {
        0 => "none".to_owned(),
        count if count <= SHOWN => names.join(", "),
        count => format!("{} and {} more", names[..SHOWN].join(", "), count - SHOWN),
    }
}
