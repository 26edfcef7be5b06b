//! Dialogues: plain text, or messages with roles.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{RowProblem, fields};

/// The roles our own code treats apart; any other role is passed on to the template by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions that stand above the dialogue.
    System,
    /// Who asks.
    User,
    /// Who answers; what a model learns to be.
    Assistant,
}

impl Role {
    /// The name templates know.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One turn of a dialogue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, `tool`, or what a template knows besides.
    pub role: String,
    /// What is said.
    pub content: String,
    /// Other fields of the message (`name`, `tool_calls`, …), for the template.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Message {
    /// A turn of one of the roles we know.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role: role.name().to_string(), content: content.into(), extra: Map::new() }
    }

    /// Whether this is the model's own turn.
    pub fn is_assistant(&self) -> bool {
        self.role == Role::Assistant.name()
    }
}

/// Text as it stands, or messages a template turns into text.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Dialogue {
    /// Text as it stands.
    Text(String),
    /// Turns with roles.
    Messages(Vec<Message>),
}

impl Dialogue {
    /// Nothing is said: no messages, or only white space.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.trim().is_empty(),
            Self::Messages(messages) => {
                messages.iter().all(|message| message.content.trim().is_empty() && message.extra.is_empty())
            }
        }
    }

    /// The same whether a question came as text or as one user message; what splits are keyed by.
    pub fn key(&self) -> String {
        match self {
            Self::Text(text) => serde_json::json!([["user", text.trim()]]).to_string(),
            Self::Messages(messages) => {
                let turns: Vec<_> =
                    messages.iter().map(|turn| [turn.role.as_str(), turn.content.trim()]).collect();
                serde_json::json!(turns).to_string()
            }
        }
    }

    /// As turns; text becomes one turn of `role`.
    pub fn into_messages(self, role: Role) -> Vec<Message> {
        match self {
            Self::Text(text) => vec![Message::new(role, text)],
            Self::Messages(messages) => messages,
        }
    }

    /// The words alone, for people.
    pub fn plain_text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Messages(messages) => {
                messages.iter().map(|turn| turn.content.as_str()).collect::<Vec<_>>().join("\n")
            }
        }
    }

    /// Reads a column that is text or a list of messages.
    pub(super) fn from_value(field: &str, value: &Value) -> Result<Self, RowProblem> {
        match value {
            Value::String(text) => Ok(Self::Text(text.clone())),
            Value::Array(_) => messages(field, value).map(Self::Messages),
            Value::Object(_) => message(field, value).map(|message| Self::Messages(vec![message])),
            other => Err(fields::wrong(field, "text or a list of messages", other)),
        }
    }
}

/// A list of messages, `{role, content}` or ShareGPT's `{from, value}`.
pub(super) fn messages(field: &str, value: &Value) -> Result<Vec<Message>, RowProblem> {
    let Value::Array(list) = value else {
        return Err(fields::wrong(field, "a list of messages", value));
    };
    list.iter().enumerate().map(|(index, value)| message(&format!("{field}[{index}]"), value)).collect()
}

fn message(field: &str, value: &Value) -> Result<Message, RowProblem> {
    let Value::Object(object) = value else {
        return Err(fields::wrong(field, "a message with `role` and `content`", value));
    };
    let (role_field, content_field) = match object.contains_key("from") && !object.contains_key("role") {
        true => ("from", "value"),
        false => ("role", "content"),
    };
    let role = match fields::required(object, role_field, "a message with `role` and `content`")
        .map_err(|problem| inside(field, problem))?
    {
        Value::String(role) => match role.as_str() {
            "human" => Role::User.name(),
            "gpt" => Role::Assistant.name(),
            other => other,
        }
        .to_string(),
        other => return Err(fields::wrong(&format!("{field}.{role_field}"), "the role's name", other)),
    };
    let mut extra = object.clone();
    extra.shift_remove(role_field);
    // Parquet files carry a column for every field any message has.
    let content = extra.shift_remove(content_field);
    extra.retain(|_, value| !value.is_null());
    let content = match content {
        Some(content) if !content.is_null() => text_of(&format!("{field}.{content_field}"), &content)?,
        _ if extra.contains_key("tool_calls") => String::new(),
        _ => {
            let problem = fields::required(object, content_field, "a message with `role` and `content`");
            return Err(inside(field, problem.expect_err("the content is missing or null")));
        }
    };
    Ok(Message { role, content, extra })
}

/// Content as text, or as parts of which each is text.
fn text_of(field: &str, value: &Value) -> Result<String, RowProblem> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => parts
            .iter()
            .enumerate()
            .map(|(index, part)| match part.get("text") {
                Some(Value::String(text)) => Ok(text.as_str()),
                _ => Err(fields::wrong(&format!("{field}[{index}]"), "a part of type `text`", part)),
            })
            .collect(),
        other => Err(fields::wrong(field, "text, or a list of text parts", other)),
    }
}

fn inside(field: &str, problem: RowProblem) -> RowProblem {
    match problem {
        RowProblem::MissingField { field: name, expected, found } => {
            RowProblem::MissingField { field: format!("{field}.{name}"), expected, found }
        }
        other => other,
    }
}

/// Takes a dialogue in HH's form apart: `\n\nHuman: …\n\nAssistant: …`. `None` when the text does not begin so.
///
/// White space around each turn is dropped. A marker counts at the beginning of a paragraph only.
///
/// # Source
/// Bai et al. 2022, <https://arxiv.org/abs/2204.05862>, and the files published with it.
pub fn parse_hh_dialogue(text: &str) -> Option<Vec<Message>> {
    const HUMAN: &str = "\n\nHuman:";
    const ASSISTANT: &str = "\n\nAssistant:";
    let next = |text: &str| {
        [(HUMAN, Role::User), (ASSISTANT, Role::Assistant)]
            .into_iter()
            .filter_map(|(marker, role)| text.find(marker).map(|at| (at, marker, role)))
            .min_by_key(|(at, ..)| *at)
    };
    // Some files were trimmed.
    let padded = format!("\n\n{}", text.trim_start());
    let mut rest = padded.as_str();
    let (0, mut marker, mut role) = next(rest)? else { return None };
    let mut messages: Vec<Message> = Vec::new();
    loop {
        rest = &rest[marker.len()..];
        let following = next(rest);
        let content = rest[..following.map_or(rest.len(), |(at, ..)| at)].trim();
        match messages.last_mut() {
            // Two turns of one speaker in a row occur in the data; templates refuse them.
            Some(last) if last.role == role.name() => {
                last.content = format!("{}\n\n{content}", last.content).trim().to_string();
            }
            _ => messages.push(Message::new(role, content)),
        }
        let Some((at, next_marker, next_role)) = following else { return Some(messages) };
        (rest, marker, role) = (&rest[at..], next_marker, next_role);
    }
}
