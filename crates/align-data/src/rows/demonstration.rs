//! Rows that show what to say.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    Dialogue, FromRow, Message, PreferenceRow, Role, RowProblem,
    dialogue::{messages, parse_hh_dialogue},
    fields, prompt,
};

/// Something to imitate.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum DemonstrationRow {
    /// A question and its answer; the answer is learnt.
    Completion {
        /// What was asked.
        prompt: Dialogue,
        /// What was answered.
        completion: Dialogue,
    },
    /// A dialogue; the assistant's turns are learnt.
    Messages {
        /// The turns.
        messages: Vec<Message>,
        /// Tools the template is told about.
        #[serde(skip_serializing_if = "Option::is_none")]
        tools: Option<Value>,
    },
    /// Text; all of it is learnt.
    Text {
        /// The text.
        text: String,
    },
}

impl FromRow for DemonstrationRow {
    const KIND: &'static str = "demonstration";

    fn from_row(row: &Map<String, Value>) -> Result<Self, RowProblem> {
        if let Some(field) =
            ["messages", "conversations"].into_iter().find(|field| fields::present(row, field).is_some())
        {
            return conversation(field, row);
        }
        if let Some(value) = fields::present(row, "text") {
            let Value::String(text) = value else { return Err(fields::wrong("text", "text", value)) };
            return match parse_hh_dialogue(text) {
                Some(messages) => checked("text", messages, None),
                None if text.trim().is_empty() => Err(RowProblem::EmptyField { field: "text".to_string() }),
                None => Ok(Self::Text { text: text.clone() }),
            };
        }
        if row.contains_key("chosen") {
            let PreferenceRow { prompt, chosen, .. } = PreferenceRow::from_row(row)?;
            return Ok(Self::Completion { prompt, completion: chosen });
        }
        const EXPECTED: &str =
            "a demonstration (`prompt` and `completion`, `messages`, `text`, or `chosen` and `rejected`)";
        if !row.contains_key("prompt") {
            return Err(
                fields::required(row, "messages", EXPECTED).expect_err("no `messages` was found above")
            );
        }
        let (prompt, completion) = prompt_and_completion(row, EXPECTED)?;
        Ok(Self::Completion { prompt, completion })
    }

    fn prompt(&self) -> Option<&Dialogue> {
        match self {
            Self::Completion { prompt, .. } => Some(prompt),
            Self::Messages { .. } | Self::Text { .. } => None,
        }
    }

    /// The prompt, the turns before the last answer, or the text.
    fn key(&self) -> String {
        match self {
            Self::Completion { prompt, .. } => prompt.key(),
            Self::Messages { messages, .. } => {
                let asked = messages.iter().rposition(Message::is_assistant).unwrap_or(messages.len());
                Dialogue::Messages(messages[..asked].to_vec()).key()
            }
            Self::Text { text } => text.clone(),
        }
    }
}

fn conversation(field: &str, row: &Map<String, Value>) -> Result<DemonstrationRow, RowProblem> {
    let turns = messages(field, &row[field])?;
    let tools = fields::present(row, "tools").map(|tools| match tools {
        // Parquet files often hold tools as JSON in text.
        Value::String(text) => serde_json::from_str(text).unwrap_or_else(|_| tools.clone()),
        other => other.clone(),
    });
    checked(field, turns, tools)
}

fn checked(
    field: &str,
    messages: Vec<Message>,
    tools: Option<Value>,
) -> Result<DemonstrationRow, RowProblem> {
    if messages.is_empty() {
        return Err(RowProblem::EmptyField { field: field.to_string() });
    }
    if !messages.iter().any(Message::is_assistant) {
        let roles: Vec<_> = messages.iter().map(|message| message.role.as_str()).collect();
        return Err(RowProblem::WrongType {
            field: field.to_string(),
            expected: "at least one turn of the assistant",
            found: format!("turns of {}", roles.join(", ")),
        });
    }
    if let Some(index) = messages.iter().position(|turn| {
        turn.is_assistant() && turn.content.trim().is_empty() && !turn.extra.contains_key("tool_calls")
    }) {
        return Err(RowProblem::EmptyField { field: format!("{field}[{index}].content") });
    }
    Ok(DemonstrationRow::Messages { messages, tools })
}

