//! A table of typed columns, checked cell by cell against a schema.

use std::collections::{BTreeSet, HashMap};

use super::error::listed;
use super::infer::inferred;
use super::read::Raw;
use super::{Code, ColumnSchema, Levels, MissingLabels, Others, Schema, TableError};
use crate::ordinal::Grid;

/// Typed columns, and what is to be predicted.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    columns: Vec<Column>,
    label: Option<Label>,
    rows: usize,
    dropped: usize,
}

/// One column.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name in the file.
    pub name: String,
    /// Its cells.
    pub values: Values,
}

/// Cells of one kind; `None` where the answer is missing.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Numbers.
    Numeric(Vec<Option<f64>>),
    /// Answers on a scale.
    Ordinal {
        /// The scale.
        levels: Levels,
        /// Values of levels.
        answers: Vec<Option<f64>>,
    },
    /// Categories.
    Nominal {
        /// What there is to choose from.
        categories: Vec<String>,
        /// Positions in `categories`.
        choices: Vec<Option<usize>>,
    },
}

impl Values {
    /// The kind, in words.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Numeric(_) => "numeric",
            Self::Ordinal { .. } => "ordinal",
            Self::Nominal { .. } => "nominal",
        }
    }

    /// How many cells are missing.
    pub fn missing(&self) -> usize {
        match self {
            Self::Numeric(cells) | Self::Ordinal { answers: cells, .. } => {
                cells.iter().filter(|cell| cell.is_none()).count()
            }
            Self::Nominal { choices, .. } => choices.iter().filter(|cell| cell.is_none()).count(),
        }
    }
}

/// What is to be predicted, one number for each row.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    /// The column's name.
    pub name: String,
    /// Its values.
    pub values: Vec<f64>,
    /// The scale they are on, if it is ordinal.
    pub grid: Option<Grid>,
}

impl Table {
    /// Columns without the label.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// A column by name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// What is to be predicted, if the schema named it.
    pub fn label(&self) -> Option<&Label> {
        self.label.as_ref()
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Never: a file without rows is refused.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// How many rows of the file were left out for want of a label.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// Checks and types what a reader found.
    pub(super) fn from_raw(mut raw: Raw, schema: &Schema) -> Result<Self, TableError> {
        for name in schema.columns.keys().chain(&schema.ignore).chain(&schema.label) {
            if raw.position(name).is_none() {
                let known = listed(raw.header.iter());
                return Err(TableError::MissingColumn { path: raw.path, name: name.clone(), known });
            }
        }
        let (label, dropped) = match &schema.label {
            Some(name) => {
                let (label, dropped) = label(&mut raw, name, schema)?;
                (Some(label), dropped)
            }
            None => (None, 0),
        };
        let mut columns = Vec::new();
        for (index, name) in raw.header.iter().enumerate() {
            if schema.label.as_deref() == Some(name) || schema.ignore.iter().any(|ignored| ignored == name) {
                continue;
            }
            let declared = schema.columns.get(name);
            match (declared, schema.others) {
                (None, Others::Ignore) => continue,
                (None, Others::Refuse) => {
                    return Err(TableError::UndeclaredColumn {
                        path: raw.path.clone(),
                        name: name.to_owned(),
                    });
                }
                _ => {}
            }
            columns.push(Column { name: name.to_owned(), values: typed(&raw, index, declared, schema)? });
        }
        Ok(Self { columns, label, rows: raw.records.len(), dropped })
    }
}

/// The cells of one column as texts; `None` where one means missing.
pub(super) fn present<'a>(
    raw: &'a Raw,
    column: usize,
    declared: Option<&'a ColumnSchema>,
    schema: &'a Schema,
) -> impl Iterator<Item = Option<&'a str>> + Clone {
    let own: &[Code] = declared.map_or(&[], ColumnSchema::missing);
    raw.cells(column).map(move |text| {
        let number = text.parse().ok();
        let missing = text.is_empty() || schema.missing.iter().chain(own).any(|code| code.is(text, number));
        (!missing).then_some(text)
    })
}

