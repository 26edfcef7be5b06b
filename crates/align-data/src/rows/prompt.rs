//! Rows with a prompt and nothing else.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Dialogue, FromRow, PreferenceRow, RowProblem, dialogue::parse_hh_dialogue, fields};

/// What a model is asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PromptRow {
    /// The question.
    pub prompt: Dialogue,
    /// The known answer, for rewards that check it (verl's `reward_model.ground_truth`, or `ground_truth`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ground_truth: Option<String>,
    /// Which data set the row says it is from (verl's `data_source`).
    #[serde(rename = "data_source", skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

impl FromRow for PromptRow {
    const KIND: &'static str = "prompt";

    fn from_row(row: &Map<String, Value>) -> Result<Self, RowProblem> {
        let prompt = match fields::present(row, "prompt") {
            Some(value) => prompt(value)?,
            // Pairs and demonstrations hold prompts too.
            None if row.contains_key("chosen") => PreferenceRow::from_row(row)?.prompt,
            None => match fields::present(row, "messages") {
                Some(value) => asked(super::dialogue::messages("messages", value)?)?,
                None => fields::required(
                    row,
                    "prompt",
                    "a row with `prompt`, or `messages`, or `chosen` and `rejected`",
                )
                .and_then(prompt)?,
            },
        };
        let truth =
            row.get("reward_model").and_then(|model| model.get("ground_truth")).or(row.get("ground_truth"));
        let as_text = |value: &Value| match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        Ok(Self {
            prompt,
            ground_truth: truth.and_then(as_text),
            source: fields::present(row, "data_source").and_then(as_text),
        })
    }

    fn prompt(&self) -> Option<&Dialogue> {
        Some(&self.prompt)
    }
}

/// A prompt column: text, HH's dialogue in text, or messages. Never empty.
pub(super) fn prompt(value: &Value) -> Result<Dialogue, RowProblem> {
    let prompt = match Dialogue::from_value("prompt", value)? {
        Dialogue::Text(text) => match parse_hh_dialogue(&text) {
            Some(mut messages) => {
                // `…\n\nAssistant:` at the end asks for an answer; it is no turn.
                if messages.last().is_some_and(|last| last.is_assistant() && last.content.is_empty()) {
                    messages.pop();
                }
                Dialogue::Messages(messages)
            }
            None => Dialogue::Text(text),
        },
        other => other,
    };
    match prompt.is_empty() {
        true => Err(RowProblem::EmptyPrompt { hint: "" }),
        false => Ok(prompt),
    }
}

/// The dialogue without the answer at its end.
fn asked(mut messages: Vec<super::Message>) -> Result<Dialogue, RowProblem> {
    while messages.last().is_some_and(super::Message::is_assistant) {
        messages.pop();
    }
    let prompt = Dialogue::Messages(messages);
    match prompt.is_empty() {
        true => Err(RowProblem::EmptyPrompt { hint: " before the assistant's turn in `messages`" }),
        false => Ok(prompt),
    }
}
