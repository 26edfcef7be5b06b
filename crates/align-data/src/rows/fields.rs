//! Reading columns with errors that name them.

use serde_json::{Map, Value};

use super::RowProblem;

/// What a value is, in words.
pub(crate) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A value in words, with its beginning.
pub(super) fn found(value: &Value) -> String {
    match value {
        Value::Null => "null".to_string(),
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(map) => format!("an object with {}", keys(map)),
        other => format!("{} ({})", kind_of(other), beginning(&other.to_string())),
    }
}

/// The first characters of a text.
pub(super) fn beginning(text: &str) -> String {
    const SHOWN: usize = 40;
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// The names of a row's columns, in its order.
pub(super) fn keys(row: &Map<String, Value>) -> String {
    if row.is_empty() {
        return "no fields".to_string();
    }
    row.keys().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
}

/// A column that is there and not null.
pub(super) fn present<'a>(row: &'a Map<String, Value>, field: &str) -> Option<&'a Value> {
    row.get(field).filter(|value| !value.is_null())
}

/// A column the row cannot do without.
pub(super) fn required<'a>(
    row: &'a Map<String, Value>,
    field: &str,
    expected: &'static str,
) -> Result<&'a Value, RowProblem> {
    present(row, field).ok_or_else(|| RowProblem::MissingField {
        field: field.to_string(),
        expected,
        found: match row.contains_key(field) {
            true => format!("{} (`{field}` is null)", keys(row)),
            false => keys(row),
        },
    })
}

/// An error for a value of the wrong type.
pub(super) fn wrong(field: &str, expected: &'static str, value: &Value) -> RowProblem {
    RowProblem::WrongType { field: field.to_string(), expected, found: found(value) }
}
