//! Soups that are evaluated: greedy and learned ones, maps of what is around them, going on after an end, bad input.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::tiny::{Ended, align, at, change, copy_of, folder, hashes, path, rows, text, works};

/// Three models of the finished run that span a plane.
const MODELS: [&str; 3] = ["base/model", "sft-a/model", "sft-b/model"];

fn json(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// Some rows of the finished run's demonstrations.
fn data(files: &TempDir) -> String {
    let all = fs::read_to_string(at("world/demonstrations.jsonl")).unwrap();
    let some: Vec<Value> = all.lines().take(12).map(|line| serde_json::from_str(line).unwrap()).collect();
    rows(files, "held-out.jsonl", &some)
}

/// `align soup` over models of the finished run.
fn soup(models: &[&str], out: &Path, options: &[&str]) -> Ended {
    let models: Vec<String> = models.iter().map(|model| at(model)).collect();
    let models: Vec<&str> = models.iter().map(String::as_str).collect();
    align(&[&["soup", "--out", out.to_str().unwrap()], &models[..], options].concat())
}

#[track_caller]
fn good(ended: Ended) -> Ended {
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    ended
}

/// Which weights a folder holds.
fn id(model: &Path) -> String {
    align_soup::checkpoint_id(model).unwrap()
}

/// A folder to write to, and its parent, which goes when it is dropped.
fn out() -> (TempDir, PathBuf) {
    let parent = folder();
    let out = parent.path().join("out");
    (parent, out)
}

#[test]
fn a_greedy_soup_is_the_uniform_soup_of_what_it_kept_and_scores_what_eval_says() {
    let (files, out) = out();
    let data = data(&files);
    let said = good(soup(&MODELS, &out, &["--greedy", "--data", &data]));
    assert!(said.err.contains("soup: sft-a: nll "), "{}", said.err);
    let search = json(&out.join("path.json"));
    assert_eq!(search["names"], json!(["base", "sft-a", "sft-b"]));
    let (alone, trials) = (&search["path"]["alone"], search["path"]["trials"].as_array().unwrap());
    assert_eq!((alone.as_array().unwrap().len(), trials.len()), (3, 3));
    let kept: Vec<&str> = trials
        .iter()
        .rfind(|trial| trial["accepted"] == true)
        .map(|trial| trial["members"].as_array().unwrap())
        .unwrap()
        .iter()
        .map(|member| MODELS[member.as_u64().unwrap() as usize])
        .collect();
    let plain = files.path().join("plain");
    good(soup(&kept, &plain, &[]));
    assert_eq!(id(&out.join("model")), id(&plain));

    // The comparison of the same models and of the soup has the same figures, bit for bit.
    let arms: String = MODELS.iter().map(|model| format!("\"{model}\" = \"{}\"\n", at(model))).collect();
    let recipe = format!(
        "output_dir = \"{}\"\nanswers = {{ path = \"{data}\" }}\ndraw = false\n[arms]\n{arms}soup = \"{}\"\n",
        files.path().join("eval").display(),
        out.join("model").display(),
    );
    works(&["eval", &text(&files, "eval.toml", &recipe)]);
    let compared = json(&files.path().join("eval/comparison.json"));
    let nll = |arm: &str| {
        let arms = compared["arms"].as_array().unwrap();
        arms.iter().find(|result| result["arm"] == arm).unwrap()["means"]["nll"].as_f64().unwrap()
    };
    for (index, model) in MODELS.iter().enumerate() {
        assert_eq!(alone[index].as_f64().unwrap(), nll(model), "{model}");
    }
    let score = trials.iter().rfind(|trial| trial["accepted"] == true).unwrap()["score"].as_f64().unwrap();
    assert_eq!(score, nll("soup"));

    let report = fs::read_to_string(out.join("report.html")).unwrap();
    for part in ["the way of a greedy soup", "nll of every soup that was tried (lower is better)", "+ "] {
        assert!(report.contains(part), "{part}");
    }
    assert!(!out.join("trial").exists());
}

#[test]
fn an_interrupted_search_goes_on_from_its_record() {
    let (files, out) = out();
    let data = data(&files);
    let options = ["--greedy", "--data", &data];
    good(soup(&MODELS, &out, &options));
    let (record, model) = (json(&out.join("path.json")), hashes(&out.join("model")));

    // As if it had ended within the fourth evaluation: the record has three scores, a soup lies half-made beside it.
    let cut = |file: &str| {
        fs::remove_file(out.join("stage.json")).unwrap();
        fs::remove_dir_all(out.join("model")).unwrap();
        fs::create_dir_all(out.join(file)).unwrap();
        change(&out.join("path.json"), |search| search["path"]["trials"].as_array_mut().unwrap().truncate(1));
    };
    cut(".trial.partial-1");
    let again = good(soup(&MODELS, &out, &[&options[..], &["--resume"]].concat()));
    assert!(again.err.contains("going on after 3 of 5 scores"), "{}", again.err);
    assert_eq!(json(&out.join("path.json")), record);
    assert_eq!(hashes(&out.join("model")), model);
    assert!(!out.join(".trial.partial-1").exists());

    // A record of another checkpoint is not gone on with.
    cut("trial");
    change(&out.join("path.json"), |search| search["path"]["ingredients"][1] = "other".into());
    soup(&MODELS, &out, &[&options[..], &["--resume"]].concat())
        .refuses(&["cannot go on with the search", "has other as ingredients[1]"]);
    fs::write(out.join("path.json"), "{").unwrap();
    soup(&MODELS, &out, &[&options[..], &["--resume"]].concat()).refuses(&["path.json is damaged"]);
    // Nor is another search in the folder of this one.
    soup(&MODELS[..2], &out, &[&options[..], &["--resume"]].concat()).refuses(&["models"]);
}

#[test]
fn learnt_weights_are_written_down_and_make_the_model() {
    for by in ["model", "layer"] {
        let (files, out) = out();
        let data = data(&files);
        let options = ["--learned", "--by", by, "--steps", "5", "--data", &data];
        let said = good(soup(&MODELS, &out, &options));
        let learnt = json(&out.join("weights.json"));
        let groups = learnt["groups"].as_array().unwrap();
        // Two layers, the embedding that is the head too, and the last norm.
        assert_eq!(groups.len(), if by == "model" { 1 } else { 4 }, "{groups:?}");
        for group in groups {
            let weights: Vec<f64> =
                group["weights"].as_array().unwrap().iter().map(|weight| weight.as_f64().unwrap()).collect();
            assert_eq!(weights.len(), 3);
            assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{weights:?}"); // rounding
            assert!(weights.iter().all(|weight| (weight - 1.0 / 3.0).abs() > 1e-6), "it moved: {weights:?}");
            assert!(said.out.contains(group["group"].as_str().unwrap()), "{}", said.out);
        }
        assert_eq!(learnt["losses"].as_array().unwrap().len(), 5);
        assert!(learnt["loss"].as_f64() < learnt["equal_loss"].as_f64(), "{learnt}");
        let model = out.join("model");
        works(&[
            "generate",
            "--model",
            model.to_str().unwrap(),
            "--prompt",
            "please plan",
            "--max-new-tokens",
            "2",
        ]);
        let again = good(soup(&MODELS, &files.path().join("again"), &options));
        assert_eq!(again.out.lines().next(), said.out.lines().next());
        assert_eq!(id(&model), id(&files.path().join("again/model")), "the same search is the same soup");
    }
}

#[test]
fn a_map_has_its_models_where_they_are_and_goes_on() {
    let (files, out) = out();
    let data = data(&files);
    let options =
        ["--map", "--points", "4", "--margin", "0.1", "--weights", "0.5,0.25,0.25", "--data", &data];
    good(soup(&MODELS, &out, &options));
    let map = json(&out.join("map.json"));
    let (x, y) = (map["grid"]["x"].as_array().unwrap().len(), map["grid"]["y"].as_array().unwrap().len());
    assert_eq!(x.max(y), 4);
    let figures = map["figures"].as_array().unwrap();
    assert_eq!(figures.len(), 3 + 1 + x * y);
    assert_eq!(map["soup"], json!([0.5, 0.25, 0.25]));
    let greedy = files.path().join("greedy");
    good(soup(&MODELS, &greedy, &["--greedy", "--data", &data]));
    let alone = &json(&greedy.join("path.json"))["path"]["alone"];
    assert_eq!(json!(figures[..3]), *alone, "a model's own figure");

    let report = fs::read_to_string(out.join("report.html")).unwrap();
    for part in
        ["nll on the plane through base, sft-a, sft-b", "distance in weights, from base towards sft-a"]
    {
        assert!(report.contains(part), "{part}");
    }
    assert!(!report.contains("NaN"));

    fs::remove_file(out.join("stage.json")).unwrap();
    change(&out.join("map.json"), |map| map["figures"].as_array_mut().unwrap().truncate(6));
    let again = good(soup(&MODELS, &out, &[&options[..], &["--resume"]].concat()));
    assert!(again.err.contains(&format!("going on after 6 of {} points", figures.len())), "{}", again.err);
    assert_eq!(json(&out.join("map.json")), map);
}

#[test]
fn a_stage_searches_by_gold_and_maps_three_others() {
    let files = folder();
    let run = files.path().join("run");
    let data = data(&files);
    let recipe = format!(
        r#"
title = "soups"
output_dir = "{}"
[inputs]
a = "{}"
b = "{}"
base = "{}"
[[stage]]
name = "greedy"
kind = "soup"
models = ["$a", "$b"]
greedy = {{ metric = "gold", eval = {{ gold = "{}", prompts = {{ path = "{}", max_rows = 3 }}, sampling = {{ max_new_tokens = 4 }} }} }}
map = {{ models = ["$a", "$b", "$base"], points = 2, margin = 0.0, metric = "nll", eval = {{ answers = {{ path = "{data}" }}, draw = false }} }}
[[stage]]
name = "again"
kind = "soup"
models = ["@greedy", "$b"]
"#,
        run.display(),
        at("sft-a/model"),
        at("sft-b/model"),
        at("base/model"),
        at("world"),
        at("world/held_out.jsonl"),
    );
    works(&["run", &text(&files, "r.toml", &recipe)]);
    let search = json(&run.join("greedy/path.json"));
    assert_eq!((&search["path"]["metric"], &search["path"]["better"]), (&json!("gold"), &json!("higher")));
    // The soup of two is not on the plane through three others.
    assert_eq!(json(&run.join("greedy/map.json"))["soup"], Value::Null);
    assert!(run.join("again/model/config.json").is_file());
    let resolved = fs::read_to_string(run.join("recipe.toml")).unwrap();
    assert!(resolved.contains("metric = \"gold\""), "{resolved}");
    works(&["run", run.join("recipe.toml").to_str().unwrap(), "--resume"]);
}

#[test]
fn searches_that_cannot_be_made_say_why() {
    let (files, out) = out();
    let data = data(&files);
    let refused =
        |models: &[&str], options: &[&str], parts: &[&str]| soup(models, &out, options).refuses(parts);
    refused(&MODELS, &["--greedy"], &["give --data F.jsonl, or --eval F.toml"]);
    refused(&MODELS[..1], &["--greedy", "--data", &data], &["at least 2 models, found 1"]);
    refused(&MODELS[..1], &["--learned", "--data", &data], &["at least 2 models, found 1"]);
    refused(&MODELS[..2], &["--map", "--data", &data], &["plane through 3 models, found 2"]);
    refused(
        &MODELS,
        &["--greedy", "--metric", "nlll", "--data", &data],
        &["`metric` is \"nlll\"", "measures nll, exact_match", "did you mean `nll`?"],
    );
    refused(&MODELS, &["--greedy", "--data", "no/such.jsonl"], &["no/such.jsonl"]);
    refused(
        &MODELS,
        &["--learned", "--by", "head", "--data", &data],
        &["`learned.by.head`", "`model` or `layer`"],
    );
    refused(&MODELS, &["--map", "--points", "1", "--data", &data], &["`points` must be at least 2"]);
    refused(&MODELS, &["--map", "--margin=-1", "--data", &data], &["`map.margin`"]);
    let measures = text(&files, "m.toml", "prompts = { path = \"p\" }\nagainst = \"x\"\ngold = \"w\"\n");
    refused(
        &MODELS,
        &["--greedy", "--metric", "gold", "--eval", &measures],
        &["`eval.against` names an arm"],
    );
    assert!(!out.join("model").exists());
    // Without a search there is nothing to measure.
    assert_eq!(soup(&MODELS, &out, &["--data", &data]).code, Some(2));
    assert_eq!(soup(&MODELS, &out, &["--greedy", "--weights", "1,0,0", "--data", &data]).code, Some(2));
}

#[test]
fn models_that_span_no_plane_or_are_one_are_refused() {
    let files = folder();
    let data = data(&files);
    let between = files.path().join("between");
    good(soup(&MODELS[1..], &between, &[]));
    let between = between.display().to_string();
    let map = |third: &str, name: &str| {
        let out = files.path().join(name).display().to_string();
        align(&["soup", "--out", &out, "--map", "--data", &data, &at(MODELS[1]), &at(MODELS[2]), third])
    };
    map(&between, "line").refuses(&["no plane through", "lie on a line"]);
    map(&at(MODELS[2]), "equal").refuses(&["no plane through", "models 1 and 2 have equal weights"]);
    let copy = copy_of(MODELS[1]);
    let out = files.path().join("twice").display().to_string();
    align(&["soup", "--out", &out, "--greedy", "--data", &data, &at(MODELS[0]), &at(MODELS[1]), path(&copy)])
        .refuses(&["no search among", "ingredients[2] is ingredients[1] once more"]);
}

#[test]
fn a_broken_model_stops_a_search_and_is_named() {
    let files = folder();
    let data = data(&files);
    let broken = copy_of(MODELS[1]);
    let file = broken.path().join("model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for value in bytes[start..].as_chunks_mut::<4>().0.iter_mut().take(64) {
        *value = f32::NAN.to_le_bytes();
    }
    fs::write(&file, bytes).unwrap();
    let run = |way: &str| {
        let out = files.path().join(way).display().to_string();
        align(&["soup", "--out", &out, way, "--data", &data, &at(MODELS[0]), &at(MODELS[2]), path(&broken)])
    };
    run("--greedy").refuses(&["cannot evaluate", "that are NaN or infinite"]);
    run("--map").refuses(&["values that are not finite"]);
    run("--learned").refuses(&["that are NaN or infinite"]);
}
