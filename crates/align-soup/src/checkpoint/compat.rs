//! Do these checkpoints describe one model? Configuration, tokenizer, tensors, ancestor.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::open::{Folder, read_json, read_optional};
use super::{SoupOptions, SoupWarning};
use crate::error::SoupError;

/// Keys of `config.json` that do not change what the weights mean.
const IGNORED_KEYS: [&str; 17] = [
    "_name_or_path",
    "_commit_hash",
    "_attn_implementation",
    "attn_implementation",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "use_cache",
    "initializer_range",
    "pretraining_tp",
    "return_dict",
    "output_attentions",
    "output_hidden_states",
    "gradient_checkpointing",
    "problem_type",
    "keys_to_ignore_at_inference",
    "router_aux_loss_coef",
];
/// Files that decide which token a row belongs to.
const TOKENIZER_FILES: [&str; 5] =
    ["tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json"];
/// Files that decide how a conversation is written.
const TEMPLATE_FILES: [&str; 2] = ["chat_template.jinja", "chat_template.json"];

/// Fails unless the folders have the same tensors, with the same shapes, floats where the first has floats.
pub(crate) fn expect_same_tensors(first: &Folder, other: &Folder) -> Result<(), SoupError> {
    for expected in &first.tensors {
        let Some(found) = other.tensor(&expected.name) else {
            return Err(SoupError::IngredientMismatch {
                path: expected.name.clone(),
                present_in: first.who.clone(),
                missing_in: other.who.clone(),
            });
        };
        if expected.shape != found.shape {
            return Err(SoupError::ShapeMismatch {
                path: expected.name.clone(),
                expected: expected.shape.clone(),
                found: found.shape.clone(),
                ingredient: other.who.clone(),
            });
        }
        let both_float = expected.float().is_some() && found.float().is_some();
        if !both_float && expected.dtype != found.dtype {
            return Err(SoupError::KindMismatch {
                path: expected.name.clone(),
                expected: expected.dtype.to_string(),
                found: found.dtype.to_string(),
                ingredient: other.who.clone(),
            });
        }
    }
    match other.tensors.iter().find(|tensor| first.tensor(&tensor.name).is_none()) {
        Some(tensor) => Err(SoupError::IngredientMismatch {
            path: tensor.name.clone(),
            present_in: other.who.clone(),
            missing_in: first.who.clone(),
        }),
        None => Ok(()),
    }
}

/// Fails if the configurations describe different models.
pub(crate) fn expect_same_config(first: &Folder, other: &Folder) -> Result<(), SoupError> {
    let (expected, found) = (comparable(&first.config), comparable(&other.config));
    let keys = expected.keys().chain(found.keys().filter(|key| !expected.contains_key(*key)));
    for key in keys {
        let (a, b) = (expected.get(key).unwrap_or(&Value::Null), found.get(key).unwrap_or(&Value::Null));
        if !same(a, b) {
            return Err(SoupError::ConfigMismatch {
                key: key.clone(),
                expected: Box::new(a.clone()),
                found: Box::new(b.clone()),
                ingredient: other.who.clone(),
            });
        }
    }
    Ok(())
}

/// The keys that matter, with both generations of rotary settings (`rope_theta` and `rope_scaling`, or
/// `rope_parameters`) spelt `rope.…`.
pub(crate) fn comparable(config: &Map<String, Value>) -> BTreeMap<String, Value> {
    let mut keys = BTreeMap::new();
    for (key, value) in config {
        let training_only =
            key.ends_with("dropout") || key.ends_with("pdrop") || IGNORED_KEYS.contains(&key.as_str());
        match (key.as_str(), value) {
            _ if training_only || value.is_null() => {}
            ("rope_theta", value) => {
                keys.insert("rope.rope_theta".to_owned(), value.clone());
            }
            ("rope_scaling" | "rope_parameters", Value::Object(rope)) => {
                for (key, value) in rope.iter().filter(|(_, value)| !value.is_null()) {
                    // transformers called it `type` before `rope_type`, and "default" is what nothing means.
                    let key = if key == "type" { "rope_type" } else { key };
                    if !(key == "rope_type" && value == "default") {
                        keys.insert(format!("rope.{key}"), value.clone());
                    }
                }
            }
            _ => {
                keys.insert(key.clone(), value.clone());
            }
        }
    }
    keys
}

