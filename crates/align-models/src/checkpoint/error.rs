//! Why a checkpoint was not read or not written.

use std::fmt;
use std::path::{Path, PathBuf};

use align_core::PersistError;

use crate::config::ConfigError;

/// Why a checkpoint was not read or not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// There is no such folder.
    #[error(
        "{} is not a folder, expected one with config.json and model.safetensors or model.safetensors.index.json",
        path.display()
    )]
    NoFolder {
        /// What was asked for.
        path: PathBuf,
    },
    /// The folder lacks a file it needs.
    #[error("{} has no {expected}, found {}", folder.display(), list(found))]
    MissingFile {
        /// The folder.
        folder: PathBuf,
        /// The file or files that would do.
        expected: &'static str,
        /// What the folder holds.
        found: Vec<String>,
    },
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The configuration was refused.
    #[error("cannot use {}", path.display())]
    Config {
        /// The `config.json`.
        path: PathBuf,
        /// Why.
        #[source]
        source: ConfigError,
    },
    /// A file is truncated or not what it claims to be.
    #[error("{} is damaged: expected {expected}, found {found}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What should have been there.
        expected: String,
        /// What was there.
        found: String,
    },
    /// An index names a file that is not in the model's own folder.
    #[error("{} names the shard `{shard}`, expected the name of a file in the same folder", index.display())]
    ShardOutside {
        /// The index.
        index: PathBuf,
        /// What it names.
        shard: String,
    },
    /// A tensor has a type that is no floating-point type we read.
    #[error("tensor `{name}` in {} has type {found}, expected F32, F16 or BF16", path.display())]
    TensorType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
    },
    /// The tensors are not those the configuration asks for.
    #[error("the weights in {} do not fit config.json: {mismatch}", folder.display())]
    Mismatch {
        /// The folder.
        folder: PathBuf,
        /// Everything that does not fit.
        mismatch: Box<Mismatch>,
    },
    /// A tensor holds NaN or an infinity.
    #[error("tensor `{name}` in {} has {count} of {total} numbers that are NaN or infinite", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// How many numbers are not finite.
        count: usize,
        /// How many there are.
        total: usize,
    },
    /// A reward or value model has no head.
    #[error("{} has no head `{expected}`; a new one is drawn only if init_head is asked for", folder.display())]
    MissingHead {
        /// The folder.
        folder: PathBuf,
        /// The tensor that was expected.
        expected: String,
    },
    /// The configuration has options that the keys of its family cannot express, so the folder would be another model.
    #[error("config.json of a {family} cannot express this model: it would be read back as {read_back}")]
    Unsaveable {
        /// The family whose keys are used.
        family: &'static str,
        /// What reading it would give, or why it would be refused.
        read_back: String,
    },
    /// Writing failed.
    #[error(transparent)]
    Write(#[from] PersistError),
}

/// Tensors that are missing, surplus or of the wrong shape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// Asked for by the configuration and not in the files.
    pub missing: Vec<String>,
    /// In the files and not asked for.
    pub surplus: Vec<String>,
    /// In both, with different shapes.
    pub wrong_shape: Vec<WrongShape>,
}

/// A tensor of the wrong shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongShape {
    /// Its name in the file.
    pub name: String,
    /// What the configuration asks for.
    pub expected: Vec<usize>,
    /// What the file has.
    pub found: Vec<usize>,
}

impl Mismatch {
    pub(crate) fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.surplus.is_empty() && self.wrong_shape.is_empty()
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes: Vec<String> = self
            .wrong_shape
            .iter()
            .map(|wrong| format!("{} {:?} instead of {:?}", wrong.name, wrong.found, wrong.expected))
            .collect();
        let parts = [("missing", &self.missing), ("surplus", &self.surplus), ("of the wrong shape", &shapes)];
        let parts = parts.iter().filter(|(_, names)| !names.is_empty());
        let texts: Vec<String> =
            parts.map(|(what, names)| format!("{} {what}: {}", names.len(), list(names))).collect();
        f.write_str(&texts.join("; "))
    }
}

/// At most twenty names; a whole model's would fill screens. The fields hold all.
fn list(names: &[String]) -> String {
    const MOST: usize = 20;
    match names.len() {
        0 => "nothing".into(),
        n if n <= MOST => names.join(", "),
        n => format!("{} and {} more", names[..MOST].join(", "), n - MOST),
    }
}

impl CheckpointError {
    /// For use with `map_err` on a read.
    pub(crate) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Read { path: path.to_owned(), source }
    }

    pub(crate) fn damaged(path: &Path, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), expected: expected.into(), found: found.into() }
    }
}
