//! `align generate`.

use std::io::Write;

use align_core::Draws;
use align_data::encode::Encoder;
use align_data::read::{ReadOptions, read_rows};
use align_data::rows::{Dialogue, PromptRow};
use align_models::{Event, GenerateOptions, Generated, Prompt, SamplingConfig, generate_watched};
use anyhow::{Context as _, Result};
use serde_json::json;

use super::open::{Text, open, sampling};
use crate::args::GenerateArgs;
use crate::progress::rows_bar;

pub(super) fn run(model: &str, args: &GenerateArgs) -> Result<()> {
    let opened = open(model, &args.load)?;
    let dialogues = prompts(args)?;
    let prompts = dialogues
        .iter()
        .enumerate()
        .map(|(row, dialogue)| {
            opened.encoder.encode_prompt(dialogue).with_context(|| format!("cannot use prompt {row}"))
        })
        .collect::<Result<Vec<_>>>()?;
    let sampling = sampling(&args.sampling, &opened.encoder);
    warn_of_no_end(&sampling);
    let text = Text(&opened.encoder);
    let options = GenerateOptions {
        detokenize: Some(&text),
        slots: args.batch.max(1),
        ..GenerateOptions::new(&sampling, Draws::new(args.sampling.seed))
    };
    let bar = rows_bar("generate", prompts.len());
    let prompts = Prompt::numbered(prompts);
    let generation =
        opened.model.explained(generate_watched(&*opened.model.lm, &prompts, &options, &mut |event| {
            if let Event::Finished(_) = event {
                bar.inc(1);
            }
        }))?;
    bar.finish_and_clear();
    let mut out = std::io::stdout().lock();
    for (row, dialogue) in generation.rows.iter().zip(&dialogues) {
        let written = match args.json {
            true => writeln!(out, "{}", json_line(dialogue, row, &opened.encoder)?),
            false if args.data.is_some() => {
                writeln!(out, "── {}\n{}", dialogue.plain_text().trim(), completion(row))
            }
            false => writeln!(out, "{}", completion(row)),
        };
        written.context("cannot write to standard output")?;
    }
    Ok(())
}

/// Says that answers do not end by themselves.
pub(super) fn warn_of_no_end(sampling: &SamplingConfig) {
    if sampling.never_stop {
        eprintln!(
            "warning: the model has no stop token and no --stop is given: every completion is cut at its limit"
        );
    }
}

fn prompts(args: &GenerateArgs) -> Result<Vec<Dialogue>> {
    match (&args.prompt, &args.data) {
        (Some(text), _) => Ok(vec![Dialogue::Text(text.clone())]),
        (None, Some(path)) => {
            let rows = read_rows::<PromptRow>(path, &ReadOptions::default())?.rows;
            Ok(rows.into_iter().map(|row| row.prompt).collect())
        }
        (None, None) => unreachable!("the command line asks for one of them"),
    }
}

fn completion(row: &Generated) -> &str {
    row.text.as_deref().unwrap_or_default()
}

fn json_line(dialogue: &Dialogue, row: &Generated, encoder: &Encoder) -> Result<serde_json::Value> {
    // A prompt of messages is shown as the text the template made of it.
    let prompt = match dialogue {
        Dialogue::Text(text) => text.clone(),
        Dialogue::Messages(_) => {
            use align_data::tokenizer::SpecialTokens;
            encoder.tokenizer().decode(&row.prompt, SpecialTokens::Keep)?
        }
    };
    Ok(json!({
        "prompt": prompt,
        "completion": completion(row),
        "token_ids": row.response,
        "logprobs": row.raw_log_probs,
        "finish_reason": row.finish_reason.label(),
    }))
}
