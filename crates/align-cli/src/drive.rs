//! Runs a training to its end, or to where it was interrupted: folder, observers, checkpoints, resume.

use std::path::{Path, PathBuf};

use align_train::{
    Algorithm, Best, CheckpointPlan, Ended, Interrupt, JsonLines, Observer, OnDamage, Progress, RunFolder,
    RunInfo, RunPlan, TensorBoard,
};
use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Value;

use crate::context::{Context, Interrupted};
use crate::recipe::parts::TrainingConfig;

/// A training to run.
pub(crate) struct Job<'a> {
    /// Where metrics and checkpoints go.
    pub(crate) folder: &'a Path,
    /// What it is called.
    pub(crate) title: String,
    /// Iterations in all.
    pub(crate) steps: u64,
    /// A checkpoint after every so many; 0 only at the end and when interrupted.
    pub(crate) checkpoint_every: u64,
    /// How many of the newest checkpoints stay.
    pub(crate) keep: usize,
    /// Which others stay.
    pub(crate) best: Option<Best>,
    /// The stage's recipe, defaults spelt out.
    pub(crate) recipe: RecipeText,
    /// Files and folders it reads.
    pub(crate) inputs: Vec<PathBuf>,
    /// Seeds by name.
    pub(crate) seeds: Vec<(&'static str, u64)>,
    /// The bar, with the metrics it shows.
    pub(crate) progress: Progress,
}

impl<'a> Job<'a> {
    /// A supervised training of a stage.
    pub(crate) fn supervised(
        title: &str,
        folder: &'a Path,
        recipe: RecipeText,
        training: &TrainingConfig,
        steps: u64,
        shown: &[&str],
    ) -> Self {
        Self {
            folder,
            title: title.to_owned(),
            steps,
            checkpoint_every: training.checkpoint_every,
            keep: training.keep,
            best: training.best.clone(),
            recipe,
            inputs: Vec::new(),
            seeds: Vec::new(),
            progress: Progress::new(title, shown),
        }
    }
}

/// A recipe in the two forms a run folder keeps.
#[derive(Clone, Debug)]
pub(crate) struct RecipeText {
    pub(crate) toml: String,
    pub(crate) json: Value,
}

impl RecipeText {
    /// Of anything that was read from a recipe.
    pub(crate) fn of(recipe: &impl Serialize) -> Result<Self> {
        Ok(Self { toml: toml::to_string_pretty(recipe)?, json: serde_json::to_value(recipe)? })
    }
}

/// Runs `algorithm`, going on from the newest checkpoint if there is one and resuming was asked for.
pub(crate) fn drive(algorithm: &mut dyn Algorithm, job: Job<'_>, context: &Context) -> Result<()> {
    let begun = job.folder.join("run.json").exists();
    let folder = if begun && context.resume {
        RunFolder::open(job.folder, &job.recipe.json, &[])?
    } else {
        let seeds = job.seeds.iter().map(|(name, seed)| ((*name).to_owned(), *seed)).collect();
        let info = RunInfo {
            recipe_text: job.recipe.toml.clone(),
            recipe: job.recipe.json.clone(),
            seeds,
            inputs: job.inputs.clone(),
            versions: [("align".to_owned(), env!("CARGO_PKG_VERSION").to_owned())].into(),
        };
        RunFolder::create(job.folder, &info)?
    };
    let mut checkpoints =
        CheckpointPlan::new(folder.checkpoints(), job.checkpoint_every, job.recipe.json.clone());
    checkpoints.keep = job.keep.max(1);
    checkpoints.best = job.best.clone();
    align_train::checkpoint::recover(&checkpoints.folder)?;
    let start = if align_train::checkpoint::checkpoints(&checkpoints.folder).is_empty() {
        0
    } else {
        let start = align_train::resume(algorithm, &checkpoints, OnDamage::UsePrevious)
            .with_context(|| format!("cannot resume {}", job.folder.display()))?;
        eprintln!("{}: going on after step {start} of {}", job.title, job.steps);
        start
    };
    let plan = RunPlan::new(job.steps).with_checkpoints(checkpoints).from(start);
    let mut progress = job.progress;
    let mut lines = JsonLines::new(folder.metrics());
    let mut board = TensorBoard::new(folder.tensorboard());
    let mut interrupt = Interrupt::new(context.interrupt.clone());
    let mut observers: [&mut dyn Observer; 4] = [&mut progress, &mut lines, &mut board, &mut interrupt];
    let ended = align_train::run(algorithm, &plan, &mut observers).with_context(|| {
        format!("`{}` stopped; what was saved before stands in {}", job.title, job.folder.display())
    })?;
    match ended {
        Ended::Finished => Ok(()),
        Ended::Stopped { .. } => Err(Interrupted { saved_in: Some(job.folder.to_owned()) }.into()),
    }
}
