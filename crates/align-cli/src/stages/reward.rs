//! A reward model from labelled pairs, or an ensemble of them: trained, brought to a scale, judged on pairs it has not seen.

use std::cell::Cell;
use std::path::Path;

use align_core::{Draws, PreferencePairs};
use align_data::Batches;
use align_data::collate::preference_pairs;
use align_data::encode::{Encoder, PreferenceExample};
use align_data::rows::PreferenceRow;
use align_models::{Normalization, RewardModel};
use align_reward::{
    BradleyTerryObjective, LabelFlips, LabelNoise, Manifest, Member, PairForm, PairwiseManifest,
    ReferenceScores, Target, evaluate_pairs,
};
use align_soup::average;
use align_train::{BatchesFn, Evaluation, Learner, Supervised};
use anyhow::{Context as _, Result, bail};
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use serde_json::{Value, json};

use super::averaged::Averaged;
use super::stream::{Form, Source, Streamed};
use super::{adapters, complete, save_model, write_json, write_origin};
use crate::context::{Context, encoder, reward_model};
use crate::data;
use crate::drive::{Job, RecipeText, drive};
use crate::progress::working;
use crate::recipe::parts::{ADAPTER, AVERAGE, MODEL, TrainingConfig};
use crate::recipe::stage::{EnsembleConfig, RewardStage, StageKind};

/// Which labels were flipped, in a stage's folder.
const FLIPS: &str = "label_flips.json";

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
    let base = reward_model(&start, &context.training_device(), Some(&draws))?;
    let base = match stage.pairwise {
        // The scale of a reward model that training starts from would change every preference.
        true => base.with_normalization(Normalization::default()),
        false => base,
    };
    let config = base.backbone().config();
    let options = stage.encode.options(Some(config.context_length));
    let encoder = encoder(&start, Some(config.vocab_size), options)?;
    if let Some(lora) = &stage.lora {
        adapters::check(lora)?;
    }
    let stage = &match stage.pairwise {
        true => RewardStage { normalize: false, ..checked_pairwise(stage)? },
        false => stage.clone(),
    };
    let mut data = Data::read(stage, &encoder, context)?;
    let form = stage.pairwise.then(|| PairForm::new(encoder.stop_ids()[..1].to_vec()));
    if let Some(form) = &form {
        data.join(form, config.context_length)?;
    }
    let training = Training { stage, start: &start, data: &data, context };
    match &stage.ensemble {
        None => {
            let trained = training.run(name, base, stage.seed, recipe, folder)?;
            if stage.lora.is_some() {
                trained.model.save_adapters(&folder.join(ADAPTER))?;
                write_origin(&folder.join(ADAPTER), &start)?;
            }
            let average = trained.average.as_deref().map(|average| (AVERAGE, average));
            for (place, trained) in [(MODEL, &trained)].into_iter().chain(average) {
                let out = folder.join(place);
                save_model(&out, &start, |folder| trained.model.save_into(folder, &Default::default()))?;
                if let Some(form) = &form {
                    PairwiseManifest::new(form).write(&out)?;
                }
            }
            data.record(folder)?;
            Ok(trained.summary(&data))
        }
        Some(ensemble) => members(name, ensemble, base, &training, folder),
    }
}

/// Refuses what does not go with pairs in one sequence.
fn checked_pairwise(stage: &RewardStage) -> Result<RewardStage> {
    for (key, given) in
        [("ensemble", stage.ensemble.is_some()), ("shuffle_window", stage.shuffle_window.is_some())]
    {
        if given {
            bail!("`pairwise` and `{key}` do not go together: leave one of them out");
        }
    }
    Ok(stage.clone())
}

