//! A world small enough to enumerate: bigram policies over five tokens, a judge that counts one of them.

use align_core::{Completions, Draws, Frozen, Reward, RewardFn};
use align_superhf::{SuperHf, SuperHfConfig, SuperHfParts};
use align_testkit::{BigramLm, device, train_device};
use align_train::Metrics;
use burn::tensor::Tensor;
use serde_json::{Value, json};

/// The stop token; also what padding holds, so that nothing can tell the two apart by id.
pub(crate) const STOP: u32 = 0;
pub(crate) const VOCABULARY: usize = 5;

pub(crate) fn sft(seed: u64) -> BigramLm {
    BigramLm::random(VOCABULARY, &Draws::new(seed), &train_device())
}

/// One score for each response, by its tokens.
pub(crate) fn by_tokens(score: impl Fn(&[u32]) -> f32 + Send + Sync + 'static) -> Box<dyn Reward> {
    Box::new(RewardFn(move |completions: &Completions| -> Tensor<1> {
        let scores: Vec<f32> = completions.response.rows().iter().map(|row| score(row)).collect();
        Tensor::from_floats(scores.as_slice(), &device())
    }))
}

/// How often `token` occurs in the response.
pub(crate) fn count_of(token: u32) -> Box<dyn Reward> {
    by_tokens(move |row| row.iter().filter(|id| **id == token).count() as f32)
}

pub(crate) fn prompts() -> Vec<Vec<u32>> {
    vec![vec![1], vec![2, 3], vec![4, 1, 2], vec![3], vec![4], vec![2]]
}

/// Small and quick; what is not named here is the default.
pub(crate) fn settings() -> Value {
    json!({
        "superbatch_size": 6, "prompt_accumulation_steps": 3, "top_k": 2, "minibatch": 4, "microbatch": 4,
        "total_episodes": 18 * 8, "response_length": 4, "top_p": 1.0, "stop_token_ids": [STOP], "learning_rate": 0.1,
        "lr_schedule": { "kind": "cosine" }, "max_skipped_fraction": 0.4, "seed": 3,
    })
}

/// [`settings`] with some of them replaced.
pub(crate) fn config(changes: Value) -> SuperHfConfig {
    let mut settings = settings();
    for (name, value) in changes.as_object().expect("an object") {
        settings[name] = value.clone();
    }
    if changes.get("filter").is_some() {
        settings.as_object_mut().expect("an object").remove("top_k");
    }
    serde_json::from_value(settings).expect("settings go together")
}

/// From `sft(1)`, held to it, towards token 2.
pub(crate) fn parts() -> SuperHfParts<BigramLm> {
    SuperHfParts {
        policy: sft(1),
        prior: Box::new(Frozen::new(&sft(1))),
        reward: count_of(2),
        validation: None,
        gold: None,
        prompts: prompts(),
    }
}

pub(crate) fn superhf(changes: Value) -> SuperHf<BigramLm> {
    SuperHf::new(parts(), config(changes)).expect("parts go together")
}

/// Token 0 is `a`, 1 is `b`.
pub(crate) fn letters(ids: &[u32]) -> String {
    ids.iter().filter_map(|&id| char::from_u32('a' as u32 + id)).collect()
}

pub(crate) fn table(policy: &BigramLm) -> Vec<f32> {
    policy.table.val().to_data().iter::<f32>().collect()
}

/// Runs groups `0..groups`, gives the metrics of each.
pub(crate) fn run(superhf: &mut SuperHf<BigramLm>, groups: u64) -> Vec<Metrics> {
    (0..groups).map(|step| superhf.iteration(step).expect("a group")).collect()
}

pub(crate) fn metric(metrics: &Metrics, name: &str) -> f64 {
    metrics.get(name).unwrap_or_else(|| panic!("`{name}` is reported: {metrics:?}"))
}
