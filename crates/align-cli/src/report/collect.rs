//! What a run folder holds, for the report.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::stages::{BestOfN, Comparison, Done};

/// Everything of one run.
pub(super) struct Run {
    pub(super) folder: PathBuf,
    /// The recipe's title, or the folder's name.
    pub(super) title: String,
    /// The resolved recipe.
    pub(super) recipe: Option<String>,
    /// Trainings, in the order they finished.
    pub(super) traces: Vec<Trace>,
    /// Comparisons by stage.
    pub(super) comparisons: Vec<(String, Comparison)>,
    /// Sweeps of best-of-n by stage.
    pub(super) sweeps: Vec<(String, BestOfN)>,
    /// What finished stages said of themselves, with their seconds.
    pub(super) stages: Vec<(String, Done)>,
}

/// The metrics of one training, step by step.
pub(super) struct Trace {
    /// The stage's name.
    pub(super) stage: String,
    /// The seed, if the stage ran over several.
    pub(super) seed: Option<String>,
    /// By metric: (step, value).
    pub(super) series: BTreeMap<String, Vec<(f64, f64)>>,
}

impl Run {
    /// Reads a run of stages or of a single stage.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let recipe = std::fs::read_to_string(folder.join("recipe.toml")).ok();
        let title = recipe
            .as_deref()
            .and_then(|text| text.parse::<toml::Table>().ok())
            .and_then(|table| Some(table.get("title")?.as_str()?.to_owned()))
            .filter(|title| !title.is_empty());
        let name = folder
            .canonicalize()
            .ok()
            .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        let mut run = Self {
            folder: folder.to_owned(),
            title: title.or_else(|| name.clone()).unwrap_or_default(),
            recipe,
            traces: Vec::new(),
            comparisons: Vec::new(),
            sweeps: Vec::new(),
            stages: Vec::new(),
        };
        run.add_stage(folder, &name.unwrap_or_default())?;
        for (name, folder) in order(subfolders(folder)?, run.recipe.as_deref()) {
            run.add_stage(&folder, &name)?;
        }
        Ok(run)
    }

    /// True if there is nothing to draw.
    pub(super) fn is_empty(&self) -> bool {
        self.traces.is_empty() && self.comparisons.is_empty() && self.sweeps.is_empty()
    }

    fn add_stage(&mut self, folder: &Path, name: &str) -> Result<()> {
        if let Some(done) = Done::read(folder)? {
            self.stages.push((name.to_owned(), done));
        }
        if let Some(comparison) = Comparison::read(folder)? {
            self.comparisons.push((name.to_owned(), comparison));
        }
        if let Some(sweep) = BestOfN::read(folder)? {
            self.sweeps.push((name.to_owned(), sweep));
        }
        if let Some(trace) = Trace::read(folder, name, None)? {
            self.traces.push(trace);
        }
        for (seed, folder) in subfolders(folder)? {
            let number = seed.strip_prefix("seed-").map(str::to_owned);
            // Members of an ensemble are told apart like seeds.
            if let Some(number) = number.or_else(|| seed.strip_prefix("member-").map(str::to_owned))
                && let Some(trace) = Trace::read(&folder, name, Some(number))?
            {
                self.traces.push(trace);
            }
        }
        Ok(())
    }
}

impl Trace {
    fn read(folder: &Path, stage: &str, seed: Option<String>) -> Result<Option<Self>> {
        let path = folder.join("metrics.jsonl");
        if !path.exists() {
            return Ok(None);
        }
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut series: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            let row: serde_json::Map<String, Value> = serde_json::from_str(line)
                .with_context(|| format!("{}:{} is no JSON object", path.display(), number + 1))?;
            let Some(step) = row.get("step").and_then(Value::as_f64) else { continue };
            for (name, value) in &row {
                if let Some(value) = value.as_f64().filter(|value| value.is_finite()) {
                    series.entry(name.clone()).or_default().push((step, value));
                }
            }
        }
        Ok(Some(Self { stage: stage.to_owned(), seed, series }))
    }
}

/// Folders by name.
fn subfolders(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot read the run in {}", folder.display()))?;
    let mut folders: Vec<(String, PathBuf)> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .filter_map(|path| Some((path.file_name()?.to_str()?.to_owned(), path)))
        .collect();
    folders.sort();
    Ok(folders)
}

/// Stages in the recipe's order, whatever else there is after them.
fn order(mut folders: Vec<(String, PathBuf)>, recipe: Option<&str>) -> Vec<(String, PathBuf)> {
    let names: Vec<String> = recipe
        .and_then(|text| text.parse::<toml::Table>().ok())
        .and_then(|table| table.get("stage")?.as_array().cloned())
        .map(|stages| {
            stages.iter().filter_map(|stage| Some(stage.get("name")?.as_str()?.to_owned())).collect()
        })
        .unwrap_or_default();
    let place = |name: &String| names.iter().position(|known| known == name).unwrap_or(usize::MAX);
    folders.sort_by_key(|(name, _)| place(name));
    folders
}
