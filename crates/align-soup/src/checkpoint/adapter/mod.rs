//! Low-rank adapters in PEFT's form, merged into their base tensor by tensor while it is read.
//!
//! A merged tensor is `W + (α/r)·B·A`, with sums in f64 and one rounding: what PEFT's `merge_and_unload` computes in f32,
//! without its roundings. It reads as f32, also over a base of sixteen bits, so that a soup of adapters rounds once.
//! Whole tensors in the file (`modules_to_save`, trained biases) take the place of the base's.
//!
//! # Source
//! Hu et al. 2021, section 4.1, <https://arxiv.org/abs/2106.09685>. Names and options as in PEFT 0.21.

mod concatenate;
mod config;
mod error;
mod file;
mod low_rank;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use safetensors::Dtype;
use serde_json::{Map, Value};

pub use self::concatenate::{AdapterSoup, soup_adapters};
use self::config::{AdapterConfig, ends_with_module};
pub use self::error::AdapterError;
use self::file::AdapterFile;
use self::low_rank::{Factors, LowRank};
use super::file::{Shard, TensorEntry};
use crate::error::SoupError;
use crate::mix::{FloatDtype, Source, decode_into, mix};

/// Modules that a model may tie to one another.
const EMBEDDINGS: [&str; 7] =
    ["embed_tokens", "wte", "embed_in", "word_embeddings", "tok_embeddings", "lm_head", "embed_out"];
/// What stands on a decoder in the place of tied embeddings.
const HEADS: [&str; 3] = ["lm_head", "embed_out", "score"];
/// Tensors whose factors are in memory at a time: that of the block at hand, and its neighbour in the file.
const CACHED: usize = 2;

/// The low-rank updates of an open folder.
pub(crate) struct Adapter {
    /// The adapter's folder.
    pub(crate) path: PathBuf,
    /// The base as whoever trained the adapter called it.
    pub(crate) base_name: Option<String>,
    /// Number of the adapter's file among the folder's.
    shard: usize,
    updates: Vec<LowRank>,
    recent: Mutex<VecDeque<(usize, Arc<Factors>)>>,
}

/// The model that an adapter stands over.
pub(super) struct Base<'a> {
    pub(super) path: &'a Path,
    pub(super) config: &'a Map<String, Value>,
    pub(super) tensors: &'a mut [TensorEntry],
}

impl Adapter {
    /// Opens an adapter whose file becomes number `shard` of the folder, and rewrites the entries of the tensors it changes.
    pub(super) fn open(path: &Path, base: Base<'_>, shard: usize) -> Result<(Self, Shard), SoupError> {
        let AdapterFile { path, config, pairs, whole, shard: file } = AdapterFile::open(path, shard)?;
        let mut over = Over { adapter: &path, base, updates: Vec::new() };
        for (module, factors) in pairs {
            over.update(&module, factors, &config)?;
        }
        for (name, tensor) in whole {
            over.replace(&name, tensor)?;
        }
        let updates = over.updates;
        let adapter = Self { path, base_name: config.base_name, shard, updates, recent: Mutex::default() };
        Ok((adapter, file))
    }

    /// Fills `buffer` with the merged values of a tensor from byte `start` on.
    pub(super) fn read_merged(
        &self,
        update: usize,
        files: &[Shard],
        tensor: &TensorEntry,
        start: u64,
        buffer: &mut [u8],
    ) -> Result<(), SoupError> {
        let (stored, merged) = (tensor.stored_float(), tensor.float());
        let (stored, merged) = stored.zip(merged).expect("updates are of floats");
        let (first, count) = (start as usize / merged.size(), buffer.len() / merged.size());
        let mut bytes = vec![0; count * stored.size()];
        files[tensor.shard].read(tensor, (first * stored.size()) as u64, &mut bytes)?;
        let mut values = Vec::new();
        decode_into(stored, &bytes, &mut values);
        self.factors(update, files)?.add_to(&mut values, first);
        encode(&values, merged, buffer);
        Ok(())
    }

    /// The factors of an update, read unless they were used a moment ago.
    fn factors(&self, update: usize, files: &[Shard]) -> Result<Arc<Factors>, SoupError> {
        // A thread that panicked while reading left the list as it was.
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, factors)) = recent.iter().find(|(index, _)| *index == update) {
            return Ok(factors.clone());
        }
        let factors = Arc::new(self.updates[update].load(&files[self.shard])?);
        recent.truncate(CACHED - 1);
        recent.push_front((update, factors.clone()));
        Ok(factors)
    }
}

/// Rounds into bytes. What is not finite stays so, and is reported by whoever reads the block.
fn encode(values: &[f64], dtype: FloatDtype, out: &mut [u8]) {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    mix(&[Source { dtype: FloatDtype::F64, bytes: &bytes, weight: 1.0 }], dtype, out, &mut [0]);
}

/// An adapter being laid over its base.
struct Over<'a> {
    adapter: &'a Path,
    base: Base<'a>,
    updates: Vec<LowRank>,
}

