//! Tokenizers in Hugging Face's form.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{Encoding, SpecialIds, SpecialTokens, Tokenizer, TokenizerError};

/// The names under which configurations know special tokens.
const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A tokenizer read from `tokenizer.json` and the configurations beside it.
#[derive(Clone)]
pub struct HfTokenizer {
    inner: tokenizers::Tokenizer,
    special: SpecialIds,
    special_set: BTreeSet<u32>,
    variables: Map<String, Value>,
    vocab_size: usize,
    fingerprint: String,
}

impl std::fmt::Debug for HfTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HfTokenizer")
            .field("vocab_size", &self.vocab_size)
            .field("special", &self.special)
            .finish_non_exhaustive()
    }
}

impl HfTokenizer {
    /// Reads `tokenizer.json`, and where they are `tokenizer_config.json`, `special_tokens_map.json`,
    /// `generation_config.json` and `config.json` (special tokens and stop ids).
    ///
    /// # Errors
    /// When a file is missing or broken, or a special token is not in the vocabulary.
    pub fn from_folder(folder: &Path) -> Result<Self, TokenizerError> {
        let path = folder.join("tokenizer.json");
        let json = match std::fs::read_to_string(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(TokenizerError::Missing { folder: folder.to_path_buf(), found: listing(folder) });
            }
            Err(error) => return Err(TokenizerError::Read { path, message: error.to_string() }),
        };
        let inner = json
            .parse::<tokenizers::Tokenizer>()
            .map_err(|error| TokenizerError::Read { path, message: error.to_string() })?;
        // Later files say more about the same thing.
        let mut config = object(&folder.join("special_tokens_map.json"))?;
        config.extend(
            object(&folder.join("tokenizer_config.json"))?.into_iter().filter(|(_, value)| !value.is_null()),
        );
        let mut stops = stop_ids(&object(&folder.join("generation_config.json"))?);
        if stops.is_empty() {
            stops = stop_ids(&object(&folder.join("config.json"))?);
        }
        Self::assemble(inner, &config, &stops)
    }

    /// A tokenizer from the text of its two files.
    ///
    /// # Errors
    /// When one of them is broken, or a special token is not in the vocabulary.
    pub fn from_json(tokenizer: &str, config: &str) -> Result<Self, TokenizerError> {
        let read = |name: &str, message: String| TokenizerError::Read { path: name.into(), message };
        let inner = tokenizer
            .parse::<tokenizers::Tokenizer>()
            .map_err(|error| read("tokenizer.json", error.to_string()))?;
        let config: Map<String, Value> =
            serde_json::from_str(config).map_err(|error| read("tokenizer_config.json", error.to_string()))?;
        Self::assemble(inner, &config, &[])
    }

    fn assemble(
        mut inner: tokenizers::Tokenizer,
        config: &Map<String, Value>,
        stops: &[u32],
    ) -> Result<Self, TokenizerError> {
        // Files remember how they were last used; cutting and filling rows is not the tokenizer's business.
        inner.with_padding(None);
        // Taking truncation away cannot fail.
        let _ = inner.with_truncation(None);
        let vocabulary = vocabulary(&inner);
        let vocab_size = vocabulary.keys().next_back().map_or(0, |last| *last as usize + 1);
        let mut special = SpecialIds::default();
        let mut variables = Map::new();
        for name in NAMES {
            let Some(token) = token_text(config.get(name)) else { continue };
            let Some(id) = inner.token_to_id(&token) else {
                return Err(TokenizerError::UnknownSpecial {
                    name: name.to_string(),
                    token,
                    size: vocabulary.len(),
                });
            };
            match name {
                "bos_token" => special.bos = Some(id),
                "eos_token" => special.eos = Some(id),
                "pad_token" => special.pad = Some(id),
                _ => {}
            }
            variables.insert(name.to_string(), Value::String(token));
        }
        for id in special.eos.iter().chain(stops) {
            if !special.stop.contains(id) {
                special.stop.push(*id);
            }
        }
        special.prefix = prefix(&inner, config.get("add_bos_token").and_then(Value::as_bool), special.bos)?;
        let special_set = inner
            .get_added_tokens_decoder()
            .iter()
            .filter(|(_, token)| token.special)
            .map(|(id, _)| *id)
            .chain([special.bos, special.eos, special.pad].into_iter().flatten())
            .collect();
        Ok(Self { fingerprint: fingerprint(&vocabulary), inner, special, special_set, variables, vocab_size })
    }

    /// The special tokens by their names, as templates see them.
    pub fn template_variables(&self) -> Map<String, Value> {
        self.variables.clone()
    }

    /// The ids of a text with the special tokens of the tokenizer's own post-processor, at both ends.
    ///
    /// # Errors
    /// When the tokenizer has no id for a part of the text.
    pub fn encode_with_special_tokens(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        encode(&self.inner, text, true).map(|encoding| encoding.ids)
    }
}

