//! `align logprobs`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use align_core::{CausalLm, Completions};
use align_data::read::{ReadOptions, read_rows};
use align_data::rows::{DemonstrationRow, Dialogue, FromRow, RowProblem};
use align_data::tokenizer::{HfTokenizer, Tokenizer as _};
use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};

use super::open::{Opened, open};
use crate::args::LogprobsArgs;
use crate::progress::rows_bar;

/// A row as it stands: no template and no stop token is added to text.
enum Row {
    /// `text`, or `prompt` and `completion` one after the other.
    Text(String),
    /// `messages`, rendered by the model's template.
    Messages(DemonstrationRow),
}

impl FromRow for Row {
    const KIND: &'static str = "text";

    fn from_row(row: &Map<String, Value>) -> Result<Self, RowProblem> {
        match (row.get("text"), row.get("prompt"), row.get("completion")) {
            (Some(Value::String(text)), ..) => Ok(Self::Text(text.clone())),
            (None, Some(Value::String(prompt)), Some(Value::String(completion))) => {
                Ok(Self::Text(format!("{prompt}{completion}")))
            }
            _ => match DemonstrationRow::from_row(row)? {
                DemonstrationRow::Text { text } => Ok(Self::Text(text)),
                row => Ok(Self::Messages(row)),
            },
        }
    }

    fn prompt(&self) -> Option<&Dialogue> {
        None
    }
}

pub(super) fn run(model: &str, args: &LogprobsArgs) -> Result<()> {
    let opened = open(model, &args.load)?;
    let rows = read_rows::<Row>(&args.data, &ReadOptions::default())?.rows;
    let tokenizer = HfTokenizer::from_folder(&opened.model.folder)?;
    let ids = rows
        .iter()
        .enumerate()
        .map(|(index, row)| {
            encode(row, args.add_special_tokens, &opened, &tokenizer)
                .with_context(|| format!("cannot use row {} of {}", index + 1, args.data.display()))
        })
        .collect::<Result<Vec<_>>>()?;
    write_out(args.out.as_deref(), |out| {
        let bar = rows_bar("logprobs", ids.len());
        for chunk in ids.chunks(args.batch.max(1)) {
            let found = log_probs(&*opened.model.lm, chunk);
            if let Some(failure) = opened.model.failure() {
                return Err(failure);
            }
            for (row, log_probs) in chunk.iter().zip(found) {
                writeln!(out, "{}", json!({ "token_ids": row, "logprobs": log_probs }))?;
            }
            bar.inc(chunk.len() as u64);
        }
        bar.finish_and_clear();
        Ok(())
    })
}

fn encode(row: &Row, special: bool, opened: &Opened, tokenizer: &HfTokenizer) -> Result<Vec<u32>> {
    let ids = match row {
        Row::Text(text) if special => tokenizer.encode_with_special_tokens(text)?,
        Row::Text(text) => tokenizer.encode(text)?.ids,
        Row::Messages(messages) => opened.encoder.encode_sft(messages)?.ids,
    };
    if ids.is_empty() {
        bail!("no tokens, expected at least one");
    }
    match opened.model.lm.context_length() {
        Some(context) if ids.len() > context => {
            bail!("{} tokens, the model's context is {context}", ids.len())
        }
        _ => Ok(ids),
    }
}

/// For every row, `None` for the first token and then the log-probability of each given those before it, nats.
pub(super) fn log_probs(model: &dyn CausalLm, rows: &[Vec<u32>]) -> Vec<Vec<Option<f32>>> {
    let device = model.device();
    let (first, rest): (Vec<_>, Vec<_>) =
        rows.iter().map(|row| (row[..1].to_vec(), row[1..].to_vec())).unzip();
    let completions = Completions::from_rows(&first, &rest, &device);
    let log_probs = model.token_log_probs(&completions, 1.0).log_probs;
    let [_, width] = log_probs.dims();
    let values: Vec<f32> = log_probs.into_data().iter::<f32>().collect();
    rest.iter()
        .zip(values.chunks(width))
        .map(|(row, values)| {
            [None].into_iter().chain(values[..row.len()].iter().copied().map(Some)).collect()
        })
        .collect()
}

/// Writes to a file as a whole, or to standard output.
pub(super) fn write_out(path: Option<&Path>, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let Some(path) = path else {
        let mut out = BufWriter::new(std::io::stdout().lock());
        write(&mut out)?;
        return Ok(out.flush()?);
    };
    let mut failure = None;
    let written = align_core::persist::replace_file(path, |file: &mut BufWriter<File>| {
        write(file).map_err(|error| {
            let text = error.to_string();
            failure = Some(error);
            std::io::Error::other(text)
        })
    });
    match failure {
        Some(error) => Err(error),
        None => Ok(written?),
    }
}
