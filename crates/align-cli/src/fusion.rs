//! Fusions on disk: `fusion.toml`, and how one is opened.
//!
//! ```toml
//! base = "../large/model"          # paths are relative to the file
//! anchor = "../small/model"
//! [experts]
//! facts = "../small-facts/model"
//! sums = { adapter = "../small-sums/adapter" }
//! [weighing]
//! kind = "dynamic"
//! ```
//!
//! Members of one folder share its weights in memory, whatever adapters and prefixes they have.

mod members;
mod memory;
mod tokens;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use align_core::{CausalLm, Completions, Draws, draws::Purpose};
use align_fusion::{Expert, Fusion, Mapped};
use anyhow::{Context as _, Result};
use burn::tensor::{DType, Device};

use self::members::{Loaded, Members, Place};
use self::tokens::Tokens;
use crate::context::resolve_model;
use crate::recipe::fusion::{FusionConfig, Member};
use crate::recipe::source::Source;

/// The file's name in a folder.
pub(crate) const FUSION: &str = "fusion.toml";

/// What is wrong with a fusion before any model is run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FusionFileError {
    #[error(
        "{role}: `{reference}` is not there: expected {} (paths are relative to {}), or `org/name` on the hub",
        expected.display(),
        file.display()
    )]
    NotThere { role: String, reference: String, expected: PathBuf, file: PathBuf },
    #[error("{role}: `model` is not given, expected a model folder or hub id")]
    NoModel { role: String },
    #[error("{role}: {} is a fusion itself, expected a model with weights", path.display())]
    Nested { role: String, path: PathBuf },
    #[error(
        "expert `{expert}` is the anchor, {}, without adapter or prefix: expected a model tuned from it; an expert equal to its \
         base has no direction to steer in",
        path.display()
    )]
    NoDirection { expert: String, path: PathBuf },
    #[error(
        "the weights need {} of memory ({parts}), and {} are available: fewer experts, adapters over one base, or \
         `dtype = \"bf16\"` need less",
        indicatif::HumanBytes(*needed),
        indicatif::HumanBytes(*available)
    )]
    Memory { needed: u64, available: u64, parts: String },
    #[error(
        "{role} ({}) has another vocabulary than the base ({}): expected one tokenizer, or `vocabulary = \"shared_strings\"` to map \
         tokens by their text",
        path.display(),
        base.display()
    )]
    Vocabulary {
        role: String,
        path: PathBuf,
        base: PathBuf,
        #[source]
        source: align_fusion::VocabularyError,
    },
}

/// The fusion's file that a path means: itself, or the one in a folder that is no model.
pub(crate) fn fusion_file(path: &Path) -> Option<PathBuf> {
    if path.is_dir() {
        let file = path.join(FUSION);
        return (file.is_file() && !path.join("config.json").exists()).then_some(file);
    }
    path.extension().is_some_and(|extension| extension == "toml").then(|| path.to_owned())
}

/// A fusion that was read and whose members were found.
#[derive(Debug)]
pub(crate) struct FusionFile {
    /// How the models are put together.
    pub(crate) config: FusionConfig,
    /// Which models.
    members: Members,
}

