//! What stands beside the weights: configuration, tokenizer, chat template.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::config::{ChatTemplate, MergeConfig};
use super::folders_error::FolderMergeError;
use super::layers::{Stack, is_head};
use super::plan::MergePlan;
use crate::checkpoint::open::{Folder, read_json, read_optional};
use crate::checkpoint::place::Partial;
use crate::checkpoint::{COPIED, pretty, state_dtype};
use crate::error::SoupError;

/// What families call their number of layers.
const LAYER_KEYS: [&str; 4] = ["num_hidden_layers", "n_layer", "num_layers", "n_layers"];
/// Lists with an entry for each layer.
const BY_LAYER: [&str; 3] = ["layer_types", "mlp_layer_types", "no_rope_layers"];
/// Other forms of a vocabulary, which no longer agree with a changed `tokenizer.json`.
const OLD_FORMS: [&str; 4] = ["tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json"];
const TEMPLATE: &str = "chat_template.jinja";

/// Writes everything but the weights.
pub(crate) fn write_companions(
    partial: &Partial,
    plan: &MergePlan,
    config: &MergeConfig,
) -> Result<(), FolderMergeError> {
    partial.write("config.json", &pretty(&Value::Object(config_json(plan, config)?)))?;
    let first = &plan.folders[0].path;
    let donor = plan.vocabulary.as_ref().map_or(first.as_path(), |vocabulary| &vocabulary.donor);
    let tokenizer = plan.vocabulary.as_ref().and_then(|vocabulary| vocabulary.json.as_ref());
    for name in COPIED {
        let source = if name == "generation_config.json" { first } else { donor };
        if tokenizer.is_some() && OLD_FORMS.contains(&name) {
            continue;
        }
        if let Some(bytes) = read_optional(&source.join(name))? {
            partial.write(name, &bytes)?;
        }
    }
    if let Some(tokenizer) = tokenizer {
        partial.write("tokenizer.json", &pretty(tokenizer))?;
    }
    if let Some(template) = &config.chat_template {
        write_template(partial, plan, donor, template)?;
    }
    partial.write("mergekit_config.yml", config.text.as_bytes())?;
    Ok(())
}

/// The first model's configuration with the layers, the vocabulary and the type of the result.
fn config_json(plan: &MergePlan, config: &MergeConfig) -> Result<Map<String, Value>, FolderMergeError> {
    let first = &plan.folders[0];
    let mut json = first.config.clone();
    if let Some(dtype) = config.dtype {
        state_dtype(&mut json, dtype);
    }
    let layers = plan.layers.len();
    match inner(&mut json, &LAYER_KEYS) {
        Some((map, key)) => {
            map.insert(key.to_owned(), json!(layers));
            for key in BY_LAYER {
                if map.get(key).is_some_and(Value::is_array) {
                    let of_layer =
                        |&(model, layer): &(usize, usize)| by_layer(&plan.folders[model], key, layer);
                    if let Some(list) = plan.layers.iter().map(of_layer).collect::<Option<Vec<_>>>() {
                        map.insert(key.to_owned(), Value::Array(list));
                    }
                }
            }
        }
        None if Stack::of(first, "")?.layers != layers => {
            return Err(FolderMergeError::NoLayerKey { config: first.path.join("config.json"), layers });
        }
        None => {}
    }
    if let Some(vocabulary) = &plan.vocabulary {
        let rows = json!(vocabulary.rows());
        match inner(&mut json, &["vocab_size"]) {
            Some((map, key)) => map.insert(key.to_owned(), rows),
            None => json.insert("vocab_size".to_owned(), rows),
        };
    }
    let has_head = |folder: &Folder| folder.tensors.iter().any(|tensor| is_head(&tensor.name));
    let ties = |folder: &Folder| folder.config.get("tie_word_embeddings").and_then(Value::as_bool);
    let unties = |folder: &Folder| has_head(folder) && ties(folder) != Some(true);
    // The head of a model that has its own must not be tied again when the result is loaded.
    let head_written = plan.layout.tensors.iter().any(|planned| is_head(&planned.tensor.name));
    if head_written && !unties(first) && plan.folders.iter().any(unties) {
        json.insert("tie_word_embeddings".to_owned(), json!(false));
    }
    Ok(json)
}

/// The map that has one of `keys`: the whole, or the part about the text model.
fn inner<'a>(
    config: &'a mut Map<String, Value>,
    keys: &[&'static str],
) -> Option<(&'a mut Map<String, Value>, &'static str)> {
    let found = |map: &Map<String, Value>| keys.iter().copied().find(|key| map.contains_key(*key));
    if let Some(key) = found(config) {
        return Some((config, key));
    }
    let Some(Value::Object(text)) = config.get_mut("text_config") else { return None };
    found(text).map(|key| (text, key))
}

/// A layer's entry of a list in a model's configuration.
fn by_layer(folder: &Folder, key: &str, layer: usize) -> Option<Value> {
    let list = folder.config.get(key).or_else(|| folder.config.get("text_config")?.get(key));
    list?.as_array()?.get(layer).cloned()
}

fn write_template(
    partial: &Partial,
    plan: &MergePlan,
    donor: &Path,
    template: &ChatTemplate,
) -> Result<(), SoupError> {
    let text = match template {
        ChatTemplate::Text(text) => text.clone(),
        ChatTemplate::Auto => {
            let templates = plan.folders.iter().map(|folder| template_of(&folder.path));
            let templates: Vec<String> =
                templates.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
            match most_frequent(&templates) {
                Some(text) => text.to_owned(),
                None => return Ok(()),
            }
        }
    };
    partial.write(TEMPLATE, text.as_bytes())?;
    // One template, in one place.
    if let Some(mut tokenizer) = read_json::<Map<String, Value>>(&donor.join("tokenizer_config.json"))?
        && tokenizer.remove("chat_template").is_some()
    {
        partial.write("tokenizer_config.json", &pretty(&Value::Object(tokenizer)))?;
    }
    Ok(())
}

/// A folder's chat template; of several, the default one.
fn template_of(folder: &Path) -> Result<Option<String>, SoupError> {
    if let Some(bytes) = read_optional(&folder.join(TEMPLATE))? {
        return Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned()));
    }
    let config = read_json::<Map<String, Value>>(&folder.join("tokenizer_config.json"))?;
    let text = config.as_ref().and_then(|config| match config.get("chat_template")? {
        Value::String(text) => Some(text.as_str()),
        Value::Array(named) => named.iter().find(|entry| entry["name"] == "default")?["template"].as_str(),
        _ => None,
    });
    Ok(text.map(|text| text.trim().to_owned()))
}

/// The text that stands there most often; of several, the first.
fn most_frequent(texts: &[String]) -> Option<&str> {
    let count = |text: &String| texts.iter().filter(|other| *other == text).count();
    texts.iter().rev().max_by_key(|text| count(text)).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equally_frequent_templates_is_taken() {
        let texts = ["b", "a", "a", "b", "c"].map(str::to_owned);
        assert_eq!(most_frequent(&texts), Some("b"));
        assert_eq!(most_frequent(&[]), None);
    }
}
