//! Soups of checkpoint folders as transformers writes them.

mod adapter;
pub(crate) mod blocks;
pub(crate) mod compat;
mod file;
pub(crate) mod open;
pub(crate) mod place;
pub(crate) mod plan;
mod report;
mod source;
pub(crate) mod stream;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

pub use adapter::{AdapterError, AdapterSoup, soup_adapters};
pub use report::{IngredientReport, Progress, SoupOptions, SoupReport, SoupWarning};
pub use source::{Source, ToSource};

use self::open::{Folder, read_optional};
use self::place::{CreateSink, Partial, create_file};
use self::plan::{Plan, metadata};
use self::stream::{Output, Streamed, stream};
use crate::error::SoupError;
use crate::mix::FloatDtype;
use crate::task_vector::TaskVectors;
use crate::weights::Weights;

/// What is copied from the first ingredient; `config.json` is handled apart.
pub(crate) const COPIED: [&str; 11] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
];

/// Averages checkpoint folders into a new one, tensor by tensor.
///
/// Reads `model.safetensors` or the shards of its index, each folder sharded as it likes, in f64, f32, f16 or bf16,
/// mixed if need be; sums in f64 and rounds once. Memory stays at a few hundred KiB for each ingredient and thread.
/// Configuration, tokenizer and chat template are the first ingredient's. The recipe (weights, identities, ancestor)
/// goes into the metadata of the weights and into `align.json`.
///
/// An ingredient may be an adapter over a base, see [`Source`].
///
/// The folder is built beside `out` and renamed when complete; after an error `out` is as it was. When it replaces a
/// checkpoint, everything is on the disk before the old one goes.
///
/// # Errors
/// See [`SoupError`]: differing tensors, shapes, configurations, tokenizers or ancestors, values that are not finite,
/// quantised weights, adapters without their base or over another, damaged files, an output that exists, a disk that is full.
///
/// # Examples
/// ```no_run
/// use align_soup::{SoupOptions, Weights, soup_folders};
///
/// let report = soup_folders(&["sft-a", "sft-b"], &Weights::uniform(2)?, &SoupOptions::default(), "soup")?;
/// for warning in &report.warnings {
///     eprintln!("warning: {warning}");
/// }
/// # Ok::<(), align_soup::SoupError>(())
/// ```
pub fn soup_folders(
    inputs: &[impl ToSource],
    weights: &Weights,
    options: &SoupOptions,
    out: impl AsRef<Path>,
) -> Result<SoupReport, SoupError> {
    soup_folders_observed(inputs, weights, options, out, &|_| ControlFlow::Continue(()))
}

/// [`soup_folders`] that reports its progress and stops with [`SoupError::Interrupted`], leaving nothing behind, when
/// `observe` breaks. `observe` is called from several threads, a few thousand times per GB.
///
/// # Errors
/// As [`soup_folders`].
pub fn soup_folders_observed(
    inputs: &[impl ToSource],
    weights: &Weights,
    options: &SoupOptions,
    out: impl AsRef<Path>,
    observe: &(dyn Fn(Progress) -> ControlFlow<()> + Sync),
) -> Result<SoupReport, SoupError> {
    let inputs: Vec<Source> = inputs.iter().map(ToSource::to_source).collect();
    soup_with(&inputs, weights, options, out.as_ref(), observe, &create_file)
}

