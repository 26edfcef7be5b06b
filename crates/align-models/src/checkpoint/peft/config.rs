//! `adapter_config.json`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::modules::{Modules, short_name};
use crate::checkpoint::CheckpointError;
use crate::config::{ConfigError, HfConfig};

/// What the adapters of a file are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    CausalLm,
    /// With a score head beside the adapters.
    SequenceClassification,
}

impl Task {
    fn name(self) -> &'static str {
        match self {
            Self::CausalLm => "CAUSAL_LM",
            Self::SequenceClassification => "SEQ_CLS",
        }
    }

    /// The modules that may be saved whole, by PEFT's names.
    fn whole_modules(self) -> &'static [&'static str] {
        match self {
            Self::CausalLm => &[],
            Self::SequenceClassification => &["classifier", "score"],
        }
    }
}

/// The size of one module's adapter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Size {
    pub(crate) rank: usize,
    /// What `B·A` is multiplied by.
    pub(crate) scale: f64,
}

/// What the file says about all adapters; which modules are adapted is read off the tensors, since patterns and
/// "all-linear" say it only indirectly.
pub(crate) struct PeftConfig {
    rank: usize,
    alpha: f64,
    rank_stabilized: bool,
    pub(crate) dropout: f64,
    /// By the end of a module's name.
    ranks: BTreeMap<String, f64>,
    alphas: BTreeMap<String, f64>,
}

impl PeftConfig {
    /// Reads the file's text.
    ///
    /// # Errors
    /// If something is missing, out of range or would make the adapters mean something else.
    pub(crate) fn read(path: &Path, text: &str, task: Task) -> Result<Self, CheckpointError> {
        HfConfig::from_json(text)
            .and_then(|HfConfig(map)| Self::from_map(&map, task))
            .map_err(|source| CheckpointError::Config { path: path.to_owned(), source })
    }

    fn from_map(map: &Map<String, Value>, task: Task) -> Result<Self, ConfigError> {
        check_options(map, task)?;
        let dropout =
            if map.contains_key("lora_dropout") { number(map, "lora_dropout", "0 to below 1")? } else { 0.0 };
        let ranks = pattern(map, "rank_pattern")?;
        for &found in ranks.values() {
            rank("rank_pattern", found)?;
        }
        Ok(Self {
            rank: rank("r", number(map, "r", RANK)?)?,
            alpha: number(map, "lora_alpha", "a number")?,
            rank_stabilized: map.get("use_rslora").and_then(Value::as_bool).unwrap_or(false),
            dropout: dropout.clamp(0.0, 0.999),
            ranks,
            alphas: pattern(map, "alpha_pattern")?,
        })
    }

    /// The adapter's size on a module of the given name.
    pub(crate) fn size(&self, module: &str) -> Size {
        let own = |pattern: &BTreeMap<String, f64>| {
            let named = |key: &str| {
                module.strip_suffix(key).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            };
            pattern.iter().find_map(|(key, &value)| named(key).then_some(value))
        };
        let rank = own(&self.ranks).map_or(self.rank, |rank| rank as usize);
        let alpha = own(&self.alphas).unwrap_or(self.alpha);
        let divisor = if self.rank_stabilized { (rank as f64).sqrt() } else { rank as f64 };
        Size { rank, scale: alpha / divisor }
    }
}

