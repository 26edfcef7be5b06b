//! Stages that are repeated: over `seeds`, and over the values of `[vary]`.
//!
//! ```toml
//! [vary]
//! beta = [0.0, 0.05]
//!
//! [[stage]]
//! name = "ppo-{beta}"                  # twice: `ppo-0.0` and `ppo-0.05`
//! seeds = [0, 1, 2]                    # three times each, in `ppo-0.0/seed-0` and so on
//! policy = "@sft/seed-{seed}"
//! ppo = { kl_coef = "{beta}" }         # a number: the text is nothing but the name
//! ```

use toml::{Table, Value};

/// Stages of PPO run over their seeds themselves.
const RUNS_OVER_SEEDS: &str = "ppo";
/// Kinds that have a `seed`.
const SEEDED: [&str; 19] = [
    "world", "traps", "cyclic", "pattern", "skills", "init", "sft", "reward", "merge", "dpo", "nash",
    "online", "superhf", "bon", "eval", "pairs", "clean", "survey", "factors",
];

/// Why a stage cannot be repeated: the key it is about, and what is wrong.
#[derive(Debug)]
pub(super) struct VaryError {
    pub(super) key: &'static str,
    pub(super) message: String,
}

fn refused(key: &'static str, message: String) -> VaryError {
    VaryError { key, message }
}

/// Every stage that a table of a recipe stands for, in the order of its name's values.
pub(super) fn repeated(stage: Value, shared: &Table) -> Result<Vec<Value>, VaryError> {
    let Value::Table(mut table) = stage else { return Ok(vec![stage]) };
    let mut dimensions = shared.clone();
    let name = table.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    match table.remove("vary") {
        None => {}
        Some(Value::Table(own)) => {
            if let Some(unused) = own.keys().find(|dimension| !name.contains(&braced(dimension))) {
                return Err(refused("vary", format!("`{{{unused}}}` is not in the stage's name, `{name}`")));
            }
            dimensions.extend(own);
        }
        Some(other) => {
            let message = format!("expected a table of lists, found {}", other.type_str());
            return Err(refused("vary", message));
        }
    }
    let mut stages = vec![(table, Table::new())];
    for (dimension, values) in &dimensions {
        let placeholder = braced(dimension);
        if !name.contains(&placeholder) {
            continue;
        }
        let values = values.as_array().filter(|values| !values.is_empty() && values.iter().all(is_plain));
        let Some(values) = values else {
            let message = format!("`{dimension}` needs a list of numbers or texts, at least one");
            return Err(refused("vary", message));
        };
        stages = stages
            .iter()
            .flat_map(|(table, varied)| {
                values.iter().map(|value| {
                    let (mut table, mut varied) = (table.clone(), varied.clone());
                    table.iter_mut().for_each(|(_, inner)| put(inner, &placeholder, value));
                    varied.insert(dimension.clone(), value.clone());
                    (table, varied)
                })
            })
            .collect();
    }
    if let Some(left) = dimensions.keys().find(|d| stages.iter().any(|(table, _)| mentions(table, d))) {
        let message = format!(
            "`{{{left}}}` is used in `{name}` and is not in its name: the repetitions would share a folder"
        );
        return Err(refused("name", message));
    }
    let mut all = Vec::new();
    for (mut table, varied) in stages {
        if !varied.is_empty() {
            table.insert("varied".into(), Value::Table(varied));
        }
        all.extend(over_seeds(table)?.into_iter().map(Value::Table));
    }
    Ok(all)
}

/// What stands for a value in a stage's texts.
fn braced(dimension: &str) -> String {
    format!("{{{dimension}}}")
}

/// A name of `[vary]` that is in no stage's name, so that it varies nothing.
pub(super) fn unused<'a>(shared: &'a Table, stages: &[Value]) -> Option<&'a str> {
    let names: Vec<&str> = stages.iter().filter_map(|stage| stage.get("name")?.as_str()).collect();
    let used = |dimension: &str| names.iter().any(|name| name.contains(&braced(dimension)));
    shared.keys().map(String::as_str).find(|dimension| !used(dimension))
}

fn is_plain(value: &Value) -> bool {
    matches!(value, Value::String(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_))
}

/// A stage with `seeds` as one stage a seed, in folders of their own.
fn over_seeds(mut table: Table) -> Result<Vec<Table>, VaryError> {
    let kind = table.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    if kind == RUNS_OVER_SEEDS {
        return Ok(vec![table]);
    }
    let Some(seeds) = table.remove("seeds") else { return Ok(vec![table]) };
    let list =
        seeds.as_array().and_then(|seeds| seeds.iter().map(Value::as_integer).collect::<Option<Vec<_>>>());
    let Some(seeds) = list.filter(|seeds| !seeds.is_empty() && seeds.iter().all(|seed| *seed >= 0)) else {
        return Err(refused("seeds", format!("expected a list of seeds such as [0, 1, 2], found {seeds}")));
    };
    let name = table.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let one = |seed: i64| {
        let mut one = table.clone();
        one.insert("name".into(), format!("{name}/seed-{seed}").into());
        one.iter_mut().for_each(|(_, value)| put(value, "{seed}", &seed.into()));
        if SEEDED.contains(&kind.as_str()) {
            one.entry("seed").or_insert_with(|| seed.into());
        }
        one
    };
    Ok(seeds.into_iter().map(one).collect())
}

