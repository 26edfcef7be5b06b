//! Small states as JSON.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{PersistError, replace_file};

/// Writes a value as a file of JSON, beside its destination and renamed.
///
/// # Errors
/// If the file cannot be written.
///
/// # Panics
/// If the value is no JSON: a map whose keys are no texts.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), PersistError> {
    let text = serde_json::to_vec_pretty(value).expect("numbers and names are JSON");
    replace_file(path, |file| file.write_all(&text))
}

/// Reads what [`write_json`] wrote; `expected` says in an error what it should have been.
///
/// # Errors
/// If the file cannot be read, or holds something else.
pub fn read_json<T: DeserializeOwned>(path: &Path, expected: &str) -> Result<T, PersistError> {
    let bytes = fs::read(path).map_err(PersistError::read(path))?;
    serde_json::from_slice(&bytes).map_err(|error| PersistError::Damaged {
        path: path.to_owned(),
        expected: expected.to_owned(),
        found: error.to_string(),
    })
}