/// Trains the members one after the other, each in a folder of its own, and puts them together.
fn members(
    name: &str,
    ensemble: &EnsembleConfig,
    base: RewardModel,
    training: &Training<'_>,
    folder: &Path,
) -> Result<Value> {
    let Training { stage, start, data, context } = *training;
    if stage.training.average.is_some() {
        bail!(
            "`training.average` and `ensemble` do not go together: an ensemble keeps the mean of its members, by `ensemble.weight_average`"
        );
    }
    if ensemble.members < 2 {
        bail!(
            "`ensemble.members` is {}, expected at least 2: a single model needs no `[ensemble]`",
            ensemble.members
        );
    }
    let out = folder.join(MODEL);
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    if stage.lora.is_some() {
        save_model(&Manifest::base(&out), start, |folder| base.save_into(folder, &Default::default()))?;
    }
    let mut found = Vec::new();
    for member in 0..ensemble.members {
        let seed = stage.seed + member as u64;
        let one = RewardStage { seed, ensemble: None, ..stage.clone() };
        let title = format!("{name} member {member}");
        let fresh = base.clone().with_new_head(&Draws::new(seed));
        let place = Manifest::member(&out, member);
        let work = |recipe| {
            let own = folder.join(format!("member-{member}"));
            let trained = training.run(&title, fresh, seed, recipe, &own)?;
            let save = |folder: &Path| match stage.lora {
                None => trained.model.save_into(folder, &Default::default()),
                Some(_) => trained.model.save_adapters_into(folder),
            };
            save_model(&place, start, save)?;
            Ok(trained.summary(data))
        };
        let kind = StageKind::Reward(Box::new(one));
        let summary = complete(&title, &kind, &folder.join(format!("member-{member}")), context, work)?;
        found.push(Member {
            seed,
            scale: serde_json::from_value(summary["scale"].clone()).ok(),
            held_out_accuracy: summary["held_out_accuracy"].as_f64(),
        });
    }
    let mut manifest = Manifest::new(ensemble.aggregate, found);
    manifest.adapters = stage.lora.is_some();
    manifest.label_noise = data.flips.as_ref().map(|flips| LabelNoise {
        rate: flips.rate,
        seed: flips.seed,
        flipped: flips.count(),
        pairs: flips.flipped.len(),
    });
    let device = &context.device;
    let mut summary = json!({ "members": manifest.members, "pairs": data.count() });
    if ensemble.weight_average {
        let _working = working(&format!("{name}: averaging the members' weights"));
        let members = manifest.load_members(&out, device)?;
        let count = members.members().len();
        let mean = average(members.members(), vec![1.0 / count as f64; count].as_slice())?;
        let trained = training.judged(&format!("{name} average"), mean)?;
        let save = |folder: &Path| trained.model.save_into(folder, &Default::default());
        save_model(&Manifest::average(&out), start, save)?;
        summary["average"] = trained.summary(data);
        manifest.average = true;
    }
    align_models::checkpoint::copy_companions(start, &out)?;
    manifest.write(&out)?;
    data.record(folder)?;
    let judge = manifest.load(&out, device, None)?;
    if let Some(report) = data.judge(name, &judge)? {
        summary["held_out_accuracy"] = json!(report.accuracy);
        summary["held_out_pairs"] = json!(report.pairs);
        summary["held_out_margin"] = json!(report.mean_margin);
        summary["disagreement"] = json!(judge.take_disagreement());
    }
    Ok(summary)
}

/// What is learnt from and what it is judged on.
struct Data {
    path: std::path::PathBuf,
    pairs: Pairs,
    held_out: Vec<PreferencePairs>,
    flips: Option<LabelFlips>,
}

/// The training side.
enum Pairs {
    InMemory(Vec<PreferenceExample>),
    Streamed(Box<(Source, Encoder)>),
}

/// How rows become pairs.
const FORM: Form<PreferenceRow, PreferenceExample, PreferencePairs> =
    Form { encode: Encoder::encode_preference, batches: batches_of };

impl Data {
    fn read(stage: &RewardStage, encoder: &Encoder, context: &Context) -> Result<Self> {
        if let Some(window) = stage.shuffle_window {
            return Self::stream(stage, window, encoder, context);
        }
        let rows = data::rows::<PreferenceRow>(&stage.data, context)?;
        let mut examples = rows.encode("pairs", encoder, |encoder, row| encoder.encode_preference(row))?;
        let held_out =
            rows.encode_held_out("pairs", encoder, |encoder, row| encoder.encode_preference(row))?;
        // Held-out labels stay right: they measure.
        let flips = stage
            .label_noise
            .as_ref()
            .map(|noise| LabelFlips::draw(0..examples.len() as u64, noise.rate, &Draws::new(noise.seed)));
        if let Some(flips) = &flips {
            for (example, _) in examples.iter_mut().zip(&flips.flipped).filter(|(_, flipped)| **flipped) {
                std::mem::swap(&mut example.chosen, &mut example.rejected);
            }
            eprintln!("{} of {} labels were flipped", flips.count(), examples.len());
        }
        let held_out = batches_of(&held_out, stage.training.microbatch, &context.device);
        Ok(Self { path: rows.path, pairs: Pairs::InMemory(examples), held_out, flips })
    }

    /// Reads nothing but windows; only the held-out side is kept.
    fn stream(stage: &RewardStage, window: usize, encoder: &Encoder, context: &Context) -> Result<Self> {
        if stage.label_noise.is_some() {
            bail!(
                "`label_noise` flips labels by their place among all pairs, which `shuffle_window` never has together"
            );
        }
        let source = Source::new(window, &stage.data, &stage.training, context)?;
        let held_out = source.held_out(encoder, FORM)?;
        if held_out.is_empty() && stage.normalize {
            bail!(
                "`normalize` measures the scale on held-out pairs where data is streamed, and `data.held_out` is {}: give a \
                 share, or normalize = false",
                stage.data.held_out.get()
            );
        }
        let held_out = batches_of(&held_out, stage.training.microbatch, &context.device);
        let path = source.path.clone();
        Ok(Self { path, pairs: Pairs::Streamed(Box::new((source, encoder.clone()))), held_out, flips: None })
    }

