//! A world small enough to enumerate: bigram policies over five tokens, a judge that counts one of them.

use align_core::{Completions, Draws, Frozen, Reward, RewardFn};
use align_ppo::{Anchor, NoCritic, Ppo, PpoConfig, PpoParts};
use align_testkit::{BigramCritic, BigramLm, device, train_device};
use align_train::Metrics;
use burn::tensor::Tensor;
use serde_json::{Value, json};

/// The stop token; also what padding holds, so that nothing can tell the two apart by id.
pub(crate) const STOP: u32 = 0;
pub(crate) const VOCABULARY: usize = 5;

pub(crate) fn sft(seed: u64) -> BigramLm {
    BigramLm::random(VOCABULARY, &Draws::new(seed), &train_device())
}

/// How often `token` occurs in the response.
pub(crate) fn count_of(token: i64) -> Box<dyn Reward> {
    Box::new(RewardFn(move |completions: &Completions| -> Tensor<1> {
        let response = &completions.response;
        let hits = response.ids.clone().equal_elem(token).bool_and(response.mask.clone());
        hits.int().sum_dim(1).float().squeeze_dim(1)
    }))
}

pub(crate) fn prompts() -> Vec<Vec<u32>> {
    vec![vec![1], vec![2, 3], vec![4, 1, 2], vec![3], vec![4], vec![2]]
}

/// Small and quick; what is not named here is TRL's.
pub(crate) fn settings() -> Value {
    json!({
        "rollout_batch": 16, "microbatch": 8, "total_episodes": 64, "num_ppo_epochs": 2, "response_length": 4,
        "temperature": 1.0, "stop_token_ids": [STOP], "learning_rate": 0.1, "critic_learning_rate": 0.1, "seed": 3,
    })
}

/// [`settings`] with some of them replaced.
pub(crate) fn config(changes: Value) -> PpoConfig {
    let mut settings = settings();
    for (name, value) in changes.as_object().expect("an object") {
        settings[name] = value.clone();
    }
    serde_json::from_value(settings).expect("settings go together")
}

pub(crate) fn parts(
    policy: BigramLm,
    reference: impl Into<Anchor<BigramLm>>,
) -> PpoParts<BigramLm, BigramCritic> {
    PpoParts {
        policy,
        critic: Some(BigramCritic::zeros(VOCABULARY, &train_device())),
        reference: reference.into(),
        reward: count_of(2),
        regularizer: None,
        prompts: prompts(),
        gold: None,
        anchors: Vec::new(),
    }
}

pub(crate) fn without_critic(parts: PpoParts<BigramLm, BigramCritic>) -> PpoParts<BigramLm, NoCritic> {
    PpoParts {
        policy: parts.policy,
        critic: None,
        reference: parts.reference,
        reward: parts.reward,
        regularizer: parts.regularizer,
        prompts: parts.prompts,
        gold: parts.gold,
        anchors: parts.anchors,
    }
}

/// Token 0 is `a`, 1 is `b`.
pub(crate) fn letters(ids: &[u32]) -> String {
    ids.iter().filter_map(|&id| char::from_u32('a' as u32 + id)).collect()
}

/// PPO from `sft(1)` held to `sft(1)`.
pub(crate) fn plain_ppo(changes: Value) -> Ppo<BigramLm, BigramCritic> {
    let parts = parts(sft(1), Frozen::new(&sft(1)));
    Ppo::new(parts, config(changes)).expect("parts go together").with_detokenizer(letters)
}

pub(crate) fn table(policy: &BigramLm) -> Vec<f32> {
    policy.table.val().to_data().iter::<f32>().collect()
}

/// Runs all iterations, gives the metrics of each.
pub(crate) fn run<C: align_core::Critic>(ppo: &mut Ppo<BigramLm, C>, iterations: u64) -> Vec<Metrics> {
    (0..iterations).map(|iteration| ppo.iteration(iteration).expect("an iteration")).collect()
}

pub(crate) fn metric(metrics: &Metrics, name: &str) -> f64 {
    metrics.get(name).unwrap_or_else(|| panic!("`{name}` is reported"))
}

pub(crate) fn host(tensor: &Tensor<2>) -> Vec<f64> {
    tensor.to_data().iter::<f64>().collect()
}

/// Completions of the plain device from rows.
pub(crate) fn completions(prompts: &[Vec<u32>], responses: &[Vec<u32>]) -> Completions {
    Completions::from_rows(prompts, responses, &device())
}
