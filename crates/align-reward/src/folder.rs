//! An ensemble as a folder.
//!
//! ```text
//! ensemble.json     the manifest, written last
//! members/0/ …      each a reward model of its own (`*ForSequenceClassification`), or adapters over `base`
//! base/             the decoder that adapters stand on, once
//! average/          the model of the members' mean weights, if it was asked for
//! ```

use std::io;
use std::path::{Path, PathBuf};

use align_core::PersistError;
use align_core::persist::replace_file;
use align_models::{CheckpointError, RewardModel, SharedRewardModels};
use burn::tensor::{DType, Device};
use serde::{Deserialize, Serialize};

use crate::aggregate::Aggregate;
use crate::ensemble::Ensemble;
use crate::error::RewardError;
use crate::normalize::ReferenceScores;

/// The manifest's file.
const MANIFEST: &str = "ensemble.json";
/// The form this release writes and reads.
const FORMAT: u32 = 1;
/// Where the decoder under the members' adapters lies.
const BASE: &str = "base";
/// Where the model of averaged weights lies.
const AVERAGE: &str = "average";

/// What an ensemble's folder holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The form of the folder.
    format: u32,
    /// How the members' scores become one unless the reader says otherwise.
    pub aggregate: Aggregate,
    /// One a member, in order.
    pub members: Vec<Member>,
    /// Whether the members are adapters over one base.
    pub adapters: bool,
    /// Whether there is a model of averaged weights too.
    pub average: bool,
    /// Which labels were made wrong on purpose, if any were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_noise: Option<LabelNoise>,
}

/// A member, as the manifest describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// What it differs by: its head, its adapters and the order of its data.
    pub seed: u64,
    /// Where its scale comes from; `None` if its scores are raw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<ReferenceScores>,
    /// Its accuracy on pairs it has not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out_accuracy: Option<f64>,
}

/// The wrong labels that all members were trained on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelNoise {
    /// The probability of each flip.
    pub rate: f64,
    /// The seed of the draws.
    pub seed: u64,
    /// How many labels were flipped.
    pub flipped: usize,
    /// Of how many.
    pub pairs: usize,
}

/// Why a folder is no ensemble that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnsembleError {
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
    #[error("{} is damaged: expected the manifest of an ensemble", path.display())]
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
    /// A member's model could not be loaded.
    #[error("cannot load member {member} of the ensemble")]
    Member {
        /// Which one.
        member: usize,
        /// Why.
        #[source]
        source: CheckpointError,
    },
    /// The model under the members' adapters, or that of their averaged weights, could not be loaded.
    #[error("cannot load the ensemble's `{part}`")]
    Part {
        /// Its folder.
        part: &'static str,
        /// Why.
        #[source]
        source: CheckpointError,
    },
    /// Members read other tokens.
    #[error("member {member} has a vocabulary of {found} tokens, expected {expected} as of member 0")]
    Vocabulary {
        /// Which one.
        member: usize,
        /// The vocabulary of the first.
        expected: usize,
        /// That of this one.
        found: usize,
    },
    /// Members read text differently.
    #[error(
        "member {member} has another {what} than member 0 ({} and {}): the members of an ensemble must read a text alike",
        path.display(),
        expected.display()
    )]
    Reading {
        /// Which one.
        member: usize,
        /// `tokenizer` or `chat template`.
        what: &'static str,
        /// Its folder.
        path: PathBuf,
        /// The folder of the first.
        expected: PathBuf,
    },
    /// The folder has no averaged weights.
    #[error("{} has no model of averaged weights, expected one in `{AVERAGE}`: train it with `weight_average = true`", folder.display())]
    NoAverage {
        /// The folder.
        folder: PathBuf,
    },
    /// The members cannot be put together.
    #[error(transparent)]
    Reward(#[from] RewardError),
}

impl Manifest {
    /// A manifest of members.
    pub fn new(aggregate: Aggregate, members: Vec<Member>) -> Self {
        Self { format: FORMAT, aggregate, members, adapters: false, average: false, label_noise: None }
    }