impl Tokenizer for HfTokenizer {
    fn encode(&self, text: &str) -> Result<Encoding, TokenizerError> {
        encode(&self.inner, text, false)
    }

    fn decode(&self, ids: &[u32], special: SpecialTokens) -> Result<String, TokenizerError> {
        self.inner
            .decode(ids, special == SpecialTokens::Skip)
            .map_err(|error| TokenizerError::Decode { count: ids.len(), message: error.to_string() })
    }

    fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    fn is_special(&self, id: u32) -> bool {
        self.special_set.contains(&id)
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn special(&self) -> &SpecialIds {
        &self.special
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

fn encode(inner: &tokenizers::Tokenizer, text: &str, special: bool) -> Result<Encoding, TokenizerError> {
    let encoding = inner.encode(text, special).map_err(|error| TokenizerError::Encode {
        text: text.chars().take(60).collect(),
        message: error.to_string(),
    })?;
    Ok(Encoding { ids: encoding.get_ids().to_vec(), offsets: encoding.get_offsets().to_vec() })
}

fn vocabulary(inner: &tokenizers::Tokenizer) -> BTreeMap<u32, String> {
    inner.get_vocab(true).into_iter().map(|(token, id)| (id, token)).collect()
}

/// SHA-256 over id, length and bytes of every token, in the order of ids.
fn fingerprint(vocabulary: &BTreeMap<u32, String>) -> String {
    let mut hash = Sha256::new();
    for (id, token) in vocabulary {
        hash.update(id.to_le_bytes());
        hash.update((token.len() as u64).to_le_bytes());
        hash.update(token.as_bytes());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the tokenizer puts before a text: `add_bos_token` where the configuration says it, else what the
/// post-processor does.
fn prefix(
    inner: &tokenizers::Tokenizer,
    add_bos: Option<bool>,
    bos: Option<u32>,
) -> Result<Vec<u32>, TokenizerError> {
    match (add_bos, bos) {
        (Some(false), _) => Ok(Vec::new()),
        (Some(true), Some(bos)) => Ok(vec![bos]),
        _ => {
            // The empty text shows what is added, but not on which side; a probe that exists in the vocabulary does.
            let added = encode(inner, "", true)?.ids;
            if added.is_empty() {
                return Ok(added);
            }
            let probe = probe(inner);
            let (plain, whole) = (encode(inner, &probe, false)?.ids, encode(inner, &probe, true)?.ids);
            let before =
                (0..=whole.len().saturating_sub(plain.len())).find(|&at| whole[at..].starts_with(&plain));
            Ok(whole[..before.unwrap_or(0)].to_vec())
        }
    }
}

/// A short text the tokenizer certainly encodes: one of its ordinary tokens.
fn probe(inner: &tokenizers::Tokenizer) -> String {
    ["a", "e", "the"]
        .into_iter()
        .map(str::to_string)
        .chain(vocabulary(inner).into_values().filter(|token| token.chars().all(char::is_alphabetic)))
        .find(|token| encode(inner, token, false).is_ok_and(|encoding| !encoding.ids.is_empty()))
        .unwrap_or_default()
}

/// A special token is text, or an object with `content`.
fn token_text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(token) => Some(token.clone()),
        Value::Object(token) => token.get("content").and_then(Value::as_str).map(str::to_string),
        _ => None,
    }
}

/// `eos_token_id`: a number or a list.
fn stop_ids(config: &Map<String, Value>) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match config.get("eos_token_id") {
        Some(Value::Array(list)) => list.iter().filter_map(id).collect(),
        Some(value) => id(value).into_iter().collect(),
        None => Vec::new(),
    }
}

fn object(path: &Path) -> Result<Map<String, Value>, TokenizerError> {
    let read = |message: String| TokenizerError::Read { path: path.to_path_buf(), message };
    match std::fs::read_to_string(path) {
        Ok(text) => {
            serde_json::from_str(&text).map_err(|error| read(format!("expected a JSON object: {error}")))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Map::new()),
        Err(error) => Err(read(error.to_string())),
    }
}

fn listing(folder: &Path) -> String {
    match std::fs::read_dir(folder) {
        Err(error) => error.to_string(),
        Ok(entries) => {
            let mut names: Vec<_> =
                entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            match names.is_empty() {
                true => "an empty folder".to_string(),
                false => names.join(", "),
            }
        }
    }
}
