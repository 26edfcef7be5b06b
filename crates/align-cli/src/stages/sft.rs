//! Supervised fine-tuning of a model on demonstrations.

use std::path::Path;

use align_data::Batches;
use align_data::collate::demonstrations;
use align_data::encode::Example;
use align_data::rows::DemonstrationRow;
use align_models::checkpoint::copy_companions;
use align_train::{BatchesFn, Evaluation, Learner, NextToken, Supervised, evaluate};
use anyhow::Result;
use burn::tensor::Device;
use serde_json::{Value, json};

use crate::context::Context;
use crate::data;
use crate::drive::{Job, RecipeText, drive};
use crate::recipe::parts::MODEL;
use crate::recipe::stage::SftStage;

pub(super) fn run(
    name: &str,
    stage: &SftStage,
    recipe: RecipeText,
    folder: &Path,
    context: &Context,
) -> Result<Value> {
    let start = context.model(&stage.model)?;
    let model = context.transformer(&start, &context.training_device())?;
    let config = model.config();
    let options = stage.encode.options(Some(config.context_length));
    let encoder = context.encoder(&start, Some(config.vocab_size), options)?;
    let rows = data::rows::<DemonstrationRow>(&stage.data, context)?;
    let examples =
        data::encode("demonstrations", &rows.rows, &encoder, |encoder, row| encoder.encode_sft(row))?;
    let held_out = match rows.held_out.is_empty() {
        true => Vec::new(),
        false => data::encode("held-out demonstrations", &rows.held_out, &encoder, |encoder, row| {
            encoder.encode_sft(row)
        })?,
    };
    let steps = stage.training.steps(examples.len());
    let learner = Learner::new(model, stage.optimizer.clone(), steps)?;
    let evaluation = batches_of(&held_out, stage.training.microbatch, &context.device);
    let mut order = Batches::new(examples.len(), stage.training.minibatch, stage.seed);
    let (microbatch, device) = (stage.training.microbatch, context.device.clone());
    let source = BatchesFn(|step| {
        let chosen: Vec<Example> = order.batch(step).into_iter().map(|row| examples[row].clone()).collect();
        Ok(batches_of(&chosen, microbatch, &device))
    });
    let mut training = Supervised::new(learner, NextToken, source)
        .with_evaluation(Evaluation { every: stage.training.evaluate_every, batches: evaluation.clone() });
    let job = Job {
        folder,
        title: name.to_owned(),
        steps,
        checkpoint_every: stage.training.checkpoint_every,
        keep: stage.training.keep,
        best: stage.training.best.clone(),
        recipe,
        inputs: vec![start.clone(), rows.path],
        seeds: vec![("order", stage.seed)],
        shown: &["loss", "eval/loss"],
    };
    drive(&mut training, job, context)?;
    let model = training.into_model();
    let mut summary = json!({ "steps": steps, "rows": examples.len() });
    if !evaluation.is_empty() {
        let metrics = evaluate(&model, &NextToken, &evaluation)?;
        summary["held_out_loss"] = json!(metrics.get("loss"));
        summary["held_out_rows"] = json!(held_out.len());
    }
    model.save_pretrained(&folder.join(MODEL))?;
    copy_companions(&start, &folder.join(MODEL))?;
    Ok(summary)
}

/// Microbatches of a step.
pub(super) fn batches_of(
    examples: &[Example],
    microbatch: usize,
    device: &Device,
) -> Vec<align_core::Demonstrations> {
    examples.chunks(microbatch.max(1)).map(|chunk| demonstrations(chunk, device)).collect()
}