fn soup_with(
    inputs: &[Source],
    weights: &Weights,
    options: &SoupOptions,
    out: &Path,
    observe: &(dyn Fn(Progress) -> ControlFlow<()> + Sync),
    create: &CreateSink,
) -> Result<SoupReport, SoupError> {
    if inputs.is_empty() {
        return Err(SoupError::NoIngredients);
    }
    weights.expect_count(inputs.len())?;
    let folders = open_all(inputs)?;
    let mut warnings = Vec::new();
    for other in &folders[1..] {
        if !options.allow_different_tokenizers {
            compat::expect_same_tokenizer(&folders[0], other, &mut warnings)?;
        }
        if !options.allow_different_configs {
            compat::expect_same_config(&folders[0], other)?;
        }
    }
    let ancestors = source::ancestors(&folders, options.allow_different_ancestors)?;
    let ancestor = compat::common_ancestor(&folders, &ancestors, options, &mut warnings)?;

    let paths: Vec<&Path> = inputs
        .iter()
        .flat_map(|input| [Some(&input.folder), input.adapter.as_ref()])
        .flatten()
        .map(PathBuf::as_path)
        .collect();
    let partial = Partial::begin(out, options.overwrite, &paths)?;
    let plan = Plan::new(&folders, options.dtype, options.max_shard_bytes);
    let mut ingredients: Vec<IngredientReport> = inputs
        .iter()
        .zip(weights.as_slice())
        .zip(ancestors)
        // As long as a real identity, so that headers are as long as they will be.
        .map(|((input, &weight), ancestor)| IngredientReport {
            folder: input.folder.clone(),
            adapter: input.adapter.clone(),
            weight,
            id: "0".repeat(64),
            ancestor,
        })
        .collect();
    let provisional = recipe(&ingredients, ancestor.as_deref());
    let outputs = plan
        .shards
        .iter()
        .map(|shard| {
            let path = partial.path().join(&shard.name);
            let sink = create(&path).map_err(|source| SoupError::Write { path: path.clone(), source })?;
            Ok(Output { path, sink, data_start: plan.header(shard, &metadata(&provisional)).len() as u64 })
        })
        .collect::<Result<Vec<_>, SoupError>>()?;

    let streamed = stream(&plan, &folders, weights.as_slice(), &outputs, observe)?;
    for (ingredient, id) in ingredients.iter_mut().zip(&streamed.ingredients) {
        ingredient.id.clone_from(id);
    }
    warn_of_copies(&folders, weights, &streamed, &mut warnings);
    let recipe = recipe(&ingredients, ancestor.as_deref());
    for (shard, output) in plan.shards.iter().zip(&outputs) {
        let header = plan.header(shard, &metadata(&recipe));
        assert_eq!(header.len() as u64, output.data_start, "identities have one length");
        output.write_at(&header, 0)?;
        if partial.replaces() {
            output.sink.sync().map_err(|source| SoupError::Write { path: output.path.clone(), source })?;
        }
    }
    if let Some((name, index)) = plan.index() {
        partial.write(name, &pretty(&index))?;
    }
    write_companions(&partial, &folders[0], options.dtype)?;
    let origin = json!({ "id": streamed.result, "ancestor": ancestor, "soup": recipe });
    partial.write("align.json", &pretty(&origin))?;
    let shards = outputs.len();
    drop(outputs);
    partial.publish()?;

    Ok(SoupReport {
        out: out.to_owned(),
        id: streamed.result,
        ancestor,
        ingredients,
        tensors: plan.tensors.len(),
        values: plan.tensors.iter().map(|planned| planned.tensor.values()).sum(),
        bytes: plan.bytes(),
        shards,
        warnings,
    })
}

/// The identity of a checkpoint's weights: 64 hexadecimal digits that depend on names, types, shapes and values, and
/// not on sharding, configuration or metadata. This is what `ancestor` in `align.json` records.
///
/// It tells checkpoints apart; it is not made to resist forgery.
///
/// # Errors
/// If the folder is not a readable safetensors checkpoint.
pub fn checkpoint_id(folder: impl AsRef<Path>) -> Result<String, SoupError> {
    blocks::folder_identity(&Folder::open(folder.as_ref(), 0)?)
}

