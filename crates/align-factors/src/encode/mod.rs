//! Tables to rows of numbers, by what the training rows say.
//!
//! Numbers are standardised, categories one-hot; all columns of one question are one factor, and so is the indicator of its
//! missing answers: masked apart, a question's importance would be split and its rank would fall.

mod code;
mod config;

use std::path::Path;

use align_core::persist::{PersistError, read_json, write_json};
use serde::{Deserialize, Serialize};

use self::code::Code;
pub use self::config::{Constant, EncoderConfig, MissingCode, OrdinalCode, Unseen};
use crate::design::Design;
use crate::split::{Part, Rows, Train};
use crate::table::{Table, TableError};
use crate::{Factor, Factors, Matrix};

/// How each column of a table becomes numbers.
///
/// # Examples
/// ```
/// use align_factors::{Answer, Encoder, EncoderConfig, Rows, Schema, Train, read_csv};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("answers.csv");
/// std::fs::write(&path, "age,region,happiness\n20,north,1\n40,south,2\n,north,3\n")?;
/// let table = read_csv(&path, &Schema { label: Some("happiness".into()), ..Schema::default() })?;
///
/// let rows = Rows::<Train>::all(&table);
/// let encoder = Encoder::fit(&table, &rows, &EncoderConfig::default())?;
/// let design = encoder.encode(&table, &rows)?;
/// assert_eq!(encoder.column_names(), ["age", "age (missing)", "region = north", "region = south"]);
/// assert_eq!(design.factors.names().collect::<Vec<_>>(), ["age", "region"]);
/// assert_eq!(design.rows.row(1), [1.0, 0.0, 0.0, 1.0]);
/// assert_eq!(encoder.decode(design.rows.row(2)), [Answer::Missing, Answer::Category("north".into())]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Encoder {
    columns: Vec<Encoded>,
    constant: Vec<String>,
}

/// As it stands in a file, unchecked.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    columns: Vec<Encoded>,
    constant: Vec<String>,
}

/// One column's code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Encoded {
    name: String,
    code: Code,
}

/// What an encoded factor says.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A number in the units of the file.
    Number(f64),
    /// A category, or a level that was encoded as one.
    Category(String),
    /// One of the categories that share a column.
    Other,
    /// Nothing.
    Missing,
}

impl Encoder {
    /// Learns means, deviations and categories from training rows.
    ///
    /// # Errors
    /// [`TableError::NoRows`], [`TableError::Constant`] or [`TableError::NothingVaries`].
    pub fn fit(table: &Table, rows: &Rows<Train>, config: &EncoderConfig) -> Result<Self, TableError> {
        if rows.is_empty() {
            return Err(TableError::NoRows { part: Train::NAME });
        }
        let (mut columns, mut constant) = (Vec::new(), Vec::new());
        for column in table.columns() {
            let name = column.name.clone();
            match (Code::fit(&column.values, rows.positions(), config), config.constant) {
                (Ok(code), _) => columns.push(Encoded { name, code }),
                (Err(_), Constant::Drop) => constant.push(name),
                (Err(value), Constant::Refuse) => return Err(TableError::Constant { column: name, value }),
            }
        }
        if columns.is_empty() { Err(TableError::NothingVaries) } else { Ok(Self { columns, constant }) }
    }

    /// Columns that were left out, because all training rows say the same.
    pub fn constant(&self) -> &[String] {
        &self.constant
    }

    /// One factor for each column of the table that is not constant.
    pub fn factors(&self) -> Factors {
        let mut next = 0;
        let factor = |column: &Encoded| {
            let first = next;
            next += column.code.width();
            Factor { name: column.name.clone(), columns: (first..next).collect() }
        };
        let factors = self.columns.iter().map(factor).collect();
        Factors::new(factors).expect("a table has a name once, and a code has a column")
    }

    /// What each encoded column is: the number itself, `name = category`, `name (missing)`.
    pub fn column_names(&self) -> Vec<String> {
        self.columns.iter().flat_map(|column| column.code.names(&column.name)).collect()
    }

    /// Encodes rows with their labels.
    ///
    /// # Errors
    /// [`TableError::NoLabel`], [`TableError::NoRows`], and those of [`Encoder::rows`].
    pub fn encode<P: Part>(&self, table: &Table, rows: &Rows<P>) -> Result<Design<P>, TableError> {
        let label = table.label().ok_or(TableError::NoLabel)?;
        if rows.is_empty() {
            return Err(TableError::NoRows { part: P::NAME });
        }
        let labels = rows.positions().iter().map(|&row| label.values[row]).collect();
        Ok(Design::new(self.rows(table, rows.positions())?, self.factors(), labels))
    }

    /// Encodes rows without labels, in the order given. Columns that the encoder does not know are not looked at.
    ///
    /// # Errors
    /// [`TableError::ColumnKind`] if a column is not there or of another kind; [`TableError::UnseenCategory`] where those are
    /// refused.
    ///
    /// # Panics
    /// If the table has no such row.
    pub fn rows(&self, table: &Table, rows: &[usize]) -> Result<Matrix, TableError> {
        let width = self.columns.iter().map(|column| column.code.width()).sum();
        let mut encoded = vec![0.0; rows.len() * width];
        let mut first = 0;
        for Encoded { name, code } in &self.columns {
            let kind = |found| TableError::ColumnKind { column: name.clone(), expected: code.kind(), found };
            let values = &table.column(name).ok_or_else(|| kind("no such column"))?.values;
            if values.kind() != code.kind() {
                return Err(kind(values.kind()));
            }
            code.write(name, values, rows, &mut encoded, first, width)?;
            first += code.width();
        }
        Ok(Matrix::new(encoded, width))
    }

    /// What an encoded row says, factor by factor. Missing answers come back as such where they had a column of their own;
    /// otherwise they were encoded as the training mean, and that is what comes back.
    ///
    /// # Panics
    /// If the row is of another width.
    pub fn decode(&self, row: &[f64]) -> Vec<Answer> {
        let mut rest = row;
        let answers = self.columns.iter().map(|column| {
            let (own, others) = rest.split_at(column.code.width());
            rest = others;
            column.code.read(own)
        });
        let answers = answers.collect();
        assert!(rest.is_empty(), "Encoder::decode: {} numbers too many", rest.len());
        answers
    }

    /// Writes the encoder as JSON.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), PersistError> {
        write_json(path, self)
    }

    /// Reads what [`Encoder::save`] wrote.
    ///
    /// # Errors
    /// If the file cannot be read, or holds something else.
    pub fn load(path: &Path) -> Result<Self, PersistError> {
        read_json(path, "the encoder of a table")
    }
}

impl TryFrom<Written> for Encoder {
    type Error = String;

    fn try_from(Written { columns, constant }: Written) -> Result<Self, String> {
        if columns.is_empty() {
            return Err("an encoder needs a column".to_owned());
        }
        for (index, Encoded { name, code }) in columns.iter().enumerate() {
            if columns[..index].iter().any(|other| other.name == *name) {
                return Err(format!("column `{name}` stands there twice"));
            }
            code.check().map_err(|problem| format!("column `{name}`: {problem}"))?;
        }
        Ok(Self { columns, constant })
    }
}

impl From<Encoder> for Written {
    fn from(Encoder { columns, constant }: Encoder) -> Self {
        Self { columns, constant }
    }
}
