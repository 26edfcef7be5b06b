//! Loss masks of whole dialogues.

use std::ops::Range;

use serde_json::Value;

use super::{EncodeError, Encoder, Example, beginning, not_a_prefix};
use crate::{
    rows::Message,
    template::{RenderOptions, Rendered},
};

impl Encoder {
    /// Encodes a dialogue: every assistant turn counts, up to and with its stop token.
    pub(super) fn encode_dialogue(
        &self,
        messages: &[Message],
        tools: Option<&Value>,
    ) -> Result<Example, EncodeError> {
        let template = self.template.as_ref().ok_or(EncodeError::NoTemplate)?;
        let render = |messages: &[Message], add_generation_prompt| {
            template.render_marked(messages, &RenderOptions { add_generation_prompt, tools, variables: None })
        };
        let Rendered { text, generation } = render(messages, false)?;
        let spans = match generation {
            Some(spans) => spans,
            None => assistant_spans(messages, &text, |messages, generate| {
                Ok(render(messages, generate).map(|rendered| rendered.text)?)
            })?,
        };
        let encoding = self.tokenizer.encode_with_prefix(&text)?;
        let mut example = Example { loss_mask: vec![false; encoding.ids.len()], ids: encoding.ids };
        for span in &spans {
            self.mask_span(&mut example, &encoding.offsets, span)?;
        }
        let stops = |example: &Example| {
            example.ids.iter().zip(&example.loss_mask).any(|(id, counts)| *counts && self.stop.contains(id))
        };
        if !stops(&example) {
            // The template ends turns with nothing: the last one ends with the stop token, if nothing follows it.
            let ends_the_text = spans.last().is_some_and(|span| text[span.end..].trim().is_empty());
            let stop =
                self.stop.first().copied().filter(|_| ends_the_text).ok_or(EncodeError::NoStopToken)?;
            example.ids.push(stop);
            example.loss_mask.push(true);
        }
        self.fit_example(example, &text)
    }

    /// Marks the tokens that begin inside a span, up to the last stop token if only white space follows it there.
    fn mask_span(
        &self,
        example: &mut Example,
        offsets: &[(usize, usize)],
        span: &Range<usize>,
    ) -> Result<(), EncodeError> {
        let inside: Vec<usize> = offsets
            .iter()
            .enumerate()
            .filter(|(_, (start, end))| start < end && span.contains(start))
            .map(|(index, _)| index)
            .collect();
        let ids: Vec<u32> = inside.iter().map(|&index| example.ids[index]).collect();
        let learnt = match ids.iter().rposition(|id| self.stop.contains(id)) {
            Some(last) if self.is_blank(&ids[last + 1..])? => last + 1,
            _ => ids.len(),
        };
        for &index in &inside[..learnt] {
            example.loss_mask[index] = true;
        }
        Ok(())
    }
}

/// Where the assistant's turns stand in the rendered dialogue, by rendering its beginnings.
///
/// A turn begins where the dialogue before it, with a generation prompt, ends; it ends where the dialogue up to it
/// ends. Templates that render old turns otherwise than the last one (Qwen 3 drops old reasoning) break the second
/// rule; there the turn's own words are looked for, and what follows them up to the next turn is left out but for a
/// special token.
fn assistant_spans(
    messages: &[Message],
    text: &str,
    render: impl Fn(&[Message], bool) -> Result<String, EncodeError>,
) -> Result<Vec<Range<usize>>, EncodeError> {
    let mut spans = Vec::new();
    for (turn, message) in messages.iter().enumerate().filter(|(_, message)| message.is_assistant()) {
        // Two turns of the assistant in a row: the second follows the first without a generation prompt.
        let before = render(&messages[..turn], true)?;
        let start = match text.starts_with(&before) {
            true => before.len(),
            false => {
                let before = render(&messages[..turn], false)?;
                match text.starts_with(&before) {
                    true => before.len(),
                    false => return Err(not_a_prefix(turn, &before, text)),
                }
            }
        };
        let upto = render(&messages[..=turn], false)?;
        let end = match text.starts_with(&upto) {
            true => upto.len(),
            false => {
                let words = message.content.trim();
                let Some(at) = text[start..].find(words).filter(|_| !words.is_empty()) else {
                    return Err(EncodeError::NotAPrefix {
                        turn,
                        expected: beginning(words),
                        found: beginning(&text[start..]),
                    });
                };
                let after = start + at + words.len();
                // What the template writes after the words, as far as both renderings agree.
                let tail = upto.rfind(words).map_or("", |at| &upto[at + words.len()..]);
                let same = text[after..].chars().zip(tail.chars()).take_while(|(a, b)| a == b);
                after + same.map(|(letter, _)| letter.len_utf8()).sum::<usize>()
            }
        };
        spans.push(start..end);
    }
    Ok(spans)
}