impl FusionFile {
    /// Reads a file and finds its members.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let config: FusionConfig = Source::read(path)?.deserialize()?;
        let home = path.parent().unwrap_or(Path::new(""));
        let find = |role: &str, reference: &str| find(role, reference, home, path);
        Self::with(config, find).with_context(|| format!("cannot use {}", path.display()))
    }

    /// A fusion whose references are looked up by `find`, which is told whose they are.
    pub(crate) fn with(config: FusionConfig, find: impl Fn(&str, &str) -> Result<PathBuf>) -> Result<Self> {
        config.weighing.check(config.experts.0.len())?;
        let members = Members::of(&config, find)?;
        Ok(Self { config, members })
    }

    /// The folder whose tokenizer and template the fusion speaks.
    pub(crate) fn tokenizer_folder(&self) -> &Path {
        &self.members.base.folder
    }

    /// The folders of all members and of their adapters.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        let of_member = |(_, place): (String, &Place)| [Some(place.folder.clone()), place.adapter.clone()];
        self.members.iter().flat_map(of_member).flatten().collect()
    }

    /// The configuration with the members' places as a file in `home` has to say them.
    pub(crate) fn config_in(&self, home: &Path, run: &Path) -> Result<FusionConfig> {
        let mut config = self.config.clone();
        let written = |member: &mut Member, place: &Place| -> Result<()> {
            // An expert without a model stands on the anchor's.
            if let Some(model) = &mut member.model
                && !is_hub_id(model)
            {
                *model = members::relative(&place.folder, home, run)?;
            }
            if let (Some(adapter), Some(path)) = (&mut member.adapter, &place.adapter) {
                *adapter = members::relative(path, home, run)?;
            }
            Ok(())
        };
        written(&mut config.base, &self.members.base)?;
        written(&mut config.anchor, &self.members.anchor)?;
        for ((_, member), (_, place)) in config.experts.0.iter_mut().zip(&self.members.experts) {
            written(member, place)?;
        }
        Ok(config)
    }

    /// Loads the members and puts them together, refusing what cannot be meant: other vocabularies, other shapes, an expert
    /// equal to its base, more weights than there is memory.
    pub(crate) fn open(&self, device: &Device, dtype: DType) -> Result<Opened> {
        let dtype = match self.config.dtype {
            Some(choice) => choice.on(device, &format!("{device:?}"))?,
            None => dtype,
        };
        let mut loaded = Loaded::new(device, dtype);
        memory::check(&self.members, &loaded)?;
        let tokens = Tokens::read(&self.members, self.config.vocabulary)?;
        let mut mapped = Vec::new();
        let mut open = |role: &str, place: &Place| -> Result<Box<dyn CausalLm>> {
            let tokenizer = tokens.of(&place.folder);
            let model = loaded.open(place, tokenizer).with_context(|| format!("cannot open {role}"))?;
            let Some(map) = tokens.map(&place.folder) else { return Ok(model) };
            let model = Arc::new(Mapped::new(model, map.clone())?);
            mapped.push((role.to_owned(), model.clone()));
            Ok(Box::new(model))
        };
        let base = open(members::BASE, &self.members.base)?;
        let anchor = open(members::ANCHOR, &self.members.anchor)?;
        let experts = self.members.experts.iter();
        let experts = experts
            .map(|(name, place)| Ok(Expert::new(name, open(&members::expert(name), place)?)))
            .collect::<Result<Vec<_>>>()?;
        // They were compared, or are mapped: what is left is padding.
        let fusion = Fusion::with_same_tokenizers(base, anchor, experts, self.config.weighing.clone())?;
        fusion.check_direction(&probe(&tokens.readable(), &fusion.device()))?;
        Ok(Opened { fusion, mapped })
    }
}

/// A fusion in memory.
pub(crate) struct Opened {
    /// The fusion.
    pub(crate) fusion: Fusion<'static>,
    /// Members that read the base's tokens through a map, which has failures of its own.
    pub(crate) mapped: Vec<(String, Arc<MappedMember>)>,
}

/// A member with another tokenizer than the base's.
pub(crate) type MappedMember = Mapped<Box<dyn CausalLm>>;

/// A few rows of tokens: an expert that has the anchor's scores on all of them was not tuned from it.
fn probe(tokens: &[u32], device: &Device) -> Completions {
    const ROWS: u64 = 4;
    const TOKENS: u32 = 4;
    let draws = Draws::new(0);
    let row = |row: u64, side: u32| -> Vec<u32> {
        let one = |at| draws.token(Purpose::Evaluate, 0, row, side, at);
        (0..TOKENS).map(|at| tokens[(one(at) * tokens.len() as f64) as usize]).collect()
    };
    let side = |side: u32| (0..ROWS).map(|at| row(at, side)).collect::<Vec<_>>();
    Completions::from_rows(&side(0), &side(1), device)
}

/// Where a reference in a file leads: relative to the file, or to the hub.
fn find(role: &str, reference: &str, home: &Path, file: &Path) -> Result<PathBuf> {
    let path = home.join(reference);
    if path.exists() {
        return Ok(path);
    }
    if is_hub_id(reference) {
        return resolve_model(reference).with_context(|| format!("cannot find {role}"));
    }
    let (role, reference) = (role.to_owned(), reference.to_owned());
    Err(FusionFileError::NotThere { role, reference, expected: path, file: file.to_owned() }.into())
}

/// `org/name`, and no path of that name where the command runs: that one is not meant in a file.
fn is_hub_id(reference: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && !part.starts_with(['.', '@']);
    let parts: Vec<&str> = reference.split('/').collect();
    parts.len() == 2 && parts.into_iter().all(plain) && !Path::new(reference).exists()
}
