//! Why a row cannot be encoded.

use crate::{template::TemplateError, tokenizer::TokenizerError};

/// A row that does not become token ids.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The template refused or failed.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The tokenizer failed.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The row is a dialogue and there is no template.
    #[error(
        "the row is a dialogue and the model has no chat template; expected `chat_template.jinja` or `chat_template` \
         in `tokenizer_config.json`, or a built-in one (`chatml`, `zephyr`, `hh`)"
    )]
    NoTemplate,
    /// Nothing is asked.
    #[error("the prompt is empty: expected at least one token before the response, found none")]
    EmptyPrompt,
    /// Nothing is answered.
    #[error("the response is empty: expected at least one token after {prompt:?}, found none")]
    EmptyResponse {
        /// The end of the prompt.
        prompt: String,
    },
    /// The prompt leaves no room.
    #[error("the prompt has {tokens} tokens and at most {limit} fit; it begins {beginning:?}")]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// How many fit.
        limit: usize,
        /// How it begins.
        beginning: String,
    },
    /// Prompt and response together do not fit.
    #[error("prompt and response have {tokens} tokens and at most {limit} fit; the row begins {beginning:?}")]
    TooLong {
        /// Tokens of both.
        tokens: usize,
        /// How many fit.
        limit: usize,
        /// How the row begins.
        beginning: String,
    },
    /// Nothing tells the model to stop.
    #[error(
        "no stop token: expected `eos_token` in `tokenizer_config.json`, `eos_token_id` in `generation_config.json`, \
         or a template that ends turns with a special token; found none, so a model could never learn to stop"
    )]
    NoStopToken,
    /// The template renders a dialogue's beginning in another way than the dialogue.
    #[error(
        "the template does not render turn {turn} where the dialogue up to it ends: expected {expected:?}, found \
         {found:?}; give it `{{% generation %}}` blocks or use prompt and completion"
    )]
    NotAPrefix {
        /// Index of the turn.
        turn: usize,
        /// The end of the rendered beginning.
        expected: String,
        /// What stands there in the rendered dialogue.
        found: String,
    },
    /// Both sides of a pair have the same tokens.
    #[error(
        "chosen and rejected have the same {tokens} tokens after {prompt:?}: expected two different responses"
    )]
    SameSides {
        /// Tokens of each side.
        tokens: usize,
        /// The end of the prompt.
        prompt: String,
    },
}

impl EncodeError {
    /// Whether the row is merely too long, so that [`Overlong::Drop`](super::Overlong::Drop) passes over it.
    pub fn is_overlong(&self) -> bool {
        matches!(self, Self::PromptTooLong { .. } | Self::TooLong { .. })
    }
}
