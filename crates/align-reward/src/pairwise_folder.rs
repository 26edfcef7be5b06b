//! A pairwise preference model as a folder: that of a reward model, and a file that says how it reads answers.
//!
//! ```text
//! pairwise.json     marks the folder: its scores compare, and mean nothing for one answer alone
//! config.json …     a reward model (`*ForSequenceClassification`)
//! ```

use std::io;
use std::path::{Path, PathBuf};

use align_core::PersistError;
use align_core::persist::replace_file;
use align_models::{CheckpointError, Normalization, RewardModel};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::pairwise::{PairForm, Pairwise};

/// The manifest's file.
const MANIFEST: &str = "pairwise.json";
/// The form this release writes and reads.
const FORMAT: u32 = 1;

/// What marks the folder of a pairwise model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairwiseManifest {
    /// The form of the file.
    format: u32,
    /// The tokens after each answer.
    separator: Vec<u32>,
}

/// Why a folder is no pairwise model that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PairwiseError {
    /// The manifest could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The manifest is none.
    #[error("{} is damaged: expected the manifest of a pairwise model", path.display())]
    Manifest {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Written by another release.
    #[error("{} has form {found}, expected {FORMAT}", path.display())]
    Format {
        /// The manifest's path.
        path: PathBuf,
        /// Its form.
        found: u32,
    },
    /// Answers could not be told apart.
    #[error("{} has no separator, expected at least one token", path.display())]
    NoSeparator {
        /// The manifest's path.
        path: PathBuf,
    },
    /// The model does not know a token of the separator.
    #[error("the separator has token {token}, expected less than the model's vocabulary of {vocabulary}")]
    Vocabulary {
        /// The token.
        token: u32,
        /// How many tokens the model reads.
        vocabulary: usize,
    },
    /// Its scores were brought to a scale, which would change every preference.
    #[error(
        "the pairwise model in {} has normalised scores, gain {} and bias {}, expected none: preferences compare scores as they were trained",
        folder.display(), normalization.gain, normalization.bias
    )]
    Normalized {
        /// The folder.
        folder: PathBuf,
        /// The scale.
        normalization: Normalization,
    },
    /// The model could not be loaded.
    #[error("cannot load the pairwise model")]
    Model {
        /// Why.
        #[source]
        source: CheckpointError,
    },
}

impl PairwiseManifest {
    /// A manifest of a model that was trained with this form.
    pub fn new(form: &PairForm) -> Self {
        Self { format: FORMAT, separator: form.separator().to_vec() }
    }

    /// How the model reads answers.
    pub fn form(&self) -> PairForm {
        PairForm::new(self.separator.clone())
    }

    /// What stands in the folder; `None` if it holds no pairwise model.
    ///
    /// # Errors
    /// If there is a manifest that cannot be read, one of another release, or one without a separator.
    pub fn read(folder: &Path) -> Result<Option<Self>, PairwiseError> {
        let path = folder.join(MANIFEST);
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(PairwiseError::Read { path, source }),
            Ok(text) => text,
        };
        let manifest: Self = serde_json::from_slice(&text)
            .map_err(|source| PairwiseError::Manifest { path: path.clone(), source })?;
        if manifest.format != FORMAT {
            return Err(PairwiseError::Format { path, found: manifest.format });
        }
        if manifest.separator.is_empty() {
            return Err(PairwiseError::NoSeparator { path });
        }
        Ok(Some(manifest))
    }

    /// Writes it into a folder that holds the model already: [`RewardModel::save_pretrained`] replaces what stands there.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), PersistError> {
        replace_file(&folder.join(MANIFEST), |file| Ok(serde_json::to_writer_pretty(file, self)?))
    }

    /// Loads the model beside the manifest.
    ///
    /// # Errors
    /// If it cannot be loaded, does not know the separator, or has its scores normalised: a gain would make every preference
    /// sharper or flatter than what was learnt.
    pub fn load(&self, folder: &Path, device: &Device) -> Result<Pairwise<RewardModel>, PairwiseError> {
        let scorer = RewardModel::from_pretrained(folder, device, None)
            .map_err(|source| PairwiseError::Model { source })?;
        let vocabulary = scorer.backbone().config().vocab_size;
        if let Some(&token) = self.separator.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(PairwiseError::Vocabulary { token, vocabulary });
        }
        let normalization = scorer.normalization();
        if normalization != Normalization::default() {
            return Err(PairwiseError::Normalized { folder: folder.to_owned(), normalization });
        }
        Ok(Pairwise { scorer, form: self.form() })
    }
}
