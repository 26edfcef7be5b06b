//! Where a response ends.

use serde::{Deserialize, Serialize};

use crate::sampler::SamplingConfig;

/// Turns token ids into text, so that stop strings can be looked for. Every `Fn(&[u32]) -> String` is one.
pub trait Detokenize: Send + Sync {
    /// The text of these tokens, without special tokens.
    fn text(&self, ids: &[u32]) -> String;
}

impl<F: Fn(&[u32]) -> String + Send + Sync> Detokenize for F {
    fn text(&self, ids: &[u32]) -> String {
        self(ids)
    }
}

/// Why a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// With this stop token, which the response keeps.
    Stop(u32),
    /// With the token that completed a stop string; the number is its place in the configured list.
    StopString(usize),
    /// With `max_new_tokens` tokens, or at the end of the model's context.
    Length,
}

impl FinishReason {
    /// One word, as people's scripts expect it: `stop`, `stop_string` or `length`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Stop(_) => "stop",
            Self::StopString(_) => "stop_string",
            Self::Length => "length",
        }
    }

    /// False for a response that was cut off.
    pub fn stopped(self) -> bool {
        self != Self::Length
    }
}

/// Whether a response ends with its last token, and why. A stop token goes before a stop string, a stop string before the length.
///
/// `limit` is the longest response this row may have.
pub(crate) fn finish_reason(
    response: &[u32],
    config: &SamplingConfig,
    detokenize: Option<&dyn Detokenize>,
    limit: usize,
) -> Option<FinishReason> {
    let last = *response.last()?;
    if response.len() >= config.min_new_tokens {
        if config.stop_token_ids.contains(&last) {
            return Some(FinishReason::Stop(last));
        }
        if let Some(detokenize) = detokenize.filter(|_| !config.stop_strings.is_empty()) {
            // The whole response is decoded: the text of a tail alone can differ from the tail of the text.
            if let Some((_, string)) = first_stop_string(&detokenize.text(response), &config.stop_strings) {
                return Some(FinishReason::StopString(string));
            }
        }
    }
    (response.len() >= limit).then_some(FinishReason::Length)
}

/// The text before the first stop string; all of it if none occurs.
pub fn cut_at_stop_string<'a>(text: &'a str, stop_strings: &[String]) -> &'a str {
    first_stop_string(text, stop_strings).map_or(text, |(start, _)| &text[..start])
}

/// Where the earliest stop string starts and which it is; of those that start together, the first configured.
fn first_stop_string(text: &str, stop_strings: &[String]) -> Option<(usize, usize)> {
    stop_strings
        .iter()
        .enumerate()
        .filter_map(|(index, string)| text.find(string.as_str()).map(|start| (start, index)))
        .min()
}
