//! Stages of a recipe, each from its table to its folder.
//!
//! ```text
//! stage/
//!   recipe.toml     what the stage was begun with, every default spelt out
//!   …               what it makes: model/, seed-0/, comparison.json, data files
//!   stage.json      written last: the stage is complete
//! ```
//!
//! A crash at any moment leaves a folder that `--resume` goes on with: what is complete is kept, trainings go on from
//! their newest checkpoint, and everything else is made again.

mod adapters;
mod answers;
mod averaged;
mod bilevel;
mod bon;
mod claims;
mod dpo;
mod eval;
mod factors;
mod figures;
mod fusion;
mod gaps;
mod init;
mod merge;
mod pairs;
mod ppo;
mod reward;
mod self_play;
mod sft;
mod soup;
mod stream;
mod superhf;
mod warned;
mod world;

use std::io::Write;
use std::path::Path;

use align_core::persist::{PersistError, replace_file, replace_folder};
use align_models::checkpoint::copy_companions;
use align_models::{CheckpointError, Transformer};
use align_soup::checkpoint_id;
use align_train::differences;
use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::context::Context;
use crate::drive::RecipeText;
use crate::recipe::parts::{ADAPTER, AVERAGE, MODEL, RECIPE};
use crate::recipe::stage::{Stage, StageKind};

pub(crate) use bilevel::{
    Bias, CleanedData, Coefficient, Design, Found as Bilevel, LinearCleaning, Race, SolverResult,
};
pub(crate) use bon::{BestOfN, Point as BonPoint};
pub(crate) use claims::Verdicts;
pub(crate) use eval::{ArmResult, Bench, Comparison};
pub(crate) use factors::{
    Consistency, FactorsResult, PairAgreement, compared, importance_table, models_in, open as open_model,
    over_seeds,
};
pub(crate) use figures::Figures;
pub(crate) use gaps::{ArmGap, Gaps, Over};
pub(crate) use merge::{local_or_hub, merge_watched};
pub(crate) use soup::{GreedySearch, LearnedWeights, Map, soup_watched};
pub(crate) use world::{gold_of, preference_of};

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
    /// How long it took, the part before an interruption not counted.
    pub(crate) seconds: f64,
}

impl Done {
    /// What the folder says, if the stage in it is complete.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        read_json(&folder.join(DONE))
    }

    /// What the seeds of a stage said, as one: seconds together, numbers averaged.
    pub(crate) fn of_seeds(seeds: Vec<(u64, Self)>) -> Option<Self> {
        let (_, first) = seeds.first()?;
        let mean = |key: &str| {
            let numbers: Option<Vec<f64>> =
                seeds.iter().map(|(_, done)| done.summary.get(key)?.as_f64()).collect();
            numbers.map(|numbers| numbers.iter().sum::<f64>() / numbers.len() as f64)
        };
        let mut summary = json!({ "seeds": seeds.iter().map(|(seed, _)| *seed).collect::<Vec<_>>() });
        for key in first.summary.as_object().into_iter().flatten().map(|(key, _)| key) {
            if let Some(mean) = mean(key) {
                summary[key] = json!(mean);
            }
        }
        let seconds = seeds.iter().map(|(_, done)| done.seconds).sum();
        Some(Self { kind: first.kind.clone(), recipe: first.recipe.clone(), summary, seconds })
    }

    /// Says the stage in the folder is complete.
    fn write(&self, folder: &Path) -> Result<()> {
        write_json(&folder.join(DONE), self)?;
        Ok(())
    }
}

/// Runs a stage into its folder, or says that it is done already.
pub(crate) fn run(stage: &Stage, folder: &Path, context: &Context) -> Result<Value> {
    complete(&stage.name, &stage.kind, folder, context, |recipe| {
        if !stage.kind.is_one_training() {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            replace_file(&folder.join(RECIPE), |file| file.write_all(recipe.toml.as_bytes()))?;
        }
        match &stage.kind {
            StageKind::World(world) => world::run(world, folder),
            StageKind::Traps(traps) => world::traps(traps, folder),
            StageKind::Cyclic(cyclic) => world::cyclic(cyclic, folder),
            StageKind::Pattern(pattern) => world::pattern(pattern, folder),
            StageKind::Skills(skills) => world::skills(skills, folder),
            StageKind::Init(init) => init::run(init, folder, context),
            StageKind::Sft(sft) => sft::run(&stage.name, sft, recipe, folder, context),
            StageKind::Reward(reward) => reward::run(&stage.name, reward, recipe, folder, context),
            StageKind::Soup(soup) => soup::run(&stage.name, soup, folder, context),
            StageKind::Fusion(fusion) => fusion::run(fusion, folder, context),
            StageKind::Merge(merge) => merge::run(&stage.name, merge, folder, context),
            StageKind::Ppo(ppo) => ppo::run(&stage.name, ppo, folder, context),
            StageKind::Dpo(dpo) => dpo::run(&stage.name, dpo, recipe, folder, context),
            StageKind::Nash(nash) => self_play::run(&stage.name, nash, recipe, folder, context),
            StageKind::Online(online) => {
                self_play::check_online(online)?;
                self_play::run(&stage.name, online, recipe, folder, context)
            }
            StageKind::Superhf(superhf) => superhf::run(&stage.name, superhf, recipe, folder, context),
            StageKind::Eval(eval) => eval::run(&stage.name, eval, folder, context),
            StageKind::Gaps(gaps) => gaps::run(&stage.name, gaps, folder, context),
            StageKind::Bon(bon) => bon::run(&stage.name, bon, folder, context),
            StageKind::Pairs(pairs) => pairs::run(&stage.name, pairs, folder, context),
            StageKind::Solvers(solvers) => bilevel::solvers(&stage.name, solvers, folder, context),
            StageKind::Bias(bias) => bilevel::bias(&stage.name, bias, folder, context),
            StageKind::LinearCleaning(cleaning) => {
                bilevel::linear_cleaning(&stage.name, cleaning, folder, context)
            }
            StageKind::Clean(clean) => bilevel::clean(&stage.name, clean, &recipe, folder, context),
            StageKind::Coefficient(tuned) => bilevel::coefficient(&stage.name, tuned, folder, context),
            StageKind::RewardDesign(design) => bilevel::design(&stage.name, design, folder, context),
            StageKind::Survey(survey) => factors::survey(survey, folder),
            StageKind::Factors(fit) => factors::run(&stage.name, fit, folder, context),
            StageKind::Consistency(compared) => factors::compare(&stage.name, compared, folder, context),
            StageKind::Claims(claims) => claims::run(&stage.name, claims, folder, context),
        }
    })
}

