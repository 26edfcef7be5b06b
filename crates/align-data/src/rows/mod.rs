//! The kinds of rows, and how columns of the conventions in use become them.
//!
//! | kind | columns |
//! | --- | --- |
//! | [`PromptRow`] | `prompt` (text or messages); verl's `prompt`, `reward_model.ground_truth` |
//! | [`DemonstrationRow`] | `prompt`, `completion`; `messages`; `conversations` (ShareGPT); `text`; of a preference row, its `chosen` |
//! | [`PreferenceRow`] | `chosen`, `rejected`, perhaps `prompt`, `margin`; NeMo's `context`, `completions[{rank, completion}]` |
//! | [`LabelledRow`] | `prompt`, `completion`, `label` (KTO) |
//! | [`StepwiseRow`] | `prompt`, `completions`, `labels` (process supervision) |
//!
//! `prompt`, `completion`, `chosen`, `rejected` are text or lists of `{role, content}`. Without a `prompt` column the
//! shared beginning of both sides is the prompt; HH's text with the dialogue inside (`\n\nHuman: … \n\nAssistant: …`)
//! is taken apart first.

mod demonstration;
mod dialogue;
mod fields;
mod preference;
mod problem;
mod prompt;

pub use demonstration::{DemonstrationRow, LabelledRow, StepwiseRow};
pub use dialogue::{Dialogue, Message, Role, parse_hh_dialogue};
pub(crate) use fields::kind_of;
pub use preference::PreferenceRow;
pub use problem::RowProblem;
pub use prompt::PromptRow;

use serde_json::{Map, Value};

/// A kind of row that can be read from a file.
pub trait FromRow: Sized {
    /// The kind's name, for messages.
    const KIND: &'static str;

    /// Reads the columns of one row.
    ///
    /// # Errors
    /// When a column is missing, of the wrong type, or says something no one can learn from.
    fn from_row(row: &Map<String, Value>) -> Result<Self, RowProblem>;

    /// What the row's prompt is, if it has one.
    fn prompt(&self) -> Option<&Dialogue>;

    /// What a split is keyed by: rows with equal keys fall on the same side. The prompt's key, where there is a prompt.
    fn key(&self) -> String {
        self.prompt().map(Dialogue::key).unwrap_or_default()
    }
}
