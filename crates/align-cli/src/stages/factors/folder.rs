//! The folder of a model: everything that is needed to score and explain rows of another file.
//!
//! ```text
//! model.json, network.safetensors   the model
//! encoder.json                      how answers become numbers
//! schema.json                       what the columns of a file are
//! baseline.json                     what masked factors are set to, in encoded rows
//! result.json                       figures, importances and shares with their bands
//! ```

use std::path::{Path, PathBuf};

use align_core::persist::{PersistError, read_json, write_json};
use align_factors::attribution::{Attributions, Baseline, Method, explain};
use align_factors::{Encoder, Matrix, Model, Schema};
use anyhow::{Context as _, Result, bail};
use burn::tensor::Device;

use super::answers::unlabelled;
use super::result::ModelResult;

/// Where the models of a fit lie in its folder.
pub(crate) const MODELS: &str = "models";
const ENCODER: &str = "encoder.json";
const SCHEMA: &str = "schema.json";
const BASELINE: &str = "baseline.json";
const RESULT: &str = "result.json";

/// What stands beside a model.
pub(super) struct Extras<'a> {
    pub(super) encoder: &'a Encoder,
    pub(super) schema: &'a Schema,
    pub(super) baseline: &'a Baseline,
    pub(super) result: &'a ModelResult,
}

/// Writes everything into an existing folder.
pub(super) fn write(folder: &Path, model: &Model, extras: &Extras<'_>) -> Result<(), PersistError> {
    model.save(folder)?;
    extras.encoder.save(&folder.join(ENCODER))?;
    write_json(&folder.join(SCHEMA), extras.schema)?;
    let baseline: Vec<Vec<f64>> = extras.baseline.rows().rows().map(<[f64]>::to_vec).collect();
    write_json(&folder.join(BASELINE), &baseline)?;
    write_json(&folder.join(RESULT), extras.result)
}

/// The model alone.
pub(super) fn model(folder: &Path, device: &Device) -> Result<Model> {
    Ok(Model::load(folder, device)?)
}

/// What is said of it.
pub(super) fn result(folder: &Path) -> Result<ModelResult> {
    Ok(read_json(&folder.join(RESULT), "what is said of a model")?)
}

/// A model with what it takes to explain rows of a file.
pub(crate) struct OpenedModel {
    pub(crate) model: Model,
    pub(crate) encoder: Encoder,
    pub(crate) schema: Schema,
    pub(crate) baseline: Baseline,
    pub(crate) result: ModelResult,
}

impl OpenedModel {
    /// Attributes rows of a file, from the first on, as the model was explained when it was fitted or by another method.
    pub(crate) fn explain(
        &self,
        data: &Path,
        rows: Option<usize>,
        method: Option<Method>,
    ) -> Result<Attributions> {
        let table = unlabelled(data, &self.schema)?;
        let count = rows.map_or(table.len(), |rows| rows.min(table.len()));
        let rows = self.encoder.rows(&table, &(0..count).collect::<Vec<_>>())?;
        let method = method.unwrap_or(self.result.method);
        Ok(explain(&self.model, &rows, &self.encoder.factors(), &self.baseline, method)?)
    }
}

/// Opens the folder of a model.
pub(crate) fn open(folder: &Path, device: &Device) -> Result<OpenedModel> {
    let rows: Vec<Vec<f64>> = read_json(&folder.join(BASELINE), "what masked factors are set to")?;
    if rows.is_empty() {
        bail!("{} is damaged: it holds no row", folder.join(BASELINE).display());
    }
    Ok(OpenedModel {
        model: model(folder, device)?,
        encoder: Encoder::load(&folder.join(ENCODER))?,
        schema: read_json(&folder.join(SCHEMA), "the columns of a table")?,
        baseline: Baseline::Background(Matrix::from_rows(&rows)),
        result: result(folder)?,
    })
}

/// The folders of models that a folder means: itself, or all models of a fit.
pub(crate) fn models_in(folder: &Path) -> Result<Vec<PathBuf>> {
    if folder.join(RESULT).is_file() {
        return Ok(vec![folder.to_owned()]);
    }
    let inside = folder.join(MODELS);
    let entries = std::fs::read_dir(&inside).with_context(|| {
        format!("{} holds no models: expected the folder of a fit, or one with {RESULT}", folder.display())
    })?;
    let mut found: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.join(RESULT).is_file()).collect();
    found.sort();
    if found.is_empty() {
        bail!("{} holds no models", inside.display());
    }
    Ok(found)
}