impl Over<'_> {
    /// Adds `B·A` to the weight of `module`.
    fn update(
        &mut self,
        module: &str,
        [a, b]: [TensorEntry; 2],
        config: &AdapterConfig,
    ) -> Result<(), AdapterError> {
        let index = self.find(&format!("{module}.weight"))?;
        let (rank, inputs, outputs) = (a.shape[0], a.shape[1], b.shape[0]);
        let shape = &self.base.tensors[index].shape;
        let fits = [[outputs, inputs], [inputs, outputs]].map(|fit| shape[..] == fit);
        let transposed = match fits {
            [true, true] => config.fan_in_fan_out || self.is_transposed(module),
            [true, false] => false,
            [false, true] => true,
            [false, false] => {
                // A is the one to name, unless it fits.
                let (wrong, expected) = match shape[..] {
                    [rows, columns] if inputs == columns => (b, vec![rows, rank]),
                    [_, columns] => (a, vec![rank, columns]),
                    _ => (a, shape.clone()),
                };
                return Err(self.misfit(wrong.name, expected, wrong.shape));
            }
        };
        let entry = &mut self.base.tensors[index];
        let stored = match (entry.stored_float(), entry.update) {
            (Some(stored), None) => stored,
            (stored, _) => {
                let why = match stored {
                    None => "the base holds no floats there",
                    Some(_) => "another update has the same tensor of the base",
                };
                let (adapter, tensor) = (self.adapter.to_owned(), a.name);
                return Err(AdapterError::UnknownTensor { adapter, tensor, why });
            }
        };
        entry.dtype = if stored == FloatDtype::F64 { Dtype::F64 } else { Dtype::F32 };
        entry.bytes = entry.values() * entry.dtype.bitsize() as u64 / 8;
        entry.update = Some(self.updates.len());
        self.updates.push(LowRank { scale: config.scale(module, rank), a, b, transposed });
        Ok(())
    }

    /// Puts a whole tensor in the place of the base's.
    fn replace(&mut self, name: &str, tensor: TensorEntry) -> Result<(), AdapterError> {
        let index = self.find(name)?;
        let old = &mut self.base.tensors[index];
        if old.shape != tensor.shape {
            let expected = old.shape.clone();
            return Err(self.misfit(tensor.name, expected, tensor.shape));
        }
        *old = TensorEntry { name: old.name.clone(), stored: old.stored, ..tensor };
        Ok(())
    }

    /// The base's tensor that the adapter calls `name`: the same name, or the only one that differs by what comes before it,
    /// since a decoder is `model` to one class and the whole to another.
    fn find(&self, name: &str) -> Result<usize, AdapterError> {
        let tensors = self.base.tensors.iter().enumerate();
        let exact = tensors.clone().find(|(_, entry)| entry.name == name);
        let mut alike = exact.into_iter().chain(tensors.filter(|(_, entry)| {
            exact.is_none() && (ends_with_module(&entry.name, name) || ends_with_module(name, &entry.name))
        }));
        let (adapter, base, tensor) = (self.adapter.to_owned(), self.base.path.to_owned(), name.to_owned());
        let (index, module) = match (alike.next(), alike.next()) {
            (Some((index, _)), None) => (index, name.rsplit('.').nth(1)),
            (None, _) => return Err(AdapterError::NotInBase { adapter, base, tensor, found: "no tensor" }),
            (Some(_), Some(_)) => {
                return Err(AdapterError::NotInBase { adapter, base, tensor, found: "several tensors" });
            }
        };
        if module.is_some_and(|module| EMBEDDINGS.contains(&module)) && self.is_tied() {
            return Err(AdapterError::Tied { adapter, base, tensor });
        }
        Ok(index)
    }

    /// Whether the base's output embeddings are its input embeddings. Configurations leave out what is a family's default; then
    /// a base without a head of its own has its embeddings for one.
    fn is_tied(&self) -> bool {
        let stated = self.base.config.get("tie_word_embeddings").and_then(Value::as_bool);
        let has_head = |entry: &TensorEntry| {
            HEADS.iter().any(|head| ends_with_module(&entry.name, &format!("{head}.weight")))
        };
        stated.unwrap_or_else(|| !self.base.tensors.iter().any(has_head))
    }

    /// Whether a square weight is `[in, out]` although the configuration does not say so: PEFT records the option of the
    /// module it adapted last.
    fn is_transposed(&self, module: &str) -> bool {
        let convolutions = ["c_attn", "q_attn", "c_proj", "c_fc"];
        let gpt2 = self.base.config.get("model_type").is_some_and(|family| family == "gpt2");
        gpt2 && convolutions.iter().any(|end| ends_with_module(module, end))
    }

    fn misfit(&self, tensor: String, expected: Vec<usize>, found: Vec<usize>) -> AdapterError {
        let (adapter, base) = (self.adapter.to_owned(), self.base.path.to_owned());
        AdapterError::Shape { adapter, base, tensor, expected, found }
    }
}
