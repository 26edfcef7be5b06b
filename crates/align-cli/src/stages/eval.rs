//! Models side by side on prompts nobody trained on: rewards, KL, length, stop rate, completions.
//!
//! Everything is computed from the final weights with draws of its own; nothing is taken from a trainer's log.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use align_core::draws::{Draws, Purpose};
use align_core::log_probs::kl_exact;
use align_core::{CausalLm, Completions, Reward};
use align_data::encode::Encoder;
use align_models::{
    Event, GenerateOptions, Generated, Prompt, SamplingConfig, Transformer, generate_watched,
};
use align_superhf::meteor::Meteor;
use anyhow::{Context as _, Result, bail};
use burn::tensor::Tensor;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::answers::{completions, sampling_for};
use super::{read_json, write_json};
use crate::context::{Context, encoder, transformer};
use crate::data;
use crate::judge::{judge, same_tokens};
use crate::progress::rows_bar;
use crate::recipe::stage::EvalStage;
use crate::table::{Spread, table};

/// The result's file in the stage's folder.
pub(crate) const RESULTS: &str = "comparison.json";

/// All arms of a comparison.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Comparison {
    /// How many prompts every model answered.
    pub(crate) prompts: usize,
    /// The rewards and anchors there are, in the table's order.
    pub(crate) anchors: Vec<String>,
    /// Multiplies the standard error.
    pub(crate) z: f64,
    /// One per arm and seed.
    pub(crate) arms: Vec<ArmResult>,
    /// Completions side by side.
    pub(crate) samples: Vec<Sample>,
}

/// One model's figures, means over prompts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ArmResult {
    /// The arm.
    pub(crate) arm: String,
    /// The seed of the run that made the model, if there were several.
    pub(crate) seed: Option<u64>,
    /// Mean figures by name: `gold`, `reward`, `kl/<anchor>`, `length`, `stop_rate`, `entropy`, `similarity`, `win_rate`.
    pub(crate) means: BTreeMap<String, f64>,
    /// Their standard errors over prompts.
    pub(crate) errors: BTreeMap<String, f64>,
}

/// A prompt and what every arm made of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// The prompt's text.
    pub(crate) prompt: String,
    /// Arm, completion, gold, reward.
    pub(crate) completions: Vec<(String, String, Option<f64>, Option<f64>)>,
}

/// What every arm is measured with.
struct Bench<'a> {
    prompts: &'a [Vec<u32>],
    sampling: &'a SamplingConfig,
    anchors: &'a [(String, Transformer)],
    reward: Option<&'a dyn Reward>,
    gold: Option<&'a dyn Reward>,
    text: &'a dyn Fn(&[u32]) -> Result<String>,
    microbatch: usize,
    seed: u64,
    bar: &'a ProgressBar,
}

/// Figures of every prompt.
struct Measured {
    figures: BTreeMap<String, Vec<f64>>,
    rows: Vec<Generated>,
}

pub(super) fn run(name: &str, stage: &EvalStage, folder: &Path, context: &Context) -> Result<Value> {
    let mut arms = Vec::new();
    for (arm, reference) in &stage.arms {
        let Some(reference) = reference.as_str() else {
            bail!("`{name}`: arm `{arm}`: expected a model, found {}", reference.type_str());
        };
        for (seed, folder) in context.models(reference)? {
            arms.push((arm.clone(), seed, folder));
        }
    }
    let Some((_, _, first)) = arms.first() else { bail!("`{name}`: `arms` is empty, expected at least one") };
    let config = transformer(first, &context.device)?.config().clone();
    let encoder = encoder(first, Some(config.vocab_size), stage.encode.options(Some(config.context_length)))?;
    let prompts = data::prompts(&stage.prompts, &encoder, context)?;
    for (_, _, folder) in &arms {
        same_tokens(&encoder, folder)?;
    }
    let anchors = stage
        .anchors
        .iter()
        .map(|(name, reference)| {
            let folder = context.model(reference)?;
            same_tokens(&encoder, &folder)?;
            Ok((name.clone(), transformer(&folder, &context.device)?))
        })
        .collect::<Result<Vec<_>>>()?;
    let reward = stage
        .reward
        .as_deref()
        .map(|reward| judge(reward, stage.aggregate, &encoder, &prompts, context))
        .transpose()?;
    let gold =
        stage.gold.as_deref().map(|gold| judge(gold, None, &encoder, &prompts, context)).transpose()?;
    let sampling = sampling_for(&stage.sampling, &encoder);
    // Every row is drawn and then judged.
    let bar = rows_bar(name, 2 * prompts.ids.len() * arms.len());
    let bench = Bench {
        prompts: &prompts.ids,
        sampling: &sampling,
        anchors: &anchors,
        reward: reward.as_deref(),
        gold: gold.as_deref(),
        text: &|ids| Ok(encoder.decode(ids)?),
        microbatch: stage.microbatch.max(1),
        seed: stage.seed,
        bar: &bar,
    };
    let opponent = stage.against.as_deref().map(|against| opponent(against, stage, &arms)).transpose()?;
    // The opponent first, so that every arm finds its figures.
    let order = opponent.into_iter().chain((0..arms.len()).filter(|&at| Some(at) != opponent));
    let mut all: BTreeMap<usize, Measured> = BTreeMap::new();
    for at in order {
        let (arm, _, folder) = &arms[at];
        context.check_interrupt()?;
        let model = transformer(folder, &context.device)?;
        let mut measured = measure(&model, &bench, context)
            .with_context(|| format!("cannot evaluate `{arm}` ({})", folder.display()))?;
        if let Some(opponent) = opponent {
            let won = won(&measured, all.get(&opponent).unwrap_or(&measured));
            measured.figures.insert("win_rate".to_owned(), won);
        }
        all.insert(at, measured);
    }
    let mut results = Vec::new();
    let mut shown: Vec<Sample> = Vec::new();
    for ((arm, seed, _), measured) in arms.iter().zip(all.values()) {
        let first_of_arm = results.iter().all(|result: &ArmResult| &result.arm != arm);
        if first_of_arm {
            show(&mut shown, arm, measured, stage.show, &encoder)?;
        }
        results.push(summarize(arm, *seed, measured));
    }
    bar.finish_and_clear();
    let comparison = Comparison {
        prompts: prompts.ids.len(),
        anchors: stage.anchors.keys().cloned().collect(),
        z: stage.z.get(),
        arms: results,
        samples: shown,
    };
    write_json(&folder.join(RESULTS), &comparison)?;
    println!("\n{}", comparison.table());
    Ok(json!({ "arms": arms.len(), "prompts": prompts.ids.len() }))
}

