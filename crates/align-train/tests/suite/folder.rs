use std::fs;

use align_train::{FolderError, RunFolder, RunInfo, sha256};
use serde_json::json;

use crate::common::{folder, message};

fn info(inputs: Vec<std::path::PathBuf>) -> RunInfo {
    RunInfo {
        recipe_text: "seed = 7\n".into(),
        recipe: json!({"seed": 7, "ppo": {"beta": 0.05}}),
        seeds: [("run".to_owned(), 7)].into(),
        inputs,
        versions: [("align".to_owned(), "0.1.0".to_owned())].into(),
    }
}

#[test]
fn a_run_folder_records_recipe_seeds_versions_and_hashes() {
    let (_guard, base) = folder();
    let (data, model) = (base.join("pairs.jsonl"), base.join("model"));
    fs::write(&data, "{}\n").unwrap();
    fs::create_dir_all(model.join("tokenizer")).unwrap();
    fs::write(model.join("config.json"), "abc").unwrap();
    fs::write(model.join("tokenizer/vocab.txt"), "").unwrap();

    let run = RunFolder::create(base.join("runs/first"), &info(vec![data.clone(), model.clone()])).unwrap();
    assert_eq!(fs::read_to_string(run.path().join("recipe.toml")).unwrap(), "seed = 7\n");
    assert!(run.checkpoints().is_dir());
    let record = run.record().unwrap();
    assert_eq!(record.seeds["run"], 7);
    assert_eq!(record.versions["align"], "0.1.0");
    assert!(record.versions.contains_key("burn"));
    let model = &record.inputs[&model.display().to_string()];
    // SHA-256 of "abc" is the example of FIPS 180-2, appendix B.1; of nothing, the well-known e3b0….
    assert_eq!(
        model["config.json"].sha256,
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    assert_eq!(model["tokenizer/vocab.txt"].bytes, 0);
    assert_eq!(record.inputs[&data.display().to_string()]["pairs.jsonl"].sha256, sha256(b"{}\n"));
}

#[test]
fn a_used_folder_is_refused_and_left_alone() {
    let (_guard, base) = folder();
    let path = base.join("run");
    RunFolder::create(&path, &info(vec![])).unwrap();
    let error = RunFolder::create(&path, &RunInfo::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "expected a new or empty folder at {}, found `checkpoints` in it; resume that run or choose another folder",
            path.display()
        )
    );
    assert_eq!(fs::read_to_string(path.join("recipe.toml")).unwrap(), "seed = 7\n");
}

#[test]
fn an_empty_folder_may_become_a_run() {
    let (_guard, base) = folder();
    let path = base.join("run");
    fs::create_dir(&path).unwrap();
    assert_eq!(RunFolder::create(&path, &info(vec![])).unwrap().record().unwrap().seeds["run"], 7);
}

#[test]
fn a_missing_input_is_named_and_nothing_is_made() {
    let (_guard, base) = folder();
    let path = base.join("run");
    let error = RunFolder::create(&path, &info(vec![base.join("pairs.jsonl")])).unwrap_err();
    let text = message(&error);
    assert!(text.starts_with(&format!("cannot read {}", base.join("pairs.jsonl").display())), "{text}");
    assert!(!path.exists());
}

#[test]
fn opening_with_another_recipe_says_which_keys_differ() {
    let (_guard, base) = folder();
    let path = base.join("run");
    RunFolder::create(&path, &info(vec![])).unwrap();
    let other = json!({"seed": 7, "ppo": {"beta": 0.1}});
    let error = RunFolder::open(&path, &other, &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the run in {} was made with another recipe: `ppo.beta` was 0.05 and is 0.1", path.display())
    );
    assert!(RunFolder::open(&path, &other, &["ppo.beta".into()]).is_ok());
    // A key that merely begins alike is another key.
    assert!(RunFolder::open(&path, &other, &["ppo.bet".into()]).is_err());
}

#[test]
fn opening_after_an_input_changed_names_the_file() {
    let (_guard, base) = folder();
    let model = base.join("model");
    fs::create_dir(&model).unwrap();
    fs::write(model.join("a"), "1").unwrap();
    fs::write(model.join("b"), "2").unwrap();
    let info = info(vec![model.clone()]);
    RunFolder::create(base.join("run"), &info).unwrap();
    assert!(RunFolder::open(base.join("run"), &info.recipe, &[]).is_ok());
    fs::write(model.join("b"), "3").unwrap();
    fs::write(model.join("c"), "4").unwrap();
    let error = RunFolder::open(base.join("run"), &info.recipe, &[]).unwrap_err();
    let expected = format!("input {} of the run has changed since it began: b, c", model.display());
    assert_eq!(error.to_string(), expected);
}

#[test]
fn what_is_not_a_run_is_refused() {
    let (_guard, base) = folder();
    let missing = RunFolder::open(base.join("run"), &json!({}), &[]).unwrap_err();
    assert!(matches!(&missing, FolderError::NotARun { found, .. } if found == "nothing"), "{missing}");
    let error = RunFolder::open(&base, &json!({}), &[]).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("expected the folder of a run at {}, found `run.json`: ", base.display()))
    );
}