fn typed(
    raw: &Raw,
    column: usize,
    declared: Option<&ColumnSchema>,
    schema: &Schema,
) -> Result<Values, TableError> {
    let cells = present(raw, column, declared, schema);
    let refuse = |row: usize, expected: &str, found: &str| TableError::Cell {
        place: raw.place(row),
        column: raw.header[column].to_owned(),
        expected: expected.to_owned(),
        found: found.to_owned(),
    };
    let guess;
    let kind = match declared {
        Some(declared) => declared,
        None => {
            guess = inferred(raw, column, cells.clone())?;
            &guess
        }
    };
    match kind {
        ColumnSchema::Numeric { .. } => {
            let number =
                |(row, cell): (usize, Option<&str>)| match cell.map(|text| (text, text.parse::<f64>())) {
                    None => Ok(None),
                    Some((_, Ok(number))) if number.is_finite() => Ok(Some(number)),
                    Some((text, _)) => Err(refuse(row, "a finite number", text)),
                };
            Ok(Values::Numeric(cells.enumerate().map(number).collect::<Result<_, _>>()?))
        }
        ColumnSchema::Ordinal { levels, .. } => {
            let level = |(row, cell): (usize, Option<&str>)| match cell.map(|text| (text, levels.value(text)))
            {
                None => Ok(None),
                Some((_, Some(value))) => Ok(Some(value)),
                Some((text, None)) => {
                    let expected = format!("a level ({levels}) or a declared code for a missing answer");
                    Err(refuse(row, &expected, text))
                }
            };
            let answers = cells.enumerate().map(level).collect::<Result<_, _>>()?;
            Ok(Values::Ordinal { levels: levels.clone(), answers })
        }
        ColumnSchema::Nominal { categories, .. } => {
            let categories = if categories.is_empty() {
                let seen: BTreeSet<&str> = cells.clone().flatten().collect();
                seen.into_iter().map(str::to_owned).collect()
            } else {
                categories.clone()
            };
            let positions: HashMap<&str, usize> =
                categories.iter().enumerate().map(|(index, category)| (category.as_str(), index)).collect();
            let choice =
                |(row, cell): (usize, Option<&str>)| match cell.map(|text| (text, positions.get(text))) {
                    None => Ok(None),
                    Some((_, Some(&choice))) => Ok(Some(choice)),
                    Some((text, None)) => {
                        let expected = format!("one of {}", listed(categories.iter().map(String::as_str)));
                        Err(refuse(row, &expected, text))
                    }
                };
            let choices = cells.enumerate().map(choice).collect::<Result<_, _>>()?;
            Ok(Values::Nominal { categories, choices })
        }
    }
}

/// The label, after rows without one were refused or left out; and how many were.
fn label(raw: &mut Raw, name: &str, schema: &Schema) -> Result<(Label, usize), TableError> {
    let column = raw.position(name).expect("the label's column was looked for");
    let values = typed(raw, column, schema.columns.get(name), schema)?;
    let (answers, grid) = match values {
        Values::Numeric(answers) => (answers, None),
        Values::Ordinal { levels, answers } if levels.grid().is_some() => (answers, levels.grid()),
        other => {
            let found = match other {
                Values::Ordinal { levels, .. } => format!("levels {levels}"),
                _ => "categories".to_owned(),
            };
            return Err(TableError::LabelKind { path: raw.path.clone(), column: name.to_owned(), found });
        }
    };
    if let (MissingLabels::Refuse, Some(row)) =
        (schema.missing_label, answers.iter().position(Option::is_none))
    {
        return Err(TableError::MissingLabel { place: raw.place(row), column: name.to_owned() });
    }
    let before = raw.records.len();
    let mut kept = answers.iter().map(Option::is_some);
    raw.records.retain(|_| kept.next() == Some(true));
    if raw.records.is_empty() {
        return Err(TableError::Empty { path: raw.path.clone(), found: "no row with a label" });
    }
    let values: Vec<f64> = answers.into_iter().flatten().collect();
    let dropped = before - values.len();
    Ok((Label { name: name.to_owned(), values, grid }, dropped))
}
