//! Safetensors files, read with suspicion.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::CheckpointError;

/// Floating-point types of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// 32 bits.
    F32,
    /// 16 bits, IEEE.
    F16,
    /// 16 bits, with the exponent of 32.
    Bf16,
}

impl Dtype {
    /// Bytes a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The name in a safetensors header.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        }
    }

    /// The name in a `config.json`.
    pub fn config_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }
}

/// Where a tensor stands in its file. Its range is known to lie inside the file and to hold its shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorEntry {
    /// The type as the header spells it.
    pub dtype: String,
    /// Sizes of its dimensions.
    pub shape: Vec<usize>,
    start: u64,
    end: u64,
}

/// A safetensors file whose header was checked against its size.
#[derive(Debug)]
pub struct SafetensorsFile {
    path: PathBuf,
    entries: BTreeMap<String, TensorEntry>,
}

/// The format's own limit on headers.
const MOST_HEADER_BYTES: u64 = 100_000_000;

#[derive(Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

impl SafetensorsFile {
    /// Reads and checks the header; no tensor is read yet.
    ///
    /// # Errors
    /// If the file cannot be read, is truncated, or its header contradicts itself or the file's size.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let damaged = |expected: String, found: String| CheckpointError::damaged(path, expected, found);
        let mut file = File::open(path).map_err(CheckpointError::read(path))?;
        let size = file.metadata().map_err(CheckpointError::read(path))?.len();
        if size < 8 {
            return Err(damaged("a header of at least 8 bytes".into(), format!("{size} bytes")));
        }
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(CheckpointError::read(path))?;
        let length = u64::from_le_bytes(length);
        let most = MOST_HEADER_BYTES.min(size - 8);
        if length > most {
            return Err(damaged(
                format!("a header of at most {most} bytes in a file of {size}"),
                format!("a header of {length} bytes"),
            ));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(CheckpointError::read(path))?;
        let header: Map<String, Value> = serde_json::from_slice(&header)
            .map_err(|error| damaged("a JSON object as header".into(), error.to_string()))?;
        let data = size - 8 - length;
        let mut entries = BTreeMap::new();
        for (name, value) in header {
            if name == "__metadata__" {
                continue;
            }
            let raw: RawEntry = serde_json::from_value(value).map_err(|error| {
                damaged(format!("type, shape and offsets of tensor `{}`", shorten(&name)), error.to_string())
            })?;
            let entry = check(raw, &name, length, data, damaged)?;
            entries.insert(name, entry);
        }
        check_overlap(&entries, damaged)?;
        Ok(Self { path: path.to_owned(), entries })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tensors by name.
    pub fn entries(&self) -> &BTreeMap<String, TensorEntry> {
        &self.entries
    }

    /// A tensor's numbers in f32, row by row.
    ///
    /// # Errors
    /// If it cannot be read, is no floating-point tensor, or holds a number that is not finite.
    ///
    /// # Panics
    /// If the file has no tensor of that name.
    pub fn numbers(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        let entry = &self.entries[name];
        let dtype = dtype_of(&entry.dtype).ok_or_else(|| CheckpointError::TensorType {
            path: self.path.clone(),
            name: name.to_owned(),
            found: entry.dtype.clone(),
        })?;
        let mut file = File::open(&self.path).map_err(CheckpointError::read(&self.path))?;
        file.seek(SeekFrom::Start(entry.start)).map_err(CheckpointError::read(&self.path))?;
        // The range was checked against the file's size when it was opened.
        let mut bytes = vec![0; (entry.end - entry.start) as usize];
        file.read_exact(&mut bytes).map_err(CheckpointError::read(&self.path))?;
        let numbers: Vec<f32> = match dtype {
            Dtype::F32 => bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
            Dtype::F16 => {
                bytes.as_chunks::<2>().0.iter().map(|&bytes| f16::from_le_bytes(bytes).to_f32()).collect()
            }
            Dtype::Bf16 => {
                bytes.as_chunks::<2>().0.iter().map(|&bytes| bf16::from_le_bytes(bytes).to_f32()).collect()
            }
        };
        let count = numbers.iter().filter(|number| !number.is_finite()).count();
        if count > 0 {
            return Err(CheckpointError::NotFinite {
                path: self.path.clone(),
                name: name.to_owned(),
                count,
                total: numbers.len(),
            });
        }
        Ok(numbers)
    }
}

pub(crate) fn dtype_of(name: &str) -> Option<Dtype> {
    [Dtype::F32, Dtype::F16, Dtype::Bf16].into_iter().find(|dtype| dtype.name() == name)
}

/// Bits a number of any type the format knows.
fn bits(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" | "F8_E8M0" => 8,
        "I16" | "U16" | "F16" | "BF16" => 16,
        "I32" | "U32" | "F32" => 32,
        "I64" | "U64" | "F64" | "C64" => 64,
        _ => return None,
    })
}

fn check(
    raw: RawEntry,
    name: &str,
    header: u64,
    data: u64,
    damaged: impl Fn(String, String) -> CheckpointError,
) -> Result<TensorEntry, CheckpointError> {
    let name = shorten(name);
    let [start, end] = raw.data_offsets;
    if start > end || end > data {
        return Err(damaged(
            format!("tensor `{name}` within {data} bytes of data"),
            format!("offsets {start} to {end}"),
        ));
    }
    let bits = bits(&raw.dtype).ok_or_else(|| {
        damaged(format!("a known type of tensor `{name}`"), format!("`{}`", shorten(&raw.dtype)))
    })?;
    let size = raw.shape.iter().try_fold(bits, |size, &dimension| size.checked_mul(dimension));
    if size != (end - start).checked_mul(8) {
        return Err(damaged(
            format!("{} bytes for tensor `{name}`", end - start),
            format!("shape {:?} of {}", raw.shape, raw.dtype),
        ));
    }
    let shape = raw.shape.iter().map(|&dimension| dimension as usize).collect();
    Ok(TensorEntry { dtype: raw.dtype, shape, start: 8 + header + start, end: 8 + header + end })
}

/// The format forbids tensors that share bytes.
fn check_overlap(
    entries: &BTreeMap<String, TensorEntry>,
    damaged: impl Fn(String, String) -> CheckpointError,
) -> Result<(), CheckpointError> {
    let mut order: Vec<_> = entries.iter().filter(|(_, entry)| entry.start < entry.end).collect();
    order.sort_by_key(|(_, entry)| entry.start);
    match order.windows(2).find(|pair| pair[0].1.end > pair[1].1.start) {
        None => Ok(()),
        Some(pair) => Err(damaged(
            "tensors that share no bytes".into(),
            format!("`{}` and `{}` overlapping", shorten(pair[0].0), shorten(pair[1].0)),
        )),
    }
}

/// Names in messages: a damaged header may hold megabytes.
fn shorten(text: &str) -> String {
    const MOST: usize = 100;
    if text.chars().count() <= MOST {
        text.to_owned()
    } else {
        text.chars().take(MOST).chain(['…']).collect()
    }
}
