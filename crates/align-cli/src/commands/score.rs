//! `align score`.

use align_core::{Completions, Reward};
use align_data::encode::{EncodeOptions, Encoder};
use align_data::read::{ReadOptions, read_rows};
use align_data::rows::{DemonstrationRow, Dialogue, FromRow, PreferenceRow, RowProblem};
use align_models::RewardModel;
use align_reward::{Manifest, PairwiseManifest};
use anyhow::{Context as _, Result};
use burn::tensor::Device;
use serde_json::{Map, Value, json};

use super::logprobs::write_out;
use crate::args::ScoreArgs;
use crate::context::{encoder, resolve_model, reward_model_as};
use crate::judge::Judge;
use crate::language_model::cannot_load_adapters;
use crate::progress::rows_bar;

/// Something to score.
enum Row {
    One(DemonstrationRow),
    Pair(PreferenceRow),
}

impl FromRow for Row {
    const KIND: &'static str = "scorable";

    fn from_row(row: &Map<String, Value>) -> Result<Self, RowProblem> {
        if row.contains_key("chosen") || row.contains_key("rejected") {
            return PreferenceRow::from_row(row).map(Self::Pair);
        }
        DemonstrationRow::from_row(row).map(Self::One)
    }

    fn prompt(&self) -> Option<&Dialogue> {
        None
    }
}

pub(super) fn run(args: &ScoreArgs) -> Result<()> {
    let (device, dtype) = args.load.open()?;
    let folder = resolve_model(&args.model)?;
    let model = match &args.load.adapter {
        Some(adapter) => Judge::One(Box::new(
            RewardModel::from_pretrained_adapted(&folder, adapter, &device, dtype)
                .with_context(|| cannot_load_adapters(adapter))?,
        )),
        // `open` says what a pairwise model is for.
        None if Manifest::read(&folder)?.is_some() || PairwiseManifest::read(&folder)?.is_some() => {
            Judge::open(&folder, &device, None)?
        }
        None => Judge::One(Box::new(reward_model_as(&folder, &device, dtype, None)?)),
    };
    let first = model.first().expect("a folder holds models");
    let config = first.backbone().config();
    let options = EncodeOptions { max_length: Some(config.context_length), ..EncodeOptions::default() };
    let encoder = encoder(&folder, Some(config.vocab_size), options)?;
    let rows = read_rows::<Row>(&args.data, &ReadOptions::default())?.rows;
    let mut margins = Vec::new();
    let batch = args.batch.max(1);
    write_out(args.out.as_deref(), |out| {
        let bar = rows_bar("score", rows.len());
        for (index, chunk) in rows.chunks(batch).enumerate() {
            let mut ids = Vec::new();
            for (row, content) in chunk.iter().enumerate() {
                let number = index * batch + row + 1;
                ids.extend(
                    encode(content, &encoder)
                        .with_context(|| format!("cannot use row {number} of {}", args.data.display()))?,
                );
            }
            let mut scores = score(&model, &ids, &device).into_iter();
            let mut next = || f64::from(scores.next().expect("one score for each sequence"));
            for row in chunk {
                let line = match row {
                    Row::One(_) => json!({ "score": next() }),
                    Row::Pair(_) => {
                        let (chosen, rejected) = (next(), next());
                        margins.push(chosen - rejected);
                        json!({ "chosen": chosen, "rejected": rejected, "margin": chosen - rejected })
                    }
                };
                writeln!(out, "{line}")?;
            }
            bar.inc(chunk.len() as u64);
        }
        bar.finish_and_clear();
        Ok(())
    })?;
    if !margins.is_empty() {
        let pairs = margins.len() as f64;
        // A tie is half right.
        let right: f64 =
            margins.iter().map(|&margin| if margin == 0.0 { 0.5 } else { f64::from(margin > 0.0) }).sum();
        let mean = margins.iter().sum::<f64>() / pairs;
        println!("{}", json!({ "pairs": margins.len(), "accuracy": right / pairs, "mean_margin": mean }));
    }
    Ok(())
}

/// The token ids of one sequence, or of the chosen and the rejected one.
fn encode(row: &Row, encoder: &Encoder) -> Result<Vec<Vec<u32>>> {
    Ok(match row {
        Row::One(row) => vec![encoder.encode_sft(row)?.ids],
        Row::Pair(row) => {
            let pair = encoder.encode_preference(row)?;
            [pair.chosen, pair.rejected].map(|response| [pair.prompt.clone(), response].concat()).to_vec()
        }
    })
}

/// Rewards are read at the last token, so where the prompt ends does not matter.
fn score(model: &Judge, rows: &[Vec<u32>], device: &Device) -> Vec<f32> {
    let (first, rest): (Vec<_>, Vec<_>) =
        rows.iter().map(|row| (row[..1].to_vec(), row[1..].to_vec())).unzip();
    let completions = Completions::from_rows(&first, &rest, device);
    model.score(&completions).into_data().iter::<f32>().collect()
}
