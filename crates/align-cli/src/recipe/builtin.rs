//! The recipes that come with the binary.

use std::path::Path;

/// A recipe inside the binary.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Builtin {
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
}

/// All of them, in the order `align recipes ls` shows.
pub(crate) const BUILTIN: &[Builtin] = &[
    Builtin { name: "quickstart", text: include_str!("../../recipes/quickstart.toml") },
    Builtin { name: "salsa", text: include_str!("../../recipes/salsa.toml") },
    Builtin { name: "sft", text: include_str!("../../recipes/sft.toml") },
    Builtin { name: "reward", text: include_str!("../../recipes/reward.toml") },
    Builtin { name: "ppo", text: include_str!("../../recipes/ppo.toml") },
    Builtin { name: "dpo", text: include_str!("../../recipes/dpo.toml") },
    Builtin { name: "nash", text: include_str!("../../recipes/nash.toml") },
    Builtin { name: "online", text: include_str!("../../recipes/online.toml") },
    Builtin { name: "superhf", text: include_str!("../../recipes/superhf.toml") },
    Builtin { name: "inpo-cyclic", text: include_str!("../../recipes/inpo-cyclic.toml") },
    Builtin { name: "superhf-hack", text: include_str!("../../recipes/superhf-hack.toml") },
    Builtin { name: "preferences-chat", text: include_str!("../../recipes/preferences-chat.toml") },
    Builtin { name: "soups", text: include_str!("../../recipes/soups.toml") },
    Builtin { name: "weak-to-strong", text: include_str!("../../recipes/weak-to-strong.toml") },
    Builtin { name: "weak-to-strong-chat", text: include_str!("../../recipes/weak-to-strong-chat.toml") },
    Builtin { name: "ensemble", text: include_str!("../../recipes/ensemble.toml") },
    Builtin { name: "judges", text: include_str!("../../recipes/judges.toml") },
    Builtin { name: "overoptimization", text: include_str!("../../recipes/overoptimization.toml") },
    Builtin { name: "overoptimization-chat", text: include_str!("../../recipes/overoptimization-chat.toml") },
    Builtin { name: "factors", text: include_str!("../../recipes/factors.toml") },
    Builtin { name: "factor-consistency", text: include_str!("../../recipes/factor-consistency.toml") },
    Builtin { name: "bilevel-bench", text: include_str!("../../recipes/bilevel-bench.toml") },
    Builtin { name: "clean-chat", text: include_str!("../../recipes/clean-chat.toml") },
    Builtin { name: "ablations", text: include_str!("../../recipes/ablations.toml") },
];

/// The built-in recipe of that name, unless a file of that name exists.
pub(crate) fn find(recipe: &Path) -> Option<Builtin> {
    if recipe.exists() {
        return None;
    }
    BUILTIN.iter().copied().find(|builtin| Path::new(builtin.name) == recipe)
}

impl Builtin {
    /// The first comment line: what the recipe is for.
    pub(crate) fn summary(&self) -> &'static str {
        self.text.lines().next().unwrap_or_default().trim_start_matches('#').trim()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{RunRecipe, SingleRecipe, open};

    #[test]
    fn every_built_in_recipe_can_be_read_and_says_what_it_is_for() {
        for builtin in BUILTIN {
            let source = open(Path::new(builtin.name), &[]).unwrap();
            let read = match source.table().contains_key("stage") {
                true => RunRecipe::from_source(&source).map(drop),
                false => {
                    let kind = source.table().get("kind").and_then(toml::Value::as_str);
                    SingleRecipe::from_source(&source, kind.unwrap_or(builtin.name)).map(drop)
                }
            };
            assert!(read.is_ok(), "{}: {}", builtin.name, read.unwrap_err());
            assert!(builtin.text.starts_with("# ") && builtin.summary().len() > 20, "{}", builtin.name);
        }
    }
}
