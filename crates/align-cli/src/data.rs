//! Rows of a recipe's data table, read, split and encoded.

use std::path::{Path, PathBuf};

use align_data::encode::{EncodeError, Encoder, Overlong};
use align_data::hub::{self, HubKind, HubOptions};
use align_data::read::{LISTED_SKIPS, ReadOptions, read_rows};
use align_data::rows::{Dialogue, FromRow, PromptRow};
use align_data::split::split_by_prompt;
use anyhow::{Result, bail};

use crate::context::Context;
use crate::progress::{rows_bar, working};
use crate::recipe::parts::{DataConfig, Side, stage_reference};

/// Rows on the side to use and on the other one.
pub(crate) struct Rows<T> {
    /// Where they come from.
    pub(crate) path: PathBuf,
    /// The side the recipe names.
    pub(crate) rows: Vec<Numbered<T>>,
    /// The other side, for evaluation.
    pub(crate) held_out: Vec<Numbered<T>>,
    /// Whether rows that cannot be used are passed over.
    skip_bad_rows: bool,
}

/// A row with its place among the rows of its file, counted from 1.
pub(crate) struct Numbered<T> {
    pub(crate) number: usize,
    pub(crate) row: T,
}

/// Reads and splits.
pub(crate) fn rows<T: FromRow>(config: &DataConfig, context: &Context) -> Result<Rows<T>> {
    let path = resolve(&config.path, context)?;
    let loaded = {
        let _working = working(&format!("reading {}", path.display()));
        read_rows::<T>(&path, &read_options(config))?
    };
    if loaded.skipped.count > 0 {
        context.say_once(&format!("{}: {}", path.display(), loaded.skipped));
    }
    let numbered =
        loaded.rows.into_iter().enumerate().map(|(index, row)| Numbered { number: index + 1, row });
    let split = split_by_prompt(
        numbered.collect(),
        |numbered| numbered.row.key(),
        config.held_out.get(),
        config.split_seed,
    );
    let (rows, held_out) = match config.split {
        Side::Train => (split.train, split.held_out),
        Side::HeldOut => (split.held_out, split.train),
    };
    if rows.is_empty() {
        bail!(
            "{}: no rows on the {} side of the split (held_out = {}); expected at least one",
            path.display(),
            if config.split == Side::Train { "training" } else { "held-out" },
            config.held_out.get()
        );
    }
    Ok(Rows { path, rows, held_out, skip_bad_rows: config.skip_bad_rows })
}

/// Prompts in a policy's tokens, and what they were.
pub(crate) struct Prompts {
    /// Where they come from.
    pub(crate) path: PathBuf,
    /// Token ids, in the file's order.
    pub(crate) ids: Vec<Vec<u32>>,
    /// Their words and turns, in the same order.
    pub(crate) dialogues: Vec<Dialogue>,
}

/// Reads and encodes prompts.
pub(crate) fn prompts(config: &DataConfig, encoder: &Encoder, context: &Context) -> Result<Prompts> {
    let rows = rows::<PromptRow>(config, context)?;
    Ok(Prompts::of(&rows, rows.encode("prompts", encoder, encode_prompt)?))
}

/// A prompt's tokens and its words.
fn encode_prompt(encoder: &Encoder, row: &PromptRow) -> Result<(Vec<u32>, Dialogue), EncodeError> {
    Ok((encoder.encode_prompt(&row.prompt)?, row.prompt.clone()))
}

/// Reads and encodes prompts, and those on the other side of the split, of which there may be none.
pub(crate) fn split_prompts(
    config: &DataConfig,
    encoder: &Encoder,
    context: &Context,
) -> Result<(Prompts, Prompts)> {
    let rows = rows::<PromptRow>(config, context)?;
    let one = Prompts::of(&rows, rows.encode("prompts", encoder, encode_prompt)?);
    Ok((one, Prompts::of(&rows, rows.encode_held_out("prompts", encoder, encode_prompt)?)))
}

impl Prompts {
    fn of(rows: &Rows<PromptRow>, encoded: Vec<(Vec<u32>, Dialogue)>) -> Self {
        let (ids, dialogues) = encoded.into_iter().unzip();
        Self { path: rows.path.clone(), ids, dialogues }
    }

