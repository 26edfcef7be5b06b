//! Averages checkpoints and checks the soup's health.

use std::path::{Path, PathBuf};

use align_data::rows::DemonstrationRow;
use align_soup::{HealthGate, SoupOptions, Weights, soup_folders};
use align_train::{NextToken, evaluate};
use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::context::Context;
use crate::data;
use crate::recipe::parts::MODEL;
use crate::recipe::stage::{HealthConfig, SoupStage};

pub(super) fn run(name: &str, stage: &SoupStage, folder: &Path, context: &Context) -> Result<Value> {
    let models = stage.models.iter().map(|model| context.model(model)).collect::<Result<Vec<_>>>()?;
    let weights = match stage.weights.as_slice() {
        [] => Weights::uniform(models.len())?,
        weights => Weights::new(weights)?,
    };
    let out = folder.join(MODEL);
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let options = SoupOptions { overwrite: context.resume, ..SoupOptions::default() };
    let report = soup_folders(&models, &weights, &options, &out)?;
    for warning in &report.warnings {
        eprintln!("{name}: warning: {warning}");
    }
    let mut summary = json!({ "members": models.len(), "weights": weights.as_slice() });
    if let Some(health) = &stage.health {
        let (soup, ingredients) = losses(health, &models, &out, context)?;
        let health = HealthGate::new(health.tolerance.get())?.judge(soup, &ingredients)?;
        eprintln!("{name}: {health}");
        summary["nll"] = json!(health.soup);
        summary["ingredient_nll"] = json!(health.ingredients);
    }
    Ok(summary)
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
        let model = context.transformer(folder, &context.device)?;
        let options = config.encode.options(Some(model.config().context_length));
        let encoder = context.encoder(folder, Some(model.config().vocab_size), options)?;
        let examples =
            data::encode("health rows", &rows.rows, &encoder, |encoder, row| encoder.encode_sft(row))?;
        let metrics = evaluate(&model, &NextToken, &super::sft::batches_of(&examples, 16, &context.device))?;
        Ok(metrics.get("loss").expect("an evaluation reports its loss"))
    };
    Ok((loss(soup)?, ingredients.iter().map(|folder| loss(folder)).collect::<Result<_>>()?))
}
