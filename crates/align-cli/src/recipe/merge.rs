//! Merges by mergekit's configurations.

use align_soup::merge::{ConfigError, MergeConfig};
use serde::{Deserialize, Serialize};
use toml::Table;

/// A merge.
///
/// ```toml
/// [[stage]]
/// name = "both"
/// kind = "merge"
/// [stage.config]
/// merge_method = "ties"
/// base_model = "@base"
/// models = [
///     { model = "@math", parameters = { weight = 0.5, density = 0.6 } },
///     { model = { model = "@base", lora = "@code/adapter" }, parameters = { weight = 0.5, density = [1.0, 0.5] } },
/// ]
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MergeStage {
    /// What is merged and how.
    pub(crate) config: MergeSource,
    /// Decides what methods draw that drop at random.
    #[serde(default)]
    pub(crate) seed: u64,
    /// Merge although tokenizers differ, or a filter is in no tensor's name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) force: bool,
}

/// A configuration, or where one lies.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum MergeSource {
    /// A YAML file.
    File(String),
    /// The keys of such a file.
    Table(Table),
}

impl MergeSource {
    /// Reads the configuration; a stage's name stands for a table's.
    pub(crate) fn read(&self, stage: &str) -> Result<MergeConfig, ConfigError> {
        match self {
            Self::File(path) => MergeConfig::read(path),
            Self::Table(table) => {
                let value = serde_json::to_value(table).expect("a table has text for keys");
                MergeConfig::from_value(&format!("stage `{stage}`, config"), &value)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_a_configuration_and_its_errors_name_the_stage() {
        let text = "seed = 3\n[config]\nmerge_method = \"linear\"\nmodels = [{ model = \"@a\", parameters = { weight = 1 } }]\n";
        let stage: MergeStage = toml::from_str(text).unwrap();
        assert_eq!(stage.config.read("m").unwrap().models()[0].to_string(), "@a");
        let stage: MergeStage = toml::from_str(&text.replace("weight", "wieght")).unwrap();
        let error = stage.config.read("m").unwrap_err().to_string();
        assert_eq!(
            error,
            "stage `m`, config: `models[0].parameters.wieght`: `linear` takes no such parameter here; did you mean \
             `weight`?"
        );
    }
}
