//! Survey files as typed columns.
//!
//! A [`Schema`] says what each column is and how the file writes a missing answer; [`read_csv`] and [`read_parquet`] check
//! every cell against it. What a schema leaves out is inferred, and refused where it looks like an answer scale with
//! undeclared codes.

mod columns;
mod error;
mod infer;
mod levels;
mod read;
mod schema;

pub use columns::{Column, Label, Table, Values};
pub(crate) use error::listed;
pub use error::{Place, TableError, Unit};
pub use levels::Levels;
pub use read::{read_csv, read_parquet, read_table};
pub use schema::{Code, ColumnSchema, Delimiter, MissingLabels, Others, Schema};
