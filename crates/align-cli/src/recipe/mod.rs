//! Recipes: what a run is to do, as typed TOML.

pub(crate) mod average;
pub(crate) mod bilevel;
pub(crate) mod builtin;
pub(crate) mod claims;
pub(crate) mod eval;
pub(crate) mod factors;
pub(crate) mod fusion;
pub(crate) mod gaps;
pub(crate) mod merge;
pub(crate) mod parts;
pub(crate) mod preference;
pub(crate) mod soup;
pub(crate) mod source;
pub(crate) mod stage;
pub(crate) mod superhf;
pub(crate) mod vary;
pub(crate) mod worlds;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use self::source::{RecipeError, Source};
use self::stage::Stage;

/// The version of the recipe form this binary reads.
pub(crate) const SCHEMA: u32 = 1;

/// A recipe of stages, for `align run`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RunRecipe {
    /// Version of the form.
    pub(crate) schema: u32,
    /// What the report calls it.
    pub(crate) title: String,
    /// Where everything goes.
    pub(crate) output_dir: PathBuf,
    /// What to do, in order.
    pub(crate) stage: Vec<Stage>,
}

/// The keys of a run beside its stages, whose form depends on their `kind`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RunHead {
    #[serde(default = "schema")]
    schema: u32,
    #[serde(default)]
    title: String,
    output_dir: PathBuf,
    /// What `$name` stands for in the stages.
    #[serde(default)]
    inputs: BTreeMap<String, String>,
    /// Values over which stages are repeated that have `{name}` in their names.
    #[serde(default)]
    vary: toml::Table,
    stage: Vec<toml::Value>,
}

/// A recipe of one stage, for `align sft`, `align reward` and so on.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SingleRecipe {
    /// Where everything goes.
    pub(crate) output_dir: PathBuf,
    /// What to do.
    #[serde(flatten)]
    pub(crate) stage: Stage,
}

fn schema() -> u32 {
    SCHEMA
}

/// Reads a file, or a built-in recipe by name.
pub(crate) fn open(recipe: &Path, overrides: &[String]) -> Result<Source, RecipeError> {
    let mut source = match builtin::find(recipe) {
        Some(builtin) => Source::parse(&format!("{}.toml", builtin.name), builtin.text)?,
        None => Source::read(recipe)?,
    };
    for assignment in overrides {
        source.set(assignment)?;
    }
    Ok(source)
}

impl RunRecipe {
    /// Reads a recipe of stages and checks that names are unique and refer backwards.
    pub(crate) fn from_source(source: &Source) -> Result<Self, RecipeError> {
        let head: RunHead = source.deserialize()?;
        if head.schema != SCHEMA {
            let message = format!("this align reads recipes of schema {SCHEMA}, found {}", head.schema);
            return Err(source.field_error("schema", message));
        }
        if let Some(unused) = vary::unused(&head.vary, &head.stage) {
            let message = format!("no stage has `{{{unused}}}` in its name");
            return Err(source.field_error(&format!("vary.{unused}"), message));
        }
        let mut stages: Vec<Stage> = Vec::new();
        for (index, mut value) in head.stage.into_iter().enumerate() {
            let path = format!("stage[{index}]");
            substitute(&mut value, &head.inputs).map_err(|name| {
                let known: Vec<String> = head.inputs.keys().cloned().collect();
                let hint = source::nearest_of(&name, &known).map(|n| format!("; did you mean `${n}`?"));
                let message = format!("`${name}` is not in [inputs]{}", hint.unwrap_or_default());
                source.field_error(&path, message)
            })?;
            let repeated = vary::repeated(value, &head.vary)
                .map_err(|error| source.field_error(&format!("{path}.{}", error.key), error.message))?;
            for value in repeated {
                let stage = Stage::from_value(source, value, &path)?;
                if stages.iter().any(|earlier| earlier.name == stage.name) {
                    let message = format!("two stages are called `{}`", stage.name);
                    return Err(source.field_error(&format!("{path}.name"), message));
                }
                check_references(&stage, &stages).map_err(|message| source.field_error(&path, message))?;
                stages.push(stage);
            }
        }
        if stages.is_empty() {
            return Err(source.field_error("stage", "a run needs at least one [[stage]]".to_owned()));
        }
        Ok(Self { schema: SCHEMA, title: head.title, output_dir: head.output_dir, stage: stages })
    }
}

impl SingleRecipe {
    /// Reads a recipe of the one stage that the sub-command `kind` runs.
    pub(crate) fn from_source(source: &Source, kind: &str) -> Result<Self, RecipeError> {
        let mut table = source.table().clone();
        let command = command_of(kind);
        if table.contains_key("stage") {
            let message = format!("this is a recipe of stages: run it with `align run`, not `{command}`");
            return Err(source.field_error("stage", message));
        }
        let Some(toml::Value::String(output_dir)) = table.remove("output_dir") else {
            return Err(source.field_error("", "missing field `output_dir`".to_owned()));
        };
        table.entry("kind").or_insert_with(|| kind.into());
        if table["kind"].as_str() != Some(kind) {
            let message = format!("`{command}` runs recipes of kind \"{kind}\", found {}", table["kind"]);
            return Err(source.field_error("kind", message));
        }
        table.entry("name").or_insert_with(|| kind.into());
        let stage = Stage::from_value(source, toml::Value::Table(table), "")?;
        if let Some(reference) = stage.kind.references().first() {
            let message = format!("`@{reference}` names a stage, and a recipe of one stage has no others");
            return Err(source.field_error("", message));
        }
        Ok(Self { output_dir: PathBuf::from(output_dir), stage })
    }
}

/// The command that runs a recipe of one stage of that kind.
fn command_of(kind: &str) -> String {
    match kind {
        "clean" => "align bilevel clean".to_owned(),
        "coefficient" => "align bilevel tune".to_owned(),
        "reward_design" => "align bilevel design".to_owned(),
        "solvers" => "align bilevel bench".to_owned(),
        kind => format!("align {kind}"),
    }
}

/// Refuses references to anything but earlier stages.
fn check_references(stage: &Stage, earlier: &[Stage]) -> Result<(), String> {
    let mut known: Vec<String> = earlier.iter().map(|stage| stage.family().to_owned()).collect();
    known.dedup();
    for reference in stage.kind.references() {
        let name = reference.split('/').next().unwrap_or_default();
        if !known.iter().any(|known| known == name) {
            let hint = match source::nearest_of(name, &known) {
                Some(nearest) => format!("; did you mean `@{nearest}`?"),
                None => format!("; earlier stages are {}", listed(&known)),
            };
            return Err(format!("`@{name}` is no earlier stage{hint}"));
        }
    }
    Ok(())
}

/// Puts inputs in the place of `$name` and `$name/…`; the error is a name that is none of them.
fn substitute(value: &mut toml::Value, inputs: &BTreeMap<String, String>) -> Result<(), String> {
    match value {
        toml::Value::String(text) => {
            if let Some(reference) = text.strip_prefix('$') {
                let (name, rest) = reference.split_at(reference.find('/').unwrap_or(reference.len()));
                let input = inputs.get(name).ok_or_else(|| name.to_owned())?;
                *text = format!("{input}{rest}");
            }
            Ok(())
        }
        toml::Value::Array(values) => values.iter_mut().try_for_each(|value| substitute(value, inputs)),
        toml::Value::Table(table) => table.iter_mut().try_for_each(|(_, value)| substitute(value, inputs)),
        _ => Ok(()),
    }
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        names => names.iter().map(|name| format!("`@{name}`")).collect::<Vec<_>>().join(", "),
    }
}
