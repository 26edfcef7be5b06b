//! DPO and its relatives on pairs from a file, and KTO on rated answers.

use std::path::{Path, PathBuf};

use align_core::{CausalLm, Completions, Draws, Frozen, Reference};
use align_data::Batches as Order;
use align_data::encode::{Encoder, PreferenceExample, PromptResponse};
use align_data::rows::{LabelledRow, PreferenceRow};
use align_models::Transformer;
use align_nash::{
    KtoBatch, KtoObjective, Mismatched, Pair, PairBatch, PairObjective, Rated, cache_anchors,
    kto_microbatches, microbatches, mismatched_rows, row_sums,
};
use align_train::{BatchesFn, Evaluation, Learner, Metrics, Objective, Supervised, evaluate};
use anyhow::{Context as _, Result, bail};
use burn::tensor::Device;
use serde_json::{Value, json};

use super::averaged::Averaged;
use super::{adapters, save_average, save_policy};
use crate::context::{Context, Start};
use crate::data;
use crate::drive::{Job, RecipeText, drive};
use crate::held::Held;
use crate::progress::working;
use crate::recipe::preference::DpoStage;

pub(super) fn run(
    name: &str,
    stage: &DpoStage,
    recipe: RecipeText,
    folder: &Path,
    context: &Context,
) -> Result<Value> {
    let Start { folder: start, model: base, encoder } = context.start(&stage.model, &stage.encode)?;
    let mut held = Held::default();
    let reference: Box<dyn CausalLm> = match &stage.reference {
        None => Box::new(Frozen::new(&base)),
        Some(reference) => held.open(reference, &encoder, context)?,
    };
    let policy = match &stage.lora {
        None => base,
        Some(lora) => {
            adapters::check_without_dropout(lora)?;
            base.with_adapters(lora, &Draws::new(stage.seed))
        }
    };
    let training = Training { name, stage, recipe, folder, context, encoder: &encoder, start: &start };
    let trained = match &stage.kto {
        None => training.on_pairs(policy, &reference),
        Some(_) => training.on_ratings(policy, &reference),
    };
    let (model, summary) = held.explained(trained)?;
    save_policy(folder, &start, &model, stage.lora.is_some())?;
    Ok(summary)
}

struct Training<'a> {
    name: &'a str,
    stage: &'a DpoStage,
    recipe: RecipeText,
    folder: &'a Path,
    context: &'a Context,
    encoder: &'a Encoder,
    start: &'a Path,
}

