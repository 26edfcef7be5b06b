//! Going on after an end gives the same bits.

use std::collections::BTreeMap;
use std::path::Path;

use align_core::Frozen;
use align_superhf::{SuperHf, SuperHfParts};
use align_testkit::BigramLm;
use align_train::{Algorithm, CheckpointPlan, OnDamage, RunPlan, resume};
use serde_json::json;

use crate::world::{config, count_of, metric, parts, sft};

fn hashes(folder: &Path) -> BTreeMap<String, String> {
    let hashed = align_train::hash_all(folder).expect("readable");
    hashed.into_iter().map(|(name, hash)| (name, format!("{hash:?}"))).collect()
}

fn make() -> SuperHf<BigramLm> {
    let parts = SuperHfParts { gold: Some(count_of(4)), ..parts() };
    let changes = json!({ "passes": 2, "minibatch": 2, "inverse_loss": 0.01, "stop_token_ids": [] });
    SuperHf::new(parts, config(changes)).expect("parts")
}

#[test]
fn eight_groups_are_four_saved_restored_and_four() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(&path).expect("a folder");
        path
    };
    let mut whole = make();
    let metrics: Vec<_> = (0..8).map(|step| whole.iterate(step).expect("a group")).collect();
    whole.save(&at("whole")).expect("saved");

    let mut first = make();
    (0..4).for_each(|step| drop(first.iterate(step).expect("a group")));
    first.save(&at("half")).expect("saved");
    drop(first);
    let mut second = make();
    second.restore(&at("half")).expect("restored");
    for step in 4..8 {
        let found = second.iterate(step).expect("a group");
        for (name, expected) in metrics[step as usize].iter() {
            if !(name.starts_with("timing_s/") || name.starts_with("perf/") || name == "eps") {
                assert_eq!(found.get(name), Some(expected), "{name} of group {step}");
            }
        }
    }
    second.save(&at("resumed")).expect("saved");
    assert_eq!(hashes(&at("whole")), hashes(&at("resumed")));
    assert_ne!(hashes(&at("whole")), hashes(&at("half")));
    assert_eq!(metric(&metrics[7], "episode"), 8.0 * 18.0);
}

#[test]
fn the_outer_loop_runs_saves_and_resumes_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoints = CheckpointPlan::new(folder.path(), 2, json!({}));
    let plan = |steps| RunPlan::new(steps).with_checkpoints(checkpoints.clone());
    let mut first = make();
    align_train::run(&mut first, &plan(3), &mut []).expect("three groups");
    let mut second = make();
    let start = resume(&mut second, &checkpoints, OnDamage::Refuse).expect("a checkpoint");
    assert_eq!(start, 3);
    assert_eq!(crate::world::table(first.policy()), crate::world::table(second.policy()));
}

#[test]
fn a_policy_that_went_on_is_not_compared_with_the_prior_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut first = make();
    (0..4).for_each(|step| drop(first.iterate(step).expect("a group")));
    first.save(folder.path()).expect("saved");
    let mut second = make();
    second.restore(folder.path()).expect("restored");
    second.iterate(4).expect("the KL is not 0 any more, and need not be");
    // Handed over as a new start, it is.
    let policy = second.into_policy();
    let parts = SuperHfParts { policy, prior: Box::new(Frozen::new(&sft(1))), ..parts() };
    let mut fresh = SuperHf::new(parts, config(json!({}))).expect("parts");
    assert!(fresh.iterate(0).is_err());
}

#[test]
fn a_damaged_state_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    make().save(folder.path()).expect("saved");
    std::fs::write(folder.path().join("superhf.json"), "{}").expect("written");
    let message = make().restore(folder.path()).expect_err("damaged").to_string();
    assert!(message.contains("superhf.json is damaged") && message.contains("missing field"), "{message}");
}
