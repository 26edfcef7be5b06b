//! Adapters in PEFT's form: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! GPT-2 and GPT-NeoX hold queries, keys and values as one module, with one adapter in PEFT: three of ours are written as
//! one of up to three times the rank, and one of theirs is read as three with the same `A`.

mod config;
mod modules;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use align_core::Draws;
use align_core::persist::replace_folder;
use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};

use self::config::{PeftConfig, Size, Task, written};
use self::modules::{Stacked, modules};
use super::names::Layout;
use super::save::{FileTensor, Handle, write_json, write_safetensors};
use super::{CheckpointError, Dtype, Mismatch, SafetensorsFile, WrongShape};
use crate::backbone::Backbone;
use crate::config::Family;
use crate::heads::{Normalization, RewardModel};
use crate::lora::Adapter;
use crate::transformer::Transformer;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// The scale of a reward model's scores, which PEFT knows nothing of.
const NORMALIZATION: &str = "align_normalization.json";
/// What PEFT puts before every name.
const PREFIX: &str = "base_model.model.";
const SCORE: &str = "base_model.model.score.weight";

impl Transformer {
    /// Writes the adapters as PEFT does, to be loaded over the same base there or here; a folder that stood there is
    /// replaced.
    ///
    /// # Errors
    /// If it cannot be written.
    ///
    /// # Panics
    /// If the model has no adapters.
    pub fn save_adapters(&self, folder: &Path) -> Result<(), CheckpointError> {
        replace_folder(folder, |folder| write(&self.backbone, None, folder))
    }

    /// Reads adapters in PEFT's form over this model, whose own weights stop requiring gradients.
    ///
    /// # Errors
    /// If files are missing or damaged, an option is not supported (DoRA, trained biases, ranks by regular expression), or
    /// tensors do not fit the model.
    pub fn load_adapters(self, folder: &Path) -> Result<Self, CheckpointError> {
        let Self { backbone, head } = self.no_grad();
        let (backbone, _) = read(backbone, Task::CausalLm, folder)?;
        Ok(Self { backbone, head })
    }
}

impl RewardModel {
    /// Reads a folder and adapters over it. The score head may come with either: PEFT trains it beside the adapters of a
    /// language model.
    ///
    /// # Errors
    /// As [`RewardModel::from_pretrained`] and [`Transformer::load_adapters`].
    pub fn from_pretrained_adapted(
        folder: &Path,
        adapters: &Path,
        device: &Device,
        dtype: DType,
    ) -> Result<Self, CheckpointError> {
        let replaced = Draws::new(0);
        let comes_later = open(adapters)?.entries().contains_key(SCORE);
        let model = Self::from_pretrained_as(folder, device, dtype, comes_later.then_some(&replaced))?;
        model.load_adapters(adapters)
    }

    /// As [`Transformer::save_adapters`], with the score head, as PEFT saves it beside the adapters of a
    /// `*ForSequenceClassification`, and the normalisation in a file of its own.
    ///
    /// # Errors
    /// If it cannot be written.
    ///
    /// # Panics
    /// If the model has no adapters.
    pub fn save_adapters(&self, folder: &Path) -> Result<(), CheckpointError> {
        replace_folder(folder, |folder| self.save_adapters_into(folder))
    }

    /// Writes the adapters' files into an existing folder and leaves its other files alone.
    ///
    /// # Errors
    /// If a file cannot be written.
    ///
    /// # Panics
    /// If the model has no adapters.
    pub fn save_adapters_into(&self, folder: &Path) -> Result<(), CheckpointError> {
        write(self.backbone(), Some(self.head_weight().without_autodiff()), folder)?;
        let normalization = serde_json::json!(self.normalization());
        Ok(write_json(&folder.join(NORMALIZATION), &normalization)?)
    }

    /// Reads adapters and score head in PEFT's form over this model, whose own weights stop requiring gradients but for the
    /// head's. Without a head in the file the model keeps its own, and without a normalisation scores are raw.
    ///
    /// # Errors
    /// As [`Transformer::load_adapters`].
    pub fn load_adapters(self, folder: &Path) -> Result<Self, CheckpointError> {
        let path = folder.join(NORMALIZATION);
        let normalization = match fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Normalization::default(),
            Err(error) => return Err(CheckpointError::read(&path)(error)),
            Ok(text) => serde_json::from_str(&text)
                .map_err(|error| CheckpointError::damaged(&path, "gain and bias", error.to_string()))?,
        };
        let device = self.backbone().device();
        let (backbone, score) =
            read(self.backbone().clone().no_grad(), Task::SequenceClassification, folder)?;
        let width = backbone.config().hidden_size;
        let head = score.map(|score| {
            let dtype = self.head_weight().dtype();
            Param::from_tensor(Tensor::from_data(TensorData::new(score, [1, width]), (&device, dtype)))
        });
        Ok(self.with_parts(backbone, head).with_normalization(normalization))
    }
}

/// Opens the adapters' weights.
fn open(folder: &Path) -> Result<SafetensorsFile, CheckpointError> {
    SafetensorsFile::open(&folder.join(WEIGHTS))
}

