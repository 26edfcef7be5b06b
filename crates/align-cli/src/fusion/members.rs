//! The models of a fusion: where they are, and how they share weights.

use std::path::{Path, PathBuf};

use align_core::CausalLm;
use align_data::tokenizer::{HfTokenizer, Tokenizer as _, check_vocabulary};
use align_fusion::{Placement, Prefixed};
use align_models::Transformer;
use anyhow::{Context as _, Result};
use burn::tensor::{DType, Device};

use super::{FusionFileError, fusion_file};
use crate::context::transformer_as;
use crate::device::DeviceChoice;
use crate::language_model::cannot_load_adapters;
use crate::recipe::fusion::{FusionConfig, Member};

/// What messages call the large base.
pub(super) const BASE: &str = "the base";
/// What messages call the small base.
pub(super) const ANCHOR: &str = "the anchor";

/// What messages call an expert.
pub(super) fn expert(name: &str) -> String {
    format!("expert `{name}`")
}

/// Where a member is, and what is put over and before it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    /// Its folder, without links and dots, so that equal folders have equal paths.
    pub(super) folder: PathBuf,
    /// Adapters over it.
    pub(super) adapter: Option<PathBuf>,
    /// Text before every row.
    pub(super) prefix: Option<String>,
    /// Where it computes, if not where the others do.
    pub(super) device: Option<DeviceChoice>,
}

/// All members.
#[derive(Clone, Debug)]
pub(super) struct Members {
    pub(super) base: Place,
    pub(super) anchor: Place,
    pub(super) experts: Vec<(String, Place)>,
}

impl Members {
    /// Finds the folders of a configuration by `find`, which is told whose they are.
    pub(super) fn of(config: &FusionConfig, find: impl Fn(&str, &str) -> Result<PathBuf>) -> Result<Self> {
        let base = place(BASE, &config.base, None, &find)?;
        let anchor = place(ANCHOR, &config.anchor, None, &find)?;
        let mut experts = Vec::new();
        for (name, member) in &config.experts.0 {
            let found = place(&expert(name), member, Some(&anchor), &find)?;
            if (&found.folder, &found.adapter, &found.prefix)
                == (&anchor.folder, &anchor.adapter, &anchor.prefix)
            {
                return Err(FusionFileError::NoDirection { expert: name.clone(), path: found.folder }.into());
            }
            experts.push((name.clone(), found));
        }
        Ok(Self { base, anchor, experts })
    }

    /// Every member with what messages call it.
    pub(super) fn iter(&self) -> impl Iterator<Item = (String, &Place)> {
        let bases = [(BASE.to_owned(), &self.base), (ANCHOR.to_owned(), &self.anchor)];
        bases.into_iter().chain(self.experts.iter().map(|(name, place)| (expert(name), place)))
    }
}

/// An expert without a model stands on the anchor's, adapters included unless it has its own.
fn place(
    role: &str,
    member: &Member,
    anchor: Option<&Place>,
    find: impl Fn(&str, &str) -> Result<PathBuf>,
) -> Result<Place> {
    let adapter = member.adapter.as_deref().map(|adapter| whole(role, find(role, adapter)?)).transpose()?;
    let (folder, adapter, device) = match (&member.model, anchor) {
        (Some(model), _) => (whole(role, find(role, model)?)?, adapter, member.device),
        (None, Some(anchor)) => (
            anchor.folder.clone(),
            adapter.or_else(|| anchor.adapter.clone()),
            member.device.or(anchor.device),
        ),
        (None, None) => return Err(FusionFileError::NoModel { role: role.to_owned() }.into()),
    };
    if fusion_file(&folder).is_some() {
        return Err(FusionFileError::Nested { role: role.to_owned(), path: folder }.into());
    }
    Ok(Place { folder, adapter, prefix: member.prefix.clone(), device })
}

/// The path without links and dots.
fn whole(role: &str, path: PathBuf) -> Result<PathBuf> {
    path.canonicalize().with_context(|| format!("{role}: cannot open {}", path.display()))
}

/// A path as a file in `home` says it: relative within the run, which may be moved as a whole, else from the root.
pub(super) fn relative(path: &Path, home: &Path, run: &Path) -> Result<String> {
    let [home, run] = [home, run]
        .map(|folder| folder.canonicalize().with_context(|| format!("cannot open {}", folder.display())));
    let (home, run) = (home?, run?);
    let within = match (path.strip_prefix(&run), home.strip_prefix(&run)) {
        (Ok(inside), Ok(below)) => {
            below.components().map(|_| Path::new("..")).chain([inside]).collect::<PathBuf>()
        }
        _ => path.to_owned(),
    };
    let text = within.to_str().with_context(|| format!("{} is no UTF-8", within.display()))?;
    Ok(text.to_owned())
}

/// Weights in memory, each folder once for a device.
pub(super) struct Loaded<'a> {
    device: &'a Device,
    dtype: DType,
    weights: Vec<(PathBuf, Device, Transformer)>,
}

impl<'a> Loaded<'a> {
    /// Nothing yet.
    pub(super) fn new(device: &'a Device, dtype: DType) -> Self {
        Self { device, dtype, weights: Vec::new() }
    }

    /// The type of the weights.
    pub(super) fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where a member computes.
    pub(super) fn device_of(&self, place: &Place) -> Result<Device> {
        Ok(match place.device {
            Some(choice) => choice.open()?,
            None => self.device.clone(),
        })
    }

    /// A member with its adapters and its prefix; members of one folder share its weights.
    pub(super) fn open(&mut self, place: &Place, tokenizer: &HfTokenizer) -> Result<Box<dyn CausalLm>> {
        let device = self.device_of(place)?;
        let known = self.weights.iter().find(|(folder, on, _)| (folder, on) == (&place.folder, &device));
        let model = match known {
            Some((.., model)) => model.clone(),
            None => {
                let model = transformer_as(&place.folder, &device, self.dtype)?;
                check_vocabulary(tokenizer, model.config().vocab_size).with_context(|| {
                    format!("model and tokenizer in {} do not fit", place.folder.display())
                })?;
                self.weights.push((place.folder.clone(), device, model.clone()));
                model
            }
        };
        let model = match &place.adapter {
            None => model,
            Some(adapter) => model.load_adapters(adapter).with_context(|| cannot_load_adapters(adapter))?,
        };
        let Some(prefix) = &place.prefix else { return Ok(Box::new(model)) };
        let ids = tokenizer.encode(prefix)?.ids;
        let placement = tokenizer.special().bos.map_or(Placement::Front, Placement::After);
        Ok(Box::new(Prefixed::new(model, ids, placement)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_within_a_run_are_relative_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let (run, home) = (root.join("run"), root.join("run/fused/seed-1"));
        for made in [&home, &root.join("run/small/model"), &root.join("large")] {
            std::fs::create_dir_all(made).unwrap();
        }
        assert_eq!(relative(&root.join("run/small/model"), &home, &run).unwrap(), "../../small/model");
        let large = root.join("large");
        assert_eq!(relative(&large, &home, &run).unwrap(), large.to_str().unwrap());
    }
}
