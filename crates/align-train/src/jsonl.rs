//! Metrics as JSON lines.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use align_core::persist::{PersistError, replace_file};
use serde_json::{Map, Value};

use crate::error::TrainError;
use crate::metrics::Metrics;
use crate::observer::{Control, Observer};

/// Appends one line an iteration: `{"step": 20, "loss": 1.25, …}`; a number that is not finite is `null`.
///
/// When a run is resumed after `step` iterations, lines of later ones are dropped first, so that each step stands in the
/// file once.
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
    file: Option<BufWriter<File>>,
}

impl JsonLines {
    /// Writes to this file, which is made when the run starts.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), file: None }
    }
}

impl Observer for JsonLines {
    fn started(&mut self, step: u64, _: u64) -> Result<(), TrainError> {
        if self.path.exists() {
            truncate(&self.path, step)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&self.path);
        self.file = Some(BufWriter::new(file.map_err(PersistError::write(&self.path))?));
        Ok(())
    }

    fn iterated(&mut self, step: u64, metrics: &Metrics) -> Result<Control, TrainError> {
        let file = self.file.as_mut().expect("a run starts its observers first");
        let mut line = Map::new();
        line.insert("step".to_owned(), step.into());
        line.extend(metrics.iter().map(|(name, value)| (name.to_owned(), Value::from(value))));
        // Flushed at once: whoever watches the file sees every iteration, and a crash loses none.
        writeln!(file, "{}", Value::Object(line))
            .and_then(|()| file.flush())
            .map_err(PersistError::write(&self.path))?;
        Ok(Control::Continue)
    }
}

/// Keeps the whole lines of steps up to `step`. A last line that a crash cut short goes too.
fn truncate(path: &Path, step: u64) -> Result<(), PersistError> {
    let text = fs::read_to_string(path).map_err(PersistError::read(path))?;
    let kept: Vec<&str> = text
        .lines()
        .filter(|line| {
            let parsed = serde_json::from_str::<Value>(line).ok();
            parsed.and_then(|line| line.get("step")?.as_u64()).is_some_and(|found| found <= step)
        })
        .collect();
    replace_file(path, |file| kept.iter().try_for_each(|line| -> io::Result<()> { writeln!(file, "{line}") }))
}
