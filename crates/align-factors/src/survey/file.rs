//! A survey as a file, for whatever reads files.

use std::collections::BTreeMap;
use std::path::Path;

use align_core::persist::{PersistError, replace_file};

use super::Survey;
use crate::design::Design;
use crate::table::{ColumnSchema, Levels, Schema};

/// The column to predict.
const LABEL: &str = "happiness";

impl Survey {
    /// Writes answers as CSV: a column for each factor, then `happiness`. Numbers come back to the last bit.
    ///
    /// # Errors
    /// If the file cannot be written.
    ///
    /// # Panics
    /// If the answers are those of another survey.
    pub fn write_csv<P>(&self, path: &Path, answers: &Design<P>) -> Result<(), PersistError> {
        assert_eq!(
            answers.factors,
            self.factors(),
            "Survey::write_csv: answers to the questions of this survey"
        );
        replace_file(path, |file| {
            let mut writer = csv::Writer::from_writer(file);
            writer.write_record(answers.factors.names().chain([LABEL]))?;
            for (row, label) in answers.rows.rows().zip(&answers.labels) {
                writer.write_record(row.iter().chain([label]).map(f64::to_string))?;
            }
            writer.flush()
        })
    }

    /// What the file's columns are.
    pub fn schema(&self) -> Schema {
        let grid = self.grid();
        let numeric = |name: &str| (name.to_owned(), ColumnSchema::Numeric { missing: Vec::new() });
        let factors = self.factors();
        let mut columns: BTreeMap<_, _> = factors.names().map(numeric).collect();
        let levels = Levels::range(grid.low(), grid.high());
        columns.insert(LABEL.to_owned(), ColumnSchema::Ordinal { levels, missing: Vec::new() });
        Schema { label: Some(LABEL.to_owned()), columns, ..Schema::default() }
    }
}
