//! The vocabulary of a merge: one tokenizer, and for each of its tokens the rows it has in the models.
//!
//! Rows of embeddings and heads are matched by the text of their token, never by number. A model that lacks a token takes
//! the row of the base; without one there, the mean of the models that have it; the row of the only model that has it; or
//! zero. `tokenizer.tokens` says otherwise token by token.
//!
//! # Source
//! mergekit's `tokenizer/build.py` and `tokenizer/embed.py`, version 0.1.5, <https://github.com/arcee-ai/mergekit>. Tokens are
//! counted in the order of the models and of their ids; mergekit's order is that of a set.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::config::{TokenConfig, TokenSource, TokenizerConfig, TokenizerSource};
use super::reference::ModelReference;
use super::rows::{RowFrom, RowMap};
use crate::checkpoint::open::read_json;
use crate::error::SoupError;

/// Why the vocabulary of a merge cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A tokenizer file cannot be read.
    #[error(transparent)]
    Read(#[from] SoupError),
    /// There is no `tokenizer.json`.
    #[error("{} has no tokenizer.json, and rows can only be matched by the tokens in one", folder.display())]
    Missing {
        /// The folder.
        folder: PathBuf,
    },
    /// The file is not a vocabulary that can be read.
    #[error("{} has a vocabulary of an unknown form: expected tokens with their ids", path.display())]
    Form {
        /// The file.
        path: PathBuf,
    },
    /// Two tokens have one id, or none has an id below the largest.
    #[error("the vocabulary of `{model}` must use every id once, and {count} tokens have the id {id}")]
    Ids {
        /// The model.
        model: String,
        /// The id.
        id: usize,
        /// How many tokens have it.
        count: usize,
    },
    /// A token of the vocabulary's core has no row.
    #[error("the token {token:?} of `{model}` has the id {id}, and its embeddings have {rows} rows")]
    BeyondRows {
        /// The model.
        model: String,
        /// The token.
        token: String,
        /// Its id.
        id: usize,
        /// Rows of the embeddings.
        rows: usize,
    },
    /// A token is to come from a model that is not merged where the row is needed.
    #[error("the token {token:?} is to come from `{model}`, which is no source of `{tensor}`")]
    NotASource {
        /// The token.
        token: String,
        /// The model.
        model: String,
        /// The tensor.
        tensor: String,
    },
    /// A token is to come from a row that is not there.
    #[error("the token {token:?} is to come from {row} of `{model}`, which has no such token")]
    NoSuchRow {
        /// The token.
        token: String,
        /// The row, as the configuration names it.
        row: String,
        /// The model.
        model: String,
    },
}

/// The vocabulary of one `tokenizer.json`.
#[derive(Clone)]
pub(crate) struct Vocabulary {
    /// As the configuration names the model.
    model: String,
    json: Map<String, Value>,
    ids: HashMap<String, usize>,
    /// Tokens that are not part of the tokenizer's core, with their settings.
    added: HashMap<String, Value>,
}

impl Vocabulary {
    /// Reads a folder's vocabulary; `None` if it has no `tokenizer.json`.
    pub(crate) fn read(folder: &Path, model: &str) -> Result<Option<Self>, TokenizerError> {
        let path = folder.join("tokenizer.json");
        let Some(json) = read_json::<Map<String, Value>>(&path)? else { return Ok(None) };
        let mut vocabulary =
            Self { model: model.to_owned(), json, ids: HashMap::new(), added: HashMap::new() };
        vocabulary.index().ok_or(TokenizerError::Form { path })?;
        Ok(Some(vocabulary))
    }

    /// Fills the maps; `None` if the file has another form.
    fn index(&mut self) -> Option<()> {
        match self.json.get("model")?.get("vocab")? {
            Value::Object(vocab) => {
                for (token, id) in vocab {
                    self.ids.insert(token.clone(), id.as_u64()? as usize);
                }
            }
            // Unigram: tokens with their scores, in the order of their ids.
            Value::Array(vocab) => {
                for (id, pair) in vocab.iter().enumerate() {
                    self.ids.insert(pair.get(0)?.as_str()?.to_owned(), id);
                }
            }
            _ => return None,
        }
        let added = self.json.entry("added_tokens").or_insert(Value::Null);
        if added.is_null() {
            *added = json!([]);
        }
        for entry in added.as_array()? {
            let token = entry.get("content")?.as_str()?.to_owned();
            self.ids.insert(token.clone(), entry.get("id")?.as_u64()? as usize);
            self.added.insert(token, entry.clone());
        }
        Some(())
    }

