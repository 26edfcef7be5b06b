//! `adapter_config.json`, as PEFT writes it.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::AdapterError;
use crate::checkpoint::open::read_json;
use crate::error::SoupError;

pub(super) const CONFIG: &str = "adapter_config.json";

/// Options that say which tensors are adapted, how they were trained or where they came from. The first the tensors say
/// themselves, the others do not change what the file means.
const DESCRIPTIVE: [&str; 27] = [
    "task_type",
    "auto_mapping",
    "peft_version",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "r",
    "lora_alpha",
    "use_rslora",
    "fan_in_fan_out",
    "bias",
    "lora_dropout",
    "target_modules",
    "exclude_modules",
    "modules_to_save",
    "layers_to_transform",
    "layers_pattern",
    "rank_pattern",
    "alpha_pattern",
    "megatron_config",
    "megatron_core",
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "runtime_config",
    "qalora_group_size",
];
/// Initialisations that leave the base alone. Others, such as PiSSA, subtract the first update from it.
const HARMLESS_INITIALIZATIONS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// What an adapter's configuration says beyond its tensors.
#[derive(Clone, Debug)]
pub(super) struct AdapterConfig {
    path: PathBuf,
    /// All of the file.
    pub(super) map: Map<String, Value>,
    alpha: f64,
    rank_stabilized: bool,
    /// By the end of a module's name; the first that fits counts.
    alphas: Vec<(String, f64)>,
    /// Weights are `[in, out]`, as in GPT-2.
    pub(super) fan_in_fan_out: bool,
    /// Biases were trained as well.
    pub(super) trains_biases: bool,
    /// The base as whoever trained the adapter called it.
    pub(super) base_name: Option<String>,
    pub(super) task_type: Option<String>,
}

impl AdapterConfig {
    /// Reads the configuration of an adapter's folder.
    ///
    /// # Errors
    /// If it is not there, or asks for anything but plain low-rank updates.
    pub(super) fn read(folder: &Path) -> Result<Self, SoupError> {
        let path = folder.join(CONFIG);
        let map = read_json::<Map<String, Value>>(&path)?
            .ok_or_else(|| AdapterError::MissingConfig { folder: folder.to_owned() })?;
        let unsupported = |key: &str, found: &Value, why| AdapterError::Unsupported {
            config: path.clone(),
            key: key.to_owned(),
            found: found.to_string(),
            why,
        };
        for (key, value) in &map {
            match key.as_str() {
                "peft_type" if value != "LORA" => {
                    return Err(unsupported(key, value, "only low-rank updates are merged").into());
                }
                "init_lora_weights" if changes_base(value) => {
                    let why = "this initialisation changes the base; convert the adapter (path_initial_model_for_weight_conversion)";
                    return Err(unsupported(key, value, why).into());
                }
                "peft_type" | "init_lora_weights" => {}
                key if !DESCRIPTIVE.contains(&key) && is_on(value) => {
                    return Err(unsupported(key, value, "merge it with the program that trained it").into());
                }
                _ => {}
            }
        }
        let alpha = map.get("lora_alpha").unwrap_or(&Value::Null);
        let text = |key: &str| {
            map.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let truth = |key: &str| map.get(key).and_then(Value::as_bool).unwrap_or(false);
        Ok(Self {
            alpha: number(&path, "lora_alpha", alpha)?,
            rank_stabilized: truth("use_rslora"),
            alphas: pattern(&path, "alpha_pattern", map.get("alpha_pattern"))?,
            fan_in_fan_out: truth("fan_in_fan_out"),
            trains_biases: text("bias").is_some_and(|bias| bias != "none"),
            base_name: text("base_model_name_or_path"),
            task_type: text("task_type"),
            path,
            map,
        })
    }

    /// What `B·A` of rank `rank` is multiplied by in `module`: α/r, or α/√r if rank-stabilised.
    pub(super) fn scale(&self, module: &str, rank: usize) -> f64 {
        let own = self.alphas.iter().find(|(end, _)| ends_with_module(module, end));
        let alpha = own.map_or(self.alpha, |(_, alpha)| *alpha);
        let rank = rank as f64;
        alpha / if self.rank_stabilized { rank.sqrt() } else { rank }
    }

    /// The error that `key` asks for something not supported.
    pub(super) fn unsupported(&self, key: &str, why: &'static str) -> AdapterError {
        let found = self.map.get(key).unwrap_or(&Value::Null).to_string();
        AdapterError::Unsupported { config: self.path.clone(), key: key.to_owned(), found, why }
    }
}

/// Whether `module` is `end`, or ends in it after a dot.
pub(super) fn ends_with_module(module: &str, end: &str) -> bool {
    module.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn changes_base(initialization: &Value) -> bool {
    match initialization {
        Value::Bool(_) | Value::Null => false,
        Value::String(name) => !HARMLESS_INITIALIZATIONS.contains(&name.as_str()),
        _ => true,
    }
}

fn is_on(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

fn number(config: &Path, key: &str, value: &Value) -> Result<f64, AdapterError> {
    value.as_f64().filter(|number| number.is_finite()).ok_or_else(|| AdapterError::Invalid {
        config: config.to_owned(),
        key: key.to_owned(),
        found: value.to_string(),
        expected: "a finite number",
    })
}

/// A table from modules to numbers, in the order of the file. PEFT reads its keys as regular expressions; here they are
/// names, in which a dot is a dot.
fn pattern(config: &Path, key: &str, table: Option<&Value>) -> Result<Vec<(String, f64)>, AdapterError> {
    let Some(Value::Object(table)) = table else { return Ok(Vec::new()) };
    let is_name = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
    table
        .iter()
        .map(|(name, value)| match is_name(name) {
            true => Ok((name.clone(), number(config, &format!("{key}.{name}"), value)?)),
            false => Err(AdapterError::Unsupported {
                config: config.to_owned(),
                key: key.to_owned(),
                found: format!("{name:?}"),
                why: "expected the names of modules, found a regular expression",
            }),
        })
        .collect()
}
