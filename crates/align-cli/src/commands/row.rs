//! A row of whichever kind its columns make it, for commands that look at data without a recipe.

use align_data::encode::{EncodeError, Encoder};
use align_data::preview::{self, Preview};
use align_data::rows::{
    DemonstrationRow, Dialogue, FromRow, PreferenceRow, PromptRow, RowProblem, StepwiseRow,
};
use serde_json::{Map, Value};

/// A preference, a demonstration, a prompt or steps.
pub(super) enum Row {
    Preference(PreferenceRow),
    Demonstration(DemonstrationRow),
    Prompt(PromptRow),
    Stepwise(StepwiseRow),
}

impl FromRow for Row {
    const KIND: &'static str = "data";

    fn from_row(row: &Map<String, Value>) -> Result<Self, RowProblem> {
        let has = |column: &str| row.contains_key(column);
        if has("chosen") || has("rejected") {
            return PreferenceRow::from_row(row).map(Self::Preference);
        }
        if has("completions") && has("labels") {
            return StepwiseRow::from_row(row).map(Self::Stepwise);
        }
        if has("prompt") && !has("completion") {
            return PromptRow::from_row(row).map(Self::Prompt);
        }
        DemonstrationRow::from_row(row).map(Self::Demonstration)
    }

    fn prompt(&self) -> Option<&Dialogue> {
        match self {
            Self::Preference(row) => row.prompt(),
            Self::Demonstration(row) => row.prompt(),
            Self::Prompt(row) => row.prompt(),
            Self::Stepwise(row) => row.prompt(),
        }
    }
}

impl Row {
    /// What it is, in the plural.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Preference(_) => "preferences",
            Self::Demonstration(_) => "demonstrations",
            Self::Prompt(_) => "prompts",
            Self::Stepwise(_) => "answers in steps, which nothing trains on yet",
        }
    }

    /// The sequences a model will see of it.
    pub(super) fn previews(&self, encoder: &Encoder) -> Result<Vec<Preview>, EncodeError> {
        Ok(match self {
            Self::Preference(row) => preview::preference(encoder, row)?.to_vec(),
            Self::Demonstration(row) => vec![preview::demonstration(encoder, row)?],
            Self::Prompt(row) => vec![preview::prompt(encoder, row)?],
            Self::Stepwise(row) => {
                let prompt = PromptRow { prompt: row.prompt.clone(), source: None, ground_truth: None };
                vec![preview::prompt(encoder, &prompt)?]
            }
        })
    }
}