/// Puts a value in the place of its name in every text: the value itself where the text is nothing else.
pub(crate) fn put(inside: &mut Value, placeholder: &str, value: &Value) {
    match inside {
        Value::String(text) if text == placeholder => *inside = value.clone(),
        Value::String(text) if text.contains(placeholder) => {
            let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            *text = text.replace(placeholder, &shown);
        }
        Value::Array(values) => values.iter_mut().for_each(|inner| put(inner, placeholder, value)),
        Value::Table(table) => table.iter_mut().for_each(|(_, inner)| put(inner, placeholder, value)),
        _ => {}
    }
}

fn mentions(table: &Table, dimension: &str) -> bool {
    let placeholder = braced(dimension);
    fn inside(value: &Value, placeholder: &str) -> bool {
        match value {
            Value::String(text) => text.contains(placeholder),
            Value::Array(values) => values.iter().any(|value| inside(value, placeholder)),
            Value::Table(table) => table.values().any(|value| inside(value, placeholder)),
            _ => false,
        }
    }
    table.values().any(|value| inside(value, &placeholder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stages(text: &str) -> Result<Vec<Table>, String> {
        let table: Table = text.parse().unwrap();
        let shared = table.get("vary").and_then(Value::as_table).cloned().unwrap_or_default();
        repeated(table["stage"].clone(), &shared)
            .map(|stages| stages.into_iter().map(|stage| stage.as_table().unwrap().clone()).collect())
            .map_err(|error| format!("{}: {}", error.key, error.message))
    }

    #[test]
    fn a_stage_is_repeated_for_what_its_name_mentions() {
        let text = "[vary]\nnoise = [0.0, 0.25]\nbeta = [1, 2]\n[stage]\nkind = \"ppo\"\nname = \"p-{beta}-{noise}\"\n\
                    reward = \"@judges-{noise}/seed-{seed}\"\nppo = { kl_coef = \"{beta}\" }\n";
        let found = stages(text).unwrap();
        let names: Vec<&str> = found.iter().map(|stage| stage["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["p-1-0.0", "p-2-0.0", "p-1-0.25", "p-2-0.25"]);
        assert_eq!(found[3]["ppo"]["kl_coef"].as_integer(), Some(2), "a number stays one");
        // Stages of PPO know their seeds themselves.
        assert_eq!(found[3]["reward"].as_str(), Some("@judges-0.25/seed-{seed}"));
        assert_eq!(found[1]["varied"].as_table().unwrap().to_string(), "noise = 0.0\nbeta = 2\n");
    }

    #[test]
    fn seeds_of_other_kinds_are_stages_of_their_own() {
        let text = "[stage]\nkind = \"sft\"\nname = \"sft\"\nseeds = [3, 5]\nmodel = \"@base/seed-{seed}\"\n";
        let found = stages(text).unwrap();
        assert_eq!(found[1]["name"].as_str(), Some("sft/seed-5"));
        assert_eq!(found[1]["model"].as_str(), Some("@base/seed-5"));
        assert_eq!(found[1]["seed"].as_integer(), Some(5));
        assert!(!found[1].contains_key("seeds"));
    }

    #[test]
    fn a_stage_may_vary_otherwise_than_the_recipe() {
        let text =
            "[vary]\nbeta = [1]\n[stage]\nkind = \"ppo\"\nname = \"p-{beta}\"\nvary = { beta = [2, 3] }\n";
        assert_eq!(stages(text).unwrap().len(), 2);
    }

    #[test]
    fn repetitions_that_would_share_a_folder_are_refused() {
        let text =
            "[vary]\nbeta = [1, 2]\n[stage]\nkind = \"ppo\"\nname = \"p\"\nppo = { kl_coef = \"{beta}\" }\n";
        assert!(stages(text).unwrap_err().starts_with("name: `{beta}` is used in `p`"));
        let text = "[stage]\nkind = \"sft\"\nname = \"s\"\nseeds = [-1]\n";
        assert!(stages(text).unwrap_err().starts_with("seeds: expected a list of seeds"));
        let text = "[stage]\nkind = \"ppo\"\nname = \"p\"\nvary = { beta = [1] }\n";
        assert!(stages(text).unwrap_err().contains("`{beta}` is not in the stage's name"));
        let text = "[vary]\nbeta = []\n[stage]\nkind = \"sft\"\nname = \"s-{beta}\"\n";
        assert!(stages(text).unwrap_err().contains("at least one"));
    }
}
