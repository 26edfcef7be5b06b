//! Checkpoints: written whole or not at all, rotated, and checked by hash before they are trusted.
//!
//! ```text
//! checkpoints/
//!   checkpoint-100/
//!     …                    whatever the algorithm saves: weights, optimizer.safetensors, data cursor
//!     trainer_state.json   step, recipe, versions
//!     manifest.json        length and SHA-256 of every other file, written last
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use align_core::persist::{NEW, OLD, PersistError, recover_folder, replace_file, replace_folder};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::differences::{Difference, differences, listed};
use crate::error::TrainError;
use crate::manifest::{FileHash, hash_all, sha256};
use crate::metrics::Metrics;

const STATE: &str = "trainer_state.json";
const MANIFEST: &str = "manifest.json";

/// Where checkpoints go, how often, and how many stay.
#[derive(Clone, Debug)]
pub struct CheckpointPlan {
    /// The folder that holds `checkpoint-<step>` folders; made when needed.
    pub folder: PathBuf,
    /// A checkpoint after every so many iterations; 0 saves only at the end and at a stop.
    pub every: u64,
    /// How many of the newest stay; at least 1 does.
    pub keep: usize,
    /// Which others stay because they are good.
    pub best: Option<Best>,
    /// The resolved recipe; resuming with another one is refused.
    pub recipe: Value,
    /// Keys of the recipe, with dots, that may differ when resuming.
    pub may_differ: Vec<String>,
}

impl CheckpointPlan {
    /// Saves every `every` iterations and keeps the newest two.
    pub fn new(folder: impl Into<PathBuf>, every: u64, recipe: Value) -> Self {
        Self { folder: folder.into(), every, keep: 2, best: None, recipe, may_differ: Vec::new() }
    }
}

/// Keeps the k checkpoints at which a metric was best.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// The metric's name, `eval/loss` for instance. Its latest value at the time of saving counts.
    pub metric: String,
    /// Which way is better.
    pub goal: Goal,
    /// How many stay.
    pub keep: usize,
}

/// Which way a metric is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// The lower the better.
    Lowest,
    /// The higher the better.
    Highest,
}

/// What a checkpoint knows beside what the algorithm saved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainerState {
    /// Version of this form.
    pub format: u32,
    /// Completed iterations.
    pub step: u64,
    /// The resolved recipe.
    pub recipe: Value,
    /// SHA-256 of the recipe.
    pub recipe_sha256: String,
    /// Versions of what wrote it.
    pub versions: BTreeMap<String, String>,
    /// The latest value of the metric that [`Best`] names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_value: Option<f64>,
}

/// A checkpoint whose files are all there and unaltered.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// What it knows.
    pub state: TrainerState,
}

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// There is none.
    #[error("expected a checkpoint in {}, found none", folder.display())]
    None {
        /// The folder.
        folder: PathBuf,
    },
    /// A file of it is missing, cut short or altered.
    #[error(
        "checkpoint {} is damaged: expected {expected}, found {found}; {}",
        path.display(),
        match previous {
            Some(previous) => format!("the newest whole one is {}", previous.display()),
            None => "no other checkpoint is whole".to_owned(),
        }
    )]
    Damaged {
        /// The checkpoint.
        path: PathBuf,
        /// What should have been there.
        expected: String,
        /// What was there.
        found: String,
        /// The newest checkpoint that is whole.
        previous: Option<PathBuf>,
    },
    /// It was made by another recipe.
    #[error("checkpoint {} was made with another recipe: {}", path.display(), listed(differences))]
    OtherRecipe {
        /// The checkpoint.
        path: PathBuf,
        /// Which keys differ.
        differences: Vec<Difference>,
    },
}

/// What to do when the newest checkpoint is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDamage {
    /// An error that names the newest whole one.
    Refuse,
    /// Take the newest whole one.
    UsePrevious,
}

/// Writes `checkpoint-<step>` as a whole and removes those that need not stay.
pub(crate) fn write(
    plan: &CheckpointPlan,
    step: u64,
    latest: &Metrics,
    fill: impl FnOnce(&Path) -> Result<(), TrainError>,
) -> Result<PathBuf, TrainError> {
    fs::create_dir_all(&plan.folder).map_err(PersistError::write(&plan.folder))?;
    let path = plan.folder.join(format!("checkpoint-{step}"));
    replace_folder(&path, |folder| {
        fill(folder)?;
        let state = TrainerState {
            format: 1,
            step,
            recipe_sha256: sha256(plan.recipe.to_string().as_bytes()),
            recipe: plan.recipe.clone(),
            versions: versions(),
            best_value: plan.best.as_ref().and_then(|best| latest.get(&best.metric)),
        };
        write_json(&folder.join(STATE), &state)?;
        let files = hash_all(folder).map_err(PersistError::read(folder))?;
        write_json(&folder.join(MANIFEST), &files)?;
        Ok::<(), TrainError>(())
    })?;
    rotate(plan)?;
    Ok(path)
}

/// The checkpoints in a folder by step, oldest first, whole or not.
pub fn checkpoints(folder: &Path) -> Vec<(u64, PathBuf)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<(u64, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let step = entry.file_name().to_str()?.strip_prefix("checkpoint-")?.parse().ok()?;
            Some((step, entry.path()))
        })
        .collect();
    found.sort();
    found
}

