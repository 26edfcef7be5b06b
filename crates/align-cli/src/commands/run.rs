//! `align run` and the commands of a single stage.

use std::path::{Path, PathBuf};

use align_core::persist::replace_file;
use anyhow::{Context as _, Result, bail};

use crate::args::{BeginArgs, RecipeArgs};
use crate::context::Context;
use crate::drive::RecipeText;
use crate::recipe::parts::RECIPE;
use crate::recipe::stage::Stage;
use crate::recipe::{self, RunRecipe, SingleRecipe};
use crate::{interrupt, report, stages};

/// Runs all stages of a recipe, then draws the report.
pub(crate) fn run(args: &RecipeArgs) -> Result<()> {
    let source = recipe::open(&args.recipe, &args.overrides)?;
    let recipe = RunRecipe::from_source(&source)?;
    let context = context(&args.begin, &recipe.output_dir)?;
    prepare(&args.begin, &recipe.output_dir, &stage_folders(&recipe))?;
    if args.begin.resume {
        // Before the old recipe is replaced: nothing that was begun may have another recipe now.
        for stage in &recipe.stage {
            let folder = recipe.output_dir.join(&stage.name);
            stages::expect_same_recipe(&stage.name, &folder, &RecipeText::of(&stage.kind)?)?;
        }
    }
    let text = toml::to_string_pretty(&recipe)?;
    replace_file(&recipe.output_dir.join(RECIPE), |file| std::io::Write::write_all(file, text.as_bytes()))?;
    for stage in &recipe.stage {
        let folder = recipe.output_dir.join(&stage.name);
        stages::run(stage, &folder, &context).with_context(|| format!("stage `{}`", stage.name))?;
    }
    say_report(&recipe.output_dir)
}

/// Runs a recipe of one stage.
pub(crate) fn single(args: &RecipeArgs, kind: &str) -> Result<()> {
    let source = recipe::open(&args.recipe, &args.overrides)?;
    let recipe = SingleRecipe::from_source(&source, kind)?;
    one_stage(&recipe.stage, &recipe.output_dir, &args.begin)
}

/// Runs one stage into a folder of its own, and draws it.
pub(super) fn one_stage(stage: &Stage, output: &Path, begin: &BeginArgs) -> Result<()> {
    let context = context(begin, output)?;
    prepare(begin, output, &[])?;
    stages::run(stage, output, &context)?;
    println!("done: {}", output.display());
    say_report(output)
}

/// Draws a run and says where, or that there is nothing to draw.
fn say_report(output: &Path) -> Result<()> {
    match report::draw_run(output)? {
        Some(path) => println!("report: {}", path.display()),
        None => eprintln!("nothing to draw: no stage measured anything"),
    }
    Ok(())
}

fn context(args: &BeginArgs, output: &Path) -> Result<Context> {
    Ok(Context {
        device: args.device.device.open()?,
        run: output.to_owned(),
        resume: args.resume,
        interrupt: interrupt::install(),
        said: Default::default(),
    })
}

fn stage_folders(recipe: &RunRecipe) -> Vec<PathBuf> {
    recipe.stage.iter().map(|stage| recipe.output_dir.join(&stage.name)).collect()
}

/// Makes room for the run: refuses a used folder, clears it, or leaves it for resuming.
fn prepare(args: &BeginArgs, output: &Path, stages: &[PathBuf]) -> Result<()> {
    let used = std::fs::read_dir(output).is_ok_and(|mut entries| entries.next().is_some());
    let ours = [RECIPE, stages::DONE].iter().any(|name| output.join(name).exists())
        || stages.iter().any(|folder| folder.exists());
    match (used, args.resume, args.overwrite) {
        (false, true, _) => bail!("nothing to resume in {}: run it without --resume", output.display()),
        (true, true, _) if !ours => bail!("{} holds no run of align to resume", output.display()),
        (true, false, false) => bail!(
            "{} is not empty; give --resume to go on with that run, --overwrite to replace it, or another folder as \
             output_dir=…",
            output.display()
        ),
        (true, false, true) if !ours => {
            bail!("{} is not empty and no run of align: it is not overwritten", output.display())
        }
        (true, false, true) => {
            std::fs::remove_dir_all(output).with_context(|| format!("cannot clear {}", output.display()))?
        }
        _ => {}
    }
    if !stages.is_empty() {
        std::fs::create_dir_all(output).with_context(|| format!("cannot make {}", output.display()))?;
    }
    Ok(())
}
