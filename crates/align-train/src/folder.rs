//! The folder of a run: what was run, with what, and what came of it.
//!
//! ```text
//! run/
//!   recipe.toml     the resolved recipe, every default spelt out
//!   run.json        the same as data, versions, seeds, hashes of the inputs
//!   metrics.jsonl   one line an iteration
//!   checkpoints/
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use align_core::persist::{PersistError, replace_file, replace_folder};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::checkpoint::{read_json, versions, write_json};
use crate::differences::{Difference, differences, listed};
use crate::manifest::{FileHash, hash_all};

const RECORD: &str = "run.json";

/// What a run is made of.
#[derive(Clone, Debug, Default)]
pub struct RunInfo {
    /// The resolved recipe as TOML, with every default spelt out.
    pub recipe_text: String,
    /// The same as data.
    pub recipe: Value,
    /// Seeds by name.
    pub seeds: BTreeMap<String, u64>,
    /// Files and folders that are read: models, data.
    pub inputs: Vec<PathBuf>,
    /// Versions beside those of align-train and Burn.
    pub versions: BTreeMap<String, String>,
}

/// `run.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Version of this form.
    pub format: u32,
    /// The resolved recipe.
    pub recipe: Value,
    /// Seeds by name.
    pub seeds: BTreeMap<String, u64>,
    /// Every file of every input, by the input's path and then its own.
    pub inputs: BTreeMap<String, BTreeMap<String, FileHash>>,
    /// Versions of what ran.
    pub versions: BTreeMap<String, String>,
}

/// Why a run folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// Something stands there already.
    #[error("expected a new or empty folder at {}, found `{found}` in it; resume that run or choose another folder", path.display())]
    Used {
        /// The folder.
        path: PathBuf,
        /// One of the things in it.
        found: String,
    },
    /// It is not the folder of a run.
    #[error("expected the folder of a run at {}, found {found}", path.display())]
    NotARun {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        found: String,
    },
    /// The run was made with another recipe.
    #[error("the run in {} was made with another recipe: {}", path.display(), listed(differences))]
    OtherRecipe {
        /// The folder.
        path: PathBuf,
        /// Which keys differ.
        differences: Vec<Difference>,
    },
    /// An input is not what it was when the run began.
    #[error("input {} of the run has changed since it began: {}", input.display(), files.join(", "))]
    OtherInput {
        /// The input.
        input: PathBuf,
        /// The files that differ.
        files: Vec<String>,
    },
    /// Reading or writing failed.
    #[error(transparent)]
    Persist(#[from] PersistError),
}

/// The folder of a run that exists.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Makes the folder as a whole, or not at all.
    ///
    /// # Errors
    /// If something stands there already, an input cannot be read or the folder cannot be written.
    pub fn create(path: impl Into<PathBuf>, info: &RunInfo) -> Result<Self, FolderError> {
        let path = path.into();
        if let Some(found) = first_entry(&path) {
            return Err(FolderError::Used { path, found });
        }
        let mut all_versions = versions();
        all_versions.extend(info.versions.clone());
        let record = RunRecord {
            format: 1,
            recipe: info.recipe.clone(),
            seeds: info.seeds.clone(),
            inputs: hash_inputs(info.inputs.iter().cloned())?,
            versions: all_versions,
        };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(PersistError::write(parent))?;
        }
        replace_folder(&path, |folder| {
            replace_file(&folder.join("recipe.toml"), |file| file.write_all(info.recipe_text.as_bytes()))?;
            write_json(&folder.join(RECORD), &record)?;
            let checkpoints = folder.join("checkpoints");
            fs::create_dir(&checkpoints).map_err(PersistError::write(&checkpoints))
        })?;
        Ok(Self { path })
    }

    /// Opens the folder of a run that is to be resumed, with the same recipe and the same inputs.
    ///
    /// # Errors
    /// If it is not the folder of a run, or the recipe (except for keys in `may_differ`) or an input differs.
    pub fn open(
        path: impl Into<PathBuf>,
        recipe: &Value,
        may_differ: &[String],
    ) -> Result<Self, FolderError> {
        let folder = Self { path: path.into() };
        let record = folder.record()?;
        let differences = differences(&record.recipe, recipe, may_differ);
        if !differences.is_empty() {
            return Err(FolderError::OtherRecipe { path: folder.path, differences });
        }
        let now = hash_inputs(record.inputs.keys().map(PathBuf::from))?;
        for (input, before) in &record.inputs {
            let now = &now[input];
            let names = before.keys().chain(now.keys().filter(|name| !before.contains_key(*name)));
            let files: Vec<String> =
                names.filter(|name| before.get(*name) != now.get(*name)).cloned().collect();
            if !files.is_empty() {
                return Err(FolderError::OtherInput { input: PathBuf::from(input), files });
            }
        }
        Ok(folder)
    }

    /// What was recorded when the run began.
    ///
    /// # Errors
    /// If it is not the folder of a run.
    pub fn record(&self) -> Result<RunRecord, FolderError> {
        if !self.path.is_dir() {
            return Err(FolderError::NotARun { path: self.path.clone(), found: "nothing".to_owned() });
        }
        read_json(&self.path.join(RECORD)).map_err(|error| FolderError::NotARun {
            path: self.path.clone(),
            found: format!("`{RECORD}`: {error}"),
        })
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where [`JsonLines`](crate::JsonLines) writes.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// Where checkpoints go.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// Where [`TensorBoard`](crate::TensorBoard) writes.
    pub fn tensorboard(&self) -> PathBuf {
        self.path.join("tensorboard")
    }
}

fn hash_inputs(
    inputs: impl Iterator<Item = PathBuf>,
) -> Result<BTreeMap<String, BTreeMap<String, FileHash>>, PersistError> {
    inputs
        .map(|input| {
            let hashes = hash_all(&input).map_err(PersistError::read(&input))?;
            Ok((input.to_string_lossy().into_owned(), hashes))
        })
        .collect()
}

/// One name in the folder, or the file's own name if it is a file.
fn first_entry(path: &Path) -> Option<String> {
    if path.is_file() {
        return Some(path.file_name()?.to_string_lossy().into_owned());
    }
    let mut names: Vec<String> = fs::read_dir(path)
        .ok()?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names.into_iter().next()
}
