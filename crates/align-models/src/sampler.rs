//! From the scores of a row to its next token.

use std::fmt::Debug;

use align_core::number::{Fraction, NonNegative, Positive, UnitInterval};
use serde::{Deserialize, Serialize};

use crate::processors::{History, MinNewTokens, MinP, Processor, RepetitionPenalty, Temperature, TopK, TopP};
use crate::softmax::{Softmax, argmax};

/// Chooses the next token of a row. Implement it to sample in a way of your own.
pub trait Sampler: Debug + Send + Sync {
    /// Chooses from the scores of one row; `uniform` is the row's own draw on [0, 1).
    ///
    /// The same arguments give the same token: the only randomness is `uniform`.
    ///
    /// # Shapes
    /// `logits`: `[V]`, as the model gave them.
    fn sample(&self, logits: &[f32], history: History<'_>, uniform: f64) -> Drawn;
}

/// A token and how likely it was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawn {
    /// The token.
    pub token: u32,
    /// Its log-probability under the distribution it was drawn from, in nats; NaN if there was no such distribution.
    pub log_prob: f64,
}

/// Processors one after another, then a draw from what they leave.
///
/// The draw inverts the distribution function in token order, so a small change of the scores moves few draws.
#[derive(Debug)]
pub struct Chain {
    /// Applied in this order.
    pub processors: Vec<Box<dyn Processor>>,
    /// How the token is chosen from the processed scores.
    pub pick: Pick,
}

/// How a token is chosen from scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// The likeliest, of equals the one with the lowest id.
    Best,
    /// At random, in proportion to `exp(score)`.
    Draw,
}

impl Sampler for Chain {
    fn sample(&self, logits: &[f32], history: History<'_>, uniform: f64) -> Drawn {
        let mut processed = Vec::new();
        let scores = if self.processors.is_empty() {
            logits
        } else {
            processed.extend_from_slice(logits);
            self.processors.iter().for_each(|processor| processor.process(history, &mut processed));
            &processed
        };
        let softmax = Softmax::of(scores);
        if !softmax.is_finite() {
            return Drawn { token: 0, log_prob: f64::NAN };
        }
        let token = match self.pick {
            Pick::Best => argmax(scores),
            Pick::Draw => softmax.invert(scores, uniform),
        };
        Drawn { token, log_prob: softmax.log_probability(scores[token as usize]) }
    }
}

/// Always the likeliest token. Its log-probability is that of temperature 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Greedy;

impl Sampler for Greedy {
    fn sample(&self, logits: &[f32], history: History<'_>, uniform: f64) -> Drawn {
        Chain { processors: Vec::new(), pick: Pick::Best }.sample(logits, history, uniform)
    }
}

/// `log softmax(logits / temperature)` at one token, in nats: the distribution that a trainer at that temperature uses.
///
/// NaN if the scores are no distribution.
pub fn raw_log_prob(logits: &[f32], token: u32, temperature: f64) -> f64 {
    let temperature = temperature as f32;
    Softmax::of_scaled(logits, temperature).log_probability(logits[token as usize] / temperature)
}

/// How tokens are drawn and where responses end, as a recipe says it.
///
/// The values that switch a filter off are transformers': `top_k` 0, `top_p` 1, `min_p` 0, `repetition_penalty` 1. Filters
/// follow each other as in transformers: repetition penalty, minimum length, temperature, top-k, top-p, min-p.
///
/// For rollouts leave every filter off, or correct for it: the trainer's distribution is `softmax(logits / temperature)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingConfig {
    /// Divides logits. 0 takes the likeliest token; log-probabilities are then those of temperature 1.
    pub temperature: NonNegative,
    /// Keeps the k likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the smallest set of tokens with this mass; 1 keeps all.
    pub top_p: Fraction,
    /// Keeps tokens at least this many times as likely as the likeliest; 0 keeps all.
    pub min_p: UnitInterval,
    /// Divides (multiplies, if negative) the scores of tokens that occur in prompt or response; 1 does nothing.
    pub repetition_penalty: Positive,
    /// The longest response. 256, as TRL's `max_completion_length`.
    pub max_new_tokens: usize,
    /// The shortest response: before that, stop tokens are removed and stop strings wait.
    pub min_new_tokens: usize,
    /// A response ends with the first of these, and keeps it.
    pub stop_token_ids: Vec<u32>,
    /// A response ends with the token that completes one of these. The tokens are kept, the text is cut before the string.
    pub stop_strings: Vec<String>,
    /// States that no stop is wanted: every response has `max_new_tokens` tokens. Without it, having no stop is an error.
    pub never_stop: bool,
}

impl Default for SamplingConfig {
    fn default() -> Self {
        Self {
            temperature: NonNegative::literal(1.0),
            top_k: 0,
            top_p: Fraction::literal(1.0),
            min_p: UnitInterval::literal(0.0),
            repetition_penalty: Positive::literal(1.0),
            max_new_tokens: 256,
            min_new_tokens: 0,
            stop_token_ids: Vec::new(),
            stop_strings: Vec::new(),
            never_stop: false,
        }
    }
}

