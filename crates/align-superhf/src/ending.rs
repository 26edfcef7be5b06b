//! Where a sampled response ends, token by token.
//!
//! What is learnt are the tokens that were drawn: nothing is decoded, trimmed and encoded again, which could move the borders
//! between tokens. Text only says where to cut.

use align_models::{Detokenize, FinishReason, Generated, cut_at_stop_string};

use crate::config::SuperHfConfig;

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself: with a stop token or a stop string.
    Stop,
    /// It went on with a simulated next turn and was cut there.
    Turn,
    /// At the longest length: what would have ended it is not known, and no end is learnt.
    Length,
}

/// A response as it is scored and learnt.
pub(crate) struct Ended {
    /// The answer's tokens, and its stop token if it has one.
    pub(crate) response: Vec<u32>,
    /// Tokens of the answer alone.
    pub(crate) content_length: usize,
    pub(crate) ending: Ending,
    /// The answer as text, without white space around it.
    pub(crate) text: Option<String>,
}

/// Ends a response: before a simulated next turn, before its stop string, or where it ended by itself.
///
/// A stop token stands at the end of whatever ended before the longest length, the first of `stop_token_ids` where none was
/// drawn. Without stop tokens a stop string is kept, for it is the end that can be learnt.
pub(crate) fn end(
    generated: &Generated,
    config: &SuperHfConfig,
    detokenize: Option<&dyn Detokenize>,
) -> Ended {
    let drawn = &generated.response;
    let (content, ending) = match generated.finish_reason {
        FinishReason::Stop(_) => (&drawn[..drawn.len() - 1], Ending::Stop),
        FinishReason::StopString(_) => (&drawn[..], Ending::Stop),
        FinishReason::Length => (&drawn[..], Ending::Length),
    };
    let as_drawn = |text| Ended { response: drawn.clone(), content_length: content.len(), ending, text };
    let Some(detokenize) = detokenize else { return as_drawn(None) };

    let text = detokenize.text(content);
    let stop_string = matches!(generated.finish_reason, FinishReason::StopString(_))
        .then(|| cut_at_stop_string(&text, &config.stop_strings).len());
    let turn = config.trim.cut(&text);
    let (place, ending) = match (turn, stop_string) {
        (Some(turn), stop) if stop.is_none_or(|stop| turn < stop) => (turn, Ending::Turn),
        (_, Some(stop)) => (stop, Ending::Stop),
        (_, None) => return as_drawn(Some(text.trim().to_owned())),
    };
    let content_length = tokens_within(content, &text[..place], detokenize);
    let mut response = content[..content_length].to_vec();
    match (ending, config.stop_token_ids.first()) {
        (_, Some(&stop)) => response.push(stop),
        (Ending::Stop, None) => response = drawn.clone(),
        _ => {}
    }
    Ended { response, content_length, ending, text: Some(text[..place].trim().to_owned()) }
}

/// How many of the first tokens say no more than `text`, white space at its end left out.
fn tokens_within(ids: &[u32], text: &str, detokenize: &dyn Detokenize) -> usize {
    let wanted = text.trim_end().len();
    let says = |count: usize| detokenize.text(&ids[..count]).trim_end().len();
    // The longest prefix that says no more, then the shortest that says as much: tokens of white space go.
    let longest = (0..=ids.len()).rev().find(|&count| says(count) <= wanted).unwrap_or(0);
    let said = says(longest);
    (0..=longest).find(|&count| says(count) >= said).unwrap_or(longest)
}
