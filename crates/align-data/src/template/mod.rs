//! Chat templates: dialogues to text, as transformers' `apply_chat_template` writes them.
//!
//! A template is Jinja, read from `chat_template.jinja` or from `chat_template` in `tokenizer_config.json`. The
//! environment is that of transformers: blocks trimmed, loop controls, `raise_exception`, `strftime_now`, `tojson`
//! without escaping for HTML, the methods of Python's strings, and `{% generation %}` blocks, which mark what the model
//! writes. Values print as Python prints them.
//!
//! Departure: `strftime_now` is in UTC, and [`ChatTemplate::with_date`] fixes the day, because a data set that changes
//! at midnight cannot be reproduced.

mod builtin;
mod date;
mod error;
mod python;

use std::{collections::BTreeMap, ops::Range, path::Path, sync::Arc};

use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, Value as Jinja, syntax::SyntaxConfig, value::Serde,
};
use serde_json::{Map, Value};

use self::date::Moment;
pub use self::error::TemplateError;
use crate::rows::Message;

/// The template used when nothing else is asked for.
const DEFAULT: &str = "default";
/// The template used when tools are given, if there is one of that name.
const TOOL_USE: &str = "tool_use";
/// Unicode noncharacters (never in text meant for interchange) that bound what the model writes.
const OPEN: char = '\u{FDD0}';
const CLOSE: char = '\u{FDD1}';

/// A compiled chat template, or several by name.
#[derive(Clone)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    sources: BTreeMap<String, String>,
    variables: Map<String, Value>,
    day: Option<Moment>,
}

/// What a template is given besides the dialogue.
#[derive(Clone, Debug, Default)]
pub struct RenderOptions<'a> {
    /// End with the beginning of the assistant's turn.
    pub add_generation_prompt: bool,
    /// Tools, as JSON schemas.
    pub tools: Option<&'a Value>,
    /// Further variables a template knows (`enable_thinking`, `documents`, …).
    pub variables: Option<&'a Map<String, Value>>,
}

/// A rendered dialogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// The text a model sees.
    pub text: String,
    /// What the model writes, in bytes of `text`; `None` when the template has no `{% generation %}` blocks.
    pub generation: Option<Vec<Range<usize>>>,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("sources", &self.sources)
            .field("variables", &self.variables)
            .finish_non_exhaustive()
    }
}

impl ChatTemplate {
    /// Compiles one template; `variables` are the special tokens by their names (`bos_token`, `eos_token`, …).
    ///
    /// # Errors
    /// When the template is not valid Jinja.
    pub fn new(source: &str, variables: Map<String, Value>) -> Result<Self, TemplateError> {
        Self::from_sources(BTreeMap::from([(DEFAULT.to_string(), source.to_string())]), variables)
    }

    /// A template that comes with the crate: `chatml`, `zephyr` or `hh` (the markers of HH's dialogues, for models
    /// without a template).
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn builtin(name: &str, variables: Map<String, Value>) -> Result<Self, TemplateError> {
        match builtin::TEMPLATES.iter().find(|(known, _)| *known == name) {
            Some((_, source)) => Self::new(source, variables),
            None => Err(TemplateError::Unknown {
                name: name.to_string(),
                known: builtin::TEMPLATES.map(|(known, _)| format!("`{known}`")).join(", "),
            }),
        }
    }

    /// The template of a model's folder, or `None` when it has none.
    ///
    /// `chat_template.jinja` counts before the tokenizer's configuration; `additional_chat_templates/NAME.jinja` adds
    /// named ones.
    ///
    /// # Errors
    /// When a file is there and cannot be read or compiled.
    pub fn from_folder(folder: &Path, variables: Map<String, Value>) -> Result<Option<Self>, TemplateError> {
        let mut sources = BTreeMap::new();
        let configured = folder.join("tokenizer_config.json");
        if let Some(text) = read_if_there(&configured)? {
            let config: Value = serde_json::from_str(&text).map_err(|error| TemplateError::Read {
                path: configured.clone(),
                source: std::io::Error::other(error),
            })?;
            if let Some(template) = config.get("chat_template").filter(|template| !template.is_null()) {
                sources = named_sources(&configured, template)?;
            }
        }
        if let Some(text) = read_if_there(&folder.join("chat_template.jinja"))? {
            sources.insert(DEFAULT.to_string(), text);
        }
        if let Ok(entries) = std::fs::read_dir(folder.join("additional_chat_templates")) {
            for path in entries.flatten().map(|entry| entry.path()) {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                if path.extension().is_some_and(|extension| extension == "jinja")
                    && let Some(text) = read_if_there(&path)?
                {
                    sources.insert(name, text);
                }
            }
        }
        match sources.is_empty() {
            true => Ok(None),
            false => Self::from_sources(sources, variables).map(Some),
        }
    }

    fn from_sources(
        sources: BTreeMap<String, String>,
        variables: Map<String, Value>,
    ) -> Result<Self, TemplateError> {
        let mut environment = environment();
        for (name, source) in &sources {
            environment.add_template_owned(name.clone(), with_generation_filter(source)).map_err(
                |error| TemplateError::Syntax {
                    name: name.clone(),
                    line: error.line().unwrap_or(0),
                    message: error.detail().map_or_else(|| error.kind().to_string(), str::to_string),
                },
            )?;
        }
        Ok(Self { environment: Arc::new(environment), sources, variables, day: None })
    }

    /// Fixes the day that `strftime_now` tells.
    pub fn with_date(mut self, year: i64, month: u32, day: u32) -> Self {
        self.day = Some(Moment::of_day(year, month, day));
        self
    }

