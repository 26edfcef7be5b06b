//! Averages checkpoints: by equal or given weights, greedily, or by learnt weights; checks the soup's health, draws its neighbourhood.

mod greedy;
mod learned;
mod map;
mod measure;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use align_data::rows::DemonstrationRow;
use align_soup::{HealthGate, SoupError, SoupOptions, SoupReport, ToSource, Weights, soup_folders_observed};
use align_train::{NextToken, evaluate};
use anyhow::{Context as _, Result};
use serde_json::{Value, json};

pub(crate) use self::greedy::GreedySearch;
pub(crate) use self::learned::LearnedWeights;
pub(crate) use self::map::Map;
use crate::context::{Context, encoder, transformer};
use crate::data;
use crate::progress::{watched, working};
use crate::recipe::parts::{MODEL, stage_reference};
use crate::recipe::soup::{HealthConfig, SoupStage};

/// A model of a soup.
struct Ingredient {
    /// What tables and pictures call it.
    name: String,
    /// Its folder.
    folder: PathBuf,
}

pub(super) fn run(name: &str, stage: &SoupStage, folder: &Path, context: &Context) -> Result<Value> {
    let ingredients = ingredients(&stage.models, context)?;
    let folders: Vec<PathBuf> = ingredients.iter().map(|ingredient| ingredient.folder.clone()).collect();
    let out = folder.join(MODEL);
    clear_partial(folder)?;
    let mut summary = json!({ "members": ingredients.len() });
    let weights = match (&stage.greedy, &stage.learned) {
        (Some(config), _) => Some(greedy::search(name, config, &ingredients, folder, context)?),
        (None, Some(config)) => learned::learn(name, config, &ingredients, folder, context)?,
        (None, None) if stage.weights.is_empty() => Some(Weights::uniform(folders.len())?),
        (None, None) => Some(Weights::new(&stage.weights)?),
    };
    // Weights by layer have made their model already.
    if let Some(weights) = &weights {
        summary["weights"] = json!(weights.as_slice());
        // Figures on data say what ancestors only hint at; a soup may well contain the ancestor itself.
        let judged = stage.greedy.is_some() || stage.learned.is_some() || stage.map.is_some();
        average(name, &folders, weights, judged, &out, context)?;
    }
    if let Some(health) = &stage.health {
        let _working = working(&format!("{name}: checking the soup's health"));
        let (soup, ingredients) = losses(health, &folders, &out, context)?;
        let health = HealthGate::new(health.tolerance.get())?.judge(soup, &ingredients)?;
        eprintln!("{name}: {health}");
        summary["nll"] = json!(health.soup);
        summary["ingredient_nll"] = json!(health.ingredients);
    }
    if let Some(config) = &stage.map {
        let mapped = self::ingredients(stage.mapped(), context)?;
        // The soup is on the plane only if it is a soup of these three.
        let own = weights.filter(|_| config.models.is_empty() || config.models == stage.models);
        map::draw(name, config, &mapped, own.as_ref(), folder, context)?;
    }
    Ok(summary)
}

/// Writes the soup that is the stage's result, and what there is to know about it.
fn average(
    name: &str,
    folders: &[PathBuf],
    weights: &Weights,
    judged: bool,
    out: &Path,
    context: &Context,
) -> Result<()> {
    let (folders, weights) = counting(folders, weights)?;
    let options = SoupOptions {
        overwrite: context.resume,
        allow_different_ancestors: judged,
        ..SoupOptions::default()
    };
    let report = soup_watched(name, &folders, &weights, &options, out, &context.interrupt);
    context.check_interrupt()?;
    for warning in &report?.warnings {
        eprintln!("{name}: warning: {warning}");
    }
    Ok(())
}

/// Without the models of weight 0: they are not read.
fn counting(folders: &[PathBuf], weights: &Weights) -> Result<(Vec<PathBuf>, Weights)> {
    let counts = |(_, weight): &(&PathBuf, &f64)| **weight != 0.0;
    let (folders, weights): (Vec<_>, Vec<_>) = folders
        .iter()
        .zip(weights.as_slice())
        .filter(counts)
        .map(|(folder, weight)| (folder.clone(), *weight))
        .unzip();
    Ok((folders, Weights::extrapolating(&weights)?))
}

/// Opens references and names them.
fn ingredients(models: &[String], context: &Context) -> Result<Vec<Ingredient>> {
    let short: Vec<String> = models.iter().map(|model| short(model)).collect();
    let unique = |name: &String| short.iter().filter(|other| *other == name).count() == 1;
    models
        .iter()
        .zip(&short)
        .map(|(model, short)| {
            let name = if unique(short) { short.clone() } else { model.clone() };
            Ok(Ingredient { name, folder: context.model(model)? })
        })
        .collect()
}

/// The stage of a reference; of a path the folder, or the one above it where that is called `model`.
fn short(reference: &str) -> String {
    if let Some(stage) = stage_reference(reference) {
        return stage.to_owned();
    }
    let path = reference.trim_end_matches('/');
    let path = path.strip_suffix(MODEL).and_then(|path| path.strip_suffix('/')).unwrap_or(path);
    path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(reference).to_owned()
}

/// Averages folders with a bar; Ctrl-C leaves nothing behind.
pub(crate) fn soup_watched(
    title: &str,
    models: &[impl ToSource],
    weights: &Weights,
    options: &SoupOptions,
    out: &Path,
    interrupt: &AtomicBool,
) -> Result<SoupReport, SoupError> {
    watched(title, interrupt, |observe| soup_folders_observed(models, weights, options, out, observe))
}

/// Removes what a soup that was killed left beside its destination, and soups that were only tried.
pub(super) fn clear_partial(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let partial = [MODEL, measure::TRIAL].iter().any(|made| name.starts_with(&format!(".{made}.")));
        if partial || name == measure::TRIAL {
            let path = entry.path();
            std::fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Negative log-likelihood a token of the soup and of each ingredient, on the same rows.
fn losses(
    config: &HealthConfig,
    ingredients: &[PathBuf],
    soup: &Path,
    context: &Context,
) -> Result<(f64, Vec<f64>)> {
    let rows = data::rows::<DemonstrationRow>(&config.data, context)?;
    let loss = |folder: &Path| -> Result<f64> {
        let model = transformer(folder, &context.device)?;
        let options = config.encode.options(Some(model.config().context_length));
        let encoder = encoder(folder, Some(model.config().vocab_size), options)?;
        let examples = rows.encode("health rows", &encoder, |encoder, row| encoder.encode_sft(row))?;
        let metrics = evaluate(&model, &NextToken, &super::sft::batches_of(&examples, 16, &context.device))?;
        Ok(metrics.get("loss").expect("an evaluation reports its loss"))
    };
    Ok((loss(soup)?, ingredients.iter().map(|folder| loss(folder)).collect::<Result<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_have_short_names() {
        assert_eq!(short("@sft-a"), "sft-a");
        assert_eq!(short("@sft/seed-1"), "sft/seed-1");
        assert_eq!(short("runs/sft-a/model"), "sft-a");
        assert_eq!(short("runs/sft-a/model/"), "sft-a");
        assert_eq!(short("org/name"), "name");
        assert_eq!(short("model"), "model");
        assert_eq!(short("a-model"), "a-model");
    }
}
