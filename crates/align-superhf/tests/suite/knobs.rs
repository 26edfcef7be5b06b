//! A knob that changes nothing is a defect: each is turned, and the outcome must differ.

use std::collections::BTreeSet;

use align_core::Frozen;
use align_superhf::config::NAMES;
use align_superhf::{SuperHf, SuperHfParts};
use serde_json::{Value, json};

use crate::world::{STOP, config, count_of, parts, sft, table};

/// Knobs that refuse, report or bound memory rather than change what is learnt; each has a test of its own.
const OTHERS: [&str; 5] =
    ["microbatch", "max_skipped_fraction", "allow_zero_gradient", "kl_samples", "validation_interval"];

/// Token 2 says "cxx": tokens and characters are two units.
fn words(ids: &[u32]) -> String {
    ids.iter().map(|&id| format!("{}{}", (b'a' + id as u8) as char, "x".repeat(id as usize))).collect()
}

fn outcome(changes: Value) -> Vec<f32> {
    let parts = SuperHfParts { prior: Box::new(Frozen::new(&sft(2))), reward: count_of(2), ..parts() };
    let mut superhf = SuperHf::new(parts, config(changes)).expect("parts").with_detokenizer(words);
    (0..2.min(superhf.plan().groups)).for_each(|step| drop(superhf.iteration(step).expect("a group")));
    table(superhf.policy())
}

#[test]
fn every_knob_changes_the_outcome() {
    let base = json!({
        "prior": "other", "minibatch": 2, "response_length": 6, "length_penalty": 0.7, "weight_decay": 0.05,
        "total_episodes": 54, "stop_strings": ["exxxxbxbx"],
    });
    let turned: Vec<(&str, Value)> = vec![
        ("superbatch_size", json!({ "superbatch_size": 8 })),
        ("prompt_accumulation_steps", json!({ "prompt_accumulation_steps": 2 })),
        ("prompt_accumulation_steps", json!({ "prompt_accumulation_steps": 0 })),
        ("filter", json!({ "filter": { "kind": "top_k", "k": 3 } })),
        ("filter", json!({ "filter": { "kind": "threshold", "above": -0.5 } })),
        ("filter", json!({ "filter": { "kind": "percentile", "percentile": 0.5 } })),
        // Not 0.7: at minibatch 2 that is the released sum, to the last bit.
        ("kl_coef", json!({ "kl_coef": 0.5 })),
        ("prior", json!({ "prior": "none" })),
        ("kl_direction", json!({ "kl_direction": "policy_to_prior" })),
        ("kl_reduction", json!({ "kl_reduction": "token_mean" })),
        ("kl_reduction", json!({ "kl_reduction": "sum_over_examples" })),
        ("inverse_loss", json!({ "inverse_loss": 0.1 })),
        ("length_penalty", json!({ "length_penalty": 0.2 })),
        ("length_penalty_form", json!({ "length_penalty_form": "linear" })),
        ("temperature", json!({ "temperature": 0.8 })),
        ("top_p", json!({ "top_p": 0.6 })),
        ("response_length", json!({ "response_length": 3 })),
        ("stop_token_ids", json!({ "stop_token_ids": [STOP, 3] })),
        ("stop_strings", json!({ "stop_strings": ["cxxdxxx"] })),
        ("trim", json!({ "trim": { "anywhere": ["cxxcxx"] } })),
        ("minibatch", json!({ "minibatch": 3 })),
        ("passes", json!({ "passes": 2 })),
        ("total_episodes", json!({ "total_episodes": 90 })),
        ("learning_rate", json!({ "learning_rate": 0.05 })),
        ("lr_schedule", json!({ "lr_schedule": { "kind": "constant" } })),
        ("adam_beta_1", json!({ "adam_beta_1": 0.5 })),
        ("adam_beta_2", json!({ "adam_beta_2": 0.5 })),
        ("adam_epsilon", json!({ "adam_epsilon": 0.1 })),
        ("weight_decay", json!({ "weight_decay": 0.1 })),
        ("max_grad_norm", json!({ "max_grad_norm": 0.01 })),
        ("length_penalty_unit", json!({ "length_penalty_unit": "tokens" })),
        ("seed", json!({ "seed": 4 })),
    ];
    let covered: BTreeSet<&str> = turned.iter().map(|(name, _)| *name).chain(OTHERS).collect();
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
