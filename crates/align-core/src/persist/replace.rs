//! Replacing files and folders so that a crash at any moment loses nothing.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::PersistError;

/// What stands beside `NAME` while it is written: `NAME.align-new`. Nobody names a file of their own so by accident.
pub const NEW: &str = ".align-new";

/// What is being replaced, where two folders cannot be exchanged in one step: `NAME.align-old`.
pub const OLD: &str = ".align-old";

/// Writes a file beside `path`, flushes it to disk and renames it into place.
///
/// # Errors
/// If writing fails, for example on a full disk; the old file, if any, is untouched and the new one is removed.
pub fn replace_file(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), PersistError> {
    let beside = beside(path, NEW).map_err(PersistError::write(path))?;
    let result = (|| {
        let mut file = BufWriter::new(File::create(&beside)?);
        write(&mut file)?;
        file.flush()?;
        file.get_ref().sync_all()?;
        fs::rename(&beside, path)?;
        sync_parent(path)
    })();
    result.map_err(|source| {
        let _ = fs::remove_file(&beside);
        PersistError::Write { path: path.to_owned(), source }
    })
}

/// Fills a folder beside `path` and puts it into place; a folder that stood there is replaced as a whole.
///
/// The filling writes its files with [`replace_file`] or flushes them itself. On Linux and macOS the two folders are
/// exchanged in one step. Where the file system cannot do that, the old folder is renamed to `NAME.align-old` and
/// the new one from `NAME.align-new` to `NAME`; between those two renames `NAME` does not exist, and [`recover_folder`] finishes the job.
///
/// # Errors
/// If filling or renaming fails; the old folder, if any, is untouched and the new one is removed.
pub fn replace_folder<E: From<PersistError>>(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    recover_folder(path)?;
    let beside = beside(path, NEW).map_err(PersistError::write(path))?;
    let filled = (|| {
        fs::create_dir_all(&beside).map_err(PersistError::write(&beside))?;
        fill(&beside)?;
        sync_folder(&beside).map_err(PersistError::write(&beside))?;
        put_into_place(&beside, path).map_err(PersistError::write(path))?;
        Ok(())
    })();
    if filled.is_err() {
        let _ = fs::remove_dir_all(&beside);
    }
    filled
}

/// Cleans up after a [`replace_folder`] that a crash cut short. Call it before reading `path`.
///
/// | what is found | what it means | what is done |
/// | --- | --- | --- |
/// | `NAME`, maybe the new or the old one | unfinished filling, or the old folder not yet removed | both extras are removed |
/// | the old and the new one, no `NAME` | crash between the two renames; the new one was complete | it becomes `NAME` |
/// | the old one alone | the new folder was lost from outside | it becomes `NAME` |
/// | the new one alone | unfinished first filling | removed |
///
/// # Errors
/// If a rename or a removal fails.
pub fn recover_folder(path: &Path) -> Result<(), PersistError> {
    let recover = || {
        let (new, old) = (beside(path, NEW)?, beside(path, OLD)?);
        if !path.exists() && old.exists() {
            // The old folder is moved away only once the new one is complete and on disk.
            fs::rename(if new.exists() { &new } else { &old }, path)?;
            sync_parent(path)?;
        }
        for leftover in [new, old] {
            if leftover.exists() {
                fs::remove_dir_all(leftover)?;
            }
        }
        Ok(())
    };
    recover().map_err(PersistError::write(path))
}

fn put_into_place(new: &Path, path: &Path) -> io::Result<()> {
    if !path.exists() {
        fs::rename(new, path)?;
        return sync_parent(path);
    }
    if exchange(new, path)? {
        sync_parent(path)?;
        // The old folder now stands under the new one's name. What cannot be removed now, recovery removes later.
        let _ = fs::remove_dir_all(new);
        return Ok(());
    }
    let old = beside(path, OLD)?;
    fs::rename(path, &old)?;
    if let Err(error) = fs::rename(new, path) {
        fs::rename(&old, path)?;
        return Err(error);
    }
    sync_parent(path)?;
    let _ = fs::remove_dir_all(&old);
    Ok(())
}

/// Exchanges two folders in one step; `false` if the system or the file system cannot.
#[cfg(any(target_os = "linux", target_os = "macos"))]
fn exchange(first: &Path, second: &Path) -> io::Result<bool> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;

    match renameat_with(CWD, first, CWD, second, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn exchange(_: &Path, _: &Path) -> io::Result<bool> {
    Ok(false)
}

/// `NAME` with a suffix, in the same folder, so that a rename stays on one file system.
fn beside(path: &Path, suffix: &str) -> io::Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "expected a path that ends in a name"))?;
    let mut name = name.to_owned();
    name.push(suffix);
    Ok(path.with_file_name(name))
}

/// Makes a rename inside the parent folder survive a loss of power.
fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
        _ => sync_folder(Path::new(".")),
    }
}

/// Flushes a folder's list of entries, where the system lets a folder be opened and the file system can flush one.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(folder)?.sync_all() {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Ok(())
        }
        result => result,
    }
}
