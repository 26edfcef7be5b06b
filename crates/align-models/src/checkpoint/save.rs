//! Writing a model's folder.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use align_core::PersistError;
use align_core::persist::replace_file;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};
use half::{bf16, f16};
use serde_json::{Map, Value, json};

use super::names::{Layout, place};
use super::{CheckpointError, Dtype};
use crate::backbone::Backbone;
use crate::config::{Architecture, HfConfig, TransformerConfig};
use crate::weights::{Parameter, parameters};

/// Files beyond this size are split: what transformers does.
pub const MAX_SHARD_BYTES: u64 = 5_000_000_000;

/// How a model is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaveOptions {
    /// The type of the numbers in the file; `None` keeps the model's own.
    pub dtype: Option<Dtype>,
    /// The most bytes of tensors in one file. A single tensor may exceed it.
    pub max_shard_bytes: u64,
}

impl Default for SaveOptions {
    /// The model's own type, in files of at most [`MAX_SHARD_BYTES`].
    fn default() -> Self {
        Self { dtype: None, max_shard_bytes: MAX_SHARD_BYTES }
    }
}

/// What is saved besides the backbone.
pub(crate) struct Extra {
    pub(crate) architecture: Architecture,
    /// A head's tensor under its name.
    pub(crate) head: Option<(String, Tensor<2>)>,
    /// Keys of `config.json` beyond the backbone's.
    pub(crate) config: Map<String, Value>,
}

/// A parameter's tensor; a cheap handle, read when its turn comes.
pub(crate) enum Handle {
    Vector(Tensor<1>),
    Matrix(Tensor<2>),
    /// Computed for the file.
    Numbers(Vec<f32>),
}

impl Handle {
    fn numbers(&self) -> Vec<f32> {
        let data = match self {
            Self::Vector(tensor) => tensor.to_data(),
            Self::Matrix(tensor) => tensor.to_data(),
            Self::Numbers(numbers) => return numbers.clone(),
        };
        data.iter::<f32>().collect()
    }
}

/// One tensor of the file and what it is made of.
pub(crate) struct FileTensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) parts: Vec<(Layout, Vec<usize>, Handle)>,
}

impl FileTensor {
    fn count(&self) -> usize {
        self.shape.iter().product()
    }

    fn numbers(&self) -> Vec<f32> {
        if let [(Layout::Same, _, handle)] = &self.parts[..] {
            return handle.numbers();
        }
        let mut numbers = vec![0.0; self.count()];
        for (layout, shape, handle) in &self.parts {
            layout.insert(&handle.numbers(), shape, &mut numbers);
        }
        numbers
    }
}

/// Writes configuration and weights into an existing folder, each file whole or not at all.
pub(crate) fn save_model(
    backbone: &Backbone,
    extra: Extra,
    folder: &Path,
    options: &SaveOptions,
) -> Result<(), CheckpointError> {
    let dtype = options.dtype.unwrap_or(match backbone.dtype() {
        DType::BF16 => Dtype::Bf16,
        DType::F16 => Dtype::F16,
        _ => Dtype::F32,
    });
    let mut config = backbone.config().to_map(extra.architecture, dtype.config_name());
    assert_expressible(backbone.config(), &config)?;
    let merged = backbone.has_adapters().then(|| backbone.merged());
    let mut tensors = file_tensors(merged.as_ref().unwrap_or(backbone));
    if let Some((name, head)) = extra.head {
        let shape = head.dims().to_vec();
        tensors.push(FileTensor {
            name,
            shape: shape.clone(),
            parts: vec![(Layout::Same, shape, Handle::Matrix(head))],
        });
    }
    write_weights(&tensors, folder, dtype, options.max_shard_bytes)?;
    config.extend(extra.config);
    write_json(&folder.join("config.json"), &Value::Object(config))?;
    let tokens = &backbone.config().tokens;
    let generation = folder.join("generation_config.json");
    if !generation.exists() {
        let eos = if let [single] = tokens.eos[..] { json!(single) } else { json!(tokens.eos) };
        let mut keys = Map::from_iter([("_from_model_config".to_owned(), json!(true))]);
        for (key, value) in
            [("bos_token_id", json!(tokens.bos)), ("eos_token_id", eos), ("pad_token_id", json!(tokens.pad))]
        {
            if !value.is_null() && value != json!([]) {
                keys.insert(key.into(), value);
            }
        }
        write_json(&generation, &Value::Object(keys))?;
    }
    Ok(())
}

/// Refuses to write a folder that would be read as another model.
fn assert_expressible(config: &TransformerConfig, keys: &Map<String, Value>) -> Result<(), CheckpointError> {
    let read_back = TransformerConfig::try_from(&HfConfig(keys.clone()));
    if read_back.as_ref().is_ok_and(|read_back| read_back == config) {
        return Ok(());
    }
    let read_back = read_back.map_or_else(|error| error.to_string(), |config| format!("{config:?}"));
    Err(CheckpointError::Unsaveable { family: config.family.model_type(), read_back })
}

/// Copies what belongs to a model besides weights and configuration: tokenizer, chat template, generation settings.
///
/// # Errors
/// If a file that is there cannot be copied.
pub fn copy_companions(from: &Path, to: &Path) -> Result<(), CheckpointError> {
    const NAMES: [&str; 10] = [
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
        "chat_template.jinja",
        "chat_template.json",
        "generation_config.json",
    ];
    for name in NAMES {
        let source = from.join(name);
        if source.is_file() {
            let bytes = fs::read(&source).map_err(CheckpointError::read(&source))?;
            replace_file(&to.join(name), |file| file.write_all(&bytes))?;
        }
    }
    Ok(())
}

