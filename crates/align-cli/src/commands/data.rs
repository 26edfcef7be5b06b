//! `align data preview`.

use align_data::encode::Encoder;
use align_data::preview::{self, Preview};
use align_data::read::{ReadOptions, RowStream};
use align_data::rows::{DemonstrationRow, Dialogue, FromRow, PreferenceRow, PromptRow, RowProblem};
use anyhow::Result;
use serde_json::{Map, Value};

use crate::args::PreviewArgs;
use crate::context::{encoder, resolve_model};

/// Shows the first rows as the model will see them.
pub(super) fn preview(args: &PreviewArgs) -> Result<()> {
    let encoder = encoder(&resolve_model(&args.model)?, None, Default::default())?;
    let options = ReadOptions { limit: Some(args.rows), ..ReadOptions::default() };
    for row in RowStream::<Row>::open(&args.data, &options)? {
        for preview in row?.previews(&encoder)? {
            println!("{preview}");
        }
    }
    Ok(())
}

/// A row of whichever kind its columns make it.
enum Row {
    Preference(PreferenceRow),
    Demonstration(DemonstrationRow),
    Prompt(PromptRow),
}

impl FromRow for Row {
    const KIND: &'static str = "data";

    fn from_row(row: &Map<String, Value>) -> Result<Self, RowProblem> {
        if row.contains_key("rejected") {
            return PreferenceRow::from_row(row).map(Self::Preference);
        }
        if row.contains_key("prompt") && !row.contains_key("completion") {
            return PromptRow::from_row(row).map(Self::Prompt);
        }
        DemonstrationRow::from_row(row).map(Self::Demonstration)
    }

    fn prompt(&self) -> Option<&Dialogue> {
        None
    }
}

impl Row {
    fn previews(&self, encoder: &Encoder) -> Result<Vec<Preview>> {
        Ok(match self {
            Self::Preference(row) => preview::preference(encoder, row)?.to_vec(),
            Self::Demonstration(row) => vec![preview::demonstration(encoder, row)?],
            Self::Prompt(row) => vec![preview::prompt(encoder, row)?],
        })
    }
}
