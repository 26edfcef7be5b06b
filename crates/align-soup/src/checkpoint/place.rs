//! A folder that appears whole or not at all.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::open::write_all_at;
use super::stream::Sink;
use crate::error::SoupError;

impl Sink for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        write_all_at(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }
}

/// Makes the file behind an output.
pub(crate) type CreateSink = dyn Fn(&Path) -> io::Result<Box<dyn Sink>> + Sync;

pub(crate) fn create_file(path: &Path) -> io::Result<Box<dyn Sink>> {
    Ok(Box::new(File::create(path)?))
}

/// A folder under construction beside its destination. Dropped before [`Partial::publish`], it is removed.
pub(crate) struct Partial {
    path: PathBuf,
    destination: PathBuf,
    replaces: bool,
    published: bool,
}

impl Partial {
    /// Begins a folder that is to appear at `destination`. An existing empty folder is taken over; another one only
    /// if it is a checkpoint and `overwrite` says so.
    pub(crate) fn begin(
        destination: &Path,
        overwrite: bool,
        ingredients: &[&Path],
    ) -> Result<Self, SoupError> {
        let write = |source| SoupError::Write { path: destination.to_owned(), source };
        let name = destination.file_name().ok_or_else(|| write(io::ErrorKind::InvalidInput.into()))?;
        let parent = match destination.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let mut replaces = false;
        if let Ok(existing) = fs::canonicalize(destination) {
            if ingredients.iter().any(|path| fs::canonicalize(path).is_ok_and(|path| path == existing)) {
                return Err(SoupError::OutputIsIngredient { path: destination.to_owned() });
            }
            let empty = fs::read_dir(&existing).is_ok_and(|mut entries| entries.next().is_none());
            replaces = !empty;
            if replaces && !overwrite {
                return Err(SoupError::OutputExists { path: destination.to_owned() });
            }
            let is_checkpoint =
                ["config.json", "adapter_config.json"].iter().any(|name| existing.join(name).exists());
            if replaces && !is_checkpoint {
                return Err(SoupError::OutputNotCheckpoint { path: destination.to_owned() });
            }
        }
        fs::create_dir_all(parent).map_err(write)?;
        let path = parent.join(format!(".{}.partial-{}", name.to_string_lossy(), std::process::id()));
        if path.exists() {
            fs::remove_dir_all(&path).map_err(write)?;
        }
        fs::create_dir(&path).map_err(write)?;
        Ok(Self { path, destination: destination.to_owned(), replaces, published: false })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a checkpoint is at stake, so that the new one must be on the disk before the old one goes.
    pub(crate) fn replaces(&self) -> bool {
        self.replaces
    }

    /// Writes a small file into the folder.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), SoupError> {
        let path = self.path.join(name);
        let written = fs::write(&path, bytes)
            .and_then(|()| if self.replaces { File::open(&path)?.sync_all() } else { Ok(()) });
        written.map_err(|source| SoupError::Write { path, source })
    }

    /// Renames the folder to its destination; what was there is removed last.
    pub(crate) fn publish(mut self) -> Result<(), SoupError> {
        let write = |source| SoupError::Write { path: self.destination.clone(), source };
        if self.replaces {
            let old = self.path.with_extension(format!("old-{}", std::process::id()));
            fs::rename(&self.destination, &old).map_err(write)?;
            if let Err(source) = fs::rename(&self.path, &self.destination) {
                fs::rename(&old, &self.destination).map_err(write)?;
                return Err(write(source));
            }
            self.published = true;
            fs::remove_dir_all(&old).map_err(write)?;
        } else {
            if self.destination.exists() {
                fs::remove_dir(&self.destination).map_err(write)?;
            }
            fs::rename(&self.path, &self.destination).map_err(write)?;
            self.published = true;
        }
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.published {
            // The error that led here is the one to report.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
