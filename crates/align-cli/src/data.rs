//! Rows of a recipe's data table, read, split and encoded.

use std::path::PathBuf;

use align_data::encode::{EncodeError, Encoded, Encoder};
use align_data::hub::{self, HubKind, HubOptions};
use align_data::read::{ReadOptions, read_rows};
use align_data::rows::FromRow;
use align_data::split::{prompt_key, split_by_prompt};
use anyhow::{Context as _, Result, bail};

use crate::context::Context;
use crate::recipe::parts::{DataConfig, Side, stage_reference};

/// Rows on the side to use and on the other one.
pub(crate) struct Rows<T> {
    /// Where they come from.
    pub(crate) path: PathBuf,
    /// The side the recipe names.
    pub(crate) rows: Vec<T>,
    /// What is held out of it.
    pub(crate) held_out: Vec<T>,
}

/// Reads and splits.
pub(crate) fn rows<T: FromRow>(config: &DataConfig, context: &Context) -> Result<Rows<T>> {
    let path = resolve(&config.path, context)?;
    let options =
        ReadOptions { skip_bad_rows: config.skip_bad_rows, limit: config.max_rows, ..ReadOptions::default() };
    let loaded = read_rows::<T>(&path, &options)?;
    if loaded.skipped.count > 0 {
        eprintln!("{}: {}", path.display(), loaded.skipped);
    }
    let split = split_by_prompt(
        loaded.rows,
        |row| prompt_key(row.prompt()),
        config.held_out.get(),
        config.split_seed,
    );
    let (rows, held_out) = match config.split {
        Side::Train => (split.train, split.held_out),
        Side::HeldOut => (split.held_out, Vec::new()),
    };
    if rows.is_empty() {
        bail!(
            "{}: no rows on the {} side of the split (held_out = {})",
            path.display(),
            if config.split == Side::Train { "training" } else { "held-out" },
            config.held_out.get()
        );
    }
    Ok(Rows { path, rows, held_out })
}

/// A file or folder here, a file of a stage, or data on the hub.
pub(crate) fn resolve(reference: &str, context: &Context) -> Result<PathBuf> {
    if stage_reference(reference).is_some() {
        return context.path(reference);
    }
    let options = HubOptions { progress: true, ..HubOptions::from_env() };
    Ok(hub::resolve(reference, HubKind::Dataset, &options)?)
}

/// Encodes rows and says how many were passed over.
pub(crate) fn encode<R, T>(
    what: &str,
    rows: &[R],
    encoder: &Encoder,
    encode: impl Fn(&Encoder, &R) -> Result<T, EncodeError>,
) -> Result<Vec<T>> {
    let Encoded { examples, dropped, .. } =
        encoder.encode_all(rows, encode).with_context(|| format!("cannot encode the {what}"))?;
    if dropped > 0 {
        eprintln!("{what}: {dropped} of {} rows are too long and were passed over", rows.len());
    }
    if examples.is_empty() {
        bail!("{what}: every row is too long; raise `encode.max_length` or shorten the data");
    }
    Ok(examples)
}
