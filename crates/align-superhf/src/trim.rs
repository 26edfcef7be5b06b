//! Where an answer ends and a simulated next turn begins.
//!
//! A model trained on dialogues writes the next question too, unless something stops it. What it wrote after its answer
//! is neither scored nor learnt.
//!
//! # Departure from the paper
//! The released code cuts at the regular expression `\n\n[^:]+:|Human|Assistant`: at a blank line if there is a colon
//! anywhere later, and at two bare words. It cuts " The Human body has 206 bones." to "The", and an answer of several
//! paragraphs at the first of them if a later one holds a colon. [`TurnMarkers::default`] cuts at turn markers at the
//! start of a line, and at markers of chat templates; [`TurnMarkers::released`] reproduces what was published.
//!
//! # Source
//! Mukobi et al. 2023, <https://arxiv.org/abs/2310.16763>; released code, `src/superhf/constants.py`, "medium" pattern.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A marker of no characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("expected a turn marker of at least one character, found none: it would cut every answer to nothing")]
pub struct EmptyMarker;

/// What a turn begins with: at least one character.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Marker(String);

impl Marker {
    /// The marker as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Marker {
    type Error = EmptyMarker;

    fn try_from(marker: String) -> Result<Self, EmptyMarker> {
        if marker.is_empty() { Err(EmptyMarker) } else { Ok(Self(marker)) }
    }
}

impl From<Marker> for String {
    fn from(marker: Marker) -> Self {
        marker.0
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// What shows that a next turn begins. The first of all signs decides.
///
/// ```toml
/// trim = { line_start = ["Question:", "Answer:"] }
/// ```
///
/// # Examples
/// ```
/// use align_superhf::trim::TurnMarkers;
///
/// let markers = TurnMarkers::default();
/// assert_eq!(markers.trim(" Sure, here it is.\n\nHuman: and now?"), "Sure, here it is.");
/// assert_eq!(markers.trim(" The Human body has 206 bones."), "The Human body has 206 bones.");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TurnMarkers {
    /// Markers at the start of a line, with or without white space before them; upper and lower case are told apart. The
    /// start of the text counts as the start of a line: an answer that begins with a turn is empty.
    ///
    /// By default the names of the speakers in dialogues, plain or as headings. "A:" and the like are not among them,
    /// since lists and examples in honest answers have such lines.
    pub line_start: Vec<Marker>,
    /// Markers anywhere in the text.
    ///
    /// By default those of common chat templates, which stand right after the answer's last word and which nobody writes
    /// by chance. They are seen only where a model spells them: as single special tokens they are not decoded.
    pub anywhere: Vec<Marker>,
    /// Whether a blank line followed by anything up to a colon is a sign (`\n\n[^:]+:`). Off by default: it ends an
    /// answer at its first paragraph if any later one holds a colon.
    pub blank_line_and_colon: bool,
}

impl Default for TurnMarkers {
    fn default() -> Self {
        Self {
            line_start: markers(&[
                "Human:",
                "User:",
                "Assistant:",
                "### Human:",
                "### User:",
                "### Assistant:",
                "### Instruction:",
            ]),
            anywhere: markers(&[
                "<|user|>",
                "<|assistant|>",
                "<|system|>",
                "<|im_start|>",
                "<|im_end|>",
                "<|start_header_id|>",
                "<|eot_id|>",
                "<|end|>",
                "<|endoftext|>",
                "<start_of_turn>",
                "<end_of_turn>",
                "[INST]",
            ]),
            blank_line_and_colon: false,
        }
    }
}

impl TurnMarkers {
    /// The signs of the released code, to reproduce what was published. They cut honest answers: see the head of this
    /// module.
    pub fn released() -> Self {
        Self {
            line_start: Vec::new(),
            anywhere: markers(&["Human", "Assistant"]),
            blank_line_and_colon: true,
        }
    }

    /// The byte at which a simulated next turn begins, where there is one: at its marker, or at the blank line if that is
    /// the sign. A boundary between characters.
    pub fn cut(&self, text: &str) -> Option<usize> {
        let anywhere = self.anywhere.iter().filter_map(|marker| text.find(marker.as_str())).min();
        let blank_line = if self.blank_line_and_colon { blank_line_and_colon(text) } else { None };
        [self.line_start(text), anywhere, blank_line].into_iter().flatten().min()
    }

    /// The answer: the text up to the next turn, without white space around it. May be empty.
    pub fn trim<'a>(&self, text: &'a str) -> &'a str {
        text[..self.cut(text).unwrap_or(text.len())].trim()
    }

    fn line_start(&self, text: &str) -> Option<usize> {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(place, _)| place + 1));
        starts
            .flat_map(|start| {
                let line = &text[start..];
                // A marker that itself begins with white space is looked for first.
                [start, start + (line.len() - line.trim_start_matches([' ', '\t']).len())]
            })
            .find(|start| self.line_start.iter().any(|marker| text[*start..].starts_with(marker.as_str())))
    }
}

fn markers(written: &[&str]) -> Vec<Marker> {
    written.iter().map(|marker| Marker((*marker).to_owned())).collect()
}

/// The first match of `\n\n[^:]+:`: a blank line, at least one character that is no colon, and a colon however far away.
fn blank_line_and_colon(text: &str) -> Option<usize> {
    text.match_indices("\n\n")
        .find(|(place, blank)| text[place + blank.len()..].find(':').is_some_and(|colon| colon > 0))
        .map(|(place, _)| place)
}
