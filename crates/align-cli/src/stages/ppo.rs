//! PPO, once per seed. With a soup as its reference this is SALSA.

use std::path::{Path, PathBuf};

use align_core::{Draws, Frozen, Reference};
use align_data::encode::Encoder;
use align_models::{RewardModel, Transformer, ValueModel};
use align_ppo::{Anchor, MovingReference, Ppo, PpoParts};
use align_train::Progress;
use anyhow::{Result, bail};
use burn::module::Module;
use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::averaged::Averaged;
use super::warned::Warned;
use super::{adapters, complete, save_average, save_policy};
use crate::context::{self, Context, transformer};
use crate::data;
use crate::drive::{Job, RecipeText, drive};
use crate::held::Held;
use crate::judge::{Judge, judge, same_tokens};
use crate::recipe::stage::{PpoStage, StageKind};
use crate::recipe::vary::put;

pub(super) fn run(name: &str, stage: &PpoStage, folder: &Path, context: &Context) -> Result<Value> {
    if stage.seeds.is_empty() {
        bail!("`{name}`: `seeds` is empty, expected at least one");
    }
    let mut summaries = Vec::new();
    for &seed in &stage.seeds {
        let one = PpoStage { seeds: vec![seed], ..for_seed(stage, seed)? };
        let kind = StageKind::Ppo(Box::new(one.clone()));
        let folder = folder.join(format!("seed-{seed}"));
        let title = format!("{name} seed {seed}");
        let begin = |recipe| one_seed(&title, &one, seed, recipe, &folder, context);
        summaries.push(complete(&title, &kind, &folder, context, begin)?);
    }
    Ok(json!({ "seeds": stage.seeds, "runs": summaries }))
}

/// The stage with the seed in the place of `{seed}`.
fn for_seed(stage: &PpoStage, seed: u64) -> Result<PpoStage> {
    let mut value = toml::Value::try_from(stage)?;
    put(&mut value, "{seed}", &toml::Value::String(seed.to_string()));
    Ok(value.try_into()?)
}

fn one_seed(
    title: &str,
    stage: &PpoStage,
    seed: u64,
    recipe: RecipeText,
    folder: &Path,
    context: &Context,
) -> Result<Value> {
    let Start { parts, encoder, inputs, start, held } = start(title, stage, seed, context)?;
    let mut config = stage.ppo.clone();
    config.seed = seed;
    if config.stop_token_ids.is_empty() {
        config.stop_token_ids = encoder.stop_ids().to_vec();
    }
    let memory = memory(&parts, stage, context)?;
    let text = move |ids: &[u32]| encoder.decode(ids).unwrap_or_default();
    let mut ppo = Ppo::new(parts, config)?.with_detokenizer(text);
    let steps = ppo.plan().iterations as u64;
    eprintln!("{title}: {}", ppo.plan());
    eprintln!("{title}: {} for weights, gradients and moments, activations aside", HumanBytes(memory));
    let progress = Progress::new(title, &["objective/scores", "objective/kl", "gold/score"]);
    let bar = progress.bar().clone();
    let job = Job {
        folder,
        title: title.to_owned(),
        steps,
        checkpoint_every: stage.checkpoint_every,
        keep: 1,
        best: None,
        recipe,
        inputs,
        seeds: vec![("ppo", seed)],
        progress,
    };
    let mut averaged = Averaged::new(&mut ppo, stage.average.as_ref(), steps)?;
    let driven = drive(&mut Warned::new(title, bar, &mut averaged, context), job, context);
    held.explained(driven)?;
    save_average(folder, &start, averaged.finish()?.as_ref())?;
    let policy = ppo.into_policy().valid();
    save_policy(folder, &start, &policy, stage.lora.is_some())?;
    Ok(json!({ "seed": seed, "iterations": steps }))
}

/// Everything a run is put together from.
struct Start {
    parts: PpoParts<Transformer, ValueModel>,
    encoder: Encoder,
    inputs: Vec<PathBuf>,
    /// The policy's folder.
    start: PathBuf,
    /// The models it is held to.
    held: Held,
}

