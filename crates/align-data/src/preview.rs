//! What a model will see of a row, as text: the rendered dialogue, the tokens, and which of them are learnt.

use std::fmt;

use crate::{
    encode::{EncodeError, Encoder, Example, PreferenceExample},
    rows::{DemonstrationRow, PreferenceRow, PromptRow},
    tokenizer::{SpecialTokens, Tokenizer},
};

/// One token as it is previewed.
#[derive(Clone, Debug, PartialEq)]
pub struct PreviewToken {
    /// The id.
    pub id: u32,
    /// The vocabulary's own writing of it.
    pub token: String,
    /// Whether predicting it counts.
    pub learnt: bool,
    /// Whether it ends a response.
    pub stops: bool,
}

/// A sequence a model will see.
#[derive(Clone, Debug, PartialEq)]
pub struct Preview {
    /// What the sequence is: `demonstration`, `chosen`, `rejected`, `prompt`.
    pub title: &'static str,
    /// The text of the tokens, special ones included.
    pub text: String,
    /// The tokens.
    pub tokens: Vec<PreviewToken>,
}

impl Preview {
    fn new(title: &'static str, encoder: &Encoder, example: &Example) -> Result<Self, EncodeError> {
        let tokenizer: &dyn Tokenizer = encoder.tokenizer();
        let tokens = example
            .ids
            .iter()
            .zip(&example.loss_mask)
            .map(|(&id, &learnt)| PreviewToken {
                id,
                token: tokenizer.token(id).unwrap_or_else(|| "?".to_string()),
                learnt,
                stops: encoder.stop_ids().contains(&id),
            })
            .collect();
        Ok(Self { title, text: tokenizer.decode(&example.ids, SpecialTokens::Keep)?, tokens })
    }

    /// How many tokens are learnt.
    pub fn learnt(&self) -> usize {
        self.tokens.iter().filter(|token| token.learnt).count()
    }
}

impl fmt::Display for Preview {
    /// The text, then the tokens eight a line; learnt ones stand in brackets, stop tokens are marked `■`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} tokens, {} learnt", self.title, self.tokens.len(), self.learnt())?;
        for line in self.text.lines() {
            writeln!(f, "  │ {line}")?;
        }
        for line in self.tokens.chunks(8) {
            write!(f, "  ")?;
            for token in line {
                let stop = if token.stops { "■" } else { "" };
                match token.learnt {
                    true => write!(f, " [{}{stop} {}]", token.token, token.id)?,
                    false => write!(f, " {}{stop} {}", token.token, token.id)?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Previews a row to imitate.
///
/// # Errors
/// When the row cannot be encoded.
pub fn demonstration(encoder: &Encoder, row: &DemonstrationRow) -> Result<Preview, EncodeError> {
    Preview::new("demonstration", encoder, &encoder.encode_sft(row)?)
}

/// Previews a prompt.
///
/// # Errors
/// When the row cannot be encoded.
pub fn prompt(encoder: &Encoder, row: &PromptRow) -> Result<Preview, EncodeError> {
    let ids = encoder.encode_prompt(&row.prompt)?;
    Preview::new("prompt", encoder, &Example { loss_mask: vec![false; ids.len()], ids })
}

/// Previews both sides of a pair.
///
/// # Errors
/// When the row cannot be encoded.
pub fn preference(encoder: &Encoder, row: &PreferenceRow) -> Result<[Preview; 2], EncodeError> {
    let PreferenceExample { prompt, chosen, rejected, .. } = encoder.encode_preference(row)?;
    let side = |title, response: &[u32]| {
        let mut loss_mask = vec![false; prompt.len()];
        loss_mask.resize(prompt.len() + response.len(), true);
        Preview::new(title, encoder, &Example { ids: [&prompt, response].concat(), loss_mask })
    };
    Ok([side("chosen", &chosen)?, side("rejected", &rejected)?])
}
