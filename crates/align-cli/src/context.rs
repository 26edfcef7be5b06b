//! What every stage needs: the device, where `@names` lead, whether to stop, whether to go on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use align_core::Draws;
use align_data::encode::{EncodeOptions, Encoder};
use align_data::hub::{self, HubKind, HubOptions};
use align_data::template::ChatTemplate;
use align_data::tokenizer::{HfTokenizer, check_vocabulary};
use align_models::{RewardModel, Transformer};
use anyhow::{Context as _, Result, bail};
use burn::module::Module;
use burn::tensor::{DType, Device};

use crate::fusion::fusion_file;
use crate::progress::working;
use crate::recipe::parts::{EncodeConfig, MODEL, stage_reference};

/// Ctrl-C was pressed.
#[derive(Debug, thiserror::Error)]
#[error("{}", match saved_in {
    Some(folder) => format!("interrupted; everything up to here is saved in {}", folder.display()),
    None => "interrupted; nothing was written".to_owned(),
})]
pub(crate) struct Interrupted {
    /// Where a run goes on from; `None` of work that is done over.
    pub(crate) saved_in: Option<PathBuf>,
}

/// What a stage runs in.
#[derive(Clone)]
pub(crate) struct Context {
    /// Where data and frozen models live; no gradients are recorded on it.
    pub(crate) device: Device,
    /// The folder that holds the run's stages.
    pub(crate) run: PathBuf,
    /// Whether what is there already may be gone on with.
    pub(crate) resume: bool,
    /// Set by Ctrl-C.
    pub(crate) interrupt: Arc<AtomicBool>,
    /// Lists that were printed already.
    pub(crate) said: Arc<Mutex<BTreeSet<String>>>,
}

impl Context {
    /// The device that records gradients.
    pub(crate) fn training_device(&self) -> Device {
        self.device.clone().autodiff()
    }

    /// Whether this was not said before; it counts as said now.
    pub(crate) fn is_new(&self, message: &str) -> bool {
        self.said.lock().is_ok_and(|mut said| said.insert(message.to_owned()))
    }

    /// Prints a heading with its list; of what another stage has said already, the heading alone.
    pub(crate) fn say_once(&self, message: &str) {
        let new = self.is_new(message);
        match message.lines().next() {
            Some(heading) if !new => eprintln!("{heading} (listed above)"),
            _ => eprintln!("{message}"),
        }
    }

    /// Fails once Ctrl-C was pressed; for work that has nothing to save.
    pub(crate) fn check_interrupt(&self) -> Result<()> {
        if self.interrupt.load(Ordering::Relaxed) {
            return Err(Interrupted { saved_in: Some(self.run.clone()) }.into());
        }
        Ok(())
    }

    /// Where a path, a hub id or `@stage/path` leads.
    pub(crate) fn path(&self, reference: &str) -> Result<PathBuf> {
        match stage_reference(reference) {
            Some(inside) => {
                let path = self.run.join(inside);
                if !path.exists() {
                    bail!("`{reference}` is not there: expected {}", path.display());
                }
                Ok(path)
            }
            None => Ok(PathBuf::from(reference)),
        }
    }

    /// The one folder of weights a reference means.
    pub(crate) fn model(&self, reference: &str) -> Result<PathBuf> {
        one(reference, self.models(reference)?)
    }

    /// Every folder of weights a reference means, with its seed if the stage ran over several. A fusion has none.
    pub(crate) fn models(&self, reference: &str) -> Result<Vec<(Option<u64>, PathBuf)>> {
        let models = self.models_to_read(reference)?;
        if models.iter().any(|(_, path)| fusion_file(path).is_some()) {
            bail!(
                "`{reference}` is a fusion: it is sampled, scored and compared, and has no weights of its own to train, average \
                 or judge by; expected a model with weights"
            );
        }
        Ok(models)
    }

    /// The one model a reference means, to be read and not trained.
    pub(crate) fn model_to_read(&self, reference: &str) -> Result<PathBuf> {
        one(reference, self.models_to_read(reference)?)
    }

    /// Every model a reference means, fusions among them, with its seed if the stage ran over several.
    pub(crate) fn models_to_read(&self, reference: &str) -> Result<Vec<(Option<u64>, PathBuf)>> {
        let Some(inside) = stage_reference(reference) else {
            return Ok(vec![(None, resolve_model(reference)?)]);
        };
        let folder = self.run.join(inside);
        // A model inside a stage's folder, such as a member of an ensemble, or a file.
        if folder.join("config.json").is_file() || folder.is_file() {
            return Ok(vec![(None, folder)]);
        }
        if let Some(model) = model_in(&folder) {
            return Ok(vec![(seed_of(&folder), model)]);
        }
        let mut seeds: Vec<(Option<u64>, PathBuf)> = std::fs::read_dir(&folder)
            .with_context(|| format!("`{reference}` is not there: expected {}", folder.display()))?
            .flatten()
            .filter_map(|entry| Some((Some(seed_of(&entry.path())?), model_in(&entry.path())?)))
            .collect();
        seeds.sort();
        if seeds.is_empty() {
            bail!("`{reference}` holds no model: expected {}", folder.join(MODEL).display());
        }
        Ok(seeds)
    }
}