/// Where the arm that others are compared with stands.
fn opponent(against: &str, stage: &EvalStage, arms: &[(String, Option<u64>, PathBuf)]) -> Result<usize> {
    if stage.gold.is_none() && stage.reward.is_none() {
        bail!("`against` compares by `gold` or `reward`, expected one of them");
    }
    let found: Vec<usize> = (0..arms.len()).filter(|&at| arms[at].0 == against).collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => bail!("`against` is {against:?}, expected one of `arms`"),
        many => {
            bail!("`against` is {against:?}, which has {} seeds, expected an arm of one model", many.len())
        }
    }
}

/// Of every prompt 1 if the answer is better than the opponent's, ½ if they are as good, else 0.
fn won(measured: &Measured, opponent: &Measured) -> Vec<f64> {
    let values = |of: &Measured| of.figures.get("gold").or_else(|| of.figures.get("reward")).cloned();
    let both = values(measured).unwrap_or_default().into_iter().zip(values(opponent).unwrap_or_default());
    both.map(|(own, other)| {
        f64::midpoint(f64::from(u8::from(own > other)), f64::from(u8::from(own >= other)))
    })
    .collect()
}

fn measure(model: &Transformer, bench: &Bench<'_>, context: &Context) -> Result<Measured> {
    let options = GenerateOptions {
        purpose: Purpose::Evaluate,
        slots: bench.microbatch,
        ..GenerateOptions::new(bench.sampling, Draws::new(bench.seed))
    };
    let prompts = Prompt::numbered(bench.prompts.iter().cloned());
    let rows = generate_watched(model, &prompts, &options, &mut |event| {
        if let Event::Finished(_) = event {
            bench.bar.inc(1);
        }
    })?
    .rows;
    let mut figures: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut add = |name: &str, values: Vec<f64>| figures.entry(name.to_owned()).or_default().extend(values);
    let temperature = bench.sampling.raw_temperature();
    for chunk in rows.chunks(bench.microbatch) {
        context.check_interrupt()?;
        let completions = completions(chunk, &model.device());
        add("length", chunk.iter().map(|row| row.response.len() as f64).collect());
        add("stop_rate", chunk.iter().map(|row| f64::from(u8::from(row.finish_reason.stopped()))).collect());
        if let Some(gold) = bench.gold {
            add("gold", host(gold.score(&completions)));
        }
        if let Some(reward) = bench.reward {
            add("reward", host(reward.score(&completions)));
        }
        if !bench.anchors.is_empty() {
            let policy = response_logits(model, &completions);
            for (name, anchor) in bench.anchors {
                let anchor = response_logits(anchor, &completions);
                let kl = kl_exact(policy.clone(), anchor, &completions.response.mask, temperature);
                add(&format!("kl/{name}"), host(kl.sum_dim(1).squeeze_dim(1)));
            }
        }
        let entropies = model.token_log_probs(&completions, temperature).entropies;
        let lengths: Vec<f64> = chunk.iter().map(|row| row.response.len() as f64).collect();
        let sums = host(entropies.sum_dim(1).squeeze_dim(1));
        add("entropy", sums.iter().zip(&lengths).map(|(sum, length)| sum / length).collect());
        bench.bar.inc(chunk.len() as u64);
    }
    let similar = similarity(&rows, bench.text)?;
    if !similar.is_empty() {
        add("similarity", similar);
    }
    Ok(Measured { figures, rows })
}