/// [`task_vectors`](crate::task_vectors) of checkpoint folders: compares a − base with b − base, streaming.
///
/// # Errors
/// If a folder cannot be read, or their tensors differ in name or shape. In errors `base` is ingredient 0.
pub fn task_vectors_of_folders(
    base: impl AsRef<Path>,
    a: impl AsRef<Path>,
    b: impl AsRef<Path>,
) -> Result<TaskVectors, SoupError> {
    let folders = open_all(&[base.as_ref(), a.as_ref(), b.as_ref()].map(Source::from))?;
    blocks::folder_task_vectors(&folders[0], [&folders[1], &folders[2]])
}

/// Opens folders and compares their tensors with the first one's.
fn open_all(sources: &[Source]) -> Result<Vec<Folder>, SoupError> {
    let folders = sources
        .iter()
        .enumerate()
        .map(|(index, source)| source.open(index))
        .collect::<Result<Vec<_>, _>>()?;
    for other in &folders[1..] {
        compat::expect_same_tensors(&folders[0], other)?;
    }
    Ok(folders)
}

/// The recipe as it is written: names of folders, not where they lie on this machine.
fn recipe(ingredients: &[IngredientReport], ancestor: Option<&str>) -> Value {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let ingredients: Vec<Value> = ingredients
        .iter()
        .map(|ingredient| {
            let mut entry = json!({
                "name": name(&ingredient.folder),
                "weight": ingredient.weight,
                "id": ingredient.id,
                "ancestor": ingredient.ancestor,
            });
            if let Some(adapter) = &ingredient.adapter {
                entry["adapter"] = json!(name(adapter));
            }
            entry
        })
        .collect();
    json!({ "method": "linear", "ancestor": ancestor, "ingredients": ingredients })
}

fn warn_of_copies(
    folders: &[Folder],
    weights: &Weights,
    streamed: &Streamed,
    warnings: &mut Vec<SoupWarning>,
) {
    for (folder, _) in folders.iter().zip(&streamed.identical).skip(1).filter(|(_, identical)| **identical) {
        warnings.push(SoupWarning::Identical { ingredient: folder.who.clone() });
    }
    let mut counting =
        streamed.ingredients.iter().zip(weights.as_slice()).filter(|(_, weight)| **weight != 0.0);
    let first = counting.next();
    if counting.all(|(id, _)| first.is_some_and(|(first, _)| first == id)) {
        warnings.push(SoupWarning::EqualsIngredient);
    }
}

/// Configuration (with the type of the result, if one was asked for), tokenizer, template.
fn write_companions(partial: &Partial, first: &Folder, dtype: Option<FloatDtype>) -> Result<(), SoupError> {
    let original = read_optional(&first.path.join("config.json"))?;
    let config = match (dtype, original) {
        (None, Some(bytes)) => bytes,
        (dtype, _) => {
            let mut config = first.config.clone();
            if let Some(dtype) = dtype {
                state_dtype(&mut config, dtype);
            }
            pretty(&Value::Object(config))
        }
    };
    partial.write("config.json", &config)?;
    for name in COPIED {
        if let Some(bytes) = read_optional(&first.path.join(name))? {
            partial.write(name, &bytes)?;
        }
    }
    Ok(())
}

/// Sets `dtype`, or `torch_dtype` where that is what the file has, here and in nested configurations that state one.
pub(crate) fn state_dtype(config: &mut Map<String, Value>, dtype: FloatDtype) {
    fn replace(config: &mut Map<String, Value>, dtype: FloatDtype) -> bool {
        let mut found = false;
        for (key, value) in config.iter_mut() {
            if key == "dtype" || key == "torch_dtype" {
                *value = json!(dtype.to_string());
                found = true;
            } else if let Value::Object(nested) = value {
                replace(nested, dtype);
            }
        }
        found
    }
    if !replace(config, dtype) {
        config.insert("torch_dtype".to_owned(), json!(dtype.to_string()));
    }
}

pub(crate) fn pretty(value: &Value) -> Vec<u8> {
    let mut text = format!("{value:#}").into_bytes();
    text.push(b'\n');
    text
}

#[cfg(test)]
pub(crate) mod tests;