pub(crate) fn write_json(path: &Path, value: &Value) -> Result<(), PersistError> {
    replace_file(path, |file| {
        serde_json::to_writer_pretty(&mut *file, value)?;
        file.write_all(b"\n")
    })
}

/// Every parameter of a module under its path.
pub(crate) fn handles<M: Module>(module: &M) -> HashMap<String, Handle> {
    struct Collect {
        path: Vec<String>,
        found: HashMap<String, Handle>,
    }
    impl ModuleVisitor for Collect {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = param.val().without_autodiff();
            let shape = tensor.dims();
            // The rank is known from the path; reshaping to the same sizes only tells the compiler.
            let handle = match shape[..] {
                [length] => Handle::Vector(tensor.reshape([length])),
                [rows, columns] => Handle::Matrix(tensor.reshape([rows, columns])),
                _ => return,
            };
            self.found.insert(self.path.join("."), handle);
        }
    }
    let mut collect = Collect { path: Vec::new(), found: HashMap::new() };
    module.visit(&mut collect);
    collect.found
}

/// The backbone's tensors as its family's files hold them.
fn file_tensors(backbone: &Backbone) -> Vec<FileTensor> {
    let mut handles = handles(backbone);
    let mut tensors: Vec<FileTensor> = Vec::new();
    for parameter in parameters(backbone.config()) {
        let place = place(backbone.config(), &parameter);
        let Parameter { path, shape } = parameter;
        let handle = handles.remove(&path).unwrap_or_else(|| panic!("the module has no parameter `{path}`"));
        let file_shape = place.layout.file_shape(&shape);
        let part = (place.layout, shape, handle);
        // Parts of a fused tensor follow one another closely.
        match tensors.iter_mut().rev().take(8).find(|tensor| tensor.name == place.name) {
            Some(tensor) => tensor.parts.push(part),
            None => tensors.push(FileTensor { name: place.name, shape: file_shape, parts: vec![part] }),
        }
    }
    tensors
}

fn write_weights(
    tensors: &[FileTensor],
    folder: &Path,
    dtype: Dtype,
    most: u64,
) -> Result<(), CheckpointError> {
    let size = |tensor: &FileTensor| (tensor.count() * dtype.bytes()) as u64;
    let mut shards: Vec<Vec<&FileTensor>> = vec![Vec::new()];
    let mut filled = 0;
    for tensor in tensors {
        if filled > 0 && filled + size(tensor) > most {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += size(tensor);
        shards.last_mut().expect("starts with one").push(tensor);
    }
    let index_path = folder.join("model.safetensors.index.json");
    let single = folder.join("model.safetensors");
    if let [shard] = &shards[..] {
        write_safetensors(&single, shard, dtype)?;
        remove_stale(&index_path)?;
        return Ok(());
    }
    let mut map = Map::new();
    for (index, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", index + 1, shards.len());
        write_safetensors(&folder.join(&name), shard, dtype)?;
        map.extend(shard.iter().map(|tensor| (tensor.name.clone(), json!(name))));
    }
    let total: u64 = tensors.iter().map(size).sum();
    write_json(&index_path, &json!({ "metadata": { "total_size": total }, "weight_map": map }))?;
    remove_stale(&single)?;
    Ok(())
}

/// A file of the other form from an earlier save would be read instead of this one.
fn remove_stale(path: &Path) -> Result<(), PersistError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(PersistError::write(path)(error)),
        _ => Ok(()),
    }
}

/// Header, then tensors one at a time.
pub(crate) fn write_safetensors(
    path: &Path,
    tensors: &[&FileTensor],
    dtype: Dtype,
) -> Result<(), PersistError> {
    // transformers refuses files that do not say which framework's layout they have.
    let mut header = Map::from_iter([("__metadata__".to_owned(), json!({ "format": "pt" }))]);
    let mut start = 0;
    for tensor in tensors {
        let end = start + tensor.count() * dtype.bytes();
        let entry = json!({ "dtype": dtype.name(), "shape": tensor.shape, "data_offsets": [start, end] });
        header.insert(tensor.name.clone(), entry);
        start = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    // Data starts at a multiple of eight.
    header.resize(header.len().next_multiple_of(8), b' ');
    replace_file(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        tensors.iter().try_for_each(|tensor| write_numbers(file, tensor, dtype))
    })
}

fn write_numbers(file: &mut BufWriter<File>, tensor: &FileTensor, dtype: Dtype) -> io::Result<()> {
    let numbers = tensor.numbers();
    let mut bytes = Vec::with_capacity(numbers.len() * dtype.bytes());
    for &number in &numbers {
        match dtype {
            Dtype::F32 => bytes.extend(number.to_le_bytes()),
            Dtype::Bf16 => bytes.extend(bf16::from_f32(number).to_le_bytes()),
            Dtype::F16 => {
                let half = f16::from_f32(number);
                if number.is_finite() && !half.is_finite() {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("{number} in tensor `{}` is too large for f16", tensor.name),
                    ));
                }
                bytes.extend(half.to_le_bytes());
            }
        }
    }
    file.write_all(&bytes)
}

/// A checkpoint's error as the error of saving or restoring.
pub(crate) fn persist_error(folder: &Path) -> impl FnOnce(CheckpointError) -> PersistError + '_ {
    move |source| match source {
        CheckpointError::Write(error) => error,
        source => PersistError::Model { path: folder.to_owned(), source: Box::new(source) },
    }
}