    /// The id of a token that has a row.
    fn id(&self, token: &str, rows: usize) -> Option<usize> {
        self.ids.get(token).copied().filter(|id| *id < rows)
    }

    /// Tokens by their ids.
    fn sorted(&self) -> Vec<(usize, &str)> {
        let mut tokens: Vec<(usize, &str)> =
            self.ids.iter().map(|(token, &id)| (id, token.as_str())).collect();
        tokens.sort_unstable();
        tokens
    }

    /// Removes tokens without rows, and says whether there were any. Only added ones can go: the core's merges are built on
    /// one another.
    fn strip(&mut self, rows: usize) -> Result<bool, TokenizerError> {
        let before = self.ids.len();
        let beyond: Vec<(usize, String)> = self
            .sorted()
            .into_iter()
            .filter(|(id, _)| *id >= rows)
            .map(|(id, token)| (id, token.to_owned()))
            .collect();
        let core = self.json["model"]["vocab"].as_object();
        for (id, token) in beyond {
            if !self.added.contains_key(&token) || core.is_some_and(|core| core.contains_key(&token)) {
                return Err(TokenizerError::BeyondRows { model: self.model.clone(), token, id, rows });
            }
            self.ids.remove(&token);
            self.added.remove(&token);
        }
        if let Some(Value::Array(entries)) = self.json.get_mut("added_tokens") {
            entries.retain(|entry| entry["id"].as_u64().is_some_and(|id| (id as usize) < rows));
        }
        Ok(self.ids.len() < before)
    }

    /// The tokens in the order of their ids, every id from 0 once.
    fn tokens(&self) -> Result<Vec<String>, TokenizerError> {
        let sorted = self.sorted();
        for (expected, (id, _)) in sorted.iter().enumerate() {
            if *id != expected {
                let id = expected.min(*id);
                let count = sorted.iter().filter(|(other, _)| *other == id).count();
                return Err(TokenizerError::Ids { model: self.model.clone(), id, count });
            }
        }
        Ok(sorted.into_iter().map(|(_, token)| token.to_owned()).collect())
    }

    /// The first id whose token differs, with both tokens.
    pub(crate) fn first_difference<'a>(
        &'a self,
        other: &'a Self,
    ) -> Option<(usize, Option<&'a str>, Option<&'a str>)> {
        let (ours, theirs) = (self.sorted(), other.sorted());
        let differing = ours.iter().zip(&theirs).find(|(a, b)| a != b).map(|(a, b)| a.0.min(b.0));
        let shorter = ours.len().min(theirs.len());
        let id = differing.or_else(|| ours.get(shorter).or(theirs.get(shorter)).map(|(id, _)| *id))?;
        let at = |tokens: &[(usize, &'a str)]| tokens.iter().find(|(found, _)| *found == id).map(|(_, t)| *t);
        Some((id, at(&ours), at(&theirs)))
    }
}

/// A model with what decides about its tokens.
pub(crate) struct TokenModel<'a> {
    pub(crate) reference: &'a ModelReference,
    /// Where its tokenizer lies.
    pub(crate) folder: &'a Path,
    /// Rows of its embeddings.
    pub(crate) rows: usize,
}

/// The vocabulary of the result.
pub(crate) struct VocabularyPlan {
    /// Its tokens by id.
    tokens: Vec<String>,
    /// Rows of the result: the tokens, and what fills up to a multiple.
    rows: usize,
    /// Whose tokenizer files are copied.
    pub(crate) donor: PathBuf,
    /// The `tokenizer.json` to write, if it is not the donor's.
    pub(crate) json: Option<Value>,
    models: Vec<ModelReference>,
    /// For each model, the row of each token.
    ids: Vec<Vec<Option<usize>>>,
    /// For each model, the rows of all its tokens, for `tokens` that name another.
    vocabularies: Vec<HashMap<String, usize>>,
    model_rows: Vec<usize>,
    chosen: HashMap<usize, TokenConfig>,
    /// Models without a tokenizer, taken to have the first one's.
    pub(crate) assumed: Vec<String>,
}

