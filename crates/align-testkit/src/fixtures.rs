//! Reference tensors kept in the repository, and larger data kept beside it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, TensorData};
use safetensors::{Dtype, SafeTensors};

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates/NAME below the root").to_owned()
}

/// A file of the folder `fixtures/`.
///
/// # Panics
/// If it is not there: fixtures belong to the repository.
pub fn path(name: &str) -> PathBuf {
    let path = workspace().join("fixtures").join(name);
    assert!(path.exists(), "expected the fixture {}", path.display());
    path
}

/// The tensors of a safetensors fixture, by name.
///
/// # Panics
/// If the file is missing, damaged, or holds a type that tests do not compare.
pub fn tensors(name: &str) -> BTreeMap<String, TensorData> {
    let bytes = fs::read(path(name)).expect("the fixture was found and can be read");
    let file = SafeTensors::deserialize(&bytes).expect("the fixture is a safetensors file");
    file.iter()
        .map(|(name, tensor)| {
            let dtype = match tensor.dtype() {
                Dtype::F64 => DType::F64,
                Dtype::F32 => DType::F32,
                Dtype::F16 => DType::F16,
                Dtype::BF16 => DType::BF16,
                Dtype::I64 => DType::I64,
                Dtype::I32 => DType::I32,
                Dtype::U8 => DType::U8,
                other => panic!("fixture tensor `{name}` has type {other}"),
            };
            let data = TensorData::from_bytes_vec(tensor.data().to_vec(), tensor.shape().to_vec(), dtype);
            (name.to_owned(), data)
        })
        .collect()
}

/// The folder of the shared data, which is larger than a repository should be: `$ALIGN_SHARED`, or `../shared` beside the
/// workspace. If it is not there, says so and gives nothing: the test then returns early.
pub fn shared() -> Option<PathBuf> {
    let folder =
        std::env::var_os("ALIGN_SHARED").map_or_else(|| workspace().join("../shared"), PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no shared data (set ALIGN_SHARED to its folder)");
    None
}

/// A file or folder inside [`shared`], with the same notice if it is not there.
pub fn shared_file(name: &str) -> Option<PathBuf> {
    let path = shared()?.join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: no {name} in the shared data");
    None
}
