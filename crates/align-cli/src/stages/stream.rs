//! Demonstrations larger than memory: read window by window, in a shuffled order, with a cursor in every checkpoint.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use align_core::persist::PersistError;
use align_data::encode::{Encoder, Example};
use align_data::order::{Cursor, WindowShuffle};
use align_data::read::{DataError, ReadOptions, RowStream};
use align_data::rows::{DemonstrationRow, FromRow};
use align_data::split::{is_held_out, prompt_key};
use align_train::{Batches, TrainError};
use burn::tensor::Device;

use super::sft::batches_of;
use super::write_json;
use crate::data::usable;

/// The cursor's file inside a checkpoint.
const CURSOR: &str = "cursor.json";

type Row = DemonstrationRow;
type Rows = Box<dyn Iterator<Item = Result<Row, DataError>>>;
type Open = Box<dyn Fn() -> Result<Rows, DataError>>;

/// Which rows of a file are read.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) options: ReadOptions,
    /// The share of prompts that is held out, and what decides which.
    pub(super) held_out: f64,
    pub(super) split_seed: u64,
}

impl Source {
    /// The rows on one side of the split, one at a time. Says at their end which rows were broken, if asked to.
    fn open(&self, held_out: bool, told: bool) -> Result<Rows, DataError> {
        let (share, seed, path) = (self.held_out, self.split_seed, self.path.clone());
        let mut rows = RowStream::<Row>::open(&self.path, &self.options)?;
        let mut told = told;
        let all = std::iter::from_fn(move || {
            let row = rows.next();
            if row.is_none() && !told && rows.skipped().count > 0 {
                eprintln!("{}: {}", path.display(), rows.skipped());
                told = true;
            }
            row
        });
        Ok(Box::new(all.filter(move |row| match row {
            Ok(row) => is_held_out(&prompt_key(row.prompt()), share, seed) == held_out,
            Err(_) => true,
        })))
    }

    /// The held-out side, in memory.
    pub(super) fn held_out(&self) -> Result<Vec<Row>, DataError> {
        if self.held_out == 0.0 { Ok(Vec::new()) } else { self.open(true, true)?.collect() }
    }
}

/// Microbatches from a stream.
pub(super) struct Streamed {
    rows: WindowShuffle<Row, DataError, Rows, Open>,
    encoder: Encoder,
    minibatch: usize,
    microbatch: usize,
    device: Device,
    path: PathBuf,
    /// Whether rows that do not suit the model are passed over.
    skip_bad_rows: bool,
}

impl Streamed {
    /// Goes through the source's training side again and again, shuffled within windows of `window` rows.
    pub(super) fn new(
        source: &Source,
        window: usize,
        seed: u64,
        encoder: Encoder,
        [minibatch, microbatch]: [usize; 2],
        device: &Device,
    ) -> Self {
        let (path, skip_bad_rows) = (source.path.clone(), source.options.skip_bad_rows);
        let source = source.clone();
        // Broken rows are listed after the first pass and not after every one.
        let passes = Cell::new(0);
        let open: Open = Box::new(move || source.open(false, passes.replace(passes.get() + 1) > 0));
        let rows = WindowShuffle::new(open, window, seed);
        Self { rows, encoder, minibatch, microbatch, device: device.clone(), path, skip_bad_rows }
    }

    /// The next row that can be learnt from; those that are too long, or broken, are passed over if the recipe says so.
    fn next_example(&mut self) -> Result<Example, TrainError> {
        let mut ends = 0;
        loop {
            match self.rows.next_row().map_err(TrainError::algorithm)? {
                Some(row) => match usable(self.encoder.encode_sft(&row), &self.encoder) {
                    Ok(Some(example)) => return Ok(example),
                    Ok(None) => {}
                    Err(_) if self.skip_bad_rows => {}
                    Err(error) => return Err(TrainError::algorithm(error)),
                },
                None => ends += 1,
            }
            if ends == 2 {
                let path = self.path.display();
                return Err(TrainError::algorithm(format!(
                    "{path}: no row that can be learnt from, expected one"
                )));
            }
        }
    }
}

impl Batches for Streamed {
    type Batch = align_core::Demonstrations;

    fn batches(&mut self, _step: u64) -> Result<Vec<Self::Batch>, TrainError> {
        let examples: Vec<_> = (0..self.minibatch).map(|_| self.next_example()).collect::<Result<_, _>>()?;
        Ok(batches_of(&examples, self.microbatch, &self.device))
    }

    fn save(&self, folder: &Path) -> Result<(), TrainError> {
        Ok(write_json(&folder.join(CURSOR), &self.rows.cursor())?)
    }

    fn restore(&mut self, folder: &Path) -> Result<(), TrainError> {
        let path = folder.join(CURSOR);
        let bytes = std::fs::read(&path).map_err(PersistError::read(&path))?;
        let cursor: Cursor = serde_json::from_slice(&bytes).map_err(|error| PersistError::Damaged {
            path: path.clone(),
            expected: "a place in the data".to_owned(),
            found: error.to_string(),
        })?;
        match self.rows.restore(cursor).map_err(TrainError::algorithm)? {
            true => Ok(()),
            false => Err(TrainError::algorithm(format!(
                "{} ends before row {} of epoch {}: expected the file the run began with",
                self.path.display(),
                cursor.row,
                cursor.epoch
            ))),
        }
    }
}