    /// What stands in the folder; `None` if it holds no ensemble.
    ///
    /// # Errors
    /// If there is a manifest that cannot be read, or one of another release.
    pub fn read(folder: &Path) -> Result<Option<Self>, EnsembleError> {
        let path = folder.join(MANIFEST);
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(EnsembleError::Read { path, source }),
            Ok(text) => text,
        };
        let manifest: Self = serde_json::from_slice(&text)
            .map_err(|source| EnsembleError::Manifest { path: path.clone(), source })?;
        if manifest.format != FORMAT {
            return Err(EnsembleError::Format { path, found: manifest.format });
        }
        if manifest.members.is_empty() {
            return Err(RewardError::EmptyEnsemble.into());
        }
        Ok(Some(manifest))
    }

    /// Writes it into a folder that holds the members already.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), PersistError> {
        replace_file(&folder.join(MANIFEST), |file| Ok(serde_json::to_writer_pretty(file, self)?))
    }

    /// Where a member lies.
    pub fn member(folder: &Path, member: usize) -> PathBuf {
        folder.join("members").join(member.to_string())
    }

    /// Where the decoder under the members' adapters lies.
    pub fn base(folder: &Path) -> PathBuf {
        folder.join(BASE)
    }

    /// Where the model of averaged weights lies.
    pub fn average(folder: &Path) -> PathBuf {
        folder.join(AVERAGE)
    }

    /// Loads the members. What they share is held in memory once.
    ///
    /// # Errors
    /// If a model cannot be loaded, or members have different vocabularies, tokenizers or chat templates.
    pub fn load_members(&self, folder: &Path, device: &Device) -> Result<SharedRewardModels, EnsembleError> {
        self.check_reading(folder)?;
        let adapted = |base: &RewardModel, member| base.clone().load_adapters(&Self::member(folder, member));
        let base = match self.adapters {
            false => None,
            true => Some(
                RewardModel::from_pretrained(&Self::base(folder), device, None)
                    .map_err(|source| EnsembleError::Part { part: BASE, source })?,
            ),
        };
        let mut members: Vec<RewardModel> = Vec::with_capacity(self.members.len());
        for member in 0..self.members.len() {
            let model = match &base {
                Some(base) => adapted(base, member),
                None => RewardModel::from_pretrained(&Self::member(folder, member), device, None),
            };
            let model = model.map_err(|source| EnsembleError::Member { member, source })?;
            let vocabulary = |model: &RewardModel| model.backbone().config().vocab_size;
            if let Some(first) = members.first()
                && vocabulary(first) != vocabulary(&model)
            {
                let (expected, found) = (vocabulary(first), vocabulary(&model));
                return Err(EnsembleError::Vocabulary { member, expected, found });
            }
            members.push(model);
        }
        Ok(SharedRewardModels::new(members))
    }

    /// Refuses members whose files say that they read a text differently. What a folder does not say is not compared: adapters
    /// stand on one base.
    fn check_reading(&self, folder: &Path) -> Result<(), EnsembleError> {
        let files = |member: usize| Reading::of(&Self::member(folder, member));
        let first = files(0)?;
        for member in 1..self.members.len() {
            let found = files(member)?;
            let what = if differ(&first.tokenizer, &found.tokenizer) {
                "tokenizer"
            } else if differ(&first.template, &found.template) {
                "chat template"
            } else {
                continue;
            };
            let [path, expected] = [member, 0].map(|member| Self::member(folder, member));
            return Err(EnsembleError::Reading { member, what, path, expected });
        }
        Ok(())
    }

    /// Loads the members as one reward; `aggregate` takes the place of the manifest's.
    ///
    /// # Errors
    /// As [`Manifest::load_members`].
    pub fn load(
        &self,
        folder: &Path,
        device: &Device,
        aggregate: Option<Aggregate>,
    ) -> Result<Ensemble<SharedRewardModels>, EnsembleError> {
        let members = self.load_members(folder, device)?;
        Ok(Ensemble::new(members, aggregate.unwrap_or(self.aggregate))?)
    }

    /// Loads the one model of the members' averaged weights (WARM).
    ///
    /// # Errors
    /// If there is none, or it cannot be loaded.
    ///
    /// # Source
    /// Ramé et al. 2024, <https://arxiv.org/abs/2401.12187>.
    pub fn load_average(&self, folder: &Path, device: &Device) -> Result<RewardModel, EnsembleError> {
        if !self.average {
            return Err(EnsembleError::NoAverage { folder: folder.to_owned() });
        }
        RewardModel::from_pretrained_as(&Self::average(folder), device, DType::F32, None)
            .map_err(|source| EnsembleError::Part { part: AVERAGE, source })
    }
}

/// Whether both are known and not the same.
fn differ<T: PartialEq>(a: &Option<T>, b: &Option<T>) -> bool {
    matches!((a, b), (Some(a), Some(b)) if a != b)
}

/// How a folder's model reads text, as far as its files say.
struct Reading {
    tokenizer: Option<Vec<u8>>,
    template: Option<String>,
}

impl Reading {
    fn of(folder: &Path) -> Result<Self, EnsembleError> {
        let read = |name: &str| {
            let path = folder.join(name);
            match std::fs::read(&path) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(EnsembleError::Read { path, source }),
            }
        };
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        // A file of its own takes the place of the template in the configuration.
        let template = match read("chat_template.jinja")? {
            Some(template) => Some(text(template)),
            None => read("tokenizer_config.json")?
                .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok())
                .and_then(|config| config.get("chat_template").map(ToString::to_string)),
        };
        Ok(Self { tokenizer: read("tokenizer.json")?, template })
    }
}
