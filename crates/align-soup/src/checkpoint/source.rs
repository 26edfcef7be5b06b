//! What a soup is made of: folders, and adapters over folders.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::adapter::AdapterError;
use super::blocks::folder_identity;
use super::compat::{ancestor, named_ancestor};
use super::open::Folder;
use crate::error::SoupError;

/// An ingredient on disk: a checkpoint folder, or a base with a low-rank adapter over it.
///
/// An adapter is merged tensor by tensor while it is read, `W + (α/r)·B·A` with sums in f64, so that a soup of adapters
/// averages their products and never their factors.
///
/// # Examples
/// ```
/// use align_soup::Source;
///
/// let [a, b] = ["run-a/adapter", "run-b/adapter"].map(|adapter| Source::adapted("base", adapter));
/// assert_eq!(a.folder, b.folder);
/// assert_eq!(Source::from("base").adapter, None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The checkpoint folder; the base of an adapter. Configuration and tokenizer are its.
    pub folder: PathBuf,
    /// A folder with an adapter in PEFT's form.
    pub adapter: Option<PathBuf>,
}

impl Source {
    /// A base with an adapter over it.
    pub fn adapted(base: impl Into<PathBuf>, adapter: impl Into<PathBuf>) -> Self {
        Self { folder: base.into(), adapter: Some(adapter.into()) }
    }

    pub(super) fn open(&self, index: usize) -> Result<Folder, SoupError> {
        match &self.adapter {
            None => Folder::open(&self.folder, index),
            Some(adapter) => Folder::open_with_adapter(adapter, &self.folder, index),
        }
    }
}

impl<P: AsRef<Path> + ?Sized> From<&P> for Source {
    fn from(folder: &P) -> Self {
        Self { folder: folder.as_ref().to_owned(), adapter: None }
    }
}

/// What can be an ingredient: paths of checkpoint folders, and [`Source`].
pub trait ToSource {
    /// The ingredient.
    fn to_source(&self) -> Source;
}

impl<P: AsRef<Path>> ToSource for P {
    fn to_source(&self) -> Source {
        Source::from(self)
    }
}

impl ToSource for Source {
    fn to_source(&self) -> Source {
        self.clone()
    }
}

/// The ancestor of each ingredient: what a folder names, and of an adapter the base it is read over, which is measured.
///
/// # Errors
/// If an adapter records another base, or two record different ones, unless that is `allowed`.
pub(super) fn ancestors(folders: &[Folder], allowed: bool) -> Result<Vec<Option<String>>, SoupError> {
    let mut measured: HashMap<PathBuf, String> = HashMap::new();
    let mut first_name: Option<&str> = None;
    let mut found = Vec::new();
    for folder in folders {
        let Some(adapter) = folder.adapter() else {
            found.push(ancestor(folder)?);
            continue;
        };
        let key = fs::canonicalize(&folder.path).unwrap_or_else(|_| folder.path.clone());
        let id = match measured.get(&key) {
            Some(id) => id.clone(),
            None => {
                let id = folder_identity(&Folder::open(&folder.path, folder.who.index)?)?;
                measured.insert(key, id.clone());
                id
            }
        };
        if !allowed {
            if let Some(recorded) = named_ancestor(&adapter.path)?.filter(|recorded| *recorded != id) {
                return Err(other_base(&adapter.path, recorded, id).into());
            }
            if let Some(name) = adapter.base_name.as_deref() {
                let first = *first_name.get_or_insert(name);
                if first != name {
                    return Err(other_base(&adapter.path, name.to_owned(), first.to_owned()).into());
                }
            }
        }
        found.push(Some(id));
    }
    Ok(found)
}

fn other_base(adapter: &Path, recorded: String, expected: String) -> AdapterError {
    AdapterError::OtherBase { adapter: adapter.to_owned(), recorded, expected }
}
