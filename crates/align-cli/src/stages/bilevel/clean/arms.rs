//! Reward models on differently chosen pairs, all trained and measured the same way.

use std::path::{Path, PathBuf};

use align_core::PreferencePairs;
use align_data::Batches;
use align_data::collate::preference_pairs;
use align_data::encode::PreferenceExample;
use align_models::RewardModel;
use align_reward::evaluate_pairs;
use align_train::{BatchesFn, Evaluation, Learner, Supervised};
use anyhow::{Context as _, Result, bail};
use burn::module::Module;
use serde_json::json;

use super::data::Pairs;
use super::found::ArmFigures;
use super::pairs::{Weighted, WeightedRanking, losses};
use crate::context::{Context, reward_model};
use crate::drive::{Job, drive};
use crate::recipe::bilevel::{Arm, CleanStage};
use crate::recipe::parts::MODEL;
use crate::recipe::stage::StageKind;
use crate::stages::reward::normalized;
use crate::stages::{complete, save_model};

/// Everything that a training needs.
#[derive(Clone, Copy)]
pub(super) struct Arms<'a> {
    pub(super) name: &'a str,
    pub(super) stage: &'a CleanStage,
    pub(super) pairs: &'a Pairs,
    /// Where every arm starts.
    pub(super) base: &'a RewardModel,
    /// The folder it was read from.
    pub(super) start: &'a Path,
    /// The stage's.
    pub(super) folder: &'a Path,
    pub(super) context: &'a Context,
}

/// Pairs with their weights.
pub(super) type Rows<'a> = Vec<(&'a PreferenceExample, f64)>;

impl<'a> Arms<'a> {
    /// All pairs to clean, alike.
    pub(super) fn everything(&self) -> Rows<'a> {
        self.pairs.training.iter().map(|item| (&item.example, 1.0)).collect()
    }

    /// The trusted pairs, alike.
    pub(super) fn trusted(&self) -> Rows<'a> {
        self.pairs.trusted.iter().map(|example| (example, 1.0)).collect()
    }

    /// All pairs, each with its weight.
    pub(super) fn weighted(&self, weights: &[f64]) -> Rows<'a> {
        self.everything().into_iter().zip(weights).map(|((example, _), weight)| (example, *weight)).collect()
    }

    /// Those of all pairs that are marked; none without marks.
    pub(super) fn chosen(&self, marked: Option<&[bool]>) -> Rows<'a> {
        let all = self.everything().into_iter().zip(marked.unwrap_or_default());
        all.filter(|(_, marked)| **marked).map(|(row, _)| row).collect()
    }

    /// What the stage reads.
    pub(super) fn inputs(&self) -> Vec<PathBuf> {
        [&[self.start.to_owned()], &self.pairs.paths[..]].concat()
    }

    /// Where an arm's training lies.
    fn place(&self, arm: Arm) -> PathBuf {
        self.folder.join("arms").join(arm.word())
    }

    /// Where its model lies: that of the cleaned pairs is what the stage is for.
    fn model(&self, arm: Arm) -> PathBuf {
        match arm {
            Arm::Cleaned => self.folder.join(MODEL),
            _ => self.place(arm).join(MODEL),
        }
    }

    /// Opens an arm's model on the recording device.
    pub(super) fn load(&self, arm: Arm) -> Result<RewardModel> {
        reward_model(&self.model(arm), &self.context.training_device(), None)
    }

    /// Trains one arm, or finds it trained.
    pub(super) fn train_on(&self, arm: Arm, rows: Rows<'_>) -> Result<ArmFigures> {
        let Self { name, stage, context, .. } = *self;
        if rows.is_empty() {
            bail!("`{name}`: no pair is left for the arm `{}`", arm.word());
        }
        let title = format!("{name} {}", arm.word());
        let kind = StageKind::Clean(Box::new(CleanStage { arms: vec![arm], ..stage.clone() }));
        let place = self.place(arm);
        let work = |recipe| {
            let (training, device, seed) = (&stage.training, context.device.clone(), stage.seed);
            let steps = training.steps(rows.len());
            let mut order = Batches::new(rows.len(), training.minibatch, seed);
            let microbatch = training.microbatch.max(1);
            let batches = BatchesFn(|step| {
                let chosen: Rows<'_> = order.batch(step).into_iter().map(|row| rows[row]).collect();
                Ok(Weighted::batches(&chosen, microbatch, &device))
            });
            let learner = Learner::new(self.base.clone(), stage.optimizer.clone(), steps)?;
            let held_out: Rows<'_> = self.pairs.held_out.iter().map(|example| (example, 1.0)).collect();
            let evaluation = Evaluation {
                every: training.evaluate_every,
                batches: Weighted::batches(&held_out, microbatch, &context.device),
            };
            let mut learned = Supervised::new(learner, WeightedRanking, batches).with_evaluation(evaluation);
            let job = Job {
                inputs: self.inputs(),
                seeds: vec![("head and order", seed)],
                ..Job::supervised(
                    &title,
                    &place,
                    recipe,
                    training,
                    steps,
                    &["loss", "accuracy", "eval/accuracy"],
                )
            };
            drive(&mut learned, job, context)?;
            let (model, figures) = self.measured(arm, learned.into_model().valid(), &rows)?;
            save_model(&self.model(arm), self.start, |folder| model.save_into(folder, &Default::default()))?;
            Ok(json!(figures))
        };
        let summary = complete(&title, &kind, &place, context, work)?;
        serde_json::from_value(summary).with_context(|| format!("{} is damaged", place.display()))
    }

    /// Brings a model to its scale and measures it on what is held out.
    fn measured(&self, arm: Arm, model: RewardModel, rows: &Rows<'_>) -> Result<(RewardModel, ArmFigures)> {
        let (microbatch, device) = (self.stage.training.microbatch.max(1), &self.context.device);
        let batches = |examples: &[PreferenceExample]| -> Vec<PreferencePairs> {
            examples.chunks(microbatch).map(|chunk| preference_pairs(chunk, device)).collect()
        };
        let name = arm.word().to_owned();
        let mut figures = ArmFigures { name, pairs: rows.len(), accuracy: None, nll: None };
        let held_out = batches(&self.pairs.held_out);
        if held_out.is_empty() {
            let own: Vec<PreferenceExample> = rows.iter().map(|(example, _)| (*example).clone()).collect();
            let (model, _) = normalized(model, &batches(&own), "the pairs it was trained on")?;
            return Ok((model, figures));
        }
        let losses = losses(&model, &self.pairs.held_out, microbatch, device);
        figures.nll = Some(losses.iter().sum::<f64>() / losses.len() as f64);
        let (model, _) = normalized(model, &held_out, "held-out pairs, both sides")?;
        figures.accuracy = Some(evaluate_pairs(&model, &held_out)?.accuracy);
        Ok((model, figures))
    }

    /// All pairs but so many with the largest loss under the model of all pairs: what filtering by confidence keeps.
    pub(super) fn confident(&self, dropped: usize) -> Result<Vec<bool>> {
        let model = self.load(Arm::All)?.valid();
        let microbatch = self.stage.training.microbatch.max(1);
        let losses = losses(&model, &self.pairs.examples(), microbatch, &self.context.device);
        let mut order: Vec<usize> = (0..losses.len()).collect();
        order.sort_by(|&a, &b| losses[b].total_cmp(&losses[a]));
        let mut kept = vec![true; losses.len()];
        order[..dropped].iter().for_each(|&row| kept[row] = false);
        Ok(kept)
    }
}