/// METEOR of every answer with the next one, to another prompt: near 0 for answers to what was asked, near 1 where one answer does
/// for everything. Nothing with a single prompt.
fn similarity(rows: &[Generated], text: &dyn Fn(&[u32]) -> Result<String>) -> Result<Vec<f64>> {
    let texts: Vec<String> = rows.iter().map(|row| text(&row.response)).collect::<Result<_>>()?;
    let next = rows.iter().zip(&texts).cycle().skip(1);
    let meteor = Meteor::exact();
    let pairs = rows.iter().zip(&texts).zip(next).filter(|((a, _), (b, _))| a.prompt != b.prompt);
    Ok(pairs.map(|((_, a), (_, b))| meteor.similarity(a, b)).collect())
}

/// The scores that precede each response token, `[B, R, V]`.
fn response_logits(model: &Transformer, completions: &Completions) -> Tensor<3> {
    let (b, p, r) = (completions.batch_size(), completions.prompt.width(), completions.response.width());
    model.logits(&completions.joined()).slice([0..b, p - 1..p + r - 1])
}

fn host(values: Tensor<1>) -> Vec<f64> {
    values.into_data().iter::<f64>().collect()
}

fn summarize(arm: &str, seed: Option<u64>, measured: &Measured) -> ArmResult {
    let spreads: BTreeMap<&String, Spread> =
        measured.figures.iter().map(|(name, values)| (name, Spread::of(values))).collect();
    ArmResult {
        arm: arm.to_owned(),
        seed,
        means: spreads.iter().map(|(name, spread)| ((*name).clone(), spread.mean)).collect(),
        errors: spreads.iter().map(|(name, spread)| ((*name).clone(), spread.error)).collect(),
    }
}

fn show(
    samples: &mut Vec<Sample>,
    arm: &str,
    measured: &Measured,
    count: usize,
    encoder: &Encoder,
) -> Result<()> {
    for (index, row) in measured.rows.iter().take(count).enumerate() {
        if samples.len() <= index {
            samples.push(Sample { prompt: encoder.decode(&row.prompt)?, completions: Vec::new() });
        }
        let figure = |name: &str| measured.figures.get(name).map(|values| values[index]);
        let completion = encoder.decode(&row.response)?;
        samples[index].completions.push((arm.to_owned(), completion, figure("gold"), figure("reward")));
    }
    Ok(())
}

impl Comparison {
    /// Reads a stage's result, if it has one.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        read_json(&folder.join(RESULTS))
    }

    /// The arms in the order they were given, each with its models.
    pub(crate) fn by_arm(&self) -> Vec<(&str, Vec<&ArmResult>)> {
        let mut arms: Vec<(&str, Vec<&ArmResult>)> = Vec::new();
        for result in &self.arms {
            match arms.iter_mut().find(|(arm, _)| *arm == result.arm) {
                Some((_, results)) => results.push(result),
                None => arms.push((&result.arm, vec![result])),
            }
        }
        arms
    }

    /// The figures in the table's order: names and headings.
    pub(crate) fn columns(&self) -> Vec<(String, String)> {
        let mut columns: Vec<_> = [("gold", "gold"), ("reward", "proxy"), ("win_rate", "won")]
            .map(|(name, heading)| (name.to_owned(), heading.to_owned()))
            .into();
        columns.extend(self.anchors.iter().map(|anchor| (format!("kl/{anchor}"), format!("KL to {anchor}"))));
        columns.extend(
            [("length", "length"), ("stop_rate", "stops"), ("similarity", "METEOR")]
                .map(|(a, b)| (a.to_owned(), b.to_owned())),
        );
        columns.retain(|(name, _)| self.arms.iter().any(|arm| arm.means.contains_key(name)));
        columns
    }

    /// One figure of one arm: mean and standard error, over seeds where there are several, else over prompts.
    pub(crate) fn figure(&self, results: &[&ArmResult], name: &str) -> Option<Spread> {
        let means: Vec<f64> = results.iter().filter_map(|result| result.means.get(name).copied()).collect();
        match means.as_slice() {
            [] => None,
            [mean] => Some(Spread { mean: *mean, error: results[0].errors[name], count: self.prompts }),
            means => Some(Spread::of(means)),
        }
    }

    /// The table for a terminal.
    pub(crate) fn table(&self) -> String {
        let columns = self.columns();
        let mut header = vec!["arm".to_owned(), "seeds".to_owned()];
        header.extend(columns.iter().map(|(_, heading)| heading.clone()));
        let rows = self.by_arm().into_iter().map(|(arm, results)| {
            let mut row = vec![arm.to_owned(), results.len().to_string()];
            row.extend(columns.iter().map(|(name, _)| match self.figure(&results, name) {
                Some(spread) => spread.show(self.z),
                None => "–".to_owned(),
            }));
            row
        });
        format!(
            "{}\n{} prompts; ± is {} standard errors, over seeds where there are several, else over prompts",
            table(&header, rows.collect()),
            self.prompts,
            self.z
        )
    }
}
