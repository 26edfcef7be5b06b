//! `align data preview`.

use std::io::Write;

use align_data::read::{ReadOptions, RowStream};
use anyhow::{Result, bail};

use super::row::Row;
use crate::args::PreviewArgs;
use crate::context::{encoder, resolve_model};
use crate::language_model::tokenizer_folder;

/// Shows the first rows as the model will see them.
pub(super) fn preview(args: &PreviewArgs) -> Result<()> {
    let folder = tokenizer_folder(&resolve_model(&args.model)?)?;
    let encoder = encoder(&folder, None, Default::default())?;
    let options = ReadOptions { limit: Some(args.rows), ..ReadOptions::default() };
    let mut out = std::io::stdout().lock();
    let mut shown = 0;
    for row in RowStream::<Row>::open(&args.data, &options)? {
        for preview in row?.previews(&encoder)? {
            writeln!(out, "{preview}")?;
        }
        shown += 1;
    }
    if shown == 0 && args.rows > 0 {
        bail!("{} holds no rows, expected at least one", args.data.display());
    }
    Ok(())
}
