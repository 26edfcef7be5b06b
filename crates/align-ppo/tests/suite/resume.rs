//! Going on after an end gives the same bits.

use std::collections::BTreeMap;
use std::path::Path;

use align_core::Frozen;
use align_core::number::{Fraction, UnitInterval};
use align_ppo::{Following, MovingReference, Ppo, PpoParts};
use align_testkit::{BigramCritic, BigramLm};
use align_train::Algorithm;
use serde_json::json;

use crate::world::{config, count_of, parts, sft};

fn hashes(folder: &Path) -> BTreeMap<String, String> {
    let hashed = align_train::hash_all(folder).expect("readable");
    hashed.into_iter().map(|(name, hash)| (name, format!("{hash:?}"))).collect()
}

fn make(moving: Option<Following>) -> Ppo<BigramLm, BigramCritic> {
    let parts = match moving {
        Some(following) => parts(sft(1), MovingReference::new(&sft(2), following)),
        None => parts(sft(1), Frozen::new(&sft(2))),
    };
    let changes = json!({
        "total_episodes": 160, "num_mini_batches": 2, "kl_target": 40.0, "kl_horizon": 100.0, "running_reward_std": true,
    });
    Ppo::new(parts, config(changes)).expect("parts")
}

fn ten_equal_five_and_five(moving: Option<Following>) {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(&path).expect("a folder");
        path
    };
    let mut whole = make(moving);
    (0..10).for_each(|step| drop(whole.iterate(step).expect("an iteration")));
    whole.save(&at("whole")).expect("saved");

    let mut first = make(moving);
    (0..5).for_each(|step| drop(first.iterate(step).expect("an iteration")));
    first.save(&at("half")).expect("saved");
    drop(first);
    let mut second = make(moving);
    second.restore(&at("half")).expect("restored");
    (5..10).for_each(|step| drop(second.iterate(step).expect("an iteration")));
    second.save(&at("resumed")).expect("saved");

    assert_eq!(hashes(&at("whole")), hashes(&at("resumed")));
    assert_ne!(hashes(&at("whole")), hashes(&at("half")));
}

#[test]
fn ten_iterations_are_five_saved_restored_and_five() {
    ten_equal_five_and_five(None);
}

#[test]
fn a_moving_reference_is_part_of_the_checkpoint() {
    ten_equal_five_and_five(Some(Following::Ema { decay: UnitInterval::literal(0.9) }));
    ten_equal_five_and_five(Some(Following::Periodic { every: 3, alpha: Fraction::literal(0.6) }));
}

/// √χ² in deviations of the first rollout's scores, with a gold judge: all of it is measured once and remembered.
fn in_deviations() -> Ppo<BigramLm, BigramCritic> {
    let parts = PpoParts { gold: Some(count_of(4)), ..parts(sft(1), Frozen::new(&sft(2))) };
    let changes = json!({
        "total_episodes": 160, "num_mini_batches": 2,
        "regularizer": {
            "site": "reward", "granularity": "sequence", "divergence": { "kind": "sqrt_chi_squared" },
            "coefficient": { "kind": "reward_std", "beta": 0.3 },
        },
    });
    Ppo::new(parts, config(changes)).expect("parts")
}

#[test]
fn what_was_measured_on_the_first_rollout_is_part_of_the_checkpoint() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(&path).expect("a folder");
        path
    };
    let mut whole = in_deviations();
    let first = whole.iteration(0).expect("an iteration");
    (1..3).for_each(|step| drop(whole.iterate(step).expect("an iteration")));
    whole.save(&at("half")).expect("saved");
    let mut second = in_deviations();
    assert_eq!(second.beta(), 0.3, "not measured yet");
    second.restore(&at("half")).expect("restored");
    assert_eq!(second.beta(), whole.beta());
    for step in 3..6 {
        let (found, expected) =
            (second.iteration(step).expect("an iteration"), whole.iteration(step).expect("an iteration"));
        for name in ["occupancy/reward_std", "occupancy/correlation_base", "objective/kl_coef"] {
            assert_eq!((found.get(name), expected.get(name)), (first.get(name), first.get(name)), "{name}");
        }
    }
    whole.save(&at("whole")).expect("saved");
    second.save(&at("resumed")).expect("saved");
    assert_eq!(hashes(&at("whole")), hashes(&at("resumed")));

    // A checkpoint from before there was anything to remember goes on without it.
    let path = at("half").join("ppo.json");
    let mut state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).expect("the state")).expect("JSON");
    assert!(state.as_object_mut().expect("an object").remove("base").is_some());
    std::fs::write(&path, state.to_string()).expect("written");
    let mut old = in_deviations();
    old.restore(&at("half")).expect("restored");
    let metrics = old.iteration(3).expect("an iteration");
    assert_eq!(metrics.get("occupancy/correlation_base"), None);
    assert_eq!(metrics.get("objective/kl_coef"), first.get("objective/kl_coef"));
}

#[test]
fn a_checkpoint_of_another_set_up_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    make(None).save(folder.path()).expect("saved");
    let mut other = make(Some(Following::default()));
    let error = other.restore(folder.path()).expect_err("a fixed reference");
    let source = std::error::Error::source(&error).expect("the cause").to_string();
    assert!(source.contains("has a fixed reference"), "{source}");
    std::fs::write(folder.path().join("ppo.json"), "{}").expect("written");
    let message = make(None).restore(folder.path()).expect_err("damaged").to_string();
    assert!(message.contains("ppo.json is damaged") && message.contains("missing field"), "{message}");
}
