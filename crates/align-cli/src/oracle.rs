//! Preference oracles by name: rewards, pairwise models, worlds, mixtures, judges over HTTP, recorded answers.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use align_core::{BradleyTerry, Completions, NoisyPreference, Preference, PreferenceMixture};
use align_data::encode::Encoder;
use align_data::tokenizer::SpecialTokens;
use align_reward::{PairwiseManifest, Recorded, RemoteJudge};
use anyhow::{Context as _, Result, bail};
use burn::tensor::Tensor;

use crate::context::Context;
use crate::data::{self, Prompts};
use crate::judge::{judge, same_tokens};
use crate::progress::working;
use crate::recipe::preference::{OracleConfig, SelfPlayStage};
use crate::stages::preference_of;

/// Where an oracle's answers are kept in a stage's folder.
const RECORD: &str = "oracle.jsonl";

/// What a self-play stage asks, with its noise and its record.
pub(crate) fn oracle(
    stage: &SelfPlayStage,
    folder: &Path,
    encoder: &Encoder,
    prompts: &Prompts,
    context: &Context,
) -> Result<Box<dyn Preference>> {
    let remote = matches!(stage.oracle, OracleConfig::Http(_));
    let asked = without_noise(&stage.oracle, encoder, prompts, context)?;
    let recorded: Box<dyn Preference> = match stage.record_oracle.unwrap_or(remote) {
        false => asked,
        true => Box::new(Kept::open(folder.join(RECORD), asked)?),
    };
    Ok(match stage.label_noise.get() {
        0.0 => recorded,
        _ => Box::new(NoisyPreference { judge: recorded, rate: stage.label_noise }),
    })
}

/// An oracle whose answers are kept in a file. The file is made with the first question: the folder of a new run must not be there
/// before the run begins.
struct Kept {
    path: PathBuf,
    oracle: Arc<dyn Preference>,
    /// Or why there is no file.
    recorded: OnceLock<Result<Recorded<Arc<dyn Preference>>, String>>,
}

impl Kept {
    /// Reads the answers that an earlier run has left.
    fn open(path: PathBuf, oracle: Box<dyn Preference>) -> Result<Self> {
        let kept = Self { path, oracle: Arc::from(oracle), recorded: OnceLock::new() };
        if kept.path.exists() {
            let recorded = Recorded::open(&kept.path, Arc::clone(&kept.oracle))?;
            if recorded.known() > 0 {
                eprintln!("{} recorded answers of the oracle are used again", recorded.known());
            }
            let _ = kept.recorded.set(Ok(recorded));
        }
        Ok(kept)
    }
}

impl Preference for Kept {
    /// NaN where the file cannot be made.
    fn prefer(&self, first: &Completions, second: &Completions) -> Tensor<1> {
        let open = || {
            Recorded::open(&self.path, Arc::clone(&self.oracle))
                .map_err(|error| format!("{:#}", anyhow::Error::new(error)))
        };
        match self.recorded.get_or_init(open) {
            Ok(recorded) => recorded.prefer(first, second),
            Err(_) => {
                let device = first.response.ids.device().without_autodiff();
                Tensor::full([first.batch_size()], f32::NAN, &device)
            }
        }
    }

    fn take_metrics(&self) -> Vec<(String, f64)> {
        match self.recorded.get() {
            Some(Ok(recorded)) => recorded.take_metrics(),
            _ => Vec::new(),
        }
    }

    fn take_failure(&self) -> Option<String> {
        match self.recorded.get()? {
            Ok(recorded) => recorded.take_failure(),
            Err(error) => Some(error.clone()),
        }
    }
}

/// The oracle a table names.
pub(crate) fn without_noise(
    config: &OracleConfig,
    encoder: &Encoder,
    prompts: &Prompts,
    context: &Context,
) -> Result<Box<dyn Preference>> {
    Ok(match config {
        OracleConfig::Reward { model, aggregate } => {
            Box::new(BradleyTerry(judge(model, *aggregate, encoder, prompts, context)?))
        }
        OracleConfig::Pairwise { model } => {
            let folder = context.model(model)?;
            same_tokens(encoder, &folder)?;
            let _working = working(&format!("loading {}", folder.display()));
            let found = PairwiseManifest::read(&folder)?;
            let Some(manifest) = found else {
                bail!(
                    "`{model}` is no pairwise preference model: expected one trained with `pairwise = true`"
                )
            };
            Box::new(manifest.load(&folder, &context.device)?)
        }
        OracleConfig::World { world } => {
            let folder = context.path(world)?;
            let preference =
                preference_of(&folder)?.with_context(|| format!("`{world}` is no generated world"))?;
            // A proxy's folder lies inside its world's and has no tokenizer of its own.
            if folder.join("tokenizer.json").exists() {
                same_tokens(encoder, &folder)?;
            }
            preference
        }
        OracleConfig::Mixture { parts } => {
            if parts.is_empty() {
                bail!("`oracle.parts` is empty, expected at least one criterion");
            }
            let parts = parts
                .iter()
                .map(|part| Ok((part.weight.get(), without_noise(&part.oracle, encoder, prompts, context)?)))
                .collect::<Result<_>>()?;
            Box::new(PreferenceMixture::new(parts))
        }
        OracleConfig::Http(config) => {
            let tokenizer = encoder.shared_tokenizer();
            let text = move |ids: &[u32]| tokenizer.decode(ids, SpecialTokens::Skip).unwrap_or_default();
            Box::new(RemoteJudge::new((**config).clone(), text)?)
        }
        OracleConfig::Recorded { path } => Box::new(Recorded::table(&data::resolve(path, context)?)?),
    })
}
