//! Merges checkpoints by a configuration in mergekit's form.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use align_data::hub::{self, HubKind, HubOptions};
use align_soup::merge::{
    FolderMergeError, MergeConfig, MergeOptions, MergeReport, ModelPath, Resolve, merge_folders_observed,
};
use anyhow::Result;
use serde_json::{Value, json};

use crate::context::Context;
use crate::progress::watched;
use crate::recipe::merge::MergeStage;
use crate::recipe::parts::{MODEL, stage_reference};

pub(super) fn run(name: &str, stage: &MergeStage, folder: &Path, context: &Context) -> Result<Value> {
    let config = stage.config.read(name)?;
    super::soup::clear_partial(folder)?;
    let options = MergeOptions {
        seed: stage.seed,
        overwrite: context.resume,
        allow_different_tokenizers: stage.force,
        allow_unmatched_filters: stage.force,
        ..MergeOptions::default()
    };
    let resolve = |model: &ModelPath| -> Result<PathBuf, Box<dyn std::error::Error + Send + Sync>> {
        match stage_reference(&model.path) {
            Some(inside) => {
                let folder = context.run.join(inside);
                match folder.join("adapter_config.json").is_file() {
                    true => Ok(folder),
                    false => Ok(context.model(&model.path)?),
                }
            }
            None => local_or_hub(model),
        }
    };
    let report = merge_watched(name, &config, &resolve, &options, &folder.join(MODEL), &context.interrupt);
    context.check_interrupt()?;
    let report = report?;
    for warning in &report.warnings {
        eprintln!("{name}: warning: {warning}");
    }
    Ok(json!({ "method": config.method().name(), "members": report.models.len(), "layers": report.layers }))
}

/// Merges with a bar; Ctrl-C leaves nothing behind.
pub(crate) fn merge_watched(
    title: &str,
    config: &MergeConfig,
    resolve: &Resolve<'_>,
    options: &MergeOptions,
    out: &Path,
    interrupt: &AtomicBool,
) -> Result<MergeReport, FolderMergeError> {
    watched(title, interrupt, |observe| merge_folders_observed(config, resolve, options, out, observe))
}

/// A folder as it is, or a hub repository at its revision through the cache.
pub(crate) fn local_or_hub(model: &ModelPath) -> Result<PathBuf, Box<dyn std::error::Error + Send + Sync>> {
    let mut options = HubOptions { progress: true, ..HubOptions::from_env() };
    if let Some(revision) = &model.revision {
        options.revision.clone_from(revision);
    }
    Ok(hub::resolve(&model.path, HubKind::Model, &options)?)
}