fn prompt_and_completion(
    row: &Map<String, Value>,
    expected: &'static str,
) -> Result<(Dialogue, Dialogue), RowProblem> {
    let prompt = prompt::prompt(fields::required(row, "prompt", expected)?)?;
    let completion = Dialogue::from_value("completion", fields::required(row, "completion", expected)?)?;
    if completion.is_empty() {
        return Err(RowProblem::EmptyField { field: "completion".to_string() });
    }
    Ok(alike(prompt, completion))
}

/// Makes both sides messages as soon as one is: a text prompt is the user's, a text completion the assistant's.
pub(super) fn alike(prompt: Dialogue, completion: Dialogue) -> (Dialogue, Dialogue) {
    match (&prompt, &completion) {
        (Dialogue::Text(_), Dialogue::Text(_)) => (prompt, completion),
        _ => (
            Dialogue::Messages(prompt.into_messages(Role::User)),
            Dialogue::Messages(completion.into_messages(Role::Assistant)),
        ),
    }
}

/// An answer in steps, each right or wrong: TRL's stepwise supervision.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepwiseRow {
    /// What was asked.
    pub prompt: Dialogue,
    /// The steps in order, each with whether it is right.
    pub steps: Vec<(String, bool)>,
}

impl FromRow for StepwiseRow {
    const KIND: &'static str = "stepwise";

    fn from_row(row: &Map<String, Value>) -> Result<Self, RowProblem> {
        const EXPECTED: &str = "an answer in steps (`prompt`, `completions`, `labels`)";
        let prompt = prompt::prompt(fields::required(row, "prompt", EXPECTED)?)?;
        let list = |field: &str, of: &'static str| {
            let value = fields::required(row, field, EXPECTED)?;
            value.as_array().ok_or_else(|| fields::wrong(field, of, value))
        };
        let texts = list("completions", "a list of texts, one a step")?;
        let labels = list("labels", "a list of true and false, one a step")?;
        if texts.is_empty() {
            return Err(RowProblem::EmptyField { field: "completions".to_string() });
        }
        if texts.len() != labels.len() {
            let value = Value::Array(labels.clone());
            return Err(fields::wrong("labels", "as many as `completions`", &value));
        }
        let steps = texts.iter().zip(labels).enumerate().map(|(at, (text, label))| {
            let text =
                text.as_str().ok_or_else(|| fields::wrong(&format!("completions[{at}]"), "text", text))?;
            Ok((text.to_string(), read_label(label, &format!("labels[{at}]"))?))
        });
        let steps = steps.collect::<Result<_, RowProblem>>()?;
        Ok(Self { prompt, steps })
    }

    fn prompt(&self) -> Option<&Dialogue> {
        Some(&self.prompt)
    }
}

/// True, false, 1 or 0.
fn read_label(value: &Value, field: &str) -> Result<bool, RowProblem> {
    match value {
        Value::Bool(label) => Ok(*label),
        Value::Number(number) if number.as_i64() == Some(0) => Ok(false),
        Value::Number(number) if number.as_i64() == Some(1) => Ok(true),
        other => Err(fields::wrong(field, "true, false, 1 or 0", other)),
    }
}

/// An answer with a thumb up or down.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelledRow {
    /// What was asked.
    pub prompt: Dialogue,
    /// What was answered.
    pub completion: Dialogue,
    /// Whether it was wanted.
    pub label: bool,
}

impl FromRow for LabelledRow {
    const KIND: &'static str = "labelled";

    fn from_row(row: &Map<String, Value>) -> Result<Self, RowProblem> {
        const EXPECTED: &str = "a labelled answer (`prompt`, `completion`, `label`)";
        let (prompt, completion) = prompt_and_completion(row, EXPECTED)?;
        let label = read_label(fields::required(row, "label", EXPECTED)?, "label")?;
        Ok(Self { prompt, completion, label })
    }

    fn prompt(&self) -> Option<&Dialogue> {
        Some(&self.prompt)
    }
}