/// Writes the two files into an existing folder.
fn write(backbone: &Backbone, score: Option<Tensor<2>>, folder: &Path) -> Result<(), CheckpointError> {
    let task = if score.is_some() { Task::SequenceClassification } else { Task::CausalLm };
    let modules = modules(backbone);
    let mut tensors = Vec::new();
    let mut sizes = BTreeMap::new();
    let matrix = |name: String, [rows, columns]: [usize; 2], handle: Handle| FileTensor {
        name,
        shape: vec![rows, columns],
        parts: vec![(Layout::Same, vec![rows, columns], handle)],
    };
    for (name, parts) in &modules {
        let adapters: Vec<_> = parts
            .iter()
            .filter_map(|part| {
                let projection = backbone.layers[part.layer].projection(part.target)?;
                Some((*part, projection.adapter.as_ref()?))
            })
            .collect();
        let Some(&(part, _)) = adapters.first() else { continue };
        let Stacked { rank, scale, a, b } = Stacked::new(&adapters);
        let (inputs, outputs) = (a.len() / rank, part.module_outputs());
        tensors.push(matrix(format!("{PREFIX}{name}.lora_A.weight"), [rank, inputs], Handle::Numbers(a)));
        tensors.push(matrix(format!("{PREFIX}{name}.lora_B.weight"), [outputs, rank], Handle::Numbers(b)));
        sizes.insert(name.clone(), Size { rank, scale });
    }
    let dropout = backbone.adapters().next().expect("the model has adapters to save").2.dropout;
    if let Some(score) = score {
        tensors.push(matrix(SCORE.to_owned(), score.dims(), Handle::Matrix(score)));
    }
    let config = written(&sizes, &modules, dropout, backbone.config().family == Family::Gpt2, task);
    write_safetensors(&folder.join(WEIGHTS), &tensors.iter().collect::<Vec<_>>(), Dtype::F32)?;
    Ok(write_json(&folder.join(CONFIG), &config)?)
}

/// The decoder with the folder's adapters in place of its own, and the score head if there is one.
fn read(
    backbone: Backbone,
    task: Task,
    folder: &Path,
) -> Result<(Backbone, Option<Vec<f32>>), CheckpointError> {
    let path = folder.join(CONFIG);
    let text = fs::read_to_string(&path).map_err(CheckpointError::read(&path))?;
    let config = PeftConfig::read(&path, &text, task)?;
    let file = open(folder)?;
    let modules = modules(&backbone);
    let has_score = task == Task::SequenceClassification && file.entries().contains_key(SCORE);

    let mut mismatch = Mismatch::default();
    let mut expect = |name: &str, shape: [usize; 2]| match file.entries().get(name) {
        None => mismatch.missing.push(name.to_owned()),
        Some(entry) if entry.shape != shape => mismatch.wrong_shape.push(WrongShape {
            name: name.to_owned(),
            expected: shape.to_vec(),
            found: entry.shape.clone(),
        }),
        Some(_) => {}
    };
    let mut found = BTreeMap::new();
    for (name, parts) in &modules {
        let names = ["lora_A", "lora_B"].map(|part| format!("{PREFIX}{name}.{part}.weight"));
        if names.iter().any(|name| file.entries().contains_key(name)) {
            let part = parts[0];
            let projection = backbone.layers[part.layer].projection(part.target);
            let [inputs, _] = projection.expect("modules hold projections that exist").weight.dims();
            let size = config.size(name);
            expect(&names[0], [size.rank, inputs]);
            expect(&names[1], [part.module_outputs(), size.rank]);
            found.insert(names, (size, inputs, parts));
        }
    }
    if has_score {
        expect(SCORE, [1, backbone.config().hidden_size]);
    }
    if found.is_empty() {
        mismatch.missing.push(format!("{PREFIX}*.lora_A.weight"));
    }
    let is_known =
        |name: &String| found.keys().any(|names| names.contains(name)) || (has_score && name == SCORE);
    mismatch.surplus = file.entries().keys().filter(|name| !is_known(name)).cloned().collect();
    if !mismatch.is_empty() {
        return Err(CheckpointError::Mismatch { folder: folder.to_owned(), mismatch: Box::new(mismatch) });
    }

    let (device, dtype) = (backbone.device(), backbone.dtype());
    let tensor = |values: Vec<f32>, shape: [usize; 2], device: &Device| -> Tensor<2> {
        Tensor::from_data(TensorData::new(values, shape), (device, dtype))
    };
    let mut adapted = backbone.without_adapters();
    for ([a_name, b_name], (Size { rank, scale }, inputs, parts)) in found {
        let shape = [inputs, rank];
        let a = Layout::Transposed.extract(file.numbers(&a_name)?, &shape);
        let b = file.numbers(&b_name)?;
        for part in parts {
            let own = part.extract(&b, rank);
            let outputs = own.len() / rank;
            let projection = adapted.layers[part.layer].projection_mut(part.target);
            projection.expect("modules hold projections that exist").adapter = Some(Adapter::new(
                tensor(a.clone(), shape, &device),
                tensor(own, [rank, outputs], &device),
                scale,
                config.dropout,
            ));
        }
    }
    Ok((adapted, has_score.then(|| file.numbers(SCORE)).transpose()?))
}