/// Equality that does not tell 10000 from 10000.0.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// Fails if both folders have a tokenizer and these differ; warns if only one has, or the chat templates differ.
pub(crate) fn expect_same_tokenizer(
    first: &Folder,
    other: &Folder,
    warnings: &mut Vec<SoupWarning>,
) -> Result<(), SoupError> {
    for file in TOKENIZER_FILES {
        let (a, b) = (read_optional(&first.path.join(file))?, read_optional(&other.path.join(file))?);
        match (a, b) {
            (Some(a), Some(b)) if !same_tokenizer(&a, &b) => {
                return Err(SoupError::TokenizerMismatch {
                    file: file.to_owned(),
                    ingredient: other.who.clone(),
                });
            }
            (Some(_), None) | (None, Some(_)) => {
                warnings.push(SoupWarning::TokenizerUnknown {
                    file: file.to_owned(),
                    ingredient: other.who.clone(),
                });
            }
            _ => {}
        }
    }
    for file in TEMPLATE_FILES {
        if read_optional(&first.path.join(file))? != read_optional(&other.path.join(file))? {
            warnings.push(SoupWarning::ChatTemplateDiffers { ingredient: other.who.clone() });
        }
    }
    Ok(())
}

/// Equal files, or equal JSON apart from the truncation and padding that a training run leaves behind.
fn same_tokenizer(a: &[u8], b: &[u8]) -> bool {
    let without_state = |bytes: &[u8]| {
        let mut value: Map<String, Value> = serde_json::from_slice(bytes).ok()?;
        value.remove("truncation");
        value.remove("padding");
        Some(value)
    };
    a == b || matches!((without_state(a), without_state(b)), (Some(a), Some(b)) if a == b)
}

/// The ancestor a folder names: `ancestor` in `align.json` or `ORIGIN.json`, or in the weights' metadata.
pub(crate) fn ancestor(folder: &Folder) -> Result<Option<String>, SoupError> {
    Ok(named_ancestor(&folder.path)?.or_else(|| folder.metadata.get("ancestor").cloned()))
}

/// The ancestor named by the files of a folder, of weights or of an adapter.
pub(crate) fn named_ancestor(path: &Path) -> Result<Option<String>, SoupError> {
    #[derive(Deserialize)]
    struct Origin {
        ancestor: Option<String>,
    }
    for file in ["align.json", "ORIGIN.json"] {
        if let Some(Origin { ancestor: Some(ancestor) }) = read_json(&path.join(file))? {
            return Ok(Some(ancestor));
        }
    }
    Ok(None)
}

/// The common ancestor, if every folder names the same; warns where none is named.
pub(crate) fn common_ancestor(
    folders: &[Folder],
    ancestors: &[Option<String>],
    options: &SoupOptions,
    warnings: &mut Vec<SoupWarning>,
) -> Result<Option<String>, SoupError> {
    let expected = ancestors.iter().flatten().next();
    for (folder, found) in folders.iter().zip(ancestors) {
        match (expected, found) {
            (Some(expected), Some(found)) if expected != found => {
                if !options.allow_different_ancestors {
                    return Err(SoupError::DifferentAncestors {
                        expected: expected.clone(),
                        found: found.clone(),
                        ingredient: folder.who.clone(),
                    });
                }
                warnings.push(SoupWarning::DifferentAncestor { ingredient: folder.who.clone() });
            }
            (_, None) => warnings.push(SoupWarning::UnknownAncestor { ingredient: folder.who.clone() }),
            _ => {}
        }
    }
    let common = ancestors.iter().all(|ancestor| ancestor.as_ref() == expected);
    Ok(if common { expected.cloned() } else { None })
}