/// The file's content for adapters of the given sizes, by module. At least one.
pub(crate) fn written(
    sizes: &BTreeMap<String, Size>,
    modules: &Modules,
    dropout: f64,
    fan_in_fan_out: bool,
    task: Task,
) -> Value {
    let named = shortest_names(sizes, modules);
    let first = *named.values().next().expect("at least one module is adapted");
    // The scale is what matters; α/r gives it back exactly enough for f32.
    let alpha = |size: Size| size.scale * size.rank as f64;
    let others = || named.iter().filter(|(_, size)| **size != first);
    let ranks: Map<_, _> = others().map(|(name, size)| (name.clone(), json!(size.rank))).collect();
    let alphas: Map<_, _> = others().map(|(name, size)| (name.clone(), json!(alpha(*size)))).collect();
    let whole = task.whole_modules();
    json!({
        "peft_type": "LORA",
        "task_type": task.name(),
        "base_model_name_or_path": null,
        "r": first.rank,
        "lora_alpha": alpha(first),
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "lora_dropout": dropout,
        "target_modules": named.keys().collect::<Vec<_>>(),
        "use_rslora": false,
        "use_dora": false,
        "bias": "none",
        "fan_in_fan_out": fan_in_fan_out,
        "init_lora_weights": true,
        "inference_mode": true,
        "modules_to_save": if whole.is_empty() { Value::Null } else { json!(whole) },
    })
}

/// Names for PEFT, which takes the end of a name for every module that ends so: `q_proj` if all of that name are adapted
/// alike, the whole path of each otherwise.
fn shortest_names(sizes: &BTreeMap<String, Size>, modules: &Modules) -> BTreeMap<String, Size> {
    let mut alike: BTreeMap<&str, bool> = BTreeMap::new();
    let same_as = |name: &str| modules.keys().find(|other| short_name(other) == short_name(name));
    for name in modules.keys() {
        let first = same_as(name).expect("the module itself, if no other");
        *alike.entry(short_name(name)).or_insert(true) &= sizes.get(name) == sizes.get(first);
    }
    let key =
        |name: &str| if alike[short_name(name)] { short_name(name).to_owned() } else { name.to_owned() };
    sizes.iter().map(|(name, size)| (key(name), *size)).collect()
}

const RANK: &str = "a rank from 1 to 65536";

fn rank(key: &str, found: f64) -> Result<usize, ConfigError> {
    if (1.0..=65536.0).contains(&found) && found.fract() == 0.0 {
        return Ok(found as usize);
    }
    Err(ConfigError::Invalid { key: key.into(), found: found.to_string(), expected: RANK.into() })
}

fn number(map: &Map<String, Value>, key: &str, expected: &'static str) -> Result<f64, ConfigError> {
    let value = map.get(key).ok_or(ConfigError::Missing { key: key.into(), expected: "a number" })?;
    value.as_f64().filter(|number| number.is_finite()).ok_or_else(|| ConfigError::Invalid {
        key: key.into(),
        found: value.to_string(),
        expected: expected.into(),
    })
}

/// A table from modules to numbers. PEFT reads its keys as regular expressions; here they are names.
fn pattern(map: &Map<String, Value>, key: &str) -> Result<BTreeMap<String, f64>, ConfigError> {
    let Some(Value::Object(table)) = map.get(key).filter(|value| !value.is_null()) else {
        return Ok(BTreeMap::new());
    };
    let is_name = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
    if let Some(name) = table.keys().find(|name| !is_name(name)) {
        let found = format!("{name:?}");
        return Err(ConfigError::Unsupported { key: key.into(), found, expected: "names of modules" });
    }
    table.keys().map(|name| Ok((name.clone(), number(table, name, "a number")?))).collect()
}

/// Refuses what would make the adapters mean something else.
fn check_options(map: &Map<String, Value>, task: Task) -> Result<(), ConfigError> {
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
    for key in ["modules_to_save", "layer_replication", "trainable_token_indices"] {
        let is_harmless = |value: &Value| match value {
            Value::Null => true,
            Value::Object(map) => map.is_empty(),
            Value::Array(list) => list.iter().all(|name| {
                key == "modules_to_save"
                    && name.as_str().is_some_and(|name| task.whole_modules().contains(&name))
            }),
            _ => false,
        };
        if let Some(value) = map.get(key).filter(|value| !is_harmless(value)) {
            let expected = match (key, task) {
                ("modules_to_save", Task::SequenceClassification) => "the score head",
                _ => "nothing",
            };
            return refuse(key, value, expected);
        }
    }
    Ok(())
}
