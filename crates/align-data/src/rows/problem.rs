//! What can be wrong with one row.

/// A row nobody can learn from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowProblem {
    /// The row is not JSON.
    #[error("expected a JSON object, found broken JSON at column {column}: {message}")]
    Syntax {
        /// Column in the row, from 1.
        column: usize,
        /// What the parser says.
        message: String,
    },
    /// The row is JSON and no object.
    #[error("expected a JSON object, found {found}")]
    NotAnObject {
        /// What it is.
        found: &'static str,
    },
    /// A column is not there.
    #[error("expected {expected}; the field `{field}` is missing, the row has {found}")]
    MissingField {
        /// The column.
        field: String,
        /// What the kind of row needs.
        expected: &'static str,
        /// The row's columns.
        found: String,
    },
    /// A column holds something else.
    #[error("field `{field}`: expected {expected}, found {found}")]
    WrongType {
        /// The column, with the way into it.
        field: String,
        /// What belongs there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A column that must say something is empty.
    #[error("field `{field}`: expected something to learn from, found nothing")]
    EmptyField {
        /// The column.
        field: String,
    },
    /// There is nothing to answer.
    #[error("the prompt is empty: expected at least one word or message{hint}")]
    EmptyPrompt {
        /// How the prompt was looked for.
        hint: &'static str,
    },
    /// Both sides are the same, so there is no preference.
    #[error("`chosen` and `rejected` are equal: expected two different responses, found {found} twice")]
    SameSides {
        /// The beginning of the response.
        found: String,
    },
}
