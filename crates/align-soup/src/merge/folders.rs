//! Merges of checkpoint folders into a new one, by a configuration.

use std::ops::ControlFlow;
use std::path::Path;

use serde_json::json;

use super::companions::write_companions;
use super::config::MergeConfig;
use super::folders_error::FolderMergeError;
use super::plan::{MergePlan, Resolve};
use super::reference::{ModelPath, ModelReference};
use super::report::{FolderMergeWarning, MergeOptions, MergeReport, MergedModel};
use super::run::{Merged, run};
use crate::checkpoint::place::{CreateSink, Partial, create_file};
use crate::checkpoint::stream::Output;
use crate::checkpoint::{Progress, compat, pretty};
use crate::error::SoupError;

/// Merges checkpoint folders as a configuration in mergekit's form says.
///
/// Memory is a few hundred KiB for each model and thread, whatever the size of the tensors: methods that need norms or ranks
/// of a tensor read it again, from the system's cache. Beside that, embeddings whose rows are rearranged for another
/// vocabulary are in memory whole, and DELLA keeps a byte for each value of a tensor. Inputs may be f64, f32, f16 and bf16, mixed if
/// need be; arithmetic is in f64 and the result rounded once. Configuration and tokenizer are the base's, or the first
/// model's. The configuration is written beside the weights as `mergekit_config.yml`; which weights went in, by which
/// method and from which ancestor is in `align.json`.
///
/// Layers are recognised by the first number in tensors' names, so that any family with one stack of layers can be merged
/// and restacked. What stands before the layers (embeddings) is merged from the first slice, what stands after them from
/// the last.
///
/// The folder is built beside `out` and renamed when complete; after an error `out` is as it was.
///
/// # Errors
/// See [`FolderMergeError`].
///
/// # Source
/// mergekit 0.1.5, <https://github.com/arcee-ai/mergekit>; departures are listed with [`MergeConfig`].
///
/// # Examples
/// ```no_run
/// use std::path::PathBuf;
///
/// use align_soup::merge::{MergeConfig, MergeOptions, merge_folders};
///
/// let config = MergeConfig::read("merge.yml")?;
/// let local = |model: &align_soup::merge::ModelPath| Ok(PathBuf::from(&model.path));
/// let report = merge_folders(&config, &local, &MergeOptions::default(), "merged")?;
/// for warning in &report.warnings {
///     eprintln!("warning: {warning}");
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn merge_folders(
    config: &MergeConfig,
    resolve: &Resolve<'_>,
    options: &MergeOptions,
    out: impl AsRef<Path>,
) -> Result<MergeReport, FolderMergeError> {
    merge_folders_observed(config, resolve, options, out, &|_| ControlFlow::Continue(()))
}

/// [`merge_folders`] that reports its progress and stops with [`SoupError::Interrupted`], leaving nothing behind, when
/// `observe` breaks. `observe` is called from several threads, once for each few hundred KB.
///
/// # Errors
/// As [`merge_folders`].
pub fn merge_folders_observed(
    config: &MergeConfig,
    resolve: &Resolve<'_>,
    options: &MergeOptions,
    out: impl AsRef<Path>,
    observe: &(dyn Fn(Progress) -> ControlFlow<()> + Sync),
) -> Result<MergeReport, FolderMergeError> {
    merge_with(config, resolve, options, out.as_ref(), observe, &create_file)
}

fn merge_with(
    config: &MergeConfig,
    resolve: &Resolve<'_>,
    options: &MergeOptions,
    out: &Path,
    observe: &(dyn Fn(Progress) -> ControlFlow<()> + Sync),
    create: &CreateSink,
) -> Result<MergeReport, FolderMergeError> {
    let plan = MergePlan::new(config, resolve, options)?;
    let inputs: Vec<&Path> = plan
        .folders
        .iter()
        .flat_map(|folder| std::iter::once(folder.path.as_path()).chain(folder.who.folder.as_deref()))
        .collect();
    let partial = Partial::begin(out, options.overwrite, &inputs)?;
    let metadata = json!({ "format": "pt" });
    let headers: Vec<Vec<u8>> =
        plan.layout.shards.iter().map(|shard| plan.layout.header(shard, &metadata)).collect();
    let outputs = plan
        .layout
        .shards
        .iter()
        .zip(&headers)
        .map(|(shard, header)| {
            let path = partial.path().join(&shard.name);
            let sink = create(&path).map_err(|source| SoupError::Write { path: path.clone(), source })?;
            let output = Output { path, sink, data_start: header.len() as u64 };
            output.write_at(header, 0)?;
            Ok(output)
        })
        .collect::<Result<Vec<_>, SoupError>>()?;

    let merged = run(&plan, &outputs, options.seed, observe)?;
    if partial.replaces() {
        for output in &outputs {
            output.sink.sync().map_err(|source| SoupError::Write { path: output.path.clone(), source })?;
        }
    }
    if let Some((name, index)) = plan.layout.index() {
        partial.write(name, &pretty(&index))?;
    }
    write_companions(&partial, &plan, config)?;
    let (models, ancestor) = ancestry(&plan, &merged, config.base_model().is_some())?;
    let origin = json!({
        "id": merged.result,
        "ancestor": ancestor,
        "merge": {
            "method": config.method().name(),
            "base": config.base_model().map(short_name),
            "seed": config.method().is_random().then_some(options.seed),
            "models": models,
        },
    });
    partial.write("align.json", &pretty(&origin))?;
    let shards = outputs.len();
    drop(outputs);
    partial.publish()?;

    let mut warnings = plan.warnings.clone();
    warnings.extend(merged.warnings.into_iter().map(FolderMergeWarning::Method));
    Ok(MergeReport {
        out: out.to_owned(),
        id: merged.result,
        ancestor,
        models,
        layers: plan.layers(),
        tensors: plan.tensors(),
        bytes: plan.bytes(),
        shards,
        warnings,
    })
}

/// What the models descend from, and what they have in common: the ancestor all name, or the base if the others name it.
fn ancestry(
    plan: &MergePlan,
    merged: &Merged,
    has_base: bool,
) -> Result<(Vec<MergedModel>, Option<String>), SoupError> {
    let models = plan
        .folders
        .iter()
        .zip(&plan.models)
        .zip(&merged.models)
        .map(|((folder, model), id)| {
            Ok(MergedModel { name: short_name(model), id: id.clone(), ancestor: compat::ancestor(folder)? })
        })
        .collect::<Result<Vec<_>, SoupError>>()?;
    let (base, others) = models.split_at(usize::from(has_base));
    let named = match others {
        [] => base[0].ancestor.clone(),
        [first, rest @ ..] => first
            .ancestor
            .clone()
            .filter(|ancestor| rest.iter().all(|other| other.ancestor.as_ref() == Some(ancestor))),
    };
    let fits = |ancestor: &String| {
        base.iter().all(|base| base.id.as_ref() == Some(ancestor) || base.ancestor.as_ref() == Some(ancestor))
    };
    let common = named.filter(fits);
    Ok((models, common))
}

/// The names of folders, not where they lie on this machine.
fn short_name(model: &ModelReference) -> String {
    let last = |path: &ModelPath| {
        let name = Path::new(&path.path).file_name();
        name.map_or_else(|| path.path.clone(), |name| name.to_string_lossy().into_owned())
    };
    match &model.adapter {
        Some(adapter) => format!("{}+{}", last(&model.model), last(adapter)),
        None => last(&model.model),
    }
}

#[cfg(test)]
mod tests;