/// A policy that is to be trained, with what its tokens mean.
pub(crate) struct Start {
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// On the recording device.
    pub(crate) model: Transformer,
    /// Its tokenizer and template.
    pub(crate) encoder: Encoder,
}

impl Context {
    /// Opens the model that a training starts from.
    pub(crate) fn start(&self, reference: &str, encode: &EncodeConfig) -> Result<Start> {
        let folder = self.model(reference)?;
        let model = transformer(&folder, &self.training_device())?;
        let config = model.config();
        let options = encode.options(Some(config.context_length));
        let encoder = encoder(&folder, Some(config.vocab_size), options)?;
        Ok(Start { folder, model, encoder })
    }
}

/// Opens a folder's weights for training or, on a plain device, for use.
pub(crate) fn transformer(folder: &Path, device: &Device) -> Result<Transformer> {
    transformer_as(folder, device, DType::F32)
}

/// [`transformer`] with weights of another type in memory.
pub(crate) fn transformer_as(folder: &Path, device: &Device, dtype: DType) -> Result<Transformer> {
    let _working = working(&format!("loading {}", folder.display()));
    let model = Transformer::from_pretrained_as(folder, device, dtype)
        .with_context(|| format!("cannot load the model in {}", folder.display()))?;
    Ok(if device.is_autodiff() { model } else { model.valid() })
}

/// Opens a folder's reward model; one without a score head gets a fresh one if that is asked for.
pub(crate) fn reward_model(folder: &Path, device: &Device, init_head: Option<&Draws>) -> Result<RewardModel> {
    reward_model_as(folder, device, DType::F32, init_head)
}

/// [`reward_model`] with weights of another type in memory.
pub(crate) fn reward_model_as(
    folder: &Path,
    device: &Device,
    dtype: DType,
    init_head: Option<&Draws>,
) -> Result<RewardModel> {
    let _working = working(&format!("loading {}", folder.display()));
    RewardModel::from_pretrained_as(folder, device, dtype, init_head)
        .with_context(|| format!("cannot load the reward model in {}", folder.display()))
}

/// Opens a folder's tokenizer and template, checked against the model's vocabulary if that is given.
pub(crate) fn encoder(folder: &Path, vocabulary: Option<usize>, options: EncodeOptions) -> Result<Encoder> {
    let tokenizer = HfTokenizer::from_folder(folder)
        .with_context(|| format!("cannot load the tokenizer in {}", folder.display()))?;
    if let Some(vocabulary) = vocabulary {
        check_vocabulary(&tokenizer, vocabulary)
            .with_context(|| format!("model and tokenizer in {} do not fit", folder.display()))?;
    }
    let template = ChatTemplate::from_folder(folder, tokenizer.template_variables())
        .with_context(|| format!("cannot load the chat template in {}", folder.display()))?;
    Ok(Encoder::new(Arc::new(tokenizer), template, options))
}

/// A model folder or a fusion's file as it is, or a hub id through the cache.
pub(crate) fn resolve_model(reference: &str) -> Result<PathBuf> {
    if reference.ends_with(".toml") && !Path::new(reference).exists() {
        bail!("`{reference}` is not there: expected a fusion's file");
    }
    let options = HubOptions { progress: true, ..HubOptions::from_env() };
    Ok(hub::resolve(reference, HubKind::Model, &options)?)
}

/// What a stage's folder holds: a model with weights, or a fusion.
fn model_in(folder: &Path) -> Option<PathBuf> {
    let model = folder.join(MODEL);
    if model.is_dir() { Some(model) } else { fusion_file(folder) }
}

/// The only one of a reference's models.
fn one(reference: &str, mut models: Vec<(Option<u64>, PathBuf)>) -> Result<PathBuf> {
    if models.len() > 1 {
        bail!(
            "`{reference}` has {} seeds, and one model is needed here: write `{reference}/seed-…`",
            models.len()
        );
    }
    Ok(models.remove(0).1)
}

fn seed_of(folder: &Path) -> Option<u64> {
    folder.file_name()?.to_str()?.strip_prefix("seed-")?.parse().ok()
}
