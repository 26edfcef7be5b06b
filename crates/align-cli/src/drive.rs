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

/// A training to run.
pub(crate) struct Job<'a> {
    /// Where metrics and checkpoints go.
    pub(crate) folder: &'a Path,
    /// What the progress bar says.
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
    /// Metrics beside the bar.
    pub(crate) shown: &'static [&'static str],
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
        RunFolder::create(
            job.folder,
            &RunInfo {
                recipe_text: job.recipe.toml.clone(),
                recipe: job.recipe.json.clone(),
                seeds: job.seeds.iter().map(|(name, seed)| ((*name).to_owned(), *seed)).collect(),
                inputs: job.inputs.clone(),
                versions: [("align".to_owned(), env!("CARGO_PKG_VERSION").to_owned())].into(),
            },
        )?
    };
    let mut checkpoints =
        CheckpointPlan::new(folder.checkpoints(), job.checkpoint_every, job.recipe.json.clone());
    checkpoints.keep = job.keep.max(1);
    checkpoints.best = job.best.clone();
    let any_saved = std::fs::read_dir(folder.checkpoints()).is_ok_and(|mut entries| entries.next().is_some());
    let start = if begun && context.resume && any_saved {
        let start = align_train::resume(algorithm, &checkpoints, OnDamage::UsePrevious)
            .with_context(|| format!("cannot resume {}", job.folder.display()))?;
        eprintln!("{}: going on after step {start} of {}", job.title, job.steps);
        start
    } else {
        0
    };
    let plan = RunPlan::new(job.steps).with_checkpoints(checkpoints).from(start);
    let mut progress = Progress::new(&job.title, job.shown);
    let mut lines = JsonLines::new(folder.metrics());
    let mut board = TensorBoard::new(folder.tensorboard());
    let mut interrupt = Interrupt::new(context.interrupt.clone());
    let mut observers: [&mut dyn Observer; 4] = [&mut progress, &mut lines, &mut board, &mut interrupt];
    match align_train::run(algorithm, &plan, &mut observers).with_context(|| {
        format!("`{}` stopped; what was saved before stands in {}", job.title, job.folder.display())
    })? {
        Ended::Finished => Ok(()),
        Ended::Stopped { .. } => Err(Interrupted { folder: job.folder.to_owned() }.into()),
    }
}