/// Finishes or clears away what a crash left half done among the checkpoints. Call it before [`checkpoints`].
///
/// # Errors
/// If the folder cannot be read, or a rename or a removal fails.
pub fn recover(folder: &Path) -> Result<(), PersistError> {
    let entries = match fs::read_dir(folder) {
        // A run that was stopped before it made the folder has nothing to recover.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(PersistError::read(folder))?,
    };
    for entry in entries {
        let path = entry.map_err(PersistError::read(folder))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if name.ends_with(DROPPED) {
            fs::remove_dir_all(&path).map_err(PersistError::write(&path))?;
        } else if let Some(whole) = name.strip_suffix(NEW).or(name.strip_suffix(OLD)) {
            recover_folder(&folder.join(whole))?;
        }
    }
    Ok(())
}

/// Reads a checkpoint's state after comparing every file with the manifest.
///
/// # Errors
/// If a file is missing, cut short, altered, or not listed.
pub fn verify(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let damaged = |expected: String, found: String| CheckpointError::Damaged {
        path: path.to_owned(),
        expected,
        found,
        previous: None,
    };
    let expected: BTreeMap<String, FileHash> =
        read_json(&path.join(MANIFEST)).map_err(|found| damaged(format!("a whole {MANIFEST}"), found))?;
    for (name, expected) in &expected {
        let found = FileHash::of(&path.join(name))
            .map_err(|error| damaged(format!("`{name}`"), error.to_string()))?;
        if found.bytes != expected.bytes {
            let (expected, found) = (expected.bytes, found.bytes);
            return Err(damaged(format!("{expected} bytes in `{name}`"), format!("{found}")));
        }
        if found.sha256 != expected.sha256 {
            return Err(damaged(format!("sha256 {} of `{name}`", expected.sha256), found.sha256));
        }
    }
    if !expected.contains_key(STATE) {
        return Err(damaged(format!("`{STATE}` in the manifest"), "none".to_owned()));
    }
    let state = read_json(&path.join(STATE)).map_err(|found| damaged(format!("a whole {STATE}"), found))?;
    Ok(Checkpoint { path: path.to_owned(), state })
}

/// The checkpoint to resume from: the newest, if it is whole.
///
/// # Errors
/// If there is none, or the newest is damaged and must not be passed over, or none is whole.
pub fn newest(folder: &Path, on_damage: OnDamage) -> Result<Checkpoint, CheckpointError> {
    let mut damage = None;
    for (_, path) in checkpoints(folder).into_iter().rev() {
        match (verify(&path), damage) {
            (Ok(checkpoint), None) => return Ok(checkpoint),
            (Ok(checkpoint), Some(_)) if on_damage == OnDamage::UsePrevious => return Ok(checkpoint),
            (Ok(whole), Some(mut first)) => {
                if let CheckpointError::Damaged { previous, .. } = &mut first {
                    *previous = Some(whole.path);
                }
                return Err(first);
            }
            (Err(error), first) => damage = Some(first.unwrap_or(error)),
        }
    }
    Err(damage.unwrap_or_else(|| CheckpointError::None { folder: folder.to_owned() }))
}

/// The checkpoint at which the metric was best, of those that are still there and whole.
pub fn best(folder: &Path, best: &Best) -> Option<Checkpoint> {
    let step = *best_steps(folder, best).first()?;
    verify(&folder.join(format!("checkpoint-{step}"))).ok()
}

/// Refuses a recipe other than the checkpoint's.
pub(crate) fn same_recipe(checkpoint: &Checkpoint, plan: &CheckpointPlan) -> Result<(), CheckpointError> {
    let differences = differences(&checkpoint.state.recipe, &plan.recipe, &plan.may_differ);
    if differences.is_empty() {
        return Ok(());
    }
    Err(CheckpointError::OtherRecipe { path: checkpoint.path.clone(), differences })
}

/// What a checkpoint that is no longer needed is called while it is removed: `NAME.align-dropped`.
const DROPPED: &str = ".align-dropped";

/// Removes all but the newest `keep` and the best; called right after the newest was written whole.
fn rotate(plan: &CheckpointPlan) -> Result<(), PersistError> {
    let all = checkpoints(&plan.folder);
    let best = plan.best.as_ref().map_or_else(Vec::new, |best| best_steps(&plan.folder, best));
    let older = all.len().saturating_sub(plan.keep.max(1));
    for (step, path) in &all[..older] {
        if !best.contains(step) {
            // Renamed first: a folder that is half removed must not look like a checkpoint.
            let mut removed = path.clone().into_os_string();
            removed.push(DROPPED);
            let removed = PathBuf::from(removed);
            fs::rename(path, &removed).map_err(PersistError::write(path))?;
            fs::remove_dir_all(&removed).map_err(PersistError::write(&removed))?;
        }
    }
    Ok(())
}

/// Steps of the best checkpoints, best first; of equals the older.
fn best_steps(folder: &Path, best: &Best) -> Vec<u64> {
    let mut valued: Vec<(f64, u64)> = checkpoints(folder)
        .into_iter()
        .filter_map(|(step, path)| {
            let state: TrainerState = read_json(&path.join(STATE)).ok()?;
            let value = state.best_value.filter(|value| value.is_finite())?;
            Some((if best.goal == Goal::Lowest { value } else { -value }, step))
        })
        .collect();
    valued.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    valued.into_iter().take(best.keep).map(|(_, step)| step).collect()
}

/// Versions of what writes checkpoints and run folders.
pub fn versions() -> BTreeMap<String, String> {
    [("align-train", env!("CARGO_PKG_VERSION")), ("burn", "0.22.1")]
        .into_iter()
        .map(|(name, version)| (name.to_owned(), version.to_owned()))
        .collect()
}

pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), PersistError> {
    replace_file(path, |file| {
        serde_json::to_writer_pretty(&mut *file, value)?;
        writeln!(file)
    })
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| error.to_string())
}
