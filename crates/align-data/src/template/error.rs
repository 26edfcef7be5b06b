//! What can go wrong with a chat template.

use std::path::PathBuf;

/// A template that cannot be read or that refuses a dialogue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The template's file cannot be read.
    #[error("cannot read the chat template {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// `chat_template` in the tokenizer's configuration is neither text nor a list of named templates.
    #[error("{}: expected `chat_template` to be text or a list of `{{name, template}}`, found {found}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: String,
    },
    /// The template is not valid Jinja.
    #[error("chat template `{name}`, line {line}: {message}")]
    Syntax {
        /// The template's name.
        name: String,
        /// Line, from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// The template itself refused the dialogue (`raise_exception`).
    #[error("the chat template refuses this dialogue: {message}")]
    Refused {
        /// The template's words.
        message: String,
    },
    /// The template failed.
    #[error("the chat template failed at line {line}: {message}")]
    Render {
        /// Line, from 1.
        line: usize,
        /// What went wrong.
        message: String,
    },
    /// There is no built-in template of that name.
    #[error("there is no built-in chat template `{name}`; expected one of {known}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
}
