//! Reading a model's folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use burn::tensor::{DType, Device};
use serde_json::{Map, Value};

use super::names::{Place, head_name, is_known_buffer, place, prefix};
use super::{CheckpointError, Mismatch, SafetensorsFile, WrongShape};
use crate::config::{HfConfig, TransformerConfig};
use crate::weights::{Parameter, Weights, parameters};

/// A folder whose configuration was understood and whose files were opened.
pub(crate) struct Folder {
    path: PathBuf,
    pub(crate) hf: HfConfig,
    pub(crate) config: TransformerConfig,
    files: Vec<SafetensorsFile>,
    /// Tensor → index of its file.
    tensors: BTreeMap<String, usize>,
}

/// Which head is to be read with a backbone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The tensor's name.
    pub(crate) name: String,
    /// Its shape.
    pub(crate) shape: Vec<usize>,
    /// Heads of other purposes that may stand in the files and are passed over.
    pub(crate) ignored: Vec<String>,
}

impl Folder {
    /// Reads `config.json` and the headers of all weight files.
    pub(crate) fn open(path: &Path) -> Result<Self, CheckpointError> {
        if !path.is_dir() {
            return Err(CheckpointError::NoFolder { path: path.to_owned() });
        }
        let config_path = path.join("config.json");
        if !config_path.is_file() {
            return Err(missing_file(path, "config.json"));
        }
        let text = fs::read_to_string(&config_path).map_err(CheckpointError::read(&config_path))?;
        let refuse = |source| CheckpointError::Config { path: config_path.clone(), source };
        let hf = HfConfig::from_json(&text).map_err(refuse)?;
        let config = TransformerConfig::try_from(&hf).map_err(refuse)?;
        let files: Vec<_> =
            weight_files(path)?.iter().map(|file| SafetensorsFile::open(file)).collect::<Result<_, _>>()?;
        let tensors = files
            .iter()
            .enumerate()
            .flat_map(|(index, file)| file.entries().keys().map(move |name| (name.clone(), index)))
            .collect();
        Ok(Self { path: path.to_owned(), hf, config, files, tensors })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The head of the language model.
    pub(crate) fn language_head(&self) -> Head {
        Head {
            name: head_name(self.config.family).into(),
            shape: vec![self.config.vocab_size, self.config.hidden_size],
            ignored: Vec::new(),
        }
    }

    /// A tensor's numbers and the name of its file for messages.
    pub(crate) fn numbers(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        self.files[self.tensors[name]].numbers(name)
    }

    /// Checks all tensors against what is asked for, then reads the backbone.
    ///
    /// With `head` its tensor must be there too, except that a tied head may be and is passed over.
    pub(crate) fn weights(
        &self,
        head: &Head,
        is_head_needed: bool,
        device: &Device,
        dtype: DType,
    ) -> Result<Weights, CheckpointError> {
        let wanted: Vec<(Parameter, Place)> = parameters(&self.config)
            .into_iter()
            .map(|parameter| {
                let mut place = place(&self.config, &parameter);
                self.strip_prefix(&mut place.name);
                (parameter, place)
            })
            .collect();
        self.check(&wanted, head, is_head_needed)?;
        let mut weights = Weights::default();
        for (parameter, place) in &wanted {
            let values = place.layout.extract(self.numbers(&place.name)?, &parameter.shape);
            weights.insert(parameter, values, device, dtype);
        }
        Ok(weights)
    }

    /// Files saved from a decoder without a head lack the prefix: GPT-2's own, for one.
    fn strip_prefix(&self, name: &mut String) {
        if self.contains(name) {
            return;
        }
        if let Some(bare) = name.strip_prefix(prefix(self.config.family))
            && self.contains(bare)
        {
            *name = bare.to_owned();
        }
    }

    fn check(
        &self,
        wanted: &[(Parameter, Place)],
        head: &Head,
        is_head_needed: bool,
    ) -> Result<(), CheckpointError> {
        let mut expected: BTreeMap<&str, Vec<usize>> = wanted
            .iter()
            .map(|(parameter, place)| (place.name.as_str(), place.layout.file_shape(&parameter.shape)))
            .collect();
        if is_head_needed {
            expected.insert(&head.name, head.shape.clone());
        }
        let mut mismatch = Mismatch::default();
        for (&name, shape) in &expected {
            match self.tensors.get(name).map(|&file| &self.files[file].entries()[name]) {
                None => mismatch.missing.push(name.to_owned()),
                Some(entry) if entry.shape != *shape => mismatch.wrong_shape.push(WrongShape {
                    name: name.to_owned(),
                    expected: shape.clone(),
                    found: entry.shape.clone(),
                }),
                Some(_) => {}
            }
        }
        let is_ignored =
            |name: &String| *name == head.name || head.ignored.contains(name) || is_known_buffer(name);
        mismatch.surplus = self
            .tensors
            .keys()
            .filter(|name| !expected.contains_key(name.as_str()) && !is_ignored(name))
            .cloned()
            .collect();
        if mismatch.is_empty() {
            return Ok(());
        }
        Err(CheckpointError::Mismatch { folder: self.path.clone(), mismatch: Box::new(mismatch) })
    }
}

/// The files that hold the weights: one, or those an index names.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let index_path = folder.join("model.safetensors.index.json");
    let single = folder.join("model.safetensors");
    if single.is_file() {
        return Ok(vec![single]);
    }
    if !index_path.is_file() {
        return Err(missing_file(folder, "model.safetensors or model.safetensors.index.json"));
    }
    let text = fs::read_to_string(&index_path).map_err(CheckpointError::read(&index_path))?;
    let index: Map<String, Value> = serde_json::from_str(&text)
        .map_err(|error| CheckpointError::damaged(&index_path, "a JSON object", error.to_string()))?;
    let map = index
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| CheckpointError::damaged(&index_path, "an object `weight_map`", "none"))?;
    let mut shards = BTreeSet::new();
    for (tensor, shard) in map {
        let shard = shard.as_str().ok_or_else(|| {
            CheckpointError::damaged(&index_path, format!("a file name for `{tensor}`"), shard.to_string())
        })?;
        // Only a plain name stays in the folder on every system: no separators of either kind, no drive, no `..`.
        let mut components = Path::new(shard).components();
        let is_plain = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None))
            && !shard.contains(['/', '\\', ':', '\0']);
        if !is_plain {
            return Err(CheckpointError::ShardOutside { index: index_path, shard: shard.to_owned() });
        }
        shards.insert(folder.join(shard));
    }
    Ok(shards.into_iter().collect())
}

fn missing_file(folder: &Path, expected: &'static str) -> CheckpointError {
    let mut found: Vec<String> = fs::read_dir(folder)
        .map(|entries| {
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        })
        .unwrap_or_default();
    found.sort();
    CheckpointError::MissingFile { folder: folder.to_owned(), expected, found }
}
