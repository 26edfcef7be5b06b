//! One safetensors file.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use crate::error::SoupError;
use crate::mix::FloatDtype;

/// The longest header the safetensors format allows.
const MAX_HEADER: u64 = 100_000_000;

/// Where a tensor lies.
#[derive(Clone, Debug)]
pub(crate) struct TensorEntry {
    pub(crate) name: String,
    /// As it is read: wider than it is stored where an adapter is merged while reading.
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// As it is read.
    pub(crate) bytes: u64,
    /// As it stands in the folder's own file, whatever an adapter puts in its place.
    pub(super) stored: Dtype,
    pub(super) shard: usize,
    pub(super) offset: u64,
    /// Which update of the folder's adapter is added while reading.
    pub(super) update: Option<usize>,
}

impl TensorEntry {
    pub(crate) fn values(&self) -> u64 {
        self.shape.iter().map(|&n| n as u64).product()
    }

    /// The float type as it is read, or `None` for integers and booleans.
    pub(crate) fn float(&self) -> Option<FloatDtype> {
        float(self.dtype)
    }

    /// The float type of the folder's own file, in which a result is written that was asked for in no other.
    pub(crate) fn stored_float(&self) -> Option<FloatDtype> {
        float(self.stored)
    }

    /// Whether the type (or the name, for packed integers) is one that quantisers write.
    pub(super) fn is_quantized(&self) -> bool {
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

fn float(dtype: Dtype) -> Option<FloatDtype> {
    match dtype {
        Dtype::F64 => Some(FloatDtype::F64),
        Dtype::F32 => Some(FloatDtype::F32),
        Dtype::F16 => Some(FloatDtype::F16),
        Dtype::BF16 => Some(FloatDtype::BF16),
        _ => None,
    }
}

/// An open file of tensors.
pub(super) struct Shard {
    pub(super) path: PathBuf,
    /// `__metadata__`.
    pub(super) metadata: HashMap<String, String>,
    file: File,
}

impl Shard {
    /// Opens the file that is number `shard` of its folder, with its tensors in the order of their data.
    pub(super) fn open(path: PathBuf, shard: usize) -> Result<(Self, Vec<TensorEntry>), SoupError> {
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
                bytes: (info.data_offsets.1 - info.data_offsets.0) as u64,
                stored: info.dtype,
                shard,
                offset: 8 + length + info.data_offsets.0 as u64,
                update: None,
            })
            .collect();
        tensors.sort_by(|a, b| (a.offset, &a.name).cmp(&(b.offset, &b.name)));
        let metadata = header.metadata().clone().unwrap_or_default();
        Ok((Self { path, metadata, file }, tensors))
    }

    /// Fills `buffer` from what the file holds of a tensor, beginning `start` bytes into it.
    pub(super) fn read(&self, tensor: &TensorEntry, start: u64, buffer: &mut [u8]) -> Result<(), SoupError> {
        read_exact_at(&self.file, buffer, tensor.offset + start)
            .map_err(|source| SoupError::Read { path: self.path.clone(), source })
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
