//! Averages checkpoints and checks the soup's health.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use align_data::rows::DemonstrationRow;
use align_soup::{HealthGate, SoupError, SoupOptions, SoupReport, Weights, soup_folders_observed};
use align_train::{NextToken, evaluate};
use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::context::{Context, encoder, transformer};
use crate::data;
use crate::progress::{bytes_bar, working};
use crate::recipe::parts::MODEL;
use crate::recipe::stage::{HealthConfig, SoupStage};

pub(super) fn run(name: &str, stage: &SoupStage, folder: &Path, context: &Context) -> Result<Value> {
    let models = stage.models.iter().map(|model| context.model(model)).collect::<Result<Vec<_>>>()?;
    let weights = match stage.weights.as_slice() {
        [] => Weights::uniform(models.len())?,
        weights => Weights::new(weights)?,
    };
    let out = folder.join(MODEL);
    clear_partial(folder)?;
    let options = SoupOptions { overwrite: context.resume, ..SoupOptions::default() };
    let report = soup_watched(name, &models, &weights, &options, &out, &context.interrupt);
    context.check_interrupt()?;
    let report = report?;
    for warning in &report.warnings {
        eprintln!("{name}: warning: {warning}");
    }
    let mut summary = json!({ "members": models.len(), "weights": weights.as_slice() });
    if let Some(health) = &stage.health {
        let _working = working(&format!("{name}: checking the soup's health"));
        let (soup, ingredients) = losses(health, &models, &out, context)?;
        let health = HealthGate::new(health.tolerance.get())?.judge(soup, &ingredients)?;
        eprintln!("{name}: {health}");
        summary["nll"] = json!(health.soup);
        summary["ingredient_nll"] = json!(health.ingredients);
    }
    Ok(summary)
}

/// Averages folders with a bar; Ctrl-C leaves nothing behind.
pub(crate) fn soup_watched(
    title: &str,
    models: &[PathBuf],
    weights: &Weights,
    options: &SoupOptions,
    out: &Path,
    interrupt: &AtomicBool,
) -> Result<SoupReport, SoupError> {
    let bar = bytes_bar(title);
    let report = soup_folders_observed(models, weights, options, out, &|progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        match interrupt.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    bar.finish_and_clear();
    report
}

/// Removes what a soup that was killed left beside its destination.
fn clear_partial(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&format!(".{MODEL}.partial-")) {
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
