//! Adapters in PEFT's form: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use align_core::persist::replace_folder;

use super::names::{Layout, place};
use super::save::{FileTensor, Handle, write_json, write_safetensors};
use super::{CheckpointError, Dtype, Mismatch, SafetensorsFile, WrongShape};
use crate::backbone::Backbone;
use crate::config::{ConfigError, HfConfig};
use crate::lora::{Adapter, LoraConfig, LoraTarget, adapter_tensor};
use crate::transformer::Transformer;
use crate::weights::Parameter;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

impl Transformer {
    /// Writes the adapters as PEFT does, to be loaded over the same base there or here.
    ///
    /// # Errors
    /// If it cannot be written, or queries, keys or values of a family that fuses them are adapted: PEFT has one adapter
    /// for all three there.
    ///
    /// # Panics
    /// If the model has no adapters.
    pub fn save_adapters(&self, folder: &Path) -> Result<(), CheckpointError> {
        let adapters: Vec<_> = self.backbone.adapters().collect();
        let Some(&(_, _, first)) = adapters.first() else { panic!("the model has no adapters to save") };
        let mut tensors = Vec::new();
        let mut modules = Vec::new();
        for &(layer, target, adapter) in &adapters {
            let name = peft_name(&self.backbone, layer, target)
                .ok_or(CheckpointError::FusedAdapter { family: self.config().family.model_type() })?;
            let module = name.rsplit('.').next().unwrap_or(&name).to_owned();
            if !modules.contains(&module) {
                modules.push(module);
            }
            for (part, tensor) in [("lora_A", &adapter.a), ("lora_B", &adapter.b)] {
                let value = tensor.val().without_autodiff();
                let [from, to] = value.dims();
                tensors.push(FileTensor {
                    name: format!("base_model.model.{name}.{part}.weight"),
                    shape: vec![to, from],
                    parts: vec![(Layout::Transposed, vec![from, to], Handle::Matrix(value))],
                });
            }
        }
        let [_, rank] = first.a.dims();
        let config = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": null,
            "r": rank,
            // The scale is what matters; α/r gives it back exactly enough for f32.
            "lora_alpha": first.scale * rank as f64,
            "lora_dropout": first.dropout,
            "target_modules": modules,
            "use_rslora": false,
            "use_dora": false,
            "bias": "none",
            "fan_in_fan_out": self.config().family == crate::config::Family::Gpt2,
            "init_lora_weights": true,
            "inference_mode": true,
            "modules_to_save": null,
        });
        replace_folder(folder, |folder| {
            write_safetensors(&folder.join(WEIGHTS), &tensors.iter().collect::<Vec<_>>(), Dtype::F32)?;
            Ok::<_, CheckpointError>(write_json(&folder.join(CONFIG), &config)?)
        })
    }

    /// Reads adapters in PEFT's form over this model, whose own weights stop requiring gradients.
    ///
    /// # Errors
    /// If files are missing or damaged, an option is not supported (DoRA, trained biases, ranks by pattern), or tensors do
    /// not fit the model.
    pub fn load_adapters(self, folder: &Path) -> Result<Self, CheckpointError> {
        let config = read_config(folder)?;
        let file = SafetensorsFile::open(&folder.join(WEIGHTS))?;
        let device = self.backbone.device();
        let dtype = self.backbone.dtype();
        let mut names = BTreeMap::new();
        for layer in 0..self.config().num_layers {
            for target in LoraTarget::ALL {
                if let Some(name) = peft_name(&self.backbone, layer, target) {
                    names.insert(format!("base_model.model.{name}"), (layer, target));
                }
            }
        }
        let mut mismatch = Mismatch::default();
        let mut found = Vec::new();
        for name in file.entries().keys() {
            let module = name.strip_suffix(".lora_A.weight").or_else(|| name.strip_suffix(".lora_B.weight"));
            match module.and_then(|module| names.get(module).map(|&at| (module.to_owned(), at))) {
                Some(at) if !found.contains(&at) => found.push(at),
                Some(_) => {}
                None => mismatch.surplus.push(name.clone()),
            }
        }
        for (module, (layer, target)) in &found {
            let projection = self.backbone.layers[*layer].projection(*target);
            let [from, to] = projection.expect("names of projections that exist").weight.dims();
            for (part, shape) in [("lora_A", [config.rank, from]), ("lora_B", [to, config.rank])] {
                let name = format!("{module}.{part}.weight");
                match file.entries().get(&name) {
                    None => mismatch.missing.push(name),
                    Some(entry) if entry.shape != shape => mismatch.wrong_shape.push(WrongShape {
                        name,
                        expected: shape.to_vec(),
                        found: entry.shape.clone(),
                    }),
                    Some(_) => {}
                }
            }
        }
        if found.is_empty() {
            mismatch.missing.push("base_model.model.*.lora_A.weight".into());
        }
        if !mismatch.is_empty() {
            return Err(CheckpointError::Mismatch {
                folder: folder.to_owned(),
                mismatch: Box::new(mismatch),
            });
        }
        let mut adapted = burn::module::Module::no_grad(self.without_adapters());
        for (module, (layer, target)) in found {
            let projection = adapted.backbone.layers[layer].projection_mut(target);
            let projection = projection.expect("names of projections that exist");
            let [from, to] = projection.weight.dims();
            let rank = config.rank;
            let read = |part: &str, shape: [usize; 2]| -> Result<_, CheckpointError> {
                let values = file.numbers(&format!("{module}.{part}.weight"))?;
                Ok(adapter_tensor(Layout::Transposed.extract(values, &shape), shape, &device, dtype))
            };
            let (a, b) = (read("lora_A", [from, rank])?, read("lora_B", [rank, to])?);
            projection.adapter = Some(Adapter::new(a, b, config.scale(), config.dropout));
        }
        Ok(adapted)
    }
}