    /// Puts both answers of every pair into one sequence: what was chosen comes first in what is to score higher. Pairs that are
    /// too long for one sequence are passed over.
    fn join(&mut self, form: &PairForm, context_length: usize) -> Result<()> {
        if let Pairs::InMemory(examples) = &mut self.pairs {
            let all = examples.len();
            let length = |e: &PreferenceExample| form.length(&e.prompt, &e.chosen, &e.rejected);
            examples.retain(|example| length(example) <= context_length);
            if examples.len() < all {
                let dropped = all - examples.len();
                eprintln!("pairs: {dropped} of {all} are too long for one sequence and were passed over");
            }
            if examples.is_empty() {
                bail!("no pair is left whose two answers fit into one sequence of {context_length} tokens");
            }
            for example in examples {
                let (chosen, rejected) = (example.chosen.clone(), example.rejected.clone());
                example.chosen = form.join(&example.prompt, &chosen, &rejected).1;
                example.rejected = form.join(&example.prompt, &rejected, &chosen).1;
            }
        }
        self.held_out =
            self.held_out.iter().filter_map(|pairs| fitting(form, pairs, context_length)).collect();
        Ok(())
    }

    /// How many pairs there are to learn from, if that was counted.
    fn count(&self) -> Option<usize> {
        match &self.pairs {
            Pairs::InMemory(examples) => Some(examples.len()),
            Pairs::Streamed(_) => None,
        }
    }

    /// Optimiser steps of a training.
    fn steps(&self, training: &TrainingConfig) -> u64 {
        match &self.pairs {
            Pairs::InMemory(examples) => training.steps(examples.len()),
            Pairs::Streamed(stream) => stream.0.steps,
        }
    }

    /// Microbatches in the order of a seed.
    fn batches<'a>(
        &'a self,
        training: &TrainingConfig,
        seed: u64,
        device: &Device,
    ) -> Box<dyn align_train::Batches<Batch = PreferencePairs> + 'a> {
        let (microbatch, device) = (training.microbatch, device.clone());
        match &self.pairs {
            Pairs::InMemory(examples) => {
                let mut order = Batches::new(examples.len(), training.minibatch, seed);
                Box::new(BatchesFn(move |step| {
                    let chosen: Vec<_> =
                        order.batch(step).into_iter().map(|row| examples[row].clone()).collect();
                    Ok(batches_of(&chosen, microbatch, &device))
                }))
            }
            Pairs::Streamed(stream) => {
                let (source, encoder) = &**stream;
                Box::new(Streamed::new(source, seed, FORM, encoder.clone(), training, &device))
            }
        }
    }

    /// Writes which labels were made wrong.
    fn record(&self, folder: &Path) -> Result<()> {
        if let Some(flips) = &self.flips {
            write_json(&folder.join(FLIPS), flips)?;
        }
        Ok(())
    }

    /// How a reward does on what is held out, if anything is.
    fn judge(&self, name: &str, reward: &dyn align_core::Reward) -> Result<Option<align_reward::PairReport>> {
        if self.held_out.is_empty() {
            return Ok(None);
        }
        let report = evaluate_pairs(reward, &self.held_out)?;
        eprintln!("{name}: {:.1} % of {} held-out pairs right", 100.0 * report.accuracy, report.pairs);
        Ok(Some(report))
    }
}

/// How every model of a stage is trained.
#[derive(Clone, Copy)]
struct Training<'a> {
    stage: &'a RewardStage,
    start: &'a Path,
    data: &'a Data,
    context: &'a Context,
}

/// A model with what was measured of it.
struct Trained {
    model: RewardModel,
    steps: Option<u64>,
    scale: Option<ReferenceScores>,
    report: Option<align_reward::PairReport>,
    /// The same of the average along the training, if one was kept.
    average: Option<Box<Trained>>,
}

