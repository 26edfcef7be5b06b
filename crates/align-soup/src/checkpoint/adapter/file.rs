//! An adapter's folder by itself: which modules it changes, and how.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::AdapterError;
use super::config::AdapterConfig;
use crate::checkpoint::file::{Shard, TensorEntry};
use crate::error::SoupError;

pub(super) const WEIGHTS: &str = "adapter_model.safetensors";
/// What PEFT puts before every name.
pub(super) const PREFIX: &str = "base_model.model.";

/// An adapter whose configuration and header are read.
pub(super) struct AdapterFile {
    pub(super) path: PathBuf,
    pub(super) config: AdapterConfig,
    /// `A` `[r, in]` and `B` `[out, r]` by the name of the module.
    pub(super) pairs: BTreeMap<String, [TensorEntry; 2]>,
    /// What takes the place of the base's tensors, by their names.
    pub(super) whole: BTreeMap<String, TensorEntry>,
    pub(super) shard: Shard,
}

/// What a tensor of the file is for.
enum Part {
    A(String),
    B(String),
    Whole(String),
}

impl AdapterFile {
    /// Opens an adapter; `shard` is the number its tensors give as their file's.
    pub(super) fn open(folder: &Path, shard: usize) -> Result<Self, SoupError> {
        let config = AdapterConfig::read(folder)?;
        let path = folder.join(WEIGHTS);
        if !path.exists() {
            return Err(AdapterError::MissingWeights { folder: folder.to_owned() }.into());
        }
        let (shard, tensors) = Shard::open(path, shard)?;
        if tensors.is_empty() {
            return Err(AdapterError::Empty { adapter: folder.to_owned() }.into());
        }
        let (mut left, mut right, mut whole) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for tensor in tensors {
            match part(folder, &tensor)? {
                Part::A(module) => left.insert(module, tensor),
                Part::B(module) => right.insert(module, tensor),
                Part::Whole(name) => whole.insert(name, tensor),
            };
        }
        if config.trains_biases && !whole.keys().any(|name| name.ends_with(".bias")) {
            return Err(config.unsupported("bias", "the biases are not in the file").into());
        }
        let path = folder.to_owned();
        Ok(Self { pairs: paired(folder, left, right)?, path, config, whole, shard })
    }
}

/// Tells what a tensor of the file is for, by its name.
fn part(adapter: &Path, tensor: &TensorEntry) -> Result<Part, AdapterError> {
    let refuse =
        |why| AdapterError::UnknownTensor { adapter: adapter.to_owned(), tensor: tensor.name.clone(), why };
    let name = tensor
        .name
        .strip_prefix(PREFIX)
        .ok_or_else(|| refuse("its name does not begin with `base_model.model.`"))?;
    if tensor.float().is_none() {
        return Err(refuse("it holds no floats"));
    }
    let factor = [(".lora_A.weight", Part::A as fn(String) -> Part), (".lora_B.weight", Part::B)]
        .into_iter()
        .find_map(|(end, part)| Some(part(name.strip_suffix(end)?.to_owned())));
    match factor {
        Some(_) if tensor.shape.len() != 2 => Err(refuse("a factor has two dimensions")),
        Some(factor) => Ok(factor),
        None if name.contains("lora_embedding_") => {
            Err(refuse("low-rank updates of embeddings are not supported"))
        }
        None if name.contains("lora_magnitude_vector") => Err(refuse("DoRA is not supported")),
        None if name.contains("lora_") => Err(refuse("it is part of an update that is not plain LoRA")),
        None => Ok(Part::Whole(name.replace(".base_layer.", ".").replace(".modules_to_save.", "."))),
    }
}

/// Joins the factors of each module.
fn paired(
    adapter: &Path,
    left: BTreeMap<String, TensorEntry>,
    mut right: BTreeMap<String, TensorEntry>,
) -> Result<BTreeMap<String, [TensorEntry; 2]>, AdapterError> {
    let lone = |present: &TensorEntry, module: &str, end: &str| AdapterError::LoneFactor {
        adapter: adapter.to_owned(),
        present: present.name.clone(),
        missing: format!("{PREFIX}{module}.{end}.weight"),
    };
    let mut pairs = BTreeMap::new();
    for (module, a) in left {
        let b = right.remove(&module).ok_or_else(|| lone(&a, &module, "lora_B"))?;
        let rank = a.shape[0];
        if rank == 0 || b.shape[1] != rank {
            let why = "its rank is not that of its other factor, or is 0";
            return Err(AdapterError::UnknownTensor { adapter: adapter.to_owned(), tensor: b.name, why });
        }
        pairs.insert(module, [a, b]);
    }
    match right.first_key_value() {
        Some((module, b)) => Err(lone(b, module, "lora_A")),
        None => Ok(pairs),
    }
}
