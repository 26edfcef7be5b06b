//! Rows to token ids: the one place where templates, BOS, stop tokens and loss masks are decided.
//!
//! - A prompt is rendered with the beginning of the assistant's turn and tokenised; a response is what the rendered
//!   dialogue adds to that. The ids of the prompt are the same in training and in generation.
//! - BOS stands once: from the template if it writes it, else by the tokenizer's own rule
//!   ([`Tokenizer::encode_with_prefix`]).
//! - A response ends with a stop token, which counts in the loss. White space a template puts after it is not learnt,
//!   because nobody generates it.
//! - Nothing is padded here. Lengths say what is padding, so padding may share its id with the stop token.

mod error;
mod spans;

use std::sync::Arc;

pub use self::error::EncodeError;
use crate::{
    rows::{DemonstrationRow, Dialogue, Message, PreferenceRow, Role},
    template::{ChatTemplate, RenderOptions},
    tokenizer::{SpecialTokens, Tokenizer},
};

/// What happens to rows longer than the model's context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlong {
    /// The row is an error: nothing is lost silently.
    #[default]
    Error,
    /// The row is passed over and counted.
    Drop,
    /// The end of the response is cut off, stop token included; a prompt too long on its own is passed over.
    CutResponse,
}

/// What happens to a prompt that is text when the model has a chat template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlainPrompts {
    /// It becomes the user's turn.
    #[default]
    UserTurn,
    /// It is tokenised as it stands.
    AsText,
}

/// How rows are encoded.
#[derive(Clone, Debug, Default)]
pub struct EncodeOptions {
    /// At most this many tokens of prompt and response together: the model's context or less.
    pub max_length: Option<usize>,
    /// At most this many tokens of the prompt.
    pub max_prompt_length: Option<usize>,
    /// What happens to longer rows.
    pub overlong: Overlong,
    /// What happens to prompts that are text.
    pub plain_prompts: PlainPrompts,
}

/// A row to imitate.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Token ids, BOS and stop token included.
    pub ids: Vec<u32>,
    /// Of each token, whether predicting it counts.
    pub loss_mask: Vec<bool>,
}

/// Token ids of a question and an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptResponse {
    /// What is given.
    pub prompt: Vec<u32>,
    /// What is produced, stop token included.
    pub response: Vec<u32>,
}

/// Token ids of a labelled pair.
#[derive(Clone, Debug, PartialEq)]
pub struct PreferenceExample {
    /// What is given to both.
    pub prompt: Vec<u32>,
    /// The preferred response.
    pub chosen: Vec<u32>,
    /// The other one.
    pub rejected: Vec<u32>,
    /// By how much, in units of reward.
    pub margin: f64,
}

/// Encoded rows, and what was passed over.
#[derive(Clone, Debug)]
pub struct Encoded<T> {
    /// The encoded rows.
    pub examples: Vec<T>,
    /// Of each, the index of its row.
    pub indices: Vec<usize>,
    /// How many rows were too long and passed over.
    pub dropped: usize,
}

/// Turns rows into token ids for one model.
#[derive(Clone)]
pub struct Encoder {
    tokenizer: Arc<dyn Tokenizer>,
    template: Option<ChatTemplate>,
    options: EncodeOptions,
    stop: Vec<u32>,
    end_of_turn: Option<u32>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder")
            .field("options", &self.options)
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}