impl Training<'_> {
    /// Trains one model, with the recipe that its run folder keeps.
    fn run(
        &self,
        title: &str,
        model: RewardModel,
        seed: u64,
        recipe: RecipeText,
        folder: &Path,
    ) -> Result<Trained> {
        let Self { stage, data, context, .. } = *self;
        let model = match &stage.lora {
            None => model,
            Some(lora) => model.with_adapters(lora, &Draws::new(seed)),
        };
        let steps = data.steps(&stage.training);
        let objective = BradleyTerryObjective {
            center_rewards_coefficient: stage.center_rewards_coefficient,
            reward_l2_coefficient: stage.reward_l2_coefficient,
        };
        let place = Cell::new((0, 0));
        let objective = adapters::Dropping::new(objective, Draws::new(seed), &place);
        let batches = data.batches(&stage.training, seed, &context.device);
        let source = adapters::AtSteps { batches, place: &place };
        let learner = Learner::new(model, stage.optimizer.clone(), steps)?;
        let mut training = Supervised::new(learner, objective, source).with_evaluation(Evaluation {
            every: stage.training.evaluate_every,
            batches: data.held_out.clone(),
        });
        let shown = ["loss", "accuracy", "eval/accuracy"];
        let job = Job {
            inputs: vec![self.start.to_owned(), data.path.clone()],
            seeds: vec![("head and order", seed)],
            ..Job::supervised(title, folder, recipe, &stage.training, steps, &shown)
        };
        let mut averaged = Averaged::new(&mut training, stage.training.average.as_ref(), steps)?;
        drive(&mut averaged, job, context)?;
        let average = averaged.finish()?;
        let average = average.map(|average| self.judged(&format!("{title} average"), average)).transpose()?;
        let trained = self.judged(title, training.into_model().valid())?;
        Ok(Trained { steps: Some(steps), average: average.map(Box::new), ..trained })
    }

    /// Brings a model to its scale and judges it.
    fn judged(&self, title: &str, model: RewardModel) -> Result<Trained> {
        let Self { stage, data, context, .. } = *self;
        let _working = working(&format!("{title}: measuring the scale"));
        let (model, scale) = match stage.normalize {
            false => (model, None),
            true => {
                // What the scale is measured on: pairs the model has not seen, if there are any.
                let (model, scale) = match &data.pairs {
                    Pairs::InMemory(examples) if data.held_out.is_empty() => {
                        let trained_on = batches_of(examples, stage.training.microbatch, &context.device);
                        normalized(model, &trained_on, "the pairs it was trained on")?
                    }
                    _ => normalized(model, &data.held_out, "held-out pairs, both sides")?,
                };
                (model, Some(scale))
            }
        };
        let report = data.judge(title, &model)?;
        Ok(Trained { model, steps: None, scale, report, average: None })
    }
}

impl Trained {
    fn summary(&self, data: &Data) -> Value {
        let mut summary = json!({ "pairs": data.count() });
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                summary[key] = value;
            }
        };
        set("steps", self.steps.map(|steps| json!(steps)));
        set("scale", self.scale.as_ref().map(|scale| json!(scale)));
        set("flipped_labels", data.flips.as_ref().map(|flips| json!(flips.count())));
        set("held_out_accuracy", self.report.map(|report| json!(report.accuracy)));
        set("held_out_pairs", self.report.map(|report| json!(report.pairs)));
        set("held_out_margin", self.report.map(|report| json!(report.mean_margin)));
        set("average", self.average.as_ref().map(|average| average.summary(data)));
        summary
    }
}

/// Shifts and scales so that the reference completions score 0 on average with deviation 1.
pub(super) fn normalized(
    model: RewardModel,
    reference: &[PreferencePairs],
    measured_on: &str,
) -> Result<(RewardModel, ReferenceScores)> {
    let model = model.with_normalization(Normalization::default());
    let completions = reference.iter().flat_map(|pairs| [&pairs.chosen, &pairs.rejected]);
    let measured = ReferenceScores::measure(&model, completions, measured_on)?;
    let normalization = measured.normalization(Target::MeanAndDeviation)?;
    Ok((model.with_normalization(normalization), measured))
}

/// The pairs of a batch that fit into one sequence, joined; `None` if there are none.
fn fitting(form: &PairForm, pairs: &PreferencePairs, context_length: usize) -> Option<PreferencePairs> {
    let (prompts, chosen, rejected) =
        (pairs.chosen.prompt.rows(), pairs.chosen.response.rows(), pairs.rejected.response.rows());
    let fits = |row: &usize| form.length(&prompts[*row], &chosen[*row], &rejected[*row]) <= context_length;
    let rows: Vec<usize> = (0..prompts.len()).filter(fits).collect();
    if rows.is_empty() {
        return None;
    }
    let margins: Vec<f32> = pairs.margin.to_data().iter::<f32>().collect();
    let margin: Vec<f32> = rows.iter().map(|&row| margins[row]).collect();
    let count = rows.len();
    Some(form.pairs(&PreferencePairs {
        chosen: pairs.chosen.select(&rows),
        rejected: pairs.rejected.select(&rows),
        margin: Tensor::from_data(TensorData::new(margin, [count]), &pairs.margin.device()),
    }))
}

/// Microbatches of pairs.
fn batches_of(examples: &[PreferenceExample], microbatch: usize, device: &Device) -> Vec<PreferencePairs> {
    examples.chunks(microbatch.max(1)).map(|chunk| preference_pairs(chunk, device)).collect()
}