impl VocabularyPlan {
    /// Decides on the vocabulary. `models` begins with the base, or the first model; `source` is the folder of the model
    /// that `tokenizer_source` names.
    pub(crate) fn new(
        config: &TokenizerConfig,
        models: &[TokenModel<'_>],
        source: Option<&Path>,
    ) -> Result<Self, TokenizerError> {
        let read = |folder: &Path, model: &ModelReference| Vocabulary::read(folder, &model.to_string());
        let missing = |folder: &Path| TokenizerError::Missing { folder: folder.to_owned() };
        let first = &models[0];
        let mut own = models
            .iter()
            .map(|model| read(model.folder, model.reference))
            .collect::<Result<Vec<Option<Vocabulary>>, _>>()?;
        let base = own[0].as_mut().ok_or_else(|| missing(first.folder))?;
        let stripped = base.strip(first.rows)?;
        let (donor, mut vocabulary, mut changed) = match (&config.source, source) {
            (TokenizerSource::Model(model), Some(folder)) => {
                (folder, read(folder, model)?.ok_or_else(|| missing(folder))?, false)
            }
            _ => (first.folder, base.clone(), stripped),
        };
        let mut tokens = vocabulary.tokens()?;
        let mut known: HashSet<String> = tokens.iter().cloned().collect();
        let before = tokens.len();
        let mut add = |token: &str, settings: Option<&Value>| {
            if known.insert(token.to_owned()) {
                vocabulary.add(token, tokens.len(), settings);
                tokens.push(token.to_owned());
            }
        };
        if config.source == TokenizerSource::Union {
            let own = || own.iter().zip(models).filter_map(|(own, model)| Some((own.as_ref()?, model.rows)));
            for (vocabulary, rows) in own() {
                let core = |(id, token): &(usize, &str)| *id < rows && !vocabulary.added.contains_key(*token);
                vocabulary.sorted().into_iter().filter(core).for_each(|(_, token)| add(token, None));
            }
            for (vocabulary, rows) in own() {
                for (_, token) in vocabulary.sorted().into_iter().filter(|(id, _)| *id < rows) {
                    if let Some(settings) = vocabulary.added.get(token) {
                        add(token, Some(settings));
                    }
                }
            }
        }
        config.tokens.iter().for_each(|(token, _)| add(token, None));
        changed |= tokens.len() > before;

        let base = own[0].as_ref().expect("the first model has a tokenizer");
        let ids = own
            .iter()
            .zip(models)
            .map(|(own, model)| {
                let own = own.as_ref().unwrap_or(base);
                tokens.iter().map(|token| own.id(token, model.rows)).collect()
            })
            .collect();
        let chosen = config
            .tokens
            .iter()
            .filter_map(|(token, config)| Some((tokens.iter().position(|t| t == token)?, config.clone())))
            .collect();
        let multiple = config.pad_to_multiple_of.unwrap_or(1);
        Ok(Self {
            rows: tokens.len().next_multiple_of(multiple),
            tokens,
            donor: donor.to_owned(),
            json: changed.then_some(Value::Object(vocabulary.json)),
            models: models.iter().map(|model| model.reference.clone()).collect(),
            ids,
            vocabularies: own.iter().map(|own| own.as_ref().unwrap_or(base).ids.clone()).collect(),
            model_rows: models.iter().map(|model| model.rows).collect(),
            chosen,
            assumed: own
                .iter()
                .zip(models)
                .filter(|(own, _)| own.is_none())
                .map(|(_, model)| model.reference.to_string())
                .collect(),
        })
    }

    /// Rows of the result's embeddings.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Tokens that no model has a row for.
    pub(crate) fn nowhere(&self) -> Vec<&str> {
        let nowhere =
            |&id: &usize| !self.chosen.contains_key(&id) && self.ids.iter().all(|ids| ids[id].is_none());
        (0..self.tokens.len()).filter(nowhere).map(|id| self.tokens[id].as_str()).collect()
    }

    /// Where the rows of a tensor come from in each of its sources, which are positions of models. `None` if every row
    /// stays where it is.
    pub(crate) fn map(
        &self,
        tensor: &str,
        sources: &[usize],
        base: Option<usize>,
        rows: &[usize],
    ) -> Result<Option<RowMap>, TokenizerError> {
        let tokens = self.tokens.len();
        let stays = self.rows == tokens
            && self.chosen.is_empty()
            && rows.iter().all(|rows| *rows == tokens)
            && sources.iter().all(|&m| self.ids[m].iter().enumerate().all(|(id, row)| *row == Some(id)));
        if stays {
            return Ok(None);
        }
        let base = base.and_then(|base| sources.iter().position(|source| *source == base));
        let mut map = RowMap::new(sources.len(), tokens, self.rows);
        for id in 0..tokens {
            let own: Vec<Option<usize>> = sources.iter().map(|&model| self.ids[model][id]).collect();
            let chosen = self.chosen.get(&id);
            let fallback = match chosen {
                Some(config) => self.chosen_row(tensor, id, &config.source, sources)?,
                None => fallback(&own, base),
            };
            let force = chosen.is_some_and(|config| config.force);
            for (position, row) in own.into_iter().enumerate() {
                match row {
                    Some(row) if !force => map.push(position, RowFrom::Row { source: position, row }),
                    _ => map.push(position, fallback.clone()),
                }
            }
        }
        Ok(Some(map))
    }

    fn chosen_row(
        &self,
        tensor: &str,
        id: usize,
        source: &TokenSource,
        sources: &[usize],
    ) -> Result<RowFrom, TokenizerError> {
        let token = || self.tokens[id].clone();
        let position = |model: &ModelReference| {
            sources.iter().position(|&source| self.models[source] == *model).ok_or_else(|| {
                TokenizerError::NotASource {
                    token: token(),
                    model: model.to_string(),
                    tensor: tensor.to_owned(),
                }
            })
        };
        let (model, row, named) = match source {
            TokenSource::Zero => return Ok(RowFrom::Zero),
            TokenSource::Model(model) => (model, self.ids[sources[position(model)?]][id], token()),
            TokenSource::Token(model, text) => {
                let index = sources[position(model)?];
                (model, self.vocabularies[index].get(text).copied(), format!("the token {text:?}"))
            }
            TokenSource::Row(model, row) => (model, Some(*row), format!("row {row}")),
        };
        let source = position(model)?;
        match row.filter(|row| *row < self.model_rows[sources[source]]) {
            Some(row) => Ok(RowFrom::Row { source, row }),
            None => Err(TokenizerError::NoSuchRow { token: token(), row: named, model: model.to_string() }),
        }
    }
}

/// The row of a token for the sources that lack it.
fn fallback(own: &[Option<usize>], base: Option<usize>) -> RowFrom {
    let present: Vec<(usize, usize)> =
        own.iter().enumerate().filter_map(|(source, row)| Some((source, (*row)?))).collect();
    match (present.as_slice(), base.and_then(|base| Some((base, own[base]?)))) {
        ([], _) => RowFrom::Zero,
        (&[(source, row)], _) | (_, Some((source, row))) => RowFrom::Row { source, row },
        _ => RowFrom::Mean(present),
    }
}

impl Vocabulary {
    /// Adds a token with the settings it has elsewhere, or those of plain text.
    fn add(&mut self, token: &str, id: usize, settings: Option<&Value>) {
        let mut entry = settings.cloned().unwrap_or_else(|| {
            json!({
                "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": true,
                "special": false,
            })
        });
        entry["id"] = json!(id);
        let entries = self.json.entry("added_tokens").or_insert_with(|| json!([]));
        entries.as_array_mut().expect("the list was read as one").push(entry);
    }
}
