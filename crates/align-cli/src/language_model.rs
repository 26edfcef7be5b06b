//! Models that are read and not trained: a folder with weights, or a fusion of several.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use align_core::CausalLm;
use align_data::encode::{EncodeOptions, Encoder};
use align_fusion::Fusion;
use anyhow::{Context as _, Result, bail};
use burn::tensor::{DType, Device};

use crate::context::{Context, encoder, transformer_as};
use crate::fusion::{FusionFile, MappedMember, Opened, fusion_file};

/// A language model opened for sampling and scoring.
pub(crate) struct OpenModel {
    /// The model.
    pub(crate) lm: Box<dyn CausalLm>,
    /// The folder whose tokenizer and template it speaks: its own, or that of a fusion's base.
    pub(crate) folder: PathBuf,
    failures: Failures,
}

impl OpenModel {
    /// Opens a model folder, or a fusion by its file or folder. Adapters in PEFT's form go over a model.
    pub(crate) fn open(path: &Path, device: &Device, dtype: DType, adapter: Option<&Path>) -> Result<Self> {
        if let Some(file) = fusion_file(path) {
            if let Some(adapter) = adapter {
                bail!(
                    "{} is a fusion, and the adapters in {} go over one model: name them in the file, as \
                     `{{ model = …, adapter = … }}`",
                    file.display(),
                    adapter.display()
                );
            }
            let fusion = FusionFile::read(&file)?;
            let opened = fusion
                .open(device, dtype)
                .with_context(|| format!("cannot open the fusion in {}", file.display()))?;
            return Ok(Self::of_fusion(opened, fusion.tokenizer_folder()));
        }
        let mut model = transformer_as(path, device, dtype)?;
        if let Some(adapter) = adapter {
            model = model.load_adapters(adapter).with_context(|| cannot_load_adapters(adapter))?;
        }
        Ok(Self { lm: Box::new(model), folder: path.to_owned(), failures: Failures::default() })
    }

    fn of_fusion(Opened { fusion, mapped }: Opened, folder: &Path) -> Self {
        let fusion = Arc::new(fusion);
        let failures = Failures { fusion: Some(fusion.clone()), mapped };
        Self { lm: Box::new(fusion), folder: folder.to_owned(), failures }
    }

    /// Its tokenizer and template, checked against its vocabulary.
    pub(crate) fn encoder(&self, options: EncodeOptions) -> Result<Encoder> {
        encoder(&self.folder, Some(self.lm.vocab_size()), options)
    }

    /// The model as a fusion, if it is one.
    pub(crate) fn fusion(&self) -> Option<&Fusion<'static>> {
        self.failures.fusion.as_deref()
    }

    /// Why its scores are no numbers, if it knows: a fusion keeps the first of its failures.
    pub(crate) fn failure(&self) -> Option<anyhow::Error> {
        self.failures.take()
    }

    /// A result of using the model, with the model's own failure in the place of what followed from it.
    pub(crate) fn explained<T, E: Into<anyhow::Error>>(&self, result: Result<T, E>) -> Result<T> {
        self.failures.explained(result)
    }

    /// The model, and what to ask for its failures once it has gone elsewhere.
    pub(crate) fn into_parts(self) -> (Box<dyn CausalLm>, Failures) {
        (self.lm, self.failures)
    }
}

/// Where a model keeps what went wrong; nothing of a model that is no fusion.
#[derive(Default)]
pub(crate) struct Failures {
    fusion: Option<Arc<Fusion<'static>>>,
    mapped: Vec<(String, Arc<MappedMember>)>,
}

impl Failures {
    /// The first failure since this was last asked. What a member could not read comes before the scores that follow from it.
    pub(crate) fn take(&self) -> Option<anyhow::Error> {
        let unread = self.mapped.iter().find_map(|(role, member)| {
            Some(anyhow::Error::new(member.take_failure()?).context(format!("{role} cannot read a row")))
        });
        unread.or_else(|| Some(anyhow::Error::new(self.fusion.as_ref()?.take_failure()?)))
    }

    /// A result of using the model, with the model's own failure in the place of what followed from it.
    pub(crate) fn explained<T, E: Into<anyhow::Error>>(&self, result: Result<T, E>) -> Result<T> {
        result.map_err(|error| self.take().unwrap_or_else(|| error.into()))
    }
}

/// What a failure says first.
pub(crate) fn cannot_load_adapters(folder: &Path) -> String {
    format!("cannot load the adapters in {}", folder.display())
}

/// The folder whose tokenizer and template a model speaks, found without loading it.
pub(crate) fn tokenizer_folder(path: &Path) -> Result<PathBuf> {
    match fusion_file(path) {
        Some(file) => Ok(FusionFile::read(&file)?.tokenizer_folder().to_owned()),
        None => Ok(path.to_owned()),
    }
}

impl Context {
    /// Opens the one model a reference means, to be read and not trained: a folder, a hub id, a stage, a fusion.
    pub(crate) fn language_model(&self, reference: &str) -> Result<OpenModel> {
        self.open(&self.model_to_read(reference)?)
    }

    /// Opens what [`models_to_read`](Self::models_to_read) found.
    pub(crate) fn open(&self, path: &Path) -> Result<OpenModel> {
        OpenModel::open(path, &self.device, DType::F32, None)
    }
}
