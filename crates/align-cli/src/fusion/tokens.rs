//! Whether the members of a fusion mean the same by an id, and how to translate where they do not.

use std::path::{Path, PathBuf};

use align_data::tokenizer::{HfTokenizer, Tokenizer as _};
use align_fusion::{MapOptions, Trailing, Vocabulary as Strings, VocabularyMap, same_vocabulary};
use anyhow::{Context as _, Result};

use super::FusionFileError;
use super::members::Members;
use crate::recipe::fusion::Vocabulary;

/// The tokenizers of all members, each folder's once.
pub(super) struct Tokens {
    tokenizers: Vec<(PathBuf, HfTokenizer)>,
    /// Of folders whose tokenizer is not the base's.
    maps: Vec<(PathBuf, VocabularyMap)>,
}

impl Tokens {
    /// Reads the tokenizers. Others than the base's are refused, or mapped if that is asked for.
    pub(super) fn read(members: &Members, vocabulary: Vocabulary) -> Result<Self> {
        let mut tokens = Self { tokenizers: Vec::new(), maps: Vec::new() };
        for (role, place) in members.iter() {
            if tokens.tokenizers.iter().any(|(folder, _)| *folder == place.folder) {
                continue;
            }
            let tokenizer = HfTokenizer::from_folder(&place.folder).with_context(|| {
                format!("cannot load the tokenizer of {role} in {}", place.folder.display())
            })?;
            // The base comes first.
            if let Some((base_folder, base)) = tokens.tokenizers.first()
                && base.fingerprint() != tokenizer.fingerprint()
            {
                let differs = |source| FusionFileError::Vocabulary {
                    role: role.clone(),
                    path: place.folder.clone(),
                    base: base_folder.clone(),
                    source,
                };
                let (of_base, own) = (strings(base).map_err(differs)?, strings(&tokenizer).map_err(differs)?);
                match vocabulary {
                    Vocabulary::Same => {
                        same_vocabulary(&of_base, &own, Trailing::Refused).map_err(differs)?
                    }
                    Vocabulary::SharedStrings => {
                        let options = map_options(base, &tokenizer);
                        let map = VocabularyMap::by_strings(&of_base, &own, &options).map_err(differs)?;
                        say_counts(&role, &map);
                        tokens.maps.push((place.folder.clone(), map));
                    }
                }
            }
            tokens.tokenizers.push((place.folder.clone(), tokenizer));
        }
        Ok(tokens)
    }

    /// The tokenizer of a member's folder.
    pub(super) fn of(&self, folder: &Path) -> &HfTokenizer {
        let found = self.tokenizers.iter().find(|(known, _)| known == folder);
        &found.expect("the tokenizers of all members were read").1
    }

    /// How the model of a folder reads the base's tokens, if not as they are.
    pub(super) fn map(&self, folder: &Path) -> Option<&VocabularyMap> {
        self.maps.iter().find(|(known, _)| known == folder).map(|(_, map)| map)
    }

    /// Ids of the base that every member can read.
    pub(super) fn readable(&self) -> Vec<u32> {
        let base = &self.tokenizers[0].1;
        (0..base.vocab_size() as u32)
            .filter(|&id| {
                base.token(id).is_some() && self.maps.iter().all(|(_, map)| !map.reading(id).is_empty())
            })
            .collect()
    }
}

fn strings(tokenizer: &HfTokenizer) -> Result<Strings, align_fusion::VocabularyError> {
    let ids = 0..tokenizer.vocab_size() as u32;
    Strings::from_pairs(ids.filter_map(|id| Some((tokenizer.token(id)?, id))))
}

/// Texts begin and end whatever the token for it is called; other special tokens are not spelt.
fn map_options(base: &HfTokenizer, member: &HfTokenizer) -> MapOptions {
    let mut pairs: Vec<(u32, u32)> = Vec::new();
    let (of_base, own) = (base.special(), member.special());
    for pair in [of_base.bos.zip(own.bos), of_base.eos.zip(own.eos)].into_iter().flatten() {
        // Beginning and end may be one token.
        if pairs.iter().all(|known| known.0 != pair.0 && known.1 != pair.1) {
            pairs.push(pair);
        }
    }
    let special = (0..base.vocab_size() as u32).filter(|&id| base.is_special(id)).collect();
    MapOptions { pairs, special }
}

fn say_counts(role: &str, map: &VocabularyMap) {
    let counts = map.counts();
    eprintln!(
        "{role}: {} tokens are shared with the base; {} of the base alone are never moved, {} of them are read as several of \
         its own and {} cannot be read",
        counts.shared, counts.base_only, counts.spelt, counts.unreadable
    );
}