fn start(title: &str, stage: &PpoStage, seed: u64, context: &Context) -> Result<Start> {
    let context::Start { folder: start, model: base, encoder } =
        context.start(&stage.policy, &stage.encode)?;
    let prompts = data::prompts(&stage.prompts, &encoder, context)?;
    let reward = Judge::find(&stage.reward, stage.aggregate, &encoder, &prompts, context)?;
    if let Some(lora) = &stage.lora {
        adapters::check_without_dropout(lora)?;
    }
    let critic = match stage.ppo.advantage_estimator.needs_critic() {
        true => Some(critic(stage, &base, reward.first(), seed, context)?),
        false => None,
    };
    let policy = match &stage.lora {
        None => base.clone(),
        Some(lora) => base.clone().with_adapters(lora, &Draws::new(seed)),
    };
    let mut held = Held::default();
    let mut held_to = |reference: &str| -> Result<Box<dyn Reference>> {
        // Weights that adapters leave alone need not be in memory twice.
        if stage.lora.is_some() && context.model_to_read(reference)? == start {
            return Ok(Box::new(Frozen::new(&base)));
        }
        Ok(Box::new(held.open(reference, &encoder, context)?))
    };
    let reference: Anchor<Transformer> = match stage.following {
        None => held_to(&stage.reference)?.into(),
        Some(_) if stage.lora.is_some() => {
            bail!("`{title}`: `following` and `lora` do not go together: a reference follows whole weights")
        }
        Some(following) => {
            let folder = context.model(&stage.reference)?;
            same_tokens(&encoder, &folder)?;
            MovingReference::new(&transformer(&folder, &context.device)?, following).into()
        }
    };
    let anchors = stage
        .anchors
        .iter()
        .map(|(name, reference)| Ok((name.clone(), held_to(reference)?)))
        .collect::<Result<Vec<_>>>()?;
    let parts = PpoParts {
        policy,
        critic,
        reference,
        reward: Box::new(reward),
        regularizer: None,
        gold: stage.gold.as_deref().map(|gold| judge(gold, None, &encoder, &prompts, context)).transpose()?,
        prompts: prompts.ids,
        anchors,
    };
    let mut inputs = vec![start.clone(), prompts.path];
    // A server has nothing to hash.
    inputs.extend(context.model(&stage.reward).ok());
    for reference in [&stage.reference].into_iter().chain(stage.anchors.values()) {
        inputs.extend(context.read_inputs(reference)?);
    }
    Ok(Start { parts, encoder, inputs, start, held })
}

/// The critic starts from the reward model's backbone with a head of its own, unless the recipe names another start.
fn critic(
    stage: &PpoStage,
    policy: &Transformer,
    reward: Option<&RewardModel>,
    seed: u64,
    context: &Context,
) -> Result<ValueModel> {
    let device = context.training_device();
    let draws = Draws::new(seed);
    let critic = match &stage.critic {
        None => match reward {
            Some(reward) => ValueModel::from_reward_model(&reward.clone().train()),
            None => bail!(
                "`critic` is not given, expected a model: a reward from a server, or with a tokenizer of its own, has none to \
                 start from"
            ),
        },
        // Storage is shared until the first step, and with adapters for good.
        Some(start) if *start == stage.policy => ValueModel::from_transformer(policy, &draws),
        Some(start) => ValueModel::from_transformer(&transformer(&context.model(start)?, &device)?, &draws),
    };
    match &stage.lora {
        None => Ok(critic),
        Some(lora) => Ok(critic.with_adapters(lora, &draws.child(1))),
    }
}

/// Bytes that weights, gradients and AdamW's two moments take in f32, judges counted as large as the policy.
fn memory(parts: &PpoParts<Transformer, ValueModel>, stage: &PpoStage, context: &Context) -> Result<u64> {
    let policy = 4 * parts.policy.num_params() as u64;
    let mut bytes = policy + 12 * trainable(&parts.policy)?;
    if let Some(critic) = &parts.critic {
        bytes += 4 * critic.num_params() as u64 + 12 * trainable(critic)?;
    }
    let start = context.model(&stage.policy)?;
    for model in [&stage.reference].into_iter().chain(stage.anchors.values()) {
        let shared = stage.lora.is_some() && context.model_to_read(model)? == start;
        bytes += if shared { 0 } else { policy };
    }
    Ok(bytes + policy * (1 + u64::from(stage.gold.is_some())))
}

/// How many numbers of a module are trained.
fn trainable<M: Module>(module: &M) -> Result<u64> {
    let parameters = align_train::parameters(module)?;
    let trained = parameters.iter().filter(|parameter| parameter.trainable);
    Ok(trained.map(|parameter| parameter.shape.iter().product::<usize>() as u64).sum())
}