/// The module's name in files; `None` where the family fuses it with others or lacks it.
fn peft_name(backbone: &Backbone, layer: usize, target: LoraTarget) -> Option<String> {
    let projection = backbone.layers[layer].projection(target)?;
    let path = format!("layers.{layer}.{}.weight", target.path());
    let parameter = Parameter { path, shape: projection.weight.dims().to_vec() };
    let place = place(backbone.config(), &parameter);
    match place.layout {
        Layout::Same | Layout::Transposed => place.name.strip_suffix(".weight").map(str::to_owned),
        Layout::Interleaved { .. } | Layout::Columns { .. } => None,
    }
}

fn read_config(folder: &Path) -> Result<LoraConfig, CheckpointError> {
    let path = folder.join(CONFIG);
    let text = fs::read_to_string(&path).map_err(CheckpointError::read(&path))?;
    let refuse = |source| CheckpointError::Config { path: path.clone(), source };
    let HfConfig(map) = HfConfig::from_json(&text).map_err(refuse)?;
    check_options(&map).map_err(refuse)?;
    let number = |key: &str, expected: &str| match map.get(key).map(|value| (value, value.as_f64())) {
        Some((_, Some(number))) if number.is_finite() => Ok(number),
        Some((value, _)) => Err(refuse(ConfigError::Invalid {
            key: key.into(),
            found: value.to_string(),
            expected: expected.into(),
        })),
        None => Err(refuse(ConfigError::Missing { key: key.into(), expected: "a number" })),
    };
    let rank = number("r", "a rank from 1 to 65536")?;
    if !(1.0..=65536.0).contains(&rank) || rank.fract() != 0.0 {
        return Err(refuse(ConfigError::Invalid {
            key: "r".into(),
            found: rank.to_string(),
            expected: "a rank from 1 to 65536".into(),
        }));
    }
    let dropout =
        if map.contains_key("lora_dropout") { number("lora_dropout", "0 to below 1")? } else { 0.0 };
    Ok(LoraConfig {
        rank: rank as usize,
        alpha: number("lora_alpha", "a number")?,
        dropout: dropout.clamp(0.0, 0.999),
        // Which modules are adapted is read off the tensors: patterns and "all-linear" say it only indirectly.
        targets: Vec::new(),
        rank_stabilized: map.get("use_rslora").and_then(Value::as_bool).unwrap_or(false),
    })
}

/// Refuses what would make the adapters mean something else.
fn check_options(map: &Map<String, Value>) -> Result<(), ConfigError> {
    let refuse = |key: &str, value: &Value, expected| {
        Err(ConfigError::Unsupported { key: key.into(), found: value.to_string(), expected })
    };
    if let Some(value) = map.get("peft_type").filter(|value| value.as_str() != Some("LORA")) {
        return refuse("peft_type", value, "LORA");
    }
    if let Some(value) = map.get("bias").filter(|value| value.as_str() != Some("none")) {
        return refuse("bias", value, "none");
    }
    for key in ["use_dora", "use_qalora", "lora_bias"] {
        if let Some(value) = map.get(key).filter(|value| value.as_bool() == Some(true)) {
            return refuse(key, value, "false");
        }
    }
    for key in
        ["rank_pattern", "alpha_pattern", "modules_to_save", "layer_replication", "trainable_token_indices"]
    {
        let is_empty = |value: &Value| match value {
            Value::Null => true,
            Value::Object(map) => map.is_empty(),
            Value::Array(list) => list.is_empty(),
            _ => false,
        };
        if let Some(value) = map.get(key).filter(|value| !is_empty(value)) {
            return refuse(key, value, "nothing");
        }
    }
    Ok(())
}
