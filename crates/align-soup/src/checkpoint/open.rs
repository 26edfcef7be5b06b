//! Reading checkpoint folders without trusting what they say about themselves.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::adapter::{Adapter, Base};
use super::file::Shard;
pub(crate) use super::file::TensorEntry;
use crate::error::{Ingredient, SoupError};

/// The name of unsharded weights.
pub(crate) const SINGLE: &str = "model.safetensors";
/// The name of the list of shards.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// An open checkpoint folder: headers are read, tensors are not.
pub(crate) struct Folder {
    pub(crate) who: Ingredient,
    pub(crate) path: PathBuf,
    pub(crate) config: Map<String, Value>,
    /// In the order of the shards and of the data in them.
    pub(crate) tensors: Vec<TensorEntry>,
    by_name: HashMap<String, usize>,
    /// `__metadata__` of the shards, merged.
    pub(crate) metadata: BTreeMap<String, String>,
    shards: Vec<Shard>,
    /// Low-rank updates that are added while reading.
    adapter: Option<Adapter>,
}

impl Folder {
    pub(crate) fn open(path: &Path, index: usize) -> Result<Self, SoupError> {
        let who = Ingredient { index, folder: Some(path.to_owned()) };
        // A missing folder reads as such, not as one without configuration.
        std::fs::metadata(path).map_err(|source| SoupError::Read { path: path.to_owned(), source })?;
        if path.join("adapter_config.json").exists() {
            return Err(SoupError::Adapter { ingredient: who });
        }
        let config = read_json::<Map<String, Value>>(&path.join("config.json"))?
            .ok_or_else(|| SoupError::MissingConfig { folder: path.to_owned() })?;
        if config.get("quantization_config").is_some_and(|value| !value.is_null()) {
            return Err(SoupError::QuantizedConfig { ingredient: who });
        }
        let mut folder = Self {
            who,
            path: path.to_owned(),
            config,
            tensors: Vec::new(),
            by_name: HashMap::new(),
            metadata: BTreeMap::new(),
            shards: Vec::new(),
            adapter: None,
        };
        if path.join(SINGLE).exists() {
            folder.add_shard(path.join(SINGLE))?;
        } else {
            folder.add_indexed(path)?;
        }
        match folder.tensors.iter().find(|tensor| tensor.is_quantized()) {
            Some(tensor) => Err(SoupError::QuantizedIngredient {
                path: tensor.name.clone(),
                ingredient: folder.who.clone(),
                dtype: tensor.dtype.to_string(),
            }),
            None => Ok(folder),
        }
    }

    /// Opens a base with a low-rank adapter in PEFT's form over it. Tensors are merged while they are read: those that the
    /// adapter changes read as f32 (f64 over f64), whatever the base holds; the configuration is the base's.
    pub(crate) fn open_with_adapter(adapter: &Path, base: &Path, index: usize) -> Result<Self, SoupError> {
        let mut folder = Self::open(base, index)?;
        folder.who.folder = Some(adapter.to_owned());
        let base = Base { path: base, config: &folder.config, tensors: &mut folder.tensors };
        let (adapter, shard) = Adapter::open(adapter, base, folder.shards.len())?;
        folder.shards.push(shard);
        folder.adapter = Some(adapter);
        Ok(folder)
    }

    /// The adapter, if the folder was opened with one.
    pub(crate) fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_ref()
    }

    fn add_indexed(&mut self, path: &Path) -> Result<(), SoupError> {
        #[derive(Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let index = path.join(INDEX);
        let weight_map = read_json::<Index>(&index)?
            .ok_or_else(|| SoupError::MissingWeights { folder: path.to_owned() })?
            .weight_map;
        let mut shards: Vec<&String> = weight_map.values().collect();
        shards.sort();
        shards.dedup();
        for shard in shards {
            if !is_plain_name(shard) {
                return Err(SoupError::UnsafeShardName { index, shard: shard.clone() });
            }
            if !path.join(shard).exists() {
                return Err(SoupError::MissingShard { index, shard: shard.clone() });
            }
            let before = self.tensors.len();
            self.add_shard(path.join(shard))?;
            let disagree = |tensor: &str| SoupError::IndexMismatch {
                index: index.clone(),
                shard: shard.clone(),
                tensor: tensor.to_owned(),
            };
            for tensor in &self.tensors[before..] {
                if weight_map.get(&tensor.name) != Some(shard) {
                    return Err(disagree(&tensor.name));
                }
            }
            for (tensor, _) in weight_map.iter().filter(|(_, named)| *named == shard) {
                if !self.by_name.contains_key(tensor) {
                    return Err(disagree(tensor));
                }
            }
        }
        Ok(())
    }

    /// Takes in a file's tensors.
    fn add_shard(&mut self, path: PathBuf) -> Result<(), SoupError> {
        let (shard, tensors) = Shard::open(path, self.shards.len())?;
        for tensor in tensors {
            self.by_name.insert(tensor.name.clone(), self.tensors.len());
            self.tensors.push(tensor);
        }
        self.metadata.extend(shard.metadata.clone());
        self.shards.push(shard);
        Ok(())
    }

    pub(crate) fn tensor(&self, name: &str) -> Option<&TensorEntry> {
        self.by_name.get(name).map(|&index| &self.tensors[index])
    }

    /// Fills `buffer` from the tensor's bytes starting at `start`.
    pub(crate) fn read(&self, tensor: &TensorEntry, start: u64, buffer: &mut [u8]) -> Result<(), SoupError> {
        match (tensor.update, &self.adapter) {
            (Some(update), Some(adapter)) => adapter.read_merged(update, &self.shards, tensor, start, buffer),
            _ => self.shards[tensor.shard].read(tensor, start, buffer),
        }
    }
}

/// One component, and none that any platform reads as more than a name.
fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let single = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    single && !name.contains(['/', '\\', ':', '\0'])
}

/// Parses a JSON file; `None` if there is none.
pub(crate) fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, SoupError> {
    let Some(text) = read_optional(path)? else { return Ok(None) };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|source| SoupError::Json { path: path.to_owned(), source })
}

/// Reads a whole small file; `None` if there is none.
pub(crate) fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, SoupError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SoupError::Read { path: path.to_owned(), source }),
    }
}

/// Writes all of `bytes` at `offset`.
#[cfg(unix)]
pub(crate) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

/// Writes all of `bytes` at `offset`.
#[cfg(windows)]
pub(crate) fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
        offset += written as u64;
    }
    Ok(())
}
