//! A reward model from labelled pairs: trained, brought to a scale, judged on pairs it has not seen.

use std::path::Path;

use align_core::{Draws, PreferencePairs};
use align_data::Batches;
use align_data::collate::preference_pairs;
use align_data::encode::PreferenceExample;
use align_data::rows::PreferenceRow;
use align_models::{Normalization, RewardModel};
use align_reward::{BradleyTerryObjective, ReferenceScores, Target, evaluate_pairs};
use align_train::{BatchesFn, Evaluation, Learner, Supervised};
use anyhow::Result;
use burn::module::Module;
use burn::tensor::Device;
use serde_json::{Value, json};

use super::{adapters, save_model};
use crate::context::{Context, encoder, reward_model};
use crate::data;
use crate::drive::{Job, RecipeText, drive};
use crate::progress::working;
use crate::recipe::parts::MODEL;
use crate::recipe::stage::RewardStage;

pub(super) fn run(
    name: &str,
    stage: &RewardStage,
    recipe: RecipeText,
    folder: &Path,
    context: &Context,
) -> Result<Value> {
    let start = context.model(&stage.model)?;
    let draws = Draws::new(stage.seed);
    // A language model has no score head and gets a fresh one; a reward model goes on with its own.
    let mut model = reward_model(&start, &context.training_device(), Some(&draws))?;
    let config = model.backbone().config();
    let options = stage.encode.options(Some(config.context_length));
    let encoder = encoder(&start, Some(config.vocab_size), options)?;
    if let Some(lora) = &stage.lora {
        adapters::check(lora, false)?;
        model = model.with_adapters(lora, &draws);
    }
    let rows = data::rows::<PreferenceRow>(&stage.data, context)?;
    let examples = rows.encode("pairs", &encoder, |encoder, row| encoder.encode_preference(row))?;
    let held_out = rows.encode_held_out("pairs", &encoder, |encoder, row| encoder.encode_preference(row))?;
    let held_out = batches_of(&held_out, stage.training.microbatch, &context.device);

    let steps = stage.training.steps(examples.len());
    let objective = BradleyTerryObjective { center_rewards_coefficient: stage.center_rewards_coefficient };
    let mut order = Batches::new(examples.len(), stage.training.minibatch, stage.seed);
    let (microbatch, device) = (stage.training.microbatch, context.device.clone());
    let source = BatchesFn(|step| {
        let chosen: Vec<_> = order.batch(step).into_iter().map(|row| examples[row].clone()).collect();
        Ok(batches_of(&chosen, microbatch, &device))
    });
    let learner = Learner::new(model, stage.optimizer.clone(), steps)?;
    let mut training = Supervised::new(learner, objective, source)
        .with_evaluation(Evaluation { every: stage.training.evaluate_every, batches: held_out.clone() });
    let job = Job {
        inputs: vec![start.clone(), rows.path],
        seeds: vec![("head and order", stage.seed)],
        ..Job::supervised(
            name,
            folder,
            recipe,
            &stage.training,
            steps,
            &["loss", "accuracy", "eval/accuracy"],
        )
    };
    drive(&mut training, job, context)?;

    let _working = working(&format!("{name}: measuring the scale"));
    let model = training.into_model().valid();
    let mut summary = json!({ "steps": steps, "pairs": examples.len() });
    // What the scale is measured on: pairs the model has not seen, if there are any.
    let (reference, measured_on) = match held_out.is_empty() {
        true => (batches_of(&examples, microbatch, &context.device), "the pairs it was trained on"),
        false => (held_out.clone(), "held-out pairs, both sides"),
    };
    let model = match stage.normalize {
        true => normalized(model, &reference, measured_on, &mut summary)?,
        false => model,
    };
    if !held_out.is_empty() {
        let report = evaluate_pairs(&model, &held_out)?;
        eprintln!("{name}: {:.1} % of {} held-out pairs right", 100.0 * report.accuracy, report.pairs);
        summary["held_out_accuracy"] = json!(report.accuracy);
        summary["held_out_pairs"] = json!(report.pairs);
        summary["held_out_margin"] = json!(report.mean_margin);
    }
    save_model(&folder.join(MODEL), &start, |folder| model.save_into(folder, &Default::default()))?;
    Ok(summary)
}

/// Shifts and scales so that the reference completions score 0 on average with deviation 1.
fn normalized(
    model: RewardModel,
    reference: &[PreferencePairs],
    measured_on: &str,
    summary: &mut Value,
) -> Result<RewardModel> {
    let model = model.with_normalization(Normalization::default());
    let completions = reference.iter().flat_map(|pairs| [&pairs.chosen, &pairs.rejected]);
    let measured = ReferenceScores::measure(&model, completions, measured_on)?;
    let normalization = measured.normalization(Target::MeanAndDeviation)?;
    summary["scale"] = serde_json::to_value(&measured)?;
    Ok(model.with_normalization(normalization))
}

/// Microbatches of pairs.
fn batches_of(examples: &[PreferenceExample], microbatch: usize, device: &Device) -> Vec<PreferencePairs> {
    examples.chunks(microbatch.max(1)).map(|chunk| preference_pairs(chunk, device)).collect()
}