    /// The template's text, as it was read.
    pub fn source(&self) -> &str {
        let first = || self.sources.values().next();
        self.sources.get(DEFAULT).or_else(first).map_or("", String::as_str)
    }

    /// Renders a dialogue.
    ///
    /// # Errors
    /// When the template refuses it or fails.
    ///
    /// # Examples
    /// ```
    /// use align_data::{ChatTemplate, Message, RenderOptions, Role};
    ///
    /// let template = ChatTemplate::builtin("chatml", Default::default()).unwrap();
    /// let options = RenderOptions { add_generation_prompt: true, ..Default::default() };
    /// let text = template.render(&[Message::new(Role::User, "Hello")], &options).unwrap();
    /// assert_eq!(text, "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n");
    /// ```
    pub fn render(&self, messages: &[Message], options: &RenderOptions<'_>) -> Result<String, TemplateError> {
        self.render_marked(messages, options).map(|rendered| rendered.text)
    }

    /// Renders a dialogue and says which part the model writes, if the template does.
    ///
    /// # Errors
    /// When the template refuses the dialogue or fails.
    pub fn render_marked(
        &self,
        messages: &[Message],
        options: &RenderOptions<'_>,
    ) -> Result<Rendered, TemplateError> {
        let name = match options.tools {
            Some(_) if self.sources.contains_key(TOOL_USE) => TOOL_USE,
            _ if self.sources.contains_key(DEFAULT) => DEFAULT,
            _ => self.sources.keys().next().map_or(DEFAULT, String::as_str),
        };
        let mut context = self.variables.clone();
        context.extend(
            options.variables.into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())),
        );
        context.insert("messages".into(), serde_json::to_value(messages).unwrap_or_default());
        context.insert("tools".into(), options.tools.cloned().unwrap_or_default());
        context.entry("documents").or_insert(Value::Null);
        context.insert("add_generation_prompt".into(), options.add_generation_prompt.into());
        let moment = self.day.unwrap_or_else(Moment::now);
        let mut context: BTreeMap<String, Jinja> =
            context.into_iter().map(|(name, value)| (name, Jinja::from(Serde(value)))).collect();
        context.insert(
            "strftime_now".into(),
            Jinja::from_function(move |format: String| moment.format(&format)),
        );
        let template = self.environment.get_template(name).map_err(|error| failure(&error))?;
        let text = template.render(Jinja::from_pairs(context)).map_err(|error| failure(&error))?;
        Ok(unmark(text, self.sources[name].contains("generation")))
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let mut syntax = SyntaxConfig::builder();
    syntax.trim_blocks(true).lstrip_blocks(true);
    environment.set_syntax(syntax.build().unwrap_or_default());
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(|out, _, value| out.write_str(&python::str(value)).map_err(Error::from));
    environment.add_filter("tojson", python::tojson);
    environment.add_filter("string", |value: Jinja| python::str(&value));
    environment.add_filter("generation_block", |text: String| format!("{OPEN}{text}{CLOSE}"));
    environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, "raised by the template").with_source(Raised(message)))
    });
    environment
}

/// What `raise_exception` was given.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn failure(error: &Error) -> TemplateError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(Raised(message)) = inner.downcast_ref() {
            return TemplateError::Refused { message: message.clone() };
        }
        cause = inner.source();
    }
    TemplateError::Render {
        line: error.line().unwrap_or(0),
        message: match error.detail() {
            Some(detail) => format!("{}: {detail}", error.kind()),
            None => error.kind().to_string(),
        },
    }
}

/// `{% generation %}` is a tag of transformers' own. A filter block has the same scope and the same rules for white
/// space, so each tag becomes one, with its trim marks.
fn with_generation_filter(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        out.push_str(&rest[..at]);
        let Some(end) = rest[at..].find("%}") else { break };
        let tag = &rest[at..at + end + 2];
        let inner = tag[2..tag.len() - 2].trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
        match inner {
            "generation" => out.push_str(&tag.replacen("generation", "filter generation_block", 1)),
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endfilter", 1)),
            _ => out.push_str(tag),
        }
        rest = &rest[at + end + 2..];
    }
    out.push_str(rest);
    out
}

/// Takes the marks out and remembers where they were.
fn unmark(text: String, marked: bool) -> Rendered {
    if !marked || !text.contains(OPEN) {
        return Rendered { text, generation: None };
    }
    let mut kept = String::with_capacity(text.len());
    let mut spans = Vec::new();
    let mut open = None;
    for letter in text.chars() {
        match letter {
            OPEN => open = Some(kept.len()),
            CLOSE => spans.extend(open.take().map(|start| start..kept.len())),
            _ => kept.push(letter),
        }
    }
    Rendered { text: kept, generation: Some(spans) }
}

fn named_sources(path: &Path, template: &Value) -> Result<BTreeMap<String, String>, TemplateError> {
    let form = |found: String| TemplateError::Form { path: path.to_path_buf(), found };
    match template {
        Value::String(source) => Ok(BTreeMap::from([(DEFAULT.to_string(), source.clone())])),
        Value::Array(list) => list
            .iter()
            .map(|entry| match (entry.get("name"), entry.get("template")) {
                (Some(Value::String(name)), Some(Value::String(source))) => {
                    Ok((name.clone(), source.clone()))
                }
                _ => Err(form(format!("the entry {entry}"))),
            })
            .collect(),
        other => Err(form(crate::rows::kind_of(other).to_string())),
    }
}

fn read_if_there(path: &Path) -> Result<Option<String>, TemplateError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TemplateError::Read { path: path.to_path_buf(), source }),
    }
}
