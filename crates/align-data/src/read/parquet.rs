//! Rows of a Parquet file, without Arrow: only the columns' plain values are needed.

use std::{fs::File, path::Path};

use parquet::{
    errors::ParquetError,
    file::{reader::FileReader, serialized_reader::SerializedFileReader},
    record::reader::RowIter,
};
use serde_json::{Map, Value};

/// An open Parquet file.
pub(super) struct ParquetRows {
    rows: RowIter<'static>,
}

impl ParquetRows {
    pub(super) fn open(path: &Path) -> Result<Self, std::io::Error> {
        let reader = SerializedFileReader::new(File::open(path)?).map_err(other)?;
        let reader: Box<dyn FileReader> = Box::new(reader);
        Ok(Self { rows: RowIter::from_file_into(reader) })
    }

    pub(super) fn next_row(&mut self) -> Result<Option<Map<String, Value>>, std::io::Error> {
        match self.rows.next() {
            None => Ok(None),
            Some(row) => match row.map_err(other)?.to_json_value() {
                Value::Object(map) => Ok(Some(map)),
                _ => Ok(Some(Map::new())),
            },
        }
    }
}

fn other(error: ParquetError) -> std::io::Error {
    std::io::Error::other(error)
}
