//! Greedy soups: every soup on the way is built, evaluated and written down, so that a search that ends early goes on.

use std::path::Path;

use align_soup::{GreedyPath, Trial, Weights};
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::Ingredient;
use super::measure::{Measure, identities};
use crate::context::Context;
use crate::progress::working;
use crate::recipe::soup::{GreedyConfig, direction};
use crate::stages::{read_json, write_json};

/// The record's file in the stage's folder.
const RECORD: &str = "path.json";

/// A search, with the names of its ingredients.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct GreedySearch {
    /// What pictures call the ingredients.
    pub(crate) names: Vec<String>,
    /// Every score.
    pub(crate) path: GreedyPath,
}

impl GreedySearch {
    /// Reads a stage's search, if it has one.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        read_json(&folder.join(RECORD))
    }

    /// The members of a trial by name, the one that was to be added last.
    pub(crate) fn members(&self, trial: &Trial) -> String {
        let names: Vec<&str> = trial.members.iter().map(|&member| self.names[member].as_str()).collect();
        names.join(" + ")
    }
}

/// The weights of the greedy soup.
pub(super) fn search(
    name: &str,
    config: &GreedyConfig,
    ingredients: &[Ingredient],
    folder: &Path,
    context: &Context,
) -> Result<Weights> {
    let better = direction(&config.metric, config.better, &config.eval).map_err(anyhow::Error::msg)?;
    let ids = {
        let _working = working(&format!("{name}: reading {} models", ingredients.len()));
        identities(ingredients)?
    };
    let names: Vec<String> = ingredients.iter().map(|ingredient| ingredient.name.clone()).collect();
    let path = match GreedySearch::read(folder)? {
        Some(record) => GreedyPath::resume(record.path, &config.metric, better, &ids)
            .with_context(|| format!("cannot go on with the search in {}", folder.join(RECORD).display()))?,
        None => GreedyPath::begin(&config.metric, better, &ids)
            .with_context(|| format!("no search among {}", names.join(", ")))?,
    };
    let (done, total) = path.progress();
    if done > 0 {
        eprintln!("{name}: going on after {done} of {total} scores");
    }
    let mut search = GreedySearch { names, path };
    let measure = Measure::open(name, &config.metric, &config.eval, ingredients, folder, context)?;
    while let Some(members) = search.path.next_members() {
        let (done, total) = search.path.progress();
        let said: Vec<&str> = members.iter().map(|&member| search.names[member].as_str()).collect();
        let said = said.join(" + ");
        let score = {
            let _working = working(&format!("{name}: {} of {total}: {said}", done + 1));
            measure
                .of(&shares(&members, ingredients.len())?)
                .with_context(|| format!("cannot evaluate {said}"))?
        };
        search.path.record(score)?;
        write_json(&folder.join(RECORD), &search)?;
        let verdict = match search.path.trials().last() {
            // The last score of single models makes the best of them the first trial.
            Some(trial) if trial.members == members && members.len() > 1 => {
                if trial.accepted {
                    ", kept"
                } else {
                    ", left out"
                }
            }
            _ => "",
        };
        eprintln!("{name}: {said}: {} {score:.5}{verdict}", config.metric);
    }
    let kept: Vec<&str> = search.path.members().iter().map(|&member| search.names[member].as_str()).collect();
    let score = search.path.score().context("a search that is over has a soup")?;
    println!(
        "{name}: {} of {}: {} ({} {score:.5})",
        kept.len(),
        ingredients.len(),
        kept.join(", "),
        config.metric
    );
    Ok(search.path.weights()?)
}

/// Equal weights for some of the models.
fn shares(members: &[usize], count: usize) -> Result<Weights> {
    let share = |k: usize| if members.contains(&k) { 1.0 / members.len() as f64 } else { 0.0 };
    Ok(Weights::new(&(0..count).map(share).collect::<Vec<_>>())?)
}
