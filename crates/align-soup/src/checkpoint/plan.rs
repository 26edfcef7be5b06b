//! Where everything in the output lies, before any of it is written.

use safetensors::Dtype;
use serde_json::{Map, Value, json};

use super::open::{Folder, INDEX, SINGLE, TensorEntry};
use crate::mix::FloatDtype;

/// A tensor of the output.
pub(crate) struct Planned {
    /// Name, type and shape of the result.
    pub(crate) tensor: TensorEntry,
    /// The same tensor in each folder.
    pub(crate) sources: Vec<TensorEntry>,
    /// `Some` for a float, which is averaged; `None` for what is copied.
    pub(crate) float: Option<FloatDtype>,
    /// The shard it goes to, and where in that shard's data.
    pub(crate) shard: usize,
    pub(crate) offset: u64,
}

/// A file of the output.
pub(crate) struct PlannedShard {
    pub(crate) name: String,
    /// Positions of its tensors, in the order of their data.
    pub(crate) tensors: Vec<usize>,
    pub(crate) bytes: u64,
}

/// The layout of the output.
pub(crate) struct Plan {
    pub(crate) tensors: Vec<Planned>,
    pub(crate) shards: Vec<PlannedShard>,
}

impl Plan {
    /// Lays out the soup of `folders`, whose tensors have been compared, in shards of at most `max_shard_bytes` (one
    /// tensor may be larger).
    pub(crate) fn new(folders: &[Folder], dtype: Option<FloatDtype>, max_shard_bytes: u64) -> Self {
        let tensors = folders[0]
            .tensors
            .iter()
            .map(|first| {
                let float = first.stored_float().map(|own| dtype.unwrap_or(own));
                let mut tensor = first.clone();
                if let Some(float) = float {
                    tensor.dtype = file_dtype(float);
                    tensor.bytes = tensor.values() * float.size() as u64;
                }
                let sources = folders
                    .iter()
                    .map(|folder| folder.tensor(&first.name).expect("tensors were compared").clone())
                    .collect();
                Planned { tensor, sources, float, shard: 0, offset: 0 }
            })
            .collect();
        Self::lay_out(tensors, max_shard_bytes)
    }

    /// Gives every tensor its place, in shards of at most `max_shard_bytes` (one tensor may be larger).
    pub(crate) fn lay_out(mut tensors: Vec<Planned>, max_shard_bytes: u64) -> Self {
        let mut shards: Vec<PlannedShard> = Vec::new();
        for (index, planned) in tensors.iter().enumerate() {
            match shards.last_mut() {
                Some(shard) if shard.bytes + planned.tensor.bytes <= max_shard_bytes => {
                    shard.tensors.push(index);
                    shard.bytes += planned.tensor.bytes;
                }
                _ => shards.push(PlannedShard {
                    name: SINGLE.to_owned(),
                    tensors: vec![index],
                    bytes: planned.tensor.bytes,
                }),
            }
        }
        if shards.is_empty() {
            shards.push(PlannedShard { name: SINGLE.to_owned(), tensors: Vec::new(), bytes: 0 });
        }
        let count = shards.len();
        for (number, shard) in shards.iter_mut().enumerate() {
            if count > 1 {
                shard.name = format!("model-{:05}-of-{count:05}.safetensors", number + 1);
            }
            // Wide types first keeps every tensor aligned, whatever the shapes; the sort is stable.
            shard.tensors.sort_by_key(|&index| std::cmp::Reverse(tensors[index].tensor.dtype.bitsize()));
            let mut offset = 0;
            for &index in &shard.tensors {
                tensors[index].shard = number;
                tensors[index].offset = offset;
                offset += tensors[index].tensor.bytes;
            }
        }
        Self { tensors, shards }
    }

    /// The header of a shard, its length in front, padded to 8 bytes. Its length does not depend on what the strings in
    /// `metadata` say as long as these keep their lengths.
    pub(crate) fn header(&self, shard: &PlannedShard, metadata: &Value) -> Vec<u8> {
        let mut header = Map::new();
        header.insert("__metadata__".to_owned(), metadata.clone());
        for &index in &shard.tensors {
            let Planned { tensor, offset, .. } = &self.tensors[index];
            let entry = json!({
                "dtype": tensor.dtype.to_string(),
                "shape": tensor.shape,
                "data_offsets": [offset, offset + tensor.bytes],
            });
            header.insert(tensor.name.clone(), entry);
        }
        let mut text = Value::Object(header).to_string().into_bytes();
        text.resize(text.len().next_multiple_of(8), b' ');
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.append(&mut text);
        bytes
    }

    /// The list of shards, as transformers writes it; `None` if there is only one.
    pub(crate) fn index(&self) -> Option<(&'static str, Value)> {
        if self.shards.len() == 1 {
            return None;
        }
        let weight_map: Map<String, Value> = self
            .tensors
            .iter()
            .map(|planned| (planned.tensor.name.clone(), json!(self.shards[planned.shard].name)))
            .collect();
        Some((INDEX, json!({ "metadata": { "total_size": self.bytes() }, "weight_map": weight_map })))
    }

    /// Bytes of all tensors of the result.
    pub(crate) fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.bytes).sum()
    }
}

pub(crate) fn file_dtype(dtype: FloatDtype) -> Dtype {
    match dtype {
        FloatDtype::F64 => Dtype::F64,
        FloatDtype::F32 => Dtype::F32,
        FloatDtype::F16 => Dtype::F16,
        FloatDtype::BF16 => Dtype::BF16,
    }
}

/// `__metadata__` of a soup: strings only, as the format demands.
pub(crate) fn metadata(recipe: &Value) -> Value {
    let mut metadata = Map::new();
    metadata.insert("format".to_owned(), json!("pt"));
    if let Some(ancestor) = recipe["ancestor"].as_str() {
        metadata.insert("ancestor".to_owned(), json!(ancestor));
    }
    metadata.insert("soup".to_owned(), json!(recipe.to_string()));
    Value::Object(metadata)
}