impl Training<'_> {
    fn on_pairs(self, policy: Transformer, reference: &dyn Reference) -> Result<(Transformer, Value)> {
        let (stage, device) = (self.stage, &self.context.device);
        let rows = data::rows::<PreferenceRow>(&stage.data, self.context)?;
        let encode = |encoder: &Encoder, row: &PreferenceRow| encoder.encode_preference(row);
        let sft_coef = stage.sft_coef.get();
        let mut pairs = labelled(rows.encode("pairs", self.encoder, encode)?, sft_coef);
        let mut held_out = labelled(rows.encode_held_out("pairs", self.encoder, encode)?, sft_coef);
        if stage.loss.needs_reference() {
            let _working = working(&format!("{}: log-probabilities of the reference", self.name));
            for side in [&mut pairs, &mut held_out] {
                cache_anchors(reference, side, stage.training.microbatch, device)
                    .with_context(|| format!("`{}`: cannot measure from the reference", self.name))?;
            }
        }
        let microbatch = stage.training.microbatch;
        let held_out_batches: Vec<PairBatch> = {
            let refs: Vec<&Pair> = held_out.iter().collect();
            microbatches(&refs, microbatch, device)
        };
        let count = pairs.len();
        let mut order = Order::new(count, stage.training.minibatch, stage.seed);
        let batches = {
            let device = device.clone();
            BatchesFn(move |step| {
                let chosen: Vec<&Pair> = order.batch(step).into_iter().map(|row| &pairs[row]).collect();
                Ok(microbatches(&chosen, microbatch, &device))
            })
        };
        let objective = PairObjective::new(stage.loss);
        let shown = ["loss", "rewards/accuracies", "eval/loss"];
        self.train(policy, objective, batches, held_out_batches, (count, held_out.len()), rows.path, &shown)
    }

    fn on_ratings(self, policy: Transformer, reference: &dyn Reference) -> Result<(Transformer, Value)> {
        let (stage, device) = (self.stage, &self.context.device);
        let config = stage.kto.expect("asked for by whoever calls");
        if stage.sft_coef.get() > 0.0 {
            bail!("`sft_coef` goes with pairs, and `[kto]` reads rated answers");
        }
        let rows = data::rows::<LabelledRow>(&stage.data, self.context)?;
        let encode = |encoder: &Encoder, row: &LabelledRow| {
            Ok((encoder.encode_completion(&row.prompt, &row.completion)?, row.label))
        };
        let microbatch = stage.training.microbatch;
        let mut rated = ratings(rows.encode("answers", self.encoder, encode)?);
        let mut held_out = ratings(rows.encode_held_out("answers", self.encoder, encode)?);
        let _working = working(&format!("{}: log-probabilities of the reference", self.name));
        anchor(&mut rated, reference, microbatch, device);
        anchor(&mut held_out, reference, microbatch, device);
        drop(_working);
        let measured = |rows: &[&Rated], device: &Device| {
            kto_microbatches(rows, mismatched(rows, reference, microbatch, device), microbatch, device)
        };
        let held_out_batches: Vec<KtoBatch> = match held_out.as_slice() {
            [] => Vec::new(),
            rows => measured(&rows.iter().collect::<Vec<_>>(), device),
        };
        let count = rated.len();
        let mut order = Order::new(count, stage.training.minibatch, stage.seed);
        let batches = BatchesFn(|step| {
            let chosen: Vec<&Rated> = order.batch(step).into_iter().map(|row| &rated[row]).collect();
            Ok(measured(&chosen, device))
        });
        let shown = ["loss", "rewards/margins", "eval/loss"];
        let objective = KtoObjective::new(config);
        self.train(policy, objective, batches, held_out_batches, (count, held_out.len()), rows.path, &shown)
    }

    /// Trains and judges on what is held out.
    #[allow(clippy::too_many_arguments)]
    fn train<O, D>(
        self,
        policy: Transformer,
        objective: O,
        batches: D,
        held_out: Vec<O::Batch>,
        (count, held_out_count): (usize, usize),
        path: PathBuf,
        shown: &[&str],
    ) -> Result<(Transformer, Value)>
    where
        O: Objective<Transformer> + Clone,
        O::Batch: Clone,
        D: align_train::Batches<Batch = O::Batch>,
    {
        let Self { name, stage, recipe, folder, context, start, .. } = self;
        let steps = stage.training.steps(count);
        let learner = Learner::new(policy, stage.optimizer.clone(), steps)?;
        let mut training = Supervised::new(learner, objective.clone(), batches)
            .with_evaluation(Evaluation { every: stage.training.evaluate_every, batches: held_out.clone() });
        let mut inputs = vec![start.to_owned(), path];
        if let Some(reference) = &stage.reference {
            inputs.extend(context.read_inputs(reference)?);
        }
        let job = Job {
            inputs,
            seeds: vec![("order", stage.seed)],
            ..Job::supervised(name, folder, recipe, &stage.training, steps, shown)
        };
        let mut averaged = Averaged::new(&mut training, stage.training.average.as_ref(), steps)?;
        drive(&mut averaged, job, context)?;
        let average = averaged.finish()?;
        let model = training.into_model();
        let mut summary = json!({ "steps": steps, "rows": count });
        if !held_out.is_empty() {
            let _working = working(&format!("{name}: evaluating on held-out rows"));
            let metrics: Metrics = evaluate(&model, &objective, &held_out)?;
            summary["held_out_rows"] = json!(held_out_count);
            for (key, metric) in
                [("loss", "loss"), ("accuracy", "rewards/accuracies"), ("margin", "rewards/margins")]
            {
                if let Some(value) = metrics.get(metric) {
                    summary[format!("held_out_{key}")] = json!(value);
                }
            }
            if let Some(average) = &average {
                let metrics: Metrics = evaluate(average, &objective, &held_out)?;
                summary["average_held_out_loss"] = json!(metrics.get("loss"));
            }
        }
        save_average(folder, start, average.as_ref())?;
        Ok((model, summary))
    }
}

/// Encoded pairs, the chosen answer first.
fn labelled(examples: Vec<PreferenceExample>, sft_coef: f64) -> Vec<Pair> {
    examples
        .into_iter()
        .map(|example| {
            let length = example.chosen.len() as f64;
            let mut pair = Pair::labelled(example.prompt, example.chosen, example.rejected);
            pair.likelihood[0] = (-sft_coef / length) as f32;
            pair
        })
        .collect()
}

fn ratings(examples: Vec<(PromptResponse, bool)>) -> Vec<Rated> {
    examples
        .into_iter()
        .map(|(PromptResponse { prompt, response }, desirable)| Rated {
            prompt,
            response,
            anchor: 0.0,
            desirable,
        })
        .collect()
}

fn anchor(rows: &mut [Rated], reference: &dyn Reference, microbatch: usize, device: &Device) {
    let answers: Vec<(&[u32], &[u32])> =
        rows.iter().map(|row| (row.prompt.as_slice(), row.response.as_slice())).collect();
    let sums = row_sums(reference, &answers, microbatch, device);
    rows.iter_mut().zip(sums).for_each(|(row, sum)| row.anchor = sum);
}

/// The rows of a step with each other's answers, measured by the reference.
fn mismatched(rows: &[&Rated], reference: &dyn Reference, microbatch: usize, device: &Device) -> Mismatched {
    let rows = mismatched_rows(rows);
    let answers: Vec<(&[u32], &[u32])> =
        rows.iter().map(|(prompt, response)| (prompt.as_slice(), response.as_slice())).collect();
    let anchors = row_sums(reference, &answers, microbatch, device);
    let completions = rows
        .chunks(microbatch.max(1))
        .map(|rows| {
            let (prompts, responses): (Vec<_>, Vec<_>) = rows.iter().cloned().unzip();
            Completions::from_rows(&prompts, &responses, device)
        })
        .collect();
    Mismatched { completions, anchors }
}
