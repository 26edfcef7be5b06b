//! Models side by side on rows nobody trained on: rewards, right answers, likelihood, KL, length, stop rate, completions.
//!
//! Everything is computed from the final weights with draws of its own; nothing is taken from a trainer's log.

mod answers;
mod bench;
mod comparison;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use align_data::encode::Encoder;
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

pub(crate) use self::bench::Bench;
use self::bench::Measured;
use self::comparison::RESULTS;
pub(crate) use self::comparison::{ArmResult, Comparison, Sample};
use super::write_json;
use crate::context::Context;
use crate::expert_weights::{self, WeighedText};
use crate::judge::same_tokens;
use crate::language_model::tokenizer_folder;
use crate::progress::rows_bar;
use crate::recipe::eval::EvalStage;

/// A model that is compared.
struct Arm {
    name: String,
    seed: Option<u64>,
    path: PathBuf,
}

pub(super) fn run(name: &str, stage: &EvalStage, folder: &Path, context: &Context) -> Result<Value> {
    let arms = arms(name, stage, context)?;
    let Some(first) = arms.first() else { bail!("`{name}`: `arms` is empty, expected at least one") };
    let bench = Bench::open(stage, &context.open(&first.path)?, context)?;
    for arm in &arms {
        same_tokens(bench.encoder(), &tokenizer_folder(&arm.path)?)?;
    }
    let opponent = stage.against.as_deref().map(|against| opponent(against, stage, &arms)).transpose()?;
    let bar = rows_bar(name, bench.work() * arms.len());
    // The opponent first, so that every arm finds its figures.
    let order = opponent.into_iter().chain((0..arms.len()).filter(|&at| Some(at) != opponent));
    let mut all: BTreeMap<usize, Measured> = BTreeMap::new();
    // The experts' weights behind shown answers of fusions.
    let mut weights: BTreeMap<usize, Vec<WeighedText>> = BTreeMap::new();
    for at in order {
        let arm = &arms[at];
        context.check_interrupt()?;
        let first_of_arm = arms.iter().position(|other| other.name == arm.name) == Some(at);
        let mut measured = context
            .open(&arm.path)
            .and_then(|model| {
                let measured = bench.measure(&model, &bar, context)?;
                let shown = if first_of_arm { stage.show } else { 0 };
                weights.insert(at, bench.weights(&model, &arm.name, &measured, shown)?);
                Ok(measured)
            })
            .with_context(|| format!("cannot evaluate `{}` ({})", arm.name, arm.path.display()))?;
        if let Some(opponent) = opponent {
            let won = won(&measured, all.get(&opponent).unwrap_or(&measured));
            measured.figures.insert("win_rate".to_owned(), won);
        }
        all.insert(at, measured);
    }
    let mut results = Vec::new();
    let mut shown: Vec<Sample> = Vec::new();
    for (arm, measured) in arms.iter().zip(all.values()) {
        let first_of_arm = results.iter().all(|result: &ArmResult| result.arm != arm.name);
        if first_of_arm {
            show(&mut shown, &arm.name, measured, stage.show, bench.encoder())?;
        }
        results.push(summarize(arm, measured));
    }
    bar.finish_and_clear();
    let comparison = Comparison {
        prompts: bench.rows(),
        anchors: stage.anchors.keys().cloned().collect(),
        z: stage.z.get(),
        arms: results,
        samples: shown,
    };
    let weights: Vec<WeighedText> = weights.into_values().flatten().collect();
    if !weights.is_empty() {
        expert_weights::write(folder, &weights)?;
    }
    write_json(&folder.join(RESULTS), &comparison)?;
    println!("\n{}", comparison.table());
    Ok(json!({ "arms": arms.len(), "prompts": bench.rows() }))
}

/// Every model of every arm.
fn arms(name: &str, stage: &EvalStage, context: &Context) -> Result<Vec<Arm>> {
    let mut arms = Vec::new();
    for (arm, reference) in &stage.arms {
        let Some(reference) = reference.as_str() else {
            bail!("`{name}`: arm `{arm}`: expected a model, found {}", reference.type_str());
        };
        let models = context.models_to_read(reference)?.into_iter();
        arms.extend(models.map(|(seed, path)| Arm { name: arm.clone(), seed, path }));
    }
    Ok(arms)
}

/// Where the arm that others are compared with stands.
fn opponent(against: &str, stage: &EvalStage, arms: &[Arm]) -> Result<usize> {
    if stage.gold.is_none() && stage.reward.is_none() {
        bail!("`against` compares by `gold` or `reward`, expected one of them");
    }
    let found: Vec<usize> = (0..arms.len()).filter(|&at| arms[at].name == against).collect();
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

fn summarize(arm: &Arm, measured: &Measured) -> ArmResult {
    let spreads = measured.spreads();
    ArmResult {
        arm: arm.name.clone(),
        seed: arm.seed,
        means: spreads.iter().map(|(name, spread)| (name.clone(), spread.mean)).collect(),
        errors: spreads.iter().map(|(name, spread)| (name.clone(), spread.error)).collect(),
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
