//! Saving so that nothing already saved is lost, and restoring what was saved.
//!
//! Files are written beside their destination, flushed to disk and renamed; a crash at any moment leaves either the old
//! state or the new one, never half of each.
//!
//! | what | how |
//! | --- | --- |
//! | one file | [`replace_file`]; of JSON, [`write_json`] and [`read_json`] |
//! | a folder of files that belong together | [`replace_folder`], and [`recover_folder`] before reading it |
//! | the parameters of any Burn module | [`write_module`], [`read_module`] |

mod json;
mod module;
mod replace;

use std::io;
use std::path::{Path, PathBuf};

pub use json::{read_json, write_json};
pub use module::{read_module, write_module};
pub use replace::{NEW, OLD, recover_folder, replace_file, replace_folder};

/// Something that can be written into a folder and read back from it, bit for bit.
pub trait Persist: Sized {
    /// Writes everything needed to restore this value into an existing folder.
    ///
    /// # Errors
    /// If a file cannot be written.
    fn save(&self, folder: &Path) -> Result<(), PersistError>;

    /// Takes over what [`Persist::save`] wrote, on the device this value lives on.
    ///
    /// # Errors
    /// If a file is missing, damaged, or was written by a value of another structure.
    fn restore(self, folder: &Path) -> Result<Self, PersistError>;
}

/// Why saving or restoring failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PersistError {
    /// The file could not be written; what stood there before still stands.
    #[error("cannot write {}; what was saved before is untouched", path.display())]
    Write {
        /// The destination.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file was read but is not what was expected.
    #[error("{} is damaged: expected {expected}, found {found}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What should have been there.
        expected: String,
        /// What was there.
        found: String,
    },
    /// The file holds the tensors of another structure.
    #[error("{} is of another structure: missing {missing:?}, surplus {surplus:?}", path.display())]
    Names {
        /// The file.
        path: PathBuf,
        /// Parameters without a tensor in the file.
        missing: Vec<String>,
        /// Tensors in the file without a parameter.
        surplus: Vec<String>,
    },
    /// A tensor has another shape.
    #[error("{}: tensor `{name}` has shape {found:?}, expected {expected:?}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The parameter.
        name: String,
        /// The parameter's shape.
        expected: Vec<usize>,
        /// The file's shape.
        found: Vec<usize>,
    },
    /// A tensor has another element type.
    #[error("{}: tensor `{name}` has type {found}, expected {expected}", path.display())]
    Type {
        /// The file.
        path: PathBuf,
        /// The parameter.
        name: String,
        /// The parameter's type.
        expected: String,
        /// The file's type.
        found: String,
    },
    /// A model's own form of checkpoint failed.
    #[error("cannot save or restore the model in {}", path.display())]
    Model {
        /// The folder.
        path: PathBuf,
        /// The model's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl PersistError {
    /// For use with `map_err` on a write.
    pub fn write(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Write { path: path.to_owned(), source }
    }

    /// For use with `map_err` on a read.
    pub fn read(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Read { path: path.to_owned(), source }
    }
}
