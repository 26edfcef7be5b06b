//! A knob that changes nothing is a defect: each is turned, and the outcome must differ.

use std::collections::BTreeSet;

use align_core::Frozen;
use align_ppo::Ppo;
use align_ppo::config::NAMES;
use serde_json::{Value, json};

use crate::world::{STOP, config, letters, parts, sft, table, without_critic};

/// Knobs that refuse or warn rather than change what is learnt; each has a test of its own.
const GUARDS: [&str; 4] =
    ["ratio_tolerance", "early_stop_fraction", "max_disagreement", "allow_zero_gradient"];

fn outcome(changes: Value) -> (Vec<f32>, Vec<f32>) {
    let config = config(changes);
    let parts = parts(sft(1), Frozen::new(&sft(2)));
    if config.advantage_estimator.needs_critic() {
        let mut ppo = Ppo::new(parts, config).expect("parts").with_detokenizer(letters);
        (0..2).for_each(|iteration| drop(ppo.iteration(iteration).expect("an iteration")));
        let critic = ppo.critic().expect("a critic").table.val().to_data().iter::<f32>().collect();
        (table(ppo.policy()), critic)
    } else {
        let mut ppo = Ppo::new(without_critic(parts), config).expect("parts");
        (0..2).for_each(|iteration| drop(ppo.iteration(iteration).expect("an iteration")));
        (table(ppo.policy()), Vec::new())
    }
}

fn in_reward(granularity: &str, divergence: Value) -> Value {
    json!({ "regularizer": { "site": "reward", "granularity": granularity, "divergence": divergence } })
}

fn in_loss(granularity: &str, divergence: Value) -> Value {
    json!({ "regularizer": { "site": "loss", "granularity": granularity, "divergence": divergence } })
}

fn derivative_of(divergence: Value) -> Value {
    json!({ "kind": "derivative", "of": divergence })
}

