//! Cleans preference data for a reward model.
//!
//! ```text
//! stage/
//!   cleaning/         the search for weights: metrics.jsonl, tensorboard/, checkpoints/
//!   arms/all/         models trained for comparison, each with model/, metrics.jsonl and checkpoints/
//!   model/            the reward model trained on the weighted pairs
//!   weights.jsonl     a weight for every pair
//!   kept.jsonl        the rows that weigh enough, as they were read
//!   cleaning.json     what was found, and how every arm does on held-out pairs
//! ```
//!
//! Where labels were flipped on purpose there are `labelled.jsonl` (all rows as they were trained on), `clean.jsonl` (the rows
//! that were not flipped) and `filtered.jsonl` (as many rows as the noise leaves, those that a model of all agrees with best) too.

mod arms;
mod data;
mod found;
mod pairs;
mod solve;

use std::num::NonZeroUsize;
use std::path::Path;

use align_bilevel::DoubleLoop;
use align_bilevel::alignment::{
    CleanConfig, Cleaning, CleaningWarning, ModulePairs, auc, detection, effective_sample_size,
};
use align_core::Draws;
use align_core::number::NonNegative;
use align_models::{Normalization, RewardModel};
use align_train::Progress;
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

pub(crate) use self::found::CleanedData;

use self::arms::Arms;
use self::data::Pairs;
use self::found::{ArmFigures, SourceShare, write_rows_of};
use self::pairs::PairSet;
use self::solve::{Problem, Weighing};
use crate::context::{Context, encoder, reward_model};
use crate::drive::{Job, RecipeText, drive};
use crate::progress::working;
use crate::recipe::bilevel::{Arm, CleanStage, StartFrom};
use crate::table::table;

/// Where the search for weights lies in the stage's folder.
const CLEANING: &str = "cleaning";

pub(in crate::stages) fn run(
    name: &str,
    stage: &CleanStage,
    recipe: &RecipeText,
    folder: &Path,
    context: &Context,
) -> Result<Value> {
    if stage.training.average.is_some() {
        bail!("`training.average` is nothing that cleaning knows: leave it out");
    }
    let start = context.model(&stage.model)?;
    let base = reward_model(&start, &context.training_device(), Some(&Draws::new(stage.seed)))?;
    // The scale of a reward model that the training starts from would be in nothing but the way.
    let base = base.with_normalization(Normalization::default());
    let config = base.backbone().config();
    let options = stage.encode.options(Some(config.context_length));
    let encoder = encoder(&start, Some(config.vocab_size), options)?;
    let pairs = Pairs::read(stage, &encoder, context)?;
    let arms = Arms { name, stage, pairs: &pairs, base: &base, start: &start, folder, context };

    let mut measured: Vec<ArmFigures> = Vec::new();
    let needs_all = stage.start == StartFrom::All
        || stage.arms.iter().any(|arm| matches!(arm, Arm::All | Arm::Confident));
    if needs_all {
        measured.push(arms.train_on(Arm::All, arms.everything())?);
    }
    let from = match stage.start {
        StartFrom::All => arms.load(Arm::All)?,
        StartFrom::Model => base.clone(),
    };
    let problem = problem(stage, &pairs, from, context)?;
    let weighing = weigh(&arms, recipe, &problem)?;
    let logits = weighing.logits();
    let weights = problem.weights().all(logits);
    let warnings = warnings(&problem, &weights);
    for warning in &warnings {
        eprintln!("{name}: warning: {warning}");
    }

    let threshold = match stage.keep_share {
        None => stage.threshold.get(),
        Some(share) => least_of_largest(&weights, share.get()),
    };
    let kept: Vec<bool> = weights.iter().map(|weight| *weight >= threshold).collect();
    let right: Option<Vec<bool>> =
        pairs.flipped().map(|flipped| flipped.iter().map(|flipped| !flipped).collect());
    let confident = match needs_all {
        false => None,
        true => {
            let _working = working(&format!("{name}: losses under the model of all pairs"));
            let alike = right.as_ref().unwrap_or(&kept);
            Some(arms.confident(alike.iter().filter(|kept| !**kept).count())?)
        }
    };
    for arm in &stage.arms {
        let rows = match arm {
            // Trained before, and after all others.
            Arm::All | Arm::Cleaned => continue,
            Arm::Trusted => arms.trusted(),
            Arm::Confident => arms.chosen(confident.as_deref()),
            Arm::Right => arms.chosen(right.as_deref()),
        };
        measured.push(arms.train_on(*arm, rows)?);
    }
    measured.push(arms.train_on(Arm::Cleaned, arms.weighted(&weights))?);

    write_rows_of(folder, &pairs, &weights, &kept, confident.as_deref())?;
    let flips = pairs.flipped();
    let found = CleanedData {
        pairs: weights.len(),
        trusted: pairs.trusted.len(),
        held_out: pairs.held_out.len(),
        flipped: flips.map(|flipped| flipped.iter().filter(|flipped| **flipped).count()),
        kept: kept.iter().filter(|kept| **kept).count(),
        threshold,
        auc: flips.and_then(|flipped| auc(&weights, flipped)),
        detection: flips.map(|flipped| detection(&weights, flipped, threshold)),
        effective_sample_size: effective_sample_size(&weights),
        mean_weight: weights.iter().sum::<f64>() / weights.len() as f64,
        sources: SourceShare::of(&pairs, &problem.weights().shares(logits)),
        calls: weighing.calls(),
        warnings,
        arms: measured,
        weights: Vec::new(),
    };
    found.write(folder)?;
    let (header, rows) = found.rows();
    println!("\n{}\n{}", table(&header, rows), found.note());
    let cleaned = found.arms.last().and_then(|arm| arm.accuracy);
    Ok(json!({ "pairs": found.pairs, "kept": found.kept, "auc": found.auc, "held_out_accuracy": cleaned }))
}