    /// These and others, for whoever has to know them all.
    pub(crate) fn and(&self, others: &Self) -> Self {
        Self {
            path: self.path.clone(),
            ids: [self.ids.as_slice(), &others.ids].concat(),
            dialogues: [self.dialogues.as_slice(), &others.dialogues].concat(),
        }
    }
}

/// How a data table's file is read.
pub(crate) fn read_options(config: &DataConfig) -> ReadOptions {
    ReadOptions { skip_bad_rows: config.skip_bad_rows, limit: config.max_rows, ..ReadOptions::default() }
}

/// A file or folder here, a file of a stage, or data on the hub.
pub(crate) fn resolve(reference: &str, context: &Context) -> Result<PathBuf> {
    if stage_reference(reference).is_some() {
        return context.path(reference);
    }
    let options = HubOptions { progress: true, ..HubOptions::from_env() };
    Ok(hub::resolve(reference, HubKind::Dataset, &options)?)
}

impl<T> Rows<T> {
    /// Other rows of the same file, nothing of them held out.
    pub(crate) fn with(&self, rows: Vec<Numbered<T>>) -> Self {
        Self { path: self.path.clone(), rows, held_out: Vec::new(), skip_bad_rows: self.skip_bad_rows }
    }

    /// Encodes the side to use; rows that are too long are passed over if the recipe says so.
    pub(crate) fn encode<E>(
        &self,
        what: &str,
        encoder: &Encoder,
        one: impl Fn(&Encoder, &T) -> Result<E, EncodeError>,
    ) -> Result<Vec<E>> {
        self.encode_side(what, &self.rows, encoder, one)
    }

    /// Encodes what is held out; nothing if nothing is.
    pub(crate) fn encode_held_out<E>(
        &self,
        what: &str,
        encoder: &Encoder,
        one: impl Fn(&Encoder, &T) -> Result<E, EncodeError>,
    ) -> Result<Vec<E>> {
        if self.held_out.is_empty() {
            return Ok(Vec::new());
        }
        self.encode_side(&format!("held-out {what}"), &self.held_out, encoder, one)
    }

    /// Encodes rows and says how many were passed over, and which if they are broken rather than long.
    fn encode_side<E>(
        &self,
        what: &str,
        rows: &[Numbered<T>],
        encoder: &Encoder,
        one: impl Fn(&Encoder, &T) -> Result<E, EncodeError>,
    ) -> Result<Vec<E>> {
        let (mut examples, mut overlong, mut broken) = (Vec::new(), 0, Vec::new());
        let bar = rows_bar(&format!("encoding {what}"), rows.len());
        for Numbered { number, row } in rows {
            match usable(one(encoder, row), encoder) {
                Ok(Some(example)) => examples.push(example),
                Ok(None) => overlong += 1,
                Err(error) if self.skip_bad_rows => broken.push((number, error)),
                Err(error) => return Err(unusable(*number, &self.path, error)),
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        if overlong > 0 {
            eprintln!("{what}: {overlong} of {} rows are too long and were passed over", rows.len());
        }
        if !broken.is_empty() {
            eprintln!("{what}: skipped {} rows that cannot be encoded", broken.len());
            for (number, error) in broken.iter().take(LISTED_SKIPS) {
                eprintln!("  {}: row {number}: {error}", self.path.display());
            }
        }
        if examples.is_empty() {
            let (total, broken) = (rows.len(), broken.len());
            bail!(
                "{}: no {what} are left: of {total} rows {overlong} are too long and {broken} are broken; raise \
                 `encode.max_length` or shorten the data",
                self.path.display()
            );
        }
        Ok(examples)
    }
}

/// `None` of a row that is too long where such rows are passed over.
pub(crate) fn usable<E>(
    encoded: Result<E, EncodeError>,
    encoder: &Encoder,
) -> Result<Option<E>, EncodeError> {
    match encoded {
        Ok(example) => Ok(Some(example)),
        Err(error) if error.is_overlong() && encoder.options().overlong != Overlong::Error => Ok(None),
        Err(error) => Err(error),
    }
}

/// The error of a row that cannot be encoded.
fn unusable(number: usize, path: &Path, error: EncodeError) -> anyhow::Error {
    let remedy = if error.is_overlong() {
        "; give encode.overlong=\"drop\" to pass over such rows or \"cut_response\" to cut them"
    } else {
        ""
    };
    let place = format!("cannot use row {number} of {}{remedy}", path.display());
    anyhow::Error::new(error).context(place)
}
