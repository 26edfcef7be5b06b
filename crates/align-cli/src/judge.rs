//! Rewards by name: a reward model, an ensemble, a generated world's own.

use std::path::Path;

use align_core::{Completions, Reward};
use align_models::{Backbone, RewardModel, SharedRewardModels};
use align_reward::{Aggregate, Ensemble, Manifest};
use anyhow::{Context as _, Result, bail};
use burn::tensor::{Device, Tensor};

use crate::context::{Context, reward_model};
use crate::progress::working;
use crate::stages::gold_of;

/// What a folder holds that scores.
pub(crate) enum Judge {
    /// One model.
    One(Box<RewardModel>),
    /// Several, read as one.
    Many(Ensemble<SharedRewardModels>),
}

impl Judge {
    /// Opens a folder; `aggregate` takes the place of an ensemble's own.
    pub(crate) fn open(folder: &Path, device: &Device, aggregate: Option<Aggregate>) -> Result<Self> {
        match (Manifest::read(folder)?, aggregate) {
            (Some(manifest), _) => {
                let _working = working(&format!("loading {}", folder.display()));
                let ensemble = manifest
                    .load(folder, device, aggregate)
                    .with_context(|| format!("cannot load the ensemble in {}", folder.display()))?;
                Ok(Self::Many(ensemble))
            }
            (None, Some(aggregate)) => bail!(
                "{} holds one reward model, and `aggregate` ({}) needs an ensemble: train one with `[ensemble]`, or leave \
                 `aggregate` out",
                folder.display(),
                aggregate.label()
            ),
            (None, None) => Ok(Self::One(Box::new(reward_model(folder, device, None)?))),
        }
    }

    /// Whether the folder holds something that scores rather than speaks.
    pub(crate) fn is_in(folder: &Path) -> Result<bool> {
        let config = std::fs::read_to_string(folder.join("config.json")).unwrap_or_default();
        Ok(config.contains("ForSequenceClassification") || Manifest::read(folder)?.is_some())
    }

    /// The one model, or the first of several: where a critic starts.
    pub(crate) fn first(&self) -> &RewardModel {
        match self {
            Self::One(model) => model,
            Self::Many(ensemble) => &ensemble.members().members()[0],
        }
    }

    /// The decoder, or the first of several.
    pub(crate) fn backbone(&self) -> &Backbone {
        self.first().backbone()
    }
}

impl Reward for Judge {
    fn score(&self, completions: &Completions) -> Tensor<1> {
        match self {
            Self::One(model) => model.score(completions),
            Self::Many(ensemble) => ensemble.score(completions),
        }
    }

    fn take_metrics(&self) -> Vec<(String, f64)> {
        match self {
            Self::One(model) => model.take_metrics(),
            Self::Many(ensemble) => ensemble.take_metrics(),
        }
    }
}

/// A judge that may be a world: for gold rewards and evaluations.
pub(crate) fn judge(
    reference: &str,
    aggregate: Option<Aggregate>,
    context: &Context,
) -> Result<Box<dyn Reward>> {
    let folder = context.path(reference)?;
    if let Some(gold) = gold_of(&folder)? {
        return Ok(gold);
    }
    let folder = context.model(reference)?;
    let judge = Judge::open(&folder, &context.device, aggregate)
        .with_context(|| format!("`{reference}` is neither a world nor a reward model"))?;
    Ok(Box::new(judge))
}
