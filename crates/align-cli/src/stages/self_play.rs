//! Self-play on a preference oracle: `nash` and `online`.

use std::path::Path;

use align_core::number::NonNegative;
use align_core::{CausalLm, Draws, Frozen};
use align_data::encode::Encoder;
use align_nash::game::stability_threshold;
use align_nash::self_play::{InpoStep, Measure, Method, SelfPlayConfig};
use align_nash::{LmGame, SelfPlay, SelfPlayParts};
use align_train::Progress;
use anyhow::{Result, bail};
use burn::module::Module;
use serde_json::{Value, json};

use super::averaged::Averaged;
use super::warned::Warned;
use super::{adapters, save_average, save_policy};
use crate::context::{Context, Start};
use crate::data::{self, Prompts};
use crate::drive::{Job, RecipeText, drive};
use crate::held::Held;
use crate::oracle::{oracle, without_noise};
use crate::progress::working;
use crate::recipe::preference::{ExactGap, SelfPlayStage};

/// What `align online` runs; the other methods are `align nash`'s.
pub(super) fn check_online(stage: &SelfPlayStage) -> Result<()> {
    match stage.self_play.method {
        Method::Inpo { .. } | Method::Sppo { .. } => bail!(
            "`self_play.method` is \"{}\", expected \"dpo\", \"xpo\" or \"nash_md\" of a stage of kind \"online\": the others are of kind \
             \"nash\"",
            stage.self_play.method.name()
        ),
        _ => Ok(()),
    }
}

pub(super) fn run(
    name: &str,
    stage: &SelfPlayStage,
    recipe: RecipeText,
    folder: &Path,
    context: &Context,
) -> Result<Value> {
    let Start { folder: start, model: base, encoder } = context.start(&stage.policy, &stage.encode)?;
    let (prompts, held_out) = data::split_prompts(&stage.prompts, &encoder, context)?;
    let mut held = Held::default();
    let reference: Box<dyn CausalLm> = match &stage.reference {
        None => Box::new(Frozen::new(&base)),
        Some(reference) => held.open(reference, &encoder, context)?,
    };
    let policy = match &stage.lora {
        None => base,
        Some(lora) => {
            adapters::check_without_dropout(lora)?;
            base.with_adapters(lora, &Draws::new(stage.seed))
        }
    };
    let mut config = stage.self_play.clone();
    config.seed = stage.seed;
    if config.stop_token_ids.is_empty() {
        config.stop_token_ids = encoder.stop_ids().to_vec();
    }
    let known = prompts.and(&held_out);
    let game = stage
        .exact_gap
        .map(|of| game(stage, &of, &config, &*reference, &encoder, &prompts, context))
        .transpose()?;
    if let Some(game) = &game {
        say_stability(name, game, &config)?;
    }
    let start_gap = game.as_ref().map(LmGame::reference_gap);
    let measures = game.map(|game| {
        let measure: Measure = Box::new(move |policy| game.duality_gap(policy));
        ("nash/duality_gap".to_owned(), measure)
    });
    let parts = SelfPlayParts {
        policy,
        reference: Box::new(reference),
        oracle: oracle(stage, folder, &encoder, &known, context)?,
        prompts: prompts.ids,
        held_out: held_out.ids,
        measures: measures.into_iter().collect(),
    };
    let text = {
        let encoder = encoder.clone();
        move |ids: &[u32]| encoder.decode(ids).unwrap_or_default()
    };
    let mut training = SelfPlay::new(parts, config)?.with_detokenizer(text);
    let (steps, plan) = (training.plan().steps(), *training.plan());
    eprintln!("{name}: {plan}");
    let shown = ["loss", "objective/kl", "nash/win_rate_vs_reference", "nash/duality_gap"];
    let progress = Progress::new(name, &shown);
    let bar = progress.bar().clone();
    let mut inputs = vec![start.clone(), prompts.path];
    if let Some(reference) = &stage.reference {
        inputs.extend(context.read_inputs(reference)?);
    }
    let job = Job {
        folder,
        title: name.to_owned(),
        steps,
        checkpoint_every: stage.checkpoint_every,
        keep: 1,
        best: None,
        recipe,
        inputs,
        seeds: vec![("self_play", stage.seed)],
        progress,
    };
    let mut averaged = Averaged::new(&mut training, stage.average.as_ref(), steps)?;
    held.explained(drive(&mut Warned::new(name, bar, &mut averaged, context), job, context))?;
    save_average(folder, &start, averaged.finish()?.as_ref())?;
    let policy = training.into_policy().valid();
    save_policy(folder, &start, &policy, stage.lora.is_some())?;
    let mut summary = json!({ "iterations": plan.iterations, "steps": steps });
    if let Some(gap) = start_gap {
        summary["reference_gap"] = json!(gap);
    }
    Ok(summary)
}

/// Says from which η on INPO settles in this game, which its enumeration tells.
fn say_stability(name: &str, game: &LmGame, config: &SelfPlayConfig) -> Result<()> {
    let Some(InpoStep { eta, tau }) = config.method.inpo(0)?.filter(|step| step.tau > 0.0) else {
        return Ok(());
    };
    let games = game.games().iter().zip(game.nash()?);
    let circle = games.map(|(game, nash)| game.rotation(&nash)).fold(0.0, f64::max);
    let threshold = stability_threshold(tau, circle);
    let verdict = if eta > threshold { "as it does for" } else { "not for" };
    eprintln!("{name}: in this game INPO settles for eta above {threshold:.3}, {verdict} {eta}");
    Ok(())
}

/// All answers there are, and how the oracle compares them, without the noise that labels may have.
fn game(
    stage: &SelfPlayStage,
    of: &ExactGap,
    config: &SelfPlayConfig,
    reference: &dyn CausalLm,
    encoder: &Encoder,
    prompts: &Prompts,
    context: &Context,
) -> Result<LmGame> {
    let own = config.method.inpo(0)?.map(|step| step.tau);
    let Some(tau) = of.tau.map(NonNegative::get).or(own) else {
        bail!("`exact_gap.tau` is not given, expected one: {} has no tau of its own", config.method.name())
    };
    let oracle = without_noise(&stage.oracle, encoder, prompts, context)?;
    let _working = working("enumerating the game");
    Ok(LmGame::enumerate(
        &*oracle,
        reference,
        &prompts.ids,
        config.response_length,
        &config.stop_token_ids,
        tau,
        of.most,
    )?)
}
