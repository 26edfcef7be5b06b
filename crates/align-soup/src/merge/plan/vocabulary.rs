//! Which tokens the result has, and whether the models' agree.

use std::path::Path;

use super::super::config::{MergeConfig, TokenizerSource};
use super::super::folders_error::FolderMergeError;
use super::super::layers::is_by_token;
use super::super::reference::ModelReference;
use super::super::report::{FolderMergeWarning, MergeOptions};
use super::super::tokenizer::{TokenModel, Vocabulary, VocabularyPlan};
use super::Resolve;
use crate::checkpoint::open::Folder;

/// The vocabulary of the result; without one in the configuration, all models must have the same.
pub(super) fn plan_vocabulary(
    config: &MergeConfig,
    models: &[ModelReference],
    folders: &[Folder],
    resolve: &Resolve<'_>,
    options: &MergeOptions,
    warnings: &mut Vec<FolderMergeWarning>,
) -> Result<Option<VocabularyPlan>, FolderMergeError> {
    let Some(tokenizer) = &config.tokenizer else {
        if !options.allow_different_tokenizers {
            expect_same_vocabularies(models, folders, warnings)?;
        }
        return Ok(None);
    };
    let source = match &tokenizer.source {
        TokenizerSource::Model(model) => Some(
            resolve(&model.model)
                .map_err(|source| FolderMergeError::Resolve { model: model.model.to_string(), source })?,
        ),
        TokenizerSource::Base | TokenizerSource::Union => None,
    };
    let token_models: Vec<TokenModel<'_>> = models
        .iter()
        .zip(folders)
        .map(|(reference, folder)| TokenModel {
            reference,
            folder: tokenizer_folder(folder),
            rows: rows_of(folder),
        })
        .collect();
    let plan = VocabularyPlan::new(tokenizer, &token_models, source.as_deref())?;
    warnings
        .extend(plan.assumed.iter().map(|model| FolderMergeWarning::NoTokenizer { model: model.clone() }));
    let nowhere = plan.nowhere();
    if let Some(first) = nowhere.first() {
        warnings
            .push(FolderMergeWarning::TokensWithoutRows { first: (*first).to_owned(), count: nowhere.len() });
    }
    Ok(Some(plan))
}

/// An adapter's tokenizer is its base's.
fn tokenizer_folder(folder: &Folder) -> &Path {
    &folder.path
}

/// Rows of the embeddings.
fn rows_of(folder: &Folder) -> usize {
    let by_token = folder.tensors.iter().filter(|tensor| is_by_token(&tensor.name));
    by_token.filter_map(|tensor| tensor.shape.first().copied()).min().unwrap_or(0)
}

fn expect_same_vocabularies(
    models: &[ModelReference],
    folders: &[Folder],
    warnings: &mut Vec<FolderMergeWarning>,
) -> Result<(), FolderMergeError> {
    let read = |position: usize| {
        Vocabulary::read(tokenizer_folder(&folders[position]), &models[position].to_string())
    };
    let first = read(0)?;
    for position in 1..models.len() {
        let (Some(first), Some(other)) = (&first, read(position)?) else {
            warnings.push(FolderMergeWarning::NoTokenizer { model: models[position].to_string() });
            continue;
        };
        if let Some((id, expected, found)) = first.first_difference(&other) {
            return Err(FolderMergeError::Vocabulary {
                id,
                first: models[0].to_string(),
                expected: expected.map(str::to_owned),
                model: models[position].to_string(),
                found: found.map(str::to_owned),
            });
        }
    }
    Ok(())
}
