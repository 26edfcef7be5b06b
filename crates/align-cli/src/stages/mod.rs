//! Stages of a recipe, each from its table to its folder.

mod eval;
mod init;
mod ppo;
mod reward;
mod sft;
mod soup;
mod world;

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use align_core::persist::replace_file;
use align_train::differences;

use crate::context::Context;
use crate::drive::RecipeText;
use crate::recipe::stage::{Stage, StageKind};

pub(crate) use eval::{ArmResult, Comparison};
pub(crate) use world::gold_of;

/// Written last into a stage's folder: it is complete.
pub(crate) const DONE: &str = "stage.json";

/// What a complete stage says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Done {
    /// The kind's word.
    pub(crate) kind: String,
    /// The stage's recipe, defaults spelt out.
    pub(crate) recipe: Value,
    /// Figures worth repeating.
    pub(crate) summary: Value,
    /// How long it took.
    pub(crate) seconds: f64,
}

impl Done {
    /// What the folder says, if the stage in it is complete.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(DONE);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(
                serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?,
            )),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Says the stage in the folder is complete.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        replace_file(&folder.join(DONE), |file| Ok(serde_json::to_writer_pretty(file, self)?))?;
        Ok(())
    }
}

/// Runs a stage into its folder, or says that it is done already.
pub(crate) fn run(stage: &Stage, folder: &Path, context: &Context) -> Result<Value> {
    let recipe = RecipeText::of(&stage.kind)?;
    if let Some(done) = Done::read(folder)? {
        if !context.resume {
            bail!(
                "{} holds a finished `{}`; give --overwrite to replace it or another output_dir",
                folder.display(),
                done.kind
            );
        }
        let changed = differences(&done.recipe, &recipe.json, &[]);
        if !changed.is_empty() {
            let keys: Vec<String> = changed.iter().map(ToString::to_string).collect();
            bail!(
                "`{}` in {} was made with another recipe: {}; give --overwrite to make it again",
                stage.name,
                folder.display(),
                keys.join(", ")
            );
        }
        eprintln!("{}: done already", stage.name);
        return Ok(done.summary);
    }
    context.check_interrupt()?;
    let begun = std::time::Instant::now();
    std::fs::create_dir_all(folder.parent().unwrap_or(folder))
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let summary = match &stage.kind {
        StageKind::World(world) => world::run(world, folder)?,
        StageKind::Init(init) => init::run(init, folder, context)?,
        StageKind::Sft(sft) => sft::run(&stage.name, sft, recipe.clone(), folder, context)?,
        StageKind::Reward(reward) => reward::run(&stage.name, reward, recipe.clone(), folder, context)?,
        StageKind::Soup(soup) => soup::run(&stage.name, soup, folder, context)?,
        StageKind::Ppo(ppo) => ppo::run(&stage.name, ppo, recipe.clone(), folder, context)?,
        StageKind::Eval(eval) => eval::run(&stage.name, eval, folder, context)?,
    };
    let done = Done {
        kind: stage.kind.word().to_owned(),
        recipe: recipe.json,
        summary: summary.clone(),
        seconds: begun.elapsed().as_secs_f64(),
    };
    done.write(folder)?;
    Ok(summary)
}
