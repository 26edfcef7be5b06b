//! Ensembles of reward models, and best-of-n with them: what is written, what it computes, what is refused.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::tiny::{Ended, align, at, change, folder, hashes, rows, text, works};

/// A recipe for three members on flipped labels.
fn ensemble(files: &TempDir, more: &str) -> String {
    let recipe = format!(
        "output_dir = \"{}\"\nmodel = \"{}\"\ndata = {{ path = \"{}\", held_out = 0.25 }}\n\
         training = {{ max_steps = 3, checkpoint_every = 1 }}\nlabel_noise = {{ rate = 0.25 }}\n{more}\n\
         [ensemble]\nmembers = 3\naggregate = {{ kind = \"uwo\", lambda = 0.5 }}\nweight_average = true\n",
        files.path().join("out").display(),
        at("sft-a/model"),
        at("world/preferences.jsonl"),
    );
    text(files, "ensemble.toml", &recipe)
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
        .unwrap()
}

fn scores(model: &Path, data: &str) -> Vec<f64> {
    let lines = works(&["score", "--model", model.to_str().unwrap(), "--data", data]).json();
    lines.iter().map(|line| line["score"].as_f64().unwrap()).collect()
}

#[test]
fn members_differ_share_their_noise_and_judge_as_the_manifest_says() {
    let files = folder();
    works(&["reward", &ensemble(&files, "")]);
    let model = files.path().join("out/model");
    let manifest = read(&model.join("ensemble.json"));
    assert_eq!(manifest["members"].as_array().unwrap().len(), 3);
    assert_eq!(
        manifest["aggregate"],
        json!({ "kind": "uncertainty_weighted", "lambda": 0.5, "divisor": "members" })
    );
    let noise = &manifest["label_noise"];
    let flips = read(&files.path().join("out/label_flips.json"));
    let flipped = flips["flipped"].as_array().unwrap().iter().filter(|flip| flip.as_bool().unwrap()).count();
    assert!(flipped > 0 && noise["flipped"] == flipped && noise["rate"] == 0.25, "{noise}");

    let data = rows(
        &files,
        "t.jsonl",
        &[
            json!({ "prompt": "please plan", "completion": " a meal" }),
            json!({ "prompt": "please plan", "completion": " of" }),
        ],
    );
    let members: Vec<Vec<f64>> =
        (0..3).map(|member| scores(&model.join(format!("members/{member}")), &data)).collect();
    assert!(members[0] != members[1] && members[1] != members[2], "{members:?}");
    for (row, together) in scores(&model, &data).into_iter().enumerate() {
        let own: Vec<f64> = members.iter().map(|member| member[row]).collect();
        let mean = own.iter().sum::<f64>() / 3.0;
        let variance = own.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / 3.0;
        let expected = mean - 0.5 * variance;
        // Scores are f32.
        assert!((together - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{together} and {expected}");
    }
    // The averaged weights are a model of their own.
    let averaged = scores(&model.join("average"), &data);
    assert!(averaged != members[0] && averaged.iter().all(|score| score.is_finite()));
    works(&["doctor", "--model", model.to_str().unwrap()]);
}

#[test]
fn members_with_adapters_share_one_base() {
    let files = folder();
    works(&["reward", &ensemble(&files, "lora = { rank = 2, last_layers = 1 }")]);
    let model = files.path().join("out/model");
    assert!(model.join("base/model.safetensors").is_file());
    for member in 0..3 {
        let own = model.join(format!("members/{member}"));
        assert!(own.join("adapter_model.safetensors").is_file() && !own.join("model.safetensors").exists());
    }
    let data = rows(&files, "t.jsonl", &[json!({ "prompt": "please plan", "completion": " a meal" })]);
    assert!(scores(&model, &data)[0].is_finite());
    // One member alone, as PEFT would have it.
    let alone = works(&[
        "score",
        "--model",
        &at("sft-a/model"),
        "--adapter",
        model.join("members/1").to_str().unwrap(),
        "--data",
        &data,
    ]);
    assert!(alone.json()[0]["score"].as_f64().unwrap().is_finite());
}

#[test]
fn an_ensemble_that_was_stopped_goes_on_to_the_same_members() {
    let files = [folder(), folder()];
    let recipes = files.each_ref().map(|files| ensemble(files, ""));
    works(&["reward", &recipes[0]]);
    // The second run lost its last member while it was trained, and everything after it.
    works(&["reward", &recipes[1]]);
    let out = files[1].path().join("out");
    for gone in ["stage.json", "model/ensemble.json", "member-2/stage.json"] {
        fs::remove_file(out.join(gone)).unwrap();
    }
    fs::remove_dir_all(out.join("model/members/2")).unwrap();
    fs::remove_dir_all(out.join("member-2/checkpoints")).unwrap();
    works(&["reward", &recipes[1], "--resume"]);
    let [first, second] = files.each_ref().map(|files| hashes(&files.path().join("out/model")));
    assert_eq!(first, second);
}

#[test]
fn best_of_n_picks_by_every_aggregate_and_resumes_where_it_was() {
    let files = folder();
    works(&["reward", &ensemble(&files, "")]);
    let recipe = format!(
        "output_dir = \"{}\"\naggregates = [{{ kind = \"mean\" }}, {{ kind = \"wco\" }}]\n\
         [sample]\nmodel = \"{}\"\nn = 6\nreward = \"{}\"\ngold = \"{}\"\nprompts = {{ path = \"{}\", max_rows = 3 }}\n\
         sampling = {{ max_new_tokens = 6 }}\n",
        files.path().join("bon").display(),
        at("sft-a/model"),
        files.path().join("out/model").display(),
        at("world"),
        at("world/held_out.jsonl"),
    );
    let recipe = text(&files, "bon.toml", &recipe);
    let said = works(&["bon", &recipe]);
    assert!(said.out.contains("single") && said.out.contains("WCO"), "{}", said.out);
    let bon = files.path().join("bon");
    let found = read(&bon.join("best_of_n.json"));
    assert_eq!((found["prompts"].as_u64(), found["answers"].as_u64()), (Some(3), Some(6)));
    let lines = |name: &str| -> Vec<Value> {
        let text = fs::read_to_string(bon.join(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (scores, best) = (lines("scores.jsonl"), lines("best.jsonl"));
    // At N the winner's gold is the curve's last point, and the mean's winner is the answer kept.
    let numbers = |value: &Value| -> Vec<f64> {
        value.as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect()
    };
    let mut gold_of_best = 0.0;
    for (row, best) in scores.iter().zip(&best) {
        let members: Vec<Vec<f64>> = row["members"].as_array().unwrap().iter().map(numbers).collect();
        let mean: Vec<f64> = (0..6).map(|at| members.iter().map(|m| m[at]).sum::<f64>() / 3.0).collect();
        let winner = (0..6).max_by(|&a, &b| mean[a].total_cmp(&mean[b])).unwrap();
        assert!((best["score"].as_f64().unwrap() - mean[winner]).abs() < 1e-9);
        gold_of_best += numbers(&row["gold"])[winner] / 3.0;
    }
    let selector = &found["selectors"][1];
    assert_eq!(selector["name"], "mean");
    let last = selector["points"].as_array().unwrap().last().unwrap();
    assert_eq!(last["n"], 6);
    let tied = selector["tied"].as_f64().unwrap() > 0.0;
    assert!(tied || (last["gold"]["mean"].as_f64().unwrap() - gold_of_best).abs() < 1e-9, "{last}");
    assert_eq!(fs::read_to_string(bon.join("curves.csv")).unwrap().lines().count(), 1 + 3 * 6);
    let report = fs::read_to_string(bon.join("report.html")).unwrap();
    assert!(report.contains("Best of n") && report.contains("√KL"));

    // A run cut off in the middle of a line goes on to the same scores.
    let before = hashes(&bon);
    let whole = fs::read_to_string(bon.join("scores.jsonl")).unwrap();
    let cut = whole.match_indices('\n').nth(1).unwrap().0 + 20;
    fs::write(bon.join("scores.jsonl"), &whole[..cut]).unwrap();
    fs::remove_file(bon.join("stage.json")).unwrap();
    works(&["bon", &recipe, "--resume"]);
    let after = hashes(&bon);
    for name in ["scores.jsonl", "best.jsonl", "curves.csv", "best_of_n.json"] {
        assert_eq!(before[name], after[name], "{name}");
    }
}

#[test]
fn a_file_of_scores_is_enough_for_the_curve() {
    let files = folder();
    let bon = |scores: &str, more: &str| -> Ended {
        let out = files.path().join("bon").display().to_string();
        let recipe =
            text(&files, "r.toml", &format!("output_dir = \"{out}\"\nscores = \"{scores}\"\n{more}"));
        align(&["bon", &recipe, "--overwrite"])
    };
    let proxy = json!([0.3, -1.2, 2.5, 0.9, 1.7, -0.4]);
    let gold = json!([0.1, -0.8, -2.0, 1.1, 0.6, 0.0]);
    let good = rows(&files, "s.jsonl", &[json!({ "proxy": proxy, "gold": gold })]);
    assert_eq!(bon(&good, "").code, Some(0));
    let found = read(&files.path().join("bon/best_of_n.json"));
    let points = found["selectors"][0]["points"].as_array().unwrap();
    let curve: Vec<f64> = points.iter().map(|point| point["gold"]["mean"].as_f64().unwrap()).collect();
    let expected = [-0.166666667, -0.273333333, -0.65, -1.1, -1.566666667, -2.0];
    let ns: Vec<u64> = points.iter().map(|point| point["n"].as_u64().unwrap()).collect();
    for (n, found) in ns.iter().zip(&curve) {
        assert!((found - expected[*n as usize - 1]).abs() < 1e-8, "{n}: {found}");
    }

    let bad = |name: &str, lines: &[Value], parts: &[&str]| {
        let _ = fs::remove_dir_all(files.path().join("bon"));
        bon(&rows(&files, name, lines), "").refuses(parts);
    };
    bad(
        "a.jsonl",
        &[json!({ "proxy": [1.0, 2.0] }), json!({ "proxy": [1.0] })],
        &["cannot use row 2", "expected 2 answers as in row 1, found 1"],
    );
    bad(
        "b.jsonl",
        &[json!({ "members": [[1.0, 2.0], [1.0]] })],
        &["cannot use row 1", "member 1 scored 1 rows, expected 2"],
    );
    bad("c.jsonl", &[json!({ "proxy": [1.0, 2.0], "gold": [1.0] })], &["expected 2 gold scores, found 1"]);
    bad("d.jsonl", &[], &["holds no scores, expected at least one row"]);
    let _ = fs::remove_dir_all(files.path().join("bon"));
    let both = text(&files, "r.toml", &format!("output_dir = \"{}\"\n", files.path().join("bon").display()));
    align(&["bon", &both]).refuses(&["needs either `scores`, a file of scores, or `[sample]`"]);
}

#[test]
fn what_an_ensemble_cannot_be_is_refused() {
    let files = folder();
    let recipe = ensemble(&files, "");
    let with = |change: &str| {
        let _ = fs::remove_dir_all(files.path().join("out"));
        align(&["reward", &recipe, change])
    };
    with("ensemble.members=1").refuses(&["`ensemble.members` is 1, expected at least 2"]);
    with("ensemble.aggregate.lambda=-0.5").refuses(&["expected a finite number >= 0, found -0.5"]);
    with("label_noise.rate=0.5").refuses(&["expected a number in [0, 0.5), found 0.5"]);
    with("ensemble.aggregate.kind=mode").refuses(&["unknown variant `mode`"]);
    // One model has nothing to aggregate.
    let one = format!(
        "output_dir = \"{}\"\narms = {{ a = \"{}\" }}\nreward = \"{}\"\naggregate = {{ kind = \"wco\" }}\nprompts = {{ path = \"{}\" }}\n",
        files.path().join("eval").display(),
        at("sft-a/model"),
        at("reward/model"),
        at("world/held_out.jsonl"),
    );
    align(&["eval", &text(&files, "e.toml", &one)]).refuses(&["holds one reward model", "needs an ensemble"]);

    // A damaged manifest, and members of different vocabularies.
    let _ = fs::remove_dir_all(files.path().join("out"));
    works(&["reward", &recipe]);
    let model = files.path().join("out/model");
    let data = rows(&files, "t.jsonl", &[json!({ "prompt": "please plan", "completion": " of" })]);
    let score = || align(&["score", "--model", model.to_str().unwrap(), "--data", &data]);
    let manifest = fs::read_to_string(model.join("ensemble.json")).unwrap();
    change(&model.join("ensemble.json"), |map| drop(map.insert("format".into(), json!(7))));
    score().refuses(&["ensemble.json has form 7, expected 1"]);
    fs::write(model.join("ensemble.json"), &manifest[..40]).unwrap();
    score().refuses(&["ensemble.json is damaged: expected the manifest of an ensemble"]);
    fs::write(model.join("ensemble.json"), manifest).unwrap();
    let template = model.join("members/2/tokenizer_config.json");
    let own = fs::read_to_string(&template).unwrap();
    change(&template, |map| drop(map.insert("chat_template".into(), json!("{{ messages }}"))));
    score().refuses(&["member 2 has another chat template than member 0", "members/2"]);
    fs::write(&template, own).unwrap();
    let tokenizer = model.join("members/1/tokenizer.json");
    let own = fs::read_to_string(&tokenizer).unwrap();
    fs::write(&tokenizer, own.replacen("please", "pleased", 1)).unwrap();
    score().refuses(&["member 1 has another tokenizer than member 0"]);
    fs::remove_dir_all(model.join("members/1")).unwrap();
    score().refuses(&["cannot load member 1 of the ensemble"]);
}