/// Does `work` in the folder unless it is complete there, and marks it complete. A stage over several seeds does this for
/// each of them too.
fn complete(
    title: &str,
    kind: &StageKind,
    folder: &Path,
    context: &Context,
    work: impl FnOnce(RecipeText) -> Result<Value>,
) -> Result<Value> {
    let recipe = RecipeText::of(kind)?;
    if context.resume {
        expect_same_recipe(title, folder, &recipe)?;
    }
    if let Some(done) = Done::read(folder)? {
        if !context.resume {
            bail!(
                "{} holds a finished `{}`; give --overwrite to replace it or another output_dir",
                folder.display(),
                done.kind
            );
        }
        eprintln!("{title}: done already");
        return Ok(done.summary);
    }
    context.check_interrupt()?;
    let begun = std::time::Instant::now();
    let json = recipe.json.clone();
    let summary = work(recipe)?;
    let seconds = begun.elapsed().as_secs_f64();
    let done = Done { kind: kind.word().to_owned(), recipe: json, summary: summary.clone(), seconds };
    done.write(folder)?;
    Ok(summary)
}

/// Refuses to go on with a stage that was begun with another recipe.
pub(crate) fn expect_same_recipe(title: &str, folder: &Path, recipe: &RecipeText) -> Result<()> {
    let path = folder.join(RECIPE);
    let old = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    // Both through TOML, which leaves out what is not given.
    let old: Value = toml::from_str(&old).with_context(|| format!("{} is damaged", path.display()))?;
    let changed = differences(&old, &toml::from_str(&recipe.toml)?, &[]);
    if changed.is_empty() {
        return Ok(());
    }
    let keys: Vec<String> = changed.iter().map(ToString::to_string).collect();
    bail!(
        "`{title}` in {} was begun with another recipe: {}; resume with the old one, or give --overwrite to begin again",
        folder.display(),
        keys.join("; ")
    )
}

/// Writes a model's folder in one step: what `write` writes, the tokenizer and template of `start`, and in `align.json`
/// which checkpoint the weights descend from, so that a soup can tell whether models have a common ancestor.
fn save_model(
    out: &Path,
    start: &Path,
    write: impl FnOnce(&Path) -> Result<(), CheckpointError>,
) -> Result<()> {
    replace_folder(out, |folder| -> Result<()> {
        write(folder)?;
        copy_companions(start, folder)?;
        write_origin(folder, start)
    })
}

/// Writes into a folder of weights or of adapters which checkpoint they descend from.
fn write_origin(folder: &Path, start: &Path) -> Result<()> {
    let ancestor = checkpoint_id(start)
        .with_context(|| format!("cannot tell which weights are in {}", start.display()))?;
    Ok(write_json(&folder.join("align.json"), &json!({ "ancestor": ancestor }))?)
}

/// Writes a trained policy: its adapters, if it has any, and the model with them merged.
fn save_policy(folder: &Path, start: &Path, policy: &Transformer, has_adapters: bool) -> Result<()> {
    if has_adapters {
        policy.save_adapters(&folder.join(ADAPTER))?;
        write_origin(&folder.join(ADAPTER), start)?;
    }
    save_model(&folder.join(MODEL), start, |folder| policy.save_into(folder, &Default::default()))
}

/// Writes the average of a training beside its last weights, if one was kept.
fn save_average(folder: &Path, start: &Path, average: Option<&Transformer>) -> Result<()> {
    match average {
        None => Ok(()),
        Some(average) => {
            save_model(&folder.join(AVERAGE), start, |folder| average.save_into(folder, &Default::default()))
        }
    }
}

/// Reads a file of JSON; `None` if there is none.
fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => {
            let value = serde_json::from_slice(&bytes);
            Ok(Some(value.with_context(|| format!("{} is damaged", path.display()))?))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Writes a file of JSON as a whole.
fn write_json(path: &Path, value: &impl Serialize) -> Result<(), PersistError> {
    replace_file(path, |file| Ok(serde_json::to_writer_pretty(file, value)?))
}
