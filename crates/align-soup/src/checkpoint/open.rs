//! Reading checkpoint folders without trusting what they say about themselves.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{Ingredient, SoupError};
use crate::mix::FloatDtype;

/// The longest header the safetensors format allows.
const MAX_HEADER: u64 = 100_000_000;
/// The name of unsharded weights.
pub(crate) const SINGLE: &str = "model.safetensors";
/// The name of the list of shards.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// Where a tensor lies.
#[derive(Clone, Debug)]
pub(crate) struct TensorEntry {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    shard: usize,
    offset: u64,
    pub(crate) bytes: u64,
}

impl TensorEntry {
    pub(crate) fn values(&self) -> u64 {
        self.shape.iter().map(|&n| n as u64).product()
    }

    /// The float type, or `None` for integers and booleans.
    pub(crate) fn float(&self) -> Option<FloatDtype> {
        match self.dtype {
            Dtype::F64 => Some(FloatDtype::F64),
            Dtype::F32 => Some(FloatDtype::F32),
            Dtype::F16 => Some(FloatDtype::F16),
            Dtype::BF16 => Some(FloatDtype::BF16),
            _ => None,
        }
    }

    /// Whether the type (or the name, for packed integers) is one that quantisers write.
    fn is_quantized(&self) -> bool {
        let plain = matches!(
            self.dtype,
            Dtype::F64
                | Dtype::F32
                | Dtype::F16
                | Dtype::BF16
                | Dtype::I64
                | Dtype::I32
                | Dtype::I16
                | Dtype::I8
                | Dtype::U64
                | Dtype::U32
                | Dtype::U16
                | Dtype::U8
                | Dtype::BOOL
        );
        let packed = [".qweight", ".qzeros", ".absmax", ".quant_map", ".weight_packed"];
        let integer_weight = self.float().is_none() && self.name.ends_with(".weight");
        !plain || integer_weight || packed.iter().any(|suffix| self.name.ends_with(suffix))
    }
}

struct Shard {
    path: PathBuf,
    file: File,
}

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

    fn add_shard(&mut self, path: PathBuf) -> Result<(), SoupError> {
        let read = |source| SoupError::Read { path: path.clone(), source };
        let mut file = File::open(&path).map_err(read)?;
        let file_length = file.metadata().map_err(read)?.len();
        if file_length < 8 {
            return Err(SoupError::FileLength { path, expected: 8, found: file_length });
        }
        let mut length = [0u8; 8];
        file.read_exact(&mut length).map_err(read)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER || length > file_length - 8 {
            return Err(SoupError::HeaderLength { path, length, file_length });
        }
        let mut header = vec![0u8; length as usize];
        file.read_exact(&mut header).map_err(read)?;
        // Checks that offsets are contiguous and agree with shapes and types.
        let header: Metadata = serde_json::from_slice(&header)
            .map_err(|source| SoupError::Header { path: path.clone(), source })?;
        let expected = 8 + length + header.data_len() as u64;
        if expected != file_length {
            return Err(SoupError::FileLength { path, expected, found: file_length });
        }
        let mut tensors: Vec<TensorEntry> = header
            .tensors()
            .into_iter()
            .map(|(name, info)| TensorEntry {
                name,
                dtype: info.dtype,
                shape: info.shape.clone(),
                shard: self.shards.len(),
                offset: 8 + length + info.data_offsets.0 as u64,
                bytes: (info.data_offsets.1 - info.data_offsets.0) as u64,
            })
            .collect();
        tensors.sort_by(|a, b| (a.offset, &a.name).cmp(&(b.offset, &b.name)));
        for tensor in tensors {
            self.by_name.insert(tensor.name.clone(), self.tensors.len());
            self.tensors.push(tensor);
        }
        self.metadata.extend(header.metadata().clone().unwrap_or_default());
        self.shards.push(Shard { path, file });
        Ok(())
    }

    pub(crate) fn tensor(&self, name: &str) -> Option<&TensorEntry> {
        self.by_name.get(name).map(|&index| &self.tensors[index])
    }

    /// Fills `buffer` from the tensor's bytes starting at `start`.
    pub(crate) fn read(&self, tensor: &TensorEntry, start: u64, buffer: &mut [u8]) -> Result<(), SoupError> {
        let shard = &self.shards[tensor.shard];
        read_exact_at(&shard.file, buffer, tensor.offset + start)
            .map_err(|source| SoupError::Read { path: shard.path.clone(), source })
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

#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        let read = std::os::windows::fs::FileExt::seek_read(file, buffer, offset)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer = &mut buffer[read..];
        offset += read as u64;
    }
    Ok(())
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
