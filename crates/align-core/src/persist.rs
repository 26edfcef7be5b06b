//! Saving so that nothing already saved is lost, and restoring what was saved.
//!
//! Files are written beside their destination, flushed to disk and renamed; a crash at any moment leaves either the old
//! state or the new one, never half of each.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

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

/// Writes a file beside `path`, flushes it and renames it into place.
///
/// # Errors
/// If writing fails; the old file, if any, is untouched and the new one is removed.
pub fn replace_file(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), PersistError> {
    let beside = beside(path);
    let result = (|| {
        let mut file = BufWriter::new(File::create(&beside)?);
        write(&mut file)?;
        file.flush()?;
        file.get_ref().sync_all()?;
        fs::rename(&beside, path)
    })();
    result.map_err(|source| {
        let _ = fs::remove_file(&beside);
        PersistError::Write { path: path.to_owned(), source }
    })
}

/// Fills a folder beside `path` and renames it into place; a folder that stood there is replaced as a whole.
///
/// # Errors
/// If filling fails; the old folder, if any, is untouched and the new one is removed.
pub fn replace_folder<E: From<PersistError>>(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let beside = beside(path);
    let filled = (|| {
        if beside.exists() {
            fs::remove_dir_all(&beside).map_err(PersistError::write(&beside))?;
        }
        fs::create_dir_all(&beside).map_err(PersistError::write(&beside))?;
        fill(&beside)?;
        if path.exists() {
            let old = path.with_extension("old.tmp");
            fs::rename(path, &old).map_err(PersistError::write(path))?;
            fs::rename(&beside, path).map_err(PersistError::write(path))?;
            fs::remove_dir_all(&old).map_err(PersistError::write(&old))?;
        } else {
            fs::rename(&beside, path).map_err(PersistError::write(path))?;
        }
        Ok(())
    })();
    if filled.is_err() {
        let _ = fs::remove_dir_all(&beside);
    }
    filled
}

/// `name.tmp` in the same folder, so that the rename stays on one file system.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    path.with_file_name(name)
}