/// The least weight among the given share of the largest; of one pair at least.
fn least_of_largest(weights: &[f64], share: f64) -> f64 {
    let mut sorted = weights.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let count = ((share * sorted.len() as f64).round() as usize).clamp(1, sorted.len());
    sorted[count - 1]
}

/// The bilevel problem, with both copies of the model to begin where `from` stands.
fn problem(stage: &CleanStage, pairs: &Pairs, from: RewardModel, context: &Context) -> Result<Problem> {
    let set = |examples| PairSet { examples, device: context.device.clone() };
    let examples = ModulePairs::new(from, set(pairs.examples()), set(pairs.trusted.clone()))
        .with_passes_of(stage.training.microbatch.max(1));
    Ok(Cleaning::new(examples, pairs.weights()?, NonNegative::try_from(stage.ridge.get())?)?)
}

/// Looks for weights, from the newest checkpoint if there is one.
fn weigh<'a>(arms: &Arms<'a>, recipe: &RecipeText, problem: &'a Problem) -> Result<Weighing<'a>> {
    let Arms { name, stage, pairs, .. } = *arms;
    // A gradient of all pairs would hold the activations of all pairs.
    let few = NonZeroUsize::new(stage.training.minibatch.min(pairs.training.len()));
    let cleaning =
        CleanConfig { batch: stage.cleaning.batch.or(few), seed: stage.seed, ..stage.cleaning.clone() };
    let (x, y) = (problem.weights().start(), problem.examples().start());
    let solver = DoubleLoop::new(cleaning.solver(problem), problem, x, y.clone(), y)
        .with_context(|| format!("`{name}`: `cleaning` does not go with these pairs"))?;
    let mut weighing = Weighing::new(problem, solver, pairs.flipped());
    let shown = ["clean/hyper_gradient", "clean/effective_sample_size", "clean/auc"];
    let job = Job {
        folder: &arms.folder.join(CLEANING),
        title: name.to_owned(),
        steps: stage.cleaning.outer_steps,
        checkpoint_every: stage.checkpoint_every,
        keep: 1,
        best: None,
        recipe: recipe.clone(),
        inputs: arms.inputs(),
        seeds: vec![("batches", stage.seed)],
        progress: Progress::new(name, &shown),
    };
    drive(&mut weighing, job, arms.context)?;
    Ok(weighing)
}

/// What to know before the weights are trusted.
fn warnings(problem: &Problem, weights: &[f64]) -> Vec<CleaningWarning> {
    let mut warnings = problem.warnings();
    let effective = effective_sample_size(weights);
    if effective < 0.05 * weights.len() as f64 {
        warnings.push(CleaningWarning::FewEffective { effective, examples: weights.len() });
    }
    warnings
}
