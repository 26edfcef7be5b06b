//! Closures of gaps: their arithmetic over tasks and seeds, their claims and their picture.

use std::fs;

use serde_json::Value;

use crate::preferences::read;
use crate::skills::skills;
use crate::tiny::{align, folder, text};

/// A figure of an arm in a comparison of the run.
fn figure(skill: &str, seed: u64, arm: &str, name: &str) -> f64 {
    let found = read(&skills().join(format!("eval-{skill}/seed-{seed}/comparison.json")));
    let arms = found["arms"].as_array().unwrap();
    let arm = arms.iter().find(|result| result["arm"] == arm).unwrap();
    arm["means"][name].as_f64().unwrap()
}

/// An arm of a task, or of the averages.
fn arm<'a>(all: &'a Value, name: &str) -> &'a Value {
    all.as_array().unwrap().iter().find(|arm| arm["arm"] == name).unwrap()
}

#[test]
fn closures_are_those_of_the_comparisons() {
    let gaps = read(&skills().join("gaps/gaps.json"));
    let mut closures = [Vec::new(), Vec::new()];
    for (at, skill) in ["larger", "addition"].into_iter().enumerate() {
        assert_eq!(gaps["tasks"][at]["task"], skill);
        let found = arm(&gaps["tasks"][at]["arms"], "ten steps");
        for seed in 0..2 {
            let [base, ten, tuned] =
                ["base", "ten steps", "tuned"].map(|arm| figure(skill, seed, arm, "nll"));
            let expected = (base - ten) / (base - tuned);
            let closure = found["closure"]["seeds"][seed as usize].as_f64().unwrap();
            assert!((closure - expected).abs() < 1e-12, "{skill} {seed}: {closure} and {expected}");
            assert_eq!(found["figure"]["seeds"][seed as usize].as_f64().unwrap(), ten);
            closures[seed as usize].push(closure);
        }
    }
    let average = arm(&gaps["averages"], "ten steps");
    for (seed, closures) in closures.iter().enumerate() {
        let mean = closures.iter().sum::<f64>() / 2.0;
        assert!((average["closure"]["seeds"][seed].as_f64().unwrap() - mean).abs() < 1e-12);
    }
    assert!(average["ratio"].is_null(), "less is better of a likelihood");
    assert_eq!(gaps["unseen"][0]["task"], "facts");
    assert_eq!(arm(&gaps["averages"], "base")["closure"]["band"]["mean"], 0.0);
}

#[test]
fn the_ratio_stands_beside_the_closure_of_exact_matches() {
    let found = read(&skills().join("matches/gaps.json"));
    let tuned = [0, 1].map(|seed| figure("larger", seed, "tuned", "exact_match"));
    assert!(tuned.iter().all(|share| *share > 0.01), "the tuned models answer: {tuned:?}");
    let ten = arm(&found["averages"], "ten steps");
    for seed in 0..2 {
        let expected = figure("larger", seed, "ten steps", "exact_match") / tuned[seed as usize];
        assert!((ten["ratio"]["seeds"][seed as usize].as_f64().unwrap() - expected).abs() < 1e-12);
    }
}

#[test]
fn gaps_are_claimed_and_drawn() {
    let claims = read(&skills().join("claims/claims.json"));
    let held: Vec<bool> =
        claims["claims"].as_array().unwrap().iter().map(|claim| claim["holds"].as_bool().unwrap()).collect();
    assert_eq!(held, [true, true, true, false], "{claims}");
    assert_eq!(claims["claims"][1]["share_of_seeds"]["expected"], 0.5);
    assert_eq!(claims["claims"][3]["share_of_seeds"]["found"], 0.0);
    let report = fs::read_to_string(skills().join("report.html")).unwrap();
    for part in [
        "Closure of the gap: gaps",
        "share of the gap from base to tuned that is closed",
        "means over 2 seeds with 95 % intervals",
        "ten steps, mean over tasks:",
        "facts (unseen, hollow)",
        "0 of 2, expected 50 %",
    ] {
        assert!(report.contains(part), "{part}");
    }
    // One table over the seeds of a comparison.
    assert_eq!(report.matches("<h2>eval-larger").count(), 1);
    assert!(!report.contains("NaN"));
}

#[test]
fn gaps_that_cannot_be_computed_say_why() {
    let files = folder();
    let path = |stage: &str| skills().join(stage).display().to_string();
    let refused = |keys: &str, parts: &[&str]| {
        let recipe = format!(
            "title = \"x\"\noutput_dir = \"{}\"\n[[stage]]\nname = \"gaps\"\nkind = \"gaps\"\n{keys}",
            files.path().join("run").display()
        );
        align(&["run", &text(&files, "r.toml", &recipe), "--overwrite"]).refuses(parts);
    };
    let arms = "floor = \"base\"\nceiling = \"tuned\"\n";
    let larger = format!("tasks = {{ larger = \"{}\" }}\n", path("eval-larger"));
    refused(&format!("tasks = {{}}\n{arms}"), &["`tasks` is empty"]);
    refused(
        &format!("{larger}floor = \"bass\"\nceiling = \"tuned\"\n"),
        &["task `larger`", "no arm is called `bass`; did you mean `base`?"],
    );
    refused(
        &format!("tasks = {{ a = \"{}\" }}\n{arms}", path("world")),
        &["task `a`", "holds no comparison", "kind `eval`"],
    );
    refused(
        &format!("{larger}{arms}metric = \"gold\"\n"),
        &["has no figure `gold`, but", "exact_match", "nll"],
    );
    refused(
        &format!("{larger}{arms}metric = \"exactmatch\"\n"),
        &["`stage[0].metric", "did you mean `exact_match`?"],
    );
    refused(&format!("{larger}{arms}smallest = 0.0\n"), &["`stage[0].smallest`", "a finite number > 0"]);
}