impl Encoder {
    /// Puts a tokenizer and perhaps a template together.
    pub fn new(
        tokenizer: Arc<dyn Tokenizer>,
        template: Option<ChatTemplate>,
        options: EncodeOptions,
    ) -> Self {
        let end_of_turn = template.as_ref().and_then(|template| end_of_turn(&*tokenizer, template));
        let mut stop = tokenizer.special().stop.clone();
        stop.extend(end_of_turn.filter(|id| !stop.contains(id)));
        Self { tokenizer, template, options, stop, end_of_turn }
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &dyn Tokenizer {
        &*self.tokenizer
    }

    /// The template, if the model has one.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    /// How rows are encoded.
    pub fn options(&self) -> &EncodeOptions {
        &self.options
    }

    /// Ids that end a response: the tokenizer's and the configuration's, and what the template ends turns with.
    pub fn stop_ids(&self) -> &[u32] {
        &self.stop
    }

    /// Encodes a prompt, ending where the response begins.
    ///
    /// # Errors
    /// When it is empty, too long, or the template refuses it.
    pub fn encode_prompt(&self, prompt: &Dialogue) -> Result<Vec<u32>, EncodeError> {
        if prompt.is_empty() {
            return Err(EncodeError::EmptyPrompt);
        }
        let text = match self.as_turns(prompt)? {
            Some(messages) => self.render(&messages, true)?,
            None => prompt.plain_text(),
        };
        let ids = self.tokenizer.encode_with_prefix(&text)?.ids;
        self.check_prompt(&ids, &text)?;
        Ok(ids)
    }

    /// Encodes a question and its answer.
    ///
    /// # Errors
    /// When one is empty, they are too long, nothing can end the response, or the template refuses them.
    pub fn encode_completion(
        &self,
        prompt: &Dialogue,
        completion: &Dialogue,
    ) -> Result<PromptResponse, EncodeError> {
        if prompt.is_empty() {
            return Err(EncodeError::EmptyPrompt);
        }
        let (head, tail) = match self.as_turns(prompt)? {
            Some(asked) => {
                let head = self.render(&asked, true)?;
                let answered: Vec<Message> =
                    asked.iter().cloned().chain(completion.clone().into_messages(Role::Assistant)).collect();
                let whole = self.render(&answered, false)?;
                match whole.strip_prefix(head.as_str()) {
                    Some(tail) => (head.clone(), tail.to_string()),
                    None => return Err(not_a_prefix(asked.len(), &head, &whole)),
                }
            }
            None => (prompt.plain_text(), completion.plain_text()),
        };
        let prompt = self.tokenizer.encode_with_prefix(&head)?.ids;
        self.check_prompt(&prompt, &head)?;
        let whole = self.tokenizer.encode_with_prefix(&format!("{head}{tail}"))?.ids;
        let response = match whole.strip_prefix(prompt.as_slice()) {
            Some(response) => response.to_vec(),
            // A token reaches over the boundary; generation never makes it, so the response is tokenised alone.
            None => self.tokenizer.encode(&tail)?.ids,
        };
        let mut response = self.ended(response)?;
        if response.iter().all(|id| self.stop.contains(id)) {
            return Err(EncodeError::EmptyResponse { prompt: ending(&head) });
        }
        self.fit(prompt.len(), &mut response, &head)?;
        Ok(PromptResponse { prompt, response })
    }

    /// Encodes a labelled pair.
    ///
    /// # Errors
    /// As [`encode_completion`](Self::encode_completion), and when both sides have the same tokens.
    pub fn encode_preference(&self, row: &PreferenceRow) -> Result<PreferenceExample, EncodeError> {
        let chosen = self.encode_completion(&row.prompt, &row.chosen)?;
        let rejected = self.encode_completion(&row.prompt, &row.rejected)?;
        if chosen.response == rejected.response {
            let prompt = ending(&row.prompt.plain_text());
            return Err(EncodeError::SameSides { tokens: chosen.response.len(), prompt });
        }
        Ok(PreferenceExample {
            prompt: chosen.prompt,
            chosen: chosen.response,
            rejected: rejected.response,
            margin: row.margin,
        })
    }

    /// Encodes a row to imitate: the loss is on what the assistant says, its stop tokens included; all of a plain text
    /// counts but BOS.
    ///
    /// # Errors
    /// When the row is too long, nothing can end a response, or the template refuses it.
    pub fn encode_sft(&self, row: &DemonstrationRow) -> Result<Example, EncodeError> {
        match row {
            DemonstrationRow::Completion { prompt, completion } => {
                let PromptResponse { prompt, response } = self.encode_completion(prompt, completion)?;
                let mut loss_mask = vec![false; prompt.len()];
                loss_mask.resize(prompt.len() + response.len(), true);
                Ok(Example { ids: [prompt, response].concat(), loss_mask })
            }
            DemonstrationRow::Messages { messages, tools } => self.encode_dialogue(messages, tools.as_ref()),
            DemonstrationRow::Text { text } => {
                let mut ids = self.tokenizer.encode_with_prefix(text)?.ids;
                let prefix = self.tokenizer.special().prefix.len().min(ids.len());
                if let Some(eos) = self.tokenizer.special().eos.filter(|eos| ids.last() != Some(eos)) {
                    ids.push(eos);
                }
                let mut loss_mask = vec![true; ids.len()];
                loss_mask[..prefix].fill(false);
                self.fit_example(Example { ids, loss_mask }, text)
            }
        }
    }

    /// Encodes many rows; those that are too long are passed over and counted unless they are errors.
    ///
    /// # Errors
    /// The first row's that fails otherwise.
    pub fn encode_all<'a, R: 'a, T>(
        &self,
        rows: impl IntoIterator<Item = &'a R>,
        encode: impl Fn(&Self, &'a R) -> Result<T, EncodeError>,
    ) -> Result<Encoded<T>, EncodeError> {
        let mut encoded = Encoded { examples: Vec::new(), indices: Vec::new(), dropped: 0 };
        for (index, row) in rows.into_iter().enumerate() {
            match encode(self, row) {
                Ok(example) => {
                    encoded.examples.push(example);
                    encoded.indices.push(index);
                }
                Err(error) if error.is_overlong() && self.options.overlong != Overlong::Error => {
                    encoded.dropped += 1
                }
                Err(error) => return Err(error),
            }
        }
        Ok(encoded)
    }

    /// The tokenizer, for whoever needs it after the encoder is gone.
    pub fn shared_tokenizer(&self) -> Arc<dyn Tokenizer> {
        self.tokenizer.clone()
    }

    /// The text of a response, without special tokens.
    ///
    /// # Errors
    /// When the tokenizer cannot put the tokens together.
    pub fn decode(&self, ids: &[u32]) -> Result<String, EncodeError> {
        Ok(self.tokenizer.decode(ids, SpecialTokens::Skip)?)
    }

    /// The turns a template renders, or `None` for text that is tokenised as it stands.
    fn as_turns(&self, prompt: &Dialogue) -> Result<Option<Vec<Message>>, EncodeError> {
        match (prompt, &self.template) {
            (Dialogue::Messages(_), None) => Err(EncodeError::NoTemplate),
            (Dialogue::Messages(messages), Some(_)) => Ok(Some(messages.clone())),
            (Dialogue::Text(text), Some(_)) if self.options.plain_prompts == PlainPrompts::UserTurn => {
                Ok(Some(vec![Message::new(Role::User, text.clone())]))
            }
            (Dialogue::Text(_), _) => Ok(None),
        }
    }

    fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, EncodeError> {
        let template = self.template.as_ref().ok_or(EncodeError::NoTemplate)?;
        Ok(template.render(messages, &RenderOptions { add_generation_prompt, ..Default::default() })?)
    }

    /// The response up to its last stop token, if only white space follows; else with one at its end.
    fn ended(&self, mut response: Vec<u32>) -> Result<Vec<u32>, EncodeError> {
        let Some(stop) = self.end_of_turn.filter(|_| self.template.is_some()).or(self.stop.first().copied())
        else {
            return Err(EncodeError::NoStopToken);
        };
        if let Some(last) = response.iter().rposition(|id| self.stop.contains(id))
            && self.is_blank(&response[last + 1..])?
        {
            response.truncate(last + 1);
        } else {
            response.push(stop);
        }
        Ok(response)
    }

    fn is_blank(&self, ids: &[u32]) -> Result<bool, EncodeError> {
        Ok(ids.is_empty() || self.tokenizer.decode(ids, SpecialTokens::Keep)?.trim().is_empty())
    }

    fn check_prompt(&self, ids: &[u32], text: &str) -> Result<(), EncodeError> {
        if ids.is_empty() {
            return Err(EncodeError::EmptyPrompt);
        }
        // A response needs at least one token.
        let room = self.options.max_length.map(|limit| limit.saturating_sub(1));
        let limit = [self.options.max_prompt_length, room].into_iter().flatten().min();
        match limit {
            Some(limit) if ids.len() > limit => {
                Err(EncodeError::PromptTooLong { tokens: ids.len(), limit, beginning: beginning(text) })
            }
            _ => Ok(()),
        }
    }

    fn fit(&self, prompt: usize, response: &mut Vec<u32>, text: &str) -> Result<(), EncodeError> {
        let tokens = prompt + response.len();
        match self.options.max_length {
            Some(limit) if tokens > limit && self.options.overlong == Overlong::CutResponse => {
                response.truncate(limit - prompt);
                Ok(())
            }
            Some(limit) if tokens > limit => {
                Err(EncodeError::TooLong { tokens, limit, beginning: beginning(text) })
            }
            _ => Ok(()),
        }
    }

    fn fit_example(&self, mut example: Example, text: &str) -> Result<Example, EncodeError> {
        let tokens = example.ids.len();
        let Some(limit) = self.options.max_length.filter(|limit| tokens > *limit) else { return Ok(example) };
        let keeps_a_response = example.loss_mask[..limit].contains(&true);
        if self.options.overlong != Overlong::CutResponse || !keeps_a_response {
            return Err(EncodeError::TooLong { tokens, limit, beginning: beginning(text) });
        }
        example.ids.truncate(limit);
        example.loss_mask.truncate(limit);
        Ok(example)
    }
}

/// The special token a template writes right after the assistant's words, if it writes one.
fn end_of_turn(tokenizer: &dyn Tokenizer, template: &ChatTemplate) -> Option<u32> {
    // A word no template contains.
    const WORD: &str = "zqxj";
    let dialogue = [Message::new(Role::User, "a"), Message::new(Role::Assistant, WORD)];
    let text = template.render(&dialogue, &RenderOptions::default()).ok()?;
    let ids = tokenizer.encode(&text[text.rfind(WORD)? + WORD.len()..]).ok()?.ids;
    let special = ids.iter().rposition(|id| tokenizer.is_special(*id))?;
    let rest = tokenizer.decode(&ids[special + 1..], SpecialTokens::Keep).ok()?;
    rest.trim().is_empty().then_some(ids[special])
}

fn not_a_prefix(turn: usize, head: &str, whole: &str) -> EncodeError {
    let same: usize = head
        .chars()
        .zip(whole.chars())
        .take_while(|(a, b)| a == b)
        .map(|(letter, _)| letter.len_utf8())
        .sum();
    EncodeError::NotAPrefix { turn, expected: beginning(&head[same..]), found: beginning(&whole[same..]) }
}

const SHOWN: usize = 60;

fn beginning(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

fn ending(text: &str) -> String {
    let skip = text.chars().count().saturating_sub(SHOWN);
    text.chars().skip(skip).collect()
}
