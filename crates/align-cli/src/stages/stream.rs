//! Data larger than memory: read window by window, in a shuffled order, with a cursor in every checkpoint.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use align_core::persist::PersistError;
use align_data::encode::{EncodeError, Encoder};
use align_data::order::{Cursor, WindowShuffle};
use align_data::read::{DataError, ReadOptions, RowStream};
use align_data::rows::FromRow;
use align_data::split::is_held_out;
use align_train::{Batches, TrainError};
use anyhow::{Result, bail};
use burn::tensor::Device;

use super::write_json;
use crate::context::Context;
use crate::data::{self, usable};
use crate::recipe::parts::{DataConfig, Side, TrainingConfig};

/// The cursor's file inside a checkpoint.
const CURSOR: &str = "cursor.json";

type Rows<R> = Box<dyn Iterator<Item = Result<R, DataError>>>;
type Open<R> = Box<dyn Fn() -> Result<Rows<R>, DataError>>;

/// How rows become examples, and examples microbatches.
pub(super) struct Form<R, E, B> {
    pub(super) encode: fn(&Encoder, &R) -> Result<E, EncodeError>,
    pub(super) batches: fn(&[E], usize, &Device) -> Vec<B>,
}

impl<R, E, B> Clone for Form<R, E, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R, E, B> Copy for Form<R, E, B> {}

/// Which rows of a file are read, a window at a time, for how many steps.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) steps: u64,
    window: usize,
    options: ReadOptions,
    /// The share of prompts that is held out, and what decides which.
    held_out: f64,
    split_seed: u64,
}

impl Source {
    /// What a stage with `shuffle_window` reads.
    pub(super) fn new(
        window: usize,
        config: &DataConfig,
        training: &TrainingConfig,
        context: &Context,
    ) -> Result<Self> {
        let Some(steps) = training.max_steps.filter(|_| window > 0) else {
            bail!(
                "`shuffle_window` streams data whose length nobody has counted: expected a window of at least 1 and \
                 `training.max_steps`, found a window of {window} and {}",
                if training.max_steps.is_some() { "max_steps" } else { "no max_steps" }
            );
        };
        if config.split != Side::Train {
            bail!("`shuffle_window` streams the training side, and `data.split` is \"held_out\"");
        }
        Ok(Self {
            path: data::resolve(&config.path, context)?,
            steps,
            window,
            options: data::read_options(config),
            held_out: config.held_out.get(),
            split_seed: config.split_seed,
        })
    }

    /// The rows on one side of the split, one at a time. Says at their end which rows were broken, if asked to.
    fn open<R: FromRow + 'static>(&self, held_out: bool, told: bool) -> Result<Rows<R>, DataError> {
        let (share, seed, path) = (self.held_out, self.split_seed, self.path.clone());
        let mut rows = RowStream::<R>::open(&self.path, &self.options)?;
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
            Ok(row) => is_held_out(&row.key(), share, seed) == held_out,
            Err(_) => true,
        })))
    }

    /// The held-out side, in memory.
    pub(super) fn held_out<R: FromRow + 'static, E, B>(
        &self,
        encoder: &Encoder,
        form: Form<R, E, B>,
    ) -> Result<Vec<E>> {
        let mut examples = Vec::new();
        if self.held_out == 0.0 {
            return Ok(examples);
        }
        for row in self.open(true, true)? {
            match usable((form.encode)(encoder, &row?), encoder) {
                Ok(example) => examples.extend(example),
                Err(_) if self.options.skip_bad_rows => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(examples)
    }
}

/// Microbatches from a stream.
pub(super) struct Streamed<R, E, B> {
    rows: WindowShuffle<R, DataError, Rows<R>, Open<R>>,
    form: Form<R, E, B>,
    encoder: Encoder,
    minibatch: usize,
    microbatch: usize,
    device: Device,
    path: PathBuf,
    /// Whether rows that do not suit the model are passed over.
    skip_bad_rows: bool,
}

impl<R: FromRow + 'static, E, B> Streamed<R, E, B> {
    /// Goes through the source's training side again and again, shuffled within its windows.
    pub(super) fn new(
        source: &Source,
        seed: u64,
        form: Form<R, E, B>,
        encoder: Encoder,
        training: &TrainingConfig,
        device: &Device,
    ) -> Self {
        let (path, skip_bad_rows, window) =
            (source.path.clone(), source.options.skip_bad_rows, source.window);
        let source = source.clone();
        // Broken rows are listed after the first pass and not after every one.
        let passes = Cell::new(0);
        let open: Open<R> = Box::new(move || source.open(false, passes.replace(passes.get() + 1) > 0));
        Self {
            rows: WindowShuffle::new(open, window, seed),
            form,
            encoder,
            minibatch: training.minibatch,
            microbatch: training.microbatch,
            device: device.clone(),
            path,
            skip_bad_rows,
        }
    }

    /// The next row that can be learnt from; those that are too long, or broken, are passed over if the recipe says so.
    fn next_example(&mut self) -> Result<E, TrainError> {
        let mut ends = 0;
        loop {
            match self.rows.next_row().map_err(TrainError::algorithm)? {
                Some(row) => match usable((self.form.encode)(&self.encoder, &row), &self.encoder) {
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

impl<R: FromRow + 'static, E, B> Batches for Streamed<R, E, B> {
    type Batch = B;

    fn batches(&mut self, _step: u64) -> Result<Vec<Self::Batch>, TrainError> {
        let examples: Vec<_> = (0..self.minibatch).map(|_| self.next_example()).collect::<Result<_, _>>()?;
        Ok((self.form.batches)(&examples, self.microbatch, &self.device))
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
