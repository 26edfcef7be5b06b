//! Rows with the answers that are right: their likelihood, and what a model must say to be right.

use std::ops::Range;

use align_core::CausalLm;
use align_data::collate::demonstrations;
use align_data::encode::{Encoder, Example};
use align_data::rows::{DemonstrationRow, Dialogue, FromRow, RowProblem};
use anyhow::{Result, bail};
use serde_json::{Map, Value};

use crate::context::Context;
use crate::data::{self, Prompts};
use crate::recipe::parts::DataConfig;
use crate::table::Spread;

/// Rows that show what is right, encoded.
pub(super) struct Answers {
    /// Of every row the tokens, and which of them are the answer's.
    pub(super) examples: Vec<Example>,
    /// What is asked and what is right, token by token, of rows that can be asked.
    pub(super) asked: Option<Asked>,
}

/// Questions and their answers, row by row.
pub(super) struct Asked {
    pub(super) prompts: Prompts,
    /// With the token that ends them.
    pub(super) right: Vec<Vec<u32>>,
}

/// A demonstration that ends with an answer to something.
struct AnswerRow {
    prompt: Dialogue,
    answer: Dialogue,
}

impl FromRow for AnswerRow {
    const KIND: &'static str = "demonstration";

    fn from_row(row: &Map<String, Value>) -> Result<Self, RowProblem> {
        let unanswered = |field: &str, found: &str| RowProblem::WrongType {
            field: field.to_owned(),
            expected: "a prompt and its answer (for the likelihood alone of other rows set `draw` to false)",
            found: found.to_owned(),
        };
        match DemonstrationRow::from_row(row)? {
            DemonstrationRow::Completion { prompt, completion } => Ok(Self { prompt, answer: completion }),
            DemonstrationRow::Text { .. } => Err(unanswered("text", "text alone")),
            DemonstrationRow::Messages { tools: Some(_), .. } => Err(unanswered("tools", "tools")),
            DemonstrationRow::Messages { mut messages, tools: None } => match messages.pop() {
                Some(last) if last.is_assistant() && !messages.is_empty() => {
                    Ok(Self { prompt: Dialogue::Messages(messages), answer: Dialogue::Messages(vec![last]) })
                }
                _ => Err(unanswered("messages", "a dialogue that does not end with the assistant's answer")),
            },
        }
    }

    fn prompt(&self) -> Option<&Dialogue> {
        Some(&self.prompt)
    }
}

impl Answers {
    /// Reads and encodes rows that a model can be asked.
    pub(super) fn to_ask(config: &DataConfig, encoder: &Encoder, context: &Context) -> Result<Self> {
        let rows = data::rows::<AnswerRow>(config, context)?;
        let encoded = rows.encode("answers", encoder, |encoder, row| {
            Ok((encoder.encode_completion(&row.prompt, &row.answer)?, row.prompt.clone()))
        })?;
        let mut answers = Self { examples: Vec::new(), asked: None };
        let (mut ids, mut dialogues, mut right) = (Vec::new(), Vec::new(), Vec::new());
        for (row, dialogue) in encoded {
            let asked = row.prompt.len();
            let tokens = [row.prompt.as_slice(), &row.response].concat();
            let loss_mask = (0..tokens.len()).map(|at| at >= asked).collect();
            answers.examples.push(Example { ids: tokens, loss_mask });
            ids.push(row.prompt);
            dialogues.push(dialogue);
            right.push(row.response);
        }
        let prompts = Prompts { path: rows.path, ids, dialogues };
        answers.asked = Some(Asked { prompts, right });
        Ok(answers)
    }

    /// Reads and encodes rows of any form, for their likelihood.
    pub(super) fn to_read(config: &DataConfig, encoder: &Encoder, context: &Context) -> Result<Self> {
        let rows = data::rows::<DemonstrationRow>(config, context)?;
        let examples = rows.encode("answers", encoder, |encoder, row| encoder.encode_sft(row))?;
        if examples.iter().all(|example| scored(example).is_empty()) {
            bail!("{}: no row has a token to predict, expected at least one", rows.path.display());
        }
        Ok(Self { examples, asked: None })
    }
}

/// What follows the first token, which nothing predicts, and counts.
fn scored(example: &Example) -> Vec<usize> {
    let counting = |range: Range<usize>| range.filter(|&at| example.loss_mask[at]).collect();
    counting(1..example.ids.len())
}

/// How likely a model finds a row's answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Likelihood {
    /// −log of the answer's probability, nats.
    nats: f64,
    /// Of how many tokens.
    tokens: f64,
}

/// The likelihood of rows under a model, at temperature 1.
pub(super) fn likelihoods(model: &dyn CausalLm, examples: &[Example]) -> Vec<Likelihood> {
    let batch = demonstrations(examples, &model.device());
    let log_probs = model.token_log_probs(&batch.completions, 1.0).log_probs;
    // In f64: answers may have thousands of tokens.
    let counted = log_probs.mask_fill(batch.counts.bool_not(), 0.0).neg();
    let [_, width] = counted.dims();
    let nats: Vec<f64> = counted.into_data().iter::<f64>().collect();
    let rows = examples.iter().zip(nats.chunks(width));
    rows.map(|(example, nats)| Likelihood { nats: nats.iter().sum(), tokens: scored(example).len() as f64 })
        .collect()
}

/// Nats a token over all rows, with its standard error over rows.
pub(super) fn nats_per_token(rows: &[Likelihood]) -> Spread {
    Spread::of_ratio(rows.iter().map(|row| (row.nats, row.tokens)))
}
