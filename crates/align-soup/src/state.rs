//! Averages that go on after an interruption: their tensors in a file, by path, bit for bit.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path as FilePath;

use burn::tensor::{DType, TensorData};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::error::SoupError;

/// Tensors by the path of their parameter.
pub(crate) type Tensors = BTreeMap<String, TensorData>;

fn stored_type(dtype: DType) -> Dtype {
    match dtype {
        DType::F64 => Dtype::F64,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        _ => Dtype::F32,
    }
}

/// Writes floats. Equal tensors give equal bytes.
pub(crate) fn write_tensors(file: &FilePath, tensors: &Tensors) -> Result<(), SoupError> {
    let views: Vec<(&String, TensorView<'_>)> = tensors
        .iter()
        .map(|(path, data)| {
            let shape = data.shape().to_vec();
            let view = TensorView::new(stored_type(data.dtype()), shape, data.as_bytes());
            (path, view.expect("data are as long as their shape says"))
        })
        .collect();
    safetensors::serialize_to_file(views, None, file)
        .map_err(|error| SoupError::Write { path: file.to_owned(), source: std::io::Error::other(error) })
}

/// Reads what [`write_tensors`] wrote, and fails unless it is what `expected` describes.
pub(crate) fn read_tensors(
    file: &FilePath,
    expected: &BTreeMap<String, (Vec<usize>, DType)>,
) -> Result<Tensors, SoupError> {
    let bytes = fs::read(file).map_err(|source| SoupError::Read { path: file.to_owned(), source })?;
    let damaged = |expected: String, found: String| SoupError::DamagedAverage {
        path: file.to_owned(),
        expected,
        found,
    };
    let stored = SafeTensors::deserialize(&bytes)
        .map_err(|error| damaged("a whole safetensors file".to_owned(), error.to_string()))?;
    if let Some(name) = stored.names().into_iter().find(|name| !expected.contains_key(*name)) {
        return Err(damaged("the parameters of the model under training".to_owned(), format!("`{name}`")));
    }
    expected
        .iter()
        .map(|(path, (shape, dtype))| {
            let described = || format!("`{path}` as {} {shape:?}", stored_type(*dtype));
            let view = stored.tensor(path).map_err(|_| damaged(described(), "none".to_owned()))?;
            if view.shape() != shape || view.dtype() != stored_type(*dtype) {
                return Err(damaged(described(), format!("{} {:?}", view.dtype(), view.shape())));
            }
            let data = TensorData::from_bytes_vec(view.data().to_vec(), shape.clone(), *dtype);
            Ok((path.clone(), data))
        })
        .collect()
}
