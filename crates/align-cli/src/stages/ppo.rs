//! PPO, once per seed. With a soup as its reference this is SALSA.

use std::path::Path;

use align_core::{Draws, Frozen, Reference, Reward};
use align_data::encode::Encoder;
use align_data::rows::PromptRow;
use align_models::checkpoint::copy_companions;
use align_models::{RewardModel, Transformer, ValueModel};
use align_ppo::{Anchor, MovingReference, Ppo, PpoParts};
use align_train::Algorithm;
use anyhow::{Context as _, Result, bail};
use burn::module::Module;
use serde_json::{Value, json};

use super::gold_of;
use crate::context::Context;
use crate::data;
use crate::drive::{Job, RecipeText, drive};
use crate::recipe::parts::MODEL;
use crate::recipe::stage::PpoStage;

pub(super) fn run(
    name: &str,
    stage: &PpoStage,
    recipe: RecipeText,
    folder: &Path,
    context: &Context,
) -> Result<Value> {
    if stage.seeds.is_empty() {
        bail!("`{name}`: `seeds` is empty, expected at least one");
    }
    let mut summaries = Vec::new();
    for &seed in &stage.seeds {
        let folder = folder.join(format!("seed-{seed}"));
        if folder.join(MODEL).is_dir() && context.resume {
            continue;
        }
        let mut recipe = recipe.clone();
        recipe.json["seeds"] = json!([seed]);
        summaries.push(one_seed(name, stage, seed, recipe, &folder, context)?);
    }
    Ok(json!({ "seeds": stage.seeds, "runs": summaries }))
}

fn one_seed(
    name: &str,
    stage: &PpoStage,
    seed: u64,
    recipe: RecipeText,
    folder: &Path,
    context: &Context,
) -> Result<Value> {
    let start = context.model(&stage.policy)?;
    let policy = context.transformer(&start, &context.training_device())?;
    let options = stage.encode.options(Some(policy.config().context_length));
    let encoder = context.encoder(&start, Some(policy.config().vocab_size), options)?;
    let rows = data::rows::<PromptRow>(&stage.prompts, context)?;
    let prompts =
        data::encode("prompts", &rows.rows, &encoder, |encoder, row| encoder.encode_prompt(&row.prompt))?;

    let mut config = stage.ppo.clone();
    config.seed = seed;
    if config.stop_token_ids.is_empty() {
        config.stop_token_ids = encoder.stop_ids().to_vec();
    }
    let reward_folder = context.model(&stage.reward)?;
    let reward = RewardModel::from_pretrained(&reward_folder, &context.device, None)
        .with_context(|| format!("cannot load the reward model in {}", reward_folder.display()))?;
    same_tokens(&encoder, &reward_folder, context)?;
    let critic = match config.advantage_estimator.needs_critic() {
        true => Some(critic(stage, &reward_folder, seed, context)?),
        false => None,
    };
    let frozen = |reference: &str| -> Result<Frozen<Transformer>> {
        Ok(Frozen::new(&context.transformer(&context.model(reference)?, &context.device)?))
    };
    let reference: Anchor<Transformer> = match stage.following {
        None => frozen(&stage.reference)?.into(),
        Some(following) => {
            let start = context.transformer(&context.model(&stage.reference)?, &context.device)?;
            MovingReference::new(&start, following).into()
        }
    };
    let anchors = stage
        .anchors
        .iter()
        .map(|(name, reference)| Ok((name.clone(), Box::new(frozen(reference)?) as Box<dyn Reference>)))
        .collect::<Result<Vec<_>>>()?;
    let parts = PpoParts {
        policy,
        critic,
        reference,
        reward: Box::new(reward),
        regularizer: None,
        prompts,
        gold: stage.gold.as_deref().map(|gold| judge(gold, context)).transpose()?,
        anchors,
    };
    let mut ppo = Ppo::new(parts, config)?;
    let steps = ppo.plan().iterations as u64;
    eprintln!("{name}, seed {seed}: {}", ppo.plan());
    let job = Job {
        folder,
        title: format!("{name} seed {seed}"),
        steps,
        checkpoint_every: stage.checkpoint_every,
        keep: 1,
        best: None,
        recipe,
        inputs: vec![start.clone(), reward_folder, rows.path],
        seeds: vec![("ppo", seed)],
        shown: &["objective/scores", "objective/kl", "gold/score"],
    };
    drive(&mut Warned(name, &mut ppo), job, context)?;
    let out = folder.join(MODEL);
    ppo.into_policy().valid().save_pretrained(&out)?;
    copy_companions(&start, &out)?;
    Ok(json!({ "seed": seed, "iterations": steps }))
}

/// The critic starts from the reward model's backbone with a head of its own, unless the recipe names another start.
fn critic(stage: &PpoStage, reward: &Path, seed: u64, context: &Context) -> Result<ValueModel> {
    let device = context.training_device();
    let draws = Draws::new(seed);
    match &stage.critic {
        None => Ok(ValueModel::from_reward_model(&RewardModel::from_pretrained(reward, &device, None)?)),
        Some(start) => {
            Ok(ValueModel::from_transformer(&context.transformer(&context.model(start)?, &device)?, &draws))
        }
    }
}

/// A judge by name: a world's gold reward or a reward model.
pub(super) fn judge(reference: &str, context: &Context) -> Result<Box<dyn Reward>> {
    let folder = context.path(reference)?;
    if let Some(gold) = gold_of(&folder)? {
        return Ok(gold);
    }
    let folder = context.model(reference)?;
    let model = RewardModel::from_pretrained(&folder, &context.device, None)
        .with_context(|| format!("`{reference}` is neither a world nor a reward model"))?;
    Ok(Box::new(model))
}

/// Ids are the truth from rollout to score, so policy and reward model must mean the same by them.
fn same_tokens(encoder: &Encoder, reward: &Path, context: &Context) -> Result<()> {
    let other = context.encoder(reward, None, Default::default())?;
    if encoder.tokenizer().fingerprint() != other.tokenizer().fingerprint() {
        bail!(
            "the reward model in {} has another tokenizer than the policy: expected fingerprint {}, found {}",
            reward.display(),
            &encoder.tokenizer().fingerprint()[..12],
            &other.tokenizer().fingerprint()[..12]
        );
    }
    Ok(())
}

/// Prints what PPO warns of.
struct Warned<'a>(&'a str, &'a mut Ppo<Transformer, ValueModel>);

impl Algorithm for Warned<'_> {
    fn iterate(&mut self, step: u64) -> Result<align_train::Metrics, align_train::TrainError> {
        let metrics = self.1.iterate(step)?;
        for warning in self.1.take_warnings() {
            eprintln!("{}: step {}: warning: {warning}", self.0, step + 1);
        }
        Ok(metrics)
    }

    fn save(&self, folder: &Path) -> Result<(), align_train::TrainError> {
        self.1.save(folder)
    }

    fn restore(&mut self, folder: &Path) -> Result<(), align_train::TrainError> {
        self.1.restore(folder)
    }
}
