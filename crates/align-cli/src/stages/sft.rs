//! Supervised fine-tuning of a model on demonstrations.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use align_core::{Demonstrations, Draws};
use align_data::Batches as Order;
use align_data::collate::demonstrations;
use align_data::encode::{Encoder, Example};
use align_data::rows::DemonstrationRow;
use align_models::Transformer;
use align_train::{
    Batches, BatchesFn, Evaluation, Learner, NextToken, Objective, RecomputedNextToken, Supervised, evaluate,
};
use anyhow::Result;
use burn::tensor::Device;
use serde_json::{Value, json};

use super::adapters::AtSteps;
use super::averaged::Averaged;
use super::stream::{Form, Source, Streamed};
use super::{adapters, save_average, save_policy};
use crate::context::{Context, Start};
use crate::data;
use crate::drive::{Job, RecipeText, drive};
use crate::progress::working;
use crate::recipe::stage::SftStage;

pub(super) fn run(
    name: &str,
    stage: &SftStage,
    recipe: RecipeText,
    folder: &Path,
    context: &Context,
) -> Result<Value> {
    let Start { folder: start, mut model, encoder } = context.start(&stage.model, &stage.encode)?;
    if let Some(lora) = &stage.lora {
        adapters::check(lora)?;
        model = model.with_adapters(lora, &Draws::new(stage.seed));
    }
    let data = match stage.shuffle_window {
        None => in_memory(stage, &encoder, context)?,
        Some(window) => streamed(stage, window, &encoder, context)?,
    };
    let steps = data.steps;
    let learner = Learner::new(model, stage.optimizer.clone(), steps)?;
    let place = Cell::new((0, 0));
    let objective: &dyn Objective<Transformer, Batch = Demonstrations> =
        if stage.recompute { &RecomputedNextToken } else { &NextToken };
    let objective = adapters::Dropping::new(objective, Draws::new(stage.seed), &place);
    let source = AtSteps { batches: data.batches, place: &place };
    let mut training = Supervised::new(learner, objective, source)
        .with_evaluation(Evaluation { every: stage.training.evaluate_every, batches: data.held_out.clone() });
    let job = Job {
        inputs: vec![start.clone(), data.path],
        seeds: vec![("order", stage.seed)],
        ..Job::supervised(name, folder, recipe, &stage.training, steps, &["loss", "eval/loss"])
    };
    let mut averaged = Averaged::new(&mut training, stage.training.average.as_ref(), steps)?;
    drive(&mut averaged, job, context)?;

    let average = averaged.finish()?;
    let model = training.into_model();
    let mut summary = json!({ "steps": steps });
    if let Some(rows) = data.rows {
        summary["rows"] = json!(rows);
    }
    if !data.held_out.is_empty() {
        let _working = working(&format!("{name}: evaluating on held-out rows"));
        let metrics = evaluate(&model, &NextToken, &data.held_out)?;
        summary["held_out_loss"] = json!(metrics.get("loss"));
        summary["held_out_rows"] = json!(data.held_out_rows);
        if let Some(average) = &average {
            let metrics = evaluate(average, &NextToken, &data.held_out)?;
            summary["average_held_out_loss"] = json!(metrics.get("loss"));
        }
    }
    save_average(folder, &start, average.as_ref())?;
    save_policy(folder, &start, &model, stage.lora.is_some())?;
    Ok(summary)
}

/// What is learnt from and what is held out.
struct Data {
    path: PathBuf,
    batches: Box<dyn Batches<Batch = Demonstrations>>,
    steps: u64,
    /// How many rows there are, if that was counted.
    rows: Option<usize>,
    held_out: Vec<Demonstrations>,
    held_out_rows: usize,
}

fn in_memory(stage: &SftStage, encoder: &Encoder, context: &Context) -> Result<Data> {
    let rows = data::rows::<DemonstrationRow>(&stage.data, context)?;
    let examples = rows.encode("demonstrations", encoder, |encoder, row| encoder.encode_sft(row))?;
    let held_out = rows.encode_held_out("demonstrations", encoder, |encoder, row| encoder.encode_sft(row))?;
    let count = examples.len();
    let (microbatch, device) = (stage.training.microbatch, context.device.clone());
    let held_out_batches = batches_of(&held_out, microbatch, &device);
    let mut order = Order::new(count, stage.training.minibatch, stage.seed);
    let batches = BatchesFn(move |step| {
        let chosen: Vec<Example> = order.batch(step).into_iter().map(|row| examples[row].clone()).collect();
        Ok(batches_of(&chosen, microbatch, &device))
    });
    Ok(Data {
        path: rows.path,
        batches: Box::new(batches),
        steps: stage.training.steps(count),
        rows: Some(count),
        held_out: held_out_batches,
        held_out_rows: held_out.len(),
    })
}

/// Reads nothing but windows; only the held-out side is kept.
fn streamed(stage: &SftStage, window: usize, encoder: &Encoder, context: &Context) -> Result<Data> {
    let form = Form { encode: Encoder::encode_sft, batches: batches_of };
    let source = Source::new(window, &stage.data, &stage.training, context)?;
    let held_out = source.held_out(encoder, form)?;
    let batches = Streamed::new(&source, stage.seed, form, encoder.clone(), &stage.training, &context.device);
    Ok(Data {
        path: source.path,
        batches: Box::new(batches),
        steps: source.steps,
        rows: None,
        held_out: batches_of(&held_out, stage.training.microbatch, &context.device),
        held_out_rows: held_out.len(),
    })
}

/// Microbatches of a step.
pub(super) fn batches_of(examples: &[Example], microbatch: usize, device: &Device) -> Vec<Demonstrations> {
    examples.chunks(microbatch.max(1)).map(|chunk| demonstrations(chunk, device)).collect()
}
