//! A group of SuperHF beside an iteration of PPO: the same transformer, reward model, prompts and number of answers.
//!
//! 8 prompts of 16 tokens, 16 answers of 32 tokens each. SuperHF as released: K = 1, β = 0.35 to the start, steps of two answers. PPO
//! with TRL's four epochs of one step, once with a critic as large as the policy and once without (leave-one-out). The three
//! take turns within one process, so that what others do to the machine falls on all of them.

use std::time::Instant;

use align_core::{Critic, Draws, Frozen};
use align_models::{RewardModel, Transformer, ValueModel};
use align_ppo::{AdvantageEstimator, NoCritic, Ppo, PpoConfig, PpoParts};
use align_superhf::{SuperHf, SuperHfConfig, SuperHfParts};
use align_train::Metrics;
use burn::module::Module;
use serde_json::{Map, Value, json};

use crate::{median, memory};

const PROMPTS: usize = 8;
const SAMPLES: usize = 16;
const NEW: usize = 32;
/// Sequences that go through a model at once.
const AT_ONCE: usize = 64;

fn superhf(model: &Transformer, prompts: Vec<Vec<u32>>) -> SuperHf<Transformer> {
    let config = SuperHfConfig {
        superbatch_size: SAMPLES,
        prompt_accumulation_steps: PROMPTS,
        response_length: NEW,
        microbatch: AT_ONCE,
        ..SuperHfConfig::default()
    };
    let parts = SuperHfParts {
        policy: model.clone().train(),
        prior: Box::new(Frozen::new(model)),
        reward: Box::new(RewardModel::from_transformer(model, &Draws::new(3))),
        validation: None,
        gold: None,
        prompts,
    };
    SuperHf::new(parts, config).expect("a SuperHF run")
}

fn ppo<C: Critic>(
    model: &Transformer,
    critic: Option<C>,
    advantage_estimator: AdvantageEstimator,
    prompts: Vec<Vec<u32>>,
) -> Ppo<Transformer, C> {
    let sequences = PROMPTS * SAMPLES;
    let config = PpoConfig {
        rollout_batch: sequences,
        num_generations: SAMPLES,
        minibatch: Some(sequences),
        microbatch: AT_ONCE,
        total_episodes: 1000 * sequences,
        num_ppo_epochs: 4,
        response_length: NEW,
        advantage_estimator,
        ..PpoConfig::default()
    };
    let parts = PpoParts {
        policy: model.clone().train(),
        critic,
        reference: Frozen::new(model).into(),
        reward: Box::new(RewardModel::from_transformer(model, &Draws::new(3))),
        regularizer: None,
        prompts,
        gold: None,
        anchors: Vec::new(),
    };
    Ppo::new(parts, config).expect("a PPO run")
}

/// Where an iteration's seconds went.
#[derive(Default)]
struct Split {
    whole: Vec<f64>,
    parts: [Vec<f64>; 4],
}

const PARTS: [&str; 4] = ["generate", "log_probs", "score", "update"];

impl Split {
    fn add(&mut self, iteration: impl FnOnce() -> Metrics) {
        let begun = Instant::now();
        let metrics = iteration();
        self.whole.push(begun.elapsed().as_secs_f64());
        for (name, part) in PARTS.iter().zip(&mut self.parts) {
            part.push(metrics.get(&format!("timing_s/{name}")).expect("reported"));
        }
    }

    fn medians(&self) -> Value {
        let mut found = Map::from_iter([("whole".to_owned(), json!(median(&self.whole)))]);
        found.extend(
            PARTS.iter().zip(&self.parts).map(|(name, part)| ((*name).to_owned(), json!(median(part)))),
        );
        Value::Object(found)
    }

    /// How many times as long as another's iteration of the same round: median, least and most.
    fn over(&self, other: &Self) -> [f64; 3] {
        let mut ratios: Vec<f64> = self.whole.iter().zip(&other.whole).map(|(a, b)| a / b).collect();
        ratios.sort_by(f64::total_cmp);
        [median(&ratios), ratios[0], ratios[ratios.len() - 1]]
    }
}

pub(crate) fn run(model: &Transformer, vocabulary: usize, rounds: usize, prompts: Vec<Vec<u32>>) {
    let mut superhf = superhf(model, prompts.clone());
    let critic = ValueModel::from_transformer(model, &Draws::new(2)).train();
    let mut with = ppo(model, Some(critic), AdvantageEstimator::Gae, prompts.clone());
    let mut without = ppo::<NoCritic>(model, None, AdvantageEstimator::LeaveOneOut, prompts);
    let mut splits: [Split; 3] = Default::default();
    // One round is not counted.
    for round in 0..=rounds as u64 {
        if round == 1 {
            splits = Default::default();
        }
        splits[0].add(|| superhf.iteration(round).expect("a group"));
        splits[1].add(|| with.iteration(round).expect("an iteration"));
        splits[2].add(|| without.iteration(round).expect("an iteration"));
    }
    let [group, gae, no_critic] = &splits;
    let found = json!({
        "task": "superhf", "vocabulary": vocabulary, "rounds": rounds, "peak_rss_mib": memory("VmHWM").round(),
        "superhf_s": group.medians(), "ppo_gae_s": gae.medians(), "ppo_no_critic_s": no_critic.medians(),
        "superhf_over_ppo_gae": group.over(gae), "superhf_over_ppo_no_critic": group.over(no_critic),
    });
    println!("{found}");
}
