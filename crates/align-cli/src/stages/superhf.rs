//! SuperHF: filter answers by a reward, fine-tune on the best with a KL prior.

use std::path::Path;

use align_core::{Draws, Frozen, Reference};
use align_superhf::config::PriorRole;
use align_superhf::{NoPrior, SuperHf, SuperHfParts};
use align_train::Progress;
use anyhow::{Result, bail};
use burn::module::Module;
use serde_json::{Value, json};

use super::averaged::Averaged;
use super::warned::Warned;
use super::{adapters, save_average, save_policy};
use crate::context::{Context, Start};
use crate::data;
use crate::drive::{Job, RecipeText, drive};
use crate::held::Held;
use crate::judge::{Judge, judge};
use crate::recipe::superhf::SuperHfStage;

pub(super) fn run(
    name: &str,
    stage: &SuperHfStage,
    recipe: RecipeText,
    folder: &Path,
    context: &Context,
) -> Result<Value> {
    let Start { folder: start, model: base, encoder } = context.start(&stage.policy, &stage.encode)?;
    let prompts = data::prompts(&stage.prompts, &encoder, context)?;
    let mut config = stage.superhf.clone();
    config.seed = stage.seed;
    if config.stop_token_ids.is_empty() {
        config.stop_token_ids = encoder.stop_ids().to_vec();
    }
    let mut held = Held::default();
    let prior: Box<dyn Reference> = match (config.prior, &stage.prior) {
        (PriorRole::None, None) => Box::new(NoPrior),
        (PriorRole::None, Some(prior)) => {
            bail!("`{name}`: `prior` is {prior:?} and `superhf.prior` is \"none\": expected one of the two")
        }
        (PriorRole::Other, None) => {
            bail!(
                "`{name}`: `superhf.prior` is \"other\" and `prior` is not given: expected the model that is meant"
            )
        }
        (PriorRole::Start, None) => Box::new(Frozen::new(&base)),
        (_, Some(prior)) => Box::new(held.open(prior, &encoder, context)?),
    };
    let policy = match &stage.lora {
        None => base,
        Some(lora) => {
            adapters::check_without_dropout(lora)?;
            base.with_adapters(lora, &Draws::new(stage.seed))
        }
    };
    let named = |reference: &Option<String>| {
        let judge = reference.as_deref().map(|reference| judge(reference, None, &encoder, &prompts, context));
        judge.transpose()
    };
    let parts = SuperHfParts {
        policy,
        prior,
        reward: Box::new(Judge::find(&stage.reward, stage.aggregate, &encoder, &prompts, context)?),
        validation: named(&stage.validation)?,
        gold: named(&stage.gold)?,
        prompts: prompts.ids,
    };
    let text = {
        let encoder = encoder.clone();
        move |ids: &[u32]| encoder.decode(ids).unwrap_or_default()
    };
    let mut training = SuperHf::new(parts, config)?.with_detokenizer(text);
    let plan = *training.plan();
    eprintln!("{name}: {plan}");
    let progress = Progress::new(name, &["objective/scores", "superhf/similarity", "gold/score"]);
    let bar = progress.bar().clone();
    let mut inputs = vec![start.clone(), prompts.path];
    // A server has nothing to hash.
    inputs.extend(context.model(&stage.reward).ok());
    if let Some(prior) = &stage.prior {
        inputs.extend(context.read_inputs(prior)?);
    }
    let job = Job {
        folder,
        title: name.to_owned(),
        steps: plan.groups,
        checkpoint_every: stage.checkpoint_every,
        keep: 1,
        best: None,
        recipe,
        inputs,
        seeds: vec![("superhf", stage.seed)],
        progress,
    };
    let mut averaged = Averaged::new(&mut training, stage.average.as_ref(), plan.groups)?;
    held.explained(drive(&mut Warned::new(name, bar, &mut averaged, context), job, context))?;
    save_average(folder, &start, averaged.finish()?.as_ref())?;
    let policy = training.into_policy().valid();
    save_policy(folder, &start, &policy, stage.lora.is_some())?;
    Ok(json!({ "groups": plan.groups, "completions": plan.groups * plan.rollout() as u64 }))
}
