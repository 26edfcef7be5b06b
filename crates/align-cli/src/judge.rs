//! Rewards by name: a reward model, an ensemble, a server, a generated world's own.

use std::collections::HashMap;
use std::path::Path;

use align_core::{Completions, Reward};
use align_data::encode::{EncodeOptions, Encoder, Overlong, PromptResponse};
use align_data::rows::Dialogue;
use align_data::tokenizer::SpecialTokens;
use align_models::{RewardModel, SharedRewardModels};
use align_reward::{
    Aggregate, Ensemble, Manifest, OwnTokens, PairwiseManifest, RemoteConfig, RemoteReward, RequestForm,
    Retokenized,
};
use anyhow::{Context as _, Result, bail};
use burn::tensor::{Device, Tensor};

use crate::context::{Context, encoder, reward_model};
use crate::data::Prompts;
use crate::progress::working;
use crate::stages::gold_of;

/// What a folder holds that scores.
pub(crate) enum Judge {
    /// One model.
    One(Box<RewardModel>),
    /// Several, read as one.
    Many(Ensemble<SharedRewardModels>),
    /// A server's.
    Remote(RemoteReward),
    /// A model or ensemble that reads other tokens than the policy.
    Foreign(Box<dyn Reward>),
    /// A generated world's own.
    World(Box<dyn Reward>),
}

impl Judge {
    /// Opens a folder; `aggregate` takes the place of an ensemble's own.
    pub(crate) fn open(folder: &Path, device: &Device, aggregate: Option<Aggregate>) -> Result<Self> {
        if PairwiseManifest::read(folder)?.is_some() {
            bail!(
                "{} holds a pairwise preference model: it compares two answers and gives none a score; use it as an oracle of kind \
                 \"pairwise\"",
                folder.display()
            );
        }
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

    /// A model or ensemble by path, a world, or a server by its address, whom completions are sent to as `encoder` reads them.
    ///
    /// A model with another tokenizer judges the words of the completions, asked through its own template.
    pub(crate) fn find(
        reference: &str,
        aggregate: Option<Aggregate>,
        encoder: &Encoder,
        prompts: &Prompts,
        context: &Context,
    ) -> Result<Self> {
        if let Some(config) = server(reference)? {
            if let Some(aggregate) = aggregate {
                bail!("`aggregate` ({}) needs an ensemble, found the server {reference}", aggregate.label());
            }
            let tokenizer = encoder.shared_tokenizer();
            // With the marks of turns, as OpenRLHF sends it.
            let text = move |ids: &[u32]| tokenizer.decode(ids, SpecialTokens::Keep).unwrap_or_default();
            return Ok(Self::Remote(RemoteReward::new(config, text)));
        }
        if let Some(world) = gold_of(&context.path(reference)?)? {
            if let Some(aggregate) = aggregate {
                bail!("`aggregate` ({}) needs an ensemble, found the world {reference}", aggregate.label());
            }
            return Ok(Self::World(world));
        }
        let folder = context.model(reference)?;
        let judge = Self::open(&folder, &context.device, aggregate)
            .with_context(|| format!("`{reference}` is no reward model"))?;
        if same_tokens(encoder, &folder).is_ok() {
            return Ok(judge);
        }
        context.say_once(&format!(
            "`{reference}` has another tokenizer than the policy: it judges the words, through its own template"
        ));
        let own = own_tokens(encoder, &folder, judge.context_length(), prompts)?;
        Ok(Self::Foreign(Box::new(Retokenized::new(judge, own, context.device.clone()))))
    }

    /// The most tokens its models read; unknown of a server's.
    fn context_length(&self) -> Option<usize> {
        Some(self.first()?.backbone().config().context_length)
    }

    /// Whether the folder holds something that scores rather than speaks.
    pub(crate) fn is_in(folder: &Path) -> Result<bool> {
        let config = std::fs::read_to_string(folder.join("config.json")).unwrap_or_default();
        Ok(config.contains("ForSequenceClassification") || Manifest::read(folder)?.is_some())
    }

    /// The one model, or the first of several: where a critic starts. None of a server's or of one with other tokens.
    pub(crate) fn first(&self) -> Option<&RewardModel> {
        match self {
            Self::One(model) => Some(model),
            Self::Many(ensemble) => Some(&ensemble.members().members()[0]),
            Self::Remote(_) | Self::Foreign(_) | Self::World(_) => None,
        }
    }

    /// As a reward of whatever kind.
    fn reward(&self) -> &dyn Reward {
        match self {
            Self::One(model) => model,
            Self::Many(ensemble) => ensemble,
            Self::Remote(remote) => remote,
            Self::Foreign(foreign) => foreign,
            Self::World(world) => world,
        }
    }
}

impl Reward for Judge {
    fn score(&self, completions: &Completions) -> Tensor<1> {
        self.reward().score(completions)
    }