/// A setting of [`SamplingConfig`] that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SamplingError {
    /// Responses without tokens.
    #[error("`max_new_tokens` is 0, expected at least 1")]
    NoTokens,
    /// More tokens asked for at least than at most.
    #[error("`min_new_tokens` is {minimum}, expected at most `max_new_tokens`, {maximum}")]
    Lengths {
        /// `min_new_tokens`.
        minimum: usize,
        /// `max_new_tokens`.
        maximum: usize,
    },
    /// Nothing would ever end a response.
    #[error(
        "no stop token: expected `stop_token_ids` or `stop_strings`, or `never_stop = true` if every response is to have `max_new_tokens` tokens"
    )]
    NoStop,
    /// Stops together with `never_stop`.
    #[error(
        "`never_stop` is true, expected no stops beside it, found {tokens} stop tokens and {strings} stop strings"
    )]
    Contradiction {
        /// How many stop tokens.
        tokens: usize,
        /// How many stop strings.
        strings: usize,
    },
    /// An empty string is contained in every text.
    #[error("stop string {index} is empty, expected at least one character")]
    EmptyStopString {
        /// Which one.
        index: usize,
    },
}

impl SamplingConfig {
    /// How rollouts are drawn: ended by these stops, and where there are none by length alone.
    pub fn for_rollouts(
        temperature: Positive,
        top_p: Fraction,
        max_new_tokens: usize,
        stop_token_ids: &[u32],
        stop_strings: &[String],
    ) -> Self {
        Self {
            temperature: NonNegative::literal(temperature.get()),
            top_p,
            max_new_tokens,
            stop_token_ids: stop_token_ids.to_vec(),
            stop_strings: stop_strings.to_vec(),
            never_stop: stop_token_ids.is_empty() && stop_strings.is_empty(),
            ..Self::default()
        }
    }

    /// Checks what the types of the fields cannot.
    ///
    /// # Errors
    /// [`SamplingError`] names the first setting that is wrong.
    pub fn check(&self) -> Result<(), SamplingError> {
        if self.max_new_tokens == 0 {
            return Err(SamplingError::NoTokens);
        }
        if self.min_new_tokens > self.max_new_tokens {
            return Err(SamplingError::Lengths {
                minimum: self.min_new_tokens,
                maximum: self.max_new_tokens,
            });
        }
        if let Some(index) = self.stop_strings.iter().position(String::is_empty) {
            return Err(SamplingError::EmptyStopString { index });
        }
        let (tokens, strings) = (self.stop_token_ids.len(), self.stop_strings.len());
        match (self.never_stop, tokens + strings > 0) {
            (false, false) => Err(SamplingError::NoStop),
            (true, true) => Err(SamplingError::Contradiction { tokens, strings }),
            _ => Ok(()),
        }
    }

    /// The sampler these settings describe; a filter that is off is not in it.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn sampler(&self) -> Result<Chain, SamplingError> {
        self.check()?;
        let mut processors: Vec<Box<dyn Processor>> = Vec::new();
        if self.repetition_penalty.get() != 1.0 {
            processors.push(Box::new(RepetitionPenalty(self.repetition_penalty.get())));
        }
        if self.min_new_tokens > 0 && !self.stop_token_ids.is_empty() {
            processors.push(Box::new(MinNewTokens {
                count: self.min_new_tokens,
                stop_token_ids: self.stop_token_ids.clone(),
            }));
        }
        if self.temperature.get() == 0.0 {
            return Ok(Chain { processors, pick: Pick::Best });
        }
        if self.temperature.get() != 1.0 {
            processors.push(Box::new(Temperature(self.temperature.get())));
        }
        if self.top_k > 0 {
            processors.push(Box::new(TopK(self.top_k)));
        }
        if self.top_p.get() < 1.0 {
            processors.push(Box::new(TopP(self.top_p.get())));
        }
        if self.min_p.get() > 0.0 {
            processors.push(Box::new(MinP(self.min_p.get())));
        }
        Ok(Chain { processors, pick: Pick::Draw })
    }

    /// The temperature of the raw distribution: `temperature`, or 1 where that is 0.
    pub fn raw_temperature(&self) -> f64 {
        if self.temperature.get() == 0.0 { 1.0 } else { self.temperature.get() }
    }

    /// True if tokens are drawn from `softmax(logits / temperature)` itself, so that sampled and raw log-probabilities agree.
    pub fn is_unfiltered(&self) -> bool {
        self.temperature.get() > 0.0
            && self.top_k == 0
            && self.top_p.get() == 1.0
            && self.min_p.get() == 0.0
            && self.repetition_penalty.get() == 1.0
            && self.min_new_tokens == 0
    }
}
