//! Hashes of files, to tell a whole folder from a damaged one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Length and SHA-256 of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHash {
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

impl FileHash {
    /// Reads a file once.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 16];
        let mut bytes = 0;
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                return Ok(Self { bytes, sha256: hexadecimal(&hash.finalize()) });
            }
            hash.update(&buffer[..read]);
            bytes += read as u64;
        }
    }
}

/// SHA-256 of bytes, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every file below `path` by its relative path with `/`; a file itself under its name.
///
/// # Errors
/// If a file cannot be read.
pub fn hash_all(path: &Path) -> io::Result<BTreeMap<String, FileHash>> {
    let mut hashes = BTreeMap::new();
    if path.is_file() {
        hashes.insert(name_of(path), FileHash::of(path)?);
        return Ok(hashes);
    }
    let mut pending: Vec<(String, PathBuf)> = vec![(String::new(), path.to_owned())];
    while let Some((prefix, folder)) = pending.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = format!("{prefix}{}", name_of(&path));
            if path.is_dir() {
                pending.push((format!("{name}/"), path));
            } else {
                hashes.insert(name, FileHash::of(&path)?);
            }
        }
    }
    Ok(hashes)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