    fn take_metrics(&self) -> Vec<(String, f64)> {
        self.reward().take_metrics()
    }

    fn take_failure(&self) -> Option<String> {
        self.reward().take_failure()
    }
}

/// A judge of whatever kind, as a reward.
pub(crate) fn judge(
    reference: &str,
    aggregate: Option<Aggregate>,
    encoder: &Encoder,
    prompts: &Prompts,
    context: &Context,
) -> Result<Box<dyn Reward>> {
    Ok(Box::new(Judge::find(reference, aggregate, encoder, prompts, context)?))
}

/// Prompt and response of the policy in a reward's own tokens, or why they have none.
type Translate = dyn Fn(&[u32], &[u32]) -> Result<OwnTokens, String> + Send + Sync;

/// Completions of known prompts in the tokens of the model in `folder`: the prompt through its template, the response's words.
fn own_tokens(
    policy: &Encoder,
    folder: &Path,
    context_length: Option<usize>,
    prompts: &Prompts,
) -> Result<Box<Translate>> {
    let options =
        EncodeOptions { max_length: context_length, overlong: Overlong::CutResponse, ..Default::default() };
    let (own, policy) = (encoder(folder, None, options)?, policy.clone());
    let known: HashMap<Vec<u32>, Dialogue> =
        prompts.ids.iter().cloned().zip(prompts.dialogues.iter().cloned()).collect();
    let stop = own.stop_ids().to_vec();
    Ok(Box::new(move |prompt, response| {
        let dialogue = known.get(prompt).ok_or("a completion's prompt is none of the run's prompts")?;
        let text = policy.decode(response).map_err(|error| error.to_string())?;
        if text.trim().is_empty() {
            // Nothing but its end.
            let prompt = own.encode_prompt(dialogue).map_err(|error| error.to_string())?;
            return Ok((
                prompt,
                stop.first().map(|stop| vec![*stop]).ok_or("the reward model has no stop token")?,
            ));
        }
        let answer = Dialogue::Text(text);
        let PromptResponse { prompt, response: mut own_response } =
            own.encode_completion(dialogue, &answer).map_err(|error| error.to_string())?;
        // An answer that was cut off has no end in other tokens either.
        let ended = response.last().is_some_and(|last| policy.stop_ids().contains(last));
        if !ended && own_response.len() > 1 && own_response.last().is_some_and(|last| stop.contains(last)) {
            own_response.pop();
        }
        Ok((prompt, own_response))
    }))
}

/// What an address asks for: OpenRLHF's form, or vLLM's where the path ends so, with the model's name after a `#`.
fn server(reference: &str) -> Result<Option<RemoteConfig>> {
    if !(reference.starts_with("http://") || reference.starts_with("https://")) {
        return Ok(None);
    }
    let (url, model) = match reference.split_once('#') {
        Some((url, model)) => (url, Some(model.to_owned())),
        None => (reference, None),
    };
    let named = |path: &str| match &model {
        Some(model) => Ok(model.clone()),
        None => {
            bail!(
                "`{reference}`: expected the model's name after `#`, which vLLM's `{path}` asks for, found none"
            )
        }
    };
    let form = match url {
        url if url.ends_with("/classify") => RequestForm::VllmClassify { model: named("/classify")? },
        url if url.ends_with("/pooling") => RequestForm::VllmPooling { model: named("/pooling")? },
        _ => RequestForm::OpenRlhf {},
    };
    Ok(Some(RemoteConfig::new(url, form)))
}

/// Ids are the truth from rollout to score, so policies, references and anchors must mean the same by them.
pub(crate) fn same_tokens(policy: &Encoder, other: &Path) -> Result<()> {
    let (expected, other_encoder) = (policy.tokenizer(), encoder(other, None, Default::default())?);
    let found = other_encoder.tokenizer();
    if expected.fingerprint() != found.fingerprint() {
        bail!(
            "the model in {} has another tokenizer: expected the policy's, of {} tokens (fingerprint {}), found one of \
             {} tokens (fingerprint {})",
            other.display(),
            expected.vocab_size(),
            &expected.fingerprint()[..12],
            found.vocab_size(),
            &found.fingerprint()[..12]
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_say_what_they_ask_for() {
        let form = |reference: &str| server(reference).unwrap().map(|config| (config.url, config.form));
        assert_eq!(form("@reward"), None);
        assert_eq!(form("org/name"), None);
        let url = "http://localhost:5000/get_reward";
        assert_eq!(form(url), Some((url.to_owned(), RequestForm::OpenRlhf {})));
        let classify = RequestForm::VllmClassify { model: "org/rm".into() };
        let found = form("https://host/classify#org/rm");
        assert_eq!(found, Some(("https://host/classify".to_owned(), classify)));
        let message = server("http://host/pooling").unwrap_err().to_string();
        assert!(message.contains("expected the model's name after `#`"), "{message}");
    }
}