#[test]
fn every_knob_changes_the_outcome() {
    // Large steps and a second stop-less half of the responses, so that every clip binds and every rule applies.
    let base =
        json!({ "learning_rate": 0.4, "critic_learning_rate": 0.4, "num_ppo_epochs": 4, "minibatch": 8 });
    let turned: Vec<(&str, Value)> = vec![
        ("rollout_batch", json!({ "rollout_batch": 32 })),
        ("num_generations", json!({ "num_generations": 2 })),
        ("minibatch", json!({ "minibatch": 4 })),
        ("total_episodes", json!({ "total_episodes": 128 })),
        ("num_ppo_epochs", json!({ "num_ppo_epochs": 3 })),
        ("response_length", json!({ "response_length": 3 })),
        ("temperature", json!({ "temperature": 0.8 })),
        ("top_k", json!({ "top_k": 2, "importance_cap": 3.0 })),
        ("top_p", json!({ "top_p": 0.6, "importance_cap": 3.0 })),
        ("importance_cap", json!({ "importance_cap": 0.5 })),
        ("stop_token_ids", json!({ "stop_token_ids": [STOP, 3] })),
        ("stop_strings", json!({ "stop_strings": ["dc"] })),
        ("missing_eos_penalty", json!({ "missing_eos_penalty": 1.0 })),
        ("missing_eos_score", json!({ "missing_eos_score": -1.0 })),
        ("empty_response_score", json!({ "empty_response_score": 3.0 })),
        ("regularizer", json!({ "regularizer": { "site": "loss" } })),
        (
            "regularizer",
            json!({ "regularizer": { "site": "reward", "divergence": { "kind": "chi_squared" } } }),
        ),
        ("regularizer", json!({ "regularizer": { "site": "reward", "granularity": "sequence" } })),
        ("regularizer", in_reward("token", json!({ "kind": "reverse_kl" }))),
        ("regularizer", in_reward("token", json!({ "kind": "alpha", "alpha": 0.5 }))),
        ("regularizer", in_reward("token", json!({ "kind": "alpha", "alpha": 1.5 }))),
        ("regularizer", in_reward("sequence", json!({ "kind": "chi_squared" }))),
        ("regularizer", in_reward("sequence", json!({ "kind": "sqrt_chi_squared" }))),
        ("regularizer", in_reward("sequence", derivative_of(json!({ "kind": "chi_squared" })))),
        ("regularizer", in_reward("sequence", derivative_of(json!({ "kind": "jensen_shannon" })))),
        ("regularizer", in_loss("token", json!({ "kind": "reverse_kl" }))),
        ("regularizer", in_loss("token", json!({ "kind": "jensen_shannon" }))),
        ("regularizer", in_loss("token", json!({ "kind": "squared_hellinger" }))),
        ("regularizer", in_loss("token", json!({ "kind": "alpha", "alpha": 0.3 }))),
        ("regularizer", in_loss("token", json!({ "kind": "alpha", "alpha": 1.7 }))),
        ("regularizer", in_loss("token", json!({ "kind": "chi_squared" }))),
        ("regularizer", in_loss("token", json!({ "kind": "chi_squared", "estimator": "released" }))),
        ("regularizer", in_loss("sequence", json!({ "kind": "chi_squared" }))),
        ("regularizer", in_loss("sequence", json!({ "kind": "sqrt_chi_squared" }))),
        ("regularizer", in_loss("sequence", json!({ "kind": "sqrt_chi_squared", "estimator": "released" }))),
        ("regularizer", in_loss("token", json!({ "kind": "exact", "of": { "kind": "kl" } }))),
        (
            "regularizer",
            in_loss("token", json!({ "kind": "exact", "of": { "kind": "alpha", "alpha": 0.3 } })),
        ),
        (
            "regularizer",
            json!({ "regularizer": { "site": "reward", "coefficient": { "kind": "reward_std", "beta": 0.1 } } }),
        ),
        (
            "regularizer",
            json!({ "regularizer": { "site": "reward", "coefficient": { "kind": "reward_std", "beta": 0.1, "deviation": 7.0 } } }),
        ),
        ("kl_coef", json!({ "kl_coef": 0.5 })),
        ("kl_estimator", json!({ "kl_estimator": "k3" })),
        ("kl_target", json!({ "kl_target": 30.0, "kl_horizon": 20.0 })),
        ("cliprange", json!({ "cliprange": 0.05 })),
        ("cliprange_high", json!({ "cliprange_high": 0.05 })),
        ("dual_clip", json!({ "dual_clip": 1.05 })),
        ("cliprange_value", json!({ "cliprange_value": 0.01 })),
        ("vf_coef", json!({ "vf_coef": 1.0 })),
        ("gamma", json!({ "gamma": 0.5 })),
        ("lam", json!({ "lam": 0.5 })),
        ("advantage_estimator", json!({ "advantage_estimator": "position_baseline" })),
        ("advantage_estimator", json!({ "advantage_estimator": "rloo", "num_generations": 4 })),
        ("advantage_estimator", json!({ "advantage_estimator": "group_norm", "num_generations": 4 })),
        ("whiten_advantages", json!({ "whiten_advantages": false })),
        ("whiten_rewards", json!({ "whiten_rewards": true })),
        ("reward_clip_range", json!({ "reward_clip_range": 0.5 })),
        ("running_reward_std", json!({ "running_reward_std": true })),
        ("learning_rate", json!({ "learning_rate": 0.3 })),
        ("critic_learning_rate", json!({ "critic_learning_rate": 0.3 })),
        ("lr_schedule", json!({ "lr_schedule": { "kind": "constant" } })),
        ("critic_lr_schedule", json!({ "critic_lr_schedule": { "kind": "cosine" } })),
        ("adam_beta_1", json!({ "adam_beta_1": 0.5 })),
        ("adam_beta_2", json!({ "adam_beta_2": 0.5 })),
        ("adam_epsilon", json!({ "adam_epsilon": 0.1 })),
        ("weight_decay", json!({ "weight_decay": 0.1 })),
        ("max_grad_norm", json!({ "max_grad_norm": 0.01 })),
        ("critic_warmup", json!({ "critic_warmup": 1 })),
        ("seed", json!({ "seed": 4 })),
    ];
    // `microbatch` is memory, not mathematics: item 22 holds it to changing nothing. So are the `columns` of an exact divergence.
    let covered: BTreeSet<&str> =
        turned.iter().map(|(name, _)| *name).chain(GUARDS).chain(["microbatch"]).collect();
    let missing: Vec<&&str> = NAMES.iter().filter(|name| !covered.contains(**name)).collect();
    assert!(missing.is_empty(), "not turned: {missing:?}");

    let merged = |changes: &Value| {
        let mut all = base.clone();
        changes.as_object().expect("an object").iter().for_each(|(name, value)| all[name] = value.clone());
        all
    };
    let mut seen = vec![("nothing", outcome(base.clone()))];
    for (name, changes) in &turned {
        let found = outcome(merged(changes));
        for (other, outcome) in &seen {
            assert_ne!(*outcome, found, "{name} ({changes}) and {other} have one outcome");
        }
        seen.push((name, found));
    }
}
